//! The words of a case: the human sentence first, then what the console said, then the output.

use crate::event::{OutputRef, TestResult};
use crate::mask::Masks;
use crate::model::{OutputScope, result_name};
use crate::output::{OutputSource, head_and_tail};
use crate::text::xml_text;

/// Bytes of output a case may hold.
const CASE_CAP: u64 = 64 * 1024;

/// Bytes of output an earlier attempt may hold.
const ATTEMPT_CAP: u64 = 8 * 1024;

/// Takes output until the file would be too large.
pub(super) struct Bodies<'s> {
    pub(super) source: &'s dyn OutputSource,
    pub(super) masks: &'s Masks,
    pub(super) budget: usize,
}

impl Bodies<'_> {
    /// Text without secrets and without characters that XML does not have.
    pub(super) fn text(&self, text: &str) -> String {
        xml_text(&self.masks.mask(text))
    }

    /// One line for an attribute.
    pub(super) fn line(&self, text: &str) -> String {
        self.text(text.lines().next().unwrap_or_default())
    }

    /// Sentence, evidence and output of a case.
    pub(super) fn case(
        &mut self,
        sentence: &str,
        evidence: &[String],
        output: Option<(&OutputRef, OutputScope)>,
    ) -> String {
        let mut body = self.text(sentence);
        if !evidence.is_empty() {
            body.push_str("\n\nconsole:\n");
            for line in evidence {
                body.push_str("  ");
                body.push_str(&self.text(line));
                body.push('\n');
            }
        }
        if let Some((output, scope)) = output {
            body.push_str(match scope {
                OutputScope::Test => "\n\noutput:\n",
                OutputScope::Package => "\n\noutput of the whole package:\n",
            });
            body.push_str(&self.output(output, CASE_CAP));
        }
        body
    }

    /// Sentence and output of an earlier attempt.
    pub(super) fn attempt(&mut self, sentence: &str, output: Option<&OutputRef>) -> String {
        let mut body = self.text(sentence);
        if let Some(output) = output {
            body.push_str("\n\n");
            body.push_str(&self.output(output, ATTEMPT_CAP));
        }
        body
    }

    fn output(&mut self, output: &OutputRef, cap: u64) -> String {
        if self.budget == 0 {
            return format!("[left out, since the report is large; it is in {}]", output.file);
        }
        let text = xml_text(&head_and_tail(self.source, output, cap, self.masks));
        self.budget = self.budget.saturating_sub(escaped_len(&text));
        text
    }

    /// The reason a skipped test gave: the last line of its output that is not the framework's.
    pub(super) fn skip_reason(&self, message: Option<&str>, output: Option<&OutputRef>) -> String {
        let frame = |line: &&str| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("=== ") && !line.starts_with("--- ") && line != "PASS"
        };
        let told = output.map(|output| head_and_tail(self.source, output, ATTEMPT_CAP, self.masks));
        let reason = told.as_deref().and_then(|text| text.lines().rev().find(frame));
        match message.or(reason) {
            Some(reason) => self.text(reason.trim()),
            None => "skipped by itself".to_owned(),
        }
    }
}

/// What a reader is told first.
pub(super) fn sentence(result: TestResult, message: Option<&str>) -> String {
    let verdict = match result {
        TestResult::Pass => "passed",
        TestResult::Fail => "failed",
        TestResult::Skip => "skipped",
        TestResult::Flaky => "passed on a later attempt",
        TestResult::TimedOut => "timed out",
        TestResult::Crashed => "crashed",
        TestResult::Lost => "lost with its machine",
        TestResult::Unfinished => "started and never ended",
        TestResult::NotRun => "not run",
        TestResult::Missing => "never reported",
    };
    match message {
        Some(message) => format!("{verdict}: {message}"),
        None => verdict.to_owned(),
    }
}

/// The type of a failure.
pub(super) fn kind(result: TestResult) -> &'static str {
    result_name(result)
}

fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'&' => 5,
            b'<' | b'>' => 4,
            b'"' | b'\'' => 6,
            _ => 1,
        })
        .sum()
}
