//! From the items of a parser to facts of the record: who runs, what each one said, how each one ended.
//!
//! Synchronous; the clock is given. Output of a test is kept until the test ends, head and tail, and then
//! written in one piece; the whole stream goes to the raw file as it comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kmt_reporters::event::{CellId, Event, TestResult};

use super::gotest::{Item, Verdict};
use crate::known::Marks;
use crate::record::PackageFiles;

/// Bytes of a test's output that are kept from its beginning.
const HEAD: usize = 2 << 20;
/// Bytes of a test's output that are kept from its end.
const TAIL: usize = 1 << 20;

/// Output of one test, bounded.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let room = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend(&bytes[room..]);
        while self.tail.len() > TAIL {
            self.tail.pop_front();
            self.left_out += 1;
        }
    }

    fn bytes(mut self) -> Vec<u8> {
        if self.left_out > 0 {
            let note =
                format!("\n[{} bytes left out here; the whole is in the package's output]\n", self.left_out);
            self.head.extend_from_slice(note.as_bytes());
        }
        self.head.extend(self.tail);
        self.head
    }
}

#[derive(Debug)]
struct Running {
    since: Duration,
    /// When it was last seen to get on by itself: it began, went on, or a subtest of it began or ended.
    moved: Duration,
    /// Whether it waits for its turn to run beside others.
    waits: bool,
    /// How many times it was said to be slow.
    told: u32,
    raced: bool,
    /// Whether it said that it is known to be flaky.
    marked: bool,
    kept: Kept,
}

impl Running {
    fn new(now: Duration) -> Running {
        Running {
            since: now,
            moved: now,
            waits: false,
            told: 0,
            raced: false,
            marked: false,
            kept: Kept::default(),
        }
    }
}

/// What the race detector of Go says, once where it sees one and once where the test ends.
const RACE: [&[u8]; 2] = [b"WARNING: DATA RACE", b"race detected during execution of test"];

/// How a top-level test has fared so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many times it ended by its own word.
    pub ended: u32,
    /// Whether it failed once.
    pub failed: bool,
    /// Whether the race detector spoke while it, or a subtest of it, ran.
    pub raced: bool,
}

/// Follows one package in one cell.
#[derive(Debug)]
pub struct Tracker {
    cell: CellId,
    package: String,
    attempt: u32,
    running: BTreeMap<String, Running>,
    tallies: BTreeMap<String, Tally>,
    panicked: Option<String>,
    heir: Option<String>,
    marks: Arc<Marks>,
}

impl Tracker {
    /// Nothing runs yet.
    pub fn new(cell: CellId, package: String, attempt: u32, marks: Arc<Marks>) -> Tracker {
        Tracker {
            cell,
            package,
            attempt,
            running: BTreeMap::new(),
            tallies: BTreeMap::new(),
            panicked: None,
            heir: None,
            marks,
        }
    }

    /// Takes one item at `now` (time since the package started); the facts go to `out`.
    pub fn take(&mut self, item: Item, now: Duration, files: &mut PackageFiles, out: &mut Vec<Event>) {
        match item {
            Item::Started { test } => {
                self.parents_move(&test, now);
                self.running.insert(test.clone(), Running::new(now));
                out.push(Event::TestStarted {
                    cell: self.cell.clone(),
                    package: self.package.clone(),
                    test,
                    attempt: self.attempt,
                });
            }
            Item::Output { test, bytes } => self.said(test, &bytes, out),
            Item::Finished { test, result, elapsed } => {
                let result = match result {
                    Verdict::Pass => TestResult::Pass,
                    Verdict::Fail => TestResult::Fail,
                    Verdict::Skip => TestResult::Skip,
                };
                self.parents_move(&test, now);
                self.count(&test, result);
                self.finish(&test, result, elapsed, None, files, out);
            }
            Item::Paused { test } | Item::Resumed { test } if !self.running.contains_key(&test) => {}
            Item::Paused { test } => {
                self.running.entry(test).and_modify(|running| running.waits = true);
            }
            Item::Resumed { test } => {
                let goes_on = |running: &mut Running| {
                    if std::mem::take(&mut running.waits) {
                        running.moved = now;
                    }
                };
                self.running.entry(test).and_modify(goes_on);
            }
            Item::Panicked { test, .. } => self.panicked = test,
            Item::Malformed { message } => out.push(Event::TestOutputMalformed {
                cell: self.cell.clone(),
                package: self.package.clone(),
                message,
            }),
            Item::Announced { test } => out.push(Event::TestsListed {
                cell: self.cell.clone(),
                package: self.package.clone(),
                tests: vec![test],
            }),
            Item::PackageOk | Item::PackageFail => {}
        }
    }

