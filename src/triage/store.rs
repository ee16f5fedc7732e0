//! What jobs left behind, kept by job: what was fetched once is not fetched again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::error::{Failure, Result};
use crate::external::Class;
use crate::external::ci::{Ci, Id, Piece};

/// A place for pieces on this machine.
#[derive(Debug)]
pub struct Store {
    ci: Arc<dyn Ci>,
    folder: PathBuf,
    cached: AtomicU64,
}

/// What there is of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// It lies there.
    File(PathBuf),
    /// It lies there, but not all of it: there is more than anybody needs.
    Cut(PathBuf),
    /// The job left no such thing.
    Absent,
    /// It could not be fetched, for this reason.
    Lost(String),
}

impl Got {
    /// Where it lies, all or a part of it.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Got::File(path) | Got::Cut(path) => Some(path),
            Got::Absent | Got::Lost(_) => None,
        }
    }
}

impl Store {
    /// Keeps what comes from `ci` below `cache`.
    pub fn new(ci: Arc<dyn Ci>, cache: &std::path::Path) -> Store {
        let place = Sha256::digest(ci.place().as_bytes());
        let folder = cache.join("ci").join(&hex::encode(place)[..16]);
        Store { ci, folder, cached: AtomicU64::new(0) }
    }

    /// The server.
    pub fn ci(&self) -> &dyn Ci {
        self.ci.as_ref()
    }

    /// Pieces that were here already.
    pub fn cached(&self) -> u64 {
        self.cached.load(Ordering::Relaxed)
    }

    /// A piece of a job that is done.
    ///
    /// # Errors
    /// The server refuses this client; a piece that is not there, or is broken, is an answer.
    pub async fn get(&self, job: Id, piece: &Piece, limit: u64) -> Result<Got> {
        let folder = self.folder.join(job.to_string());
        let path = folder.join(file_name(piece));
        let mark = |ending: &str| {
            let mut name = path.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        let (cut, absent) = (mark(".cut"), mark(".absent"));
        let known = if absent.exists() {
            Some(Got::Absent)
        } else if path.exists() {
            Some(if cut.exists() { Got::Cut(path.clone()) } else { Got::File(path.clone()) })
        } else {
            None
        };
        if let Some(known) = known {
            self.cached.fetch_add(1, Ordering::Relaxed);
            return Ok(known);
        }
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file("create", &folder, &error))?;
        let touch =
            |path: &PathBuf| std::fs::write(path, b"").map_err(|error| Failure::file("write", path, &error));
        match self.ci.fetch(job, piece, &path, limit).await {
            Ok(fetched) if fetched.cut => touch(&cut).map(|()| Got::Cut(path)),
            Ok(_) => Ok(Got::File(path)),
            Err(error) if error.class == Class::NotFound => touch(&absent).map(|()| Got::Absent),
            Err(error) if error.class == Class::Denied => {
                Err(Failure::outside(crate::error::Kind::Ci, &error))
            }
            Err(error) => Ok(Got::Lost(error.detail)),
        }
    }

    /// The first of these files that the job left.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn first(&self, job: Id, paths: &[String], limit: u64) -> Result<Got> {
        let mut got = Got::Absent;
        for path in paths {
            got = self.get(job, &Piece::File(path.clone()), limit).await?;
            if got != Got::Absent {
                break;
            }
        }
        Ok(got)
    }
}

/// A name of its own for each piece: paths of artifacts are anybody's.
fn file_name(piece: &Piece) -> String {
    let text = piece.to_string();
    let base = text.rsplit('/').next().unwrap_or_default();
    let tame: String = base
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .take(80)
        .collect();
    format!("{}-{tame}", &hex::encode(Sha256::digest(text.as_bytes()))[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::ci::Pipeline;
    use crate::external::ci::fake::FakeCi;

    #[tokio::test]
    async fn what_is_here_or_was_not_there_is_not_asked_for_again() {
        let temp = tempfile::tempdir().unwrap();
        let ci = FakeCi::new(Pipeline::default(), Vec::new()).left(7, Piece::Trace, b"abcdef");
        let ci = Arc::new(ci);
        let store = Store::new(ci.clone(), temp.path());
        for _ in 0..2 {
            let Got::Cut(path) = store.get(7, &Piece::Trace, 3).await.unwrap() else { panic!("not cut") };
            assert_eq!(std::fs::read(path).unwrap(), b"abc");
            let nothing = store.first(7, &["../../x".to_owned(), "y".to_owned()], 9).await.unwrap();
            assert_eq!(nothing, Got::Absent);
        }
        assert_eq!((ci.calls().len(), store.cached()), (3, 3));
    }
}
