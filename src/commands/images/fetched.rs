//! `images update`, `revert`: which published images are in use.

use std::collections::BTreeSet;

use kmt_reporters::event::Arch;

use super::{Desk, request};
use crate::cli;
use crate::commands::lifecycle::confirmed;
use crate::commands::say;
use crate::commands::source::{self, image_of};
use crate::error::{Failure, Kind, Result};
use crate::image::ImageRequest;
use crate::image::published::{Generation, Published};
use crate::stack::Stack;

/// Brings published images to what is published now.
///
/// # Errors
/// One that is unknown or not published, or that cannot be had whole: those in use stay in use.
pub(super) async fn update(args: &cli::Update, desk: &Desk<'_>) -> Result<u8> {
    let wanted = wanted(args, desk)?;
    if args.destroy_stacks && !destroy_stacks(desk, args.yes).await? {
        say("nothing was done");
        return Ok(0);
    }
    let begun = std::time::Instant::now();
    let updated = desk.store.update(&wanted, &|progress| super::tell(&progress)).await?;
    for name in &updated.same {
        say(&format!("{:>12} {name}: it is what is published", "Current"));
    }
    for name in &updated.changed {
        say(&format!("{:>12} {name}", "Updated"));
    }
    let seconds = begun.elapsed().as_secs_f64();
    match updated.changed.len() {
        0 => say(&format!(
            "{:>12} [{seconds:>7.3}s] nothing changed, generation {} is in use",
            "Images", updated.generation
        )),
        count => {
            say(&format!(
                "{:>12} [{seconds:>7.3}s] {count} fetched, generation {} is in use",
                "Images", updated.generation
            ));
            keepers(desk, &updated.changed.iter().cloned().collect())?;
            say(&format!("{:>12} the ones before: `kmt-run images revert`", "next:"));
        }
    }
    Ok(0)
}

/// What is to be updated: what was named, else what is in use.
fn wanted(args: &cli::Update, desk: &Desk<'_>) -> Result<Vec<Published>> {
    let mut requests: Vec<ImageRequest> = args
        .names
        .iter()
        .chain(&args.images)
        .map(|name| request(name, &desk.catalogue))
        .collect::<Result<_>>()?;
    if let Some(path) = &args.matrix {
        for resolved in source::read_matrix(path)?.expand(&desk.catalogue, Arch::host())? {
            requests.push(image_of(&resolved.cell, &desk.catalogue)?);
        }
        requests.retain(|request| request.fetched().is_some());
    }
    let mut wanted: Vec<Published> = Vec::new();
    for request in &requests {
        let published = request.fetched().ok_or_else(|| {
            Failure::usage(format!("`{request}` is not published: it is built here"))
                .hint(format!("`kmt-run images build --force {}`", request.name()))
        })?;
        wanted.push(published.clone());
    }
    let everything = published(desk);
    if args.all_images {
        wanted
            .extend(everything.iter().filter(|image| args.all_archs || image.arch == Arch::host()).cloned());
    } else if requests.is_empty() && args.matrix.is_none() {
        let here = desk.store.generation()?.map(|generation| generation.images).unwrap_or_default();
        wanted.extend(everything.into_iter().filter(|image| here.contains_key(&image.name)));
    }
    let mut seen = BTreeSet::new();
    wanted.retain(|image| seen.insert(image.name.clone()));
    if wanted.is_empty() {
        return Err(Failure::new(Kind::NothingSelected, "no published image is here or was named")
            .hint("`kmt-run images update jammy`, `--matrix FILE`, or `--all-images` (tens of gigabytes)"));
    }
    Ok(wanted)
}

/// Everything the catalogue knows to be published.
pub(super) fn published(desk: &Desk<'_>) -> Vec<Published> {
    let mut all: Vec<Published> = Vec::new();
    for platform in desk.catalogue.platforms() {
        all.extend(platform.arches().filter_map(|arch| Published::of(platform, arch)));
    }
    for kernel in desk.catalogue.customs() {
        let Some(userland) = desk.catalogue.platform(&kernel.userland) else { continue };
        for arch in kernel.arches() {
            let archive = ImageRequest::custom(kernel, userland, arch).fetched().cloned();
            all.extend(archive.filter(|archive| !all.iter().any(|known| known.name == archive.name)));
        }
    }
    all
}

/// Has the generation before in use again.
///
/// # Errors
/// There is none.
pub(super) async fn revert(destroy: bool, yes: bool, desk: &Desk<'_>) -> Result<u8> {
    if destroy && !destroy_stacks(desk, yes).await? {
        say("nothing was done");
        return Ok(0);
    }
    let (from, to) = desk.store.revert().await?;
    say(&format!("{:>12} generation {} is in use again", "Reverted", to.number));
    let other = differing(&from, &to);
    for name in &other {
        let word = if to.images.contains_key(name) { "as before" } else { "not in it" };
        say(&format!("{:>12} {name}: {word}", "Image"));
    }
    keepers(desk, &other)?;
    Ok(0)
}

/// Names of images that two generations do not share.
fn differing(a: &Generation, b: &Generation) -> BTreeSet<String> {
    let names = a.images.keys().chain(b.images.keys());
    let same = |name: &String| a.images.get(name).map(|e| &e.file) == b.images.get(name).map(|e| &e.file);
    names.filter(|name| !same(name)).cloned().collect()
}

/// Says which machines keep an image that is in use no longer.
fn keepers(desk: &Desk<'_>, changed: &BTreeSet<String>) -> Result<()> {
    for stack in Stack::all(&desk.settings.home)? {
        for machine in stack.record()?.machines.into_values() {
            if changed.contains(&format!("{}-{}", machine.cell.platform, machine.cell.arch)) {
                say(&format!(
                    "{:>12} machine {} of stack `{}` has the image it was made of; `kmt-run stack reset {} --stack {}` makes it anew",
                    "Kept", machine.id, stack.name, machine.id, stack.name
                ));
            }
        }
    }
    Ok(())
}

/// Destroys all stacks, as the former tool's update did.
async fn destroy_stacks(desk: &Desk<'_>, yes: bool) -> Result<bool> {
    let stacks = Stack::all(&desk.settings.home)?;
    if stacks.is_empty() {
        return Ok(true);
    }
    let names: Vec<&str> = stacks.iter().map(|stack| stack.name.as_str()).collect();
    if !confirmed(&format!("destroy {} and all machines in it?", names.join(", ")), yes)? {
        return Ok(false);
    }
    for stack in stacks {
        crate::commands::stack::destroy_one(desk.world, &stack, &cli::Target::default()).await?;
    }
    Ok(true)
}
