//! A machine that is up, or almost: complaints of its kernel, restarts, silence.

use super::facts::{Ended, Facts};
use super::judge::Candidate;
use super::rule::{Cause, Milestone};
use super::seen::{Complaint, Life, Seen};
use crate::event::BootPhase;
use crate::triage::Evidence;
use crate::triage::splat::Kind;

const BUG_ADVICE: &str = "a bug of the kernel, or of a module or program under test: the stack names the function; search for the signature";

const fn complaint(id: &'static str, says: &'static str, advice: &'static str) -> Cause {
    Cause { id, phase: BootPhase::Ready, says, advice }
}

pub(super) const OOPS: Cause = complaint("oops", "the kernel hit a bad access or trap", BUG_ADVICE);
pub(super) const BUG: Cause = complaint("bug", "the kernel found itself in an impossible state", BUG_ADVICE);
pub(super) const WARNING: Cause =
    complaint("warning", "the kernel warned of a state that should not be", BUG_ADVICE);
pub(super) const KASAN: Cause = complaint("kasan", "the kernel used memory that is not its own", BUG_ADVICE);
pub(super) const UBSAN: Cause =
    complaint("ubsan", "the kernel did what the language leaves undefined", BUG_ADVICE);
const KCSAN: Cause = complaint("kcsan", "two threads of the kernel race", BUG_ADVICE);
const KMSAN: Cause = complaint("kmsan", "the kernel used memory that was never set", BUG_ADVICE);
const KFENCE: Cause = complaint("kfence", "the kernel used memory wrongly", BUG_ADVICE);
const LOCKDEP: Cause =
    complaint("lockdep", "the kernel takes locks in an order that can deadlock", BUG_ADVICE);
pub(super) const SOFT_LOCKUP: Cause = complaint(
    "soft-lockup",
    "a processor did not schedule for long",
    "a loop in the kernel, or a host so busy that the machine does not run: look at the function, and at the host's load",
);
pub(super) const HARD_LOCKUP: Cause = complaint(
    "hard-lockup",
    "a processor did not take interrupts for long",
    "a deadlock in the kernel, or a host so busy that the machine does not run: look at the function, and at the host's load",
);
pub(super) const RCU_STALL: Cause = complaint(
    "rcu-stall",
    "a grace period of the kernel does not end",
    "a loop in the kernel, or a host so busy that a processor does not run: look at the function, and at the host's load",
);
pub(super) const HUNG_TASK: Cause = complaint(
    "hung-task",
    "a program is stuck in the kernel",
    "a deadlock, or a disk of the host that does not answer: the stack says what it waits for",
);
const OOM_KILL: Cause = complaint(
    "oom-kill",
    "the machine ran out of memory, and the kernel killed a program",
    "give the machine more memory, or find what uses it up: the table in the console has every program",
);
const REBOOTED: Cause = complaint(
    "rebooted",
    "the guest restarted",
    "a test, an update or a watchdog restarted it; a fault before that is on the console",
);
/// No evidence on the console.
pub(super) const SSH_LOST: Cause = complaint(
    "ssh-lost",
    "the machine runs and does not answer any more",
    "a test may have changed its network, firewall or sshd, or used up its processor: look at its console (`stack console`)",
);

/// Those that no rule names.
pub(super) const CAUSES: &[&Cause] = &[
    &OOPS,
    &BUG,
    &WARNING,
    &KASAN,
    &UBSAN,
    &KCSAN,
    &KMSAN,
    &KFENCE,
    &LOCKDEP,
    &SOFT_LOCKUP,
    &HARD_LOCKUP,
    &RCU_STALL,
    &HUNG_TASK,
    &OOM_KILL,
    &REBOOTED,
    &SSH_LOST,
];

/// The cause of a kind, its rank, and what makes it void. A trap outranks the shells that it leads to; a stall is over
/// once the boot went on.
fn of(kind: Kind) -> Option<(&'static Cause, u16, Milestone)> {
    Some(match kind {
        Kind::Panic => return None,
        Kind::Kasan => (&KASAN, 870, Milestone::Never),
        Kind::Oops => (&OOPS, 860, Milestone::Never),
        Kind::Bug => (&BUG, 855, Milestone::Never),
        Kind::Kmsan => (&KMSAN, 845, Milestone::Never),
        Kind::Kfence => (&KFENCE, 845, Milestone::Never),
        Kind::OomKill => (&OOM_KILL, 790, Milestone::Never),
        Kind::HardLockup => (&HARD_LOCKUP, 786, Milestone::Network),
        Kind::SoftLockup => (&SOFT_LOCKUP, 785, Milestone::Network),
        Kind::RcuStall => (&RCU_STALL, 784, Milestone::Network),
        Kind::HungTask => (&HUNG_TASK, 783, Milestone::Network),
        Kind::CgroupOomKill => (&OOM_KILL, 350, Milestone::Never),
        Kind::Lockdep => (&LOCKDEP, 260, Milestone::Never),
        Kind::Kcsan => (&KCSAN, 255, Milestone::Never),
        Kind::Ubsan => (&UBSAN, 254, Milestone::Never),
        Kind::Warning => (&WARNING, 250, Milestone::Never),
    })
}

/// What the kernel complained of in one life.
pub(super) fn complaints(life: &Life, facts: &Facts) -> Vec<Candidate> {
    life.all().iter().filter_map(|complaint| candidate(life, facts, complaint)).collect()
}

fn candidate(life: &Life, facts: &Facts, complaint: &Complaint) -> Option<Candidate> {
    let (cause, rank, until) = of(complaint.splat.kind)?;
    let went_on = match until {
        Milestone::Never => false,
        // Before it is up, any step further shows that it was only slow.
        _ => life.last(Milestone::Kernel) > complaint.seq && !is_up_before(life, complaint.seq),
    };
    // An emulated machine that is up was only slow; a program that is stuck stays so.
    let only_slow = is_stall(complaint.splat.kind) && complaint.splat.kind != Kind::HungTask;
    if went_on || facts.ended == Ended::Ready && facts.emulated() && only_slow {
        return None;
    }
    let lines = complaint.places.iter().zip(&complaint.splat.lines);
    let evidence = lines.map(|(place, text)| Evidence { place: *place, text: text.clone() }).collect();
    let mut candidate = Candidate::of(cause, complaint.splat.title.clone(), evidence);
    candidate.signature = Some(complaint.splat.signature.clone());
    candidate.rank = rank;
    candidate.seq = complaint.seq;
    Some(candidate)
}

fn is_stall(kind: Kind) -> bool {
    matches!(kind, Kind::SoftLockup | Kind::HardLockup | Kind::RcuStall | Kind::HungTask)
}

fn is_up_before(life: &Life, seq: u64) -> bool {
    let up = life.reached[Milestone::Up as usize];
    up > 0 && up < seq
}

/// A kernel that began again though the one before was up.
pub(super) fn rebooted(seen: &Seen, facts: &Facts) -> Option<Candidate> {
    let before = seen.before.as_ref()?;
    let was_up = before.milestone().is_some_and(|milestone| milestone >= Milestone::Sshd);
    (was_up && facts.ended != Ended::Ready).then(|| {
        let evidence = seen.kernel.iter().cloned().collect();
        let signature = Some(format!("{}:", REBOOTED.id));
        let said = format!("{} kernels began on its console", seen.boots);
        Candidate { rank: 700, signature, ..Candidate::of(&REBOOTED, said, evidence) }
    })
}
