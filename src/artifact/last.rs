//! What was built last, for runs that build nothing: `<cache>/last/<request>.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ArtifactSet;
use crate::external::builder::BuildRequest;

/// A build as it was.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    edition: String,
    built: SystemTime,
    set: ArtifactSet,
}

/// Changes when the shape of a note does.
const EDITION: &str = "kmt-run last 1";

/// One file for all selections of packages.
fn file(request: &BuildRequest, cache: &Path) -> PathBuf {
    let all = BuildRequest { packages: Vec::new(), ..request.clone() };
    cache.join("last").join(format!("{}.json", hex::encode(Sha256::digest(format!("{all:?}")))))
}

/// Notes what a request became. Half a note is as good as none, so it is written where it stays.
pub(super) fn keep(request: &BuildRequest, set: &ArtifactSet, cache: &Path) -> io::Result<()> {
    let file = file(request, cache);
    fs::create_dir_all(file.parent().unwrap_or(cache))?;
    let note = Note { edition: EDITION.to_owned(), built: SystemTime::now(), set: set.clone() };
    fs::write(file, serde_json::to_vec(&note)?)
}

/// What the same request, perhaps for other packages, became the last time, and how long ago that was. Only those of
/// its packages that are wanted now; nothing where a file of it is gone.
pub fn last(request: &BuildRequest, cache: &Path) -> Option<(ArtifactSet, Duration)> {
    let note: Note = serde_json::from_slice(&fs::read(file(request, cache)).ok()?).ok()?;
    let mut set = note.set;
    if note.edition != EDITION || !set.files.iter().all(|file| file.source.is_file()) {
        return None;
    }
    set.packages.retain(|package| request.wants(&package.name));
    Some((set, note.built.elapsed().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::*;
    use crate::artifact::{ShipFile, TestPackage};
    use crate::run::formats::Speech;

    #[test]
    fn the_last_build_is_found_as_long_as_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("binary");
        fs::write(&source, "x").unwrap();
        let mut request = BuildRequest::new(folder.path(), Arch::Arm64);
        let file = ShipFile { dest: "a/testsuite".into(), source, digest: "d".into(), mode: 0o755, size: 1 };
        let package = TestPackage {
            name: "a".into(),
            binary: "a/testsuite".into(),
            workdir: "a".into(),
            speech: Speech::Tap,
        };
        let set =
            ArtifactSet { arch: Arch::Arm64, files: vec![file], links: Vec::new(), packages: vec![package] };
        assert!(last(&request, folder.path()).is_none());
        keep(&request, &set, folder.path()).unwrap();
        assert_eq!(last(&request, folder.path()).unwrap().0, set);
        request.packages = vec!["./b/...".to_owned()];
        assert!(last(&request, folder.path()).unwrap().0.packages.is_empty());
        request.tags = vec!["other".to_owned()];
        assert!(last(&request, folder.path()).is_none());
        request.tags.clear();
        fs::remove_file(folder.path().join("binary")).unwrap();
        assert!(last(&request, folder.path()).is_none());
    }
}
