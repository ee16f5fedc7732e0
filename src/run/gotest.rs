//! Reads the output of a Go test binary as it comes: which tests started, what they said, how they ended.
//!
//! Pure: bytes in, [`Item`]s out, and the items are the same however the bytes are cut into chunks.
//! Binaries of Go 1.20 and later, run with `-test.v=test2json`, mark their framing lines with `^V`;
//! older ones know only `-test.v`, where framing can only be told from a test's own words by what is
//! possible at that moment. Both are read as Go's own `test2json` reads them, with one addition: a frame
//! that cannot be true (a result of a test that is not running, a second top-level test beside a
//! sequential one) is output, and reported once as [`Item::Malformed`].

mod cutter;
mod frame;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use cutter::{Cutter, Piece, Unmarker};
use frame::Frame;

/// Which language a test binary speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Framing {
    /// Go 1.20 and later: run with `-test.v=test2json`.
    Test2json,
    /// Earlier: run with `-test.v`.
    Plain,
}

impl Framing {
    /// The argument that makes a binary speak it.
    pub fn argument(self) -> &'static str {
        match self {
            Framing::Test2json => "-test.v=test2json",
            Framing::Plain => "-test.v",
        }
    }
}

/// How a test ended by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// `--- PASS`.
    Pass,
    /// `--- FAIL`.
    Fail,
    /// `--- SKIP`.
    Skip,
}

/// One thing that a binary's output says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A test began.
    Started {
        /// Full name, subtests with `/`.
        test: String,
    },
    /// A test was announced by number, and never began.
    Announced {
        /// Its name.
        test: String,
    },
    /// A test waits for its turn to run beside others.
    Paused {
        /// Full name.
        test: String,
    },
    /// A test that waited goes on; also said of tests that did not wait.
    Resumed {
        /// Full name.
        test: String,
    },
    /// Bytes of output: a line with its newline, or a piece of a very long one.
    Output {
        /// The test they are attributed to.
        test: Option<String>,
        /// The bytes, without framing marks.
        bytes: Vec<u8>,
    },
    /// A test ended. Children come before their parents.
    Finished {
        /// Full name.
        test: String,
        /// Its result.
        result: Verdict,
        /// What the binary measured.
        elapsed: Duration,
    },
    /// A line that looks like a frame and cannot be one. It is output too.
    Malformed {
        /// The line and why.
        message: String,
    },
    /// The Go runtime gave up: a panic, a fatal error or a signal with its goroutines.
    Panicked {
        /// The test whose output it stands in.
        test: Option<String>,
        /// Its first line.
        message: String,
    },
    /// The binary's last word was `PASS`. Comes from [`Parser::finish`] only.
    PackageOk,
    /// The binary's last word was `FAIL`. Comes from [`Parser::finish`] only.
    PackageFail,
}

/// After so many, malformed lines are only counted.
const MALFORMED_SHOWN: u32 = 50;
/// Bytes of a line that a message quotes.
const QUOTED: usize = 300;

#[derive(Debug)]
struct Report {
    test: String,
    result: Verdict,
    elapsed: Duration,
}

/// The first line of a panic, perhaps: goroutines must follow, or nothing at all.
#[derive(Debug)]
struct LastWords {
    test: Option<String>,
    message: String,
    certain: bool,
}

/// The parser of one binary's output.
#[derive(Debug)]
pub struct Parser {
    framing: Framing,
    cutter: Cutter,
    unmarker: Unmarker,
    /// Whose output comes now.
    current: Option<String>,
    /// Tests that started and did not end, with their order.
    running: HashMap<String, u64>,
    started: u64,
    /// The top-level test that runs alone.
    sequential: Option<String>,
    /// Reports whose output may still follow, outermost first.
    pending: Vec<Report>,
    /// Second starts of running tests (a child process of the binary's own kind): their ends are not ours.
    ghosts: HashMap<String, u32>,
    /// Ends that were taken for a ghost's.
    withheld: HashMap<String, (Verdict, Duration)>,
    end: Option<bool>,
    panic: Option<LastWords>,
    panicked: bool,
    malformed: u32,
}

impl Parser {
    /// A parser for a binary that speaks `framing`.
    pub fn new(framing: Framing) -> Parser {
        Parser {
            framing,
            cutter: Cutter::new(framing),
            unmarker: Unmarker::default(),
            current: None,
            running: HashMap::new(),
            started: 0,
            sequential: None,
            pending: Vec::new(),
            ghosts: HashMap::new(),
            withheld: HashMap::new(),
            end: None,
            panic: None,
            panicked: false,
            malformed: 0,
        }
    }

