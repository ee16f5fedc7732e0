//! What the repository says of its tests before they run: which are known to be flaky, and whose they are.
//!
//! Owns the reading of `flakes.yaml` (`flakes`) and `CODEOWNERS` (`owners`), and the words by which a test says of itself
//! that it is flaky ([`Marks`]). Owns no verdict: what it knows becomes facts of the record, which reports judge. To take
//! in another source: add a file that reads it, and give [`Known`] what it says.

mod flakes;
mod owners;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kmt_reporters::event::Event;

use crate::error::{Failure, Result};
pub use flakes::{Flakes, MARK, Marks};
pub use owners::Owners;

/// Where each file is looked for in a repository, the first that is there.
const FLAKES: [&str; 1] = ["flakes.yaml"];
const OWNERS: [&str; 4] = ["CODEOWNERS", ".github/CODEOWNERS", ".gitlab/CODEOWNERS", "docs/CODEOWNERS"];

/// What is known of the tests of one component.
#[derive(Debug, Default)]
pub struct Known {
    flakes: Flakes,
    owners: Owners,
    /// Root of the repository under test, and the folder of the component below it.
    root: PathBuf,
    component: PathBuf,
}

impl Known {
    /// Reads the files that are named, else those at their usual places below `root`.
    ///
    /// # Errors
    /// A named file that is not there, or one that is not what it should be.
    pub fn load(root: &Path, component: &str, flakes: Option<&Path>, owners: Option<&Path>) -> Result<Known> {
        let flakes = match place(root, flakes, &FLAKES) {
            Some(path) => {
                Flakes::read(&text(&path)?).map_err(|why| not_one(&path, "list of flaky tests", why))?
            }
            None => Flakes::default(),
        };
        let owners = match place(root, owners, &OWNERS) {
            Some(path) => {
                Owners::read(&text(&path)?).map_err(|why| not_one(&path, "file of code owners", why))?
            }
            None => Owners::default(),
        };
        Ok(Known { flakes, owners, root: root.to_owned(), component: PathBuf::from(component) })
    }

    /// By which words tests say of themselves that they are flaky.
    pub fn marks(&self) -> Arc<Marks> {
        Arc::new(self.flakes.marks.clone())
    }

    /// What is known of a package, as a fact; nothing where nothing is.
    pub fn of(&self, package: &str) -> Option<Event> {
        let flaky: Vec<String> = self.flakes.of(package).map(str::to_owned).collect();
        let place = self.component.join(package);
        let owners = self.owners.of(&place);
        let mut test_owners = BTreeMap::new();
        if !self.owners.is_empty() {
            for (test, file) in tests_of(&self.root.join(&place)) {
                let of_file = self.owners.of(&place.join(file));
                if of_file != owners {
                    test_owners.insert(test, of_file.to_vec());
                }
            }
        }
        let nothing = flaky.is_empty() && owners.is_empty() && test_owners.is_empty();
        let (package, owners) = (package.to_owned(), owners.to_vec());
        (!nothing).then_some(Event::TestsKnown { package, flaky, owners, test_owners })
    }
}

/// The file that is named, else the first usual one that is there.
fn place(root: &Path, named: Option<&Path>, usual: &[&str]) -> Option<PathBuf> {
    let there = || usual.iter().map(|name| root.join(name)).find(|path| path.is_file());
    named.map(|path| root.join(path)).or_else(there)
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read `{}`", path.display())).caused_by(error).hint(
            "`--flakes`, `--codeowners` and the keys of `kmt.toml` name files of the repository under test",
        )
    })
}

fn not_one(path: &Path, what: &str, why: String) -> Failure {
    Failure::usage(format!("`{}` is no {what}", path.display())).caused_by(why)
}

/// Top-level tests of a Go package, and the file of each. A folder that cannot be read has none.
fn tests_of(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with("_test.go") {
            continue;
        }
        let source = std::fs::read(entry.path()).unwrap_or_default();
        let tests = source.split(|byte| *byte == b'\n').filter_map(|line| {
            let rest = line.strip_prefix(b"func ")?;
            let end = rest.iter().position(|byte| *byte == b'(')?;
            let test = std::str::from_utf8(&rest[..end]).ok()?.trim();
            test.starts_with("Test").then(|| test.to_owned())
        });
        found.extend(tests.map(|test| (test, name.clone())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_says_what_is_known_of_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("agent/pkg/a");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir(root.path().join(".github")).unwrap();
        std::fs::write(root.path().join("flakes.yaml"), "pkg/a:\n  - TestX/sub\n").unwrap();
        std::fs::write(
            root.path().join(".github/CODEOWNERS"),
            "/agent/ @all\n/agent/pkg/a/dns_test.go @dns @net\n",
        )
        .unwrap();
        std::fs::write(folder.join("dns_test.go"), "package a\n\nfunc TestDNS(t *testing.T) {\n").unwrap();
        std::fs::write(folder.join("x_test.go"), "func TestX(t *testing.T) {}\nfunc helper() {}\n").unwrap();
        let known = Known::load(root.path(), "agent", None, None).unwrap();
        let Some(Event::TestsKnown { flaky, owners, test_owners, .. }) = known.of("pkg/a") else {
            panic!("nothing is known");
        };
        assert_eq!((flaky, owners), (vec!["TestX/sub".to_owned()], vec!["@all".to_owned()]));
        assert_eq!(test_owners, BTreeMap::from([("TestDNS".into(), vec!["@dns".into(), "@net".into()])]));
        assert!(Known::default().of("pkg/a").is_none());
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_be_one() {
        let root = tempfile::tempdir().unwrap();
        let gone = Known::load(root.path(), "", Some(Path::new("gone.yaml")), None).unwrap_err();
        assert!(gone.message.contains("gone.yaml"), "{}", gone.message);
        std::fs::write(root.path().join("flakes.yaml"), "pkg/a: [\n").unwrap();
        assert!(
            Known::load(root.path(), "", None, None).unwrap_err().message.contains("no list of flaky tests")
        );
    }
}
