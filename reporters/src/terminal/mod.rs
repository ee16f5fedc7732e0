//! The terminal: what a person sees while a run goes on, and what is left on the screen afterwards.
//!
//! Owns the words and the look of it: a line an event (`lines`, `setup`), progress of long work (`progress`, or the live
//! [`LiveBoard`]), and the closing (`closing`, with the picture of `matrix`). Owns no verdict and no count, and never opens
//! a stream: it writes to what it is given, in the [`Style`] it is told. Every text from outside is escaped.
//!
//! To show a new kind of event: add an arm in `lines` or `setup`, and one in `board` if it is long work.

mod board;
mod closing;
mod diff;
mod lines;
mod matrix;
mod now;
mod paint;
mod progress;
mod setup;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use crate::event::{Envelope, Event};
use crate::mask::Masks;
use crate::model::Run;
use crate::output::{NoOutput, OutputSource};

pub use board::LiveBoard;
pub use diff::difference;
pub use now::{Ask, Tail};
use paint::Paint;
use progress::Throttle;

/// What the stream at the other end can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether to colour.
    pub color: bool,
    /// Columns.
    pub width: usize,
    /// Whether it has more than ASCII.
    pub unicode: bool,
}

impl Default for Style {
    fn default() -> Style {
        Style { color: false, width: 100, unicode: true }
    }
}

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// What went wrong, and the closing.
    Quiet,
    /// Also top-level tests that passed, boots, builds and shipping.
    #[default]
    Normal,
    /// Also subtests, phases and the start of packages.
    Verbose,
}

/// Tells a run on a stream.
pub struct Terminal {
    out: Box<dyn Write + Send>,
    paint: Paint,
    style: Style,
    verbosity: Verbosity,
    source: Box<dyn OutputSource + Send>,
    masks: Masks,
    board: Option<LiveBoard>,
    throttle: Throttle,
    cell_width: usize,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("style", &self.style).field("verbosity", &self.verbosity).finish()
    }
}

impl Terminal {
    /// Writes to `out`, without output of tests, masks, or a board.
    pub fn new(out: Box<dyn Write + Send>, style: Style, verbosity: Verbosity) -> Terminal {
        Terminal {
            out,
            paint: Paint::new(style),
            style,
            verbosity,
            source: Box::new(NoOutput),
            masks: Masks::default(),
            board: None,
            throttle: Throttle::default(),
            cell_width: 0,
        }
    }

    /// Takes the output of failed tests from here.
    #[must_use]
    pub fn with_output(mut self, source: Box<dyn OutputSource + Send>) -> Terminal {
        self.source = source;
        self
    }

    /// Masks these values.
    #[must_use]
    pub fn with_masks(mut self, masks: Masks) -> Terminal {
        self.masks = masks;
        self
    }

    /// Shows machines and long work live below the lines.
    #[must_use]
    pub fn with_board(mut self, board: LiveBoard) -> Terminal {
        self.board = Some(board);
        self
    }

    /// Shows one event; `run` has already folded it.
    pub fn event(&mut self, envelope: &Envelope, run: &Run) -> io::Result<()> {
        if let Event::CellSelected { cell, .. } = &envelope.event {
            self.cell_width = self.cell_width.max(cell.to_string().len()).min(48);
        }
        let view =
            lines::View { run, paint: &self.paint, verbosity: self.verbosity, cell_width: self.cell_width };
        let mut text = view.event(envelope);
        match &mut self.board {
            Some(board) => board.event(&envelope.event, &self.masks),
            None => {
                if let Some(said) = self.throttle.event(envelope) {
                    text.push_str(&self.paint.line(
                        paint::Verb::plain("Progress"),
                        said.elapsed_ms,
                        "",
                        &said.text,
                    ));
                }
            }
        }
        self.print(&text)
    }

    /// Tells what goes on, `elapsed_ms` after the beginning.
    pub fn now(&mut self, run: &Run, elapsed_ms: u64, ask: Ask, tail: Tail<'_>) -> io::Result<()> {
        let text = now::Now { run, paint: &self.paint, elapsed_ms, tail }.text(ask);
        self.say(&text)
    }

    /// Prints a text of ours, above the board where there is one.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        self.print(text)?;
        self.out.flush()
    }

    /// Tells what it came to: failures with their output, cells that never ran, the matrix, the summary, and the hints,
    /// of which the last is the command to type next.
    pub fn finish(&mut self, run: &Run, hints: &[String]) -> io::Result<()> {
        if let Some(board) = &mut self.board {
            board.clear();
        }
        let report = run.report();
        let closing = closing::Closing {
            report: &report,
            paint: &self.paint,
            style: self.style,
            source: &*self.source,
            masks: &self.masks,
            cell_width: self.cell_width,
        };
        let text = closing.text(hints);
        self.print(&text)?;
        self.out.flush()
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let text = self.masks.mask(text);
        match &self.board {
            Some(board) => {
                board.above(|| self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()))
            }
            None => self.out.write_all(text.as_bytes()),
        }
    }
}
