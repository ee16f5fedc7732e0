//! From what a stack should be and what is seen of it to the steps between. Pure.
//!
//! Each step can be repeated, and leaves a state from which the rest follows again: whoever was killed in the
//! middle is continued by asking anew.

use kmt_reporters::event::CellId;

use super::record::{Owner, Progress};
use super::{MachineRecord, MachineSpec, StackSpec};
use crate::external::hypervisor::{DomainState, GuestNetwork};

/// A machine as it is seen now.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As written down.
    pub record: MachineRecord,
    /// Its domain; `None` where there is none.
    pub state: Option<DomainState>,
}

impl Seen {
    /// Whether it takes memory of the host.
    pub fn is_up(&self) -> bool {
        matches!(self.state, Some(DomainState::Running | DomainState::Paused))
    }

    /// Whether the configuration asked for it.
    pub fn is_configured(&self) -> bool {
        self.record.owner == Owner::Configured
    }
}

/// One step towards what should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nobody asks for this machine any more, or it cannot become what is asked for: it goes.
    Remove(String),
    /// A run made it, and it is what is asked for: it belongs to the configuration from now on.
    Adopt(String),
    /// It is there and not up.
    Wake(String),
    /// A machine of this cell is missing.
    Make(CellId),
}

/// The steps from what is seen to what should be; none where they are the same. Machines that runs made are left
/// alone unless they are just what is asked for.
pub fn reconcile(spec: &StackSpec, seen: &[Seen]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut kept: Vec<&str> = Vec::new();
    let mut missing = Vec::new();
    for wanted in &spec.machines {
        let mut usable: Vec<&Seen> =
            seen.iter().filter(|machine| is_what_is_wanted(machine, wanted, spec.network)).collect();
        // One that is configured already comes before one of a run.
        usable.sort_by_key(|machine| machine.record.owner != Owner::Configured);
        let Some(machine) = usable.first() else {
            missing.push(Step::Make(wanted.cell.clone()));
            continue;
        };
        let id = &machine.record.id;
        kept.push(id);
        if machine.record.owner != Owner::Configured {
            steps.push(Step::Adopt(id.clone()));
        }
        if machine.state != Some(DomainState::Running) || machine.record.rest.is_some() {
            steps.push(Step::Wake(id.clone()));
        }
    }
    let unwanted = seen.iter().filter(|machine| machine.record.owner == Owner::Configured);
    let unwanted = unwanted.map(|machine| &machine.record.id).filter(|id| !kept.contains(&id.as_str()));
    let mut all: Vec<Step> = unwanted.map(|id| Step::Remove(id.clone())).collect();
    all.extend(steps);
    all.extend(missing);
    all
}