    /// Takes the next bytes and appends what they say.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Item>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (used, piece) = self.cutter.take(rest);
            rest = &rest[used..];
            if let Some(piece) = piece {
                self.piece(&piece, out);
            }
        }
    }

    /// There are no more bytes. What never ended is then in [`Parser::running`].
    pub fn finish(&mut self, out: &mut Vec<Item>) {
        if let Some(piece) = self.cutter.rest() {
            self.last(&piece, out);
        }
        if let Some(bytes) = self.unmarker.rest() {
            out.push(Item::Output { test: self.current.clone(), bytes });
        }
        self.flush(0, out);
        let mut withheld: Vec<_> = self.withheld.drain().collect();
        withheld.sort_by(|a, b| a.0.cmp(&b.0));
        for (test, (result, elapsed)) in withheld {
            if self.running.remove(&test).is_some() {
                out.push(Item::Finished { test, result, elapsed });
            }
        }
        if let Some(LastWords { test, message, certain: true }) = self.panic.take()
            && self.end.is_none()
            && !self.panicked
        {
            out.push(Item::Panicked { test, message });
        }
        if self.malformed > MALFORMED_SHOWN {
            let more = self.malformed - MALFORMED_SHOWN;
            out.push(Item::Malformed { message: format!("and {more} more lines of that kind") });
        }
        match self.end.take() {
            Some(true) => out.push(Item::PackageOk),
            Some(false) => out.push(Item::PackageFail),
            None => {}
        }
    }

    /// Tests that started and did not end, in the order they started.
    pub fn running(&self) -> Vec<&str> {
        let mut running: Vec<_> = self.running.iter().map(|(name, order)| (*order, name.as_str())).collect();
        running.sort_unstable();
        running.into_iter().map(|(_, name)| name).collect()
    }

    fn piece(&mut self, piece: &Piece, out: &mut Vec<Item>) {
        let line = piece.line();
        match self.framing {
            Framing::Test2json if piece.marked() => {
                let frame = if piece.ends { frame::whole(&line[1..]) } else { None };
                let accepted = frame.is_some_and(|frame| self.apply(&frame, &line[1..], out));
                if !accepted {
                    self.output(&piece.bytes[1..], piece.starts, out);
                }
            }
            Framing::Plain if piece.ends => self.plain(piece, out),
            _ => self.output(&piece.bytes, piece.starts, out),
        }
    }

    fn plain(&mut self, piece: &Piece, out: &mut Vec<Item>) {
        let line = piece.line();
        if piece.starts
            && let Some(frame) = frame::whole(line)
        {
            if !self.apply(&frame, line, out) {
                self.output(&piece.bytes, true, out);
            }
            return;
        }
        if let Some((at, frame)) = frame::tail(line)
            && self.possible(&frame).is_ok()
        {
            self.output(&line[..at], piece.starts, out);
            if self.apply(&frame, &line[at..], out) {
                return;
            }
            return self.output(&piece.bytes[at..], false, out);
        }
        self.output(&piece.bytes, piece.starts, out);
    }

    /// The last line, without a newline: it may be cut, so only a report that is visibly whole counts.
    fn last(&mut self, piece: &Piece, out: &mut Vec<Item>) {
        let skip = usize::from(self.framing == Framing::Test2json && piece.marked());
        let framed = self.framing == Framing::Plain || skip == 1;
        let line = &piece.bytes[skip..];
        if framed
            && piece.starts
            && let Some(frame @ Frame::Report { .. }) = frame::whole(line)
            && self.possible(&frame).is_ok()
            && self.apply(&frame, line, out)
        {
            return;
        }
        self.output(line, piece.starts, out);
    }

    /// Whether a frame can be true now; if not, why.
    fn possible(&self, frame: &Frame) -> Result<(), &'static str> {
        let is_running = |name: &str| self.running.contains_key(name) || frame::is_benchmark(name);
        match frame {
            Frame::Run(name) if frame::is_benchmark(name) => Ok(()),
            Frame::Run(name) if self.running.contains_key(*name) => Err("that test is already running"),
            Frame::Run(name) => match name.contains('/') {
                true if !self.has_running_parent(name) => Err("no parent of that test is running"),
                false if self.sequential.is_some() => Err("another top-level test is running"),
                _ => Ok(()),
            },
            Frame::Pause(name) | Frame::Cont(name) | Frame::Note(name) => {
                if is_running(name) {
                    Ok(())
                } else {
                    Err("that test is not running")
                }
            }
            Frame::Name(name) if name.is_empty() || is_running(name) => Ok(()),
            Frame::Name(_) => Err("that test is not running"),
            Frame::Report { indent, .. } if *indent > self.pending.len() => Err("it is nested too deep"),
            Frame::Report { name, .. } if !self.running.contains_key(*name) => {
                Err("that test is not running")
            }
            Frame::Report { .. } | Frame::End(_) => Ok(()),
            Frame::Broken(why) => Err(why),
        }
    }

    fn has_running_parent(&self, name: &str) -> bool {
        name.match_indices('/').any(|(at, _)| self.running.contains_key(&name[..at]))
    }

    /// Acts on a frame; false where it cannot be one, so that its line is output.
    fn apply(&mut self, frame: &Frame, line: &[u8], out: &mut Vec<Item>) -> bool {
        if let Err(why) = self.possible(frame) {
            if let Frame::Run(name) = frame
                && self.running.contains_key(*name)
            {
                *self.ghosts.entry((*name).to_owned()).or_default() += 1;
            }
            self.malformed(line, why, out);
            return false;
        }
        match frame {
            Frame::End(passed) => {
                self.end = Some(*passed);
                // While a test runs these are its own words, unless nothing follows.
                if !self.running.is_empty() {
                    return false;
                }
                self.flush(0, out);
                return true;
            }
            Frame::Run(name) => self.start(name, out),
            Frame::Pause(name) => {
                self.turn_to(name, out);
                if self.sequential.as_deref() == Some(*name) {
                    self.sequential = None;
                }
                if self.running.contains_key(*name) {
                    out.push(Item::Paused { test: (*name).to_owned() });
                }
            }
            Frame::Cont(name) => {
                self.turn_to(name, out);
                if self.running.contains_key(*name) {
                    out.push(Item::Resumed { test: (*name).to_owned() });
                }
            }
            Frame::Name(name) => self.turn_to(name, out),
            Frame::Note(name) => {
                self.turn_to(name, out);
                return false;
            }
            Frame::Report { indent, result, name, elapsed } => {
                return self.report(*indent, name, *result, *elapsed, out);
            }
            Frame::Broken(_) => return false,
        }
        self.end = None;
        true
    }

    fn start(&mut self, name: &str, out: &mut Vec<Item>) {
        self.turn_to(name, out);
        if frame::is_benchmark(name) {
            return;
        }
        self.started += 1;
        self.running.insert(name.to_owned(), self.started);
        if !name.contains('/') {
            self.sequential = Some(name.to_owned());
        }
        out.push(Item::Started { test: name.to_owned() });
    }

    fn report(
        &mut self,
        indent: usize,
        name: &str,
        result: Verdict,
        elapsed: Duration,
        out: &mut Vec<Item>,
    ) -> bool {
        if let Some(count) = self.ghosts.get_mut(name).filter(|count| **count > 0) {
            *count -= 1;
            self.withheld.insert(name.to_owned(), (result, elapsed));
            return false;
        }
        self.flush(indent, out);
        self.withheld.remove(name);
        self.running.remove(name);
        if self.sequential.as_deref() == Some(name) {
            self.sequential = None;
        }
        self.current = Some(name.to_owned());
        self.pending.push(Report { test: name.to_owned(), result, elapsed });
        self.end = None;
        true
    }

    fn turn_to(&mut self, name: &str, out: &mut Vec<Item>) {
        self.flush(0, out);
        self.current = if name.is_empty() { None } else { Some(name.to_owned()) };
    }

    /// Lets go of pending reports at `depth` and deeper, innermost first.
    fn flush(&mut self, depth: usize, out: &mut Vec<Item>) {
        self.current = None;
        while self.pending.len() > depth {
            if let Some(Report { test, result, elapsed }) = self.pending.pop() {
                out.push(Item::Finished { test, result, elapsed });
            }
        }
    }

    fn output(&mut self, bytes: &[u8], starts: bool, out: &mut Vec<Item>) {
        if starts && !self.pending.is_empty() {
            let depth = frame::indent(bytes).min(self.pending.len() + 1);
            if let Some(report) = depth.checked_sub(1).and_then(|depth| self.pending.get(depth)) {
                self.current = Some(report.test.clone());
            }
        }
        self.watch_for_panic(bytes, starts, out);
        let bytes = match self.framing {
            Framing::Test2json => self.unmarker.strip(bytes),
            Framing::Plain => bytes.to_vec(),
        };
        if !bytes.is_empty() {
            out.push(Item::Output { test: self.current.clone(), bytes });
        }
    }

    fn watch_for_panic(&mut self, bytes: &[u8], starts: bool, out: &mut Vec<Item>) {
        if self.panicked {
            return;
        }
        if starts && bytes.starts_with(b"goroutine ") && bytes.ends_with(b"]:\n") {
            if let Some(LastWords { test, message, .. }) = self.panic.take() {
                self.panicked = true;
                out.push(Item::Panicked { test, message });
            }
        } else if let Some((message, certain)) = frame::last_words(bytes, starts)
            && (certain || self.panic.is_none())
        {
            self.panic = Some(LastWords { test: self.current.clone(), message: quote(message), certain });
        }
    }

    fn malformed(&mut self, line: &[u8], why: &str, out: &mut Vec<Item>) {
        self.malformed += 1;
        if self.malformed <= MALFORMED_SHOWN {
            let message = format!("`{}` looks like test framing, but {why}", quote(line));
            out.push(Item::Malformed { message });
        }
    }
}

fn quote(line: &[u8]) -> String {
    let shown = &line[..line.len().min(QUOTED)];
    let text: String = String::from_utf8_lossy(shown.trim_ascii())
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if shown.len() < line.len() { format!("{text}…") } else { text }
}
