//! From the items of a parser to facts of the record: who runs, what each one said, how each one ended.
//!
//! Synchronous; the clock is given. Output of a test is kept until the test ends, head and tail, and then
//! written in one piece; the whole stream goes to the raw file as it comes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kmt_reporters::event::{CellId, Event, TestResult};

use super::gotest::{Item, Verdict};
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
    kept: Kept,
}

/// Follows one package in one cell.
#[derive(Debug)]
pub struct Tracker {
    cell: CellId,
    package: String,
    attempt: u32,
    running: BTreeMap<String, Running>,
}

impl Tracker {
    /// Nothing runs yet.
    pub fn new(cell: CellId, package: String, attempt: u32) -> Tracker {
        Tracker { cell, package, attempt, running: BTreeMap::new() }
    }

    /// Takes one item at `now` (time since the package started); the facts go to `out`.
    pub fn take(&mut self, item: Item, now: Duration, files: &mut PackageFiles, out: &mut Vec<Event>) {
        match item {
            Item::Started { test } => {
                self.running.insert(test.clone(), Running { since: now, kept: Kept::default() });
                out.push(Event::TestStarted {
                    cell: self.cell.clone(),
                    package: self.package.clone(),
                    test,
                    attempt: self.attempt,
                });
            }
            Item::Output { test, bytes } => {
                if let Some(running) = test.and_then(|test| self.running.get_mut(&test)) {
                    running.kept.push(&bytes);
                }
            }
            Item::Finished { test, result, elapsed } => {
                let result = match result {
                    Verdict::Pass => TestResult::Pass,
                    Verdict::Fail => TestResult::Fail,
                    Verdict::Skip => TestResult::Skip,
                };
                self.finish(&test, result, elapsed, None, files, out);
            }
            Item::Malformed { message } => out.push(Event::TestOutputMalformed {
                cell: self.cell.clone(),
                package: self.package.clone(),
                message,
            }),
            Item::Panicked { .. } | Item::PackageOk | Item::PackageFail => {}
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

    /// Ends what still runs, children first, with `result` and why.
    pub fn close(
        &mut self,
        result: TestResult,
        message: &str,
        now: Duration,
        files: &mut PackageFiles,
        out: &mut Vec<Event>,
    ) {
        let left: Vec<(String, Duration)> =
            self.running.iter().rev().map(|(test, r)| (test.clone(), now.saturating_sub(r.since))).collect();
        for (test, elapsed) in left {
            self.finish(&test, result, elapsed, Some(message.to_owned()), files, out);
        }
    }

    /// Whether any test has started and not ended.
    pub fn any_running(&self) -> bool {
        !self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