/// Whether a machine is, or by waking becomes, what is wanted.
fn is_what_is_wanted(machine: &Seen, wanted: &MachineSpec, network: GuestNetwork) -> bool {
    let record = &machine.record;
    let lives = record.progress == Progress::Ready
        && match machine.state {
            Some(DomainState::Running | DomainState::Saved) => true,
            // What a run left and what went off by itself is in an unknown state.
            Some(DomainState::Off) => record.owner == Owner::Configured || record.rest.is_some(),
            // Its memory is being written by a hypervisor whose client is gone: it is saved soon.
            Some(DomainState::Paused) => record.rest.is_some(),
            None => false,
        };
    lives
        && record.owner != Owner::ThrowAway
        && record.network == network
        && record.cell == wanted.cell
        && (record.vcpu, record.memory_mib) == (wanted.vcpu, wanted.memory_mib)
        && record.extras == wanted.extras
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kmt_reporters::event::Arch;
    use proptest::prelude::*;

    use super::super::StackRecord;
    use super::super::record::Rest;
    use super::*;
    use crate::matrix::Extras;

    const PLATFORMS: [&str; 4] = ["debian_11", "debian_12", "debian_13", "debian_14"];

    fn wanted(platform: usize, memory_mib: u32) -> MachineSpec {
        let cell = CellId::local(PLATFORMS[platform], "6.1", Arch::X86_64);
        MachineSpec { cell, vcpu: 2, memory_mib, extras: Extras::default() }
    }

    fn spec(machines: &[MachineSpec]) -> StackSpec {
        StackSpec::default().with(machines)
    }

    /// A machine in the state of those numbers.
    fn seen(record: &mut StackRecord, platform: usize, memory: u32, kind: [usize; 4]) -> Seen {
        let wanted = wanted(platform, memory);
        let mut machine = record.add(&wanted.cell, 2, memory, 1);
        machine.owner = [Owner::Run, Owner::ThrowAway, Owner::Configured][kind[0] % 3];
        machine.progress =
            [Progress::Ready, Progress::Spoiled, Progress::Ready, Progress::Making][kind[1] % 4];
        machine.rest = [None, Some(Rest::Saved), Some(Rest::Off)][kind[2] % 3];
        let states = [DomainState::Running, DomainState::Saved, DomainState::Off, DomainState::Paused];
        Seen { record: machine, state: states.get(kind[3] % 5).copied() }
    }

    /// What is there after the steps were done.
    fn apply(steps: &[Step], spec: &StackSpec, seen: &[Seen], record: &mut StackRecord) -> Vec<Seen> {
        let mut now = seen.to_vec();
        for step in steps {
            match step {
                Step::Remove(id) => now.retain(|machine| machine.record.id != *id),
                Step::Adopt(id) => {
                    now.iter_mut()
                        .filter(|m| m.record.id == *id)
                        .for_each(|m| m.record.owner = Owner::Configured);
                }
                Step::Wake(id) => now.iter_mut().filter(|m| m.record.id == *id).for_each(|machine| {
                    machine.state = Some(DomainState::Running);
                    machine.record.rest = None;
                }),
                Step::Make(cell) => {
                    let wanted = spec.machine(cell).expect("only what is wanted is made");
                    let mut machine = record.add(cell, wanted.vcpu, wanted.memory_mib, 1);
                    machine.owner = Owner::Configured;
                    machine.progress = Progress::Ready;
                    now.push(Seen { record: machine, state: Some(DomainState::Running) });
                }
            }
        }
        now
    }

    proptest! {
        #[test]
        fn any_part_of_the_steps_converges_and_twice_is_once(
            wishes in proptest::collection::vec((0..4usize, 1..3u32), 0..5),
            there in proptest::collection::vec((0..4usize, 1..3u32, any::<[u8; 4]>()), 0..8),
            killed_after in 0..12usize,
        ) {
            let machines: Vec<MachineSpec> =
                wishes.iter().map(|(platform, gib)| wanted(*platform, gib * 1024)).collect();
            let spec = spec(&machines);
            let mut record = StackRecord::new("s", Path::new("/r"));
            let there: Vec<Seen> = there
                .iter()
                .map(|(platform, gib, kind)| seen(&mut record, *platform, gib * 1024, kind.map(usize::from)))
                .collect();
            let steps = reconcile(&spec, &there);
            let some = &steps[..killed_after.min(steps.len())];
            let after_kill = apply(some, &spec, &there, &mut record);
            let rest = reconcile(&spec, &after_kill);
            let end = apply(&rest, &spec, &after_kill, &mut record);
            prop_assert_eq!(reconcile(&spec, &end), vec![]);
            let configured: Vec<&Seen> =
                end.iter().filter(|machine| machine.record.owner == Owner::Configured).collect();
            prop_assert_eq!(configured.len(), spec.machines.len());
            // What runs own is there as before, unless it was adopted.
            for machine in there.iter().filter(|machine| machine.record.owner != Owner::Configured) {
                prop_assert!(end.iter().any(|m| m.record.id == machine.record.id));
            }
        }
    }

    #[test]
    fn each_case_has_its_step() {
        let mut record = StackRecord::new("s", Path::new("/r"));
        let up = |record: &mut StackRecord, platform| seen(record, platform, 1024, [2, 0, 0, 0]);
        let (one, two) = (up(&mut record, 0), up(&mut record, 1));
        let saved = seen(&mut record, 2, 1024, [2, 0, 1, 1]);
        let of_a_run = seen(&mut record, 3, 1024, [0, 0, 0, 0]);
        let all = [one.clone(), two.clone(), saved.clone(), of_a_run.clone()];
        let wish = |platform| wanted(platform, 1024);
        assert_eq!(reconcile(&spec(&[wish(0), wish(1)]), &all), [Step::Remove(saved.record.id.clone())]);
        let expected = [
            Step::Remove(one.record.id.clone()),
            Step::Remove(two.record.id.clone()),
            Step::Wake(saved.record.id.clone()),
            Step::Adopt(of_a_run.record.id.clone()),
        ];
        assert_eq!(reconcile(&spec(&[wish(2), wish(3)]), &all), expected);
        // Another size is another machine.
        let expected = [Step::Remove(one.record.id.clone()), Step::Make(wish(0).cell)];
        assert_eq!(reconcile(&spec(&[wanted(0, 4096)]), &[one]), expected);
    }
}
