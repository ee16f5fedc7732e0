//! Files with holes: only their data travels, in parts that the guest puts together.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{SeekFrom, seek};

/// Bytes of a block: parts begin at a multiple.
pub(super) const BLOCK: u64 = 4096;
/// A hole that is worth the trouble.
const WORTH: u64 = 1 << 20;
/// A file of more parts is sent whole: each costs the guest a process.
const PARTS: usize = 64;

/// Offset and length of each part of `file` that holds data; nothing where it is not worth it. Offsets are multiples of
/// [`BLOCK`].
pub(super) fn parts(file: &File, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
    let meta = file.metadata()?;
    if meta.blocks().saturating_mul(512).saturating_add(WORTH) > size {
        return Ok(None);
    }
    let (mut parts, mut at): (Vec<(u64, u64)>, u64) = (Vec::new(), 0);
    while at < size {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin / BLOCK * BLOCK,
            // The rest is a hole.
            Err(rustix::io::Errno::NXIO) => break,
            // This file system does not tell.
            Err(_) => return Ok(None),
        };
        let Ok(end) = seek(file, SeekFrom::Hole(begin)) else { return Ok(None) };
        let end = end.next_multiple_of(BLOCK).min(size);
        parts.push((begin, end - begin));
        if parts.len() > PARTS || end <= at {
            return Ok(None);
        }
        at = end;
    }
    Ok(Some(parts))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn only_data_is_a_part() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", (8 << 20) + 100).unwrap();
        file.set_len(64 << 20).unwrap();
        let Some(found) = parts(&file, 64 << 20).unwrap() else {
            println!("this file system has no holes");
            return;
        };
        assert!(found.iter().all(|(offset, _)| offset % BLOCK == 0), "{found:?}");
        assert!(found.iter().any(|(offset, length)| *offset <= 8 << 20 && offset + length > (8 << 20) + 105));
        assert!(found.iter().map(|(_, length)| length).sum::<u64>() < 1 << 20, "{found:?}");
        assert_eq!(parts(&tempfile::tempfile().unwrap(), 0).unwrap(), None);
    }
}
