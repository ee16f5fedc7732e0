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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, SCHEMA};
    use crate::model::script::runs;

    fn written(script: &crate::model::script::Script) -> Vec<u8> {
        let mut text = Vec::new();
        let mut writer = LogWriter::new(&mut text);
        script.log.iter().for_each(|envelope| writer.append(envelope).unwrap());
        text
    }

    #[test]
    fn what_was_written_is_read_again() {
        for (name, script) in runs::all() {
            let read: Vec<_> = LogReader::new(written(&script).as_slice()).collect::<Result<_, _>>().unwrap();
            assert_eq!(read, script.log, "{name}");
        }
    }

    #[test]
    fn a_last_line_that_was_cut_is_left_out() {
        let script = runs::failing();
        let text = written(&script);
        let line = text.iter().rposition(|byte| *byte == b'{').unwrap();
        for cut in [1, 20, text.len() - line - 1] {
            let read: Vec<_> = LogReader::new(&text[..text.len() - cut]).collect::<Result<_, _>>().unwrap();
            assert_eq!(read.len(), script.log.len() - 1, "{cut}");
        }
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let mut text = written(&runs::green());
        text.extend(b"{\"event\":\"test-started\"}\n");
        let errors: Vec<_> = LogReader::new(text.as_slice()).filter_map(Result::err).collect();
        let line = runs::green().log.len() + 1;
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string(), format!("line {line} of the event log is not an event"));
    }

    #[test]
    fn kinds_and_fields_of_later_versions_are_read() {
        let text = concat!(
            r#"{"schema":1,"seq":7,"time":"2026-11-22T17:05:01Z","elapsed_ms":9,"event":"tea-made","cups":2,"of":{"kind":["x"]}}"#,
            "\n",
            r#"{"schema":1,"seq":8,"time":"2026-11-22T17:05:01Z","elapsed_ms":9,"event":"run-finished","why":"completed","new":1}"#,
            "\n",
        );
        let read: Vec<_> = LogReader::new(text.as_bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!((read[0].schema, read[0].seq, &read[0].event), (SCHEMA, 7, &Event::Unknown));
        assert!(matches!(read[1].event, Event::RunFinished { .. }));
    }

    #[test]
    fn ten_thousand_events_are_no_effort() {
        let file = tempfile::tempfile().unwrap();
        let mut writer = LogWriter::new(file);
        let script = runs::failing();
        let begun = std::time::Instant::now();
        let mut count = 0;
        while count < 10_000 {
            script.log.iter().for_each(|envelope| writer.append(envelope).unwrap());
            count += script.log.len();
        }
        // Unoptimized it takes about 0.3 s; the bound only catches a flush that became a sync.
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
