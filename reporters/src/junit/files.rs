//! Suites packed into files and written one by one, so that no more than a suite is held.
//!
//! The root of a file counts what is in it, and stands before it: so the suites are made twice, the first time to be
//! counted, without output.

use std::convert::Infallible;
use std::time::Duration;

use quick_junit::{Report, SerializeError, TestCase, TestSuite};

use super::{Flavour, suites, without_root_skipped};
use crate::mask::Masks;
use crate::model::Run;
use crate::output::{NoOutput, OutputSource};

/// What ends the root.
const END: &str = "\n</testsuites>\n";

/// What the root of a file counts.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    suites: usize,
    tests: usize,
    failures: usize,
    errors: usize,
}

/// Hands the text of every file to `take`, in pieces, with the index of the file.
pub(super) fn each<E: From<SerializeError>>(
    run: &Run,
    flavour: Flavour,
    source: &dyn OutputSource,
    masks: &Masks,
    take: &mut dyn FnMut(usize, &str) -> Result<(), E>,
) -> Result<(), E> {
    let files = totals(run, flavour);
    let mut open = 0;
    take(0, &head(run, &files[0])?)?;
    let mut cutter = Cutter::new(flavour);
    suites::each(run, flavour, source, masks, &mut |suite| {
        cutter.cut(suite, &mut |file, suite| {
            if file > open {
                take(open, END)?;
                take(file, &head(run, &files[file])?)?;
                open = file;
            }
            take(file, &body(suite)?)
        })
    })?;
    // A file without a suite is complete with its head.
    if files[open].suites > 0 { take(open, END) } else { Ok(()) }
}

/// How many files it takes.
pub(super) fn count(run: &Run, flavour: Flavour) -> usize {
    totals(run, flavour).len()
}

fn totals(run: &Run, flavour: Flavour) -> Vec<Totals> {
    let mut files = vec![Totals::default()];
    let mut cutter = Cutter::new(flavour);
    let none = Masks::default();
    let counted: Result<(), Infallible> = suites::each(run, flavour, &NoOutput, &none, &mut |suite| {
        cutter.cut(suite, &mut |file, suite| {
            if file >= files.len() {
                files.push(Totals::default());
            }
            let totals = &mut files[file];
            totals.suites += 1;
            totals.tests += suite.tests;
            totals.failures += suite.failures;
            totals.errors += suite.errors;
            Ok(())
        })
    });
    match counted {
        Ok(()) => files,
    }
}

/// All of a file before its first suite.
fn head(run: &Run, totals: &Totals) -> Result<String, SerializeError> {
    let mut root = Report::new(if run.id.is_empty() { "kmt-run" } else { run.id.as_str() });
    root.set_time(Duration::from_millis(run.elapsed_ms));
    (root.tests, root.failures, root.errors) = (totals.tests, totals.failures, totals.errors);
    let mut text = without_root_skipped(&root.to_string()?);
    if totals.suites > 0
        && let Some(start) = text.find("<testsuites")
        && let Some(end) = text[start..].find('>')
    {
        text.truncate(start + end + 1);
    }
    Ok(text)
}

/// A suite as it stands in a file.
fn body(suite: TestSuite) -> Result<String, SerializeError> {
    let mut root = Report::new("");
    root.add_test_suite(suite);
    let mut text = root.to_string()?;
    let start = text.find("<testsuites").unwrap_or_default();
    let from = text[start..].find('>').map_or(start, |end| start + end + 1);
    text.truncate(text.len().saturating_sub(END.len()));
    text.drain(..from);
    Ok(text)
}

/// Cuts suites where a file may not have more cases.
struct Cutter {
    limit: usize,
    held: usize,
    file: usize,
}

impl Cutter {
    fn new(flavour: Flavour) -> Cutter {
        Cutter { limit: flavour.cases_a_file(), held: 0, file: 0 }
    }

    fn cut<E>(
        &mut self,
        mut suite: TestSuite,
        take: &mut dyn FnMut(usize, TestSuite) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cases = std::mem::take(&mut suite.test_cases).into_iter().peekable();
        loop {
            if self.held >= self.limit {
                self.file += 1;
                self.held = 0;
            }
            let part: Vec<TestCase> = cases.by_ref().take(self.limit - self.held).collect();
            self.held += part.len();
            let mut piece = TestSuite::new(suite.name.as_str());
            piece.properties.clone_from(&suite.properties);
            piece.extra.clone_from(&suite.extra);
            piece.timestamp = suite.timestamp;
            piece.time = suite.time;
            piece.add_test_cases(part);
            take(self.file, piece)?;
            if cases.peek().is_none() {
                return Ok(());
            }
        }
    }
}
