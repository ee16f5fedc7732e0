//! Why a machine did not come up.
//!
//! A [`Classifier`] reads a console as it grows, in constant memory, and can be asked at any time. Owns the rules: one
//! file a family, in the order of the phases of a boot, as data (`rule::Rule`) plus a function where data is not
//! enough. Owns no deadline and no process: what is known beside the console are the [`Facts`].
//!
//! A rule that fits is only a candidate: it is void once the console shows that the boot went on past it, and of those
//! that stand the one of the highest rank wins, so a loud warning never outranks what ended the boot. To add a rule:
//! the words that a program really prints, in the file of its family, with a test from another distribution.

mod after;
#[cfg(test)]
mod elsewhere;
mod facts;
mod firmware;
mod host;
mod init;
mod judge;
mod kernel;
mod matcher;
mod network;
mod panic;
mod ready;
mod rule;
mod seen;
mod sieve;
mod slow;
mod sshd;
mod storage;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::event::BootPhase;
use crate::triage::splat::Splat;
use crate::triage::{Finding, LineReader};

pub use facts::{Ended, Facts};
pub use rule::Cause;

use rule::Rule;
use seen::Seen;

/// The rules of each family.
const FAMILIES: &[&[Rule]] = &[
    host::RULES,
    firmware::RULES,
    kernel::RULES,
    panic::RULES,
    init::RULES,
    storage::RULES,
    network::RULES,
    sshd::RULES,
    ready::RULES,
];

/// Causes that no rule names: a function finds them.
const OTHERS: &[&[&Cause]] = &[after::CAUSES, slow::CAUSES, &[&host::QEMU_DIED, &init::RELABEL_LOOP]];

/// Every cause once, in the order of the phases.
pub fn causes() -> Vec<&'static Cause> {
    let by_rule = FAMILIES.iter().flat_map(|family| family.iter().map(|rule| rule.cause));
    let mut causes: Vec<&Cause> =
        by_rule.chain(OTHERS.iter().flat_map(|causes| causes.iter().copied())).collect();
    causes.sort_by_key(|cause| (cause.phase, cause.id));
    let mut known = BTreeSet::new();
    causes.retain(|cause| known.insert(cause.id));
    causes
}

/// Follows the console of one machine.
#[derive(Debug, Clone, Default)]
pub struct Classifier {
    reader: LineReader,
    seen: Seen,
}

impl Classifier {
    /// For a console from its first byte.
    pub fn new() -> Classifier {
        Classifier::default()
    }

    /// Takes what came, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reader.push(bytes, |line| self.seen.line(line));
    }

    /// Why the machine failed, by what is known now; nothing where nothing says that it did.
    pub fn finding(&self, facts: &Facts) -> Option<Finding> {
        judge::judge(&self.whole(), facts)
    }

    /// The phase that the console shows.
    pub fn phase(&self) -> Option<BootPhase> {
        self.whole().phase()
    }

    /// What the kernel complained of since it began, the first few.
    pub fn splats(&self) -> Vec<Splat> {
        self.whole().splats()
    }

    /// What was seen, an unfinished line taken for a line.
    fn whole(&self) -> Seen {
        let mut seen = self.seen.clone();
        self.reader.unfinished(|line| seen.line(line));
        seen
    }
}
