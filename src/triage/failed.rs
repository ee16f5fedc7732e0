//! What failed in CI, as work: jobs with the tests of each package that are to run again. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kmt_reporters::explain::{Mark, Place, Reason};
use regex::Regex;

use super::entries::{Entry, State};
use super::sizes::Size;
use crate::error::{Failure, Result};
use crate::matrix::pipeline::Tests;

/// Which of what failed is meant.
#[derive(Debug, Default)]
pub struct Choice {
    jobs: Vec<Regex>,
    tests: Vec<Regex>,
    /// Whether tests that passed in a later attempt are meant too.
    pub flaky: Flaky,
}

/// What is done with tests that passed in a later attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flaky {
    /// They passed.
    #[default]
    Passed,
    /// They run again.
    Again,
}

impl Choice {
    /// By parts of the names of jobs (or globs of them), and expressions for full names of tests.
    ///
    /// # Errors
    /// An expression that is none.
    pub fn new(jobs: &[String], tests: &[String], flaky: Flaky) -> Result<Choice> {
        let jobs = jobs.iter().map(|job| match job.contains('*') {
            true => Regex::new(&format!("^{}$", regex::escape(job).replace(r"\*", ".*"))),
            false => Regex::new(&regex::escape(job)),
        });
        let tests = tests.iter().map(|test| {
            Regex::new(test).map_err(|error| {
                Failure::usage(format!("`--test {test}` is no regular expression")).caused_by(error)
            })
        });
        let jobs: std::result::Result<Vec<Regex>, _> = jobs.collect();
        let jobs = jobs.map_err(|error| Failure::usage("a name of a job is too long").caused_by(error))?;
        Ok(Choice { jobs, tests: tests.collect::<Result<_>>()?, flaky })
    }

    fn job(&self, name: &str) -> bool {
        self.jobs.is_empty() || self.jobs.iter().any(|job| job.is_match(name))
    }

    fn test(&self, name: &str) -> bool {
        self.tests.is_empty() || self.tests.iter().any(|test| test.is_match(name))
    }
}

/// A job that is to run again.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its component; empty where nothing says.
    pub component: String,
    /// Its test set; empty where it has none.
    pub set: String,
    /// Where it ran.
    pub place: Place,
    /// The size of its machine, where that is known.
    pub size: Option<Size>,
    /// What of it.
    pub work: Work,
}

/// What of a job is to run again.
#[derive(Debug, Clone)]
pub enum Work {
    /// All: which tests failed is not known, for this reason.
    All(String),
    /// These tests, by package.
    Tests(BTreeMap<String, Tests>),
}

/// The jobs that are to run again, in the order of the entries.
pub fn wanted(entries: &[Entry], choice: &Choice) -> Vec<Wanted> {
    let mut all = Vec::new();
    for entry in entries.iter().filter(|entry| choice.job(&entry.name)) {
        let Some(work) = work(entry, choice) else { continue };
        all.push(Wanted {
            name: entry.name.clone(),
            component: entry.component.clone(),
            set: entry.set.clone(),
            place: entry.place.clone(),
            size: entry.size,
            work,
        });
    }
    all
}

fn work(entry: &Entry, choice: &Choice) -> Option<Work> {
    let tests = tests(entry, choice);
    let told = match &entry.state {
        State::Failed(told) => told,
        // Flaky tests of a job that passed in the end.
        State::Passed | State::Recovered => return (!tests.is_empty()).then_some(Work::Tests(tests)),
        State::Unfinished => return None,
    };
    let complete = told.reason == Reason::Test;
    if choice.tests.is_empty() && (!complete || tests.is_empty()) {
        return Some(Work::All(told.says.clone()));
    }
    (!tests.is_empty()).then_some(Work::Tests(tests))
}

/// The tests of an entry that are to run again, with those that passed beside them, by package.
fn tests(entry: &Entry, choice: &Choice) -> BTreeMap<String, Tests> {
    let again = |mark: Mark| mark == Mark::Fail || (mark == Mark::Flaky && choice.flaky == Flaky::Again);
    let mut packages: BTreeMap<String, Tests> = BTreeMap::new();
    for ((package, test), outcome) in entry.results.iter().flat_map(|results| &results.tests) {
        let tests = packages.entry(package.clone()).or_default();
        if again(outcome.mark) && choice.test(test) {
            tests.failed.insert(test.clone());
        } else if outcome.mark != Mark::Skip {
            tests.passed.insert(test.clone());
        }
    }
    packages.retain(|_, tests| !tests.failed.is_empty());
    packages
}

/// The components of which something failed.
pub fn components(wanted: &[Wanted]) -> BTreeSet<&str> {
    wanted.iter().map(|wanted| wanted.component.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::super::decide::Told;
    use super::super::junit::{Outcome, Results};
    use super::*;

    fn entry(name: &str, state: State, tests: &[(&str, Mark)]) -> Entry {
        let mut results = Results::default();
        for (test, mark) in tests {
            let outcome = Outcome { mark: *mark, message: String::new() };
            results.tests.insert(("pkg/a".to_owned(), (*test).to_owned()), outcome);
        }
        Entry {
            component: "c".to_owned(),
            set: String::new(),
            place: Place { platform: "debian_12".to_owned(), arch: Arch::X86_64 },
            name: name.to_owned(),
            url: String::new(),
            attempts: 1,
            allowed: false,
            size: None,
            state,
            results: Some(results),
        }
    }

    fn failed(reason: Reason) -> State {
        State::Failed(Told::new(reason, "x", "it broke"))
    }

    fn names(work: &Work) -> Vec<&str> {
        match work {
            Work::All(why) => vec![why],
            Work::Tests(packages) => {
                packages.values().flat_map(|tests| &tests.failed).map(String::as_str).collect()
            }
        }
    }

    #[test]
    fn failed_tests_run_again_and_what_left_no_results_runs_as_a_whole() {
        let entries = [
            entry("a: [debian_12]", failed(Reason::Test), &[("TestA", Mark::Fail), ("TestB", Mark::Pass)]),
            entry("b", failed(Reason::Timeout), &[("TestA", Mark::Fail)]),
            entry("c", State::Passed, &[("TestF", Mark::Flaky)]),
            entry("d", State::Unfinished, &[]),
        ];
        let choice = |jobs: &[&str], tests: &[&str], flaky| {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            Choice::new(&owned(jobs), &owned(tests), flaky).unwrap()
        };
        let of = |choice: &Choice| -> Vec<Vec<String>> {
            let all = wanted(&entries, choice);
            all.iter().map(|it| names(&it.work).into_iter().map(str::to_owned).collect()).collect()
        };
        assert_eq!(of(&choice(&[], &[], Flaky::Passed)), [["TestA"], ["it broke"]]);
        assert_eq!(of(&choice(&[], &[], Flaky::Again)), [["TestA"], ["it broke"], ["TestF"]]);
        assert_eq!(of(&choice(&["debian_1"], &[], Flaky::Passed)), [["TestA"]]);
        assert_eq!(of(&choice(&["b*", "c"], &["F$"], Flaky::Again)), [["TestF"]]);
        assert!(of(&choice(&[], &["TestB"], Flaky::Passed)).is_empty());
        assert!(Choice::new(&[], &["(".to_owned()], Flaky::Passed).is_err());
    }
}
