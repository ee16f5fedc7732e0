//! What can go wrong with an image, in words that help.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::external;

/// Why an image could not be had.
#[derive(Debug)]
pub enum ImageError {
    /// The catalogue does not have it for this architecture, or this machine cannot build it.
    Unavailable {
        /// The image.
        image: String,
        /// Why.
        why: String,
        /// What helps.
        hint: Option<String>,
    },
    /// A step of a build failed.
    Build {
        /// The artefact.
        part: String,
        /// The step.
        step: &'static str,
        /// The tool's refusal.
        source: Box<external::Error>,
    },
    /// What the packages brought is not what is needed.
    Content {
        /// The artefact.
        part: String,
        /// What is missing or strange.
        detail: String,
    },
    /// A published file could not be fetched.
    Fetch {
        /// The image.
        image: String,
        /// The server's refusal.
        source: Box<external::Error>,
    },
    /// What was fetched is not what its sum says.
    Checksum {
        /// Where it lies.
        url: String,
        /// The sha256 that its sum says.
        wanted: String,
        /// The sha256 of what came.
        got: String,
        /// Bytes that came.
        bytes: u64,
    },
    /// What is published is not an image, or not this one.
    Published {
        /// The image.
        image: String,
        /// What it is.
        detail: String,
    },
    /// Too little room.
    DiskFull {
        /// Where.
        folder: PathBuf,
        /// Bytes that a build needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file of the store is not what was recorded.
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What differs.
        detail: String,
    },
    /// The file system refused.
    Io {
        /// Doing what.
        operation: &'static str,
        /// To which file.
        file: PathBuf,
        /// Its words.
        source: io::Error,
    },
}

/// What whoever updates wants to know.
const OLD_STAYS: &str = "images that were in use stay in use; the same command goes on where it stopped";

impl ImageError {
    /// What may help, one command or action a line.
    pub fn hints(&self) -> Vec<String> {
        match self {
            ImageError::Unavailable { hint, .. } => hint.iter().cloned().collect(),
            ImageError::Build { source, .. } => source.hint.iter().cloned().collect(),
            ImageError::Fetch { source, .. } => {
                source.hint.iter().cloned().chain([OLD_STAYS.to_owned()]).collect()
            }
            ImageError::Checksum { .. } | ImageError::Published { .. } => vec![OLD_STAYS.to_owned()],
            ImageError::Content { .. } => vec!["see the entry in `matrices/catalog/`".into()],
            ImageError::DiskFull { .. } => vec!["make room, or set KMT_HOME to a disk that has".into()],
            ImageError::Corrupt { .. } => vec!["build it again: `kmt-run images build --force`".into()],
            ImageError::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => vec!["make room, or set KMT_HOME to a disk that has".into()],
                io::ErrorKind::PermissionDenied => {
                    vec!["the folder belongs to somebody else: set KMT_HOME to one of your own".into()]
                }
                _ => Vec::new(),
            },
        }
    }

    pub(super) fn io(operation: &'static str, file: &Path) -> impl FnOnce(io::Error) -> ImageError {
        move |source| ImageError::Io { operation, file: file.to_owned(), source }
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Unavailable { image, why, .. } => write!(f, "no image for `{image}`: {why}"),
            ImageError::Build { part, step, .. } => {
                write!(f, "building `{part}` failed at the step `{step}`")
            }
            ImageError::Content { part, detail } => {
                write!(f, "cannot make `{part}` of these packages: {detail}")
            }
            ImageError::Fetch { image, .. } => write!(f, "image `{image}` could not be fetched"),
            ImageError::Checksum { url, wanted, got, bytes } => {
                let (got, wanted) = (&got[..12], &wanted[..12]);
                write!(f, "the {bytes} bytes of `{url}` have sha256 {got}…, its sum says {wanted}…")
            }
            ImageError::Published { image, detail } => write!(f, "image `{image}` cannot be used: {detail}"),
            ImageError::DiskFull { folder, needed, free } => {
                let (needed, free) = (needed >> 20, free >> 20);
                write!(f, "`{}` has {free} MiB free, an image needs {needed} MiB", folder.display())
            }
            ImageError::Corrupt { file, detail } => {
                write!(f, "image file `{}` is damaged: {detail}", file.display())
            }
            ImageError::Io { operation, file, .. } => write!(f, "cannot {operation} `{}`", file.display()),
        }
    }
}

impl std::error::Error for ImageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ImageError::Build { source, .. } | ImageError::Fetch { source, .. } => Some(&**source),
            ImageError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
