//! A packed file, unpacked on as many processors as its packing allows.
//!
//! xz is unpacked by blocks, where whoever packed it made several (`xz -T0` does). zstd has no such way, and is ten times
//! as fast on one.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes at once.
const CHUNK: usize = 1 << 20;
/// Memory for threads of xz, bytes: past it there are fewer threads.
const MEMORY: u64 = 2 << 30;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Xz,
    Zstd,
    Plain,
}

/// By its first bytes.
fn packing(head: &[u8]) -> Result<Packing, String> {
    match head {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Packing::Xz),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Packing::Zstd),
        _ if head.trim_ascii_start().starts_with(b"<") => Err("it is a web page, not an image".to_owned()),
        [] => Err("it is empty".to_owned()),
        _ => Ok(Packing::Plain),
    }
}

/// Unpacks `packed` into `target`; returns its size. Zeros become holes.
///
/// # Errors
/// It cannot be read or written, or is not whole; `InvalidData` where it is no packed file.
pub fn unpack(packed: &Path, target: &Path) -> io::Result<u64> {
    let mut input = File::open(packed)?;
    let mut head = [0; 16];
    let length = input.read(&mut head)?;
    input.seek(SeekFrom::Start(0))?;
    let input = BufReader::with_capacity(CHUNK, input);
    let mut output = File::create(target)?;
    match packing(&head[..length]).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))? {
        Packing::Plain => copy(input, &mut output),
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            // Images are packed with windows as large as zstd allows.
            decoder.window_log_max(31)?;
            copy(decoder, &mut output)
        }
        Packing::Xz => {
            let threads =
                std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
            let stream = liblzma::stream::MtStreamBuilder::new()
                .threads(threads)
                .memlimit_threading(MEMORY)
                .memlimit_stop(u64::MAX)
                .decoder()
                .map_err(io::Error::from)?;
            copy(liblzma::bufread::XzDecoder::new_stream(input, stream), &mut output)
        }
    }
}

/// Copies all of it; pieces of zeros are left out of the file.
fn copy(mut input: impl Read, output: &mut File) -> io::Result<u64> {
    let (mut size, mut buffer) = (0, vec![0; CHUNK]);
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            output.set_len(size)?;
            return Ok(size);
        }
        for piece in buffer[..filled].chunks(64 << 10) {
            if piece.iter().all(|byte| *byte == 0) {
                output.seek(SeekFrom::Current(piece.len() as i64))?;
            } else {
                output.write_all(piece)?;
            }
        }
        size += filled as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::objects::tests::Folder;
    use super::*;

    fn content() -> Vec<u8> {
        let mut bytes: Vec<u8> =
            (0..3_000_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()).collect();
        bytes.extend(vec![0; 1 << 20]);
        bytes
    }

    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let folder = Folder::new();
        let (from, to) = (folder.0.join("from"), folder.0.join("to"));
        std::fs::write(&from, packed).unwrap();
        unpack(&from, &to).map(|size| {
            let bytes = std::fs::read(&to).unwrap();
            assert_eq!(bytes.len() as u64, size);
            bytes
        })
    }

    #[test]
    fn each_packing_gives_the_same_bytes() {
        let content = content();
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new_parallel(&content[..], 0).read_to_end(&mut xz).unwrap();
        let zstd = zstd::encode_all(&content[..], 1).unwrap();
        for packed in [&xz, &zstd, &content] {
            assert!(unpacked(packed).unwrap() == content);
        }
        for packed in [&xz, &zstd] {
            assert!(unpacked(&packed[..packed.len() / 2]).is_err(), "half of it");
        }
    }

    #[test]
    fn a_web_page_is_no_image() {
        assert!(unpacked(b"\n <!DOCTYPE html>").unwrap_err().to_string().contains("web page"));
        assert!(unpacked(b"").unwrap_err().to_string().contains("empty"));
    }
}
