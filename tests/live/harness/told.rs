//! What a run told: events, summary and JUnit, which must all say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::junit::{self, Suite};

/// Results of the tests of one package, by name; the package itself is the empty name.
pub(crate) type Results = BTreeMap<String, String>;

/// The record of a run.
pub(crate) struct Told {
    /// The run directory.
    pub(crate) folder: PathBuf,
    /// `summary.json`.
    pub(crate) summary: Value,
    /// `events.jsonl`, whole lines of it.
    pub(crate) events: Vec<Value>,
    /// `junit.xml`.
    pub(crate) junit: Vec<Suite>,
}

/// The events that are written in whole lines.
pub(super) fn events(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Told {
    /// Reads a run directory.
    pub(crate) fn read(folder: &Path) -> Told {
        let text = fs::read(folder.join("summary.json")).unwrap();
        Told {
            folder: folder.to_owned(),
            summary: serde_json::from_slice(&text).unwrap(),
            events: events(folder),
            junit: junit::read(&folder.join("junit.xml")),
        }
    }

    /// Ids of the cells, in order.
    pub(crate) fn cells(&self) -> Vec<&str> {
        items(&self.summary["cells"]).iter().map(|cell| word(&cell["cell"])).collect()
    }

    /// The summary of one cell.
    pub(crate) fn cell(&self, id: &str) -> &Value {
        let found = items(&self.summary["cells"]).iter().find(|cell| cell["cell"] == id);
        found.unwrap_or_else(|| panic!("no cell {id} among {:?}", self.cells()))
    }

    fn package(&self, cell: &str, package: &str) -> &Value {
        let found = items(&self.cell(cell)["packages"]).iter().find(|known| known["package"] == package);
        found.unwrap_or_else(|| panic!("no package {package} in {cell}"))
    }

    /// The summary of one test.
    pub(crate) fn test(&self, cell: &str, package: &str, test: &str) -> &Value {
        let found = items(&self.package(cell, package)["tests"]).iter().find(|known| known["test"] == test);
        found.unwrap_or_else(|| panic!("no test {test} of {package} in {cell}"))
    }

    /// The results of a package in a cell.
    pub(crate) fn results(&self, cell: &str, package: &str) -> Results {
        let tests = items(&self.package(cell, package)["tests"]).iter();
        tests.map(|test| (word(&test["test"]).to_owned(), word(&test["result"]).to_owned())).collect()
    }

    /// All tests of a cell with their results, as `package test`.
    pub(crate) fn all_results(&self, cell: &str) -> Results {
        let packages = items(&self.cell(cell)["packages"]).iter().map(|package| word(&package["package"]));
        packages
            .flat_map(|package| {
                self.results(cell, package)
                    .into_iter()
                    .map(move |(test, result)| (format!("{package} {test}"), result))
            })
            .collect()
    }

    /// Events of a kind.
    pub(crate) fn kind(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == kind).collect()
    }

    /// The bytes that an output reference points at.
    pub(crate) fn output(&self, reference: &Value) -> Vec<u8> {
        let file = fs::File::open(self.folder.join(word(&reference["file"]))).unwrap();
        let mut bytes = vec![0; usize::try_from(reference["length"].as_u64().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, reference["offset"].as_u64().unwrap()).unwrap();
        bytes
    }

    /// What JUnit has to say on a test that did not pass.
    pub(crate) fn junit_words(&self, cell: &str, package: &str, test: &str) -> &str {
        let suite = self.junit.iter().find(|suite| suite.name == format!("{cell} {package}")).unwrap();
        &suite.cases.iter().find(|case| case.name == test).unwrap().words
    }

    /// Panics unless events, summary and JUnit agree, every test has one result, and none is missing.
    pub(crate) fn agree(&self) {
        for (number, event) in self.events.iter().enumerate() {
            assert_eq!((event["seq"].as_u64(), event["schema"].as_u64()), (Some(number as u64), Some(1)));
        }
        assert_eq!(self.events.last().unwrap()["event"], "run-finished");
        assert_eq!(self.summary["complete"], true);
        let mut told = BTreeMap::new();
        for cell in items(&self.summary["cells"]) {
            for package in items(&cell["packages"]) {
                let suite = format!("{} {}", word(&cell["cell"]), word(&package["package"]));
                let silent = items(&package["tests"]).is_empty();
                assert!(!silent || package["note"] == "no tests", "nothing is told of {suite}");
                for test in items(&package["tests"]) {
                    let before =
                        told.insert((suite.clone(), word(&test["test"]).to_owned()), word(&test["result"]));
                    assert_eq!(before, None, "{suite} {} has two results", test["test"]);
                }
            }
        }
        self.none_is_missing(&told);
        let count =
            |counts: &Value| counts.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
        let counted = count(&self.summary["counts"]) + count(&self.summary["package_counts"]);
        assert_eq!(counted, told.len() as u64, "counts of the summary");
        self.junit_says_the_same(&told);
    }

    fn none_is_missing(&self, told: &BTreeMap<(String, String), &str>) {
        let suites: BTreeSet<&str> = told.keys().map(|(suite, _)| suite.as_str()).collect();
        for shard in self.kind("plan-made").iter().flat_map(|plan| items(&plan["shards"])) {
            let (cell, package) = (word(&shard["cell"]), word(&shard["package"]));
            let quiet = self.package(cell, package)["note"] == "no tests";
            assert!(quiet || suites.contains(format!("{cell} {package}").as_str()), "{package} in {cell}");
        }
        for event in &self.events {
            let suite = format!("{} {}", word(&event["cell"]), word(&event["package"]));
            let started = (event["event"] == "test-started").then(|| event["test"].clone());
            let listed = items(&event["tests"]).iter().filter(|_| event["event"] == "tests-listed");
            for test in listed.chain(&started) {
                let key = (suite.clone(), word(test).to_owned());
                assert!(told.contains_key(&key), "no result for {key:?}");
            }
        }
    }

    fn junit_says_the_same(&self, told: &BTreeMap<(String, String), &str>) {
        let mut cases = BTreeMap::new();
        for suite in self.junit.iter().filter(|suite| suite.name.contains(' ')) {
            for case in &suite.cases {
                let name = if case.name == "(package)" { "" } else { &case.name };
                let before = cases.insert((suite.name.clone(), name.to_owned()), case.outcome.as_deref());
                assert_eq!(before, None, "JUnit has {} twice in {}", case.name, suite.name);
            }
        }
        let expected: BTreeMap<_, _> =
            told.iter().map(|(key, result)| (key.clone(), outcome(result))).collect();
        assert_eq!(cases, expected, "JUnit and summary differ");
    }
}

/// The JUnit element of a result.
fn outcome(result: &str) -> Option<&'static str> {
    match result {
        "pass" | "flaky" => None,
        "skip" => Some("skipped"),
        "lost" | "not-run" | "missing" => Some("error"),
        "fail" | "timed-out" | "crashed" | "unfinished" => Some("failure"),
        other => panic!("`{other}` is no result"),
    }
}
