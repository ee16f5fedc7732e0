//! The record of an artefact that was built: from what, of which packages, which files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::ImageError;
use super::request::{Kind, Part};
use crate::external::debian::Package;

/// The manifest's own version.
pub(super) const SCHEMA: u32 = 1;

/// What was built, from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this record's form.
    pub schema: u32,
    /// Root filesystem or kernel.
    pub kind: Kind,
    /// What it is called, such as `debian_12-x86_64`.
    pub name: String,
    /// Digest of `inputs`.
    pub key: String,
    /// What it was asked to be made from.
    pub inputs: serde_json::Value,
    /// The packages that came, each with its version.
    pub packages: Vec<Package>,
    /// What `uname -r` says, for a kernel.
    pub kernel_release: Option<String>,
    /// Its files by role: `rootfs`, `vmlinuz`, `initrd`, `modules`.
    pub files: BTreeMap<String, FileRecord>,
}

/// A file of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its name in the store, which begins with its digest.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
}

impl Manifest {
    /// Reads the manifest of an artefact: none where it was never built, an error where it cannot be read.
    pub(super) fn of(images: &Path, part: &Part) -> Result<Option<Manifest>, ImageError> {
        let file = images.join(file_name(part));
        let Some(manifest) = Manifest::read(&file)? else {
            return Ok(None);
        };
        if manifest.key != part.key || manifest.kind != part.kind {
            return Err(ImageError::Corrupt { file, detail: "it records another image".into() });
        }
        Ok(Some(manifest))
    }

    /// Reads a manifest file; none where there is none.
    pub(super) fn read(file: &Path) -> Result<Option<Manifest>, ImageError> {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ImageError::io("read", file)(error)),
        };
        let damaged = |detail: String| ImageError::Corrupt { file: file.to_owned(), detail };
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.schema == SCHEMA {
            Ok(Some(manifest))
        } else {
            Err(damaged(format!("it has schema {}, this program knows {SCHEMA}", manifest.schema)))
        }
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, images: &Path, part: &Part) -> Result<(), ImageError> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        write_whole(&images.join(file_name(part)), &text)
    }
}

fn file_name(part: &Part) -> String {
    format!("{}.json", part.slug())
}

/// Writes a file beside, syncs it, renames it into place and syncs the folder.
pub(super) fn write_whole(file: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = std::path::PathBuf::from(beside);
    let mut out = fs::File::create(&beside).map_err(ImageError::io("create", &beside))?;
    let written = out.write_all(bytes).and_then(|()| out.sync_all());
    written.and_then(|()| fs::rename(&beside, file)).map_err(|error| {
        let _ = fs::remove_file(&beside);
        ImageError::io("write", file)(error)
    })?;
    sync_folder(file)
}

/// Makes a rename in the folder of `file` outlive a power cut.
pub(super) fn sync_folder(file: &Path) -> Result<(), ImageError> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(ImageError::io("sync", folder))
}
