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
mod files;
mod flavour;
pub mod lint;
pub mod read;
mod suites;

#[cfg(test)]
pub(crate) mod tests;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
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
    let mut written: Vec<PathBuf> = Vec::new();
    let mut open: Option<Replacing> = None;
    let told = pieces(run, flavour, source, masks, &mut |index, text| {
        if index >= written.len() {
            open.take().map_or(Ok(()), Replacing::done)?;
            written.push(part_path(path, index));
            open = Some(Replacing::new(&part_path(path, index))?);
        }
        open.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()))
    });
    let failed = |source| {
        let path = written.last().map_or(path, PathBuf::as_path).to_owned();
        JunitError::Write { path, source }
    };
    match told {
        Ok(()) => open.map_or(Ok(()), Replacing::done).map_err(failed)?,
        Err(PieceError::Taken(source)) => return Err(failed(source)),
        Err(PieceError::Serialize(source)) => {
            return Err(JunitError::Serialize { path: path.to_owned(), source });
        }
    }
    Ok(written)
}

/// Why not all of a report was handed out.
#[derive(Debug, thiserror::Error)]
pub enum PieceError {
    /// The XML could not be made.
    #[error("cannot serialize the JUnit report")]
    Serialize(#[from] quick_junit::SerializeError),
    /// Whoever takes it failed.
    #[error("cannot write the JUnit report")]
    Taken(#[from] std::io::Error),
}

/// Hands the report to `take`, a suite at a time, each with the index of the file that it belongs to.
pub fn pieces(
    run: &Run,
    flavour: Flavour,
    source: &dyn OutputSource,
    masks: &Masks,
    take: &mut dyn FnMut(usize, &str) -> std::io::Result<()>,
) -> Result<(), PieceError> {
    files::each(run, flavour, source, masks, &mut |index, text| Ok(take(index, text)?))
}

/// How many files it takes.
pub fn files(run: &Run, flavour: Flavour) -> usize {
    if flavour.cases_a_file() == usize::MAX { 1 } else { files::count(run, flavour) }
}

/// The report as text: one, or several for a flavour that limits the cases a file may have.
pub fn texts(
    run: &Run,
    flavour: Flavour,
    source: &dyn OutputSource,
    masks: &Masks,
) -> Result<Vec<String>, quick_junit::SerializeError> {
    let mut texts: Vec<String> = Vec::new();
    files::each(run, flavour, source, masks, &mut |index, text| {
        texts.resize(texts.len().max(index + 1), String::new());
        texts[index].push_str(text);
        Ok::<(), quick_junit::SerializeError>(())
    })?;
    Ok(texts)
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
    let mut file = Replacing::new(path)?;
    file.write_all(content)?;
    file.done()
}

/// A file that takes the place of another once it is whole; until then it is a temporary one beside it.
pub(crate) struct Replacing {
    file: BufWriter<File>,
    temporary: Temporary,
    path: PathBuf,
}

/// Removed when it is dropped; a file that was renamed is not there any more.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Replacing {
    /// Begins one, making its folder where that is missing.
    pub(crate) fn new(path: &Path) -> std::io::Result<Replacing> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let Some(name) = path.file_name() else {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file"));
        };
        let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let file = BufWriter::new(File::create(&temporary)?);
        Ok(Replacing { file, temporary: Temporary(temporary), path: path.to_owned() })
    }

    /// Puts it in its place.
    pub(crate) fn done(mut self) -> std::io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.temporary.0, &self.path)
    }
}

impl Write for Replacing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
