//! What of a run is on the page: all results in a compact form, details within bounds.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::Sources;
use super::consoles::{self, Console};
use crate::compare::{boundaries, groups};
use crate::event::{OutputRef, TestResult};
use crate::model::{CellReport, MachineLane, RESULTS, Report, SpanKind, TestReport, is_good, result_name};
use crate::output::head_and_tail;

/// Bytes of one output, and of all outputs together; the page stays below 5 MB.
const OUTPUT: u64 = 6 * 1024;
const OUTPUTS: usize = 1_500_000;

/// Tests that have details; boundaries and groups shown, and tests that one of those names.
const DETAILS: usize = 12_000;
const GROUPS: usize = 300;
const NAMED: usize = 200;

/// The letter of a result: one a test and cell, `.` where the cell does not have the test.
fn letter(result: TestResult) -> char {
    match result {
        TestResult::Pass => 'p',
        TestResult::Flaky => '~',
        TestResult::Fail => 'f',
        TestResult::TimedOut => 't',
        TestResult::Crashed => 'c',
        TestResult::Unfinished => 'u',
        TestResult::Skip => 's',
        TestResult::Lost => 'l',
        TestResult::Missing => 'm',
        TestResult::NotRun => 'n',
    }
}

/// The page's data.
pub(super) fn value(report: &Report<'_>, sources: &Sources<'_>) -> Result<Value, serde_json::Error> {
    let run = report.run;
    let consoles = consoles::consoles(report, sources.output);
    let mut page = Page::new(report, sources, &consoles);
    let rows: Vec<(String, String)> = report.cells.iter().map(|cell| page.row(cell)).collect();
    let details = page.details();
    let outcome = report.outcome();
    let counts: BTreeMap<&str, u64> =
        RESULTS.iter().map(|result| (result_name(*result), report.counts.of(*result))).collect();
    Ok(json!({
        "schema": 1,
        "run": run.id, "component": run.component, "stack": run.stack, "version": run.version,
        "command": run.command, "root": run.root, "started": run.started, "wall": run.elapsed_ms,
        "inTests": run.in_tests_ms(), "outcome": outcome.as_str(),
        "exit": outcome.exit_code(run.test_failure_exit_code), "complete": run.ended.is_some(),
        "cancelledBy": run.cancelled_by, "counts": counts, "knownFlaky": report.counts.known_failures(),
        "letters": RESULTS.iter().map(|result| (letter(*result).to_string(), result_name(*result))).collect::<BTreeMap<_, _>>(),
        "cells": report.cells.iter().map(|cell| page.cell(cell)).collect::<Vec<_>>(),
        "packages": page.packages, "tests": page.tests.iter().map(|(package, test)| json!([package, test])).collect::<Vec<_>>(),
        "results": rows.iter().map(|(results, _)| results).collect::<Vec<_>>(),
        "ms": rows.iter().map(|(_, ms)| ms).collect::<Vec<_>>(),
        "details": details, "texts": page.texts,
        "boundaries": page.boundaries(), "groups": page.groups(),
        "lanes": run.timeline.machines.iter().map(|(machine, lane)| page.lane(machine, lane)).collect::<Vec<_>>(),
        "builds": run.timeline.builds.iter().map(|(arch, (from, to))| json!([arch, from, to])).collect::<Vec<_>>(),
        "consoles": serde_json::to_value(&consoles)?,
        "warnings": run.warnings,
        "failedBuilds": run.builds.iter().filter_map(|(arch, build)| match build {
            crate::model::Build::Failed { subject, message } => Some(json!([arch.as_str(), subject, message])),
            _ => None,
        }).collect::<Vec<_>>(),
    }))
}

struct Page<'r, 's> {
    report: &'r Report<'r>,
    sources: &'s Sources<'s>,
    consoles: &'s [Console<'r>],
    packages: Vec<&'r str>,
    /// Package index and test, sorted; the row of each.
    tests: Vec<(usize, &'r str)>,
    row_of: HashMap<(&'r str, &'r str), usize>,
    texts: Vec<String>,
    text_of: HashMap<(String, u64, u64), usize>,
    held: usize,
}

