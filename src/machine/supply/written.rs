//! What is written down of a machine before anything of it is made: whose it is, its ports, its address.

use super::{Debugging, Supply};
use crate::error::Result;
use crate::machine::free_port;
use crate::machine::seats::Seat;
use crate::matrix::Cell;
use crate::stack::record::Owner;
use crate::stack::{Lease, MachineRecord, MachineSpec, Stack, StackRecord};

impl Supply<'_> {
    /// Ports that machines have, whether they run or not.
    pub(super) fn claimed(&self) -> Result<Vec<u16>> {
        let records = Stack::all(self.home)?.into_iter().filter_map(|stack| stack.record().ok());
        let machines = records.flat_map(|record| record.machines.into_values());
        Ok(machines.flat_map(|machine| std::iter::once(machine.port).chain(machine.gdb)).collect())
    }

    /// A port for a gdb stub beside those that are claimed, where one is wanted.
    pub(super) fn gdb_port(&self, claimed: &[u16]) -> Result<Option<u16>> {
        match self.debugging {
            Debugging::Off => Ok(None),
            Debugging::Gdb => free_port(|port| claimed.contains(&port)).map(Some),
        }
    }

    pub(super) fn write_down(
        &self,
        seat: &Seat,
        cell: &Cell,
        made_of: &str,
    ) -> Result<(MachineRecord, Lease)> {
        let claimed = self.claimed()?;
        let gdb = self.gdb_port(&claimed)?;
        let port = free_port(|port| claimed.contains(&port) || gdb == Some(port))?;
        let mut addressed = Ok(());
        let added = self.stack.add_leased(|record| {
            let mut machine = record.add(&cell.id, cell.vcpu, cell.memory_mib, port);
            machine.gdb = gdb;
            machine.host = seat.name().map(str::to_owned);
            if let Some(host) = &seat.host {
                record.hosts.entry(host.name.clone()).or_insert_with(|| host.clone());
            }
            machine.made_of = made_of.to_owned();
            machine.owner = self.owner_of(record, cell);
            machine.network = self.network;
            machine.extras = cell.extras.clone();
            record.machines.insert(machine.id.clone(), machine.clone());
            addressed = record.address(&machine.id);
            record.machines.get(&machine.id).cloned().unwrap_or(machine)
        })?;
        addressed.map(|()| added)
    }

    /// Whose a new machine is: the configuration's, where it asks for just this one and has none.
    fn owner_of(&self, record: &StackRecord, cell: &Cell) -> Owner {
        let wanted = record.spec.machine(&cell.id).is_some_and(|wanted| *wanted == MachineSpec::from(cell))
            && record.spec.network == self.network;
        let there = record.machines.values().any(|m| m.owner == Owner::Configured && m.cell == cell.id);
        if wanted && !there && self.owner == Owner::Run { Owner::Configured } else { self.owner }
    }

    pub(super) fn change(&self, machine: &str, change: impl FnOnce(&mut MachineRecord)) -> Result<()> {
        self.stack.change(|record| record.machines.get_mut(machine).map(change)).map(drop)
    }
}
