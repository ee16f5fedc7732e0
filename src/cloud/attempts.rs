//! Which type in which subnet is asked for next, after what was refused.

use std::collections::BTreeSet;

use super::kinds::Kind;
use super::refusal::Meaning;
use crate::external::cloud::Subnet;

/// One thing to ask for: number of a type and of a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// Which of the types.
    pub kind: usize,
    /// Which of the subnets; `None` where the cloud chooses.
    pub subnet: Option<usize>,
}

/// All attempts that are left, best first: the best type everywhere, then the next one.
#[derive(Debug)]
pub struct Attempts {
    left: Vec<Attempt>,
}

impl Attempts {
    /// Every type in every subnet whose zone offers it. Where nothing is known of what is offered, all are tried.
    pub fn of(kinds: &[Kind], subnets: &[Subnet], offered: &[(String, String)]) -> Attempts {
        let offers = |kind: &Kind, subnet: &Subnet| {
            offered.is_empty()
                || offered.iter().any(|(name, zone)| *name == kind.instance_type && *zone == subnet.zone)
        };
        let mut left = Vec::new();
        for (number, kind) in kinds.iter().enumerate() {
            if subnets.is_empty() {
                left.push(Attempt { kind: number, subnet: None });
            }
            // One a zone is enough: capacity is the zone's.
            let mut zones = BTreeSet::new();
            for (place, subnet) in subnets.iter().enumerate() {
                if offers(kind, subnet) && zones.insert(&subnet.zone) {
                    left.push(Attempt { kind: number, subnet: Some(place) });
                }
            }
        }
        Attempts { left }
    }

    /// The one to make now.
    pub fn next(&self) -> Option<Attempt> {
        self.left.first().copied()
    }

    /// What is struck out after `attempt` was refused with this meaning. Returns whether anything is worth trying then.
    pub fn strike(&mut self, attempt: Attempt, meaning: Meaning) -> bool {
        match meaning {
            Meaning::NoCapacity => self.left.retain(|one| *one != attempt),
            Meaning::NoAddresses => self.left.retain(|one| one.subnet != attempt.subnet),
            Meaning::NotOffered | Meaning::Quota => self.left.retain(|one| one.kind != attempt.kind),
            Meaning::Again => return true,
            _ => return false,
        }
        !self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::*;
    use crate::cloud::kinds::alternatives;

    fn subnets() -> Vec<Subnet> {
        let subnet = |id: &str, zone: &str| Subnet { id: id.to_owned(), zone: zone.to_owned() };
        vec![subnet("subnet-1", "a"), subnet("subnet-2", "b"), subnet("subnet-3", "a")]
    }

    fn all(mut attempts: Attempts, meaning: Meaning) -> Vec<(usize, Option<usize>)> {
        let mut made = Vec::new();
        while let Some(attempt) = attempts.next() {
            made.push((attempt.kind, attempt.subnet));
            if !attempts.strike(attempt, meaning) {
                break;
            }
        }
        made
    }

    #[test]
    fn every_zone_is_tried_before_the_next_type() {
        let kinds = &alternatives(None, Arch::X86_64).unwrap()[..2];
        let tried = |meaning| all(Attempts::of(kinds, &subnets(), &[]), meaning);
        assert_eq!(tried(Meaning::NoCapacity), [(0, Some(0)), (0, Some(1)), (1, Some(0)), (1, Some(1))]);
        assert_eq!(tried(Meaning::NoAddresses), [(0, Some(0)), (0, Some(1))]);
        assert_eq!(tried(Meaning::Quota), [(0, Some(0)), (1, Some(0))]);
        assert_eq!(tried(Meaning::Denied), [(0, Some(0))]);
        let offered = [("m5.metal".to_owned(), "b".to_owned())];
        assert_eq!(all(Attempts::of(kinds, &subnets(), &offered), Meaning::NoCapacity), [(1, Some(1))]);
        assert_eq!(all(Attempts::of(kinds, &[], &[]), Meaning::NoCapacity), [(0, None), (1, None)]);
    }
}
