//! The machine for a cell: one of the stack's that is up, or a new one within the room of the host; and what
//! becomes of it afterwards.
//!
//! Both `run` and `stack launch` get their machines here. A machine is written down and leased before anything of
//! it is made, and struck out after the last of it is gone.

mod written;

use std::path::PathBuf;
use std::time::Duration;

use kmt_reporters::event::{CellId, Event, EventSink};
use tokio::sync::watch;
use tokio::time::Instant;

use super::capacity::Room;
use super::seats::{Seat, Seats};
use super::warm::Templates;
use super::{BootFailure, Guest, Parts};
use crate::error::{Failure, Result};
use crate::external::hypervisor::{DomainState, GuestNetwork};
use crate::image::LocalImage;
use crate::matrix::Cell;
use crate::settings::Home;
use crate::stack::record::{Owner, Progress};
use crate::stack::{Lease, MachineRecord, Stack, remove_machine, take_apart};
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

/// Whether the kernels of machines that are made can be debugged from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debugging {
    /// No.
    Off,
    /// A gdb stub listens on a loopback port.
    Gdb,
}

/// In which state a machine is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// As good as it was.
    Good,
    /// Nobody should use it again as it is.
    Doubtful,
}

/// A machine that is held for one cell.
pub struct Held {
    /// As written down.
    pub record: MachineRecord,
    /// How it is used.
    pub guest: Guest,
    lease: Lease,
}

/// What came of taking a machine that is there.
#[expect(clippy::large_enum_variant, reason = "one at a time, and gone at once")]
enum Taken {
    Held(Held),
    /// It cannot be used; another may.
    Another,
    /// A fact says why there is no machine.
    Nothing,
}

/// What came of making one.
#[expect(clippy::large_enum_variant, reason = "one at a time, and gone at once")]
enum Made {
    Up(Held),
    /// Its port was taken meanwhile.
    Again,
    /// Nothing is left of it; a fact says why, unless nothing more is wanted.
    Not,
}

/// What came of waking one.
#[expect(clippy::large_enum_variant, reason = "one at a time, and gone at once")]
enum Waking {
    Up(Held),
    Failed(Lease, BootFailure),
    /// There is no room, as a fact says, or nothing more is wanted.
    Not,
}

