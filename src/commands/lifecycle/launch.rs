//! `stack launch`: from what is configured and what is seen to machines that are up.

use std::collections::BTreeMap;

use super::super::hire::{self, Hiring};
use super::super::{machines, remotes, say, source, ssh_key};
use super::{Desk, debugging, provision};
use crate::cli::Launch;
use crate::error::{Failure, Kind, Result};
use crate::image::{Availability, ImageRequest, ImageStore, SharedImages};
use crate::machine::converge::{Asked, converge};
use crate::machine::warm::Unbegun;
use crate::matrix::Cell;
use crate::settings::Settings;
use crate::stack::reconcile::{Seen, Step, reconcile};
use crate::stack::record::Owner;
use crate::stack::{Lease, Progress};
use crate::world::World;

/// Brings the stack to what is configured.
///
/// # Errors
/// Nothing is configured, no image, no room, or a machine that did not come up.
pub(super) async fn launch(args: &Launch, settings: &Settings, world: &World) -> Result<u8> {
    let script = args.provision_script.as_deref().map(provision::read).transpose()?;
    if let Some(hint) = &args.ssh_key {
        let key = ssh_key::keys().await.meant(hint)?;
        say(&format!("{:>12} SSH key {} for remote hosts", "Using", key.name));
    }
    let desk = Desk::at(settings, world, &args.target).await?;
    let spec = desk.stack.record()?.spec;
    let catalogue = source::catalogue()?;
    let cells = source::cells_of_spec(&catalogue, &spec)?;
    let cells = cells
        .into_iter()
        .map(|cell| source::image_of(&cell, &catalogue).map(|image| (cell, image)))
        .collect::<Result<Vec<_>>>()?;
    let seen = desk.seen().await?;
    if cells.is_empty() && !seen.iter().any(Seen::is_configured) {
        let name = &desk.stack.name;
        return Err(Failure::new(
            Kind::NothingSelected,
            format!("stack `{name}` has no machines configured"),
        )
        .hint(format!("kmt-run stack configure --stack {name} --vms debian_12-local-distro")));
    }
    source::refuse_remote(&cells, settings)?;
    let steps = reconcile(&spec, &seen);
    let images = ImageStore::new(
        settings.home.images(),
        settings.home.cache(),
        world.debian.clone(),
        world.store.clone(),
    );
    available(&images, &cells, &steps)?;
    let host = desk.host().await?;
    if !args.oversubscribe {
        machines::fit(&host, &seen, &steps, &spec)?;
    }
    let _leases = hire(args, &desk, &cells).await?;
    let supply = desk.supply(&host, args.oversubscribe, debugging(args.gdb)).await?;
    let shared = SharedImages::new(&images, cells.iter().map(|(_, image)| image));
    tell(&steps);
    let asked = Asked { supply: &supply, images: &shared, cells: &cells };
    let up = supply.beside(converge(&asked, &steps, &seen), Unbegun::Begin).await?;
    desk.stack.drop_unused_network(&world.hosts).await?;
    if args.gdb {
        tell_gdb(&desk)?;
    }
    let done = desk.end(up, cells.len(), "Launched")?;
    match script {
        Some(script) => provision::provision(world, &desk.stack, script).await,
        None => {
            say(&format!("{:>12} kmt-run stack status", "next:"));
            Ok(done)
        }
    }
}

/// Says what becomes of machines that are there.
fn tell(steps: &[Step]) {
    for step in steps {
        match step {
            Step::Remove(id) => say(&format!("{:>12} {id}, which is not asked for any more", "Removing")),
            Step::Adopt(id) => say(&format!("{:>12} {id}, which a run made", "Keeping")),
            Step::Wake(_) | Step::Make(_) => {}
        }
    }
}

/// Rents the hosts that are missing, for as long as the stack is there.
async fn hire(args: &Launch, desk: &Desk<'_>, cells: &[(Cell, ImageRequest)]) -> Result<Vec<Lease>> {
    if desk.settings.config.ec2.is_none() {
        return Ok(Vec::new());
    }
    let ids = cells.iter().map(|(cell, _)| &cell.id);
    let remotes = remotes::ask(desk.settings, desk.world, Some(&desk.stack), ids).await?;
    let asked = cells.iter().map(|(cell, _)| cell);
    let needed = hire::needed(asked, &remotes, desk.settings, desk.world).await?;
    if let Some(needed) = &needed {
        needed.preflight(args.yes).await?;
    }
    let sink = desk.told.as_ref();
    let hiring = Hiring { needed, world: desk.world, stack: &desk.stack, sink };
    let rented = hiring.rent(Owner::Configured).await;
    rented.into_iter().map(|(_, rented)| rented.map(|(_, lease)| lease)).collect()
}

/// Says what is typed to debug each machine, and which ones cannot be.
fn tell_gdb(desk: &Desk<'_>) -> Result<()> {
    for machine in desk.stack.record()?.machines.values().filter(|m| m.progress == Progress::Ready) {
        match machine.gdb_line() {
            Some(line) => say(&format!("{:>12} {}: {line}", "gdb:", machine.id)),
            None => say(&format!(
                "{:>12} {} was made without a gdb stub; `kmt-run stack reset {} --gdb` makes it anew with one",
                "Note", machine.id, machine.id
            )),
        }
    }
    Ok(())
}

/// Refuses what has no image before anything is started.
fn available(images: &ImageStore, cells: &[(Cell, ImageRequest)], steps: &[Step]) -> Result<()> {
    let missing = cells.iter().filter(|(cell, _)| steps.contains(&Step::Make(cell.id.clone())));
    let mut why = BTreeMap::new();
    for (cell, request) in missing {
        if let Availability::Unavailable { why: reason, hint } = images.available(request) {
            why.insert(format!("`{}`: {reason}", cell.id), hint);
        }
    }
    if why.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::new(Kind::Infrastructure, "some machines have no image; nothing was started");
    for (reason, hint) in why {
        failure = failure.caused_by(reason);
        if let Some(hint) = hint.filter(|hint| !failure.hints.contains(hint)) {
            failure = failure.hint(hint);
        }
    }
    Err(failure)
}
