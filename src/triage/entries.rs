//! Jobs or cells with what became of them, put together as an explanation tells them. Pure.

use std::collections::BTreeMap;

use kmt_reporters::explain::{self, Cause, FailedJob, Group, Mark, Place, Reason, TestRow};
use kmt_reporters::triage::normalise;

use super::decide::Told;
use super::junit::Results;

/// A job, or a cell of a run.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Component.
    pub component: String,
    /// Test set; empty where there is none.
    pub set: String,
    /// Where it ran.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Where people look at it.
    pub url: String,
    /// How often it ran.
    pub attempts: usize,
    /// Whether its failure counts for the pipeline.
    pub allowed: bool,
    /// Size of its machine, where that was asked for and is known.
    pub size: Option<super::sizes::Size>,
    /// What became of it.
    pub state: State,
    /// What became of its tests, where that is known.
    pub results: Option<Results>,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It passed at first.
    Passed,
    /// It passed when it was retried.
    Recovered,
    /// It is not done, or never will be.
    Unfinished,
    /// It failed for good.
    Failed(Told),
}

impl Entry {
    /// Where, with the test set: the name of a place among causes.
    fn label(&self) -> String {
        let set = if self.set.is_empty() { String::new() } else { format!(" {}", self.set) };
        format!("{}{set} {}", self.component, self.place)
    }
}

/// Groups with something to tell, in the order of component and set.
pub fn groups(entries: &[Entry]) -> Vec<Group> {
    let mut sorted: BTreeMap<(&str, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        sorted.entry((&entry.component, &entry.set)).or_default().push(entry);
    }
    let groups = sorted.into_iter().map(|((component, set), entries)| group(component, set, &entries));
    groups
        .filter(|group| !group.jobs.is_empty() || !group.tests.is_empty() || !group.recovered.is_empty())
        .collect()
}

fn group(component: &str, set: &str, entries: &[&Entry]) -> Group {
    let mut group = Group {
        component: component.to_owned(),
        set: set.to_owned(),
        total: entries.len(),
        ..Group::default()
    };
    for entry in entries {
        match &entry.state {
            State::Passed => group.passed += 1,
            State::Recovered => group.recovered.push(entry.place.clone()),
            State::Unfinished => group.unfinished += 1,
            State::Failed(told) => group.jobs.push(FailedJob {
                place: entry.place.clone(),
                name: entry.name.clone(),
                reason: told.reason.clone(),
                says: told.says.clone(),
                attempts: entry.attempts,
                allowed: entry.allowed,
                url: entry.url.clone(),
            }),
        }
    }
    group.jobs.sort_by(|a, b| (&a.reason, &a.place).cmp(&(&b.reason, &b.place)));
    group.tests = rows(entries);
    group.boundary = boundary(&group.tests, entries);
    group
}

/// Tests that failed or were flaky; those that fail in most places first.
fn rows(entries: &[&Entry]) -> Vec<TestRow> {
    let mut rows: BTreeMap<(&str, &str), TestRow> = BTreeMap::new();
    let results = || entries.iter().filter_map(|entry| Some((&entry.place, entry.results.as_ref()?)));
    for (_, results) in results() {
        for ((package, test), _) in results.failed().chain(results.flaky()) {
            let (package, test) = (package.as_str(), test.as_str());
            rows.entry((package, test)).or_insert_with(|| TestRow {
                package: package.to_owned(),
                test: test.to_owned(),
                marks: Vec::new(),
            });
        }
    }
    for (place, results) in results() {
        for row in rows.values_mut() {
            if let Some(outcome) = results.tests.get(&(row.package.clone(), row.test.clone())) {
                row.marks.push((place.clone(), outcome.mark));
            }
        }
    }
    let mut rows: Vec<TestRow> = rows.into_values().collect();
    rows.iter_mut().for_each(|row| row.marks.sort());
    let failures = |row: &TestRow| row.marks.iter().filter(|(_, mark)| *mark == Mark::Fail).count();
    rows.sort_by_key(|row| std::cmp::Reverse(failures(row)));
    rows
}

/// What separates where the tests of a group fail from where they pass, if one statement holds for most of the failures.
fn boundary(rows: &[TestRow], entries: &[&Entry]) -> Option<String> {
    let passed: Vec<&Place> = entries
        .iter()
        .filter(|entry| matches!(entry.state, State::Passed | State::Recovered))
        .map(|entry| &entry.place)
        .collect();
    let mut statements: BTreeMap<String, Vec<&TestRow>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.failed()) {
        let of =
            |wanted: Mark| row.marks.iter().filter(move |(_, mark)| *mark == wanted).map(|(place, _)| place);
        let good: Vec<&Place> = of(Mark::Pass).chain(of(Mark::Flaky)).chain(passed.iter().copied()).collect();
        if let Some(statement) = explain::boundary(&of(Mark::Fail).collect::<Vec<_>>(), &good) {
            statements.entry(statement).or_default().push(row);
        }
    }
    let failures = |row: &TestRow| row.marks.iter().filter(|(_, mark)| *mark == Mark::Fail).count();
    let of = |tests: &[&TestRow]| tests.iter().map(|row| failures(row)).sum::<usize>();
    let (statement, tests) = statements.into_iter().max_by_key(|(_, tests)| of(tests))?;
    if of(&tests) * 2 < rows.iter().map(failures).sum() {
        return None;
    }
    Some(match tests.as_slice() {
        [one] => format!("{} fails {statement}", if one.test.is_empty() { &one.package } else { &one.test }),
        many => format!("{} tests fail {statement}", many.len()),
    })
}

/// What went wrong in these, the same thing once.
pub fn causes(entries: &[Entry]) -> Vec<Cause> {
    let mut causes = Vec::new();
    for entry in entries {
        let named = entry.results.iter().flat_map(Results::failed).next().is_some();
        if let State::Failed(told) = &entry.state
            && !(told.reason == Reason::Test && named)
        {
            causes.push(told.cause(entry.label()));
        }
        for ((package, test), outcome) in entry.results.iter().flat_map(Results::failed) {
            causes.push(of_test(package, test, &outcome.message, entry));
        }
    }
    explain::grouped(causes)
}

fn of_test(package: &str, test: &str, message: &str, entry: &Entry) -> Cause {
    let name = if test.is_empty() { package } else { test };
    let (says, signature) = match message {
        "" => (format!("{name} of {package} fails"), format!("{package} {test}")),
        message => (message.to_owned(), normalise(message)),
    };
    Cause {
        reason: Reason::Test,
        id: "test".to_owned(),
        says,
        advice: String::new(),
        evidence: Vec::new(),
        places: vec![format!("{name} on {}", entry.label())],
        signature,
    }
}
