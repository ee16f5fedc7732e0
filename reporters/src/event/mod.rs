//! THE STREAM: what happened, as facts in the past tense.
//!
//! Owns the shape of `events.jsonl` (schema 1): one [`Envelope`] a line, `seq` without gaps. Holds no
//! colour, no policy, no secret and no bytes of output: an event names a file, an offset and a length.
//! Imports no sibling room. To add a kind: add a variant here, fold it in `model`, and show it in
//! `terminal`; to change the meaning of one needs a new schema number.

mod ids;
mod log;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use ids::{Arch, CellId, IdError, Location};
pub use log::{LogError, LogReader, LogWriter};

/// The schema number written in every line.
pub const SCHEMA: u32 = 1;

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Schema number, [`SCHEMA`].
    pub schema: u32,
    /// Position in the log, from 0, without gaps.
    pub seq: u64,
    /// Wall-clock time, UTC.
    pub time: DateTime<Utc>,
    /// Milliseconds since the run started (monotonic).
    pub elapsed_ms: u64,
    /// What happened. Its tag is the field `event`, its fields lie beside `seq` and `time`.
    #[serde(flatten)]
    pub event: Event,
}

/// Bytes of output: a file relative to the run directory, an offset and a length in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRef {
    /// File, relative to the run directory, with `/`.
    pub file: String,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// How far a machine's boot got; ordered, so that "how far" is a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootPhase {
    /// The hypervisor knows the machine.
    Defined,
    /// Its QEMU runs.
    Powered,
    /// Its firmware speaks.
    Firmware,
    /// Its kernel speaks.
    Kernel,
    /// Its first process runs.
    Init,
    /// It has an address.
    Network,
    /// Its SSH server speaks.
    Sshd,
    /// A command ran in it.
    Ready,
}

impl BootPhase {
    /// The kebab-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            BootPhase::Defined => "defined",
            BootPhase::Powered => "powered",
            BootPhase::Firmware => "firmware",
            BootPhase::Kernel => "kernel",
            BootPhase::Init => "init",
            BootPhase::Network => "network",
            BootPhase::Sshd => "sshd",
            BootPhase::Ready => "ready",
        }
    }
}

/// What became of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestResult {
    /// It passed.
    Pass,
    /// It failed by its own word.
    Fail,
    /// It skipped itself.
    Skip,
    /// It passed on a later attempt.
    Flaky,
    /// It was running when its deadline passed.
    TimedOut,
    /// The binary, or the kernel below it, died while it ran.
    Crashed,
    /// The machine died while it ran, or before it could, without kernel evidence.
    Lost,
    /// It started and never ended, though the binary did.
    Unfinished,
    /// Its cell never came up.
    NotRun,
    /// It is in the binary's list, or a selected package, and never reported.
    Missing,
}

/// Which way a machine ended without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossEvidence {
    /// The console shows a kernel panic.
    Panic,
    /// QEMU is gone; the console says nothing.
    QemuGone,
    /// The machine runs and does not answer any more.
    Silent,
}

/// How a shard (one package in one cell) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShardEnd {
    /// The binary exited by itself.
    Exited,
    /// The binary was killed by a signal.
    Signalled,
    /// Its deadline passed and it was killed.
    TimedOut,
    /// Its machine was lost.
    MachineLost,
    /// The run was cancelled.
    Cancelled,
    /// It could not be started (the guest refused to run it).
    NotStarted,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// Everything asked for was done or accounted for.
    Completed,
    /// A signal cancelled it.
    Cancelled,
}

