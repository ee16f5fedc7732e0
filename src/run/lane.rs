//! One guest at work: packages one after another, each followed to an end that is accounted for.

use std::time::Duration;

use kmt_reporters::event::{Event, EventSink as _, LossEvidence, ShardEnd, TestResult};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::filter::{Filters, TestFilters};
use super::formats::{Reader, Speech};
use super::script::{END, Piece, RUN, Said, ShardOrder, Splitter};
use super::tracker::Tracker;
use super::words::PackageWords;
use crate::artifact::TestPackage;
use crate::external::hypervisor::{DomainState, Hypervisor};
use crate::external::transport::RemoteStream;
use crate::machine::console::ConsoleTap;
use crate::machine::{Deadlines, Guest};
use crate::record::{PackageFiles, Record};

/// What every package of a lane has in common.
pub struct Lane<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// Folder of the component in the guest, with prefix.
    pub root: String,
    /// Arguments and environment of the binaries.
    pub words: &'a PackageWords,
    /// Which tests of each package.
    pub filters: &'a TestFilters,
    /// `--count`.
    pub count: u32,
    /// Takes the facts.
    pub record: &'a Record,
    /// Says whether the machine lives.
    pub hypervisor: &'a dyn Hypervisor,
    /// How long a guest may take to do what it is asked.
    pub deadlines: Deadlines,
    /// Turns true when the run is cancelled.
    pub cancelled: watch::Receiver<bool>,
}

/// What a package left of its machine.
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
enum Ended {
    Exited {
        status: i32,
        leaked: bool,
    },
    Refused(String),
    Closed,
    /// Its time was over; whether it could be ended.
    Deadline {
        ended: bool,
    },
    /// We were told to stop; whether it could be ended.
    Cancelled {
        ended: bool,
    },
    MachineDied,
}

struct Shard<'a> {
    package: &'a TestPackage,
    nonce: String,
    pidfile: String,
    begun: Instant,
    files: PackageFiles,
    tracker: Tracker,
    parser: Reader,
    splitter: Splitter,
    listing: Option<Vec<u8>>,
    tap: ConsoleTap,
    ended: Option<Ended>,
}

