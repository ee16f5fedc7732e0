//! The memory of a guest in a file, and the port on which a guest that goes on from it is told who it is.
//!
//! libvirt's file is a header, the XML of the domain, and what QEMU wrote. libvirt refuses to restore it under another
//! name or uuid; but it believes the XML in the file, and QEMU's part knows nothing of names, paths and ports. A guest
//! that goes on as somebody else gets a copy of the file with its own XML in front.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use virt::domain::Domain;

use super::DomainSpec;
use crate::external::{self, Class, Error};

/// First bytes of a file of libvirt's that is whole.
const MAGIC: &[u8; 16] = b"LibvirtQemudSave";
/// Version of the form, and bytes before the XML: the magic, five numbers and fourteen that are not used.
const VERSION: u32 = 2;
const HEADER: usize = 16 + 4 * (5 + 14);
/// The longest XML that is believed.
const LONGEST: u32 = 16 << 20;

/// Writes a domain's memory to `file` and ends QEMU.
#[expect(unsafe_code, reason = "`virt` 0.5 has no call for it")]
pub(super) fn save(domain: &Domain, file: &Path) -> Result<(), virt::error::Error> {
    let file = CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: `domain` holds a reference to the domain, and `file` ends with a zero; both outlive the call, which keeps
    // neither.
    let done = unsafe { virt::sys::virDomainSave(domain.as_ptr(), file.as_ptr()) };
    if done < 0 { Err(virt::error::Error::last_error()) } else { Ok(()) }
}

/// Copies the memory in `from` to `to`, with another domain's XML in front.
pub(super) async fn with_description(from: &Path, xml: &str, to: &Path) -> external::Result<()> {
    let (from, xml, to) = (from.to_path_buf(), xml.to_owned(), to.to_path_buf());
    let name = from.display().to_string();
    let copied = tokio::task::spawn_blocking(move || {
        let mut memory = File::open(&from)?;
        let _ = std::fs::remove_file(&to);
        let mut copy = File::options().write(true).create_new(true).mode(0o600).open(&to)?;
        let header = described(&mut memory, &xml)?;
        copy.write_all(&header)?;
        // The kernel copies, where the file system can.
        std::io::copy(&mut memory, &mut copy).map(drop)
    });
    let fail = |error: std::io::Error| Error::io("file system", "copy the memory in", name.as_str(), &error);
    copied.await.map_err(|error| fail(std::io::Error::other(error)))?.map_err(fail)
}

/// The header and XML to put before QEMU's part, at which `memory` stands afterwards.
fn described(memory: &mut (impl Read + Seek), xml: &str) -> std::io::Result<Vec<u8>> {
    let wrong = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut header = [0; HEADER];
    memory.read_exact(&mut header)?;
    let number = |at: usize| {
        let bytes = header[16 + 4 * at..20 + 4 * at].iter().rev();
        bytes.fold(0u32, |number, byte| number << 8 | u32::from(*byte))
    };
    let (version, length, compressed) = (number(0), number(1), number(3));
    if &header[..16] != MAGIC || version != VERSION || compressed != 0 || length > LONGEST {
        return Err(wrong("it is not the plain memory of a guest as libvirt writes it"));
    }
    memory.seek(SeekFrom::Current(i64::from(length)))?;
    let size = u32::try_from(xml.len() + 1).map_err(|_| wrong("the description is too long"))?;
    let mut text = header.to_vec();
    // Its length; that it runs; no cookie, which holds what libvirt works out again.
    for (at, value) in [(1, size), (2, 1), (4, 0)] {
        text[16 + 4 * at..20 + 4 * at].copy_from_slice(&u32::to_le_bytes(value));
    }
    text.extend_from_slice(xml.as_bytes());
    text.push(0);
    Ok(text)
}

fn pipe(pipes: &Path, end: &str) -> PathBuf {
    let mut name = pipes.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Makes the two pipes that QEMU opens behind a guest's port.
pub(super) fn make_pipes(pipes: Option<&Path>) -> external::Result<Vec<PathBuf>> {
    let Some(pipes) = pipes else { return Ok(Vec::new()) };
    let made = [".in", ".out"].map(|end| {
        let file = pipe(pipes, end);
        if std::fs::symlink_metadata(&file).is_ok_and(|found| found.file_type().is_fifo()) {
            return Ok(file);
        }
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        match rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0) {
            Ok(()) => Ok(file),
            Err(error) => {
                let subject = file.display().to_string();
                Err(Error::io("file system", "make the pipe", subject, &error.into()))
            }
        }
    });
    made.into_iter().collect()
}

/// Writes to the pipe that QEMU reads; nothing waits for a QEMU that is gone.
pub(super) fn tell(spec: &DomainSpec, words: &[u8]) -> external::Result<()> {
    let refused = |why: String| Error::new("QEMU", "tell", spec.name.as_str(), Class::Unreachable, why);
    let Some(pipes) = &spec.identity else { return Err(refused("it has no port for that".to_owned())) };
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = File::options().write(true).custom_flags(nonblocking).open(pipe(pipes, ".in"));
    opened.and_then(|mut pipe| pipe.write_all(words)).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn file(version: u32, compressed: u32) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [version, 12, 0, compressed, 5] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.resize(HEADER, 0);
        bytes.extend(b"<old/>\0pad\0\0QEVM and so on");
        bytes
    }

    #[test]
    fn the_description_changes_and_the_memory_stays() {
        let mut memory = Cursor::new(file(VERSION, 0));
        let header = described(&mut memory, "<domain>new and longer</domain>").unwrap();
        let mut rest = Vec::new();
        memory.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"QEVM and so on");
        assert_eq!(&header[..16], MAGIC);
        assert_eq!(header[20..24], 32u32.to_le_bytes(), "the length of the XML and its zero");
        assert_eq!(header[24..28], 1u32.to_le_bytes(), "it runs");
        assert_eq!(header[32..36], 0u32.to_le_bytes(), "no cookie");
        assert_eq!(&header[HEADER..], b"<domain>new and longer</domain>\0");
    }

    #[test]
    fn what_libvirt_did_not_write_whole_is_refused() {
        for broken in [b"LibvirtQemudPart".repeat(20), file(1, 0), file(VERSION, 1), b"short".to_vec()] {
            assert!(described(&mut Cursor::new(broken), "<domain/>").is_err());
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let pipes = folder.path().join("identity");
        assert_eq!(make_pipes(Some(&pipes)).unwrap(), make_pipes(Some(&pipes)).unwrap());
        let opened = File::options()
            .write(true)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap())
            .open(pipe(&pipes, ".in"));
        assert!(opened.is_err());
        assert!(make_pipes(Some(Path::new("/nowhere/identity"))).is_err());
    }
}