/// A fact. Kinds and fields may be added; a meaning never changes within a schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// First event of a log.
    RunStarted {
        /// Run id, the name of the run directory.
        run: String,
        /// Version of `kmt-run`.
        version: String,
        /// What was asked for, as typed, secrets masked.
        command: Vec<String>,
        /// Name of the component under test.
        component: String,
        /// Name of the stack.
        stack: String,
        /// The code that failing tests map to (100 unless the profile says otherwise).
        test_failure_exit_code: u8,
        /// Root of the repository under test (empty in logs that do not say it).
        #[serde(default, skip_serializing_if = "String::is_empty")]
        root: String,
        /// What the test binaries say their results in: `gtest`, `libtest`, `tap` (empty: Go's `testing`).
        #[serde(default, skip_serializing_if = "String::is_empty")]
        format: String,
    },
    /// A cell is part of this run.
    CellSelected {
        /// The cell.
        cell: CellId,
        /// Distribution, such as `debian`.
        distro: String,
        /// Version of the distribution, such as `12`.
        distro_version: String,
    },
    /// A cell was left out on purpose.
    CellSkipped {
        /// The cell.
        cell: CellId,
        /// Why, in words.
        reason: String,
    },
    /// A cell cannot run: its image, host, build or ship failed. Its tests are `not-run`.
    CellFailed {
        /// The cell.
        cell: CellId,
        /// What failed: `image`, `boot`, `ship`, `prepare`, `build`, `capacity`, `host`.
        stage: String,
        /// One line.
        message: String,
    },
    /// What will be run where.
    PlanMade {
        /// Every shard.
        shards: Vec<PlannedShard>,
    },
    /// A host can take machines.
    HostReady {
        /// `local`, or the remote's name.
        host: String,
        /// Accelerator guests will use: `kvm`, `hvf`, `tcg`.
        accelerator: String,
        /// Why not a better one, where that is so.
        notice: Option<String>,
    },
    /// A host was rented; it is paid for from now on.
    HostRented {
        /// The cloud's name of it.
        host: String,
        /// What it runs without emulation.
        arch: Arch,
        /// Its type.
        instance_type: String,
        /// Availability zone.
        zone: String,
        /// US dollars an hour, where known.
        usd_per_hour: Option<f64>,
        /// When it ends itself at the latest.
        expires: Option<DateTime<Utc>>,
    },
    /// A rented host was ended.
    HostEnded {
        /// The cloud's name of it.
        host: String,
        /// How long it lived, where known.
        age_ms: Option<u64>,
        /// US dollars that it came to, where known.
        usd: Option<f64>,
    },
    /// A host cannot take machines.
    HostFailed {
        /// `local`, or the remote's name.
        host: String,
        /// One line.
        message: String,
    },
    /// An image is on disk and verified.
    ImageReady {
        /// Platform and kernel, as in the cell id.
        image: String,
        /// sha256 of the root filesystem, hex.
        digest: String,
        /// Whether it had to be built or fetched.
        cached: bool,
        /// Milliseconds it took.
        duration_ms: u64,
    },
    /// The hypervisor knows a machine.
    MachineDefined {
        /// Machine id, unique in the stack.
        machine: String,
        /// The cell it is for.
        cell: CellId,
    },
    /// A machine that was up was taken.
    MachineReused {
        /// Machine id.
        machine: String,
        /// The cell it is for.
        cell: CellId,
    },
    /// A machine is up that went on from a template instead of booting. What it says of itself follows.
    MachineWarm {
        /// Machine id.
        machine: String,
        /// The template.
        template: String,
    },
    /// A machine boots, although templates are in use.
    MachineCold {
        /// Machine id.
        machine: String,
        /// The cell it is for.
        cell: CellId,
        /// Why it does not start from a template, in one line.
        why: String,
        /// Whether nothing went wrong: there is none yet, or its like always boots.
        ordinary: bool,
    },
    /// A template is there: later machines of its kind start from it.
    TemplateMade {
        /// The template.
        template: String,
        /// The cell of the machine it is like.
        cell: CellId,
        /// Bytes of its memory.
        bytes: u64,
        /// Milliseconds it took, beside other work.
        duration_ms: u64,
    },
    /// A boot reached a phase.
    MachinePhase {
        /// Machine id.
        machine: String,
        /// The phase.
        phase: BootPhase,
    },
    /// A command ran in a machine; what it says of itself.
    MachineReady {
        /// Machine id.
        machine: String,
        /// The cell it is for.
        cell: CellId,
        /// `uname -r`.
        kernel_release: String,
        /// `uname -m`.
        machine_arch: String,
        /// `<ID>-<VERSION_ID>` of `/etc/os-release`.
        os_name: String,
        /// Milliseconds from power on (or from the first question to a reused machine).
        duration_ms: u64,
        /// Console file, relative to the run directory.
        console: Option<String>,
    },
    /// A machine ended without being asked.
    MachineLost {
        /// Machine id.
        machine: String,
        /// The cell it served.
        cell: CellId,
        /// What is known.
        seen: LossEvidence,
        /// Last console lines that matter, control characters as they came.
        excerpt: Vec<String>,
    },
    /// A machine did not come up. The cause is triage's opinion.
    BootFailed {
        /// Machine id.
        machine: String,
        /// The cell it was for.
        cell: CellId,
        /// The last phase reached.
        phase: Option<BootPhase>,
        /// One line.
        message: String,
        /// Last console lines.
        excerpt: Vec<String>,
        /// Milliseconds from power on.
        duration_ms: u64,
        /// Milliseconds since the console last grew, where somebody watched it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idle_ms: Option<u64>,
    },
    /// A build began.
    BuildStarted {
        /// Architecture.
        arch: Arch,
    },
    /// A build is complete.
    BuildFinished {
        /// Architecture.
        arch: Arch,
        /// Number of files compiled in this run (0: all cached).
        compiled: u32,
        /// Number of files taken from the cache.
        cached: u32,
        /// Milliseconds.
        duration_ms: u64,
    },
    /// A build failed. All cells of the architecture are `not-run`.
    BuildFailed {
        /// Architecture.
        arch: Arch,
        /// What was built: a package, or `list`.
        subject: String,
        /// The compiler's own words.
        message: String,
    },
    /// A remote host has the files that its machines get: they went over the link to it once.
    ArtifactsUploaded {
        /// The host.
        host: String,
        /// Bytes sent over the connection.
        bytes: u64,
        /// Milliseconds.
        duration_ms: u64,
    },
    /// The machine has the files.
    ShipFinished {
        /// Machine id.
        machine: String,
        /// The cell.
        cell: CellId,
        /// Bytes sent to it, from here or from the host that it is on.
        bytes: u64,
        /// Files sent.
        files: u32,
        /// Milliseconds.
        duration_ms: u64,
    },
    /// The machine did not get the files.
    ShipFailed {
        /// Machine id.
        machine: String,
        /// The cell.
        cell: CellId,
        /// One line.
        message: String,
    },
    /// What a component wants of a guest was done, or a step of it failed.
    GuestPrepared {
        /// Machine id.
        machine: String,
        /// The cell.
        cell: CellId,
        /// The steps that were done, the failed one last.
        steps: Vec<PreparedStep>,
        /// Why the last step failed.
        failed: Option<String>,
    },
    /// A package, or a part of it, began in a cell.
    ShardStarted {
        /// The cell.
        cell: CellId,
        /// Package path, such as `pkg/network/tracer`.
        package: String,
        /// Machine id.
        machine: String,
        /// Which execution of the package in this cell, from 1. The tests that it runs carry the same number.
        attempt: u32,
    },
    /// The binary listed its top-level tests, filters applied.
    TestsListed {
        /// The cell.
        cell: CellId,
        /// Package path.
        package: String,
        /// Names of top-level tests.
        tests: Vec<String>,
    },
    /// A package ended in a cell.
    ShardFinished {
        /// The cell.
        cell: CellId,
        /// Package path.
        package: String,
        /// Attempt, from 1.
        attempt: u32,
        /// How it ended.
        end: ShardEnd,
        /// Exit status of the binary where it exited, signal number where it was signalled.
        status: Option<i32>,
        /// Milliseconds.
        duration_ms: u64,
        /// Whether the binary left processes behind.
        leaked: bool,
        /// The whole output, as it came.
        output: Option<OutputRef>,
    },
    /// What an execution of a package left undone is done again, in another execution.
    ShardRequeued {
        /// The cell.
        cell: CellId,
        /// Package path.
        package: String,
        /// Why.
        reason: String,
        /// Number of the execution that left it (0 where the log does not say).
        #[serde(default)]
        attempt: u32,
    },
    /// A test began.
    TestStarted {
        /// The cell.
        cell: CellId,
        /// Package path.
        package: String,
        /// Full name, subtests with `/`.
        test: String,
        /// Attempt, from 1.
        attempt: u32,
    },
    /// A test takes long, and goes on.
    TestSlow {
        /// The cell.
        cell: CellId,
        /// Package path.
        package: String,
        /// Full name, subtests with `/`.
        test: String,
        /// Attempt, from 1.
        attempt: u32,
        /// Milliseconds since it began, or since its last subtest ended.
        ran_ms: u64,
    },
    /// A test ended.
    TestFinished {
        /// The cell.
        cell: CellId,
        /// Package path.
        package: String,
        /// Full name, subtests with `/`.
        test: String,
        /// Attempt, from 1.
        attempt: u32,
        /// Its result.
        result: TestResult,
        /// Milliseconds.
        duration_ms: u64,
        /// Its own output.
        output: Option<OutputRef>,
        /// One line on why, where the result alone does not say it (lost, crashed, timed-out).
        message: Option<String>,
    },
    /// A line of output that looks like an event and is none.
    TestOutputMalformed {
        /// The cell.
        cell: CellId,
        /// Package path.
        package: String,
        /// What was wrong.
        message: String,
    },
    /// The kernel of a living guest complained.
    SplatSeen {
        /// Machine id.
        machine: String,
        /// The cell.
        cell: CellId,
        /// First line, without addresses.
        signature: String,
        /// Lines around it.
        excerpt: Vec<String>,
        /// The test that ran then.
        test_running: Option<String>,
    },
    /// The kernel of a living guest complained in a way that `kmt.toml` allows.
    SplatAllowed {
        /// Machine id.
        machine: String,
        /// The cell.
        cell: CellId,
        /// First line, without addresses.
        signature: String,
        /// Why it is allowed.
        reason: String,
        /// Where more is said of it.
        link: Option<String>,
    },
    /// What holds for this run beyond its plan.
    RulesGiven {
        /// Whether a test that passed on a later attempt fails the run.
        flaky_fails: bool,
        /// Whether the failure of a test that is known to be flaky fails it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        known_flaky_fails: bool,
    },
    /// What the repository says of a package's tests before they run.
    TestsKnown {
        /// Package path.
        package: String,
        /// Tests that are known to be flaky, each with all below it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        flaky: Vec<String>,
        /// Who owns the package.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        owners: Vec<String>,
        /// Who owns a top-level test that is not the package's owners'.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        test_owners: BTreeMap<String, Vec<String>>,
    },
    /// A test says of itself that it is known to be flaky.
    TestMarkedFlaky {
        /// The cell.
        cell: CellId,
        /// Package path.
        package: String,
        /// Full name, subtests with `/`.
        test: String,
        /// Attempt, from 1.
        attempt: u32,
    },
    /// The run does not begin anything more, by a rule of its own.
    RunHalted {
        /// The rule and why it applies: `--fail-fast`, `--global-timeout`.
        reason: String,
    },
    /// Somebody asked to stop.
    CancelRequested {
        /// Signal name.
        by: String,
    },
    /// Something went less well than it should; nothing failed.
    Warning {
        /// What it is about.
        subject: String,
        /// One line.
        message: String,
    },
    /// Machines stay for the next run.
    MachinesKept {
        /// Their ids.
        machines: Vec<String>,
    },
    /// Last event of a log.
    RunFinished {
        /// Why it ended.
        why: RunEnd,
    },
    /// Long work goes on. The only kind that may be dropped.
    Progress {
        /// What is being done.
        subject: String,
        /// Units done.
        done: u64,
        /// Units in all, where known.
        total: Option<u64>,
    },
    /// A kind this reader does not know.
    #[serde(other)]
    Unknown,
}

/// One step of the preparation of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedStep {
    /// What was done.
    pub name: String,
    /// Milliseconds it took, by the guest's clock.
    pub duration_ms: u64,
}

/// One package in one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedShard {
    /// The cell.
    pub cell: CellId,
    /// Package path.
    pub package: String,
}

/// Whoever takes facts: the record, the fan-out to reporters, a test.
pub trait EventSink: Send + Sync {
    /// Takes one fact. Never blocks for long, never fails towards the caller.
    fn emit(&self, event: Event);
}
