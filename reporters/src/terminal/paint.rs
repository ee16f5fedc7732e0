//! Colour, and the columns that every line shares: verb, duration, cell, text.

use owo_colors::{OwoColorize, Style as Color};

use super::Style;
use crate::event::TestResult;
use crate::model::TestReport;
use crate::text::seconds;

/// What a piece of text is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It deserves a look.
    Odd,
    /// A cell id.
    Cell,
    /// A package path.
    Package,
    /// A test name.
    Test,
    /// Less important than the rest.
    Dim,
    /// More important than the rest.
    Strong,
}

/// The word a line begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verb {
    pub(super) word: &'static str,
    pub(super) role: Role,
}

impl Verb {
    pub(super) fn good(word: &'static str) -> Verb {
        Verb { word, role: Role::Good }
    }

    pub(super) fn bad(word: &'static str) -> Verb {
        Verb { word, role: Role::Bad }
    }

    pub(super) fn odd(word: &'static str) -> Verb {
        Verb { word, role: Role::Odd }
    }

    pub(super) fn plain(word: &'static str) -> Verb {
        Verb { word, role: Role::Strong }
    }

    /// The verb of a result.
    pub(super) fn of(result: TestResult) -> Verb {
        match result {
            TestResult::Pass => Verb::good("PASS"),
            TestResult::Fail => Verb::bad("FAIL"),
            TestResult::Skip => Verb::odd("SKIP"),
            TestResult::Flaky => Verb::odd("FLAKY"),
            TestResult::TimedOut => Verb::bad("TIMEOUT"),
            TestResult::Crashed => Verb::bad("CRASH"),
            TestResult::Lost => Verb::bad("LOST"),
            TestResult::Unfinished => Verb::bad("UNFINISHED"),
            TestResult::NotRun => Verb::bad("NOT-RUN"),
            TestResult::Missing => Verb::bad("MISSING"),
        }
    }

    /// The verb of a verdict.
    pub(super) fn told(test: &TestReport<'_>) -> Verb {
        if test.is_known_failure() { Verb::odd("KNOWN FLAKY") } else { Verb::of(test.result) }
    }
}

/// Colours text, or leaves it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    color: bool,
}

impl Paint {
    pub(super) fn new(style: Style) -> Paint {
        Paint { color: style.color }
    }

    /// The text in the colour of its role.
    pub(super) fn role(&self, role: Role, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let style = match role {
            Role::Good => Color::new().green().bold(),
            Role::Bad => Color::new().red().bold(),
            Role::Odd => Color::new().yellow().bold(),
            Role::Cell => Color::new().magenta(),
            Role::Package => Color::new().cyan(),
            Role::Test => Color::new().blue().bold(),
            Role::Dim => Color::new().dimmed(),
            Role::Strong => Color::new().bold(),
        };
        text.style(style).to_string()
    }

    /// `        PASS [   0.123s] <cell> <text>`; no cell, no column for it.
    pub(super) fn line(&self, verb: Verb, ms: impl Into<Option<u64>>, cell: &str, text: &str) -> String {
        let mut line = self.role(verb.role, &format!("{:>12}", verb.word));
        let time = ms.into().map_or(String::new(), seconds);
        line.push_str(&format!(" [{time:>9}] "));
        if !cell.is_empty() {
            line.push_str(&self.role(Role::Cell, cell));
            line.push(' ');
        }
        line.push_str(text);
        let mut line = line.trim_end().to_owned();
        line.push('\n');
        line
    }

    /// `     Summary <text>`.
    pub(super) fn note(&self, verb: Verb, text: &str) -> String {
        format!("{} {text}\n", self.role(verb.role, &format!("{:>12}", verb.word)))
    }
}
