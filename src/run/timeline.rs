//! Which tests ran when on one machine: who was at work when its kernel complained.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Tests that ended which are remembered.
const PAST: usize = 256;
/// How far two clocks may be apart.
const SLACK: Duration = Duration::from_millis(500);

/// How much later than in the guest we learn that a test began or ended.
const LATE: Duration = Duration::from_millis(40);

/// Tests of one machine and when they ran, by our clock.
#[derive(Debug, Default)]
pub struct Timeline {
    open: BTreeMap<String, Instant>,
    past: VecDeque<(String, Instant, Instant)>,
}

impl Timeline {
    /// A test began.
    pub fn started(&mut self, test: &str, at: Instant) {
        self.open.insert(test.to_owned(), at);
    }

    /// A test ended.
    pub fn finished(&mut self, test: &str, at: Instant) {
        if let Some(since) = self.open.remove(test) {
            if self.past.len() == PAST {
                self.past.pop_front();
            }
            self.past.push_back((test.to_owned(), since, at));
        }
    }

    /// The test that ran then: of several the one that began last, so a subtest rather than its parent. Of none, the one
    /// that ran within the slack of the clocks.
    pub fn at(&self, when: Instant) -> Option<&str> {
        let when = when + LATE;
        let open = self.open.iter().map(|(test, since)| (test, *since, None));
        let past = self.past.iter().map(|(test, since, until)| (test, *since, Some(*until)));
        let all = || open.clone().chain(past.clone());
        let exact =
            all().filter(|(_, since, until)| *since <= when && until.is_none_or(|until| when <= until));
        let close = all().filter(|(_, since, until)| {
            *since <= when + SLACK && until.is_none_or(|until| when <= until + SLACK)
        });
        let last = |(_, since, _): &(&String, Instant, Option<Instant>)| *since;
        exact.max_by_key(last).or_else(|| close.max_by_key(last)).map(|(test, ..)| test.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_that_ran_then_is_named() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let mut timeline = Timeline::default();
        for (test, from, to) in [("A/sub", 1, 3), ("A", 0, 4), ("B", 10, 12)] {
            timeline.started(test, at(from));
            timeline.finished(test, at(to));
        }
        timeline.started("C", at(20));
        assert_eq!(timeline.at(at(2)), Some("A/sub"));
        assert_eq!(timeline.at(at(4)), Some("A"));
        assert_eq!(timeline.at(at(4) + SLACK / 2), Some("A"));
        assert_eq!(timeline.at(at(7)), None);
        assert_eq!(timeline.at(at(25)), Some("C"));
    }
}
