//! `stack create` and `stack configure`: what should be. Nothing is made here.

use std::path::Path;

use kmt_reporters::event::{Arch, Location};

use super::super::source::{self, Places};
use super::super::{Open, from_ci, say};
use super::{confirmed, hold, plural};
use crate::cli::{self, Configure, Selection};
use crate::error::{Failure, Result};
use crate::external::hypervisor::GuestNetwork;
use crate::matrix::vmsets::VmSets;
use crate::matrix::{Cell, DEFAULT_MEMORY_MIB, DEFAULT_VCPU};
use crate::settings::{Settings, Wishes};
use crate::stack::{self, Change, MachineSpec, Stack, StackSpec};

/// Makes a stack without machines.
///
/// # Errors
/// It is there, or cannot be made.
pub(super) async fn create(settings: &Settings, name: Option<&str>) -> Result<u8> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => stack::name::default_name(&settings.root.value).await,
    };
    make(settings, &name)?;
    say(&format!("{:>12} stack `{name}`", "Created"));
    say(&format!("{:>12} kmt-run stack configure --vms LIST --stack {name}", "next:"));
    Ok(0)
}

fn make(settings: &Settings, name: &str) -> Result<Stack> {
    if Stack::is_at(&Stack::folder_of(&settings.home, name, &settings.root.value)) {
        return Err(Failure::usage(format!("there is a stack `{name}` already"))
            .hint("`kmt-run stack configure` adds machines to it; another name: `--stack NAME`"));
    }
    Stack::open_or_create(&settings.home, name, &settings.root.value)
}

/// Changes what a stack should be, after showing what that means.
///
/// # Errors
/// Machines that are none, no such stack, no yes.
pub(super) async fn configure(args: &Configure, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    let from_ci = args.pipeline.from_ci_pipeline.is_some();
    if args.matrix.is_none() && args.vmsets.is_none() && args.vms.is_empty() && !from_ci {
        return Err(Failure::usage("no machine is named")
            .hint("`--vms debian_12-local-distro,custom-6.12-local`, a matrix file, or `--vmsets FILE`"));
    }
    let mut selection = Selection {
        pipeline: args.pipeline.clone(),
        matrix: args.matrix.clone(),
        vmsets: args.vmsets.clone(),
        vms: args.vms.clone(),
        stack: args.target.stack.clone(),
        ..Selection::default()
    };
    from_ci::fill(&mut selection, &wishes, open).await?;
    let places = source::resolve_places(&selection, wishes).await?;
    let Places { settings, stack: name, .. } = &places;
    places.notices.iter().for_each(|notice| say(&format!("{:>12} {notice}", "Note")));
    let folder = Stack::folder_of(&settings.home, name, &settings.root.value);
    if args.init_stack == Stack::is_at(&folder) {
        return Err(match args.init_stack {
            true => Failure::usage(format!("there is a stack `{name}` already"))
                .hint("without `--init-stack` machines are added to it; `--new` starts afresh"),
            false => Failure::usage(format!("no stack `{name}`"))
                .hint("`--init-stack` makes it, or `kmt-run stack create`"),
        });
    }
    let there = if args.init_stack { None } else { Some(Stack::open(&folder)?) };
    let _hold = match &there {
        Some(stack) => Some(hold(stack, &args.target).await?),
        None => None,
    };
    let before = there.as_ref().map(Stack::record).transpose()?.map(|record| record.spec).unwrap_or_default();
    let after = asked(args, &places, &before);
    let text = args.export.as_deref().map(|file| Ok::<_, Failure>((file, vmsets(&after)?))).transpose()?;
    if !show(&before, &after, name) {
        say(&format!("{:>12} of stack `{name}`", "No change"));
    } else if confirmed(&format!("configure stack `{name}` so?"), args.yes)? {
        let stack = there.map_or_else(|| make(settings, name), Ok)?;
        let count = plural(after.machines.len(), "machine");
        stack.change(|record| record.spec = after)?;
        say(&format!("{:>12} stack `{name}`: {count}", "Configured"));
        say(&format!("{:>12} kmt-run stack launch --stack {name}", "next:"));
    } else {
        say("nothing was changed");
        return Ok(0);
    }
    if let Some((file, text)) = text {
        std::fs::write(file, text).map_err(|error| Failure::file("write", file, &error))?;
        say(&format!("{:>12} {}", "Written", file.display()));
    }
    Ok(0)
}

