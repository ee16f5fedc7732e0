//! What is concluded: [`Run`] is the fold of all events, and every count comes from it.
//!
//! Owns the facts of a run (`facts`, filled by `fold`), the one verdict of each test (`verdict`), and the exit
//! code (`outcome`). Owns no wording of a report, no file and no clock: the end of the log is "now". To take
//! in a new kind of event: give it a place in `facts`, fill it in `fold`, and add the rule below to `verdict`.
//!
//! # Rules
//!
//! A test that reported has the result it reported. Everything else follows from these rows; a shard is one
//! execution of a package, and one that has no end in the log but whose machine was lost after it began
//! ended as *machine lost*.
//!
//! | the shard ended | a test that was running | a listed test that never started | nothing explains it |
//! |---|---|---|---|
//! | exited, status 0 | unfinished | missing | nothing: it is fine |
//! | exited, another status | crashed | missing | package: fail |
//! | signalled | crashed | missing | package: crashed |
//! | timed out | timed-out | missing | package: timed-out |
//! | machine lost, panic | crashed | missing | package: crashed |
//! | machine lost, QEMU gone or silent | lost | lost | package: lost |
//! | cancelled | not-run | not-run | package: not-run |
//! | not started | not-run | not-run | package: not-run |
//! | the log ends before it did | unfinished | missing | package: unfinished |
//! | the same, in a cancelled run | not-run | not-run | package: not-run |
//!
//! The last column: nothing explains the end, that is, for an exit no test of it went wrong, for the other ends
//! no test has a result that only such an end gives. Then the package has an entry of its own, a test with
//! the empty name, shown as `(package)`.
//!
//! A planned package that never started is such an entry too: not-run where the run was cancelled; missing where
//! its cell's machine panicked, lost where it was lost otherwise; not-run where the cell, a boot, the build or the
//! shipping failed; else missing.
//!
//! A package may be executed more than once, also at the same time on several machines, each execution with a
//! number of its own that its tests carry. An execution whose work went on in another one (`shard-requeued`) has no
//! say in what never started; of the others, the last one that did not end well speaks for the package.
//!
//! A run that stops by a rule of its own (`run-halted`) leaves not-run behind, and is no success.
//!
//! A parent that was started and never ended gets the result of its worst subtest when its shard says no more than
//! *unfinished*. Of several attempts the last decides: pass after fail, timed-out, crashed or unfinished
//! is flaky; pass after lost or not-run is pass, since the machine was to blame. Two runs of a test
//! within one attempt (`-test.count`) are the worse of the two. A test that passed while the kernel
//! complained is crashed, and any complaint fails the run.
//!
//! A test is *known to be flaky* where the repository lists it or one above it, or where it or one above it says so
//! itself; a failed parent is where tests below it failed and all of those are. Its failure or time-out stays what it
//! is, is counted apart too, and fails a run only by its rules. A crash or a lost machine is never excused.
//!
//! A selected cell for which nothing was planned is a cell that never ran. A package without tests that
//! exits 0 is fine, a run without any test is not: it selected nothing.

mod ending;
mod facts;
mod fold;
mod kept;
mod known;
mod outcome;
mod report;
mod timeline;
mod verdict;

#[cfg(test)]
mod nonsense;
#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::BufRead;

use chrono::{DateTime, Utc};

use crate::event::{Arch, CellId, LogError, LogReader, RunEnd};

pub use facts::{
    Attempt, Balance, BootFailure, Build, Cell, CellFailure, Image, Known, Loss, MachineFacts, Package,
    Shard, ShardEnded, Shipped, Splat, TestEnded,
};
pub use kept::Tests;
pub(crate) use outcome::is_good;
pub use outcome::{Counts, Outcome, RESULTS, result_name};
pub use report::{AttemptReport, CellReport, OutputScope, PackageReport, Report, TestReport, Trouble};
pub use timeline::{MachineLane, Span, SpanKind, Timeline};

