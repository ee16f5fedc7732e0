//! Taking away: one machine, what a dead process left, a whole stack. Every step can be repeated.

use crate::error::{Failure, Kind, Result};
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

/// Removes a stack: all its machines, domains that say they are its, its folder.
///
/// # Returns
/// The number of machines that were removed.
///
/// # Errors
/// A machine is in use by another process, or something refused to go; the rest stays recorded.
pub async fn destroy(stack: &Stack, hosts: &Hosts) -> Result<usize> {
    let leases = lease_all(stack)?;
    let count = leases.len();
    let others = stack.record()?.hosts;
    for (machine, lease) in leases {
        remove_machine(stack, &machine.id, hosts, lease).await?;
    }
    let mut all = vec![hosts.here()];
    for host in others.values() {
        all.push(hosts.of(host)?);
    }
    for hypervisor in all {
        for domain in hypervisor.owned().await? {
            if domain.stack == stack.uuid {
                hypervisor.remove(&domain.name).await?;
            }
        }
        if stack.record()?.subnet.is_some() {
            hypervisor.remove_network(&stack.network_name()).await?;
        }
    }
    for host in others.values() {
        hosts.close(host).await;
    }
    remove_folder(&stack.folder)?;
    Ok(count)
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