/// What is asked for from now on.
fn asked(args: &Configure, places: &Places, before: &StackSpec) -> StackSpec {
    let cells = places.cells.iter().flat_map(|(cell, _)| variants(cell, args));
    let more: Vec<MachineSpec> = cells.map(|cell| MachineSpec::from(&cell)).collect();
    let base = match args.new {
        true => StackSpec { network: before.network, machines: Vec::new() },
        false => before.clone(),
    };
    let network = match args.network {
        Some(cli::Network::User) => GuestNetwork::Closed,
        Some(cli::Network::Outbound) => GuestNetwork::Outbound,
        Some(cli::Network::Nat) => GuestNetwork::Nat,
        None if args.matrix.is_some() && places.matrix.network != GuestNetwork::Closed => {
            places.matrix.network
        }
        None => base.network,
    };
    StackSpec { network, ..base.with(&more) }
}

/// A cell in every size and test set that was asked for.
fn variants(cell: &Cell, args: &Configure) -> Vec<Cell> {
    fn or<T: Clone>(list: &[T], own: T) -> Vec<T> {
        if list.is_empty() { vec![own] } else { list.to_vec() }
    }
    let sets: Vec<Option<String>> =
        args.sets.iter().map(|set| Some(set.clone()).filter(|s| s != "default")).collect();
    let mut all = Vec::new();
    for set in or(&sets, cell.id.set.clone()) {
        for vcpu in or(&args.vcpu, cell.vcpu) {
            for memory_mib in or(&args.memory, cell.memory_mib) {
                let size = (vcpu, memory_mib);
                let size = (size != (DEFAULT_VCPU, DEFAULT_MEMORY_MIB)).then_some(size);
                let mut cell = Cell { vcpu, memory_mib, ..cell.clone() };
                (cell.id.set, cell.id.size) = (set.clone(), size);
                all.push(cell);
            }
        }
    }
    all
}

/// Shows what differs; false where nothing does.
fn show(before: &StackSpec, after: &StackSpec, name: &str) -> bool {
    let changes = before.changes(after);
    if before.network == after.network && changes.iter().all(|(change, _)| *change == Change::Kept) {
        return false;
    }
    say(&format!("stack `{name}`:"));
    if before.network != after.network {
        say(&format!("  ~ network {} (was {})", after.network.as_str(), before.network.as_str()));
    }
    for (change, machine) in changes {
        let (mark, note) = match change {
            Change::Added => ('+', ""),
            Change::Kept => (' ', ""),
            Change::Changed => ('~', "; the next launch makes it anew"),
            Change::Removed => ('-', "; the next launch removes it"),
        };
        let remote = if machine.cell.location == Location::Remote { ", remote" } else { "" };
        let (cell, vcpu, memory) = (machine.cell.to_string(), machine.vcpu, machine.memory_mib);
        say(&format!("  {mark} {cell:<32} {vcpu} vCPU {memory} MiB{remote}{note}"));
    }
    true
}

/// What is asked for, as a vmsets file.
fn vmsets(spec: &StackSpec) -> Result<String> {
    let catalogue = source::catalogue()?;
    let cells = source::cells_of_spec(&catalogue, spec)?;
    let sets = VmSets::of(&cells, &catalogue, Arch::host())?;
    serde_json::to_string_pretty(&sets)
        .map(|text| text + "\n")
        .map_err(|error| Failure::file("write", Path::new("vmsets"), &std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_sets_multiply() {
        let catalogue = source::catalogue().unwrap();
        let platform = catalogue.platform("debian_12").unwrap();
        let cell = Cell::on(platform, kmt_reporters::event::CellId::local("debian_12", "6.1", Arch::X86_64));
        let args = Configure {
            vcpu: vec![2, 4],
            memory: vec![1024, 2048],
            sets: vec!["default".to_owned(), "only_usm".to_owned()],
            ..Configure::default()
        };
        let ids: Vec<String> = variants(&cell, &args).iter().map(|cell| cell.id.to_string()).collect();
        let bare = "debian_12/6.1/x86_64";
        let expected = ["", "#2x2048", "#4x1024", "#4x2048"];
        let sets = ["", "+only_usm"];
        let expected: Vec<String> = sets
            .iter()
            .flat_map(|set| expected.iter().map(move |size| format!("{bare}{set}{size}")))
            .collect();
        assert_eq!(ids, expected);
        assert_eq!(variants(&cell, &Configure::default()), [cell]);
    }
}
