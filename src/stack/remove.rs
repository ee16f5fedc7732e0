//! Taking away: one machine, what a dead process left, a whole stack. Every step can be repeated.

use std::collections::BTreeMap;

use crate::error::{Failure, Kind, Result};
use crate::external::remote::RemoteHost;
use crate::hosts::Hosts;
use crate::settings::Home;

use super::record::{Owner, Progress};
use super::{Lease, MachineRecord, Stack};

/// Takes away a machine whose lease is held: domain, files, record, in this order. It is written down as
/// spoiled first, so that a later command finishes what a killed one began.
///
/// # Errors
/// The hypervisor or the file system refused; the record stays, and the next command tries again.
pub async fn remove_machine(stack: &Stack, machine: &str, hosts: &Hosts, lease: Lease) -> Result<()> {
    take_apart(stack, machine, Progress::Spoiled, hosts).await?;
    stack.change(|record| {
        record.machines.remove(machine);
        record.forget_unused_hosts();
    })?;
    drop(lease);
    Ok(())
}

/// Takes away all a leased machine consists of but its record, which says `then` before anything goes.
///
/// # Errors
/// The hypervisor or the file system refused.
pub async fn take_apart(stack: &Stack, machine: &str, then: Progress, hosts: &Hosts) -> Result<()> {
    let note = || {
        stack.change(|record| {
            record.machines.entry(machine.to_owned()).and_modify(|m| m.progress = then);
        })
    };
    let record = stack.record()?;
    let noted = note();
    let hypervisor = match record.machines.get(machine) {
        Some(machine) => hosts.of_machine(&record, machine)?,
        None => hosts.here(),
    };
    hypervisor.remove(&stack.domain_name(machine)).await?;
    remove_folder(&stack.machine_sockets(machine))?;
    // Only an empty folder goes: the other machines keep theirs.
    let _ = std::fs::remove_dir(stack.sockets());
    for disk in memory_disks(stack, machine) {
        remove_file(&disk)?;
    }
    remove_folder(&stack.machine_folder(machine))?;
    // A disk that is full keeps nobody from making room on it: then it is written down once there is some.
    noted.or_else(|_| note())
}

/// Disks in memory that a machine may have, by number.
fn memory_disks(stack: &Stack, machine: &str) -> Vec<std::path::PathBuf> {
    let disks = stack.record().ok().and_then(|record| Some(record.machines.get(machine)?.extras.disks.len()));
    (0..disks.unwrap_or(0)).map(|number| stack.memory_disk(machine, number)).collect()
}

fn remove_file(file: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("remove", file, &error))
        }
        _ => Ok(()),
    }
}

pub(super) fn remove_folder(folder: &std::path::Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("remove", folder, &error))
        }
        _ => Ok(()),
    }
}

/// Removes, in every stack, what processes that are gone left half-made or meant to throw away.
///
/// # Returns
/// The ids that were removed.
///
/// # Errors
/// A stack cannot be read or the hypervisor refused.
pub async fn sweep(home: &Home, hosts: &Hosts) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for stack in Stack::all(home)? {
        super::keys::sweep(&stack.folder)?;
        for machine in stack.record()?.machines.values() {
            let unwanted = machine.progress != Progress::Ready || machine.owner == Owner::ThrowAway;
            if !unwanted {
                continue;
            }
            if let Some(lease) = stack.lease(&machine.id)? {
                match remove_machine(&stack, &machine.id, hosts, lease).await {
                    // What is on a host that does not answer stays written down, and keeps nobody from other work.
                    Err(_) if machine.host.is_some() => {}
                    done => {
                        done?;
                        removed.push(machine.id.clone());
                    }
                }
            }
        }
    }
    Ok(removed)
}

/// What became of a stack that was to go.
#[derive(Debug, Default)]
pub struct Destroyed {
    /// How many machines are gone.
    pub machines: usize,
    /// What is left, by the remote host it is on.
    pub left: BTreeMap<String, Left>,
}

/// What a remote host did not let go.
#[derive(Debug)]
pub struct Left {
    /// Ids of the machines.
    pub machines: Vec<String>,
    /// Why, of the first of them: the others were not tried.
    pub why: Failure,
}

/// Removes a stack: all its machines, domains that say they are its, its folder. Where a remote host does not let go of
/// what is on it, or a rented one did not end, all else goes, and the record stays with that: to be repeated.
///
/// # Errors
/// A machine is in use by another process, or something of this machine refused to go; the rest stays recorded.
pub async fn destroy(stack: &Stack, hosts: &Hosts) -> Result<Destroyed> {
    let leases = lease_all(stack)?;
    let others = stack.record()?.hosts;
    let mut done = Destroyed::default();
    let (here, there): (Vec<_>, Vec<_>) = leases.into_iter().partition(|(machine, _)| machine.host.is_none());
    for (machine, lease) in here.into_iter().chain(there) {
        let known = machine.host.as_ref().and_then(|host| done.left.get_mut(host));
        if let Some(left) = known {
            left.machines.push(machine.id);
            continue;
        }
        match (remove_machine(stack, &machine.id, hosts, lease).await, machine.host) {
            (Ok(()), _) => done.machines += 1,
            (Err(why), Some(host)) => drop(done.left.insert(host, Left { machines: vec![machine.id], why })),
            (Err(why), None) => return Err(why),
        }
    }
    remove_strays(stack, hosts, None).await?;
    for (name, host) in &others {
        if !done.left.contains_key(name)
            && let Err(why) = remove_strays(stack, hosts, Some(host)).await
        {
            done.left.insert(name.clone(), Left { machines: Vec::new(), why });
        }
        hosts.close(host).await;
    }
    if done.left.is_empty() && stack.record()?.rentals.is_empty() {
        remove_folder(&stack.folder)?;
    } else {
        stack.change(|record| record.is_to_go(others))?;
    }
    Ok(done)
}

/// Removes domains and the network that say they are of the stack, on one host; none is this machine.
async fn remove_strays(stack: &Stack, hosts: &Hosts, host: Option<&RemoteHost>) -> Result<()> {
    let hypervisor = match host {
        Some(host) => hosts.of(host)?,
        None => hosts.here(),
    };
    for domain in hypervisor.owned().await? {
        if domain.stack == stack.uuid {
            hypervisor.remove(&domain.name).await?;
        }
    }
    if stack.record()?.subnet.is_some() {
        hypervisor.remove_network(&stack.network_name()).await?;
    }
    Ok(())
}

/// All machines of the stack, taken for this process.
///
/// # Errors
/// One is in use by another process; then none is taken.
pub fn lease_all(stack: &Stack) -> Result<Vec<(MachineRecord, Lease)>> {
    let mut leases = Vec::new();
    for machine in stack.record()?.machines.into_values() {
        let Some(lease) = stack.lease(&machine.id)? else {
            return Err(Failure::new(
                Kind::Infrastructure,
                format!("machine `{}` is in use by another kmt-run", machine.id),
            )
            .hint("wait for it, or end it; then repeat this command"));
        };
        leases.push((machine, lease));
    }
    Ok(leases)
}
