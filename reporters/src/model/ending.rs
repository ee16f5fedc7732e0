//! How an execution of a package ended, and what that means for what it left undone: the rows of the table.

use super::Run;
use super::facts::{Cell, Loss, Shard};
use crate::event::{LossEvidence, ShardEnd, TestResult};

/// How an execution ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending<'r> {
    /// By itself, with this status.
    Exited(Option<i32>),
    /// By this signal.
    Signalled(Option<i32>),
    /// At its deadline.
    TimedOut,
    /// With its machine.
    Lost(Option<&'r Loss>),
    /// Since this signal cancelled the run.
    Cancelled(Option<&'r str>),
    /// Before it began.
    NotStarted,
    /// Not within the log.
    Open,
}

/// The end of an execution; a machine that was lost after it began ends it too.
pub(super) fn of<'r>(run: &'r Run, cell: &'r Cell, shard: Option<&'r Shard>) -> Ending<'r> {
    let later = |loss: &&Loss| shard.is_some_and(|s| loss.machine == s.machine && loss.seq > s.started_seq);
    let cancelled = Ending::Cancelled(run.cancelled_by.as_deref());
    match shard.and_then(|shard| shard.ended.as_ref()) {
        Some(ended) => match ended.end {
            ShardEnd::Exited => Ending::Exited(ended.status),
            ShardEnd::Signalled => Ending::Signalled(ended.status),
            ShardEnd::TimedOut => Ending::TimedOut,
            ShardEnd::MachineLost => Ending::Lost(cell.losses.iter().find(later).or(cell.losses.last())),
            ShardEnd::Cancelled => cancelled,
            ShardEnd::NotStarted => Ending::NotStarted,
        },
        None => match cell.losses.iter().find(later) {
            Some(loss) => Ending::Lost(Some(loss)),
            None if run.cancelled() => cancelled,
            None => Ending::Open,
        },
    }
}

impl<'r> Ending<'r> {
    fn panicked(&self) -> bool {
        matches!(self, Ending::Lost(Some(loss)) if loss.seen == LossEvidence::Panic)
    }

    /// What a test is that was running.
    pub(super) fn running(&self) -> TestResult {
        match self {
            Ending::Exited(Some(0)) | Ending::Open => TestResult::Unfinished,
            Ending::Exited(_) | Ending::Signalled(_) => TestResult::Crashed,
            Ending::TimedOut => TestResult::TimedOut,
            Ending::Lost(_) if self.panicked() => TestResult::Crashed,
            Ending::Lost(_) => TestResult::Lost,
            Ending::Cancelled(_) | Ending::NotStarted => TestResult::NotRun,
        }
    }

    /// What a listed test is that never started.
    pub(super) fn never_started(&self) -> TestResult {
        match self {
            Ending::Lost(_) if self.panicked() => TestResult::Missing,
            Ending::Lost(_) => TestResult::Lost,
            Ending::Cancelled(_) | Ending::NotStarted => TestResult::NotRun,
            Ending::Exited(_) | Ending::Signalled(_) | Ending::TimedOut | Ending::Open => TestResult::Missing,
        }
    }

    /// What the package is, if nothing explains the end; `None` if there is nothing to explain.
    pub(super) fn package(&self) -> Option<TestResult> {
        match self {
            Ending::Exited(Some(0)) => None,
            Ending::Exited(_) => Some(TestResult::Fail),
            _ => Some(self.running()),
        }
    }

    /// What the console said.
    pub(super) fn evidence(&self) -> &'r [String] {
        match self {
            Ending::Lost(Some(loss)) => &loss.excerpt,
            _ => &[],
        }
    }

    /// The end in words.
    fn words(&self) -> String {
        match self {
            Ending::Exited(Some(status)) => format!("the test binary exited with status {status}"),
            Ending::Exited(None) => "the test binary exited with an unknown status".to_owned(),
            Ending::Signalled(Some(signal)) => format!("the test binary was killed by signal {signal}"),
            Ending::Signalled(None) => "the test binary was killed by a signal".to_owned(),
            Ending::TimedOut => "the deadline of the package passed".to_owned(),
            Ending::Lost(Some(loss)) => match loss.seen {
                LossEvidence::Panic => "the kernel panicked".to_owned(),
                LossEvidence::QemuGone => "the machine was lost (QEMU is gone)".to_owned(),
                LossEvidence::Silent => "the machine stopped answering".to_owned(),
            },
            Ending::Lost(None) => "the machine was lost".to_owned(),
            Ending::Cancelled(Some(by)) => format!("the run was cancelled by {by}"),
            Ending::Cancelled(None) => "the run was cancelled".to_owned(),
            Ending::NotStarted => "the guest refused to run the test binary".to_owned(),
            Ending::Open => "the event log ends".to_owned(),
        }
    }

    /// What the console gives as the reason.
    fn told(&self) -> String {
        let line = match self {
            Ending::Lost(Some(loss)) if loss.seen == LossEvidence::Panic => telling_line(loss),
            _ => None,
        };
        line.map(|line| format!(": {}", line.trim_start_matches("Kernel panic - not syncing: ")))
            .unwrap_or_default()
    }

    /// Said of a test that was running.
    pub(super) fn while_running(&self) -> String {
        format!("{} while it ran{}", self.words(), self.told())
    }

    /// Said of a test that never started.
    pub(super) fn before_it(&self) -> String {
        format!("{} before it started{}", self.words(), self.told())
    }

    /// Said of a package.
    pub(super) fn outside(&self) -> String {
        match self {
            Ending::Exited(_) => format!("{}, and no test failed", self.words()),
            Ending::NotStarted => self.words(),
            _ => format!("{} outside any test{}", self.words(), self.told()),
        }
    }
}

/// The first console line that names a panic, else the last one.
fn telling_line(loss: &Loss) -> Option<&str> {
    let panic = loss.excerpt.iter().find(|line| line.contains("Kernel panic"));
    panic.or(loss.excerpt.last()).map(|line| without_time(line.trim()))
}

/// A line of the kernel log without the seconds it begins with.
fn without_time(line: &str) -> &str {
    let rest = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match rest {
        Some((time, rest))
            if time.bytes().all(|byte| byte == b' ' || byte == b'.' || byte.is_ascii_digit()) =>
        {
            rest
        }
        _ => line,
    }
}
