//! `stack`: list, destroy, garbage.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Open, print, print_json, say};
use crate::cli::{self, Format};
use crate::error::{Failure, Kind, Result, nearest};
use crate::external::hypervisor::{DomainState, Hypervisor};
use crate::external::remote::RemoteHost;
use crate::machine::warm;
use crate::settings::{Settings, Wishes};
use crate::stack::{self, Destroyed, Stack};
use crate::world::World;

/// Does what was typed.
///
/// # Errors
/// A stack that does not exist or cannot be removed.
pub(super) async fn stack(command: &cli::Stack, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    let settings = &settings(command, &wishes)?;
    let world = open(settings);
    // Whoever only looks takes nothing away, and needs no hypervisor.
    if !matches!(command, cli::Stack::Reach(_)) {
        // Hosts go first: the machines on them go with them.
        super::rent::sweep(settings, &world).await?;
        for machine in stack::sweep(&settings.home, &world.hosts).await? {
            say(&format!("{:>12} {machine}, left by a process that is gone", "Removed"));
        }
    }
    match command {
        cli::Stack::List { format } => list(settings, &world, *format).await,
        cli::Stack::Destroy { target, all, yes } => destroy(settings, &world, target, *all, *yes).await,
        cli::Stack::Lifecycle(command) => {
            super::lifecycle::lifecycle(command, settings, &world, wishes, open).await
        }
        cli::Stack::Gc => gc(settings, &world).await,
        cli::Stack::Reach(command) => super::reach::reach(command, settings, &world).await,
    }
}

/// Only what configures machines needs a `kmt.toml` that can be read.
fn settings(command: &cli::Stack, wishes: &Wishes) -> Result<Settings> {
    if matches!(command, cli::Stack::Lifecycle(_)) {
        return Settings::load(wishes);
    }
    let (settings, broken) = Settings::load_whatever_it_says(wishes)?;
    if let Some(failure) = broken {
        say(&format!("{:>12} {}", "Note", failure.one_line()));
    }
    Ok(settings)
}

async fn list(settings: &Settings, world: &World, format: Format) -> Result<u8> {
    let mut stacks = Vec::new();
    let mut text = String::new();
    for stack in Stack::all(&settings.home)? {
        let record = stack.record()?;
        let left = if record.destroyed { ": destroyed, but for" } else { "" };
        text.push_str(&format!("{} ({}){left}\n", stack.name, record.repository.display()));
        let mut machines = Vec::new();
        for machine in record.machines.values() {
            let hypervisor = world.hosts.of_machine(&record, machine)?;
            let state = match hypervisor.state(&stack.domain_name(&machine.id)).await {
                Ok(Some(DomainState::Running)) => "running",
                Ok(Some(DomainState::Paused | DomainState::Saved)) => "paused",
                Ok(Some(DomainState::Off)) => "off",
                Ok(None) => "gone",
                Err(_) if machine.host.is_some() => "unknown",
                Err(error) => return Err(error.into()),
            };
            let address = machine.place();
            text.push_str(&format!(
                "  {:<32} {state:<8} {address:<16} {} vCPU {} MiB   ssh -F {} {}\n",
                machine.cell,
                machine.vcpu,
                machine.memory_mib,
                stack.ssh_config().display(),
                machine.alias()
            ));
            machines.push(json!({
                "id": machine.id, "cell": machine.cell.to_string(), "state": state, "address": address,
                "vcpu": machine.vcpu, "memory_mib": machine.memory_mib, "created": machine.created,
                "domain": stack.domain_name(&machine.id), "host": machine.host,
            }));
        }
        stacks.push(json!({
            "name": stack.name, "uuid": stack.uuid, "repository": record.repository,
            "folder": stack.folder, "machines": machines, "destroyed": record.destroyed,
        }));
    }
    if format == Format::Json {
        return print_json(&json!({ "schema": 1, "stacks": stacks }));
    }
    if stacks.is_empty() {
        say("no stacks");
    }
    print(text.as_bytes())
}