impl<'r, 's> Page<'r, 's> {
    fn new(report: &'r Report<'r>, sources: &'s Sources<'s>, consoles: &'s [Console<'r>]) -> Page<'r, 's> {
        let mut names: HashSet<(&str, &str)> = HashSet::new();
        for package in report.cells.iter().flat_map(|cell| &cell.packages) {
            names.extend(package.odd.iter().map(|test| (package.name, test.name)));
            names.extend(package.plain().map(|(test, _)| (package.name, test)));
        }
        let mut names: Vec<(&str, &str)> = names.into_iter().collect();
        names.sort_unstable();
        let mut packages: Vec<&str> = names.iter().map(|(package, _)| *package).collect();
        packages.dedup();
        let index: HashMap<&str, usize> = packages.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        let tests = names.iter().map(|(package, test)| (index[package], *test)).collect();
        let row_of = names.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        Page {
            report,
            sources,
            consoles,
            packages,
            tests,
            row_of,
            texts: Vec::new(),
            text_of: HashMap::new(),
            held: 0,
        }
    }

    /// Letters and durations of a cell, a test a place; durations in milliseconds to base 36.
    fn row(&self, cell: &CellReport<'r>) -> (String, String) {
        let mut letters = vec!['.'; self.tests.len()];
        let mut durations: Vec<u64> = vec![0; self.tests.len()];
        for package in &cell.packages {
            let odd = package.odd.iter().map(|test| (test.name, test.result, test.duration_ms));
            let plain = package.plain().map(|(test, ms)| (test, TestResult::Pass, ms));
            for (test, result, ms) in odd.chain(plain) {
                if let Some(at) = self.row_of.get(&(package.name, test)) {
                    letters[*at] = letter(result);
                    durations[*at] = ms;
                }
            }
        }
        let durations: Vec<String> = durations.into_iter().map(base36).collect();
        (letters.into_iter().collect(), durations.join(","))
    }

    fn cell(&self, report: &CellReport<'_>) -> Value {
        let cell = report.cell;
        let facts = cell.facts.as_ref();
        json!({
            "id": cell.id, "distro": cell.distro, "version": cell.distro_version, "kernel": cell.id.kernel,
            "arch": cell.id.arch, "release": facts.map(|facts| &facts.kernel_release),
            "os": facts.map(|facts| &facts.os_name), "boot": facts.map(|facts| facts.boot_ms),
            "reused": facts.map(|facts| facts.reused), "skipped": cell.skipped,
            "trouble": report.trouble.as_ref().map(|trouble| json!({
                "stage": trouble.stage, "phase": trouble.phase.map(|phase| phase.as_str()), "message": trouble.message,
            })),
            "splats": cell.splats.iter().map(|splat| &splat.signature).collect::<Vec<_>>(),
            "shipped": cell.shipped.map(|shipped| shipped.bytes), "inTests": self.report.run.cell_in_tests_ms(cell),
            "vms": (self.sources.spelling)(&cell.id),
        })
    }

    /// What is said of tests that did not simply pass or skip.
    fn details(&mut self) -> Vec<Value> {
        let mut details = Vec::new();
        let report = self.report;
        for (index, cell) in report.cells.iter().enumerate() {
            for package in &cell.packages {
                for test in &package.odd {
                    let plain = is_good(test.result) && test.result != TestResult::Flaky;
                    if plain || details.len() >= DETAILS {
                        continue;
                    }
                    let Some(row) = self.row_of.get(&(package.name, test.name)).copied() else { continue };
                    let text = if test.blames_subtest { None } else { test.output.as_ref() };
                    let text = text.and_then(|(output, scope)| Some((self.text(output)?, *scope)));
                    let package_scope =
                        matches!(text, Some((_, crate::model::OutputScope::Package))).then_some(true);
                    details.push(json!({
                        "c": index, "t": row, "why": test.message, "text": text.map(|(at, _)| at),
                        "package": package_scope, "file": test.output.as_ref().map(|(output, _)| &output.file),
                        "blames": test.blames_subtest.then_some(true), "console": self.console(test),
                        "earlier": self.earlier(test), "known": test.known_flaky.then_some(true),
                        "owners": (!test.owners.is_empty()).then_some(test.owners),
                    }));
                }
            }
        }
        details
    }

    fn earlier(&mut self, test: &TestReport<'r>) -> Option<Vec<Value>> {
        if test.earlier.is_empty() {
            return None;
        }
        let attempts = test.earlier.iter().map(|attempt| {
            let text = attempt.output.and_then(|output| self.text(output));
            json!([attempt.number, result_name(attempt.result), attempt.message, text])
        });
        Some(attempts.collect())
    }

    /// The console that tells of the test's end.
    fn console(&self, test: &TestReport<'_>) -> Option<usize> {
        if test.evidence.is_empty() {
            return None;
        }
        self.consoles.iter().position(|console| std::ptr::eq(console.quoted, test.evidence))
    }

    /// The place of an output among the texts; one output is there once.
    fn text(&mut self, output: &OutputRef) -> Option<usize> {
        let key = (output.file.clone(), output.offset, output.length);
        if let Some(at) = self.text_of.get(&key) {
            return Some(*at);
        }
        if self.held >= OUTPUTS {
            return None;
        }
        let text = head_and_tail(self.sources.output, output, OUTPUT, self.sources.masks);
        let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        self.held += text
            .bytes()
            .map(|byte| if matches!(byte, b'<' | b'"' | b'\n' | b'\\') { 5 } else { 1 })
            .sum::<usize>();
        self.texts.push(text);
        self.text_of.insert(key, self.texts.len() - 1);
        Some(self.texts.len() - 1)
    }

    fn rows(&self, tests: &[(String, String)]) -> Vec<usize> {
        let rows = tests.iter().take(NAMED);
        rows.filter_map(|(package, test)| self.row_of.get(&(package.as_str(), test.as_str())).copied())
            .collect()
    }

    fn boundaries(&self) -> Vec<Value> {
        let found = boundaries(self.report);
        let told = found.iter().take(GROUPS).map(|boundary| {
            json!({
                "fails": boundary.fails, "or": boundary.or, "tests": self.rows(&boundary.tests),
                "count": boundary.tests.len(), "bad": boundary.bad, "good": boundary.good,
            })
        });
        told.collect()
    }

    fn groups(&self) -> Vec<Value> {
        let place: HashMap<_, _> =
            self.report.cells.iter().enumerate().map(|(at, cell)| (&cell.cell.id, at)).collect();
        let found = groups(self.report, self.sources.output, self.sources.masks);
        let told = found.iter().take(GROUPS).map(|group| {
            json!({
                "kind": group.kind, "example": group.example, "failures": group.failures,
                "cells": group.cells.iter().filter_map(|cell| place.get(cell).copied()).collect::<Vec<_>>(),
                "tests": self.rows(&group.tests), "count": group.tests.len(),
            })
        });
        told.collect()
    }

    fn lane(&self, machine: &str, lane: &MachineLane) -> Value {
        let cell = self.report.cells.iter().position(|cell| cell.cell.id == lane.cell);
        let spans = lane.spans.iter().map(|span| {
            let kind = match span.kind {
                SpanKind::Boot => "boot",
                SpanKind::Ship => "ship",
                SpanKind::Package => "package",
            };
            json!([kind, span.name, span.start_ms, span.end_ms, span.failed])
        });
        json!({
            "machine": machine, "cell": cell, "lost": lane.lost_ms, "spans": spans.collect::<Vec<_>>(),
            "phases": lane.phases.iter().map(|(phase, at)| json!([phase.as_str(), at])).collect::<Vec<_>>(),
        })
    }
}

fn base36(mut number: u64) -> String {
    if number == 0 {
        return String::new();
    }
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
    }
    digits.iter().rev().collect()
}
