//! Where machines are put: this machine and other hosts, each with what it is and what room it has.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use kmt_reporters::event::{Arch, CellId, Location};

use super::capacity::Capacity;
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::{HostFacts, Hypervisor};
use crate::external::remote::RemoteHost;
use crate::stack::MachineRecord;

/// One host, as machines are put on it.
pub struct Seat {
    /// Which one; none is this machine.
    pub host: Option<RemoteHost>,
    /// What it is.
    pub facts: HostFacts,
    /// Room on it.
    pub capacity: Capacity,
    /// Runs its machines.
    pub hypervisor: Arc<dyn Hypervisor>,
}

impl Seat {
    /// Its name in records; none is this machine.
    pub fn name(&self) -> Option<&str> {
        self.host.as_ref().map(|host| host.name.as_str())
    }

    /// Its name for people.
    pub fn label(&self) -> &str {
        self.name().unwrap_or("local")
    }
}

/// All of them, and which remote cell goes where.
pub struct Seats {
    /// This machine.
    pub here: Seat,
    /// Other hosts.
    pub others: Vec<Seat>,
    /// The host of each remote cell.
    pub placed: BTreeMap<CellId, String>,
    /// Hosts that come while machines are made already.
    pub later: OnceLock<Later>,
}

/// Hosts that came later, and why others did not.
#[derive(Default)]
pub struct Later {
    /// Those that came.
    pub others: Vec<Seat>,
    /// The host of each remote cell that waited for one.
    pub placed: BTreeMap<CellId, String>,
    /// Why none came, by architecture.
    pub refused: BTreeMap<Arch, Failure>,
}

impl Seats {
    /// This machine alone.
    pub fn here(seat: Seat) -> Seats {
        Seats { here: seat, others: Vec::new(), placed: BTreeMap::new(), later: OnceLock::new() }
    }

    /// The seat of that name; none is this machine.
    fn named(&self, name: Option<&str>) -> Option<&Seat> {
        match name {
            None => Some(&self.here),
            Some(name) => {
                let later = self.later.get().map(|later| later.others.as_slice()).unwrap_or_default();
                self.others.iter().chain(later).find(|seat| seat.name() == Some(name))
            }
        }
    }

    /// Where machines of a cell are made.
    ///
    /// # Errors
    /// It is remote, and no host of its architecture is to be had.
    pub fn of_cell(&self, cell: &CellId) -> Result<&Seat> {
        let seat = match cell.location {
            Location::Local => Some(&self.here),
            Location::Remote => {
                let later = || self.later.get().and_then(|later| later.placed.get(cell));
                self.placed.get(cell).or_else(later).and_then(|name| self.named(Some(name)))
            }
        };
        if let (None, Some(why)) = (&seat, self.later.get().and_then(|later| later.refused.get(&cell.arch))) {
            return Err(why.clone());
        }
        seat.ok_or_else(|| {
            Failure::new(Kind::Infrastructure, format!("no remote host takes `{cell}`"))
                .hint("`[[host]]` in the user's file names hosts of one's own")
        })
    }

    /// Where a machine is.
    ///
    /// # Errors
    /// Its host is not among those that can be used now.
    pub fn of_machine(&self, machine: &MachineRecord) -> Result<&Seat> {
        self.named(machine.host.as_deref()).ok_or_else(|| {
            let host = machine.host.as_deref().unwrap_or_default();
            Failure::new(
                Kind::Infrastructure,
                format!("the host `{host}` of machine `{}` cannot be used", machine.id),
            )
            .hint("`[[host]]` in the user's file says how it is reached")
        })
    }
}
