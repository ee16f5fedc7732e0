//! The machine for a cell: one of the stack's that is up, or a new one within the room of the host; and what
//! becomes of it afterwards.
//!
//! Both `run` and `stack launch` get their machines here. A machine is written down and leased before anything of
//! it is made, and struck out after the last of it is gone.

use std::path::PathBuf;
use std::time::Duration;

use kmt_reporters::event::{BootPhase, Event, EventSink};
use tokio::sync::watch;
use tokio::time::Instant;

use super::capacity::{Capacity, Room};
use super::{BootFailure, Guest, Parts};
use crate::error::{Failure, Result};
use crate::external::hypervisor::{GuestNetwork, HostFacts};
use crate::image::LocalImage;
use crate::matrix::Cell;
use crate::settings::Home;
use crate::stack::record::{Owner, Progress};
use crate::stack::{Lease, MachineRecord, Stack, remove_machine};
use crate::world::World;

/// How often a machine is made again whose port was taken meanwhile.
const TRIES: u32 = 3;

/// Reuse machines that are up, or boot fresh ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines {
    /// Those that are up and healthy are taken.
    Reuse,
    /// Those that are up are removed first.
    Fresh,
}

/// A machine that is held for one cell.
pub struct Held {
    /// As written down.
    pub record: MachineRecord,
    /// How it is used.
    pub guest: Guest,
    lease: Lease,
}

/// Gives machines of one stack on one host.
pub struct Supply<'a> {
    /// The doors.
    pub world: &'a World,
    /// Where state lives.
    pub home: &'a Home,
    /// The stack whose machines these are.
    pub stack: &'a Stack,
    /// The host.
    pub host: &'a HostFacts,
    /// Room on it.
    pub capacity: Capacity,
    /// What the guests' network reaches.
    pub network: GuestNetwork,
    /// Reuse or fresh.
    pub machines: Machines,
    /// Who wants the machines.
    pub owner: Owner,
    /// Takes the facts.
    pub sink: &'a dyn EventSink,
    /// Folder that gets `<machine>/console.log` of a machine that goes before it was used.
    pub consoles: PathBuf,
    /// Turns true when nothing more is wanted.
    pub cancelled: watch::Receiver<bool>,
}

