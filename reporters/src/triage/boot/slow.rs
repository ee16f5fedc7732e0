//! Boots without evidence: silent, standing still, or only slow.

use super::facts::{Ended, Facts};
use super::judge::Candidate;
use super::rule::{Cause, Milestone};
use super::seen::Seen;
use crate::event::BootPhase;
use crate::triage::Evidence;

const NO_OUTPUT: Cause = Cause {
    id: "no-output",
    phase: BootPhase::Kernel,
    says: "the kernel wrote nothing",
    advice: "it has no console on this port (`console=ttyS0`, `console=ttyAMA0` on arm64), or stops before it has one: add `earlycon` and check kernel and firmware",
};

const HANG: Cause = Cause {
    id: "hang",
    phase: BootPhase::Kernel,
    says: "the boot stands still",
    advice: "see the last line: what it names, or what comes next, does not end; SysRq `w` and `l` on the console show where",
};

const SLOW: Cause = Cause {
    id: "slow",
    phase: BootPhase::Ready,
    says: "it was still making progress when its time was over",
    advice: "give it more time, or fewer machines at once; an emulated processor is ten times slower than KVM",
};

const UNKNOWN: Cause = Cause {
    id: "unknown",
    phase: BootPhase::Ready,
    says: "nothing says why it failed",
    advice: "read the last lines of the console; add `systemd.log_level=debug` or `ignore_loglevel` and boot again",
};

pub(super) const CAUSES: &[&Cause] = &[&NO_OUTPUT, &HANG, &SLOW, &UNKNOWN];

/// A console that grew so lately is alive, milliseconds.
const LIVELY: u64 = 15_000;
/// A job of systemd that takes so long is stuck, seconds.
const STUCK: u64 = 60;
/// Lines of the end that are shown.
const LAST: usize = 5;

/// What can be said of a boot that left no evidence.
pub(super) fn without_evidence(seen: &Seen, facts: &Facts) -> Option<Candidate> {
    let ended = seen.milestone();
    let kernel_spoke = ended.is_some_and(|milestone| milestone >= Milestone::Kernel)
        || seen.clock().is_some()
        || facts.phase >= Some(BootPhase::Kernel);
    let cause = match facts.ended {
        Ended::Ready | Ended::Refused => return None,
        Ended::Unknown => match ended {
            Some(milestone) if milestone > Milestone::Kernel => return None,
            _ if !kernel_spoke => &NO_OUTPUT,
            _ => &HANG,
        },
        Ended::Lost => &super::after::SSH_LOST,
        Ended::QemuGone => return None,
        Ended::Deadline if !kernel_spoke && !said_much(seen) => &NO_OUTPUT,
        Ended::Deadline => match lively(seen, facts) {
            Some(true) => &SLOW,
            Some(false) => &HANG,
            None if ended.is_some_and(|milestone| milestone >= Milestone::Sshd) => &UNKNOWN,
            None => &HANG,
        },
    };
    Some(Candidate::of(cause, said(seen, facts, cause), last(seen)))
}

/// Whether the console still grew at the end: by the clock of whoever watched, else by the kernel's own. That systemd
/// counts the seconds of one job is no progress.
pub(super) fn lively(seen: &Seen, facts: &Facts) -> Option<bool> {
    if seen.waited().is_some_and(|seconds| seconds >= STUCK) {
        return Some(false);
    }
    if let Some(idle) = facts.idle_ms {
        return Some(idle < LIVELY);
    }
    let (clock, elapsed) = (seen.clock()?, facts.elapsed_ms?);
    Some(elapsed.saturating_sub((clock * 1000.0) as u64) < LIVELY)
}

/// A system without kernel messages (`quiet`) that printed a screen of its own.
fn said_much(seen: &Seen) -> bool {
    seen.milestone().is_some_and(|milestone| milestone > Milestone::Firmware)
}

fn said(seen: &Seen, facts: &Facts, cause: &Cause) -> String {
    if seen.is_silent() {
        return "the console is empty".to_owned();
    }
    let phase = seen.phase().or(facts.phase).map_or("nothing", BootPhase::as_str);
    let line = seen.tail().next_back().map(|evidence| evidence.text).unwrap_or_default();
    match cause.id {
        "slow" => {
            let emulated = if facts.emulated() { ", on an emulated processor" } else { "" };
            format!("it got to phase `{phase}`{emulated}")
        }
        _ => format!("it got to phase `{phase}`; last line: {line}"),
    }
}

fn last(seen: &Seen) -> Vec<Evidence> {
    let mut last: Vec<Evidence> = seen.tail().rev().take(LAST).collect();
    last.reverse();
    last
}
