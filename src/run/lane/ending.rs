//! How an execution ended, and what that means for the tests that ran, for the rest, and for the machine.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kmt_reporters::event::{Event, EventSink as _, LossEvidence, ShardEnd, TestResult};
use tokio::time::{Instant, sleep};

use super::{Aftermath, Ended, Execution, Lane};
use crate::external::hypervisor::DomainState;
use crate::run::task::{Cut, Executed, Task};
use crate::run::tracker::top;

/// A kernel that dies takes with it what its guest has not sent yet. A test that began so long before the end of its
/// machine (the report of a panic takes its time) and said nothing may have ended since, and another begun.
const JUST: Duration = Duration::from_secs(2);
/// Status, as a shell sees it, of a program that was killed.
const KILLED: i32 = 128 + 9;
/// What is said of it.
const SOON: &str =
    "the kernel panicked while it ran, or soon after: what the guest said last may not have arrived";

/// An end, judged.
struct Judged {
    end: ShardEnd,
    /// Exit status or signal.
    status: Option<i32>,
    leaked: bool,
    aftermath: Aftermath,
    /// What tests are that still ran, and why.
    running: Option<(TestResult, String)>,
    /// Why each top-level test that still ran was cut; empty where nothing follows from it.
    cut: BTreeMap<String, Cut>,
    /// Whether what did not begin goes on in another execution.
    goes_on: bool,
}

impl Judged {
    fn new(end: ShardEnd, aftermath: Aftermath) -> Judged {
        Judged {
            end,
            status: None,
            leaked: false,
            aftermath,
            running: None,
            cut: BTreeMap::new(),
            goes_on: false,
        }
    }
}

