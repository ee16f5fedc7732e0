//! The one command that runs a failing cell and its failing tests here, and what differs here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kmt_reporters::event::{Arch, Location, TestResult};
use kmt_reporters::model::{CellReport, Report, Run, TestReport};
use serde::Serialize;

use crate::matrix::spec;

/// Tests that one command names; more than that, and it runs the package.
const NAMED: usize = 20;

/// How to see a cell's failures again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reproduction {
    /// The cell.
    pub(super) cell: String,
    /// Failing tests that it runs.
    pub(super) tests: usize,
    /// To paste into a shell.
    pub(super) command: String,
    /// What is not as it was.
    pub(super) differs: Vec<String>,
}

/// One for each cell in which a test failed, or that never ran, in the order of the run.
pub(super) fn all(run: &Run, images: &Path) -> Vec<Reproduction> {
    let report = run.report();
    let here = digests(images);
    report.cells.iter().filter_map(|cell| of_cell(&report, cell, &here)).collect()
}

/// The command for the first cell in which a test failed: its first failing test.
pub(super) fn first(run: &Run) -> Option<String> {
    let report = run.report();
    let failing = || report.odd().filter(|(_, _, test)| failed(test) && !test.name.is_empty());
    // What nobody expected comes first.
    let unexpected = failing().find(|(_, _, test)| !test.is_known_failure());
    let (cell, package, test) = unexpected.or_else(|| failing().next())?;
    let tests = BTreeMap::from([(package.name, vec![test.name])]);
    command(run, cell, &tests)
}

/// Whether it failed by its own doing and is the place to look.
fn failed(test: &TestReport<'_>) -> bool {
    use TestResult::{Crashed, Fail, TimedOut, Unfinished};
    !test.blames_subtest && matches!(test.result, Fail | Crashed | TimedOut | Unfinished)
}

fn of_cell(report: &Report<'_>, cell: &CellReport<'_>, here: &BTreeSet<String>) -> Option<Reproduction> {
    let mut tests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &cell.packages {
        let bad = package.odd.iter().filter(|test| failed(test));
        let names: Vec<&str> = bad.map(|test| test.name).collect();
        if !names.is_empty() {
            tests.insert(package.name, names);
        }
    }
    if tests.is_empty() && cell.trouble.is_none() {
        return None;
    }
    let count = tests.values().map(Vec::len).sum();
    Some(Reproduction {
        cell: cell.cell.id.to_string(),
        tests: count,
        command: command(report.run, cell, &tests)?,
        differs: differs(report.run, cell, here),
    })
}

/// A cell that never ran is asked for as a whole.
fn command(run: &Run, cell: &CellReport<'_>, tests: &BTreeMap<&str, Vec<&str>>) -> Option<String> {
    let mut id = cell.cell.id.clone();
    id.location = Location::Local;
    let machine = spec::spelling(&id, Arch::host())?;
    let mut words = vec!["kmt-run".to_owned()];
    if !run.root.is_empty() {
        words.extend(["-C".to_owned(), quoted(&run.root)]);
    }
    words.extend(["run".to_owned(), "--vms".to_owned(), quoted(&machine)]);
    if !run.component.is_empty() && !tests.is_empty() {
        let packages: Vec<String> = tests.keys().map(|package| format!("./{package}")).collect();
        words.extend(["--packages".to_owned(), quoted(&packages.join(","))]);
    }
    if !run.component.is_empty() && run.command.iter().any(|word| word.starts_with("--component")) {
        words.extend(["--component".to_owned(), quoted(&run.component)]);
    }
    let names: Vec<&str> = tests.values().flatten().copied().collect();
    words.extend(only(&run.format, &names).iter().map(|word| quoted(word)));
    Some(words.join(" "))
}

/// Words that choose these tests, in the language of their binaries; none where all must run.
fn only(format: &str, names: &[&str]) -> Vec<String> {
    let all = names.is_empty() || names.len() > NAMED || names.contains(&"");
    match format {
        "" => pattern(names).map_or(Vec::new(), |pattern| vec!["--run".to_owned(), pattern]),
        // Where a name has what the filter takes for more than itself, the binary runs whole.
        "gtest" if !all && !names.iter().any(|name| name.contains([':', '*', '?', '-'])) => {
            vec![format!("--test-arg=--gtest_filter={}", names.join(":"))]
        }
        "libtest" if !all => {
            let exact = ["--exact"].into_iter().chain(names.iter().copied());
            exact.map(|word| format!("--test-arg={word}")).collect()
        }
        _ => Vec::new(),
    }
}

