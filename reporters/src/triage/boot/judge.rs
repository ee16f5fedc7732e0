//! Which of the candidates is the cause.

use super::facts::{Ended, Facts};
use super::matcher::matcher;
use super::rule::{Cause, From, Milestone, Rule};
use super::seen::{Hit, Kept, Life, Seen};
use super::{after, host, init, ready, slow, sshd};
use crate::event::BootPhase;
use crate::triage::{Evidence, Finding, Place, normalise, prefix};

/// Below this rank a candidate does not outrank that the boot still made progress.
const WEAK: u16 = 525;
/// From this rank on, what the kernel before the present one did explains the present one.
const GRAVE: u16 = 700;
/// Where only the console is known, a login prompt does not say that the machine can be reached: these stand, by rules
/// of this rank or more.
const EVEN_UP: [&str; 7] = [
    "no-dhcp-lease",
    "wrong-interface",
    "address-taken",
    "host-keys-missing",
    "sshd-not-started",
    "setup-unit-failed",
    "shared-folder-not-mounted",
];
const EVEN_UP_RANK: u16 = 430;
/// A clock that is off by more is far off, seconds.
const CLOCK_OFF: u64 = 300;
/// Longest particular that a finding says, bytes.
const SAID: usize = 240;

/// A cause that may be the one.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) cause: &'static Cause,
    /// What is particular, in words.
    pub(super) said: String,
    pub(super) evidence: Vec<Evidence>,
    pub(super) rank: u16,
    /// Place among the lines of the console.
    pub(super) seq: u64,
    /// Where it is not made of `said`.
    pub(super) signature: Option<String>,
    /// As the rule's.
    pub(super) explains: bool,
}

impl Candidate {
    pub(super) fn of(cause: &'static Cause, said: String, evidence: Vec<Evidence>) -> Candidate {
        Candidate { cause, said, evidence, rank: 0, seq: 0, signature: None, explains: false }
    }
}

/// The cause, if anything says that there is one.
pub(super) fn judge(seen: &Seen, facts: &Facts) -> Option<Finding> {
    let mut candidates = words(facts, From::Hypervisor);
    candidates.extend(console(seen, facts));
    candidates.extend(contact(seen, facts));
    let lively = facts.ended == Ended::Deadline && slow::lively(seen, facts) == Some(true);
    if lively {
        candidates.retain(|candidate| candidate.rank >= WEAK);
    }
    // Who was asked for the time is up: that the console still grows says nothing.
    candidates.extend(clock(facts));
    let ended = candidates.iter().any(|candidate| candidate.rank >= GRAVE && !candidate.explains);
    if !ended && (lively || facts.ended == Ended::Unknown) {
        candidates.retain(|candidate| !candidate.explains);
    }
    let best =
        candidates.iter().max_by_key(|candidate| (candidate.rank, std::cmp::Reverse(candidate.seq))).cloned();
    let best =
        best.or_else(|| ended_by_itself(seen, facts)).or_else(|| slow::without_evidence(seen, facts))?;
    Some(finding(best, &candidates))
}

fn finding(best: Candidate, all: &[Candidate]) -> Finding {
    let mut evidence = best.evidence;
    let same = all.iter().filter(|candidate| candidate.cause.id == best.cause.id);
    evidence.extend(same.flat_map(|candidate| candidate.evidence.clone()));
    evidence.sort_by_key(|evidence| evidence.place);
    evidence.dedup();
    let said = &best.said[..best.said.floor_char_boundary(SAID)];
    let signature = best.signature.unwrap_or_else(|| format!("{}:{}", best.cause.id, normalise(said)));
    Finding {
        cause: best.cause.id,
        phase: best.cause.phase,
        says: if said.is_empty() {
            best.cause.says.to_owned()
        } else {
            format!("{}: {said}", best.cause.says)
        },
        evidence,
        advice: best.cause.advice,
        signature,
    }
}

/// Whether the machine came up, by the word of whoever watched it or, without that, by its console.
fn came_up(seen: &Seen, facts: &Facts) -> bool {
    match facts.ended {
        Ended::Ready => true,
        Ended::Unknown => seen.now.reached[Milestone::Up as usize] > 0,
        _ => false,
    }
}

/// What the console shows of its present life, and of the one before where that ended badly.
fn console(seen: &Seen, facts: &Facts) -> Vec<Candidate> {
    let up = came_up(seen, facts);
    let mut candidates = life(&seen.now, facts, up);
    let best = candidates.iter().map(|candidate| candidate.rank).max().unwrap_or(0);
    if let Some(before) = &seen.before
        && best < GRAVE
        && !up
    {
        candidates.extend(life(before, facts, false).into_iter().filter(|candidate| candidate.rank >= GRAVE));
        candidates.extend(after::rebooted(seen, facts));
    }
    if seen.relabels > 1 && !up {
        let lives = [Some(&seen.now), seen.before.as_deref()].into_iter().flatten();
        let evidence =
            lives.flat_map(|life| &life.hits).filter(|(index, _)| is_relabel(matcher().rules()[*index]));
        let evidence = evidence.flat_map(|(_, hit)| hit.kept()).map(|kept| kept.evidence.clone()).collect();
        let said = format!("{} boots in a row", seen.relabels);
        candidates.push(Candidate { rank: 955, ..Candidate::of(&init::RELABEL_LOOP, said, evidence) });
    }
    candidates
}

fn is_relabel(rule: &Rule) -> bool {
    rule.cause.id == init::RELABEL_LOOP.id
}

