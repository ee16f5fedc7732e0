//! `stack status`: what each machine is, where it is, and what runs in it.

use chrono::Utc;
use kmt_reporters::event::CellId;
use kmt_reporters::text::plural;
use serde_json::{Value, json};

use super::super::stack::named;
use super::super::{print, print_json, say};
use super::{everything, manual};
use crate::cli::Format;
use crate::error::Result;
use crate::external::hypervisor::DomainState;
use crate::machine::Parts;
use crate::matrix::spec::Recipe;
use crate::record::now::{self, Busy};
use crate::settings::Settings;
use crate::stack::alias::Named;
use crate::stack::holder::Holder;
use crate::stack::record::Owner;
use crate::stack::{MachineRecord, MachineSpec, Progress, Stack, StackRecord};
use crate::world::World;

/// Shows one stack, or all.
///
/// # Errors
/// A stack that does not exist.
pub(super) async fn status(
    settings: &Settings,
    world: &World,
    stack: Option<&str>,
    all: bool,
    format: Format,
) -> Result<u8> {
    let stacks = if all { Stack::all(&settings.home)? } else { vec![named(settings, stack).await?] };
    let machines = everything(settings)?;
    let mut shown = Vec::new();
    for stack in stacks {
        let own: Vec<&Named> = machines.iter().filter(|named| named.stack.uuid == stack.uuid).collect();
        let seen = futures_util::future::join_all(own.iter().map(|named| look(world, named))).await;
        shown.push((stack, own, seen));
    }
    if format == Format::Json {
        let stacks: Result<Vec<Value>> =
            shown.iter().map(|(stack, own, seen)| json_of(stack, own, seen)).collect();
        return print_json(&json!({ "schema": 1, "stacks": stacks? }));
    }
    if shown.is_empty() {
        say("no stacks");
    }
    let mut text = String::new();
    for (stack, own, seen) in &shown {
        text.push_str(&text_of(stack, own, seen)?);
    }
    print(text.as_bytes())
}

/// Machines that are configured and have not been made.
fn missing(record: &StackRecord) -> Vec<&MachineSpec> {
    let made = |wanted: &&MachineSpec| {
        record.machines.values().any(|m| m.owner == Owner::Configured && m.cell == wanted.cell)
    };
    record.spec.machines.iter().filter(|wanted| !made(wanted)).collect()
}

/// What is seen of a machine now.
struct Seen {
    state: &'static str,
    holder: Option<Holder>,
    busy: Option<Busy>,
}

async fn look(world: &World, named: &Named) -> Seen {
    let (stack, machine) = (&named.stack, &named.machine);
    let holder = stack.holder(&machine.id);
    let domain = match stack.record().and_then(|record| world.hosts.of_machine(&record, machine)) {
        Ok(hypervisor) => hypervisor.state(&stack.domain_name(&machine.id)).await.map_err(drop),
        Err(_) => Err(()),
    };
    let greets = match domain {
        Ok(Some(DomainState::Running)) => {
            world.transport.greeting(&Parts::route_of(stack, machine)).await.is_ok()
        }
        _ => false,
    };
    let run = holder.as_ref().and_then(|holder| holder.run.as_deref());
    let busy = run.and_then(|run| now::busy(run, &machine.cell));
    let state = state(machine.progress, domain.ok(), greets, holder.is_some());
    Seen { state, holder, busy }
}

/// The state in one word. `domain` is `None` where the hypervisor does not answer.
fn state(progress: Progress, domain: Option<Option<DomainState>>, greets: bool, held: bool) -> &'static str {
    match (progress, domain) {
        (Progress::Spoiled, _) => "spoiled",
        (Progress::Making, _) if held => "booting",
        (Progress::Making, _) => "half-made",
        (_, None) => "unknown",
        (_, Some(None)) => "gone",
        (_, Some(Some(DomainState::Off))) => "off",
        (_, Some(Some(DomainState::Running))) if greets => "ready",
        (_, Some(Some(DomainState::Running))) => "silent",
        (_, Some(Some(_))) => "paused",
    }
}

/// What it boots from, as `images ls` has it.
fn image(cell: &CellId) -> String {
    match Recipe::of(cell) {
        Recipe::Distro => format!("{}/{}", cell.platform, cell.arch),
        Recipe::Custom => format!("custom-{}/{}", cell.kernel, cell.arch),
    }
}

/// How old it is, roughly.
fn age(machine: &MachineRecord) -> String {
    let minutes = (Utc::now() - machine.created).num_minutes();
    match minutes {
        ..1 => "<1m".to_owned(),
        1..60 => format!("{minutes}m"),
        60..1440 => format!("{}h{:02}m", minutes / 60, minutes % 60),
        _ => format!("{}d{:02}h", minutes / 1440, minutes % 1440 / 60),
    }
}

