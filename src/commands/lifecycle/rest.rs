//! `stack pause`, `resume` and `reset`: machines that are there end, come up again, or are made anew.

use futures_util::future::join_all;
use kmt_reporters::event::Location;

use super::super::{machines, say, source};
use super::{Desk, plural};
use crate::error::{Failure, Result};
use crate::external::hypervisor::DomainState;
use crate::image::{ImageStore, SharedImages};
use crate::machine::Parts;
use crate::machine::supply::Debugging;
use crate::machine::warm::Unbegun;
use crate::stack::reconcile::Step;
use crate::stack::record::Rest;
use crate::stack::{MachineRecord, Stack, alias, lease_all};

/// Which machines a pause reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those of this machine.
    Here,
    /// Those of remote hosts too.
    Everywhere,
}

impl Reach {
    /// What `--remote` means.
    pub(super) fn of(remote: bool) -> Reach {
        if remote { Reach::Everywhere } else { Reach::Here }
    }

    /// Whether that machine is meant; says so where it is not.
    fn takes(self, machine: &MachineRecord) -> bool {
        let taken = self == Reach::Everywhere || machine.cell.location == Location::Local;
        if !taken {
            let what = "it is remote, and left alone; `--remote` takes it too";
            say(&format!("{:>12} {}: {what}", "Note", machine.id));
        }
        taken
    }
}

/// Ends all machines of the stack that run, and keeps what they are.
///
/// # Errors
/// One is in use by another process, or the hypervisor refused; those that are paused stay so.
pub(super) async fn pause(desk: &Desk<'_>, how: Rest, reach: Reach) -> Result<u8> {
    let leases = lease_all(&desk.stack)?;
    let mut paused = Vec::new();
    for (machine, _) in &leases {
        if !reach.takes(machine) {
            continue;
        }
        let hypervisor = desk.world.hosts.of_machine(&desk.stack.record()?, machine)?;
        let state = hypervisor.state(&desk.stack.domain_name(&machine.id)).await?;
        if state == Some(DomainState::Running) {
            paused.push(machine);
        }
    }
    let done = join_all(paused.iter().map(|machine| pause_one(desk, machine, how))).await;
    done.into_iter().collect::<Result<Vec<()>>>()?;
    let freed: u64 = paused.iter().map(|machine| u64::from(machine.memory_mib)).sum();
    let what = plural(paused.len(), "machine");
    say(&format!("{:>12} stack `{}`: {what}, {freed} MiB are free again", "Paused", desk.stack.name));
    if !paused.is_empty() {
        say(&format!("{:>12} kmt-run stack resume --stack {}", "next:", desk.stack.name));
    }
    Ok(0)
}

async fn pause_one(desk: &Desk<'_>, machine: &MachineRecord, how: Rest) -> Result<()> {
    let hypervisor = desk.world.hosts.of_machine(&desk.stack.record()?, machine)?;
    let domain = desk.stack.domain_name(&machine.id);
    // Written down first: whoever finds it knows that it is meant to come up again as it is.
    desk.stack.change(|record| {
        record.machines.entry(machine.id.clone()).and_modify(|m| m.rest = Some(how));
    })?;
    match how {
        Rest::Saved => hypervisor.save(&domain).await?,
        Rest::Off => {
            flush(desk, machine).await;
            hypervisor.stop(&domain).await?;
        }
    }
    Ok(())
}

/// Has a guest write to its disk what it still keeps in memory; one that does not answer has nothing better to give.
async fn flush(desk: &Desk<'_>, machine: &MachineRecord) {
    let route = Parts::route_of(&desk.stack, machine);
    let flushed = tokio::time::timeout(desk.world.deadlines.ready, async {
        let connection = desk.world.transport.connect(&route).await?;
        let flushed = connection.run(&["sync"], Vec::new()).await;
        connection.close().await;
        flushed
    });
    if !matches!(flushed.await, Ok(Ok(output)) if output.ok()) {
        say(&format!(
            "{:>12} {}: it did not write out its disk before it was powered off",
            "Warning", machine.id
        ));
    }
}

/// Brings up all machines of the stack that are paused or off.
///
/// # Errors
/// No room, or a machine that did not come up.
pub(super) async fn resume(desk: &Desk<'_>, oversubscribe: bool, reach: Reach) -> Result<u8> {
    let seen = desk.seen().await?;
    let asleep = |rest: Option<Rest>, state| match state {
        Some(DomainState::Saved | DomainState::Off) => true,
        Some(DomainState::Running | DomainState::Paused) => rest.is_some(),
        None => false,
    };
    let asleep: Vec<_> = seen
        .iter()
        .filter(|machine| asleep(machine.record.rest, machine.state) && reach.takes(&machine.record))
        .collect();
    let host = desk.host().await?;
    if !oversubscribe {
        let steps: Vec<Step> = asleep.iter().map(|machine| Step::Wake(machine.record.id.clone())).collect();
        machines::fit(&host, &seen, &steps, &desk.stack.record()?.spec)?;
    }
    let supply = desk.supply(&host, oversubscribe, Debugging::Off).await?;
    let woken = join_all(asleep.iter().map(|machine| async {
        match desk.stack.lease(&machine.record.id)? {
            Some(lease) => Ok(supply.wake(machine.record.clone(), lease).await?.is_some()),
            // Another process has woken it.
            None => Ok::<_, Failure>(true),
        }
    }));
    let woken = woken.await.into_iter().collect::<Result<Vec<bool>>>()?;
    desk.end(woken.iter().filter(|up| **up).count(), asleep.len(), "Resumed")
}

/// Makes one machine anew, as its image is.
///
/// # Errors
/// No such machine, one that is in use, or one that does not boot.
pub(super) async fn reset(desk: &Desk<'_>, wanted: &str, debugging: Debugging) -> Result<u8> {
    let record = find(desk, wanted)?;
    let Some(lease) = desk.stack.lease(&record.id)? else {
        return Err(Failure::new(
            crate::error::Kind::Infrastructure,
            format!("machine `{}` is in use by another kmt-run", record.id),
        )
        .hint("wait for it, or end it; then repeat this command"));
    };
    let catalogue = source::catalogue()?;
    let cell = source::cell_of(&catalogue, &record.cell, (record.vcpu, record.memory_mib), &record.extras)
        .ok_or_else(|| Failure::usage(format!("the catalogue does not know `{}`", record.cell)))?;
    let request = source::image_of(&cell, &catalogue)?;
    let home = &desk.settings.home;
    let store =
        ImageStore::new(home.images(), home.cache(), desk.world.debian.clone(), desk.world.store.clone());
    let image = SharedImages::new(&store, [&request]).get(&request, desk.told.as_ref()).await?;
    let host = desk.host().await?;
    let supply = desk.supply(&host, false, debugging).await?;
    let held = supply.beside(supply.renew(&cell, &image, record, lease), Unbegun::Begin).await?;
    if let Some(line) = held.as_ref().and_then(|held| held.record.gdb_line()) {
        say(&format!("{:>12} {line}", "gdb:"));
    }
    desk.end(usize::from(held.is_some()), 1, "Reset")
}

/// The machine that is meant.
fn find(desk: &Desk<'_>, wanted: &str) -> Result<MachineRecord> {
    let all: Vec<_> = Stack::all(&desk.settings.home)?
        .into_iter()
        .filter_map(|stack| stack.record().ok().map(|record| (stack, record)))
        .collect();
    let machines: Vec<_> =
        alias::name_all(&all).into_iter().filter(|named| named.stack.uuid == desk.stack.uuid).collect();
    Ok(alias::one(&machines, wanted, &source::catalogue()?)?.machine.clone())
}
