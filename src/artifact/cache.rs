//! Built binaries by the content of all they depend on.
//!
//! `<cache>/build/<key>/` holds `binary` and `entry.json`; it appears by one rename, whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::external::builder::Unit;
use crate::run::gotest::Framing;

/// Changes when the meaning of a key does.
const EDITION: &str = "kmt-run build 1";

/// Beginning of the name of a workshop.
const UNFINISHED: &str = ".new-";

/// A finished binary.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) file: PathBuf,
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) framing: Framing,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    digest: String,
    size: u64,
    modified_ns: i128,
    test2json: bool,
}

/// The sha256 of a file, hex, and its size.
pub(super) fn digest(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 128 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hex::encode(hash.finalize()), size)),
            read => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

/// The keys of `units`. Each input is read once.
pub(super) fn keys(units: &[Unit]) -> io::Result<Vec<String>> {
    let mut known: HashMap<&Path, String> = HashMap::new();
    let mut keys = Vec::with_capacity(units.len());
    for unit in units {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        part(EDITION);
        part(&format!("{:?} {}", unit.kind, unit.import_path));
        unit.facts.iter().for_each(|fact| part(fact));
        for input in &unit.inputs {
            if !known.contains_key(input.as_path()) {
                let digest = digest(input).map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot read `{}`: {error}", input.display()))
                })?;
                known.insert(input, digest.0);
            }
            part(&input.to_string_lossy());
            part(&known[input.as_path()]);
        }
        keys.push(hex::encode(hash.finalize()));
    }
    Ok(keys)
}

/// The folder of built binaries.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn new(folder: &Path) -> Cache {
        Cache { folder: folder.join("build") }
    }

    /// The entry of `key`, if it is there and whole. A spoiled one is removed.
    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        let folder = self.folder.join(key);
        let entry = read(&folder);
        if entry.is_none() && folder.exists() {
            let _ = fs::remove_dir_all(&folder);
        }
        entry
    }

    /// A new folder to compile in, on the same file system.
    pub(super) fn workshop(&self) -> io::Result<Workshop> {
        loop {
            let folder = self.folder.join(format!("{UNFINISHED}{}", uuid::Uuid::new_v4()));
            fs::create_dir_all(&folder)?;
            let held = match File::open(&folder) {
                // Swept in the moment before it was held.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if held.try_lock().is_ok() && folder.exists() {
                return Ok(Workshop { folder, _held: held });
            }
        }
    }

    /// Removes workshops that nobody holds: what killed builds left.
    pub(super) fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let left = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            if left && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
                // What cannot be removed now, the next build removes.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Puts what a workshop made under `key`.
    pub(super) fn put(&self, key: &str, workshop: Workshop) -> io::Result<Entry> {
        let file = workshop.target();
        fs::set_permissions(&file, Permissions::from_mode(0o555))?;
        let (digest, size) = digest(&file)?;
        let test2json = super::elf::framing(&file)? == Framing::Test2json;
        let record = Record { digest, size, modified_ns: modified(&file)?, test2json };
        fs::write(workshop.folder.join("entry.json"), serde_json::to_vec(&record)?)?;
        let folder = self.folder.join(key);
        // Another run may have been faster: theirs is as good.
        if let Err(error) = fs::rename(&workshop.folder, &folder)
            && !folder.exists()
        {
            return Err(error);
        }
        read(&folder).ok_or_else(|| io::Error::other("the build cache lost what was just put in it"))
    }
}

/// A folder where one binary is made; locked while its maker lives, gone when dropped.
#[derive(Debug)]
pub(super) struct Workshop {
    folder: PathBuf,
    _held: File,
}

impl Workshop {
    pub(super) fn target(&self) -> PathBuf {
        self.folder.join("binary")
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn modified(file: &Path) -> io::Result<i128> {
    let meta = fs::symlink_metadata(file)?;
    Ok(i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()))
}

fn read(folder: &Path) -> Option<Entry> {
    let file = folder.join("binary");
    let record: Record = serde_json::from_slice(&fs::read(folder.join("entry.json")).ok()?).ok()?;
    let meta = fs::symlink_metadata(&file).ok().filter(fs::Metadata::is_file)?;
    // The content is read again only where the file was touched.
    let untouched = meta.len() == record.size && modified(&file).ok()? == record.modified_ns;
    if !untouched && digest(&file).ok()? != (record.digest.clone(), record.size) {
        return None;
    }
    let framing = if record.test2json { Framing::Test2json } else { Framing::Plain };
    Some(Entry { file, digest: record.digest, size: record.size, framing })
}
