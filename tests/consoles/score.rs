//! How well triage names the cause of machines that were really broken, and that it names none for those that are well.
//!
//! `cargo xtask triage-score [FOLDER]` prints the table. A folder has a folder for each cause, and in it a console
//! `NAME.log` with what is known beside it in `NAME.toml` (that may be missing); the cause `none` is of machines that
//! are well. `record.py` wrote those that are here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kmt_reporters::triage::boot::{Classifier, Ended, Facts, causes};
use kmt_reporters::triage::{Finding, Place};
use serde::Deserialize;

/// The name of the folder of machines that are well.
const NONE: &str = "none";
/// Right answers among the broken ones, per cent.
const ENOUGH: usize = 95;

/// How a machine was broken, and what was known of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    how: String,
    facts: Facts,
}

/// One console with the cause that it must yield.
struct Case {
    cause: String,
    name: String,
    told: Told,
    console: Vec<u8>,
}

fn folder() -> PathBuf {
    match std::env::var_os("KMT_CONSOLES") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/consoles"),
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in entries(&folder()).into_iter().filter(|path| path.is_dir()) {
        let logs = entries(&path).into_iter().filter(|path| path.extension().is_some_and(|it| it == "log"));
        for log in logs {
            let told = log.with_extension("toml");
            let told = if told.exists() {
                toml::from_str(&fs::read_to_string(&told).unwrap()).unwrap()
            } else {
                Told::default()
            };
            cases.push(Case {
                cause: path.file_name().unwrap().to_string_lossy().into_owned(),
                name: log.file_stem().unwrap().to_string_lossy().into_owned(),
                told,
                console: fs::read(&log).unwrap(),
            });
        }
    }
    cases
}

impl Case {
    /// Whether a machine ran at all: the host refused none.
    fn is_a_guest(&self) -> bool {
        self.told.facts.ended != Ended::Refused
    }

    /// The answer to a console that comes in pieces of so many bytes.
    fn answer(&self, piece: usize) -> Option<Finding> {
        let mut classifier = Classifier::new();
        for piece in self.console.chunks(piece) {
            classifier.push(piece);
        }
        classifier.finding(&self.told.facts)
    }
}

fn named(answer: Option<&Finding>) -> &str {
    answer.map_or(NONE, |finding| finding.cause)
}

/// The table, and right answers and questions: of the broken, of those that are well.
fn score(cases: &[Case]) -> (String, [(usize, usize); 2]) {
    let mut rows: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let (mut totals, mut confused) = ([(0, 0); 2], String::new());
    for case in cases {
        let answer = case.answer(1 << 16);
        let right = named(answer.as_ref()) == case.cause;
        let total = &mut totals[usize::from(case.cause == NONE)];
        let row = rows.entry(&case.cause).or_default();
        for (rights, all) in [row, total] {
            *rights += usize::from(right);
            *all += 1;
        }
        if !right {
            let says = answer.map(|finding| finding.says).unwrap_or_default();
            let named = format!("{}/{} ({})", case.cause, case.name, case.told.how);
            writeln!(confused, "  {named}\n    taken for: {says}").unwrap();
        }
    }
    let mut table = format!("{:<28} {:>8} {:>6}\n", "cause", "consoles", "right");
    for (cause, (right, all)) in rows {
        writeln!(table, "{cause:<28} {all:>8} {right:>6}").unwrap();
    }
    let [(broken_right, broken), (well_right, well)] = totals;
    writeln!(
        table,
        "{:<28} {broken:>8} {broken_right:>6}   {:.1} %",
        "all that are broken",
        percent(broken_right, broken)
    )
    .unwrap();
    writeln!(table, "{:<28} {well:>8} {well_right:>6}   no cause named", "all that are well").unwrap();
    if !confused.is_empty() {
        writeln!(table, "confused:\n{confused}").unwrap();
    }
    (table, totals)
}

fn percent(right: usize, all: usize) -> f64 {
    100.0 * right as f64 / all.max(1) as f64
}

#[test]
fn score_is_good_enough() {
    let cases = cases();
    let (table, [(broken_right, broken), (well_right, well)]) = score(&cases);
    println!("{table}");
    if std::env::var_os("KMT_CONSOLES").is_none() {
        let of = |kernel: &str| {
            let guests = cases.iter().filter(|case| case.cause != NONE && case.is_a_guest());
            guests.filter(|case| case.name.contains("6.12") == (kernel == "6.12")).count()
        };
        let slow = cases.iter().filter(|case| case.cause == "slow").count();
        let (old, new) = (of("6.1"), of("6.12"));
        assert!(old + new - slow >= 60 && old >= 20 && new >= 20, "{old} and {new} guests, {slow} only slow");
        assert!(well >= 30, "{well} well, {slow} slow");
        assert!(broken_right * 100 >= broken * ENOUGH, "{table}");
        assert_eq!(well_right, well, "{table}");
    }
}

#[test]
fn evidence_lies_where_it_says() {
    for case in cases() {
        for evidence in case.answer(4096).into_iter().flat_map(|finding| finding.evidence) {
            let Place::Console { line, offset } = evidence.place else { continue };
            let (offset, feeds) = (usize::try_from(offset).unwrap(), case.console.iter());
            assert_eq!(
                feeds.take(offset).filter(|byte| **byte == b'\n').count() as u64 + 1,
                line,
                "{}",
                case.name
            );
            let last = evidence.text.split_whitespace().last().unwrap_or_default();
            let there = &case.console[offset..case.console.len().min(offset + 4096)];
            assert!(
                String::from_utf8_lossy(&strip_ansi_escapes::strip(there)).contains(last),
                "{}/{}: {evidence:?}",
                case.cause,
                case.name
            );
        }
    }
}

#[test]
fn it_does_not_matter_how_a_console_comes() {
    for case in cases() {
        assert_eq!(case.answer(1), case.answer(usize::MAX >> 1), "{}/{}", case.cause, case.name);
    }
}

#[test]
fn every_folder_is_named_by_a_cause() {
    let known: Vec<&str> = causes().iter().map(|cause| cause.id).chain([NONE]).collect();
    let mut found: Vec<String> = cases().into_iter().map(|case| case.cause).collect();
    found.dedup();
    if std::env::var_os("KMT_CONSOLES").is_none() {
        assert!(found.iter().all(|cause| known.contains(&cause.as_str())), "{found:?}");
        assert!(found.len() > 25, "{} causes", found.len());
    }
}
