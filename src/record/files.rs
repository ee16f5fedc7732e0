//! Files of a run directory.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use kmt_reporters::Masks;
use kmt_reporters::event::OutputRef;

use crate::error::{Failure, Result};

/// Makes `runs/<id>/`.
pub(super) fn fresh_folder(runs: &Path) -> Result<(PathBuf, String)> {
    std::fs::create_dir_all(runs).map_err(|error| Failure::file("create", runs, &error))?;
    loop {
        let id = run_id(Utc::now());
        let folder = runs.join(&id);
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok((folder, id)),
            // Another run began in the same millisecond and drew the same lot.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::file("create", &folder, &error)),
        }
    }
}

/// `<second>-<millisecond, three hexadecimal digits><three random ones>`: ids sort by the moment a run began,
/// also within one second.
fn run_id(now: DateTime<Utc>) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    // A leap second counts past 999: it sorts behind its second all the same.
    let millis = now.timestamp_subsec_millis();
    format!("{}-{millis:03x}{}", now.format("%Y%m%dT%H%M%SZ"), &random[..3])
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

/// Output of one package in one cell: the raw stream, and the tests' own parts, each in one piece. Secrets do not
/// reach the disk, so that a report made later needs to know none.
#[derive(Debug)]
pub struct PackageFiles {
    raw: Appended,
    tests: Appended,
    masks: Masks,
    /// The end of the raw stream, in which a secret may have begun.
    held: Vec<u8>,
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

/// The name of a package's output, relative to the run directory.
fn name_of(cell: &str, package: &str, attempt: u32, kind: &str) -> String {
    let slug: String = package
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .collect();
    let number = if attempt > 1 { format!(".{attempt}") } else { String::new() };
    format!("output/{cell}/{slug}{number}.{kind}")
}

/// The last bytes of what a package printed so far.
pub(super) fn raw_tail(
    folder: &Path,
    cell: &str,
    package: &str,
    attempt: u32,
    most: u64,
) -> std::io::Result<String> {
    tail(&folder.join(name_of(cell, package, attempt, "raw")), most)
}

/// The last `length` bytes of a file as text; what is before the first line break of a part is left out.
pub fn tail(path: &Path, length: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let whole = file.metadata()?.len();
    let from = whole.saturating_sub(length);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.to_owned(),
        _ => text,
    })
}

impl PackageFiles {
    /// Below the run directory `folder`; nothing is made before something is written.
    pub fn below(folder: &Path, masks: &Masks, cell: &str, package: &str, attempt: u32) -> PackageFiles {
        let name = |kind: &str| name_of(cell, package, attempt, kind);
        PackageFiles {
            raw: Appended::new(folder, name("raw")),
            tests: Appended::new(folder, name("tests")),
            masks: masks.clone(),
            held: Vec::new(),
        }
    }

    /// Appends to the raw stream.
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.masks.is_empty() {
            self.raw.append(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        self.held = self.masks.mask_bytes(&self.held);
        let settled = self.held.len().saturating_sub(self.masks.longest());
        self.raw.append(&self.held[..settled]);
        self.held.drain(..settled);
    }

    /// Appends the output of a test that ended.
    pub fn test_output(&mut self, bytes: &[u8]) -> Option<OutputRef> {
        if self.masks.is_empty() {
            return self.tests.append(bytes);
        }
        self.tests.append(&self.masks.mask_bytes(bytes))
    }

    /// Everything the package printed.
    pub fn whole(&mut self) -> Option<OutputRef> {
        self.settle();
        (self.raw.length > 0).then(|| OutputRef {
            file: self.raw.name.clone(),
            offset: 0,
            length: self.raw.length,
        })
    }

    fn settle(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.raw.append(&held);
    }
}

impl Drop for PackageFiles {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_moment_also_within_a_second() {
        let at = |millis| run_id(DateTime::from_timestamp_millis(1_780_000_000_000 + millis).unwrap());
        let ids: Vec<String> = [0_i64, 1, 9, 10, 15, 16, 99, 255, 256, 999, 1000].map(at).into();
        assert!(ids.is_sorted(), "{ids:?}");
        assert!(ids[3].starts_with("20260528T202640Z-00a") && ids[3].len() == 23, "{ids:?}");
    }

    #[test]
    fn a_secret_does_not_reach_the_disk_however_it_is_cut() {
        let text = b"token hunter22hunter22 and hunter2";
        for size in 1..text.len() {
            let folder = tempfile::tempdir().unwrap();
            let masks = Masks::new(["hunter22"]);
            let mut files = PackageFiles::below(folder.path(), &masks, "cell", "pkg/a", 1);
            text.chunks(size).for_each(|chunk| files.raw(chunk));
            let whole = files.whole().unwrap();
            let own = files.test_output(text).unwrap();
            for output in [whole, own] {
                let told = std::fs::read(folder.path().join(&output.file)).unwrap();
                assert_eq!(told, b"token [masked][masked] and hunter2", "{size}");
                assert_eq!(output.length, told.len() as u64);
            }
        }
    }

    #[test]
    fn a_tail_begins_with_a_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"first\nsecond\nthird").unwrap();
        assert_eq!(tail(file.path(), 10).unwrap(), "third");
        assert_eq!(tail(file.path(), 100).unwrap(), "first\nsecond\nthird");
    }
}
