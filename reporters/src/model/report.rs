//! What a report is told of: the verdicts of a run, cell by cell and package by package.

use super::Run;
use super::facts::{Cell, Package};
use super::outcome::Counts;
use crate::event::{BootPhase, OutputRef, TestResult};

/// Every verdict of a run, were its log to end here.
#[derive(Debug, Clone)]
pub struct Report<'r> {
    /// The run.
    pub run: &'r Run,
    /// Cells, in the order of the run.
    pub cells: Vec<CellReport<'r>>,
    /// Counts over all cells.
    pub counts: Counts,
}

/// Every verdict of a cell.
#[derive(Debug, Clone)]
pub struct CellReport<'r> {
    /// The cell.
    pub cell: &'r Cell,
    /// Why it never ran, where it did not.
    pub trouble: Option<Trouble<'r>>,
    /// Its packages, by path.
    pub packages: Vec<PackageReport<'r>>,
    /// Counts over its packages.
    pub counts: Counts,
}

/// Why a cell never ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble<'r> {
    /// `image`, `boot`, `ship`, `build`, `capacity`, `host`, `plan`.
    pub stage: &'r str,
    /// The last boot phase reached, where it is a boot.
    pub phase: Option<BootPhase>,
    /// What went wrong; more than one line where it is a compiler's.
    pub message: &'r str,
    /// Last console lines.
    pub excerpt: &'r [String],
}

/// Every verdict of a package in a cell.
#[derive(Debug, Clone)]
pub struct PackageReport<'r> {
    /// Its path.
    pub name: &'r str,
    /// Its facts.
    pub package: &'r Package,
    /// Its tests by name; the one with the empty name is the package itself.
    pub tests: Vec<TestReport<'r>>,
    /// What is worth saying of a package that is fine.
    pub note: Option<&'static str>,
}

/// Whether an output is a test's own, or the whole of its package's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputScope {
    /// The test's own.
    Test,
    /// Its package's, since it has none of its own.
    Package,
}

/// The verdict of one test.
#[derive(Debug, Clone)]
pub struct TestReport<'r> {
    /// Full name; empty for the package itself.
    pub name: &'r str,
    /// The verdict.
    pub result: TestResult,
    /// One line on why, where the result does not say it.
    pub message: Option<String>,
    /// Milliseconds of the deciding attempt.
    pub duration_ms: u64,
    /// Its output.
    pub output: Option<(&'r OutputRef, OutputScope)>,
    /// What the console or the kernel said.
    pub evidence: &'r [String],
    /// Earlier attempts, in order.
    pub earlier: Vec<AttemptReport<'r>>,
    /// Number of the deciding attempt (0 if there was none).
    pub attempt: u32,
    /// Number of tests below it.
    pub subtests: usize,
    /// Whether a test below it went wrong: then it is not the place to look.
    pub blames_subtest: bool,
    /// Whether it has no result because the run was cancelled.
    pub cancelled: bool,
    /// Whether it is known to be flaky.
    pub known_flaky: bool,
    /// Who owns it.
    pub owners: &'r [String],
}

/// The verdict of one attempt.
#[derive(Debug, Clone)]
pub struct AttemptReport<'r> {
    /// Its number.
    pub number: u32,
    /// Its result.
    pub result: TestResult,
    /// One line on why.
    pub message: Option<String>,
    /// Milliseconds.
    pub duration_ms: u64,
    /// Its output.
    pub output: Option<&'r OutputRef>,
    /// What the console or the kernel said.
    pub evidence: &'r [String],
}

impl TestReport<'_> {
    /// Whether it went wrong in a way that its being known to be flaky explains.
    pub fn is_known_failure(&self) -> bool {
        self.known_flaky && matches!(self.result, TestResult::Fail | TestResult::TimedOut)
    }
}

impl<'r> Report<'r> {
    /// Every test of every package of every cell.
    pub fn tests(&self) -> impl Iterator<Item = (&CellReport<'r>, &PackageReport<'r>, &TestReport<'r>)> {
        self.cells.iter().flat_map(|cell| {
            cell.packages
                .iter()
                .flat_map(move |package| package.tests.iter().map(move |test| (cell, package, test)))
        })
    }
}
