//! What an ELF file says of itself: its architecture, and the Go version it was built with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use kmt_reporters::event::Arch;

use crate::run::gotest::Framing;

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
const ALIGN: usize = 16;
const HEADER: usize = 32;

/// Whether the file begins as ELF files do.
pub fn is_elf(file: &Path) -> bool {
    start(file).is_some()
}

/// The architecture of an ELF file, where it is one of ours.
pub fn architecture(file: &Path) -> Option<Arch> {
    match u16::from_le_bytes([start(file)?[18], start(file)?[19]]) {
        62 => Some(Arch::X86_64),
        183 => Some(Arch::Arm64),
        _ => None,
    }
}

fn start(file: &Path) -> Option<[u8; 20]> {
    let mut bytes = [0; 20];
    File::open(file).ok()?.read_exact(&mut bytes).ok()?;
    bytes.starts_with(b"\x7fELF").then_some(bytes)
}

/// The language a test binary speaks; plain where its version cannot be found, for every binary knows that.
pub fn framing(file: &Path) -> std::io::Result<Framing> {
    Ok(go_version(file)?.as_deref().map_or(Framing::Plain, framing_of))
}

/// The language of a Go version such as `go1.19.8`, `go1.20-rc1 X:foo` or `devel go1.21-abc`.
pub fn framing_of(version: &str) -> Framing {
    let mut numbers = version.trim_start_matches("devel ").strip_prefix("go").unwrap_or_default().split('.');
    let major = numbers.next().and_then(|text| text.parse::<u32>().ok());
    let minor =
        numbers.next().map(|text| text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    match (major, minor.and_then(|text| text.parse::<u32>().ok())) {
        (Some(major), minor) if (major, minor.unwrap_or(0)) >= (1, 20) => Framing::Test2json,
        (None, _) if version.starts_with("devel") => Framing::Test2json,
        _ => Framing::Plain,
    }
}

/// The version of Go that built a binary, if it says so. Binaries of Go before 1.18 hold it behind pointers;
/// those count as not saying so.
pub fn go_version(file: &Path) -> std::io::Result<Option<String>> {
    let mut file = File::open(file)?;
    let mut window = Vec::with_capacity(2 << 20);
    loop {
        let before = window.len();
        file.by_ref().take(1 << 20).read_to_end(&mut window)?;
        let ended = window.len() == before;
        if let Some(version) = find(&window) {
            return Ok(version);
        }
        if ended {
            return Ok(None);
        }
        // Keep an aligned tail: the mark is aligned in the file, as sections are.
        let keep = window.len().min(4096 + window.len() % ALIGN);
        window.drain(..window.len() - keep);
    }
}

/// `Some(None)`: the mark is here, without a version inside. A mark too near to the end is left for later.
fn find(window: &[u8]) -> Option<Option<String>> {
    let mut at = 0;
    while at + HEADER + 64 <= window.len() {
        if window[at..].starts_with(MAGIC) {
            // The mark also lies in binaries that look for it: there no version follows.
            match (window[at + 14], window[at + 15]) {
                (_, 2 | 3) => {
                    let text = inline_text(&window[at + HEADER..]);
                    if let Some(text) =
                        text.filter(|text| text.starts_with("go") || text.starts_with("devel"))
                    {
                        return Some(Some(text));
                    }
                }
                (4 | 8, 0 | 1) => return Some(None),
                _ => {}
            }
        }
        at += ALIGN;
    }
    None
}

fn inline_text(bytes: &[u8]) -> Option<String> {
    let (mut length, mut used) = (0usize, 0usize);
    for &byte in bytes.iter().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * used);
        used += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let text = bytes.get(used..used.checked_add(length)?)?;
    String::from_utf8(text.to_vec()).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_choose_the_language() {
        for (version, framing) in [
            ("go1.19.8", Framing::Plain),
            ("go1.20", Framing::Test2json),
            ("go1.20rc1", Framing::Test2json),
            ("go1.27.3 X:nocoverageredesign", Framing::Test2json),
            ("go1.4", Framing::Plain),
            ("go2.0", Framing::Test2json),
            ("devel go1.21-deadbeef Mon", Framing::Test2json),
            ("devel +abc", Framing::Test2json),
            ("go1.9-something", Framing::Plain),
            ("", Framing::Plain),
        ] {
            assert_eq!(framing_of(version), framing, "{version}");
        }
    }

    #[test]
    fn the_mark_is_found_across_reads_and_noise_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("binary");
        for offset in [0, 16, (1 << 20) - 16, (1 << 20) - 64, 3 << 20] {
            let mut bytes = vec![0u8; offset];
            bytes.extend_from_slice(MAGIC);
            bytes.extend_from_slice(&[8, 2]);
            bytes.extend_from_slice(&[0; 16]);
            bytes.extend_from_slice(b"\x08go1.21.5\x00");
            bytes.resize(bytes.len() + 500, 0);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(go_version(&path).unwrap().as_deref(), Some("go1.21.5"), "{offset}");
        }
        std::fs::write(&path, b"\x7fELF").unwrap();
        assert_eq!(go_version(&path).unwrap(), None);
        assert!(!is_elf(&path));
    }
}
