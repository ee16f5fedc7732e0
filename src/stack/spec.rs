//! What a stack should be: the machines that were configured.

use kmt_reporters::event::CellId;
use serde::{Deserialize, Serialize};

use crate::external::hypervisor::GuestNetwork;
use crate::matrix::{Cell, Extras};

/// Machines that should exist, and how they are connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackSpec {
    /// What their network reaches.
    #[serde(default)]
    pub network: GuestNetwork,
    /// The machines; no two of one cell.
    #[serde(default)]
    pub machines: Vec<MachineSpec>,
}

/// A machine that should exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// The cell it is for.
    pub cell: CellId,
    /// Virtual processors.
    pub vcpu: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// What else it has.
    #[serde(default, skip_serializing_if = "Extras::is_none")]
    pub extras: Extras,
}

impl From<&Cell> for MachineSpec {
    fn from(cell: &Cell) -> MachineSpec {
        MachineSpec {
            cell: cell.id.clone(),
            vcpu: cell.vcpu,
            memory_mib: cell.memory_mib,
            extras: cell.extras.clone(),
        }
    }
}

/// What becomes of one machine when a stack is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not asked for before.
    Added,
    /// It is asked for as before.
    Kept,
    /// It is asked for otherwise than before.
    Changed,
    /// It is asked for no longer.
    Removed,
}

impl StackSpec {
    /// This and `more`; where both name a cell, `more` counts.
    #[must_use]
    pub fn with(&self, more: &[MachineSpec]) -> StackSpec {
        let mut all = self.clone();
        for machine in more {
            match all.machines.iter_mut().find(|known| known.cell == machine.cell) {
                Some(known) => *known = machine.clone(),
                None => all.machines.push(machine.clone()),
            }
        }
        all
    }

    /// The machine of that cell.
    pub fn machine(&self, cell: &CellId) -> Option<&MachineSpec> {
        self.machines.iter().find(|machine| machine.cell == *cell)
    }

    /// What becomes of each machine of either, in the order of this one, then of `then`.
    pub fn changes<'a>(&'a self, then: &'a StackSpec) -> Vec<(Change, &'a MachineSpec)> {
        let before = self.machines.iter().map(|machine| match then.machine(&machine.cell) {
            Some(same) if same == machine && self.network == then.network => (Change::Kept, machine),
            Some(other) => (Change::Changed, other),
            None => (Change::Removed, machine),
        });
        let after = then.machines.iter().filter(|machine| self.machine(&machine.cell).is_none());
        before.chain(after.map(|machine| (Change::Added, machine))).collect()
    }
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::*;

    fn machine(platform: &str, memory_mib: u32) -> MachineSpec {
        let cell = CellId::local(platform, "6.1", Arch::X86_64);
        MachineSpec { cell, vcpu: 2, memory_mib, extras: Extras::default() }
    }

    #[test]
    fn what_is_added_to_is_kept_and_what_is_new_replaces() {
        let one = StackSpec::default().with(&[machine("debian_12", 1024), machine("debian_13", 1024)]);
        let two = one.with(&[machine("debian_13", 2048), machine("debian_11", 1024)]);
        let changes = |a: &StackSpec, b: &StackSpec| {
            let changes = a.changes(b);
            changes.into_iter().map(|(change, m)| (change, m.cell.platform.clone())).collect::<Vec<_>>()
        };
        let expected =
            [(Change::Kept, "debian_12"), (Change::Changed, "debian_13"), (Change::Added, "debian_11")];
        assert_eq!(changes(&one, &two), expected.map(|(change, name)| (change, name.to_owned())));
        let fresh = StackSpec::default().with(&[machine("debian_12", 1024)]);
        let expected =
            [(Change::Kept, "debian_12"), (Change::Removed, "debian_13"), (Change::Removed, "debian_11")];
        assert_eq!(changes(&two, &fresh), expected.map(|(change, name)| (change, name.to_owned())));
        let open = StackSpec { network: GuestNetwork::Outbound, ..fresh.clone() };
        assert_eq!(changes(&fresh, &open), [(Change::Changed, "debian_12".to_owned())]);
    }
}
