//! Remote hosts of a command: which are wanted, whether they answer, what room they have, and which cell goes where.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use kmt_reporters::event::{Arch, CellId, Event, EventSink, Location};

use super::machines;
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::HostFacts;
use crate::external::remote::RemoteHost;
use crate::hosts::place::{Room, Wish, place};
use crate::machine::capacity::{HOST_KEEPS_MIB, cost};
use crate::machine::seats::{Seat, Seats};
use crate::matrix::Cell;
use crate::settings::Settings;
use crate::stack::Stack;
use crate::world::World;

/// A host that answers, and what it is.
pub(super) struct Ready {
    /// The host.
    pub(super) host: RemoteHost,
    /// What it is.
    pub(super) facts: HostFacts,
}

/// The remote hosts that a command may use.
#[derive(Default)]
pub(super) struct Remotes {
    /// Those that answer.
    pub(super) ready: Vec<Ready>,
    /// Why others do not.
    pub(super) refused: Vec<(String, Failure)>,
    /// Architectures for which hosts are rented.
    pub(super) coming: BTreeSet<Arch>,
}

impl Remotes {
    /// Whether some host takes guests of that architecture.
    pub(super) fn takes(&self, arch: Arch) -> bool {
        self.coming.contains(&arch) || self.ready.iter().any(|ready| ready.host.arch == arch)
    }

    /// Why no host takes guests of that architecture.
    fn why_not(&self, cell: &CellId) -> Failure {
        let failure = Failure::new(Kind::Remote, format!("no remote host takes `{cell}`"));
        self.refused.iter().fold(failure, |failure, (name, why)| {
            let failure = failure.caused_by(format!("`{name}`: {}", why.message));
            why.hints.iter().fold(failure, |failure, hint| match failure.hints.contains(hint) {
                true => failure,
                false => failure.hint(hint.clone()),
            })
        })
    }

    /// Refuses cells that no host takes.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn refuse<'c>(&self, mut cells: impl Iterator<Item = &'c Cell>) -> Result<()> {
        let homeless = cells.find(|cell| cell.id.location == Location::Remote && !self.takes(cell.id.arch));
        homeless.map_or(Ok(()), |cell| Err(self.why_not(&cell.id)))
    }

    /// Tells what was found: hosts that answer, and those that others stand in for.
    pub(super) fn tell(&self, sink: &dyn EventSink) {
        for Ready { host, facts } in &self.ready {
            sink.emit(Event::HostReady {
                host: host.name.clone(),
                accelerator: facts.acceleration.accelerator.as_str().to_owned(),
                notice: facts.acceleration.notice.clone(),
            });
        }
        for (name, why) in &self.refused {
            let message = format!("this host is not used: {}", why.message);
            sink.emit(Event::Warning { subject: name.clone(), message });
        }
    }
}

/// Asks the user's own hosts, and those that machines of the stack are on, as far as these cells or machines need them.
pub(super) async fn ask<'c>(
    settings: &Settings,
    world: &World,
    stack: Option<&Stack>,
    cells: impl Iterator<Item = &'c CellId>,
) -> Result<Remotes> {
    let archs: BTreeSet<Arch> =
        cells.filter(|cell| cell.location == Location::Remote).map(|cell| cell.arch).collect();
    let mut wanted: BTreeMap<String, RemoteHost> = BTreeMap::new();
    // What the user says of a host today counts more than what was written down of it.
    for host in settings.hosts.value.iter().filter(|host| archs.contains(&host.arch)) {
        wanted.insert(host.name.clone(), host.clone());
    }
    if let Some(stack) = stack.filter(|_| !archs.is_empty()) {
        for (name, host) in stack.record()?.hosts {
            wanted.entry(name).or_insert(host);
        }
    }
    let asked = join_all(wanted.into_values().map(|host| async {
        let facts = look(world, &host).await;
        (host, facts)
    }));
    let mut remotes = Remotes::default();
    for (host, facts) in asked.await {
        match facts {
            Ok(facts) => remotes.ready.push(Ready { host, facts }),
            Err(failure) => remotes.refused.push((host.name, failure)),
        }
    }
    Ok(remotes)
}

/// What a host is, if it can be used.
///
/// # Errors
/// It cannot.
pub(super) async fn look(world: &World, host: &RemoteHost) -> Result<HostFacts> {
    world.hosts.check(host).await?;
    let mut facts = world.hosts.of(host)?.facts().await?;
    facts.memory_mib = facts.memory_mib.max(HOST_KEEPS_MIB);
    Ok(facts)
}

/// This machine and the hosts that answer, with the room on each, and a host for each remote cell.
///
/// # Errors
/// The stack cannot be read or written, or a hypervisor does not say which machines run.
pub(super) async fn seats(
    world: &World,
    stack: &Stack,
    here: &HostFacts,
    remotes: Remotes,
    cells: &[&Cell],
    oversubscribe: bool,
) -> Result<Seats> {
    let capacity = machines::capacity(here, stack, &world.hosts.here(), None, oversubscribe).await?;
    let mut seats =
        Seats::here(Seat { host: None, facts: here.clone(), capacity, hypervisor: world.hosts.here() });
    (seats.others, seats.placed) = others(world, stack, remotes, cells, oversubscribe).await?;
    Ok(seats)
}

/// The hosts that answer, with the room on each, and which of the remote cells go where.
///
/// # Errors
/// As [`seats`].
pub(super) async fn others(
    world: &World,
    stack: &Stack,
    remotes: Remotes,
    cells: &[&Cell],
    oversubscribe: bool,
) -> Result<(Vec<Seat>, BTreeMap<CellId, String>)> {
    let placed = placed(stack, &remotes, cells)?;
    let mut others = Vec::new();
    for Ready { host, facts } in remotes.ready {
        let hypervisor = world.hosts.of(&host)?;
        let capacity =
            machines::capacity(&facts, stack, &hypervisor, Some(&host.name), oversubscribe).await?;
        // Where it is reached today is where its machines are taken away tomorrow.
        if stack.record()?.hosts.get(&host.name).is_some_and(|known| *known != host) {
            stack.change(|record| record.hosts.insert(host.name.clone(), host.clone()))?;
        }
        others.push(Seat { host: Some(host), facts, capacity, hypervisor });
    }
    Ok((others, placed))
}

fn placed(stack: &Stack, remotes: &Remotes, cells: &[&Cell]) -> Result<BTreeMap<CellId, String>> {
    let record = stack.record()?;
    let at = |cell: &CellId| {
        record
            .machines
            .values()
            .find(|machine| machine.cell == *cell)
            .and_then(|machine| machine.host.as_deref())
    };
    let wishes: Vec<Wish<'_>> = cells
        .iter()
        .filter(|cell| cell.id.location == Location::Remote)
        .map(|cell| Wish { cell: &cell.id, memory_mib: cost(cell.memory_mib), at: at(&cell.id) })
        .collect();
    let rooms: Vec<Room<'_>> = remotes
        .ready
        .iter()
        .map(|Ready { host, facts }| Room { host: &host.name, arch: host.arch, memory_mib: facts.memory_mib })
        .collect();
    Ok(place(&wishes, &rooms).into_iter().map(|(cell, host)| (cell, host.to_owned())).collect())
}
