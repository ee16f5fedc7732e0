//! `stack ssh-config`, `ssh`, `exec`, `cp`, `console`, `status`, `tmux`, `flare`: reach machines, change none.
//!
//! Owns which machine a word means and one file a subcommand. Does not boot, lease or remove (`stack`). To add a
//! subcommand: a variant of [`cli::Reach`], a file here, a line in [`reach`].

mod console;
mod cp;
mod exec;
mod flare;
mod ssh;
mod ssh_config;
mod status;
mod tmux;

use super::source::catalogue;
use super::stack::named;
use crate::cli;
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::DomainState;
use crate::machine::copy::shell_quoted;
use crate::settings::Settings;
use crate::stack::alias::{self, Named};
use crate::stack::{Stack, StackRecord};
use crate::world::World;

/// Does what was typed.
///
/// # Errors
/// A stack or machine that does not exist, or one that does not run.
pub(super) async fn reach(command: &cli::Reach, settings: &Settings, world: &World) -> Result<u8> {
    match command {
        cli::Reach::SshConfig { stack } => ssh_config::ssh_config(settings, stack).await,
        cli::Reach::Ssh { vm, stack, command } => {
            ssh::ssh(settings, world, stack.as_deref(), vm, command).await
        }
        cli::Reach::Exec { vms, stack, command } => {
            exec::exec(settings, world, stack.as_deref(), vms, command).await
        }
        cli::Reach::Cp { paths, stack, recursive: _ } => {
            cp::cp(settings, world, stack.as_deref(), paths).await
        }
        cli::Reach::Console { vm, stack, follow, lines } => {
            console::console(settings, world, stack.as_deref(), vm, (*follow, *lines)).await
        }
        cli::Reach::Status { stack, all, format } => {
            status::status(settings, world, stack.as_deref(), *all, *format).await
        }
        cli::Reach::Flare { stack, to } => {
            flare::flare(settings, world, stack.as_deref(), to.as_deref()).await
        }
        cli::Reach::Tmux { stack, detach } => tmux::tmux(settings, world, stack.as_deref(), *detach).await,
    }
}

/// Every stack of this home with its record.
fn records(settings: &Settings) -> Result<Vec<(Stack, StackRecord)>> {
    Stack::all(&settings.home)?
        .into_iter()
        .map(|stack| stack.record().map(|record| (stack, record)))
        .collect()
}

/// Every machine of this home.
fn everything(settings: &Settings) -> Result<Vec<Named>> {
    Ok(alias::name_all(&records(settings)?))
}

/// The machines of one stack.
async fn of_stack(settings: &Settings, name: Option<&str>) -> Result<(Stack, Vec<Named>)> {
    let stack = named(settings, name).await?;
    let mut machines = everything(settings)?;
    machines.retain(|named| named.stack.uuid == stack.uuid);
    Ok((stack, machines))
}

/// The machine that `vm` means in the stack; without a stack, a host of any stack is enough.
async fn find(settings: &Settings, stack: Option<&str>, vm: &str) -> Result<Named> {
    if stack.is_none() {
        let all = everything(settings)?;
        if let Some(named) = all.into_iter().find(|named| named.hosts.iter().any(|host| host == vm)) {
            return Ok(named);
        }
    }
    let (_, machines) = of_stack(settings, stack).await?;
    alias::one(&machines, vm, &catalogue()?).cloned()
}

/// Why a machine cannot be reached now: it does not run. `None` where it does, or nobody can tell.
async fn unreachable(world: &World, named: &Named) -> Option<Failure> {
    let domain = named.stack.domain_name(&named.machine.id);
    let hypervisor =
        named.stack.record().and_then(|record| world.hosts.of_machine(&record, &named.machine)).ok()?;
    let state = match hypervisor.state(&domain).await {
        Err(error) if named.machine.host.is_some() => return Some(error.into()),
        Err(_) | Ok(Some(DomainState::Running)) => return None,
        Ok(Some(DomainState::Off)) => "off",
        Ok(Some(_)) => "paused",
        Ok(None) => "gone",
    };
    let failure = Failure::new(Kind::Infrastructure, format!("machine `{}` is {state}", named.machine.id));
    Some(
        failure
            .hint("`kmt-run stack status` shows all; `kmt-run stack resume` brings up what is paused or off"),
    )
}

/// What was typed after `--` as a line for a shell: one word is a line, several are a command and its arguments.
fn line_of(command: &[String]) -> Option<String> {
    match command {
        [] => None,
        [line] => Some(line.clone()),
        words => Some(words.iter().map(|word| shell_quoted(word)).collect::<Vec<_>>().join(" ")),
    }
}

/// The line that reaches a machine by hand, without kmt-run.
fn manual(named: &Named) -> String {
    let config = named.stack.ssh_config();
    format!("ssh -F {} {}", shell_quoted(&config.display().to_string()), shell_quoted(&named.machine.alias()))
}

/// Comes with the first SIGINT, SIGTERM or SIGHUP.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    // A process that may not listen dies by the signal, as if it had not asked.
    let signals = kinds.into_iter().filter_map(|kind| signal(kind).ok());
    let waits = signals.map(|mut signal| Box::pin(async move { signal.recv().await }));
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(waits).await;
}
