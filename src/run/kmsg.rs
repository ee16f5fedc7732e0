//! The kernel log of a living guest, followed: complaints of the kernel, each with the moment at which it was made.
//!
//! Records of `/dev/kmsg` carry the guest's own clock; the guest says first what that clock shows, so each record has a
//! place in ours. Only what the kernel itself says counts, not what programs write there.

use std::collections::VecDeque;
use std::time::Duration;

use kmt_reporters::triage::splat::{Kind, Scanner, Splat};
use tokio::time::Instant;

/// `sh -c FOLLOW sh PIDFILE LOG`: the guest's clock in a line, then every record of the log, over and over where it ends.
pub const FOLLOW: &str = r#"
mkdir -p "${1%/*}" 2>/dev/null
setsid sh -c 'echo $$ >"$1"; read -r up rest </proc/uptime; echo "$up"
while [ -r "$2" ]; do cat "$2" 2>/dev/null; sleep 0.3; done' sh "$1" "$2" </dev/null
"#;

/// Records that are remembered, to find when a complaint began.
const RECENT: usize = 400;
/// Longest record that is kept, bytes.
const RECORD: usize = 8192;

/// A complaint, and when it began.
#[derive(Debug)]
pub struct Complaint {
    /// When, by our clock.
    pub at: Instant,
    /// What.
    pub splat: Splat,
}

/// Reads what [`FOLLOW`] writes.
#[derive(Debug, Default)]
pub struct Follower {
    /// Our clock when the guest's showed this.
    clock: Option<(Instant, Duration)>,
    last: Option<u64>,
    /// When the last new record came.
    heard: Option<Instant>,
    scanner: Scanner,
    recent: VecDeque<(Instant, String)>,
    partial: Vec<u8>,
}

impl Follower {
    /// Takes bytes that came at `now`; complaints that are complete.
    pub fn feed(&mut self, bytes: &[u8], now: Instant) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                if self.partial.len() < RECORD {
                    self.partial.push(*byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
            if let Some((at, message)) = self.record(&line, now) {
                if self.recent.len() == RECENT {
                    self.recent.pop_front();
                }
                self.recent.push_back((at, message.clone()));
                let splat = self.scanner.push(message.as_bytes());
                complaints.extend(splat.map(|splat| self.complaint(splat, at)));
            }
        }
        complaints
    }

    /// Whether no new record has come for so long. Old ones may: not every log is read on from where one was.
    pub fn is_quiet(&self, patience: Duration, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now.duration_since(heard) >= patience)
    }

    /// Nothing has come for a while: a complaint that was going on is complete.
    pub fn quiet(&mut self, now: Instant) -> Option<Complaint> {
        self.scanner.finish().map(|splat| self.complaint(splat, now))
    }

    /// A new record of the kernel: when it was made, and its message.
    fn record(&mut self, line: &str, now: Instant) -> Option<(Instant, String)> {
        let Some((begun, up)) = self.clock else {
            let up = line.trim().parse::<f64>().ok().and_then(|up| Duration::try_from_secs_f64(up).ok());
            self.clock = up.map(|up| (now, up));
            return None;
        };
        let (head, message) = line.split_once(';')?;
        let mut fields = head.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let number: u64 = fields.next()?.parse().ok()?;
        let made = Duration::from_micros(fields.next()?.parse().ok()?);
        if self.last.is_some_and(|last| number <= last) {
            return None;
        }
        self.last = Some(number);
        self.heard = Some(now);
        // What was there before is nobody's of this run; what programs write has another facility.
        let after = made.checked_sub(up)?;
        (priority >> 3 == 0).then(|| (begun + after, message.to_owned()))
    }

    fn complaint(&self, splat: Splat, otherwise: Instant) -> Complaint {
        let first = splat.lines.first().map(String::as_str).unwrap_or_default();
        let began =
            self.recent.iter().rev().find(|(_, message)| message.contains(first) && !first.is_empty());
        Complaint { at: began.map_or(otherwise, |(at, _)| *at), splat }
    }
}

/// Whether a complaint of this kind fails the test that ran then. A panic ends its machine.
pub fn counts(kind: Kind) -> bool {
    kind != Kind::Panic
}

/// Whether the kernel ended a program for want of memory: the test that lost its binary shows that itself.
pub fn is_out_of_memory(kind: Kind) -> bool {
    matches!(kind, Kind::OomKill | Kind::CgroupOomKill)
}

/// Whether a kernel that complained so can still be trusted.
pub fn is_harmless(kind: Kind) -> bool {
    matches!(kind, Kind::Warning | Kind::Ubsan | Kind::Lockdep)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARNING: &str = "4,900,12500000,-;------------[ cut here ]------------\n\
        4,901,12500010,-;WARNING: CPU: 0 PID: 77 at kernel/bpf/verifier.c:1234 do_check+0x12/0x34\n\
        4,902,12500020,-;Modules linked in: loop\n SUBSYSTEM=x\n\
        4,903,12500030,-;CPU: 0 PID: 77 Comm: tracer.test Not tainted 6.1.0 #1\n\
        4,904,12500040,-;Call Trace:\n\
        4,905,12500050,-; <TASK>\n\
        4,906,12500060,-; bpf_check+0x1/0x2\n\
        4,907,12500070,-; </TASK>\n\
        4,908,12500080,-;---[ end trace 0000000000000000 ]---\n";

    #[test]
    fn a_complaint_has_its_moment_however_the_stream_is_cut() {
        for size in [1, 7, 4096] {
            let begun = Instant::now();
            let mut follower = Follower::default();
            let text = format!("10.50\n6,12,3000000,-;Linux version 6.1.0\n{WARNING}");
            let mut seen: Vec<Complaint> =
                text.as_bytes().chunks(size).flat_map(|chunk| follower.feed(chunk, begun)).collect();
            seen.extend(follower.quiet(begun));
            assert_eq!(seen.len(), 1, "{size}");
            assert_eq!(seen[0].splat.kind, Kind::Warning);
            let after = seen[0].at.duration_since(begun);
            assert!((1_990..2_010).contains(&after.as_millis()), "{after:?}");
            // The same records again are not news.
            assert!(follower.feed(WARNING.as_bytes(), begun).is_empty() && follower.quiet(begun).is_none());
        }
    }

    #[test]
    fn what_programs_write_and_what_was_there_before_is_no_complaint() {
        let now = Instant::now();
        let mut follower = Follower::default();
        let text = WARNING.replace("\n4,", "\n12,").replacen("4,900", "12,900", 1);
        follower.feed(format!("10.50\n{text}").as_bytes(), now);
        assert!(follower.quiet(now).is_none());
        let mut follower = Follower::default();
        follower.feed(format!("13.00\n{WARNING}").as_bytes(), now);
        assert!(follower.quiet(now).is_none());
    }
}