impl Lane<'_> {
    /// Says how the execution ended, and decides what follows from it.
    pub(super) async fn conclude(
        &self,
        mut execution: Execution<'_>,
        task: &Task,
        ended: Ended,
    ) -> Aftermath {
        let rest = execution.splitter.rest();
        if execution.listing.is_none() && !rest.is_empty() {
            self.output(&mut execution, &rest);
        }
        let mut items = Vec::new();
        execution.parser.finish(&mut items);
        self.items(&mut execution, items);
        let stuck = if let Ended::Stuck { tests, .. } = &ended { tests.clone() } else { Vec::new() };
        let judged = self.judge(&mut execution, ended).await;
        self.close(&mut execution, &judged, &stuck);
        self.follow_up(&execution, task, &judged);
        self.record.emit(Event::ShardFinished {
            cell: self.guest.cell.clone(),
            package: execution.package.name.clone(),
            attempt: execution.number,
            end: judged.end,
            status: judged.status,
            duration_ms: u64::try_from(execution.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            leaked: judged.leaked,
            output: execution.files.whole(),
        });
        match judged.aftermath {
            Aftermath::Healthy if self.tainted.load(Ordering::Relaxed) => Aftermath::Doubtful,
            aftermath => aftermath,
        }
    }

    /// What an end means; a machine that went away is told of.
    async fn judge(&self, execution: &mut Execution<'_>, ended: Ended) -> Judged {
        let elapsed = execution.begun.elapsed();
        let end_of = |end, ended: bool| {
            let aftermath = if ended { Aftermath::Healthy } else { Aftermath::Doubtful };
            Judged::new(end, aftermath)
        };
        let timed_out = |why: &str| {
            Some((TestResult::TimedOut, format!("still running after {} s, {why}", elapsed.as_secs())))
        };
        match ended {
            Ended::Exited { status, leaked } => {
                let status = execution.parser.status(status);
                let starved = if status == KILLED { self.out_of_memory(execution.begun).await } else { None };
                exited(execution, status, leaked, starved)
            }
            Ended::Refused(what) => {
                let message = format!("{}: the guest has no {what} to run", execution.package.name);
                self.record.emit(Event::Warning { subject: self.guest.machine.clone(), message });
                Judged::new(ShardEnd::NotStarted, Aftermath::Healthy)
            }
            Ended::Deadline { ended } => {
                Judged { running: timed_out("the package's limit"), ..end_of(ShardEnd::TimedOut, ended) }
            }
            Ended::OutOfTime { ended } => Judged {
                running: timed_out("when the run's time was over"),
                ..end_of(ShardEnd::TimedOut, ended)
            },
            Ended::Stuck { tests, why, ended } => {
                let blamed = |test: &String| tests.iter().any(|stuck| top(stuck) == test);
                let cut = |test: &String| if blamed(test) { Cut::Stuck } else { Cut::Bystander };
                Judged {
                    running: Some((TestResult::TimedOut, why)),
                    goes_on: !tests.is_empty(),
                    cut: cuts(execution, cut),
                    ..end_of(ShardEnd::TimedOut, ended)
                }
            }
            Ended::Cancelled { ended } => {
                let why = if *self.cancelled.borrow() { "the run was cancelled" } else { "the run stopped" };
                Judged {
                    running: Some((TestResult::NotRun, why.to_owned())),
                    ..end_of(ShardEnd::Cancelled, ended)
                }
            }
            Ended::Closed | Ended::MachineDied => {
                let evidence = self.lost(execution).await;
                gone(execution, evidence, elapsed)
            }
        }
    }

    /// Ends what still ran: those to blame as the end says, the others without a result.
    fn close(&self, execution: &mut Execution<'_>, judged: &Judged, stuck: &[String]) {
        let Some((result, why)) = &judged.running else { return };
        let Execution { tracker, files, begun, .. } = execution;
        let blamed =
            judged.cut.iter().filter(|(_, cut)| **cut != Cut::Bystander).map(|(test, _)| test.as_str());
        let blamed = blamed.collect::<Vec<_>>().join(", ");
        let end = |test: &str| match judged.cut.get(top(test)) {
            Some(Cut::Bystander) => {
                let why = if blamed.is_empty() {
                    "its binary panicked".to_owned()
                } else {
                    format!("{blamed} hung")
                };
                (TestResult::NotRun, format!("stopped because {why}; it runs again"))
            }
            Some(Cut::Stuck) if !stuck.iter().any(|stuck| is_or_holds(test, stuck)) => {
                (*result, format!("stopped beside {}", stuck.join(", ")))
            }
            _ => (*result, why.clone()),
        };
        let mut events = Vec::new();
        tracker.close(end, begun.elapsed(), files, &mut events);
        for event in events {
            self.note(&event);
            self.record.emit(event);
        }
    }

    /// Puts what follows into the work of the cell, and says so.
    fn follow_up(&self, execution: &Execution<'_>, task: &Task, judged: &Judged) {
        let stopped = *self.cancelled.borrow() || self.brake.is_on();
        let executed = Executed {
            chosen: execution.chosen.as_ref(),
            tallies: execution.tracker.tallies(),
            cut: judged.cut.clone(),
            goes_on: judged.goes_on && !stopped,
            machine_lost: judged.aftermath == Aftermath::Lost,
            took: execution.begun.elapsed(),
            count: self.count,
        };
        let next = self.work.done(task, &executed);
        self.brake.failed(next.given_up, self.record);
        if stopped {
            return;
        }
        let requeued = |(_, reason): &(Task, String), attempt| Event::ShardRequeued {
            cell: self.guest.cell.clone(),
            package: execution.package.name.clone(),
            reason: reason.clone(),
            attempt,
        };
        next.rest.iter().for_each(|rest| self.record.emit(requeued(rest, execution.number)));
        next.again.iter().for_each(|again| self.record.emit(requeued(again, 0)));
    }

    /// Waits for late console output, then says what is known of a machine that went away.
    async fn lost(&self, execution: &mut Execution<'_>) -> LossEvidence {
        let patience = Instant::now() + self.deadlines.late;
        let tap = &mut execution.tap;
        let mut gone = false;
        while Instant::now() < patience && !(gone && tap.panic().is_some()) {
            tap.lines();
            gone =
                matches!(self.hypervisor.state(&self.guest.domain).await, Ok(None | Some(DomainState::Off)));
            if gone && tap.panic().is_none() {
                sleep(Duration::from_millis(300)).await;
                tap.lines();
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let seen = match (tap.panic(), gone) {
            (Some(_), _) => LossEvidence::Panic,
            (None, true) => LossEvidence::QemuGone,
            (None, false) => LossEvidence::Silent,
        };
        self.record.emit(Event::MachineLost {
            machine: self.guest.machine.clone(),
            cell: self.guest.cell.clone(),
            seen,
            excerpt: tap.excerpt(),
        });
        seen
    }
}

/// A binary that ended by itself or by a signal. Where a test ran, or a panic says which one is to blame, the others go
/// on without it; where none did, it ended because it wanted to. `starved` is what the kernel said of a want of memory.
fn exited(execution: &Execution<'_>, status: i32, leaked: bool, starved: Option<String>) -> Judged {
    let explained = execution.tracker.panic_is_explained();
    let cut = cuts(execution, |_| if explained { Cut::Bystander } else { Cut::Binary });
    let signal = (status > 128).then(|| status - 128);
    let (result, message) = match signal {
        Some(signal) => {
            let why = starved.map(|title| format!(": {title}")).unwrap_or_default();
            (TestResult::Crashed, format!("the binary was killed by signal {signal} while it ran{why}"))
        }
        None if status == 0 => {
            (TestResult::Unfinished, "the binary ended with status 0 while it ran".to_owned())
        }
        None => (TestResult::Crashed, format!("the binary ended with status {status} while it ran")),
    };
    let killed_between = signal.is_some() && !execution.tracker.tallies().is_empty();
    Judged {
        status: Some(signal.unwrap_or(status)),
        leaked,
        running: Some((result, message)),
        goes_on: !cut.is_empty() || explained || killed_between,
        cut,
        ..Judged::new(
            if signal.is_some() { ShardEnd::Signalled } else { ShardEnd::Exited },
            Aftermath::Healthy,
        )
    }
}

/// A machine that went away under an execution.
fn gone(execution: &Execution<'_>, evidence: LossEvidence, elapsed: Duration) -> Judged {
    let only_began = execution.tracker.only_began(elapsed, JUST);
    let (result, cut, why) = match evidence {
        LossEvidence::Panic if only_began => (TestResult::Crashed, Cut::Kernel, SOON),
        LossEvidence::Panic => (TestResult::Crashed, Cut::Kernel, "the kernel panicked while it ran"),
        LossEvidence::QemuGone => (TestResult::Lost, Cut::Machine, "QEMU ended while it ran"),
        LossEvidence::Silent => {
            (TestResult::Lost, Cut::Machine, "the machine stopped answering while it ran")
        }
    };
    Judged {
        running: Some((result, why.to_owned())),
        cut: cuts(execution, |_| cut),
        goes_on: true,
        ..Judged::new(ShardEnd::MachineLost, Aftermath::Lost)
    }
}

fn cuts(execution: &Execution<'_>, cut: impl Fn(&String) -> Cut) -> BTreeMap<String, Cut> {
    let running = execution.tracker.running().into_iter();
    running.map(|test| (test.clone(), cut(&test))).collect()
}

/// Whether `test` is the other test, or one that it is a subtest of.
fn is_or_holds(test: &str, other: &str) -> bool {
    other.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