impl Lane<'_> {
    /// Runs one package to an end.
    pub async fn package(&self, package: &TestPackage, limit: Duration) -> Aftermath {
        let cell = self.guest.cell.clone();
        self.record.emit(Event::ShardStarted {
            cell: cell.clone(),
            package: package.name.clone(),
            machine: self.guest.machine.clone(),
            attempt: 1,
        });
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let mut shard = Shard {
            package,
            pidfile: format!("{}/run/kmt/{nonce}.pid", self.guest.connection.prefix()),
            begun: Instant::now(),
            files: self.record.package_files(&cell, &package.name, 1),
            tracker: Tracker::new(cell, package.name.clone(), 1),
            parser: package.speech.reader(),
            splitter: Splitter::new(&nonce),
            listing: package.speech.is_go().then(Vec::new),
            tap: ConsoleTap::from_end(&self.guest.console),
            nonce,
            ended: None,
        };
        let order = self.order(&shard).stdin();
        let ended = match self.guest.connection.stream(&["sh", "-c", RUN], order).await {
            Ok(mut stream) => self.follow(&mut shard, stream.as_mut(), limit).await,
            Err(_) => Ended::Closed,
        };
        self.conclude(shard, ended).await
    }

    fn filters_of(&self, package: &TestPackage) -> &Filters {
        self.filters.of(&self.guest.cell, &package.name)
    }

    /// Arguments of the binary, but for those that everybody asked for.
    fn args_of(&self, shard: &Shard<'_>) -> Vec<String> {
        let framing = match shard.package.speech {
            Speech::Go(framing) => framing,
            Speech::Gtest if self.count != 1 => return vec![format!("--gtest_repeat={}", self.count)],
            Speech::Gtest | Speech::Libtest | Speech::Tap => return Vec::new(),
        };
        let mut args = vec![framing.argument().to_owned()];
        let mut flag = |name: &str, value: &str| args.push(format!("-test.{name}={value}"));
        let filters = self.filters_of(shard.package);
        if !filters.run.as_str().is_empty() {
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

    fn order(&self, shard: &Shard<'_>) -> ShardOrder {
        let words = self.words.of(&self.guest.cell, &shard.package.name);
        let mut args = self.args_of(shard);
        args.extend(words.args.iter().cloned());
        let filters = self.filters_of(shard.package);
        ShardOrder {
            nonce: shard.nonce.clone(),
            pidfile: shard.pidfile.clone(),
            folder: format!("{}/{}", self.root, shard.package.workdir),
            binary: format!("{}/{}", self.root, shard.package.binary),
            list: shard.package.speech.is_go().then(|| filters.run.list_pattern().to_owned()),
            env: words.env_below(&self.root, self.guest.cell.arch),
            args,
        }
    }

    /// Reads until the binary, its time, its machine or our patience ends.
    async fn follow(&self, shard: &mut Shard<'_>, stream: &mut dyn RemoteStream, limit: Duration) -> Ended {
        let mut cancelled = self.cancelled.clone();
        let deadline = shard.begun + limit;
        let first = tokio::select! {
            ended = self.drain(shard, stream) => ended,
            () = tokio::time::sleep_until(deadline) => Ended::Deadline { ended: false },
            _ = cancelled.wait_for(|stop| *stop) => Ended::Cancelled { ended: false },
            () = self.machine_death() => Ended::MachineDied,
        };
        match first {
            Ended::Deadline { .. } => self.cut_short(shard, stream).await,
            Ended::Cancelled { .. } => {
                self.signal("KILL", &shard.pidfile).await;
                let dying = timeout(self.deadlines.grace, self.drain(shard, stream)).await;
                Ended::Cancelled { ended: matches!(dying, Ok(Ended::Exited { .. })) }
            }
            Ended::MachineDied => {
                // What was sent before it died may still be on its way.
                let _ = timeout(Duration::from_secs(1), self.drain(shard, stream)).await;
                Ended::MachineDied
            }
            other => other,
        }
    }

    /// Ends a binary whose time is over: first so that it tells where it is, then for good.
    async fn cut_short(&self, shard: &mut Shard<'_>, stream: &mut dyn RemoteStream) -> Ended {
        let mut answered = self.signal("QUIT", &shard.pidfile).await;
        let mut dying = timeout(self.deadlines.grace, self.drain(shard, stream)).await;
        if dying.is_err() {
            answered = self.signal("KILL", &shard.pidfile).await;
            dying = timeout(self.deadlines.grace, self.drain(shard, stream)).await;
        }
        match dying {
            Ok(Ended::Exited { .. }) => Ended::Deadline { ended: true },
            _ if answered => Ended::Deadline { ended: false },
            _ => Ended::Closed,
        }
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
    async fn drain(&self, shard: &mut Shard<'_>, stream: &mut dyn RemoteStream) -> Ended {
        let mut buffer = vec![0u8; 64 * 1024];
        while shard.ended.is_none() {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return Ended::Closed,
                Ok(count) => {
                    let pieces = shard.splitter.feed(&buffer[..count]);
                    for piece in pieces {
                        self.piece(shard, piece);
                    }
                }
            }
        }
        shard.ended.take().unwrap_or(Ended::Closed)
    }

    fn piece(&self, shard: &mut Shard<'_>, piece: Piece) {
        match (piece, &mut shard.listing) {
            (Piece::Output(bytes), Some(listing)) => listing.extend_from_slice(&bytes),
            (Piece::Output(bytes), None) => self.output(shard, &bytes),
            (Piece::Said(Said::Listed(status)), _) => self.listed(shard, status),
            (Piece::Said(Said::Exited(status, leaked)), _) => {
                shard.ended = Some(Ended::Exited { status, leaked })
            }
            (Piece::Said(Said::Refused(what)), _) => shard.ended = Some(Ended::Refused(what)),
        }
    }

    fn listed(&self, shard: &mut Shard<'_>, status: i32) {
        let listing = shard.listing.take().unwrap_or_default();
        if status != 0 {
            // It says at the real run why; its own words belong to its output.
            shard.files.raw(&listing);
            let message = format!(
                "{}: its list of tests failed with status {status}, so one that never starts will not be missed",
                shard.package.name
            );
            self.record.emit(Event::Warning { subject: self.guest.cell.to_string(), message });
            return;
        }
        let text = String::from_utf8_lossy(&listing);
        let named =
            |name: &&str| name.starts_with("Test") || name.starts_with("Example") || name.starts_with("Fuzz");
        let filters = self.filters_of(shard.package);
        let chosen = |name: &&str| {
            let dropped = filters.skip.as_ref().is_some_and(|skip| skip.drops_top_level(name));
            filters.run.selects_top_level(name) && !dropped
        };
        let tests = text.lines().map(str::trim).filter(named).filter(chosen).map(str::to_owned).collect();
        let cell = self.guest.cell.clone();
        self.record.emit(Event::TestsListed { cell, package: shard.package.name.clone(), tests });
    }

    fn output(&self, shard: &mut Shard<'_>, bytes: &[u8]) {
        shard.files.raw(bytes);
        let mut items = Vec::new();
        shard.parser.feed(bytes, &mut items);
        self.items(shard, items);
    }

    fn items(&self, shard: &mut Shard<'_>, items: Vec<super::gotest::Item>) {
        let mut events = Vec::new();
        let now = shard.begun.elapsed();
        for item in items {
            shard.tracker.take(item, now, &mut shard.files, &mut events);
        }
        events.into_iter().for_each(|event| self.record.emit(event));
    }

    /// Says how the package ended, and what that means for tests that still ran.
    async fn conclude(&self, mut shard: Shard<'_>, ended: Ended) -> Aftermath {
        let rest = shard.splitter.rest();
        if shard.listing.is_none() && !rest.is_empty() {
            self.output(&mut shard, &rest);
        }
        let mut items = Vec::new();
        shard.parser.finish(&mut items);
        self.items(&mut shard, items);
        let (end, status, leaked, aftermath) = self.ending(&mut shard, ended).await;
        if let Some((result, message)) = verdict(end, status, shard.begun.elapsed()) {
            self.close(&mut shard, result, &message);
        }
        self.record.emit(Event::ShardFinished {
            cell: self.guest.cell.clone(),
            package: shard.package.name.clone(),
            attempt: 1,
            end,
            status,
            duration_ms: u64::try_from(shard.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            leaked,
            output: shard.files.whole(),
        });
        aftermath
    }

    /// What an end means for the package and for the machine; a machine that went away is told of.
    async fn ending(&self, shard: &mut Shard<'_>, ended: Ended) -> (ShardEnd, Option<i32>, bool, Aftermath) {
        match ended {
            Ended::Exited { status, leaked } if status > 128 => {
                (ShardEnd::Signalled, Some(status - 128), leaked, Aftermath::Healthy)
            }
            Ended::Exited { status, leaked } => {
                (ShardEnd::Exited, Some(shard.parser.status(status)), leaked, Aftermath::Healthy)
            }
            Ended::Refused(what) => {
                let message = format!("{}: the guest has no {what} to run", shard.package.name);
                self.record.emit(Event::Warning { subject: self.guest.machine.clone(), message });
                (ShardEnd::NotStarted, None, false, Aftermath::Healthy)
            }
            Ended::Deadline { ended } => (ShardEnd::TimedOut, None, false, aftermath(ended)),
            Ended::Cancelled { ended } => (ShardEnd::Cancelled, None, false, aftermath(ended)),
            Ended::Closed | Ended::MachineDied => {
                let evidence = self.lost(shard).await;
                self.close(shard, lost_as(evidence), lost_because(evidence));
                (ShardEnd::MachineLost, None, false, Aftermath::Lost)
            }
        }
    }

    fn close(&self, shard: &mut Shard<'_>, result: TestResult, message: &str) {
        let mut events = Vec::new();
        shard.tracker.close(result, message, shard.begun.elapsed(), &mut shard.files, &mut events);
        events.into_iter().for_each(|event| self.record.emit(event));
    }

    /// Waits for late console output, then says what is known of a machine that went away.
    async fn lost(&self, shard: &mut Shard<'_>) -> LossEvidence {
        let patience = Instant::now() + self.deadlines.late;
        let mut gone = false;
        while Instant::now() < patience && !(gone && shard.tap.panic().is_some()) {
            shard.tap.lines();
            gone =
                matches!(self.hypervisor.state(&self.guest.domain).await, Ok(None | Some(DomainState::Off)));
            if gone && shard.tap.panic().is_none() {
                sleep(Duration::from_millis(300)).await;
                shard.tap.lines();
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let seen = match (shard.tap.panic(), gone) {
            (Some(_), _) => LossEvidence::Panic,
            (None, true) => LossEvidence::QemuGone,
            (None, false) => LossEvidence::Silent,
        };
        self.record.emit(Event::MachineLost {
            machine: self.guest.machine.clone(),
            cell: self.guest.cell.clone(),
            seen,
            excerpt: shard.tap.excerpt(),
        });
        seen
    }
}

/// A guest whose processes could be ended is as good as before.
fn aftermath(ended: bool) -> Aftermath {
    if ended { Aftermath::Healthy } else { Aftermath::Doubtful }
}

/// What the end of a binary means for tests that still ran.
fn verdict(end: ShardEnd, status: Option<i32>, elapsed: Duration) -> Option<(TestResult, String)> {
    Some(match (end, status) {
        (ShardEnd::TimedOut, _) => (
            TestResult::TimedOut,
            format!("still running after {} s, the package's limit", elapsed.as_secs()),
        ),
        (ShardEnd::Exited, Some(0)) => {
            (TestResult::Unfinished, "the binary ended with status 0 while it ran".to_owned())
        }
        (ShardEnd::Exited, Some(code)) => {
            (TestResult::Crashed, format!("the binary ended with status {code} while it ran"))
        }
        (ShardEnd::Signalled, Some(signal)) => {
            (TestResult::Crashed, format!("the binary was killed by signal {signal} while it ran"))
        }
        (ShardEnd::Cancelled, _) => (TestResult::NotRun, "the run was cancelled".to_owned()),
        _ => return None,
    })
}

fn lost_as(evidence: LossEvidence) -> TestResult {
    match evidence {
        LossEvidence::Panic => TestResult::Crashed,
        LossEvidence::QemuGone | LossEvidence::Silent => TestResult::Lost,
    }
}

fn lost_because(evidence: LossEvidence) -> &'static str {
    match evidence {
        LossEvidence::Panic => "the kernel panicked while it ran",
        LossEvidence::QemuGone => "QEMU ended while it ran",
        LossEvidence::Silent => "the machine stopped answering while it ran",
    }
}