impl Supply<'_> {
    /// A guest for the cell: one that is up, or a new one. `None` where a fact says why there is none, or where
    /// nothing more is wanted.
    ///
    /// # Errors
    /// The stack cannot be read or written, or a machine that is in the way cannot be removed.
    pub async fn machine(&self, cell: &Cell, image: &LocalImage) -> Result<Option<Held>> {
        let made_of = super::made_of(image, self.network, cell.vcpu, cell.memory_mib);
        for record in self.stack.record()?.machines.into_values().filter(|m| m.cell == cell.id) {
            let Some(lease) = self.stack.lease(&record.id)? else { continue };
            if let Some(held) = self.reuse(record, lease, &made_of).await? {
                return Ok(Some(held));
            }
        }
        if let Err(failure) = self.room(cell).await {
            let message = failure.one_line();
            let stage = "capacity".to_owned();
            self.sink.emit(Event::CellFailed { cell: cell.id.clone(), stage, message });
            return Ok(None);
        }
        let made = self.make(cell, image, &made_of).await;
        if made.is_err() {
            self.capacity.given_up();
        }
        made
    }

    /// Lets a machine go that is as good as before: it stays for the next one.
    pub fn release(&self, held: Held) {
        self.capacity.now_idle(&held.record.id, held.record.memory_mib);
    }

    /// Takes away a machine that nobody should use again.
    pub async fn discard(&self, held: Held) {
        let id = held.record.id;
        match remove_machine(self.stack, &id, self.world.hypervisor.as_ref(), held.lease).await {
            Ok(()) => self.capacity.gone(held.record.memory_mib),
            Err(failure) => self.still_there(&id, &failure),
        }
    }

    /// A new machine in the room that was granted. `None` where nothing is left of it and a fact says why.
    async fn make(&self, cell: &Cell, image: &LocalImage, made_of: &str) -> Result<Option<Held>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (record, lease) = self.write_down(cell, made_of)?;
            let begun = Instant::now();
            let mut cancelled = self.cancelled.clone();
            let parts = self.parts();
            let _processors = self.capacity.processors(cell.vcpu).await;
            let booted = tokio::select! {
                booted = parts.boot(&record, image) => Some(booted),
                _ = cancelled.wait_for(|stop| *stop) => None,
            };
            let failure = match booted {
                Some(Ok(guest)) => {
                    self.mark(&record.id, Progress::Ready)?;
                    return Ok(Some(Held { record, guest, lease }));
                }
                other => other.and_then(std::result::Result::err),
            };
            self.keep_console(&record.id);
            let removed = remove_machine(self.stack, &record.id, self.world.hypervisor.as_ref(), lease).await;
            if removed.is_ok() && tries < TRIES && failure.as_ref().is_some_and(port_was_taken) {
                continue;
            }
            if let Some(failure) = failure {
                self.boot_failed(cell, &record.id, failure, begun);
            }
            match removed {
                Ok(()) => self.capacity.gone(cell.memory_mib),
                Err(failure) => self.still_there(&record.id, &failure),
            }
            return Ok(None);
        }
    }

    fn boot_failed(&self, cell: &Cell, machine: &str, failure: BootFailure, begun: Instant) {
        self.sink.emit(Event::BootFailed {
            machine: machine.to_owned(),
            cell: cell.id.clone(),
            phase: failure.phase,
            message: failure.message,
            excerpt: failure.excerpt,
            duration_ms: millis(begun.elapsed()),
        });
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            stack: self.stack,
            host: self.host,
            network: self.network,
            hypervisor: self.world.hypervisor.as_ref(),
            transport: self.world.transport.as_ref(),
            sink: self.sink,
            deadlines: self.world.deadlines,
        }
    }

    /// Takes a machine of the stack that is up; one that cannot be used is removed.
    async fn reuse(&self, record: MachineRecord, lease: Lease, made_of: &str) -> Result<Option<Held>> {
        if !self.capacity.take_idle(&record.id) {
            // Evicted meanwhile, or never idle: its lease is ours, so it is nobody's.
            return Ok(None);
        }
        let fit = self.machines == Machines::Reuse
            && record.made_of == made_of
            && record.progress == Progress::Ready;
        if fit && let Some(guest) = self.parts().reuse(&record).await {
            if self.owner == Owner::ThrowAway {
                self.stack.change(|stack| {
                    stack.machines.entry(record.id.clone()).and_modify(|m| m.owner = Owner::ThrowAway);
                })?;
            }
            return Ok(Some(Held { record, guest, lease }));
        }
        let removed = remove_machine(self.stack, &record.id, self.world.hypervisor.as_ref(), lease).await;
        match &removed {
            Ok(()) => self.capacity.gone(record.memory_mib),
            Err(_) => self.capacity.given_up(),
        }
        removed.map(|()| None)
    }

    /// Waits for memory; idle machines go first.
    async fn room(&self, cell: &Cell) -> Result<()> {
        loop {
            match self.capacity.room(cell.memory_mib).await {
                Ok(Room::Granted) => return Ok(()),
                Ok(Room::Evict(id)) => {
                    let memory = self.stack.record()?.machines.get(&id).map_or(0, |m| m.memory_mib);
                    if let Some(lease) = self.stack.lease(&id)? {
                        remove_machine(self.stack, &id, self.world.hypervisor.as_ref(), lease).await?;
                        self.capacity.removed(memory);
                    }
                }
                Err((wanted, there)) => {
                    return Err(Failure::usage(format!(
                        "a machine of {wanted} MiB does not fit: the host has {there} MiB to give"
                    ))
                    .hint("`memory =` in the matrix, or end other machines: `kmt-run stack list`"));
                }
            }
        }
    }

    fn write_down(&self, cell: &Cell, made_of: &str) -> Result<(MachineRecord, Lease)> {
        let known: Vec<u16> = Stack::all(self.home)?
            .iter()
            .filter_map(|stack| stack.record().ok())
            .flat_map(|record| record.machines.into_values().map(|m| m.port))
            .collect();
        let port = super::free_port(|port| known.contains(&port))?;
        self.stack.add_leased(|record| {
            let mut machine = record.add(&cell.id, cell.vcpu, cell.memory_mib, port);
            machine.made_of = made_of.to_owned();
            machine.owner = self.owner;
            record.machines.insert(machine.id.clone(), machine.clone());
            machine
        })
    }

    fn mark(&self, machine: &str, progress: Progress) -> Result<()> {
        self.stack.change(|record| {
            record.machines.entry(machine.to_owned()).and_modify(|m| m.progress = progress);
        })
    }

    fn keep_console(&self, machine: &str) {
        let console = self.stack.machine_folder(machine).join("console.log");
        super::console::keep(&console, &self.consoles.join(machine), machine, self.sink);
    }

    /// A machine could not be removed: it may still take its memory.
    fn still_there(&self, machine: &str, failure: &Failure) {
        self.capacity.given_up();
        let message = format!("{}; the next command tries again", failure.one_line());
        self.sink.emit(Event::Warning { subject: machine.to_owned(), message });
    }
}

fn port_was_taken(failure: &BootFailure) -> bool {
    failure.phase == Some(BootPhase::Defined) && failure.message.contains("host forwarding")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