/// What runs in it.
fn runs(seen: &Seen) -> String {
    match (&seen.holder, &seen.busy) {
        (None, _) => "-".to_owned(),
        (Some(_), Some(busy)) => {
            kmt_reporters::text::escape(&format!("{} {}", busy.package, busy.test)).into_owned()
        }
        (Some(Holder { run: Some(run), .. }), None) => {
            format!("run {}", run.file_name().unwrap_or_default().to_string_lossy())
        }
        (Some(Holder { pid, run: None }), None) => format!("process {pid}"),
    }
}

fn size(vcpu: u32, memory_mib: u32) -> String {
    format!("{vcpu} vCPU {memory_mib} MiB")
}

fn text_of(stack: &Stack, own: &[&Named], seen: &[Seen]) -> Result<String> {
    let record = stack.record()?;
    let missing = missing(&record);
    let ready = seen.iter().filter(|seen| seen.state == "ready").count();
    let machines = plural(own.len() as u64, "machine");
    let mut text =
        format!("Stack {} ({}): {machines}, {ready} ready", stack.name, record.repository.display());
    if !missing.is_empty() {
        text.push_str(&format!(", {} not launched", missing.len()));
    }
    text.push('\n');
    let head = ["MACHINE", "STATE", "ADDRESS", "SIZE", "AGE", "IMAGE", "RUNS"].map(str::to_owned);
    let row = |(named, seen): (&&Named, &Seen)| {
        let machine = &named.machine;
        let size = size(machine.vcpu, machine.memory_mib);
        let address = machine.place();
        [named.label(), seen.state.to_owned(), address, size, age(machine), image(&machine.cell), runs(seen)]
    };
    let wanted = missing.iter().map(|wanted| {
        let size = size(wanted.vcpu, wanted.memory_mib);
        let none = || "-".to_owned();
        let cell = wanted.cell.to_string();
        [cell, "not-launched".to_owned(), none(), size, none(), image(&wanted.cell), none()]
    });
    let rows: Vec<[String; 7]> =
        std::iter::once(head).chain(own.iter().zip(seen).map(row)).chain(wanted).collect();
    if rows.len() == 1 {
        return Ok(text);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end());
        text.push('\n');
    }
    if own.is_empty() {
        text.push_str("  next: kmt-run stack launch\n");
        return Ok(text);
    }
    text.push_str("  by hand:\n");
    for named in own {
        text.push_str(&format!("    {}\n", manual(named)));
    }
    for named in own {
        if let Some(line) = named.machine.gdb_line() {
            text.push_str(&format!("    {line}   # the kernel of {}\n", named.label()));
        }
    }
    Ok(text)
}

fn json_of(stack: &Stack, own: &[&Named], seen: &[Seen]) -> Result<Value> {
    let record = stack.record()?;
    let machine = |(named, seen): (&&Named, &Seen)| {
        let machine = &named.machine;
        let uses = seen.holder.as_ref().map(|holder| {
            json!({
                "pid": holder.pid, "run": holder.run,
                "package": seen.busy.as_ref().map(|busy| &busy.package),
                "test": seen.busy.as_ref().map(|busy| &busy.test),
            })
        });
        json!({
            "id": machine.id, "cell": machine.cell, "hosts": named.hosts, "state": seen.state,
            "progress": machine.progress, "owner": machine.owner, "address": machine.place(),
            "vcpu": machine.vcpu, "memory_mib": machine.memory_mib, "created": machine.created,
            "image": image(&machine.cell), "domain": stack.domain_name(&machine.id), "ssh": manual(named), "uses": uses,
            "gdb": machine.gdb_line(), "host": machine.host,
        })
    };
    let wanted = |wanted: &&MachineSpec| {
        json!({
            "cell": wanted.cell, "vcpu": wanted.vcpu, "memory_mib": wanted.memory_mib, "image": image(&wanted.cell),
        })
    };
    Ok(json!({
        "name": stack.name, "uuid": stack.uuid, "repository": record.repository, "folder": stack.folder,
        "created": record.created, "missing": missing(&record).iter().map(wanted).collect::<Vec<_>>(),
        "machines": own.iter().zip(seen).map(machine).collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_helps_most_to_know() {
        let running = Some(Some(DomainState::Running));
        assert_eq!(state(Progress::Ready, running, true, true), "ready");
        assert_eq!(state(Progress::Ready, running, false, false), "silent");
        assert_eq!(state(Progress::Ready, Some(None), false, false), "gone");
        assert_eq!(state(Progress::Ready, None, false, false), "unknown");
        assert_eq!(state(Progress::Making, running, true, true), "booting");
        assert_eq!(state(Progress::Making, Some(None), false, false), "half-made");
        assert_eq!(state(Progress::Spoiled, running, true, true), "spoiled");
    }
}
