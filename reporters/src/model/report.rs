//! What a report is told of: the verdicts of a run, cell by cell and package by package.

use std::borrow::Cow;
use std::iter::from_fn;

use super::Run;
use super::facts::{Cell, Known, Package};
use super::kept::Passed;
use super::known;
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
    /// Its tests by name, but for most of those that passed plainly; the one with the empty name is the package itself.
    pub odd: Vec<TestReport<'r>>,
    /// What is worth saying of a package that is fine.
    pub note: Option<&'static str>,
    /// What the repository says of its tests.
    pub(super) known: Option<&'r Known>,
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
    pub output: Option<(Cow<'r, OutputRef>, OutputScope)>,
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

/// A test with its place; one that passed plainly is made when it is asked for.
type Placed<'s, 'r> = (&'s CellReport<'r>, &'s PackageReport<'r>, Cow<'s, TestReport<'r>>);

impl<'r> Report<'r> {
    /// Every test of every package of every cell.
    pub fn tests(&self) -> impl Iterator<Item = Placed<'_, 'r>> {
        self.packages().flat_map(|(cell, package)| package.tests().map(move |test| (cell, package, test)))
    }

    /// Every test but most of those that passed plainly.
    pub fn odd(&self) -> impl Iterator<Item = (&CellReport<'r>, &PackageReport<'r>, &TestReport<'r>)> {
        self.packages().flat_map(|(cell, package)| package.odd.iter().map(move |test| (cell, package, test)))
    }

    fn packages(&self) -> impl Iterator<Item = (&CellReport<'r>, &PackageReport<'r>)> {
        self.cells.iter().flat_map(|cell| cell.packages.iter().map(move |package| (cell, package)))
    }
}

impl<'r> CellReport<'r> {
    /// One test, if the cell has it.
    pub fn test(&self, package: &str, test: &str) -> Option<Cow<'_, TestReport<'r>>> {
        self.package(package)?.test(test)
    }

    /// One package, if the cell has it.
    pub fn package(&self, name: &str) -> Option<&PackageReport<'r>> {
        let at = self.packages.binary_search_by(|package| package.name.cmp(name)).ok()?;
        self.packages.get(at)
    }
}

impl<'r> PackageReport<'r> {
    /// Every test, by name.
    pub fn tests(&self) -> impl Iterator<Item = Cow<'_, TestReport<'r>>> {
        let mut odd = self.odd.iter().peekable();
        let mut plain = self.package.tests.plain().peekable();
        from_fn(move || match (odd.peek(), plain.peek()) {
            (Some(test), Some(passed)) if test.name < passed.name => odd.next().map(Cow::Borrowed),
            (_, Some(_)) => plain.next().map(|passed| Cow::Owned(self.passed(&passed))),
            (_, None) => odd.next().map(Cow::Borrowed),
        })
    }

    /// One test.
    pub fn test(&self, name: &str) -> Option<Cow<'_, TestReport<'r>>> {
        match self.odd.binary_search_by(|test| test.name.cmp(name)) {
            Ok(at) => self.odd.get(at).map(Cow::Borrowed),
            Err(_) => self.package.tests.passed(name).map(|passed| Cow::Owned(self.passed(&passed))),
        }
    }

    /// The name and milliseconds of those that are not among the odd: all of them passed.
    pub(crate) fn plain(&self) -> impl Iterator<Item = (&'r str, u64)> + use<'r> {
        self.package.tests.plain().map(|passed| (passed.name, passed.duration_ms))
    }

    fn passed(&self, passed: &Passed<'r>) -> TestReport<'r> {
        let prefix = format!("{}/", passed.name);
        let from = self.odd.partition_point(|test| test.name < prefix.as_str());
        let odd = self.odd[from..].partition_point(|test| test.name.starts_with(&prefix));
        let owners = known::owners(self.known, passed.name);
        TestReport::passed(passed, odd + self.package.tests.plain_below(passed.name), owners)
    }
}

impl<'r> TestReport<'r> {
    /// The verdict of one that passed plainly.
    pub(super) fn passed(passed: &Passed<'r>, subtests: usize, owners: &'r [String]) -> TestReport<'r> {
        TestReport {
            name: passed.name,
            result: TestResult::Pass,
            message: None,
            duration_ms: passed.duration_ms,
            output: passed.output().map(|output| (Cow::Owned(output), OutputScope::Test)),
            evidence: &[],
            earlier: Vec::new(),
            attempt: 1,
            subtests,
            blames_subtest: false,
            cancelled: false,
            known_flaky: false,
            owners,
        }
    }
}
