//! Room for machines, for whichever command needs some.

use std::sync::Arc;

use kmt_reporters::event::Location;

use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::{DomainState, HostFacts, Hypervisor};
use crate::machine::capacity::{Capacity, HOST_KEEPS_MIB, cost};
use crate::stack::reconcile::{Seen, Step};
use crate::stack::record::{Owner, Progress};
use crate::stack::{MachineRecord, MachineSpec, Stack, StackSpec};

/// Room on the host of that name (none is this machine), with the stack's idle machines known: those that a run made may be evicted.
///
/// # Errors
/// The stack cannot be read, or the hypervisor does not say which machines run.
pub(super) async fn capacity(
    host: &HostFacts,
    stack: &Stack,
    hypervisor: &Arc<dyn Hypervisor>,
    name: Option<&str>,
    oversubscribe: bool,
) -> Result<Capacity> {
    let capacity = match oversubscribe {
        true => Capacity::oversubscribed(host.cores),
        false => Capacity::new(host.cores, host.memory_mib),
    };
    let evictable = |m: &&MachineRecord| {
        m.progress == Progress::Ready && m.owner != Owner::Configured && m.host.as_deref() == name
    };
    let machines = stack.record()?.machines;
    let mut machines = machines.values().filter(evictable).peekable();
    if machines.peek().is_none() {
        return Ok(capacity);
    }
    let seen = hypervisor.owned().await?;
    for machine in machines {
        let domain = stack.domain_name(&machine.id);
        let up = seen.iter().any(|seen| seen.name == domain && seen.state == DomainState::Running);
        if up && stack.lease(&machine.id)?.is_some() {
            capacity.add_idle(&machine.id, machine.memory_mib);
        }
    }
    Ok(capacity)
}

/// A machine that is to come up.
struct Coming {
    name: String,
    vcpu: u32,
    memory_mib: u32,
}

/// Refuses machines of this host that are larger, alone or together, than what it has to give. Those of other hosts wait
/// there for room.
///
/// # Errors
/// What does not fit, and by how much.
pub(super) fn fit(host: &HostFacts, seen: &[Seen], steps: &[Step], spec: &StackSpec) -> Result<()> {
    let of_spec = |wanted: &MachineSpec| Coming {
        name: wanted.cell.to_string(),
        vcpu: wanted.vcpu,
        memory_mib: wanted.memory_mib,
    };
    let here = |machine: &&Seen| machine.record.host.is_none();
    let coming: Vec<Coming> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Make(cell) if cell.location == Location::Remote => None,
            Step::Make(cell) => spec.machine(cell).map(of_spec),
            Step::Wake(id) => seen.iter().filter(here).find(|m| m.record.id == *id && !m.is_up()).map(
                |Seen { record, .. }| Coming {
                    name: record.cell.to_string(),
                    vcpu: record.vcpu,
                    memory_mib: record.memory_mib,
                },
            ),
            Step::Remove(_) | Step::Adopt(_) => None,
        })
        .collect();
    // What goes, and what a run left idle, gives its memory back.
    let goes = |machine: &&Seen| {
        here(machine)
            && machine.is_up()
            && (steps.contains(&Step::Remove(machine.record.id.clone()))
                || (machine.record.owner == Owner::Run
                    && !steps.contains(&Step::Adopt(machine.record.id.clone()))))
    };
    let back: u64 = seen.iter().filter(goes).map(|machine| cost(machine.record.memory_mib)).sum();
    fits(host, back, &coming)
}

fn fits(host: &HostFacts, back_mib: u64, coming: &[Coming]) -> Result<()> {
    let there = host.memory_mib.saturating_sub(HOST_KEEPS_MIB) + back_mib;
    let mut why = Vec::new();
    for machine in coming {
        let vcpu = host.most_vcpu.map_or(machine.vcpu, |most| machine.vcpu.min(most));
        if vcpu > host.cores {
            why.push(format!("`{}` wants {vcpu} processors; the host has {}", machine.name, host.cores));
        }
        if cost(machine.memory_mib) > there {
            let (wanted, more) = (machine.memory_mib, cost(0));
            let name = &machine.name;
            why.push(format!(
                "`{name}` wants {wanted} MiB and {more} for QEMU; the host has {there} MiB to give"
            ));
        }
    }
    let all: u64 = coming.iter().map(|machine| cost(machine.memory_mib)).sum();
    if all > there && coming.len() > 1 {
        why.push(format!(
            "{} machines want {all} MiB together; the host has {there} MiB to give",
            coming.len()
        ));
    }
    if why.is_empty() {
        return Ok(());
    }
    let failure =
        Failure::new(Kind::Infrastructure, "the host has no room for these machines; nothing was started");
    let failure = why.into_iter().fold(failure, Failure::caused_by);
    Err(failure
        .hint("smaller ones (`stack configure --memory`), `stack pause` of others, or `--oversubscribe`"))
}
