//! Files of a run directory.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use chrono::Utc;
use kmt_reporters::event::OutputRef;

use crate::error::{Failure, Result};

/// Makes `runs/<time>-<random>/`.
pub(super) fn fresh_folder(runs: &Path) -> Result<(PathBuf, String)> {
    std::fs::create_dir_all(runs).map_err(|error| Failure::file("create", runs, &error))?;
    let random = uuid::Uuid::new_v4().simple().to_string();
    let id = format!("{}-{}", Utc::now().format("%Y%m%dT%H%M%SZ"), &random[..6]);
    let folder = runs.join(&id);
    std::fs::create_dir(&folder).map_err(|error| Failure::file("create", &folder, &error))?;
    Ok((folder, id))
}

/// `runs/latest` points at the newest. A convenience: its failure is no failure of the run.
pub(super) fn point_latest(runs: &Path, folder: &Path) {
    let beside = runs.join(format!(".latest-{}", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    if let Some(name) = folder.file_name()
        && std::os::unix::fs::symlink(name, &beside).is_ok()
        && std::fs::rename(&beside, runs.join("latest")).is_err()
    {
        let _ = std::fs::remove_file(&beside);
    }
}

/// Output of one package in one cell: the raw stream, and the tests' own parts, each in one piece.
#[derive(Debug)]
pub struct PackageFiles {
    raw: Appended,
    tests: Appended,
}

#[derive(Debug)]
struct Appended {
    path: PathBuf,
    name: String,
    file: Option<File>,
    length: u64,
}

impl Appended {
    fn new(folder: &Path, name: String) -> Appended {
        Appended { path: folder.join(&name), name, file: None, length: 0 }
    }

    /// Appends; where the disk refuses, the reference is missing and the facts go on.
    fn append(&mut self, bytes: &[u8]) -> Option<OutputRef> {
        if bytes.is_empty() {
            return None;
        }
        if self.file.is_none() {
            if let Some(parent) = self.path.parent() {
                std::fs::create_dir_all(parent).ok()?;
            }
            self.file = OpenOptions::new().create(true).append(true).open(&self.path).ok();
        }
        self.file.as_mut()?.write_all(bytes).ok()?;
        let offset = self.length;
        self.length += bytes.len() as u64;
        Some(OutputRef { file: self.name.clone(), offset, length: bytes.len() as u64 })
    }
}

impl PackageFiles {
    /// Below the run directory `folder`; nothing is made before something is written.
    pub fn below(folder: &Path, cell: &str, package: &str, attempt: u32) -> PackageFiles {
        let slug: String = package
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .collect();
        let number = if attempt > 1 { format!(".{attempt}") } else { String::new() };
        let name = |kind: &str| format!("output/{cell}/{slug}{number}.{kind}");
        PackageFiles { raw: Appended::new(folder, name("raw")), tests: Appended::new(folder, name("tests")) }
    }

    /// Appends to the raw stream.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.raw.append(bytes);
    }

    /// Appends the output of a test that ended.
    pub fn test_output(&mut self, bytes: &[u8]) -> Option<OutputRef> {
        self.tests.append(bytes)
    }

    /// Everything the package printed.
    pub fn whole(&self) -> Option<OutputRef> {
        (self.raw.length > 0).then(|| OutputRef {
            file: self.raw.name.clone(),
            offset: 0,
            length: self.raw.length,
        })
    }
}
