//! What test binaries say their results in, each read into the same [`Item`]s.
//!
//! Owns the choice of a reader, and how a binary of each kind is called; Go's own language is `gotest`'s. Pure: bytes
//! in, items out, the same however they are cut. To add a format: a name in `settings/component.rs`, a [`Lines`]
//! beside [`tap`], its words here.

pub mod gtest;
pub mod libtest;
pub mod tap;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::gotest::{Framing, Item, Parser};
use crate::settings::component::Format;

/// Exit status by which a kselftest says that it did not run.
const KSFT_SKIP: i32 = 4;

/// The language of one test binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Speech {
    /// Go's `testing`.
    Go(Framing),
    /// GoogleTest.
    Gtest,
    /// Rust's `libtest`.
    Libtest,
    /// TAP and kselftest.
    Tap,
}

impl Speech {
    /// The language of a component's format; `framing` is what its binary would speak if it were Go's.
    pub fn of(format: Format, framing: Framing) -> Speech {
        match format {
            Format::Gotest => Speech::Go(framing),
            Format::Gtest => Speech::Gtest,
            Format::Libtest => Speech::Libtest,
            Format::Tap => Speech::Tap,
        }
    }

    /// Whether the binary can be asked for its tests, and told which to run.
    pub fn is_go(self) -> bool {
        matches!(self, Speech::Go(_))
    }

    /// Arguments of a binary that is not Go's, so that it runs these tests only, so many times. TAP has no words for it:
    /// such a binary runs whole.
    pub fn chosen(self, tests: Option<&BTreeSet<String>>, count: u32) -> Vec<String> {
        let mut args = Vec::new();
        match (self, tests) {
            (Speech::Gtest, Some(tests)) => {
                let wanted: Vec<String> = tests.iter().map(|test| format!("{test}:{test}/*")).collect();
                args.push(format!("--gtest_filter={}", wanted.join(":")));
            }
            (Speech::Libtest, Some(tests)) => {
                args.push("--exact".to_owned());
                args.extend(tests.iter().cloned());
            }
            _ => {}
        }
        if self == Speech::Gtest && count != 1 {
            args.push(format!("--gtest_repeat={count}"));
        }
        args
    }

    /// Reads what such a binary says.
    pub fn reader(self) -> Reader {
        Reader(match self {
            Speech::Go(framing) => Kind::Go(Box::new(Parser::new(framing))),
            Speech::Gtest => Kind::Lines(Vec::new(), Box::new(gtest::Gtest::default())),
            Speech::Libtest => Kind::Lines(Vec::new(), Box::new(libtest::Libtest::default())),
            Speech::Tap => Kind::Lines(Vec::new(), Box::new(tap::Tap::default())),
        })
    }
}

/// Reads a format line by line.
pub trait Lines: std::fmt::Debug + Send {
    /// Takes a line with its newline; the last one may have none.
    fn line(&mut self, line: &str, out: &mut Vec<Item>);

    /// Looks at the beginning of a line that is not complete, each time more of it has come. What is said of it must
    /// not depend on how often it is looked at.
    fn beginning(&mut self, _part: &str, _out: &mut Vec<Item>) {}

    /// There are no more lines.
    fn finish(&mut self, out: &mut Vec<Item>);

    /// What an exit status means: a format may have others than 0 for an end without failure.
    fn status(&self, status: i32) -> i32 {
        status
    }
}

/// A line that is longer is taken in pieces.
const LONGEST_LINE: usize = 1 << 20;

#[derive(Debug)]
enum Kind {
    Go(Box<Parser>),
    Lines(Vec<u8>, Box<dyn Lines>),
}

/// The reader of one binary's output.
#[derive(Debug)]
pub struct Reader(Kind);

impl Reader {
    /// Takes the next bytes and appends what they say.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Item>) {
        match &mut self.0 {
            Kind::Go(parser) => parser.feed(bytes, out),
            Kind::Lines(held, lines) => {
                for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                    held.extend_from_slice(piece);
                    if piece.ends_with(b"\n") || held.len() >= LONGEST_LINE {
                        lines.line(&String::from_utf8_lossy(&std::mem::take(held)), out);
                    } else {
                        lines.beginning(&String::from_utf8_lossy(held), out);
                    }
                }
            }
        }
    }

    /// There are no more bytes.
    pub fn finish(&mut self, out: &mut Vec<Item>) {
        match &mut self.0 {
            Kind::Go(parser) => parser.finish(out),
            Kind::Lines(held, lines) => {
                if !held.is_empty() {
                    lines.line(&String::from_utf8_lossy(&std::mem::take(held)), out);
                }
                lines.finish(out);
            }
        }
    }

    /// What an exit status of the binary means, once all it said was read.
    pub fn status(&self, status: i32) -> i32 {
        match &self.0 {
            Kind::Go(_) => status,
            Kind::Lines(_, lines) => lines.status(status),
        }
    }
}

fn output(test: Option<&str>, line: &str) -> Item {
    Item::Output { test: test.map(str::to_owned), bytes: line.as_bytes().to_vec() }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// What a text says, one short line an item; the same however the text is cut.
    pub(crate) fn read(speech: Speech, text: &str) -> Vec<String> {
        let cut = |size: usize| {
            let (mut reader, mut items) = (speech.reader(), Vec::new());
            text.as_bytes().chunks(size).for_each(|chunk| reader.feed(chunk, &mut items));
            reader.finish(&mut items);
            items.iter().map(short).collect::<Vec<_>>()
        };
        let whole = cut(text.len().max(1));
        for size in [1, 2, 3, 7, 50] {
            assert_eq!(cut(size), whole, "in pieces of {size}");
        }
        whole
    }

    fn short(item: &Item) -> String {
        match item {
            Item::Started { test } => format!("run {test}"),
            Item::Announced { test } => format!("announced {test}"),
            Item::Output { test, bytes } => {
                let text = String::from_utf8_lossy(bytes);
                format!("  {}: {}", test.as_deref().unwrap_or("-"), text.trim_end())
            }
            Item::Finished { test, result, elapsed } => format!("{result:?} {test} {}", elapsed.as_millis()),
            Item::Malformed { message } => format!("malformed {message}"),
            other => format!("{other:?}"),
        }
    }

    /// Only the starts and ends.
    pub(crate) fn results(speech: Speech, text: &str) -> Vec<String> {
        read(speech, text).into_iter().filter(|line| !line.starts_with("  ")).collect()
    }
}
