//! What a consumer drops, merges or refuses of a JUnit file, before it does.
//!
//! Owns the traps: those that are everybody's (`common`), and one file a consumer. Owns no reading of the file (`read`). A
//! trap is found in any file, also one that nobody here wrote. To add a trap: a call of `Traps::add` in the consumer's
//! file, and a file made to have it in the tests.

mod buildkite;
mod common;
mod datadog;
mod gitlab;
mod jenkins;

#[cfg(test)]
mod tests;

use serde::Serialize;

use super::Flavour;
use super::read::{Case, Document, NoJunit, read};
use crate::text::{bytes, escape, plural};

/// Places that a finding names; the rest is counted.
const PLACES: usize = 3;

/// What becomes of what a trap catches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The whole file.
    Refused,
    /// Some of it, in silence.
    Dropped,
    /// Several become one.
    Merged,
    /// It is shown, and not as it was meant.
    Distorted,
    /// Nothing is lost; something could be had.
    Note,
}

impl Loss {
    fn word(self) -> &'static str {
        match self {
            Loss::Refused => "refused",
            Loss::Dropped => "dropped",
            Loss::Merged => "merged",
            Loss::Distorted => "distorted",
            Loss::Note => "note",
        }
    }
}

/// One trap that the file is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, stable.
    pub rule: &'static str,
    /// What is lost.
    pub loss: Loss,
    /// In one sentence.
    pub says: String,
    /// What helps.
    pub advice: &'static str,
    /// How often it is found.
    pub count: u64,
    /// The first places: line and what stands there.
    pub places: Vec<Place>,
}

/// Where a trap is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// What stands there.
    pub what: String,
}

/// What was found in a file for one consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Schema number of the JSON form.
    pub schema: u32,
    /// The consumer.
    pub consumer: &'static str,
    /// Suites in the file.
    pub suites: usize,
    /// Cases in the file.
    pub cases: usize,
    /// Bytes of it.
    pub bytes: u64,
    /// The worst first.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Whether anything gets lost.
    pub fn loses(&self) -> bool {
        self.findings.iter().any(|finding| finding.loss < Loss::Note)
    }
}

/// Looks at a file; `name` is that of the file, which some consumers go by.
pub fn lint(content: &[u8], name: &str, consumer: Flavour) -> Verdict {
    let mut traps = Traps::default();
    let document = match read(content) {
        Ok(document) => document,
        Err(NoJunit { line, message }) => {
            let says = format!("nobody can read it: {message}");
            traps.at(
                "unreadable",
                Loss::Refused,
                &says,
                "write it with an XML library, whole or not at all",
                line,
                "",
            );
            Document { bytes: content.len() as u64, ..Document::default() }
        }
    };
    if traps.found.is_empty() {
        common::look(&document, &mut traps);
        match consumer {
            Flavour::Gitlab => gitlab::look(&document, &mut traps),
            Flavour::Datadog => datadog::look(&document, name, &mut traps),
            Flavour::Jenkins => jenkins::look(&document, &mut traps),
            Flavour::Buildkite => buildkite::look(&document, &mut traps),
        }
    }
    traps.found.sort_by_key(|finding| finding.loss);
    Verdict {
        schema: 1,
        consumer: consumer.as_str(),
        suites: document.suites.len(),
        cases: document.cases.len(),
        bytes: document.bytes,
        findings: traps.found,
    }
}

/// The verdict for people.
pub fn told(verdict: &Verdict, name: &str) -> String {
    let mut text = format!(
        "{}: {}, {}, {}; for {}:\n",
        escape(name),
        plural(verdict.suites as u64, "suite"),
        plural(verdict.cases as u64, "case"),
        bytes(verdict.bytes),
        verdict.consumer
    );
    if verdict.findings.is_empty() {
        text.push_str("  all of it is read as it was meant\n");
    }
    for finding in &verdict.findings {
        text.push_str(&format!(
            "  {:<9}  {} [{}]\n",
            finding.loss.word(),
            escape(&finding.says),
            finding.rule
        ));
        for place in &finding.places {
            let what =
                if place.what.is_empty() { String::new() } else { format!(": {}", escape(&place.what)) };
            text.push_str(&format!("             line {}{what}\n", place.line));
        }
        let more = finding.count.saturating_sub(finding.places.len() as u64);
        if more > 0 && !finding.places.is_empty() {
            text.push_str(&format!("             and {more} more\n"));
        }
        text.push_str(&format!("             hint: {}\n", finding.advice));
    }
    text
}

/// Traps found so far, one finding a rule.
#[derive(Debug, Default)]
struct Traps {
    found: Vec<Finding>,
}

impl Traps {
    /// Notes a trap of the file as a whole.
    fn whole(&mut self, rule: &'static str, loss: Loss, says: &str, advice: &'static str) {
        self.found.push(Finding { rule, loss, says: says.to_owned(), advice, count: 1, places: Vec::new() });
    }

    /// Notes a trap at a place.
    fn at(
        &mut self,
        rule: &'static str,
        loss: Loss,
        says: &str,
        advice: &'static str,
        line: u64,
        what: &str,
    ) {
        let at = self.found.iter().position(|finding| finding.rule == rule).unwrap_or_else(|| {
            let (says, places) = (says.to_owned(), Vec::new());
            self.found.push(Finding { rule, loss, says, advice, count: 0, places });
            self.found.len() - 1
        });
        let finding = &mut self.found[at];
        finding.count += 1;
        if finding.places.len() < PLACES {
            finding.places.push(Place { line, what: what.chars().take(160).collect() });
        }
    }

    /// Notes a trap at a case.
    fn case(&mut self, rule: &'static str, loss: Loss, says: &str, advice: &'static str, case: &Case) {
        let class = case.attribute("classname").unwrap_or_default();
        let name = case.attribute("name").unwrap_or_default();
        let what = format!("{class}{}{name}", if class.is_empty() || name.is_empty() { "" } else { " " });
        self.at(rule, loss, says, advice, case.line, &what);
    }
}

/// Name of the suite a case is in.
fn suite_name<'d>(document: &'d Document, case: &Case) -> &'d str {
    case.suite.and_then(|suite| document.suites[suite].attribute("name")).unwrap_or_default()
}
