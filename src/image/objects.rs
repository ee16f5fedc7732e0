//! Files named by their content, and the memory of which were found right.
//!
//! Hashing a root filesystem at each run would cost a second. What was hashed is remembered by what the file
//! system changes whenever the file is: size, times, inode. Only where those differ it is hashed again.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::ImageError;
use super::manifest::{FileRecord, sync_folder, write_whole};

/// The folder of content-addressed files.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    folder: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    sha256: String,
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Objects {
    pub(super) fn new(images: &Path) -> Objects {
        Objects { folder: images.join("objects") }
    }

    /// Where the file of a record lies.
    pub(super) fn path(&self, record: &FileRecord) -> PathBuf {
        self.folder.join(&record.name)
    }

    /// Takes a finished file into the store: hashed, synced, read-only, renamed. `role` ends its name.
    pub(super) fn take(&self, file: &Path, role: &str) -> Result<FileRecord, ImageError> {
        fs::create_dir_all(&self.folder).map_err(ImageError::io("make", &self.folder))?;
        let (sha256, size) = hash(file)?;
        let record = FileRecord { name: format!("{sha256}.{role}"), sha256, size };
        let target = self.path(&record);
        if self.check(&record).is_err() {
            let opened = File::open(file).map_err(ImageError::io("open", file))?;
            opened.sync_all().map_err(ImageError::io("sync", file))?;
            let mode = fs::Permissions::from_mode(0o444);
            fs::set_permissions(file, mode).map_err(ImageError::io("protect", file))?;
            fs::rename(file, &target).map_err(ImageError::io("rename", file))?;
            sync_folder(&target)?;
            self.remember(&record)?;
        }
        Ok(record)
    }

    /// Whether the file is there with its size; cheap and no proof.
    pub(super) fn looks_right(&self, record: &FileRecord) -> bool {
        fs::metadata(self.path(record)).is_ok_and(|found| found.is_file() && found.len() == record.size)
    }

    /// Whether the file is what the record says; hashed where it changed since it was last hashed.
    pub(super) fn check(&self, record: &FileRecord) -> Result<(), ImageError> {
        if self.seen(record).is_some_and(|seen| self.stat(record).is_ok_and(|now| now == seen)) {
            return Ok(());
        }
        self.check_content(record)
    }

    /// Whether the file is what the record says, hashed in any case.
    pub(super) fn check_content(&self, record: &FileRecord) -> Result<(), ImageError> {
        let file = self.path(record);
        let damaged = |detail: String| ImageError::Corrupt { file: file.clone(), detail };
        let stat = match self.stat(record) {
            Err(ImageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("it is gone".into()));
            }
            other => other?,
        };
        if stat.size != record.size {
            return Err(damaged(format!("it has {} bytes, {} were recorded", stat.size, record.size)));
        }
        let (sha256, _) = hash(&file)?;
        if sha256 != record.sha256 {
            let (got, was) = (&sha256[..12], &record.sha256[..12]);
            return Err(damaged(format!("its sha256 is {got}…, {was}… was recorded")));
        }
        // Where the memory cannot be kept (somebody else's store), the next run hashes again.
        let _ = self.remember(record);
        Ok(())
    }

    fn stat(&self, record: &FileRecord) -> Result<Seen, ImageError> {
        let file = self.path(record);
        let found = fs::metadata(&file).map_err(ImageError::io("read", &file))?;
        Ok(Seen {
            sha256: record.sha256.clone(),
            size: found.len(),
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    fn memory(&self, record: &FileRecord) -> PathBuf {
        self.folder.join(format!("{}.seen", record.name))
    }

    fn seen(&self, record: &FileRecord) -> Option<Seen> {
        serde_json::from_slice(&fs::read(self.memory(record)).ok()?).ok()
    }

    fn remember(&self, record: &FileRecord) -> Result<(), ImageError> {
        let text = serde_json::to_vec(&self.stat(record)?).unwrap_or_default();
        write_whole(&self.memory(record), &text)
    }
}

fn hash(file: &Path) -> Result<(String, u64), ImageError> {
    let mut input = File::open(file).map_err(ImageError::io("open", file))?;
    let (mut digest, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok((hex::encode(digest.finalize()), size)),
            Ok(read) => {
                digest.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ImageError::io("read", file)(error)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder of a test's own, removed with it.
    pub(in crate::image) struct Folder(pub(in crate::image) PathBuf);

    impl Folder {
        pub(in crate::image) fn new() -> Folder {
            let path = std::env::temp_dir().join(format!("kmt-image-{}", uuid::Uuid::new_v4().simple()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn kept(folder: &Folder) -> (Objects, FileRecord) {
        let objects = Objects::new(&folder.0);
        let file = folder.0.join("new");
        fs::write(&file, b"content").unwrap();
        let record = objects.take(&file, "rootfs.ext4").unwrap();
        (objects, record)
    }

    #[test]
    fn a_file_is_taken_read_only_under_its_digest() {
        let folder = Folder::new();
        let (objects, record) = kept(&folder);
        assert_eq!(record.name, format!("{}.rootfs.ext4", record.sha256));
        assert_eq!(record.sha256, hex::encode(Sha256::digest(b"content")));
        let mode = fs::metadata(objects.path(&record)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        objects.check(&record).unwrap();
        objects.check_content(&record).unwrap();
    }

    #[test]
    fn a_file_that_lost_its_end_its_content_or_itself_is_found_out() {
        let folder = Folder::new();
        let (objects, record) = kept(&folder);
        let path = objects.path(&record);
        let words = |objects: &Objects| objects.check(&record).unwrap_err().to_string();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"CONTENT").unwrap();
        assert!(words(&objects).contains("sha256"), "{}", words(&objects));
        fs::write(&path, b"cont").unwrap();
        assert!(words(&objects).contains("4 bytes, 7 were recorded"), "{}", words(&objects));
        fs::remove_file(&path).unwrap();
        assert!(words(&objects).contains("gone"), "{}", words(&objects));
    }

    #[test]
    fn an_unchanged_file_is_not_hashed_again() {
        let folder = Folder::new();
        let (objects, record) = kept(&folder);
        // The memory speaks for a digest; a check that hashed would refuse this one.
        let other = FileRecord { sha256: "0".repeat(64), ..record.clone() };
        let mut seen = objects.stat(&other).unwrap();
        seen.sha256.clone_from(&other.sha256);
        write_whole(&objects.memory(&other), &serde_json::to_vec(&seen).unwrap()).unwrap();
        objects.check(&other).unwrap();
        assert!(objects.check_content(&other).is_err());
    }
}
