//! What it comes to: counts by result, and the exit code.

use super::report::{PackageReport, Report, TestReport};
use super::{Build, Run};
use crate::event::{RunEnd, TestResult};

/// Every result, in the order in which summaries name them.
pub const RESULTS: [TestResult; 10] = [
    TestResult::Pass,
    TestResult::Flaky,
    TestResult::Fail,
    TestResult::TimedOut,
    TestResult::Crashed,
    TestResult::Unfinished,
    TestResult::Skip,
    TestResult::Lost,
    TestResult::Missing,
    TestResult::NotRun,
];

/// The kebab-case name of a result, as in the event log.
pub fn result_name(result: TestResult) -> &'static str {
    match result {
        TestResult::Pass => "pass",
        TestResult::Fail => "fail",
        TestResult::Skip => "skip",
        TestResult::Flaky => "flaky",
        TestResult::TimedOut => "timed-out",
        TestResult::Crashed => "crashed",
        TestResult::Lost => "lost",
        TestResult::Unfinished => "unfinished",
        TestResult::NotRun => "not-run",
        TestResult::Missing => "missing",
    }
}

/// Whether a result leaves nothing to do: pass, flaky or skip.
pub(crate) fn is_good(result: TestResult) -> bool {
    matches!(result, TestResult::Pass | TestResult::Flaky | TestResult::Skip)
}

/// How many tests, and how many packages as a whole, have each result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    tests: [u64; RESULTS.len()],
    packages: [u64; RESULTS.len()],
    known_flaky: [u64; RESULTS.len()],
}

impl Counts {
    /// Takes in all tests of a package.
    pub(super) fn add_all(&mut self, package: &PackageReport<'_>) {
        self.tests[slot(TestResult::Pass)] += package.package.tests.plain_count() as u64;
        package.odd.iter().for_each(|test| self.add(test));
    }

    fn add(&mut self, test: &TestReport<'_>) {
        let by_result = if test.name.is_empty() { &mut self.packages } else { &mut self.tests };
        by_result[slot(test.result)] += 1;
        if test.is_known_failure() || test.known_flaky && test.result == TestResult::Flaky {
            self.known_flaky[slot(test.result)] += 1;
        }
    }

    /// Of the tests with this result, those that are known to be flaky and whose result that explains.
    pub fn known_flaky(&self, result: TestResult) -> u64 {
        self.known_flaky[slot(result)]
    }

    /// Tests that failed or timed out and are known to be flaky.
    pub fn known_failures(&self) -> u64 {
        self.known_flaky(TestResult::Fail) + self.known_flaky(TestResult::TimedOut)
    }

    /// Tests with this result.
    pub fn tests(&self, result: TestResult) -> u64 {
        self.tests[slot(result)]
    }

    /// Packages that have this result as a whole.
    pub fn packages(&self, result: TestResult) -> u64 {
        self.packages[slot(result)]
    }

    /// Tests and packages with this result.
    pub fn of(&self, result: TestResult) -> u64 {
        self.tests(result) + self.packages(result)
    }

    /// All tests.
    pub fn all_tests(&self) -> u64 {
        self.tests.iter().sum()
    }

    /// All tests and packages.
    pub fn total(&self) -> u64 {
        self.all_tests() + self.packages.iter().sum::<u64>()
    }

    /// Tests that said how they went, or were cut short by their own end: all but lost, missing and not-run.
    pub fn tests_run(&self) -> u64 {
        let absent = [TestResult::Lost, TestResult::Missing, TestResult::NotRun];
        self.all_tests() - absent.iter().map(|result| self.tests(*result)).sum::<u64>()
    }

    /// Tests and packages that are neither pass, flaky nor skip.
    pub fn bad(&self) -> u64 {
        RESULTS.iter().filter(|result| !is_good(**result)).map(|result| self.of(*result)).sum()
    }
}

fn slot(result: TestResult) -> usize {
    RESULTS.iter().position(|known| *known == result).unwrap_or_default()
}

/// What a run comes to. The later variant outranks the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// All passed.
    Passed,
    /// There was no test to run.
    NothingSelected,
    /// A test failed, timed out, crashed, did not finish or is missing; or a kernel complained.
    TestsFailed,
    /// A cell never ran, or was lost without kernel evidence.
    CellsFailed,
    /// A build failed.
    BuildFailed,
    /// It was cancelled.
    Interrupted,
}

impl Outcome {
    /// The kebab-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::NothingSelected => "nothing-selected",
            Outcome::TestsFailed => "tests-failed",
            Outcome::CellsFailed => "cells-failed",
            Outcome::BuildFailed => "build-failed",
            Outcome::Interrupted => "interrupted",
        }
    }

    /// The exit code; `test_failure` is the one for failing tests, 100 unless a profile maps it.
    pub fn exit_code(self, test_failure: u8) -> u8 {
        match self {
            Outcome::Passed => 0,
            Outcome::NothingSelected => 4,
            Outcome::TestsFailed => test_failure,
            Outcome::BuildFailed => 101,
            Outcome::CellsFailed => 102,
            Outcome::Interrupted => 130,
        }
    }
}

impl Run {
    /// What it comes to, were the log to end here.
    pub fn outcome(&self) -> Outcome {
        self.report().outcome()
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        self.outcome().exit_code(self.test_failure_exit_code)
    }
}

impl Report<'_> {
    /// What the run comes to: the highest rank of what happened.
    pub fn outcome(&self) -> Outcome {
        let run = self.run;
        let mut outcome = if self.counts.total() == 0 { Outcome::NothingSelected } else { Outcome::Passed };
        let failed = [
            TestResult::Fail,
            TestResult::TimedOut,
            TestResult::Crashed,
            TestResult::Unfinished,
            TestResult::Missing,
        ];
        let excused = |result| if run.known_flaky_fails { 0 } else { self.counts.known_flaky(result) };
        if failed.iter().any(|result| self.counts.of(*result) > excused(*result))
            || run.cells.iter().any(|cell| !cell.splats.is_empty())
            || run.halted.is_some()
            || (run.flaky_fails && self.counts.of(TestResult::Flaky) > excused(TestResult::Flaky))
        {
            outcome = outcome.max(Outcome::TestsFailed);
        }
        let absent = |result| matches!(result, TestResult::Lost | TestResult::NotRun);
        let lost = self.odd().any(|(_, _, test)| absent(test.result) && !test.cancelled);
        if lost || self.cells.iter().any(|cell| cell.trouble.is_some()) {
            outcome = outcome.max(Outcome::CellsFailed);
        }
        let build_failed = run.builds.values().any(|build| matches!(build, Build::Failed { .. }));
        if build_failed
            || run.cells.iter().any(|cell| cell.failed.as_ref().is_some_and(|f| f.stage == "build"))
        {
            outcome = outcome.max(Outcome::BuildFailed);
        }
        if self.interrupted(outcome) {
            outcome = Outcome::Interrupted;
        }
        outcome
    }

    /// A run that says it was cancelled; one that was asked to stop and has no end, or left work undone for it; and
    /// one that left work undone without saying why.
    fn interrupted(&self, so_far: Outcome) -> bool {
        let run = self.run;
        let undone = self.odd().any(|(_, _, test)| test.cancelled);
        match run.ended {
            Some(RunEnd::Cancelled) => true,
            None if run.cancelled_by.is_some() => true,
            _ => undone && (run.cancelled_by.is_some() || so_far == Outcome::Passed),
        }
    }
}
