//! `stack create | configure | launch | pause | resume | reset | provision`: from nothing to machines that run, and
//! back.
//!
//! Owns the order of what is asked, locked and told. What steps there are is `stack::reconcile`'s to say; how a
//! machine is made or woken `machine::supply`'s.

mod configure;
mod launch;
mod provision;
mod rest;
mod told;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use tokio::sync::watch;

use self::told::Told;
use super::stack::named;
use super::{preflight, remotes, say, signals, source};
use crate::cli::Lifecycle;
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::{GuestNetwork, HostFacts};
use crate::machine::supply::{Debugging, Machines, Supply};
use crate::machine::warm::Templates;
use crate::matrix::Cell;
use crate::settings::{Settings, Wishes};
use crate::stack::reconcile::Seen;
use crate::stack::record::Owner;
use crate::stack::{self, Hold, Patience, Stack};
use crate::world::World;

/// Does what was typed.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) async fn lifecycle(
    command: &Lifecycle,
    settings: &Settings,
    world: &World,
    wishes: Wishes,
    open: super::Open<'_>,
) -> Result<u8> {
    match command {
        Lifecycle::Create { stack } => configure::create(settings, stack.as_deref()).await,
        Lifecycle::Configure(args) => configure::configure(args, wishes, open).await,
        Lifecycle::Launch(args) => launch::launch(args, settings, world).await,
        Lifecycle::Pause { target, cold, remote } => {
            let desk = Desk::at(settings, world, target).await?;
            let how = if *cold { stack::record::Rest::Off } else { stack::record::Rest::Saved };
            rest::pause(&desk, how, rest::Reach::of(*remote)).await
        }
        Lifecycle::Resume { target, oversubscribe, remote } => {
            let desk = Desk::at(settings, world, target).await?;
            rest::resume(&desk, *oversubscribe, rest::Reach::of(*remote)).await
        }
        Lifecycle::Reset { target, vm, gdb } => {
            rest::reset(&Desk::at(settings, world, target).await?, vm, debugging(*gdb)).await
        }
        Lifecycle::Provision { target, script, provision_script } => {
            let script = script.as_ref().or(provision_script.as_ref());
            let script = script.ok_or_else(|| Failure::usage("no script").hint("stack provision SCRIPT"))?;
            let script = provision::read(script)?;
            let desk = Desk::at(settings, world, target).await?;
            provision::provision(world, &desk.stack, script).await
        }
    }
}

/// A stack that this command alone may change, and what is needed for that.
struct Desk<'a> {
    settings: &'a Settings,
    world: &'a World,
    stack: Stack,
    told: Arc<Told>,
    cancelled: watch::Receiver<bool>,
    _hold: Hold,
}

impl<'a> Desk<'a> {
    /// The stack that is meant, held.
    async fn at(settings: &'a Settings, world: &'a World, target: &crate::cli::Target) -> Result<Desk<'a>> {
        let stack = named(settings, target.stack.as_deref()).await?;
        let hold = hold(&stack, target).await?;
        // Whoever was killed between two files of the stack has left the second one as it was.
        stack.change(|_| ())?;
        let told = Arc::new(Told::new(&stack.folder));
        let (_, cancelled) = signals::listen(told.clone());
        Ok(Desk { settings, world, stack, told, cancelled, _hold: hold })
    }

    /// Gives its machines, on behalf of its configuration.
    async fn supply<'s>(
        &'s self,
        host: &HostFacts,
        oversubscribe: bool,
        debugging: Debugging,
    ) -> Result<Supply<'s>> {
        let record = self.stack.record()?;
        let cells = source::cells_of_spec(&source::catalogue()?, &record.spec)?;
        let wanted =
            cells.iter().map(|cell| &cell.id).chain(record.machines.values().map(|machine| &machine.cell));
        let remotes = remotes::ask(self.settings, self.world, Some(&self.stack), wanted).await?;
        remotes.refuse(cells.iter())?;
        remotes.tell(self.told.as_ref());
        let cells: Vec<&Cell> = cells.iter().collect();
        let seats = remotes::seats(self.world, &self.stack, host, remotes, &cells, oversubscribe).await?;
        Ok(Supply {
            world: self.world,
            home: &self.settings.home,
            stack: &self.stack,
            seats,
            templates: Templates::of(&self.settings.home, self.world.warmth),
            network: self.network()?,
            machines: Machines::Reuse,
            debugging,
            owner: Owner::Configured,
            sink: self.told.as_ref(),
            consoles: self.stack.folder.join("consoles"),
            cancelled: self.cancelled.clone(),
        })
    }

    fn network(&self) -> Result<GuestNetwork> {
        let network = self.stack.record()?.spec.network;
        preflight::network(self.settings, network).map(|()| network)
    }

    async fn host(&self) -> Result<HostFacts> {
        preflight::host(self.settings, self.world).await
    }

    /// Its machines as they are now.
    async fn seen(&self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        let whole = self.stack.record()?;
        for record in whole.machines.values().cloned() {
            let hypervisor = self.world.hosts.of_machine(&whole, &record)?;
            let state = hypervisor.state(&self.stack.domain_name(&record.id)).await?;
            seen.push(Seen { record, state });
        }
        Ok(seen)
    }

    /// The end: 0, or why some machines are not up.
    fn end(&self, up: usize, wanted: usize, verb: &str) -> Result<u8> {
        if *self.cancelled.borrow() {
            return Err(Failure::new(Kind::Interrupted, "interrupted")
                .hint("the same command goes on from here; nothing needs to be mended"));
        }
        if up < wanted {
            return Err(Failure::new(
                Kind::Infrastructure,
                format!("{} of {} did not come up", plural(wanted - up, "machine"), wanted),
            )
            .hint("the same command tries again; consoles of machines that did not boot are below the stack's folder"));
        }
        say(&format!("{verb:>12} stack `{}`: {}", self.stack.name, plural(up, "machine")));
        Ok(0)
    }
}

/// What `--gdb` means.
fn debugging(gdb: bool) -> Debugging {
    if gdb { Debugging::Gdb } else { Debugging::Off }
}

/// Holds the stack, saying for whom it waits.
pub(super) async fn hold(stack: &Stack, target: &crate::cli::Target) -> Result<Hold> {
    let patience = if target.no_wait { Patience::None } else { Patience::Wait };
    stack.hold(patience, &|line| say(&format!("{:>12} {line}", "Waiting"))).await
}

fn plural(count: usize, word: &str) -> String {
    kmt_reporters::text::plural(count as u64, word)
}

/// Asks, unless `yes` was typed.
///
/// # Errors
/// There is no terminal to ask on.
pub(super) fn confirmed(question: &str, yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("this needs a yes, and there is no terminal to ask on").hint("--yes"));
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question} [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Kind::Internal, "cannot read the answer").caused_by(error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
