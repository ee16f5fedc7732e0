//! What was known of a test before it ran: whether it is flaky, and whose it is.

use std::collections::HashSet;

use super::facts::{Attempt, Known};
use super::outcome::is_good;
use super::verdict::Judge;
use crate::event::TestResult;

/// A test and the tests above it: `A/b/c`, `A/b`, `A`.
fn upward(test: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(test), |name| name.rsplit_once('/').map(|(above, _)| above))
}

impl<'r> Judge<'r> {
    /// Whether it is known to be flaky: by itself, by one above it, or, as a parent that failed, by all that failed below
    /// it. Asked only of results that it would explain.
    pub(super) fn known_flaky(&self, name: &str, result: TestResult) -> bool {
        let listed = self.known.is_some_and(|known| !known.flaky.is_empty());
        if !listed && self.package.marked_flaky.is_empty() {
            return false;
        }
        match result {
            TestResult::Flaky => self.listed_or_marked(name),
            TestResult::Fail | TestResult::TimedOut => {
                self.listed_or_marked(name) || self.only_known_ones_failed_below(name)
            }
            _ => false,
        }
    }

    fn listed_or_marked(&self, name: &str) -> bool {
        let listed = |test: &str| self.known.is_some_and(|known| known.flaky.contains(test));
        upward(name).any(|test| listed(test) || self.package.marked_flaky.contains(test))
    }

    fn only_known_ones_failed_below(&self, name: &str) -> bool {
        let prefix = format!("{name}/");
        let bad = |attempts: &[Attempt]| {
            let ended = attempts.last().and_then(|attempt| attempt.ended.as_ref());
            ended.is_none_or(|ended| !is_good(ended.result))
        };
        let below = self.package.tests.odd().range(prefix.clone()..);
        let failed: Vec<&str> = below
            .take_while(|(test, _)| test.starts_with(&prefix))
            .filter(|(_, attempts)| bad(attempts))
            .map(|(test, _)| test.as_str())
            .collect();
        let parents: HashSet<&str> = failed.iter().flat_map(|test| upward(test).skip(1)).collect();
        let mut blamed = failed.iter().filter(|test| !parents.contains(*test)).peekable();
        blamed.peek().is_some() && blamed.all(|test| self.listed_or_marked(test))
    }

    /// Who owns it.
    pub(super) fn owners(&self, name: &str) -> &'r [String] {
        owners(self.known, name)
    }
}

/// Who owns a test.
pub(super) fn owners<'r>(known: Option<&'r Known>, name: &str) -> &'r [String] {
    let Some(known) = known else { return &[] };
    let top = name.split('/').next().unwrap_or_default();
    known.test_owners.get(top).unwrap_or(&known.owners)
}
