//! What a kernel complains of: oopses, BUGs, WARNINGs, lockups, stalls, sanitizers, the OOM killer, panics.
//!
//! A [`Scanner`] takes lines and gives a [`Splat`] where one ends: its kind, a title without addresses, processors and
//! process ids, the function that is to blame, and a signature that is one for one bug. Owns no console and no policy:
//! what may be tolerated is for others. To add a kind: a variant of [`Kind`] and its words in `kinds.rs`.

mod kinds;
mod stack;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::normal::normalise;
use super::prefix;

pub use kinds::Kind;
pub(crate) use kinds::starts;

/// Lines that belong to one splat at most.
const MOST: usize = 160;
/// Lines that are kept.
const KEPT: usize = 60;
/// Longest text that is kept of a line, bytes.
const CUT: usize = 400;
/// Lines without a frame after which a splat whose stack was seen is over.
const QUIET: usize = 12;
/// The same where no stack was seen yet.
const STACKLESS: usize = 40;
/// Lines that are kept behind the last one that surely belongs to it.
const BEHIND: usize = 3;

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Splat {
    /// What kind.
    pub kind: Kind,
    /// What the kernel said, numbers taken out, the function put in.
    pub title: String,
    /// The first function on the stack that is not the machinery of reporting, locking or scheduling.
    pub function: Option<String>,
    /// Equal for one bug whatever the machine, processor or process.
    pub signature: String,
    /// Its lines, the first ones, without what printk puts before them.
    pub lines: Vec<String>,
}

/// Finds splats in the lines of one console or kernel log.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    open: Option<Open>,
    began: bool,
}

/// A splat that goes on.
#[derive(Debug, Clone)]
struct Open {
    kind: Kind,
    lines: Vec<String>,
    count: usize,
    /// Lines since the last that belongs to a stack.
    quiet: usize,
    stack: stack::Stack,
}

impl Scanner {
    /// Takes a clean line; gives the splat that ended with it, or just before it.
    pub fn push(&mut self, line: &[u8]) -> Option<Splat> {
        let begins = kinds::kind(line).is_some();
        self.known(line, begins)
    }

    /// The splat that was going on when the log ended.
    pub fn finish(&mut self) -> Option<Splat> {
        self.open.take().map(Open::close)
    }

    /// Whether a splat goes on.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the last line began a splat.
    pub(crate) fn began(&self) -> bool {
        self.began
    }

    /// As [`Scanner::push`], where somebody else looked for the words that begin one.
    pub(crate) fn known(&mut self, line: &[u8], begins: bool) -> Option<Splat> {
        self.began = false;
        let found = if begins { kinds::kind(line) } else { None };
        if let Some((kind, at)) = found
            && !self.open.as_ref().is_some_and(|open| open.kind.goes_on_as(kind))
        {
            let ended = self.finish();
            self.open = Some(Open::new(kind));
            self.began = true;
            if let Some(open) = &mut self.open {
                open.take(&line[at..]);
            }
            return ended;
        }
        let open = self.open.as_mut()?;
        if open.take(message(line)) { self.finish() } else { None }
    }
}

impl Open {
    fn new(kind: Kind) -> Open {
        Open { kind, lines: Vec::new(), count: 0, quiet: 0, stack: stack::Stack::default() }
    }

    /// Takes a message; true where it is the last of the splat.
    fn take(&mut self, message: &[u8]) -> bool {
        if self.kind.is_one_line() && self.count > 0 {
            return true;
        }
        self.count += 1;
        let text = String::from_utf8_lossy(&message[..message.len().min(CUT)]);
        if self.stack.take(&text) {
            self.quiet = 0;
        } else {
            self.quiet += 1;
        }
        let ends = text.contains("---[ end ") && !(self.kind == Kind::Panic && text.contains("end trace"))
            || self.count >= MOST
            || self.quiet > if self.stack.is_found() { QUIET } else { STACKLESS };
        if self.lines.len() < KEPT {
            self.lines.push(text.trim_end().to_owned());
        }
        ends
    }

    fn close(mut self) -> Splat {
        if self.quiet > BEHIND {
            // What came meanwhile is another's.
            self.lines.truncate((self.count + BEHIND).saturating_sub(self.quiet).max(1));
        }
        let first = self.lines.first().map(String::as_str).unwrap_or_default();
        let function = self.kind.function(first).or_else(|| self.stack.function().map(str::to_owned));
        let title = self.kind.title(first, function.as_deref());
        let signature = format!("{}:{title}", self.kind.as_str());
        Splat { kind: self.kind, title, function, signature, lines: self.lines }
    }
}

/// A line without what stands before its message.
fn message(line: &[u8]) -> &[u8] {
    prefix::strip(line).text
}

/// A title without what differs from boot to boot.
fn plain(text: &str) -> String {
    normalise(text.trim_end_matches(|c: char| c.is_whitespace() || c == '.' || c == ':'))
}
