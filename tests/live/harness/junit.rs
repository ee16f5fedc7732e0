//! JUnit read twice: by a small reader here, and by Python's `junitparser`, which nobody here wrote.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Debian's Python, which sees Debian's `junitparser`.
const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = "
import json, sys
from junitparser import JUnitXml
rows = []
for suite in JUnitXml.fromfile(sys.argv[1]):
    for case in suite:
        rows.append([suite.name, case.classname, case.name] + [type(r).__name__.lower() for r in case.result])
print(json.dumps(rows))
";

/// A `<testsuite>`.
#[derive(Debug, Default)]
pub(crate) struct Suite {
    /// Its name.
    pub(crate) name: String,
    /// Its properties.
    pub(crate) properties: BTreeMap<String, String>,
    /// Its cases.
    pub(crate) cases: Vec<Case>,
    counts: [usize; 4],
}

/// A `<testcase>`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: String,
    class: String,
    /// `failure`, `error`, `skipped`, or nothing for a pass.
    pub(crate) outcome: Option<String>,
    /// Message and body of that.
    pub(crate) words: String,
}

fn attributes(tag: &BytesStart<'_>) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    tag.attributes()
        .map(|attribute| attribute.unwrap())
        .map(|a| (text(a.key.as_ref()), quick_xml::escape::unescape(&text(&a.value)).unwrap().into_owned()))
        .collect()
}

/// Reads a file and checks it: counts are right, and `junitparser` sees the same cases.
pub(crate) fn read(file: &Path) -> Vec<Suite> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut reader = Reader::from_str(&text);
    let mut suites: Vec<Suite> = Vec::new();
    loop {
        let event = reader.read_event().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        match &event {
            Event::Start(tag) | Event::Empty(tag) => open(tag, &mut suites),
            Event::Text(text) => words(&mut suites, &String::from_utf8_lossy(text)),
            Event::CData(text) => words(&mut suites, &String::from_utf8_lossy(text)),
            Event::GeneralRef(name) => words(&mut suites, &String::from_utf8_lossy(name)),
            Event::Eof => break,
            _ => {}
        }
    }
    check(&suites, file);
    suites
}

fn open(tag: &BytesStart<'_>, suites: &mut Vec<Suite>) {
    let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
    let mut has = attributes(tag);
    let mut take = |key: &str| has.remove(key).unwrap_or_default();
    if name == "testsuite" {
        let count = |text: String| text.parse::<usize>().unwrap_or_default();
        let counts = ["tests", "failures", "errors", "skipped"].map(|key| count(take(key)));
        suites.push(Suite { name: take("name"), counts, ..Suite::default() });
        return;
    }
    let Some(suite) = suites.last_mut() else { return };
    match (name.as_str(), suite.cases.last_mut()) {
        ("property", _) => {
            suite.properties.insert(take("name"), take("value"));
        }
        ("testcase", _) => {
            suite.cases.push(Case { name: take("name"), class: take("classname"), ..Case::default() });
        }
        ("failure" | "error" | "skipped", Some(case)) => {
            assert_eq!(case.outcome, None, "{} has two outcomes", case.name);
            case.words = take("message");
            case.outcome = Some(name);
        }
        _ => {}
    }
}

fn words(suites: &mut [Suite], text: &str) {
    if let Some(case) = suites.last_mut().and_then(|suite| suite.cases.last_mut()) {
        case.words.push_str(text);
    }
}

fn check(suites: &[Suite], file: &Path) {
    let mut ours: Vec<Vec<String>> = Vec::new();
    for suite in suites {
        let with =
            |kind: &str| suite.cases.iter().filter(|case| case.outcome.as_deref() == Some(kind)).count();
        let counted = [suite.cases.len(), with("failure"), with("error"), with("skipped")];
        assert_eq!(suite.counts, counted, "counts of suite {}", suite.name);
        for case in &suite.cases {
            let mut row = vec![suite.name.clone(), case.class.clone(), case.name.clone()];
            row.extend(case.outcome.clone());
            ours.push(row);
        }
    }
    let output =
        Command::new(PYTHON).args(["-c", SCRIPT]).arg(file).output().expect("apt-get install python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "junitparser (apt-get install python3-junitparser): {said}");
    let theirs: Vec<Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(theirs, ours, "junitparser reads something else in {}", file.display());
}