async fn destroy(
    settings: &Settings,
    world: &World,
    target: &cli::Target,
    all: bool,
    yes: bool,
) -> Result<u8> {
    let name = target.stack.as_deref();
    let stacks = if all { Stack::all(&settings.home)? } else { vec![named(settings, name).await?] };
    if !confirmed(&stacks, yes)? {
        say("nothing was removed");
        return Ok(0);
    }
    let mut failures = Vec::new();
    for stack in stacks {
        failures.extend(destroy_one(world, &stack, target).await.err());
    }
    if all {
        // Guests that were to become templates are machines too.
        warm::sweep(&settings.home, None, world.hosts.here().as_ref()).await?;
    }
    let last = failures.pop();
    failures.iter().for_each(|failure| say(&format!("{:>12} {}", "WARNING", failure.one_line())));
    last.map_or(Ok(0), Err)
}

/// Destroys a stack, with the hosts that were rented for it, and says so. What is on a host that does not answer is left
/// for later, and all else goes.
///
/// # Errors
/// Somebody else changes it, or something of it does not go.
pub(super) async fn destroy_one(world: &World, stack: &Stack, target: &cli::Target) -> Result<()> {
    let _hold = super::lifecycle::hold(stack, target).await?;
    let count = stack.record()?.machines.len();
    // Machines on a rented host go with it.
    let mut failures = super::rent::give_back_all(stack, world).await?;
    let gone_with_hosts = count - stack.record()?.machines.len();
    let done = stack::destroy(stack, &world.hosts).await?;
    let machines = gone_with_hosts + done.machines;
    let whole = done.left.is_empty() && failures.is_empty();
    if whole || machines > 0 {
        let but = if whole { "" } else { ", and not all of it" };
        let machines = kmt_reporters::plural(machines as u64, "machine");
        say(&format!("{:>12} stack `{}`: {machines}{but}", "Destroyed", stack.name));
    }
    failures.extend(left(stack, &done));
    let last = failures.pop();
    failures.iter().for_each(|failure| say(&format!("{:>12} {}", "WARNING", failure.one_line())));
    last.map_or(Ok(()), Err)
}

/// What is left where, and how that goes too.
fn left(stack: &Stack, done: &Destroyed) -> Option<Failure> {
    let count: usize = done.left.values().map(|left| left.machines.len()).sum();
    let hosts: Vec<String> = done.left.keys().map(|host| format!("`{host}`")).collect();
    let message = format!(
        "{} of stack `{}` left on {}",
        kmt_reporters::plural(count as u64, "machine"),
        stack.name,
        hosts.join(", ")
    );
    let mut failure = Failure::new(Kind::Infrastructure, message);
    for (host, left) in &done.left {
        let why = Failure { hints: Vec::new(), ..left.why.clone() }.one_line();
        failure = failure.caused_by(format!("{} on `{host}`: {why}", left.machines.join(", ")));
        failure.hints.extend(left.why.hints.clone());
    }
    failure.hints.dedup();
    let failure = failure
        .hint("all else is gone; `kmt-run stack gc` takes the rest away once the host answers")
        .hint(format!("a host that never comes again: rm -r {}", stack.folder.display()));
    (!done.left.is_empty()).then_some(failure)
}

