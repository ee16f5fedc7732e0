//! One guest at work: one execution of a test binary after another, each followed to an end that is accounted for.
//!
//! Watches as it reads: a test that does not get on, a binary that says nothing, a package or a run whose time is over, a
//! machine that went away. How an execution ended is judged in `ending`.

mod ending;
mod kernel;
mod listing;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kmt_reporters::event::{CellId, Event, EventSink as _, TestResult};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::brake::{Brake, Halt};
use super::filter::{Filters, TestFilters};
use super::formats::{Reader, Speech};
use super::script::{ASK_KERNEL, END, Listing, Piece, RUN, Said, ShardOrder, Splitter};
use super::task::Task;
use super::timeline::Timeline;
use super::tracker::Tracker;
use super::words::PackageWords;
use super::work::Work;
use crate::artifact::TestPackage;
use crate::external::hypervisor::{DomainState, Hypervisor};
use crate::external::transport::RemoteStream;
use crate::known::Marks;
use crate::machine::console::ConsoleTap;
use crate::machine::{Deadlines, Guest};
use crate::record::{PackageFiles, Record};
use crate::settings::component::Engine;
pub use kernel::Allowed;
pub use listing::Listed;

/// What every execution of a lane has in common.
pub struct Lane<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// Folder of the component in the guest, with prefix.
    pub root: String,
    /// Environment of the binaries that scripts of the preparation export; over what is said elsewhere.
    pub exported: Vec<(String, String)>,
    /// Who runs the container that the binaries run in; nobody where they run in the guest itself.
    pub container: Option<Engine>,
    /// Arguments and environment of the binaries.
    pub words: &'a PackageWords,
    /// Which tests of each package.
    pub filters: &'a TestFilters,
    /// `--count`.
    pub count: u32,
    /// When a test is slow or stuck.
    pub watch: Watch,
    /// The work of its cell.
    pub work: &'a Work,
    /// Stops the run by its own rules.
    pub brake: &'a Brake,
    /// Takes the facts.
    pub record: &'a Record,
    /// Says whether the machine lives.
    pub hypervisor: &'a dyn Hypervisor,
    /// How long a guest may take to do what it is asked.
    pub deadlines: Deadlines,
    /// Turns true when the run is cancelled.
    pub cancelled: watch::Receiver<bool>,
    /// Complaints of the kernel that are allowed.
    pub allowed: &'a [Allowed],
    /// By which words a test says that it is known to be flaky.
    pub marks: &'a Arc<Marks>,
    /// Which tests ran when.
    pub timeline: Mutex<Timeline>,
    /// Whether the kernel complained so that it cannot be trusted any more.
    pub tainted: AtomicBool,
    /// When the kernel ended a program for want of memory last, and what it said.
    pub starved: Mutex<Option<(Instant, String)>>,
}

/// How long the newline of a line that may be the script's is waited on for what follows it.
const LINGER: Duration = Duration::from_millis(20);

/// When a test is slow, and when it is stuck.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// After how long a test is said to be slow.
    pub slow: Duration,
    /// Longest time a test may run by itself.
    pub test: Option<Duration>,
    /// Longest time a binary may say nothing.
    pub silence: Option<Duration>,
}