/// The fold of all events of a run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Run id (empty until the log says it).
    pub id: String,
    /// Version of `kmt-run`.
    pub version: String,
    /// What was asked for.
    pub command: Vec<String>,
    /// Component under test.
    pub component: String,
    /// Stack.
    pub stack: String,
    /// The code that failing tests map to.
    pub test_failure_exit_code: u8,
    /// Root of the repository under test, where the log says it.
    pub root: String,
    /// What the test binaries say their results in, where it is not Go's `testing`.
    pub format: String,
    /// Machines that stay for the next run.
    pub kept: Vec<String>,
    /// When each machine did what.
    pub timeline: Timeline,
    /// Time of the first event.
    pub started: Option<DateTime<Utc>>,
    /// Milliseconds into the run of the latest event.
    pub elapsed_ms: u64,
    /// Number of events taken.
    pub events: u64,
    /// Cells, in the order in which the log names them.
    pub cells: Vec<Cell>,
    /// Builds by architecture.
    pub builds: BTreeMap<Arch, Build>,
    /// Images made ready.
    pub images: Vec<Image>,
    /// Accelerator of the guests by host: `kvm`, `hvf`, `tcg`.
    pub accelerators: BTreeMap<String, String>,
    /// Hosts that cannot take machines: name and message.
    pub failed_hosts: Vec<(String, String)>,
    /// Warnings: subject and message.
    pub warnings: Vec<(String, String)>,
    /// Who asked to stop.
    pub cancelled_by: Option<String>,
    /// Why it does not begin anything more, where a rule of its own says so.
    pub halted: Option<String>,
    /// Whether a flaky test fails it.
    pub flaky_fails: bool,
    /// Whether the failure of a test that is known to be flaky fails it.
    pub known_flaky_fails: bool,
    /// What the repository says of tests before they run, by package.
    pub known: BTreeMap<String, Known>,
    /// Why it ended, once that is in the log.
    pub ended: Option<RunEnd>,
    /// Whether a plan was made.
    pub planned: bool,
    cell_index: HashMap<CellId, usize>,
    reused: BTreeSet<String>,
    /// Machines that went on from a template.
    warm: BTreeSet<String>,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            id: String::new(),
            version: String::new(),
            command: Vec::new(),
            component: String::new(),
            stack: String::new(),
            test_failure_exit_code: 100,
            root: String::new(),
            format: String::new(),
            kept: Vec::new(),
            timeline: Timeline::default(),
            started: None,
            elapsed_ms: 0,
            events: 0,
            cells: Vec::new(),
            builds: BTreeMap::new(),
            images: Vec::new(),
            accelerators: BTreeMap::new(),
            failed_hosts: Vec::new(),
            warnings: Vec::new(),
            cancelled_by: None,
            halted: None,
            flaky_fails: false,
            known_flaky_fails: false,
            known: BTreeMap::new(),
            ended: None,
            planned: false,
            cell_index: HashMap::new(),
            reused: BTreeSet::new(),
            warm: BTreeSet::new(),
        }
    }
}

impl Run {
    /// A run of which nothing is known yet.
    pub fn new() -> Run {
        Run::default()
    }

    /// Folds a whole log.
    pub fn from_log(log: impl BufRead) -> Result<Run, LogError> {
        let mut run = Run::new();
        for envelope in LogReader::new(log) {
            run.fold(&envelope?);
        }
        Ok(run)
    }

    /// The cell of this id.
    pub fn cell(&self, id: &CellId) -> Option<&Cell> {
        self.cell_index.get(id).and_then(|index| self.cells.get(*index))
    }

    /// Whether somebody asked to stop, or it stopped for that.
    pub fn cancelled(&self) -> bool {
        self.cancelled_by.is_some() || self.ended == Some(RunEnd::Cancelled)
    }

    /// Milliseconds in which at least one test binary ran, in any cell.
    pub fn in_tests_ms(&self) -> u64 {
        union_ms(self.cells.iter().flat_map(|cell| self.spans(cell)).collect())
    }

    /// Milliseconds in which at least one test binary ran in this cell.
    pub fn cell_in_tests_ms(&self, cell: &Cell) -> u64 {
        union_ms(self.spans(cell).collect())
    }

    fn spans<'r>(&'r self, cell: &'r Cell) -> impl Iterator<Item = (u64, u64)> + 'r {
        cell.packages.values().flat_map(|package| &package.shards).map(|shard| {
            let end = shard.ended.as_ref().map_or(self.elapsed_ms, |ended| ended.ended_ms);
            (shard.started_ms, end)
        })
    }
}

/// Length of the union of intervals.
fn union_ms(mut spans: Vec<(u64, u64)>) -> u64 {
    spans.sort_unstable();
    let (mut total, mut reached) = (0_u64, 0);
    for (start, end) in spans {
        let start = start.max(reached);
        if end > start {
            total += end - start;
            reached = end;
        }
    }
    total
}
