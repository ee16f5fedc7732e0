//! Reading and writing `events.jsonl`.

use std::io::{BufRead, Write};

use super::Envelope;

/// A line that is no event, or a file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system failed.
    #[error("cannot read or write the event log")]
    Io(#[from] std::io::Error),
    /// A line is not an event of a known schema.
    #[error("line {line} of the event log is not an event")]
    Line {
        /// Line number, from 1.
        line: u64,
        /// What the parser said.
        source: serde_json::Error,
    },
}

/// Appends envelopes, one line each, flushed line by line so that a crash loses nothing.
#[derive(Debug)]
pub struct LogWriter<W: Write> {
    out: W,
}

impl<W: Write> LogWriter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> LogWriter<W> {
        LogWriter { out }
    }

    /// Appends one line.
    pub fn append(&mut self, envelope: &Envelope) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(envelope)
            .map_err(|source| LogError::Line { line: envelope.seq + 1, source })?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        Ok(self.out.flush()?)
    }
}

/// Reads envelopes. A last line without a newline (a writer that was killed) is left out.
#[derive(Debug)]
pub struct LogReader<R: BufRead> {
    input: R,
    line: u64,
}

impl<R: BufRead> LogReader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> LogReader<R> {
        LogReader { input, line: 0 }
    }
}

impl<R: BufRead> Iterator for LogReader<R> {
    type Item = Result<Envelope, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = Vec::new();
        match self.input.read_until(b'\n', &mut text) {
            Ok(0) => None,
            Ok(_) if text.last() != Some(&b'\n') => None,
            Ok(_) => {
                self.line += 1;
                let line = self.line;
                Some(serde_json::from_slice(&text).map_err(|source| LogError::Line { line, source }))
            }
            Err(error) => Some(Err(error.into())),
        }
    }
}
