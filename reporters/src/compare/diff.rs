//! Two runs, cell by cell: what fails newly, what is mended, flaky, missing, new or slower.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{CellId, TestResult};
use crate::model::{CellReport, Report, TestReport, is_good};

/// A test is slower when it takes half as long again, and at least this much longer, in milliseconds.
const SLOWER_MS: u64 = 1_000;

/// How two runs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Schema number of the JSON form.
    pub schema: u32,
    /// Id of the run that is compared with.
    pub before: String,
    /// Id of the run that is told.
    pub after: String,
    /// Cells of either, in order.
    pub cells: Vec<CellDiff>,
}

/// In which of the runs a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// In both.
    Both,
    /// Only in the earlier one.
    OnlyBefore,
    /// Only in the later one.
    OnlyAfter,
}

/// How one cell differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CellDiff {
    /// The cell.
    pub cell: CellId,
    /// Where it is.
    pub presence: Presence,
    /// Went wrong, and did not before.
    pub newly_failing: Vec<Change>,
    /// Went wrong before, and does no more.
    pub fixed: Vec<Change>,
    /// Needed another attempt, and did not before.
    pub flaky: Vec<Change>,
    /// Reported before, and does no more.
    pub missing: Vec<Change>,
    /// Did not exist before.
    pub new: Vec<Change>,
    /// Passes in both, and takes much longer.
    pub slower: Vec<Change>,
    /// Went wrong in both.
    pub still_failing: u64,
    /// Packages that one of the runs did not select; their tests are not compared.
    pub other_packages: Vec<String>,
}

/// One test in both runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Package path.
    pub package: String,
    /// Full name; empty for the package itself.
    pub test: String,
    /// What it was.
    pub before: Option<TestResult>,
    /// What it is.
    pub after: Option<TestResult>,
    /// Milliseconds it took.
    pub before_ms: u64,
    /// Milliseconds it takes.
    pub after_ms: u64,
}

/// What differs in `after` from `before`.
pub fn diff(before: &Report<'_>, after: &Report<'_>) -> Diff {
    let find = |report: &Report<'_>, id: &CellId| report.cells.iter().position(|cell| cell.cell.id == *id);
    let mut cells: Vec<CellDiff> = after
        .cells
        .iter()
        .map(|cell| match find(before, &cell.cell.id) {
            Some(at) => cell_diff(&before.cells[at], cell),
            None => CellDiff::empty(&cell.cell.id, Presence::OnlyAfter),
        })
        .collect();
    let gone = before.cells.iter().filter(|cell| find(after, &cell.cell.id).is_none());
    cells.extend(gone.map(|cell| CellDiff::empty(&cell.cell.id, Presence::OnlyBefore)));
    Diff { schema: 1, before: before.run.id.clone(), after: after.run.id.clone(), cells }
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| cell.presence == Presence::Both && cell.is_empty())
    }
}

impl CellDiff {
    fn empty(cell: &CellId, presence: Presence) -> CellDiff {
        CellDiff {
            cell: cell.clone(),
            presence,
            newly_failing: Vec::new(),
            fixed: Vec::new(),
            flaky: Vec::new(),
            missing: Vec::new(),
            new: Vec::new(),
            slower: Vec::new(),
            still_failing: 0,
            other_packages: Vec::new(),
        }
    }

