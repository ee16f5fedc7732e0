//! Who a machine is that boots by itself: a small disk that cloud-init reads (its source `NoCloud`), with the same keys,
//! name and id that others find in their initial RAM file system.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::stack::{Keys, MachineRecord};

/// Size of the disk, bytes.
const SIZE: u64 = 1 << 20;
/// The label by which cloud-init finds it.
const LABEL: [u8; 11] = *b"CIDATA     ";

/// The disk of a machine in `folder`.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("seed.img")
}

/// Writes it.
pub(super) fn write(folder: &Path, record: &MachineRecord, login: &Keys, host_key: &Keys) -> Result<PathBuf> {
    let private = std::fs::read_to_string(&host_key.private)
        .map_err(|error| Failure::file("read", &host_key.private, &error))?;
    let name = record.id.replace(['_', '@', '+', '.'], "-");
    let meta = format!("instance-id: {}\nlocal-hostname: {name}\n", record.uuid);
    let user = user_data(&private, &host_key.public, &login.public);
    let path = path(folder);
    fill(&path, &[("meta-data", meta.as_bytes()), ("user-data", user.as_bytes())])
        .map_err(|error| Failure::file("write", &path, &error))?;
    Ok(path)
}

fn user_data(private: &str, public: &str, login: &str) -> String {
    let private: String = private.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "#cloud-config\ndisable_root: false\nssh_pwauth: false\nssh_deletekeys: true\nssh_genkeytypes: []\n\
         ssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: {public}\n\
         users:\n  - name: root\n    lock_passwd: true\n    ssh_authorized_keys:\n      - {login}\n"
    )
}

/// A FAT file system with these files.
fn fill(path: &Path, files: &[(&str, &[u8])]) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    let options = File::options().read(true).write(true).create_new(true).open(path);
    let mut disk = options?;
    disk.set_len(SIZE)?;
    fatfs::format_volume(&mut disk, fatfs::FormatVolumeOptions::new().volume_label(LABEL))?;
    let system = fatfs::FileSystem::new(disk, fatfs::FsOptions::new())?;
    for (name, bytes) in files {
        let mut file = system.root_dir().create_file(name)?;
        file.write_all(bytes)?;
        file.flush()?;
    }
    system.unmount()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn cloud_init_finds_its_label_and_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        let text = user_data("-----BEGIN\nAAAA\n", "ssh-ed25519 HOST", "ssh-ed25519 LOGIN");
        fill(&path, &[("meta-data", b"instance-id: 1\n"), ("user-data", text.as_bytes())]).unwrap();
        let disk =
            fatfs::FileSystem::new(File::open(&path).map(Reading).unwrap(), fatfs::FsOptions::new()).unwrap();
        assert_eq!(disk.volume_label(), "CIDATA");
        let mut found = String::new();
        disk.root_dir().open_file("user-data").unwrap().read_to_string(&mut found).unwrap();
        assert_eq!(found, text);
        assert!(found.contains(
            "  ed25519_private: |\n    -----BEGIN\n    AAAA\n  ed25519_public: ssh-ed25519 HOST\n"
        ));
        assert!(found.ends_with("      - ssh-ed25519 LOGIN\n"));
    }

    /// A file that is only read.
    struct Reading(File);

    impl std::io::Read for Reading {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl std::io::Write for Reading {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl std::io::Seek for Reading {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
}
