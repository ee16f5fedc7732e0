//! Archives as the kernel unpacks them into its first root: cpio's `newc` form.

use std::collections::BTreeMap;

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A folder.
    Folder,
    /// A file with its mode and content.
    File(u32, Vec<u8>),
    /// A symbolic link.
    Link(String),
    /// A character device: major, minor.
    Device(u32, u32),
}

/// An archive to be, by path without a leading slash; folders above an entry come by themselves.
#[derive(Debug, Default)]
pub(super) struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds an entry, and the folders above it.
    pub(super) fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Folder);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The archive's bytes: sorted, owned by root, without times, a multiple of 512 long so that another
    /// archive can follow.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let inode = number as u32 + 1;
            match entry {
                Entry::Folder => header(&mut out, path, inode, 0o040_755, (0, 0), &[]),
                Entry::File(mode, content) => {
                    header(&mut out, path, inode, 0o100_000 | (mode & 0o7777), (0, 0), content);
                }
                Entry::Link(target) => header(&mut out, path, inode, 0o120_777, (0, 0), target.as_bytes()),
                Entry::Device(major, minor) => {
                    header(&mut out, path, inode, 0o020_600, (*major, *minor), &[])
                }
            }
        }
        header(&mut out, "TRAILER!!!", 0, 0, (0, 0), &[]);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn header(out: &mut Vec<u8>, name: &str, inode: u32, mode: u32, device: (u32, u32), content: &[u8]) {
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let size = content.len() as u32;
    let name_size = name.len() as u32 + 1;
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// An archive of files, each a path, its mode and its content.
pub fn newc(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Archive::default();
    for (path, mode, content) in files {
        archive.add(path, Entry::File(*mode, content.to_vec()));
    }
    archive.bytes()
}

/// What makes a machine itself, to be appended to an image's initrd: each file (path in the guest, such as
/// `/etc/ssh/ssh_host_ed25519_key`, its mode, its content) is laid onto the root filesystem at boot, owned by
/// root. The result begins and ends at a multiple of four bytes, as the kernel wants it.
pub fn identity_cpio(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.add("kmt", Entry::Folder);
    for (path, mode, content) in files {
        archive.add(&format!("kmt/{}", path.trim_start_matches('/')), Entry::File(*mode, content.to_vec()));
    }
    archive.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: (path, mode, content).
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&bytes[6 + n * 8..14 + n * 8]).unwrap(), 16).unwrap()
                    as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode as u32, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn an_identity_keeps_paths_modes_and_bytes() {
        let bytes = identity_cpio(&[
            ("/etc/ssh/ssh_host_ed25519_key", 0o600, b"secret"),
            ("/etc/hostname", 0o644, b"one\n"),
        ]);
        assert_eq!(bytes.len() % 512, 0);
        let found = read(&bytes);
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        let ssh = "kmt/etc/ssh/ssh_host_ed25519_key";
        assert_eq!(names, ["kmt", "kmt/etc", "kmt/etc/hostname", "kmt/etc/ssh", ssh]);
        assert_eq!(found[4], (ssh.to_owned(), 0o100_600, b"secret".to_vec()));
        assert_eq!(found[0].1, 0o040_755);
    }

    #[test]
    fn the_same_files_make_the_same_bytes_in_whatever_order() {
        let a: (&str, u32, &[u8]) = ("/a", 0o644, b"1");
        let b: (&str, u32, &[u8]) = ("/b", 0o644, b"22");
        assert_eq!(newc(&[a, b]), newc(&[b, a]));
    }

    #[test]
    fn links_and_devices_are_written() {
        let mut archive = Archive::default();
        archive.add("dev/console", Entry::Device(5, 1));
        archive.add("bin/sh", Entry::Link("busybox".into()));
        let found = read(&archive.bytes());
        assert_eq!(found[1], ("bin/sh".into(), 0o120_777, b"busybox".to_vec()));
        assert_eq!(found[3].1, 0o020_600);
    }
}