fn life(life: &Life, facts: &Facts, up: bool) -> Vec<Candidate> {
    let rules = matcher().rules();
    let counts = |rule: &Rule| {
        let alone =
            facts.ended == Ended::Unknown && EVEN_UP.contains(&rule.cause.id) && rule.rank >= EVEN_UP_RANK;
        rule.always || !up || alone
    };
    let standing = life.hits.iter().filter(|(index, hit)| {
        let rule = rules[*index];
        hit.count >= rule.times && counts(rule) && !is_void(rule, hit, life, facts)
    });
    let mut candidates: Vec<Candidate> = standing.map(|(index, hit)| of_hit(rules[*index], hit)).collect();
    candidates.extend(after::complaints(life, facts));
    candidates
}

/// Whether the boot went on past what a rule found.
fn is_void(rule: &Rule, hit: &Hit, life: &Life, facts: &Facts) -> bool {
    let last = hit.kept().last().map_or(0, |kept| kept.seq);
    let went_on = match rule.until {
        Milestone::Never => 0,
        milestone if rule.exactly => life.reached[milestone as usize],
        milestone => life.last(milestone),
    };
    if went_on > last {
        return true;
    }
    let entropy = rule.cause.id == sshd::ENTROPY.id && (life.random > 0 || life.last(Milestone::Sshd) > 0);
    entropy || rule.until <= Milestone::Network && is_reached(facts)
}

/// Whether an SSH server was heard, so that the network works.
fn is_reached(facts: &Facts) -> bool {
    let heard = |words: &str| {
        ["publickey", "Too many auth", "HAS CHANGED", "Host key"].iter().any(|word| words.contains(word))
    };
    facts.phase >= Some(BootPhase::Sshd) || facts.contact.as_deref().is_some_and(heard)
}

impl Hit {
    pub(super) fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.first.iter().chain(&self.last)
    }
}

fn of_hit(rule: &Rule, hit: &Hit) -> Candidate {
    let evidence = hit.kept().map(|kept| kept.evidence.clone()).collect();
    let first = hit.first.first();
    let said = first.map(|kept| message(&kept.evidence.text).to_owned()).unwrap_or_default();
    let particular = first.and_then(|kept| kept.evidence.text.get(kept.from..)).unwrap_or_default();
    Candidate {
        rank: rule.rank,
        explains: rule.explains,
        seq: first.map_or(0, |kept| kept.seq),
        signature: Some(format!("{}:{}", rule.cause.id, normalise(particular))),
        ..Candidate::of(rule.cause, said, evidence)
    }
}

fn message(text: &str) -> &str {
    text.get(prefix::strip(text.as_bytes()).at..).unwrap_or(text).trim()
}

/// What libvirt, QEMU or SSH said.
fn words(facts: &Facts, from: From) -> Vec<Candidate> {
    let (text, place) = match from {
        From::Hypervisor => (&facts.hypervisor, Place::Hypervisor),
        From::Contact => (&facts.contact, Place::Contact),
        From::Console => return Vec::new(),
    };
    let mut candidates = Vec::new();
    let rules = matcher().rules();
    matcher().words(text.as_deref().unwrap_or_default(), from, |index, line| {
        let rule = rules[index];
        let evidence = Evidence { place, text: line.to_owned() };
        candidates.push(Candidate {
            rank: rule.rank,
            ..Candidate::of(rule.cause, line.to_owned(), vec![evidence])
        });
    });
    candidates
}

/// What SSH says on our side means something only of a machine that is far enough: a forwarded port is open, and
/// closes at once, while nobody listens in the guest.
fn contact(seen: &Seen, facts: &Facts) -> Vec<Candidate> {
    if came_up(seen, facts) {
        return Vec::new();
    }
    let reached = |milestone: Milestone| seen.now.reached[milestone as usize] > 0;
    let listens = reached(Milestone::Sshd) || facts.phase >= Some(BootPhase::Sshd);
    let up = reached(Milestone::Up);
    let mut candidates = words(facts, From::Contact);
    candidates.retain_mut(|candidate| {
        let id = candidate.cause.id;
        if id == sshd::REFUSED.id && !listens {
            candidate.cause = &sshd::NOT_STARTED;
            candidate.rank = 530;
            return up;
        }
        listens || up || is_reached(facts) || (id != sshd::REFUSED.id && reached(Milestone::Root))
    });
    if candidates.is_empty() && facts.ended == Ended::Deadline && up && !listens {
        let last = seen.tail().last().into_iter().collect();
        let said = "the system is up and never said that it started one".to_owned();
        candidates.push(Candidate { rank: 528, ..Candidate::of(&sshd::NOT_STARTED, said, last) });
    }
    candidates
}

fn clock(facts: &Facts) -> Option<Candidate> {
    let offset = facts.clock_offset_s.filter(|offset| offset.unsigned_abs() > CLOCK_OFF)?;
    let said = format!("it is off by {offset} s");
    Some(Candidate {
        rank: 420,
        signature: Some(format!("{}:", ready::CLOCK.id)),
        ..Candidate::of(&ready::CLOCK, said, Vec::new())
    })
}

/// A QEMU that is gone, or a machine that was refused, for a reason that no rule knows.
fn ended_by_itself(seen: &Seen, facts: &Facts) -> Option<Candidate> {
    let gone = matches!(facts.ended, Ended::QemuGone | Ended::Refused)
        || facts.qemu_exit.is_some_and(|code| code != 0);
    if !gone || facts.ended == Ended::Ready {
        return None;
    }
    let mut last: Vec<Evidence> = seen.tail().rev().take(5).collect();
    last.reverse();
    Some(Candidate::of(&host::QEMU_DIED, host::died(facts).unwrap_or_default(), last))
}