/// Gives machines of one stack, on this machine and on others.
pub struct Supply<'a> {
    /// The doors.
    pub world: &'a World,
    /// Where state lives.
    pub home: &'a Home,
    /// The stack whose machines these are.
    pub stack: &'a Stack,
    /// The hosts.
    pub seats: Seats,
    /// What machines start from where they need not boot.
    pub templates: Templates,
    /// What the guests' network reaches.
    pub network: GuestNetwork,
    /// Reuse or fresh.
    pub machines: Machines,
    /// Whether machines that are made can be debugged.
    pub debugging: Debugging,
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
    /// A guest for the cell, by its `turn`: one that is up or wakes, or a new one. `None` where a fact says why there is
    /// none, or where nothing more is wanted.
    ///
    /// # Errors
    /// The stack cannot be read or written, or a machine that is in the way cannot be removed.
    pub async fn machine(&self, cell: &Cell, image: &LocalImage, turn: u32) -> Result<Option<Held>> {
        let made_of = super::made_of(image, self.network, cell);
        let seat = self.seats.of_cell(&cell.id)?;
        let mut known: Vec<_> = self.stack.record()?.machines.into_values().collect();
        known.retain(|machine| machine.cell == cell.id && machine.host.as_deref() == seat.name());
        known.sort_by_key(|machine| machine.owner != Owner::Configured);
        for record in known {
            let Some(lease) = self.stack.lease(&record.id)? else { continue };
            match self.take(seat, record, lease, &made_of).await? {
                Taken::Held(held) => return Ok(Some(held)),
                Taken::Nothing => return Ok(None),
                Taken::Another => {}
            }
        }
        if !self.granted(seat, &cell.id, cell.memory_mib, turn).await {
            return Ok(None);
        }
        let made = self.raise_network_and_make(seat, cell, image, &made_of).await;
        if made.is_err() {
            seat.capacity.given_up();
        }
        made
    }

    /// A machine that is there and down comes up again in room of its own. `None` where a fact says why it does not;
    /// it stays as it is then.
    ///
    /// # Errors
    /// The stack cannot be read or written.
    pub async fn wake(&self, record: MachineRecord, lease: Lease) -> Result<Option<Held>> {
        let (cell, id, begun) = (record.cell.clone(), record.id.clone(), Instant::now());
        let seat = self.seats.of_machine(&record)?;
        match self.try_to_wake(seat, record, lease).await? {
            Waking::Up(held) => return Ok(Some(held)),
            Waking::Failed(_, failure) => self.boot_failed(&cell, &id, failure, begun),
            Waking::Not => {}
        }
        Ok(None)
    }

    async fn try_to_wake(&self, seat: &Seat, record: MachineRecord, lease: Lease) -> Result<Waking> {
        if !self.granted(seat, &record.cell, record.memory_mib, 0).await {
            return Ok(Waking::Not);
        }
        let mut cancelled = self.cancelled.clone();
        self.raise_network(seat, record.network).await.inspect_err(|_| seat.capacity.given_up())?;
        let _processors = seat.capacity.processors(record.vcpu).await;
        let parts = self.parts(seat);
        let woken = tokio::select! {
            woken = parts.wake(&record) => Some(woken),
            _ = cancelled.wait_for(|stop| *stop) => None,
        };
        match woken {
            Some(Ok(guest)) => {
                self.change(&record.id, |machine| machine.rest = None)?;
                let record = MachineRecord { rest: None, ..record };
                return Ok(Waking::Up(Held { record, guest, lease }));
            }
            Some(Err(failure)) => {
                seat.capacity.given_up();
                return Ok(Waking::Failed(lease, failure));
            }
            None => seat.capacity.given_up(),
        }
        Ok(Waking::Not)
    }

    /// Lets a machine go. One that is as good as before stays for the next one, unless it was meant for this run
    /// alone; one that is not is taken away. What is configured is made again by whoever needs it next.
    pub async fn leave(&self, held: Held, condition: Condition) {
        let id = held.record.id.clone();
        let record = self.stack.record().ok().and_then(|record| record.machines.get(&id).cloned());
        let owner = record.map_or(held.record.owner, |machine| machine.owner);
        let Ok(seat) = self.seats.of_machine(&held.record) else { return };
        match (condition, owner) {
            (Condition::Good, Owner::Configured) => seat.capacity.given_up(),
            (Condition::Good, Owner::Run) => seat.capacity.now_idle(&id, held.record.memory_mib),
            (Condition::Doubtful, _) | (_, Owner::ThrowAway) => {
                match remove_machine(self.stack, &id, &self.world.hosts, held.lease).await {
                    Ok(()) => seat.capacity.gone(held.record.memory_mib),
                    Err(failure) => self.still_there(seat, &id, &failure),
                }
            }
        }
    }

    async fn raise_network_and_make(
        &self,
        seat: &Seat,
        cell: &Cell,
        image: &LocalImage,
        made_of: &str,
    ) -> Result<Option<Held>> {
        self.raise_network(seat, self.network).await?;
        self.make(seat, cell, image, made_of).await
    }

    /// Has the stack's own network up where a machine needs it.
    async fn raise_network(&self, seat: &Seat, network: GuestNetwork) -> Result<()> {
        match network {
            GuestNetwork::Closed | GuestNetwork::Outbound => Ok(()),
            GuestNetwork::Nat => self.stack.raise_network(self.home, seat.hypervisor.as_ref()).await,
        }
    }

    /// A new machine in the room that was granted. `None` where nothing is left of it and a fact says why.
    async fn make(
        &self,
        seat: &Seat,
        cell: &Cell,
        image: &LocalImage,
        made_of: &str,
    ) -> Result<Option<Held>> {
        for tries in 1.. {
            let (record, lease) = self.write_down(seat, cell, made_of)?;
            match self.boot(seat, record, lease, image, tries < TRIES).await? {
                Made::Up(held) => return Ok(Some(held)),
                Made::Not => break,
                Made::Again => {}
            }
        }
        Ok(None)
    }

    /// Makes a machine anew from `image`, under the name, port and identity it has. `None` where nothing is left of it
    /// and a fact says why.
    ///
    /// # Errors
    /// The stack cannot be read or written, or the old machine cannot be removed.
    pub async fn renew(
        &self,
        cell: &Cell,
        image: &LocalImage,
        record: MachineRecord,
        lease: Lease,
    ) -> Result<Option<Held>> {
        let seat = self.seats.of_machine(&record)?;
        let up =
            seat.hypervisor.state(&self.stack.domain_name(&record.id)).await? == Some(DomainState::Running);
        let was_idle = seat.capacity.take_idle(&record.id);
        take_apart(self.stack, &record.id, Progress::Making, &self.world.hosts).await?;
        match (up, was_idle) {
            (_, true) => seat.capacity.gone(record.memory_mib),
            (true, false) => seat.capacity.removed(record.memory_mib),
            (false, false) => {}
        }
        if !self.granted(seat, &cell.id, cell.memory_mib, 0).await {
            remove_machine(self.stack, &record.id, &self.world.hosts, lease).await?;
            return Ok(None);
        }
        let made_of = super::made_of(image, self.network, cell);
        let gdb = match record.gdb {
            None => self.gdb_port(&self.claimed()?)?,
            known => known,
        };
        self.raise_network(seat, self.network).await.inspect_err(|_| seat.capacity.given_up())?;
        let record = self.stack.change(|stack| {
            let machine = stack.machines.entry(record.id.clone()).or_insert(record);
            (machine.made_of, machine.network, machine.rest) = (made_of, self.network, None);
            machine.gdb = gdb;
            let id = machine.id.clone();
            stack.address(&id)?;
            Ok::<_, Failure>(stack.machines[&id].clone())
        })??;
        Ok(match self.boot(seat, record, lease, image, false).await? {
            Made::Up(held) => Some(held),
            Made::Again | Made::Not => None,
        })
    }

    /// Whether a machine that is up answers.
    pub async fn answers(&self, record: &MachineRecord) -> bool {
        match self.seats.of_machine(record) {
            Ok(seat) => self.parts(seat).reuse(record).await.is_some(),
            Err(_) => false,
        }
    }

    /// Makes and boots what is written down; what does not come up is taken away, and told unless it is tried again.
    async fn boot(
        &self,
        seat: &Seat,
        record: MachineRecord,
        lease: Lease,
        image: &LocalImage,
        may_try_again: bool,
    ) -> Result<Made> {
        let begun = Instant::now();
        let mut cancelled = self.cancelled.clone();
        let _processors = seat.capacity.processors(record.vcpu).await;
        let booted = tokio::select! {
            booted = self.begin(seat, &record, image) => Some(booted),
            _ = cancelled.wait_for(|stop| *stop) => None,
        };
        let failure = match booted {
            Some(Ok(guest)) => {
                self.change(&record.id, |machine| machine.progress = Progress::Ready)?;
                return Ok(Made::Up(Held { record, guest, lease }));
            }
            other => other.and_then(std::result::Result::err),
        };
        self.keep_console(&record.id);
        let removed = remove_machine(self.stack, &record.id, &self.world.hosts, lease).await;
        if removed.is_ok() && may_try_again && failure.as_ref().is_some_and(BootFailure::port_was_taken) {
            return Ok(Made::Again);
        }
        if let Some(failure) = failure {
            self.boot_failed(&record.cell, &record.id, failure, begun);
        }
        match removed {
            Ok(()) => seat.capacity.gone(record.memory_mib),
            Err(failure) => self.still_there(seat, &record.id, &failure),
        }
        Ok(Made::Not)
    }

    fn boot_failed(&self, cell: &CellId, machine: &str, failure: BootFailure, begun: Instant) {
        self.sink.emit(Event::BootFailed {
            machine: machine.to_owned(),
            cell: cell.clone(),
            phase: failure.phase,
            message: failure.message,
            excerpt: failure.excerpt,
            duration_ms: millis(begun.elapsed()),
            idle_ms: failure.idle.map(millis),
        });
    }

    pub(super) fn parts<'p>(&'p self, seat: &'p Seat) -> Parts<'p> {
        Parts {
            stack: self.stack,
            host: &seat.facts,
            hypervisor: seat.hypervisor.as_ref(),
            transport: self.world.transport.as_ref(),
            sink: self.sink,
            deadlines: self.world.deadlines,
        }
    }

    /// Takes a machine of the stack; one of a run that cannot be used is removed, one that is configured is left.
    async fn take(&self, seat: &Seat, record: MachineRecord, lease: Lease, made_of: &str) -> Result<Taken> {
        let same = record.made_of == made_of && record.progress == Progress::Ready;
        let fit = same && self.machines == Machines::Reuse;
        let was_up = seat.capacity.take_idle(&record.id);
        let state = seat.hypervisor.state(&self.stack.domain_name(&record.id)).await.unwrap_or(None);
        if fit && sleeps(&record, state) {
            return Ok(match self.try_to_wake(seat, record.clone(), lease).await? {
                Waking::Up(held) => Taken::Held(held),
                Waking::Not => Taken::Nothing,
                Waking::Failed(lease, failure) => {
                    self.passed_over(&record, &failure.message);
                    if record.owner != Owner::Configured {
                        remove_machine(self.stack, &record.id, &self.world.hosts, lease).await?;
                    }
                    Taken::Another
                }
            });
        }
        if record.owner == Owner::Configured {
            return Ok(self.take_configured(seat, record, lease, same).await);
        }
        if !was_up && state == Some(DomainState::Running) {
            // Evicted meanwhile, or never idle: its lease is ours, so it is nobody's.
            return Ok(Taken::Another);
        }
        if fit && let Some(guest) = self.parts(seat).reuse(&record).await {
            if self.owner == Owner::ThrowAway {
                self.change(&record.id, |machine| machine.owner = Owner::ThrowAway)?;
            }
            return Ok(Taken::Held(Held { record, guest, lease }));
        }
        let removed = remove_machine(self.stack, &record.id, &self.world.hosts, lease).await;
        match &removed {
            Ok(()) if was_up => seat.capacity.gone(record.memory_mib),
            Err(_) if was_up => seat.capacity.given_up(),
            _ => {}
        }
        removed.map(|()| Taken::Another)
    }

    async fn take_configured(&self, seat: &Seat, record: MachineRecord, lease: Lease, same: bool) -> Taken {
        if !same {
            self.passed_over(&record, "it was made from another image or with other settings");
        } else if self.machines == Machines::Reuse {
            if let Some(guest) = self.parts(seat).reuse(&record).await {
                seat.capacity.works();
                return Taken::Held(Held { record, guest, lease });
            }
            self.passed_over(&record, "it does not answer");
        }
        Taken::Another
    }

    /// Says why a machine is not used.
    fn passed_over(&self, record: &MachineRecord, why: &str) {
        let what = match record.owner {
            Owner::Configured => {
                format!("it is left as it is, and `kmt-run stack reset {}` makes it anew", record.id)
            }
            Owner::Run | Owner::ThrowAway => "another one takes its place".to_owned(),
        };
        let message = format!("{why}; {what}");
        self.sink.emit(Event::Warning { subject: record.id.clone(), message });
    }

    /// Whether there is room for a machine; a fact says why where there is none.
    async fn granted(&self, seat: &Seat, cell: &CellId, memory_mib: u32, turn: u32) -> bool {
        let room = self.room(seat, memory_mib, turn).await;
        if let Err(failure) = &room {
            let (stage, message) = ("capacity".to_owned(), failure.one_line());
            self.sink.emit(Event::CellFailed { cell: cell.clone(), stage, message });
        }
        room.is_ok()
    }

    /// Waits for memory; idle machines go first.
    async fn room(&self, seat: &Seat, memory_mib: u32, turn: u32) -> Result<()> {
        loop {
            match seat.capacity.room(memory_mib, turn).await {
                Ok(Room::Granted) => return Ok(()),
                Ok(Room::Evict(id)) => {
                    let memory = self.stack.record()?.machines.get(&id).map_or(0, |m| m.memory_mib);
                    if let Some(lease) = self.stack.lease(&id)? {
                        remove_machine(self.stack, &id, &self.world.hosts, lease).await?;
                        seat.capacity.removed(memory);
                    }
                }
                Err((wanted, there)) => {
                    let which = seat.name().map_or("the host".to_owned(), |name| format!("`{name}`"));
                    return Err(Failure::usage(format!(
                        "a machine of {wanted} MiB does not fit: {which} has {there} MiB to give"
                    ))
                    .hint("`memory =` in the matrix, or end other machines: `kmt-run stack list`"));
                }
            }
        }
    }

    fn keep_console(&self, machine: &str) {
        let console = self.stack.machine_folder(machine).join("console.log");
        super::console::keep(&console, &self.consoles.join(machine), machine, self.sink);
    }

    /// A machine could not be removed: it may still take its memory.
    fn still_there(&self, seat: &Seat, machine: &str, failure: &Failure) {
        seat.capacity.given_up();
        let message = format!("{}; the next command tries again", failure.one_line());
        self.sink.emit(Event::Warning { subject: machine.to_owned(), message });
    }
}

/// Whether a machine is there and comes up by being woken.
fn sleeps(record: &MachineRecord, state: Option<DomainState>) -> bool {
    match state {
        Some(DomainState::Saved) => true,
        // Its memory is being written for somebody who is gone.
        Some(DomainState::Paused) => record.rest.is_some(),
        // One of a run that went off by itself is in an unknown state.
        Some(DomainState::Off) => record.owner == Owner::Configured || record.rest.is_some(),
        _ => false,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