    /// Output of a test, or of the one that inherits all of it.
    fn said(&mut self, test: Option<String>, bytes: &[u8], out: &mut Vec<Event>) {
        let Some(test) = self.heir.as_ref().or(test.as_ref()) else { return };
        let Some(running) = self.running.get_mut(test) else { return };
        running.raced |= RACE.iter().any(|said| contains(bytes, said));
        running.kept.push(bytes);
        if !running.marked && self.marks.say(&self.package, test, bytes) {
            running.marked = true;
            out.push(Event::TestMarkedFlaky {
                cell: self.cell.clone(),
                package: self.package.clone(),
                test: test.clone(),
                attempt: self.attempt,
            });
        }
    }

    fn finish(
        &mut self,
        test: &str,
        result: TestResult,
        elapsed: Duration,
        message: Option<String>,
        files: &mut PackageFiles,
        out: &mut Vec<Event>,
    ) {
        let output = self.running.remove(test).and_then(|running| files.test_output(&running.kept.bytes()));
        out.push(Event::TestFinished {
            cell: self.cell.clone(),
            package: self.package.clone(),
            test: test.to_owned(),
            attempt: self.attempt,
            result,
            duration_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            output,
            message,
        });
    }

    /// Ends what still runs, children first, each with a result and why.
    pub fn close(
        &mut self,
        end: impl Fn(&str) -> (TestResult, String),
        now: Duration,
        files: &mut PackageFiles,
        out: &mut Vec<Event>,
    ) {
        let left: Vec<(String, Duration)> =
            self.running.iter().rev().map(|(test, r)| (test.clone(), now.saturating_sub(r.since))).collect();
        for (test, elapsed) in left {
            let (result, message) = end(&test);
            self.finish(&test, result, elapsed, Some(message), files, out);
        }
    }

    fn parents_move(&mut self, test: &str, now: Duration) {
        for (at, _) in test.match_indices('/') {
            if let Some(parent) = self.running.get_mut(&test[..at]) {
                parent.moved = now;
            }
        }
    }

    fn count(&mut self, test: &str, result: TestResult) {
        let raced = self.running.get(test).is_some_and(|running| running.raced);
        let tally = self.tallies.entry(top(test).to_owned()).or_default();
        tally.raced |= raced;
        if !test.contains('/') {
            tally.ended += 1;
            tally.failed |= result == TestResult::Fail;
        }
    }

    /// How each top-level test has fared.
    pub fn tallies(&self) -> &BTreeMap<String, Tally> {
        &self.tallies
    }

    /// Top-level tests that have started and not ended.
    pub fn running(&self) -> BTreeSet<String> {
        self.running.keys().map(|test| top(test).to_owned()).collect()
    }

    /// Whether all that runs has just begun at `now`, and said nothing yet: what came after it may not have arrived.
    pub fn only_began(&self, now: Duration, just: Duration) -> bool {
        let began = |(_, running): (&String, &Running)| {
            now.saturating_sub(running.since) < just && running.kept.head.is_empty()
        };
        !self.running.is_empty() && self.running.iter().all(began)
    }

    /// The test that runs now, to name one: of those that do not wait the deepest that began last.
    pub fn at_work(&self) -> Option<&str> {
        let working = self.running.iter().filter(|(test, running)| self.works(test, running));
        working.max_by_key(|(_, running)| running.since).map(|(test, _)| test.as_str())
    }

    /// Whether the panic that ended the binary is told as that of a test which has failed: then no other is to blame.
    pub fn panic_is_explained(&self) -> bool {
        let failed = |test: &String| self.tallies.get(top(test)).is_some_and(|tally| tally.failed);
        self.panicked.as_ref().is_some_and(failed)
    }

    /// Whatever is said from now on is this test's: what the runtime tells of a binary that is ended because of it.
    pub fn all_output_to(&mut self, test: &str) {
        self.heir = Some(test.to_owned());
    }

