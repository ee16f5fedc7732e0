//! Archives and files of others: limited, and nothing of them is ever unpacked to a path.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// Longest file that is read whole, bytes.
pub const FILE: u64 = 32 << 20;
/// Most bytes that an archive may unpack to.
pub const UNPACKED: u64 = 256 << 20;
/// Bytes of it that are read at once.
const BUFFER: usize = 128 << 10;
/// Most entries.
pub const ENTRIES: usize = 20_000;

/// Calls `each` with the name and bytes of every regular file that `wanted` names, one at a time. What could not be
/// read is said in a line; what came before it was given.
pub fn each_file(
    path: &Path,
    wanted: impl Fn(&str) -> bool,
    mut each: impl FnMut(&str, Vec<u8>),
) -> Option<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return Some(format!("cannot be read: {error}")),
    };
    let unpacked = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file)).take(UNPACKED);
    let mut archive = tar::Archive::new(unpacked);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => return Some(format!("is no archive: {error}")),
    };
    let mut count = 0;
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Some(broken(count, &error)),
        };
        count += 1;
        if count > ENTRIES {
            return Some(format!("has more than {ENTRIES} entries; the rest was left"));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !entry.header().entry_type().is_file() || !wanted(&name) {
            continue;
        }
        if entry.size() > FILE {
            return Some(format!("has a file of {} bytes; the rest was left", entry.size()));
        }
        let mut bytes = Vec::new();
        if let Err(error) = entry.read_to_end(&mut bytes) {
            return Some(broken(count, &error));
        }
        if (bytes.len() as u64) < entry.size() {
            return Some(format!("ends within `{name}`, or unpacks to more than {UNPACKED} bytes"));
        }
        each(&name, bytes);
    }
    (count == 0).then(|| "is empty".to_owned())
}

fn broken(count: usize, error: &std::io::Error) -> String {
    match count {
        0 => format!("is broken: {error}"),
        count => format!("is broken after {count} entries: {error}"),
    }
}

/// A file that is not longer than [`FILE`], as bytes.
pub fn whole(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    let read = file.take(FILE + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE { Err(format!("is longer than {FILE} bytes")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive =
            tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // A path as an attacker writes it: the crate would refuse.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, *bytes).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    fn read(bytes: &[u8]) -> (Vec<String>, Option<String>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut names = Vec::new();
        let trouble =
            each_file(file.path(), |name| name.ends_with(".xml"), |name, _| names.push(name.to_owned()));
        (names, trouble)
    }

    #[test]
    fn only_what_is_wanted_is_read_and_nothing_is_unpacked() {
        let (names, trouble) = read(&packed(&[("../../etc/a.xml", b"x"), ("b.txt", b"y"), ("c.xml", b"z")]));
        assert_eq!((names.len(), trouble), (2, None));
    }

    #[test]
    fn what_is_broken_is_said_and_the_rest_goes_on() {
        let whole = packed(&[("a.xml", b"x"), ("b.xml", &[7; 5000])]);
        let (_, trouble) = read(&whole[..whole.len() - 30]);
        assert!(trouble.unwrap().contains("broken"));
        assert!(read(b"<html>502</html>").1.unwrap().contains("broken"));
        assert!(read(b"").1.is_some());
        let bomb = vec![0; usize::try_from(FILE).unwrap() + 1];
        assert!(read(&packed(&[("a.xml", &bomb)])).1.unwrap().contains("the rest was left"));
    }
}
