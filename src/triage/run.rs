//! A recorded run: its event log, from wherever it comes.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use kmt_reporters::OutputSource;
use kmt_reporters::event::{BootPhase, CellId, OutputRef, TestResult};
use kmt_reporters::explain::{Explanation, Machine, Mark, Place, Reason, Subject};
use kmt_reporters::model::{CellReport, Run, TestReport, result_name};
use kmt_reporters::triage::{self, Explained};

use super::decide::Told;
use super::entries::{self, Entry, State};
use super::junit::{Outcome, Results, telling};

/// Bytes of a test's output that are looked at.
const OUTPUT: u64 = 64 << 10;

/// Reads an event log.
///
/// # Errors
/// What it is instead.
pub fn read(log: &Path) -> Result<Run, String> {
    let file = File::open(log).map_err(|error| format!("cannot be read: {error}"))?;
    Run::from_log(BufReader::new(file)).map_err(|error| format!("is none: {error}"))
}

/// The cells of a run as entries, and the run's own explanation.
pub fn explained(run: &Run, output: &dyn OutputSource) -> (Vec<Entry>, Explanation) {
    let causes = triage::explain(run, output);
    let report = run.report();
    let entries: Vec<Entry> = report.cells.iter().map(|cell| entry(run, cell, &causes, output)).collect();
    let failed = entries.iter().filter(|entry| matches!(entry.state, State::Failed(_))).count();
    let unfinished = entries.iter().filter(|entry| entry.state == State::Unfinished).count();
    let told = Explanation {
        schema: 1,
        subject: Subject {
            kind: "run",
            name: run.id.clone(),
            status: run.outcome().as_str().to_owned(),
            total: entries.len(),
            failed,
            unfinished,
            ..Subject::default()
        },
        groups: entries::groups(&entries),
        machines: causes.iter().map(|explained| machine(run, explained)).collect(),
        causes: entries::causes(&entries),
        ..Explanation::default()
    };
    (entries, told)
}

pub(super) fn place(id: &CellId) -> Place {
    let platform = match id.platform.as_str() {
        "custom" => format!("custom-{}", id.kernel),
        platform => platform.to_owned(),
    };
    Place { platform, arch: id.arch }
}

fn machine(run: &Run, explained: &Explained) -> Machine {
    let phase = explained.finding.phase;
    Machine {
        component: run.component.clone(),
        set: explained.cell.set.clone().unwrap_or_default(),
        place: place(&explained.cell),
        login: (phase >= BootPhase::Sshd).then_some(true),
        unit: None,
        address: None,
        phase: Some(phase.as_str().to_owned()),
        says: explained.finding.says.clone(),
    }
}

fn entry(run: &Run, cell: &CellReport<'_>, causes: &[Explained], output: &dyn OutputSource) -> Entry {
    let id = &cell.cell.id;
    let mut results = Results::default();
    for package in &cell.packages {
        for test in package.tests() {
            let name = (package.name.to_owned(), test.name.to_owned());
            results.tests.insert(name, outcome(&test, output));
        }
    }
    let state = state(cell, &results, causes.iter().find(|explained| explained.cell == *id));
    Entry {
        component: run.component.clone(),
        set: id.set.clone().unwrap_or_default(),
        place: place(id),
        name: id.to_string(),
        url: String::new(),
        attempts: 1,
        allowed: false,
        size: id.size,
        // What never ran is told once, by its cell.
        results: cell.trouble.is_none().then_some(results),
        state,
    }
}

fn state(cell: &CellReport<'_>, results: &Results, cause: Option<&Explained>) -> State {
    if let Some(trouble) = &cell.trouble {
        let reason = match trouble.stage {
            "boot" => Reason::Boot,
            "build" => Reason::Build,
            _ => Reason::Infra,
        };
        let message = trouble.message.lines().next().unwrap_or_default();
        return State::Failed(match cause {
            Some(explained) if reason == Reason::Boot => Told::of_finding(&explained.finding),
            _ => Told::new(reason, trouble.stage, message)
                .evidence(trouble.excerpt.iter().rev().take(4).rev().cloned().collect()),
        });
    }
    let failed = results.failed().count();
    if failed == 0 {
        let ran = results.tests.values().any(|outcome| outcome.mark != Mark::Skip);
        return if ran || results.tests.is_empty() { State::Passed } else { State::Unfinished };
    }
    let tests = kmt_reporters::plural(failed as u64, "test");
    if let Some(explained) = cause {
        return State::Failed(Told {
            says: format!("{}; {tests} failed", explained.finding.says),
            ..Told::of_finding(&explained.finding)
        });
    }
    State::Failed(Told::new(Reason::Test, "tests", format!("{tests} failed")))
}

fn outcome(test: &TestReport<'_>, output: &dyn OutputSource) -> Outcome {
    let mark = match test.result {
        TestResult::Pass => Mark::Pass,
        TestResult::Skip => Mark::Skip,
        TestResult::Flaky => Mark::Flaky,
        _ => Mark::Fail,
    };
    if mark != Mark::Fail {
        return Outcome { mark, message: String::new() };
    }
    let own = test.message.clone().unwrap_or_default();
    let text = test.output.as_ref().map(|(place, _)| {
        let length = place.length.min(OUTPUT);
        output.read(&OutputRef {
            offset: place.offset + place.length - length,
            length,
            ..place.clone().into_owned()
        })
    });
    let text = text.and_then(Result::ok).unwrap_or_default();
    let message = telling(&String::from_utf8_lossy(&text), &own);
    let by_itself = test.result == TestResult::Fail;
    Outcome {
        mark,
        message: if by_itself || !message.is_empty() { message } else { result_name(test.result).to_owned() },
    }
}