/// The stack of that name: of this repository, or the only one there is of that name.
///
/// # Errors
/// There is none, or several.
pub(super) async fn named(settings: &Settings, name: Option<&str>) -> Result<Stack> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => stack::name::default_name(&settings.root.value).await,
    };
    let folder = Stack::folder_of(&settings.home, &name, &settings.root.value);
    if Stack::is_at(&folder) {
        return Stack::open(&folder);
    }
    let all = Stack::all(&settings.home)?;
    let bare = |name: &str| name.strip_suffix("-ddvm").unwrap_or(name).to_owned();
    let mut same: Vec<Stack> = all.iter().filter(|stack| stack.name == name).cloned().collect();
    if same.is_empty() {
        same = all.iter().filter(|stack| bare(&stack.name) == bare(&name)).cloned().collect();
    }
    match (same.pop(), same.is_empty()) {
        (Some(stack), true) => Ok(stack),
        (Some(_), false) => Err(Failure::usage(format!("several repositories have a stack `{name}`"))
            .hint("say which repository: `kmt-run -C DIR stack …`")),
        (None, _) => {
            let failure = Failure::usage(format!("no stack `{name}`"));
            Err(match nearest(&name, all.iter().map(|stack| stack.name.as_str())) {
                Some(near) => failure.hint(format!("did you mean `--stack {near}`?")),
                None => failure.hint("kmt-run stack list"),
            })
        }
    }
}

fn confirmed(stacks: &[Stack], yes: bool) -> Result<bool> {
    let names: Vec<&str> = stacks.iter().map(|stack| stack.name.as_str()).collect();
    super::lifecycle::confirmed(&format!("destroy {} and all machines in it?", names.join(", ")), yes)
}

/// Removes domains that carry our mark and belong to no stack of this home, here and on every host that is known.
async fn gc(settings: &Settings, world: &World) -> Result<u8> {
    // What was on hosts that are over goes with them: nobody has to ask those.
    super::rent::gc(settings, world).await?;
    let stacks = Stack::all(&settings.home)?;
    let mut removed = gc_on(settings, &stacks, world.hosts.here().as_ref()).await?;
    let mut others: BTreeMap<String, RemoteHost> = BTreeMap::new();
    for host in &settings.hosts.value {
        others.insert(host.name.clone(), host.clone());
    }
    for stack in &stacks {
        others.extend(stack.record()?.hosts);
    }
    for (name, host) in others {
        match gc_on(settings, &stacks, world.hosts.of(&host)?.as_ref()).await {
            Ok(count) => removed += count,
            Err(failure) => say(&format!("{:>12} {name}: {}", "Skipped", failure.one_line())),
        }
    }
    let host = world.hosts.here().facts().await?;
    for template in warm::sweep(&settings.home, Some(&host), world.hosts.here().as_ref()).await? {
        say(&format!("{:>12} template {template}: nothing starts from it any more", "Removed"));
    }
    say(&format!("{:>12} {removed} domain{}", "Removed", if removed == 1 { "" } else { "s" }));
    for stack in stacks {
        if stack.record()?.destroyed
            && let Err(failure) = destroy_one(world, &stack, &cli::Target::default()).await
        {
            say(&format!("{:>12} {}", "Skipped", failure.one_line()));
        }
    }
    Ok(0)
}

async fn gc_on(settings: &Settings, stacks: &[Stack], hypervisor: &dyn Hypervisor) -> Result<usize> {
    let mut removed = 0;
    for domain in hypervisor.owned().await? {
        let owner = stacks.iter().find(|stack| stack.uuid == domain.stack);
        let known = match owner {
            Some(stack) => stack.record()?.machines.contains_key(&domain.machine),
            None => false,
        };
        // Another home of this machine may own it: only domains of stacks that we know are certainly ours.
        if !known && owner.is_some() {
            hypervisor.remove(&domain.name).await?;
            say(&format!("{:>12} {}", "Removed", domain.name));
            removed += 1;
        } else if owner.is_none() && !domain.stack.is_nil() {
            say(&format!(
                "{:>12} {}: its stack is not in {}",
                "Left",
                domain.name,
                settings.home.root.value.display()
            ));
        }
    }
    for network in hypervisor.owned_networks().await? {
        let owner = stacks.iter().find(|stack| stack.uuid == network.stack);
        if let Some(stack) = owner
            && stack.record()?.subnet.is_none()
        {
            hypervisor.remove_network(&network.name).await?;
            say(&format!("{:>12} network {}", "Removed", network.name));
        }
    }
    Ok(removed)
}
