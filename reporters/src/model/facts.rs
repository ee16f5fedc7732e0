//! What is known of each thing a run touches: plain data, filled by `fold`, judged by `verdict`.

use std::collections::{BTreeMap, BTreeSet};

use super::kept::Tests;
use crate::event::{BootPhase, CellId, LossEvidence, OutputRef, PreparedStep, ShardEnd, TestResult};

/// One cell: what was planned for it, which machines served it, what it ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Its id.
    pub id: CellId,
    /// Distribution, as the catalogue names it (empty when only results named the cell).
    pub distro: String,
    /// Version of the distribution.
    pub distro_version: String,
    /// Whether it is part of the run.
    pub selected: bool,
    /// Why it was left out on purpose.
    pub skipped: Option<String>,
    /// Why it cannot run.
    pub failed: Option<CellFailure>,
    /// Facts of the machine that came up last.
    pub facts: Option<MachineFacts>,
    /// What was sent to its machines.
    pub shipped: Option<Shipped>,
    /// How the machine was prepared that was last: the steps in their order, a failed one at the end.
    pub prepared: Option<Vec<PreparedStep>>,
    /// Machines that did not come up.
    pub boot_failures: Vec<BootFailure>,
    /// Machines that did not get the files: machine and message.
    pub ship_failures: Vec<(String, String)>,
    /// Machines that ended without being asked.
    pub losses: Vec<Loss>,
    /// Complaints of living kernels.
    pub splats: Vec<Splat>,
    /// Packages by path.
    pub packages: BTreeMap<String, Package>,
}

impl Cell {
    pub(super) fn new(id: CellId) -> Cell {
        Cell {
            id,
            distro: String::new(),
            distro_version: String::new(),
            selected: false,
            skipped: None,
            failed: None,
            facts: None,
            shipped: None,
            prepared: None,
            boot_failures: Vec::new(),
            ship_failures: Vec::new(),
            losses: Vec::new(),
            splats: Vec::new(),
            packages: BTreeMap::new(),
        }
    }

    /// How evenly its work was shared out, where it ran on more than one machine at a time.
    pub fn balance(&self) -> Option<Balance> {
        let shards = || self.packages.values().flat_map(|package| &package.shards);
        let ended = || shards().filter_map(|shard| Some((shard, shard.ended.as_ref()?)));
        let overlap = |(one, end): &(&Shard, &ShardEnded)| {
            ended().any(|(other, other_end)| {
                one.machine != other.machine
                    && one.started_ms < other_end.ended_ms
                    && other.started_ms < end.ended_ms
            })
        };
        if !ended().any(|one| overlap(&one)) {
            return None;
        }
        let machines = shards().map(|shard| shard.machine.as_str()).collect::<BTreeSet<_>>().len() as u64;
        let work: u64 = ended().map(|(_, end)| end.duration_ms).sum();
        let longest = self.packages.values().map(|package| package.tests.longest_ms()).max().unwrap_or(0);
        let begun = shards().map(|shard| shard.started_ms).min()?;
        let over = ended().map(|(_, end)| end.ended_ms).max()?;
        Some(Balance {
            machines,
            reached_ms: over.saturating_sub(begun),
            ideal_ms: (work / machines.max(1)).max(longest),
        })
    }

    /// Whether any package began in it.
    pub fn started(&self) -> bool {
        self.packages.values().any(|package| !package.shards.is_empty() || !package.tests.is_empty())
    }
}

/// How evenly the work of a cell was shared out over its machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Machines that worked.
    pub machines: u64,
    /// Milliseconds from the first execution's begin to the last one's end.
    pub reached_ms: u64,
    /// Milliseconds it could not have been less: all work shared out evenly, or its longest test.
    pub ideal_ms: u64,
}

/// A cell that cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellFailure {
    /// `image`, `boot`, `ship`, `prepare`, `build`, `capacity`, `host`.
    pub stage: String,
    /// One line.
    pub message: String,
}