    /// The changes by name, in the order in which they matter.
    pub fn sections(&self) -> [(&'static str, &[Change]); 6] {
        [
            ("newly failing", &self.newly_failing),
            ("missing", &self.missing),
            ("flaky", &self.flaky),
            ("slower", &self.slower),
            ("fixed", &self.fixed),
            ("new", &self.new),
        ]
    }

    /// Whether no test of it differs.
    pub fn is_empty(&self) -> bool {
        self.sections().iter().all(|(_, changes)| changes.is_empty()) && self.other_packages.is_empty()
    }
}

type Tests<'r> = BTreeMap<(&'r str, &'r str), Cow<'r, TestReport<'r>>>;

fn tests<'r>(cell: &'r CellReport<'r>) -> Tests<'r> {
    let packages = cell.packages.iter();
    packages.flat_map(|p| p.tests().map(move |test| ((p.name, test.name), test))).collect()
}

fn cell_diff(before: &CellReport<'_>, after: &CellReport<'_>) -> CellDiff {
    let mut diff = CellDiff::empty(&after.cell.id, Presence::Both);
    let has = |cell: &CellReport<'_>, name: &str| cell.packages.iter().any(|package| package.name == name);
    let names = |cell: &CellReport<'_>, other: &CellReport<'_>| -> Vec<String> {
        let alone = cell.packages.iter().filter(|package| !has(other, package.name));
        alone.map(|package| package.name.to_owned()).collect()
    };
    diff.other_packages = [names(before, after), names(after, before)].concat();
    let (old, new) = (tests(before), tests(after));
    let mut keys: Vec<_> = old.keys().chain(new.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys.into_iter().filter(|(package, _)| has(before, package) && has(after, package)) {
        sort_in(&mut diff, key, old.get(&key).map(|test| &**test), new.get(&key).map(|test| &**test));
    }
    diff
}

fn sort_in(
    diff: &mut CellDiff,
    (package, test): (&str, &str),
    old: Option<&TestReport<'_>>,
    new: Option<&TestReport<'_>>,
) {
    let change = || Change {
        package: package.to_owned(),
        test: test.to_owned(),
        before: old.map(|test| test.result),
        after: new.map(|test| test.result),
        before_ms: old.map_or(0, |test| test.duration_ms),
        after_ms: new.map_or(0, |test| test.duration_ms),
    };
    let bad = |test: &TestReport<'_>| !is_good(test.result);
    match (old, new) {
        // A package that is fine has no entry of its own.
        (None, None) => {}
        (Some(old), None) if test.is_empty() && bad(old) => diff.fixed.push(change()),
        (Some(old), None) if old.result != TestResult::NotRun && !test.is_empty() => {
            diff.missing.push(change())
        }
        (Some(_), None) => {}
        // A parent whose subtest is told need not be told.
        (_, Some(new)) if bad(new) && new.blames_subtest => {}
        (Some(old), Some(new)) if bad(old) && bad(new) => diff.still_failing += 1,
        (_, Some(new)) if new.result == TestResult::Missing => diff.missing.push(change()),
        (_, Some(new)) if bad(new) => diff.newly_failing.push(change()),
        (None, Some(_)) => diff.new.push(change()),
        (Some(old), Some(_)) if bad(old) => diff.fixed.push(change()),
        (Some(old), Some(new)) if new.result == TestResult::Flaky && old.result != TestResult::Flaky => {
            diff.flaky.push(change());
        }
        (Some(old), Some(new)) if slower(old.duration_ms, new.duration_ms) => diff.slower.push(change()),
        (Some(_), Some(_)) => {}
    }
}

fn slower(before_ms: u64, after_ms: u64) -> bool {
    after_ms >= before_ms.saturating_add(SLOWER_MS) && after_ms >= before_ms.saturating_mul(3) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::model::script::{PKG, Script, bookworm, bullseye_arm, runs, trixie};

    fn names(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|change| change.test.as_str()).collect()
    }

    #[test]
    fn each_change_is_in_its_place() {
        use TestResult::{Fail, Pass, Skip};
        let one = |results: &[(&str, TestResult)], cells: &[CellId]| {
            let mut script = Script::new();
            script.plan(cells, &[PKG]);
            for cell in cells {
                script.up(cell).begin(cell, PKG, &[]).tests(cell, PKG, results);
                script.end(cell, PKG, crate::event::ShardEnd::Exited, Some(1));
            }
            script.done();
            script
        };
        let cells = [bookworm(), trixie()];
        let before = one(&[("A", Pass), ("B", Fail), ("C", Pass), ("D", Fail), ("S", Pass)], &cells);
        let cells = [bookworm(), bullseye_arm()];
        let mut after = one(&[("A", Fail), ("B", Pass), ("D", Fail), ("N", Skip), ("S", Pass)], &cells);
        for envelope in &mut after.log {
            if let Event::TestFinished { test, duration_ms, .. } = &mut envelope.event
                && test == "S"
            {
                *duration_ms = 5_000;
            }
        }
        let (before, after) = (before.run(), after.run());
        let diff = diff(&before.report(), &after.report());
        let presence: Vec<_> = diff.cells.iter().map(|cell| (cell.cell.clone(), cell.presence)).collect();
        let wanted = [
            (bookworm(), Presence::Both),
            (bullseye_arm(), Presence::OnlyAfter),
            (trixie(), Presence::OnlyBefore),
        ];
        assert_eq!(presence, wanted);
        let cell = &diff.cells[0];
        assert_eq!(names(&cell.newly_failing), ["A"]);
        assert_eq!(names(&cell.fixed), ["B"]);
        assert_eq!(names(&cell.missing), ["C"]);
        assert_eq!(names(&cell.new), ["N"]);
        assert_eq!(names(&cell.slower), ["S"]);
        assert_eq!(cell.still_failing, 1);
    }

    #[test]
    fn a_run_does_not_differ_from_itself() {
        for (name, script) in runs::all() {
            let run = script.run();
            assert!(diff(&run.report(), &run.report()).is_empty(), "{name}");
        }
    }

    #[test]
    fn packages_that_one_run_did_not_select_are_named_and_not_compared() {
        let (green, failing) = (runs::green().run(), runs::failing().run());
        let diff = diff(&green.report(), &failing.report());
        assert_eq!(diff.cells[0].other_packages, ["pkg/ebpf"]);
        assert_eq!(names(&diff.cells[0].newly_failing), ["TestDNS/udp/v6"]);
    }
}
