//! Progress of long work where no board shows it: few lines, each with elapsed and expected time.

use std::collections::BTreeMap;

use crate::event::{Envelope, Event};
use crate::text::{escape, roughly};

/// At most one line a subject in this time, and the last.
const EVERY_MS: u64 = 10_000;

/// What to say of a subject.
pub(super) struct Said {
    pub(super) elapsed_ms: u64,
    pub(super) text: String,
}

#[derive(Debug, Default)]
pub(super) struct Throttle {
    subjects: BTreeMap<String, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    first_ms: u64,
    first_done: u64,
    told_ms: u64,
    complete: bool,
}

impl Throttle {
    /// What to say of this event, if it is time to.
    pub(super) fn event(&mut self, envelope: &Envelope) -> Option<Said> {
        let Event::Progress { subject, done, total } = &envelope.event else {
            return None;
        };
        let now = envelope.elapsed_ms;
        let new = Seen { first_ms: now, first_done: *done, told_ms: now, complete: false };
        let complete = total.is_some_and(|total| *done >= total);
        let seen = self.subjects.entry(subject.clone()).or_insert(new);
        if *done < seen.first_done || (seen.complete && !complete) {
            *seen = new;
        }
        if complete && seen.complete {
            return None;
        }
        let due = now.saturating_sub(seen.told_ms) >= EVERY_MS;
        // Work that was over before it was worth a line gets none.
        let last = complete && now.saturating_sub(seen.first_ms) >= 1_000;
        seen.complete = complete;
        if !due && !last {
            return None;
        }
        seen.told_ms = now;
        let elapsed_ms = now.saturating_sub(seen.first_ms);
        Some(Said { elapsed_ms, text: text(subject, *done, *total, seen, elapsed_ms) })
    }
}

fn text(subject: &str, done: u64, total: Option<u64>, seen: &Seen, elapsed_ms: u64) -> String {
    let subject = escape(subject);
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{subject}: {done} done");
    };
    let percent = done.min(total) as f64 * 100.0 / total as f64;
    if done >= total {
        return format!("{subject}: done");
    }
    let gained = done.saturating_sub(seen.first_done);
    if gained == 0 {
        return format!("{subject}: {percent:.0}%");
    }
    let left_ms = elapsed_ms as f64 * (total - done) as f64 / gained as f64;
    format!("{subject}: {percent:.0}%, about {} left", roughly(left_ms as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SCHEMA;

    #[test]
    fn a_line_each_ten_seconds_and_the_last() {
        let mut throttle = Throttle::default();
        let mut told = Vec::new();
        for step in 0..=50_u64 {
            let event =
                Event::Progress { subject: "image debian_12".into(), done: step * 20, total: Some(1000) };
            let time = chrono::DateTime::UNIX_EPOCH;
            let envelope = Envelope { schema: SCHEMA, seq: step, time, elapsed_ms: step * 500, event };
            told.extend(throttle.event(&envelope).map(|said| (said.elapsed_ms, said.text)));
        }
        let texts: Vec<_> = told.iter().map(|(ms, text)| (*ms, text.as_str())).collect();
        assert_eq!(
            texts,
            [
                (10_000, "image debian_12: 40%, about 15s left"),
                (20_000, "image debian_12: 80%, about 5s left"),
                (25_000, "image debian_12: done"),
            ]
        );
    }
}