impl Watch {
    /// How often to look.
    fn tick(&self) -> Duration {
        let shortest = [Some(self.slow), self.test, self.silence].into_iter().flatten().min();
        (shortest.unwrap_or(self.slow) / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// What an execution left of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aftermath {
    /// It can be used again.
    Healthy,
    /// It answers and should not be trusted.
    Doubtful,
    /// It is gone.
    Lost,
}

/// What ended the reading of a stream.
#[derive(Debug)]
enum Ended {
    Exited {
        status: i32,
        leaked: bool,
    },
    Refused(String),
    Closed,
    /// The time of its package was over; whether it could be ended.
    Deadline {
        ended: bool,
    },
    /// These tests did not get on, and why that is known; whether it could be ended.
    Stuck {
        tests: Vec<String>,
        why: String,
        ended: bool,
    },
    /// The time of the run was over; whether it could be ended.
    OutOfTime {
        ended: bool,
    },
    /// We were told to stop; whether it could be ended.
    Cancelled {
        ended: bool,
    },
    MachineDied,
}

impl Ended {
    /// What the brake wants of what runs.
    fn halted(brake: &Brake) -> Ended {
        match *brake.halted().borrow() {
            Halt::OutOfTime => Ended::OutOfTime { ended: false },
            Halt::No | Halt::Enough => Ended::Cancelled { ended: false },
        }
    }
}

/// One execution.
struct Execution<'a> {
    package: &'a TestPackage,
    number: u32,
    nonce: String,
    pidfile: String,
    begun: Instant,
    heard: Instant,
    files: PackageFiles,
    tracker: Tracker,
    parser: Reader,
    splitter: Splitter,
    listing: Option<Vec<u8>>,
    chosen: Option<BTreeSet<String>>,
    tap: ConsoleTap,
    buffer: Vec<u8>,
    ended: Option<Ended>,
}

impl Lane<'_> {
    /// Executes a task, as the execution of its package with this number, to an end; what follows from it is in the work of
    /// the cell then.
    pub async fn execute(
        &self,
        task: &Task,
        number: u32,
        package: &TestPackage,
        limit: Duration,
    ) -> Aftermath {
        self.record.emit(Event::ShardStarted {
            cell: self.cell().clone(),
            package: package.name.clone(),
            machine: self.guest.machine.clone(),
            attempt: number,
        });
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let mut execution = Execution {
            package,
            number,
            pidfile: format!("{}/run/kmt/{nonce}.pid", self.guest.connection.prefix()),
            begun: Instant::now(),
            heard: Instant::now(),
            files: self.record.package_files(self.cell(), &package.name, number),
            tracker: Tracker::new(self.cell().clone(), package.name.clone(), number, self.marks.clone()),
            parser: package.speech.reader(),
            splitter: Splitter::new(&nonce),
            listing: (task.tests.is_none() && package.speech.is_go()).then(Vec::new),
            chosen: task.tests.clone(),
            tap: ConsoleTap::from_end(&self.guest.console),
            buffer: vec![0; 64 * 1024],
            nonce,
            ended: None,
        };
        let order = self.order(&execution, task).stdin();
        let limit = limit.saturating_sub(task.spent);
        let ended = match self.guest.connection.stream(&["sh", "-c", RUN], order).await {
            Ok(mut stream) => self.follow(&mut execution, stream.as_mut(), limit).await,
            Err(_) => Ended::Closed,
        };
        self.conclude(execution, task, ended).await
    }

    fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self) -> &CellId {
        &self.guest.cell
    }

    fn filters_of(&self, package: &TestPackage) -> &Filters {
        self.filters.of(self.cell(), &package.name)
    }

    /// Arguments of the binary, but for those that everybody asked for.
    fn args_of(&self, execution: &Execution<'_>, task: &Task) -> Vec<String> {
        let framing = match execution.package.speech {
            Speech::Go(framing) => framing,
            other => return other.chosen(task.tests.as_ref(), self.count),
        };
        let mut args = vec![framing.argument().to_owned()];
        let mut flag = |name: &str, value: &str| args.push(format!("-test.{name}={value}"));
        let filters = self.filters_of(execution.package);
        if let Some(tests) = &task.tests {
            flag("run", &filters.run.only(tests.iter().map(String::as_str)));
        } else if !filters.run.as_str().is_empty() {
            flag("run", filters.run.as_str());
        }
        if let Some(skip) = &filters.skip {
            flag("skip", skip.as_str());
        }
        if self.count != 1 {
            flag("count", &self.count.to_string());
        }
        // As `go test` does: a test that exits with 0 would otherwise look like success.
        flag("paniconexit0", "true");
        args
    }

    fn order(&self, execution: &Execution<'_>, task: &Task) -> ShardOrder {
        let words = self.words.of(self.cell(), &execution.package.name);
        let mut args = self.args_of(execution, task);
        args.extend(words.args.iter().cloned());
        let filters = self.filters_of(execution.package);
        ShardOrder {
            nonce: execution.nonce.clone(),
            pidfile: execution.pidfile.clone(),
            folder: format!("{}/{}", self.root, execution.package.workdir),
            binary: format!("{}/{}", self.root, execution.package.binary),
            container: self.container,
            list: match task.tests {
                None if execution.package.speech.is_go() => {
                    Listing::First(filters.run.list_pattern().to_owned())
                }
                _ => Listing::No,
            },
            env: [words.env_below(&self.root, self.cell().arch), self.exported.clone()].concat(),
            args,
        }
    }

    /// Reads until the binary, its time, its machine or our patience ends.
    async fn follow(
        &self,
        execution: &mut Execution<'_>,
        stream: &mut dyn RemoteStream,
        limit: Duration,
    ) -> Ended {
        let (mut cancelled, mut halted) = (self.cancelled.clone(), self.brake.halted());
        let deadline = execution.begun + limit;
        let (death, tick) = (self.machine_death(), self.watch.tick());
        tokio::pin!(death);
        let first = loop {
            tokio::select! {
                ended = self.drain(execution, stream) => break ended,
                () = tokio::time::sleep_until(deadline) => break Ended::Deadline { ended: false },
                () = sleep(tick) => if let Some(stuck) = self.look(execution) { break stuck },
                _ = cancelled.wait_for(|stop| *stop) => break Ended::Cancelled { ended: false },
                _ = halted.wait_for(|halt| *halt != Halt::No) => break Ended::halted(self.brake),
                () = &mut death => break Ended::MachineDied,
            }
        };
        match first {
            Ended::Cancelled { .. } => {
                self.signal("KILL", &execution.pidfile).await;
                let dying = timeout(self.deadlines.grace, self.drain(execution, stream)).await;
                Ended::Cancelled { ended: matches!(dying, Ok(Ended::Exited { .. })) }
            }
            Ended::MachineDied => {
                // What was sent before it died may still be on its way.
                let _ = timeout(Duration::from_secs(1), self.drain(execution, stream)).await;
                Ended::MachineDied
            }
            Ended::Deadline { .. } | Ended::OutOfTime { .. } | Ended::Stuck { .. } => {
                self.cut_short(first, execution, stream).await
            }
            other => other,
        }
    }

    /// Looks for tests that are slow, and for those that do not get on.
    fn look(&self, execution: &mut Execution<'_>) -> Option<Ended> {
        let now = execution.begun.elapsed();
        let slow = execution.tracker.slow(now, self.watch.slow);
        slow.into_iter().for_each(|event| self.record.emit(event));
        if let Some(limit) = self.watch.test {
            let late = execution.tracker.overdue(now, limit);
            if !late.is_empty() {
                let tests = late.into_iter().map(|(test, _)| test).collect();
                let why = format!("still running after {}, the limit of a test", whole_seconds(limit));
                return Some(Ended::Stuck { tests, why, ended: false });
            }
        }
        let limit = self.watch.silence.filter(|limit| execution.heard.elapsed() >= *limit)?;
        let tests =
            execution.tracker.overdue(now, Duration::ZERO).into_iter().map(|(test, _)| test).collect();
        Some(Ended::Stuck { tests, why: format!("no output for {}", whole_seconds(limit)), ended: false })
    }

    /// Ends a binary: first so that it tells where it is, then for good.
    async fn cut_short(
        &self,
        why: Ended,
        execution: &mut Execution<'_>,
        stream: &mut dyn RemoteStream,
    ) -> Ended {
        if let Ended::Stuck { tests, .. } = &why
            && let Some(test) = tests.first()
        {
            execution.tracker.all_output_to(test);
        }
        self.ask_kernel().await;
        let mut answered = self.signal("QUIT", &execution.pidfile).await;
        let mut dying = timeout(self.deadlines.grace, self.drain(execution, stream)).await;
        if dying.is_err() {
            answered = self.signal("KILL", &execution.pidfile).await;
            dying = timeout(self.deadlines.grace, self.drain(execution, stream)).await;
        }
        let ended = matches!(dying, Ok(Ended::Exited { .. }));
        match why {
            _ if !ended && !answered => Ended::Closed,
            Ended::Stuck { tests, why, .. } => Ended::Stuck { tests, why, ended },
            Ended::OutOfTime { .. } => Ended::OutOfTime { ended },
            _ => Ended::Deadline { ended },
        }
    }

    /// Has the kernel write to its log who waits for what, and where the memory is: what hangs may hang there.
    async fn ask_kernel(&self) {
        let file = format!("{}/proc/sysrq-trigger", self.guest.connection.prefix());
        let argv = ["sh", "-c", ASK_KERNEL, "sh", &file];
        let _ = timeout(self.deadlines.signal, self.guest.connection.run(&argv, Vec::new())).await;
    }

    /// Signals the process group of the binary; whether the guest carried it out.
    async fn signal(&self, signal: &str, pidfile: &str) -> bool {
        let argv = ["sh", "-c", END, "sh", signal, pidfile];
        matches!(
            timeout(self.deadlines.signal, self.guest.connection.run(&argv, Vec::new())).await,
            Ok(Ok(_))
        )
    }

    async fn machine_death(&self) {
        loop {
            sleep(self.deadlines.pulse).await;
            if matches!(self.hypervisor.state(&self.guest.domain).await, Ok(None | Some(DomainState::Off))) {
                return;
            }
        }
    }

    /// Reads until the script says how it ended, or the stream ends without a word.
    async fn drain(&self, execution: &mut Execution<'_>, stream: &mut dyn RemoteStream) -> Ended {
        while execution.ended.is_none() {
            let lingers = execution.listing.is_none() && execution.splitter.lingers();
            let patience = if lingers { LINGER } else { Duration::MAX };
            let Ok(read) = timeout(patience, stream.read(&mut execution.buffer)).await else {
                // A test that begins is known at once, not when it first says something.
                if let Some(newline) = execution.splitter.linger() {
                    self.output(execution, &newline);
                }
                continue;
            };
            match read {
                Ok(0) | Err(_) => return Ended::Closed,
                Ok(count) => {
                    execution.heard = Instant::now();
                    let pieces = execution.splitter.feed(&execution.buffer[..count]);
                    for piece in pieces {
                        self.piece(execution, piece);
                    }
                }
            }
        }
        execution.ended.take().unwrap_or(Ended::Closed)
    }

    fn piece(&self, execution: &mut Execution<'_>, piece: Piece) {
        match (piece, &mut execution.listing) {
            (Piece::Output(bytes), Some(listing)) => listing.extend_from_slice(&bytes),
            (Piece::Output(bytes), None) => self.output(execution, &bytes),
            (Piece::Said(Said::Listed(status)), _) => self.listed(execution, status),
            (Piece::Said(Said::Exited(status, leaked)), _) => {
                execution.ended = Some(Ended::Exited { status, leaked })
            }
            (Piece::Said(Said::Refused(what)), _) => execution.ended = Some(Ended::Refused(what)),
        }
    }

    fn listed(&self, execution: &mut Execution<'_>, status: i32) {
        let listing = execution.listing.take().unwrap_or_default();
        if status != 0 {
            // It says at the real run why; its own words belong to its output.
            execution.files.raw(&listing);
            let message = format!(
                "{}: its list of tests failed with status {status}, so one that never starts will not be missed",
                execution.package.name
            );
            self.record.emit(Event::Warning { subject: self.guest.cell.to_string(), message });
            return;
        }
        let tests = self.chosen_of(execution.package, &listing);
        execution.chosen = Some(tests.iter().cloned().collect());
        self.tell_tests(&execution.package.name, tests);
    }

    fn output(&self, execution: &mut Execution<'_>, bytes: &[u8]) {
        execution.files.raw(bytes);
        let mut items = Vec::new();
        execution.parser.feed(bytes, &mut items);
        self.items(execution, items);
    }

    fn items(&self, execution: &mut Execution<'_>, items: Vec<super::gotest::Item>) {
        let mut events = Vec::new();
        let now = execution.begun.elapsed();
        for item in items {
            execution.tracker.take(item, now, &mut execution.files, &mut events);
        }
        for event in events {
            self.note(&event);
            let failed = match &event {
                Event::TestFinished { test, result: TestResult::Fail, .. } if !test.contains('/') => {
                    let raced = execution.tracker.tallies().get(test).is_some_and(|tally| tally.raced);
                    !self.work.has_another(&execution.package.name, test, raced)
                }
                _ => false,
            };
            self.record.emit(event);
            self.brake.failed(u32::from(failed), self.record);
        }
    }
}

impl Lane<'_> {
    /// Remembers who ran when.
    fn note(&self, event: &Event) {
        match event {
            Event::TestStarted { test, .. } => self.timeline().started(test, Instant::now()),
            Event::TestFinished { test, .. } => self.timeline().finished(test, Instant::now()),
            _ => {}
        }
    }
}

/// A limit, as it is told.
fn whole_seconds(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format!("{} ms", limit.as_millis())
    }
}
