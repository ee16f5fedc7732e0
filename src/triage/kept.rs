//! What was read of archives of results, kept beside them: the second time nothing is unpacked.

use std::path::{Path, PathBuf};

use kmt_reporters::explain::Mark;
use serde::{Deserialize, Serialize};

use super::junit::{Outcome, Results};

/// What reading means now. Another number, and archives are read again.
const MEANING: &str = concat!("1 of ", env!("CARGO_PKG_VERSION"));

#[derive(Serialize, Deserialize)]
struct Kept {
    meaning: String,
    files: usize,
    trouble: Vec<String>,
    tests: Vec<(String, String, Mark, String)>,
}

/// The results that lie at `path`, by what was kept of them where that is there.
pub fn results(path: &Path) -> Results {
    let beside = beside(path);
    let known = std::fs::read(&beside).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    if let Some(kept) = known.filter(|kept| kept.meaning == MEANING) {
        let tests = kept.tests.into_iter();
        return Results {
            tests: tests
                .map(|(package, test, mark, message)| ((package, test), Outcome { mark, message }))
                .collect(),
            files: kept.files,
            trouble: kept.trouble,
        };
    }
    let results = Results::read(path);
    keep(&results, &beside);
    results
}

/// A cache: where it cannot be written, the next call reads again.
fn keep(results: &Results, beside: &Path) {
    let tests = results.tests.iter();
    let kept = Kept {
        meaning: MEANING.to_owned(),
        files: results.files,
        trouble: results.trouble.clone(),
        tests: tests
            .map(|((package, test), outcome)| {
                (package.clone(), test.clone(), outcome.mark, outcome.message.clone())
            })
            .collect(),
    };
    let mut part = beside.to_path_buf().into_os_string();
    part.push(format!(".{}", std::process::id()));
    let written = serde_json::to_vec(&kept).is_ok_and(|bytes| std::fs::write(&part, bytes).is_ok());
    if written && std::fs::rename(&part, beside).is_err() {
        let _ = std::fs::remove_file(&part);
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(".results");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_once_is_not_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.xml");
        std::fs::write(
            &path,
            "<testsuite name='pkg/a'><testcase name='TestA'><failure message='bad'/></testcase></testsuite>",
        )
        .unwrap();
        let first = results(&path);
        assert_eq!(first.failed().count(), 1);
        std::fs::write(&path, "spoiled").unwrap();
        assert_eq!(results(&path), first);
        std::fs::write(beside(&path), "{").unwrap();
        assert_eq!(results(&path).trouble.len(), 1);
    }
}