/// What a machine said of itself when it was ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    /// Machine id.
    pub machine: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -m`.
    pub machine_arch: String,
    /// `<ID>-<VERSION_ID>`.
    pub os_name: String,
    /// Milliseconds from power on, or from the first question.
    pub boot_ms: u64,
    /// Whether it was up before the run.
    pub reused: bool,
    /// Whether it went on from a template instead of booting.
    pub warm: bool,
    /// Console file, relative to the run directory.
    pub console: Option<String>,
}

/// What was sent, summed over the machines of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shipped {
    /// Bytes over the connection.
    pub bytes: u64,
    /// Files.
    pub files: u32,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// A machine that did not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFailure {
    /// Machine id.
    pub machine: String,
    /// The last phase reached.
    pub phase: Option<BootPhase>,
    /// One line.
    pub message: String,
    /// Last console lines.
    pub excerpt: Vec<String>,
    /// Milliseconds from power on.
    pub duration_ms: u64,
    /// Milliseconds since the console last grew, where somebody watched it.
    pub idle_ms: Option<u64>,
}

/// A machine that ended without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Machine id.
    pub machine: String,
    /// What is known.
    pub seen: LossEvidence,
    /// Console lines that matter.
    pub excerpt: Vec<String>,
    /// Position in the log.
    pub seq: u64,
}

/// A complaint of a living kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splat {
    /// Machine id.
    pub machine: String,
    /// First line, without addresses.
    pub signature: String,
    /// Lines around it.
    pub excerpt: Vec<String>,
    /// The test that ran then, as the event named it.
    pub test_running: Option<String>,
    /// Whether a test of this cell carries it.
    pub attributed: bool,
}

/// One package in one cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Whether the plan names it.
    pub planned: bool,
    /// Top-level tests of the shipped binary, filters applied; `None` until it listed them.
    pub listed: Option<BTreeSet<String>>,
    /// Each time it was started, in order.
    pub shards: Vec<Shard>,
    /// Why something of it was done again, each time.
    pub requeues: Vec<String>,
    /// Executions whose work went on in another one.
    pub superseded: BTreeSet<u32>,
    /// Lines of output that looked like events and were none.
    pub malformed: Vec<String>,
    /// Tests that said anything, by full name.
    pub tests: Tests,
    /// Tests that said of themselves that they are known to be flaky.
    pub marked_flaky: BTreeSet<String>,
}

/// What the repository says of a package's tests before they run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Tests that are known to be flaky, each with all below it.
    pub flaky: BTreeSet<String>,
    /// Who owns the package.
    pub owners: Vec<String>,
    /// Who owns a top-level test that is not the package's owners'.
    pub test_owners: BTreeMap<String, Vec<String>>,
}

/// One execution of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Machine id (empty when its start is not in the log).
    pub machine: String,
    /// Which execution of the package in this cell, from 1.
    pub attempt: u32,
    /// Milliseconds into the run at which it began.
    pub started_ms: u64,
    /// Position of its start in the log.
    pub started_seq: u64,
    /// Its end, once that is in the log.
    pub ended: Option<ShardEnded>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardEnded {
    /// How.
    pub end: ShardEnd,
    /// Exit status or signal number.
    pub status: Option<i32>,
    /// Milliseconds it took.
    pub duration_ms: u64,
    /// Milliseconds into the run at which it ended.
    pub ended_ms: u64,
    /// Whether it left processes behind.
    pub leaked: bool,
    /// The whole output.
    pub output: Option<OutputRef>,
}

/// One attempt at one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the execution it was part of, from 1.
    pub number: u32,
    /// Index into [`Package::shards`]: the execution it was part of.
    pub shard: Option<usize>,
    /// Milliseconds into the run at which it was last heard of.
    pub started_ms: u64,
    /// Its end, once that is in the log.
    pub ended: Option<TestEnded>,
    /// Indices into [`Cell::splats`]: what the kernel said while it ran.
    pub splats: Vec<usize>,
}

/// What a test said when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestEnded {
    /// Its result.
    pub result: TestResult,
    /// Milliseconds.
    pub duration_ms: u64,
    /// Its own output.
    pub output: Option<OutputRef>,
    /// One line on why.
    pub message: Option<String>,
}

/// The build of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Build {
    /// It goes on.
    Running,
    /// It is complete.
    Done {
        /// Files compiled in this run.
        compiled: u32,
        /// Files from the cache.
        cached: u32,
        /// Milliseconds.
        duration_ms: u64,
    },
    /// It failed.
    Failed {
        /// What was built.
        subject: String,
        /// The compiler's own words.
        message: String,
    },
}

/// An image that is on disk and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Platform and kernel.
    pub image: String,
    /// sha256, hex.
    pub digest: String,
    /// The event's own field.
    pub cached: bool,
    /// Milliseconds.
    pub duration_ms: u64,
}