/// What `-test.run` takes for these tests; none where it must run all.
fn pattern(names: &[&str]) -> Option<String> {
    if names.is_empty() || names.len() > NAMED || names.contains(&"") {
        return None;
    }
    if let [name] = names {
        let parts: Vec<String> = name.split('/').map(|part| format!("^{}$", regex::escape(part))).collect();
        return Some(parts.join("/"));
    }
    // Levels of different tests cannot be told apart in one expression: the top-level tests, each with all below it.
    let tops: BTreeSet<String> =
        names.iter().map(|name| regex::escape(name.split('/').next().unwrap_or_default())).collect();
    let tops: Vec<String> = tops.into_iter().collect();
    Some(if tops.len() == 1 { format!("^{}$", tops[0]) } else { format!("^({})$", tops.join("|")) })
}

fn differs(run: &Run, cell: &CellReport<'_>, here: &BTreeSet<String>) -> Vec<String> {
    let mut differs = Vec::new();
    let id = &cell.cell.id;
    if id.arch != Arch::host() {
        differs.push(format!("{} is emulated here: slower, and deadlines may pass", id.arch));
    }
    if id.location == Location::Remote {
        differs.push("it ran on a remote machine".to_owned());
    }
    let name = match id.platform.as_str() {
        "custom" => format!("custom-{}/{}", id.kernel, id.arch),
        platform => format!("{platform}/{}", id.arch),
    };
    let used = run.images.iter().rev().find(|image| image.image == name);
    match used {
        Some(image) if !image.digest.is_empty() && !here.contains(&image.digest) => {
            let digest: String = image.digest.chars().take(12).collect();
            differs.push(format!(
                "its image {} ({digest}) is not the one that is here, or none is",
                image.image
            ));
        }
        _ => {}
    }
    differs
}

/// Digests in the manifests of the images that are here.
fn digests(images: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![(images.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && depth < 3 {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|ending| ending == "json")
                && let Ok(text) = std::fs::read(&path)
                && let Ok(value) = serde_json::from_slice::<serde_json::Value>(&text)
            {
                collect(&value, &mut found);
            }
        }
    }
    found
}

fn collect(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        serde_json::Value::String(text)
            if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) =>
        {
            found.insert(text.clone());
        }
        _ => {}
    }
}

/// A word as a shell takes it: a test's name comes from a guest.
pub(super) fn quoted(word: &str) -> String {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '@' | '+' | ',');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_a_guest_are_quoted_for_a_shell() {
        assert_eq!(quoted("./pkg/a"), "./pkg/a");
        assert_eq!(quoted("^A$"), "'^A$'");
        assert_eq!(quoted("a'; rm -rf /"), r"'a'\''; rm -rf /'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_pattern_means_just_these_tests() {
        assert_eq!(pattern(&["TestA/b.c"]).as_deref(), Some(r"^TestA$/^b\.c$"));
        assert_eq!(pattern(&["TestA/x", "TestA/y"]).as_deref(), Some("^TestA$"));
        assert_eq!(pattern(&["TestB", "TestA/x"]).as_deref(), Some("^(TestA|TestB)$"));
        assert_eq!(pattern(&["TestA", ""]), None);
        assert_eq!(pattern(&["T"; NAMED + 1]), None);
    }

    #[test]
    fn binaries_that_are_not_gos_are_told_in_their_own_language() {
        assert_eq!(only("", &["TestA"]), ["--run", "^TestA$"]);
        assert_eq!(only("gtest", &["A.x", "B/c.y/0"]), ["--test-arg=--gtest_filter=A.x:B/c.y/0"]);
        assert_eq!(only("libtest", &["a::b"]), ["--test-arg=--exact", "--test-arg=a::b"]);
        for (format, names) in [("gtest", ["A-x"]), ("gtest", [""]), ("libtest", [""]), ("tap", ["any port"])]
        {
            assert_eq!(only(format, &names), Vec::<String>::new(), "{format}");
        }
    }
}
