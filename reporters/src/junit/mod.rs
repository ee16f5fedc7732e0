//! JUnit XML: a [`Run`] as the CI servers read it.
//!
//! Owns the file: its suites and cases (`suites`), the words in them (`body`), and what the consumers do differently
//! ([`Flavour`]). Owns no verdict and no count. One suite a cell and package, one case a test, attempts merged; boot and
//! ship of each cell and the builds are cases of their own. The file is written to a temporary name beside it
//! and renamed, so it is there whole or not at all.
//!
//! The other way round, `read` takes any JUnit file and `lint` says what a consumer loses of it.
//!
//! To add a flavour: add a variant, and answer each question in `flavour` for it.

mod body;
mod flavour;
pub mod lint;
pub mod read;
mod suites;

#[cfg(test)]
pub(crate) mod tests;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::mask::Masks;
use crate::model::Run;
use crate::output::OutputSource;

pub use flavour::{Flavour, UnknownFlavour};

/// A report that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum JunitError {
    /// The file system refused.
    #[error("cannot write the JUnit report `{path}`", path = .path.display())]
    Write {
        /// The report.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The XML could not be made.
    #[error("cannot serialize the JUnit report `{path}`", path = .path.display())]
    Serialize {
        /// The report.
        path: PathBuf,
        /// Why not.
        source: quick_junit::SerializeError,
    },
}

/// Writes the report and says which files it became: `path`, and `name-2.xml` and so on beside it for a
/// flavour that limits the cases a file may have.
pub fn write(
    run: &Run,
    flavour: Flavour,
    source: &dyn OutputSource,
    masks: &Masks,
    path: &Path,
) -> Result<Vec<PathBuf>, JunitError> {
    let texts = texts(run, flavour, source, masks)
        .map_err(|source| JunitError::Serialize { path: path.to_owned(), source })?;
    let mut written = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let path = part_path(path, index);
        replace(&path, text.as_bytes()).map_err(|source| JunitError::Write { path: path.clone(), source })?;
        written.push(path);
    }
    Ok(written)
}

/// The report as text: one, or several for a flavour that limits the cases a file may have.
pub fn texts(
    run: &Run,
    flavour: Flavour,
    source: &dyn OutputSource,
    masks: &Masks,
) -> Result<Vec<String>, quick_junit::SerializeError> {
    let reports = suites::reports(run, flavour, source, masks);
    reports.iter().map(|report| Ok(without_root_skipped(&report.to_string()?))).collect()
}

/// `junit.xml`, `junit-2.xml`, `junit-3.xml`.
fn part_path(path: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or("xml".into(), |extension| extension.to_string_lossy());
    path.with_file_name(format!("{stem}-{}.{extension}", index + 1))
}

/// The common XSD has no `skipped` on the root, only on suites.
fn without_root_skipped(text: &str) -> String {
    let Some(start) = text.find("<testsuites") else {
        return text.to_owned();
    };
    let Some(root) = text[start..].find('>').map(|end| &text[start..start + end]) else {
        return text.to_owned();
    };
    let skipped = root.find(" skipped=\"").and_then(|at| {
        let value = at + " skipped=\"".len();
        root[value..].find('"').map(|end| start + at..start + value + end + 1)
    });
    match skipped {
        Some(range) => format!("{}{}", &text[..range.start], &text[range.end..]),
        None => text.to_owned(),
    }
}

/// Writes a file whole or not at all, making its folder where that is missing.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let Some(name) = path.file_name() else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let put = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    put().inspect_err(|_| _ = fs::remove_file(&temporary))
}