    /// Runs by itself: it does not wait, and no subtest of it runs.
    fn works(&self, test: &str, running: &Running) -> bool {
        let below = format!("{test}/");
        let mut children =
            self.running.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below));
        !running.waits && children.all(|(_, child)| child.waits)
    }

    /// Tests that have run by themselves for `limit` and longer at `now`, and for how long.
    pub fn overdue(&self, now: Duration, limit: Duration) -> Vec<(String, Duration)> {
        let late = self.running.iter().filter_map(|(test, running)| {
            let alone = now.saturating_sub(running.moved);
            (alone >= limit && self.works(test, running)).then(|| (test.clone(), alone))
        });
        late.collect()
    }

    /// Says which tests are slow at `now`: each once whenever it has run for another `period`.
    pub fn slow(&mut self, now: Duration, period: Duration) -> Vec<Event> {
        let mut told = Vec::new();
        for (test, alone) in self.overdue(now, period) {
            let periods = u32::try_from(alone.as_millis() / period.as_millis().max(1)).unwrap_or(u32::MAX);
            let Some(running) = self.running.get_mut(&test).filter(|running| running.told < periods) else {
                continue;
            };
            running.told = periods;
            told.push(Event::TestSlow {
                cell: self.cell.clone(),
                package: self.package.clone(),
                test,
                attempt: self.attempt,
                ran_ms: u64::try_from(alone.as_millis()).unwrap_or(u64::MAX),
            });
        }
        told
    }
}

/// The top-level test that a test belongs to.
pub fn top(test: &str) -> &str {
    test.split('/').next().unwrap_or(test)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn tracked(items: Vec<(u64, Item)>) -> Tracker {
        let temp = tempfile::tempdir().unwrap();
        let cell = CellId::local("debian_12", "6.1", Arch::X86_64);
        let mut files = PackageFiles::below(temp.path(), &kmt_reporters::Masks::default(), "cell", "pkg", 1);
        let mut tracker = Tracker::new(cell, "pkg".to_owned(), 1, Arc::default());
        for (at, item) in items {
            tracker.take(item, seconds(at), &mut files, &mut Vec::new());
        }
        tracker
    }

    fn started(test: &str) -> Item {
        Item::Started { test: test.to_owned() }
    }

    fn finished(test: &str, result: Verdict) -> Item {
        Item::Finished { test: test.to_owned(), result, elapsed: Duration::ZERO }
    }

    #[test]
    fn only_what_runs_by_itself_is_overdue() {
        let mut tracker = tracked(vec![
            (0, started("Suite")),
            (0, started("Suite/first")),
            (8, finished("Suite/first", Verdict::Pass)),
            (8, started("Suite/second")),
            (9, started("Waits")),
            (9, Item::Paused { test: "Waits".to_owned() }),
        ]);
        assert_eq!(tracker.overdue(seconds(17), seconds(10)), []);
        assert_eq!(tracker.overdue(seconds(18), seconds(10)), [("Suite/second".to_owned(), seconds(10))]);
        assert_eq!(tracker.at_work(), Some("Suite/second"));
        let slow = |tracker: &mut Tracker, at| tracker.slow(seconds(at), seconds(4)).len();
        assert_eq!([10, 12, 13, 15, 16].map(|at| slow(&mut tracker, at)), [0, 1, 0, 0, 1]);
    }

    #[test]
    fn what_only_began_may_not_be_the_last_that_did() {
        let output = |text: &[u8]| Item::Output { test: Some("A".to_owned()), bytes: text.to_vec() };
        let silent = tracked(vec![(3, started("A"))]);
        assert!(silent.only_began(seconds(4), seconds(2)));
        assert!(!silent.only_began(seconds(5), seconds(2)));
        let spoke = tracked(vec![(3, started("A")), (3, output(b"about to"))]);
        assert!(!spoke.only_began(seconds(4), seconds(2)));
        assert!(!tracked(vec![]).only_began(seconds(0), seconds(2)));
    }

    #[test]
    fn tallies_are_of_top_level_tests_and_know_races() {
        let race = b"==================\nWARNING: DATA RACE\n".to_vec();
        let tracker = tracked(vec![
            (0, started("A")),
            (0, started("A/sub")),
            (0, Item::Output { test: Some("A/sub".to_owned()), bytes: race }),
            (1, finished("A/sub", Verdict::Fail)),
            (1, finished("A", Verdict::Fail)),
            (1, started("B")),
        ]);
        assert_eq!(tracker.tallies()["A"], Tally { ended: 1, failed: true, raced: true });
        assert_eq!(tracker.running().into_iter().collect::<Vec<_>>(), ["B"]);
    }

    #[test]
    fn long_output_keeps_both_ends_and_says_what_is_missing() {
        let mut kept = Kept::default();
        for number in 0..100 {
            kept.push(format!("{}{number:02}", "x".repeat(65534)).as_bytes());
        }
        let bytes = kept.bytes();
        assert!(bytes.len() <= HEAD + TAIL + 200);
        assert!(bytes.ends_with(b"99"));
        assert!(String::from_utf8_lossy(&bytes).contains("bytes left out here"));
    }
}
