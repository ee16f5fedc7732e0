//! `images validate`, `gc`: whether what is kept is right, and what is kept for nobody.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Desk;
use super::fetched::published;
use crate::commands::say;
use crate::error::Result;
use crate::image::{Hashing, ImageRequest, overlay_base};
use crate::stack::Stack;

/// Hashes every image that is here; with `at_server`, looks for every published one.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn validate(at_server: bool, desk: &Desk<'_>) -> Result<u8> {
    let mut wrong = 0;
    let mut judge = |name: &str, why: Option<String>| {
        let word = if why.is_some() { "Wrong" } else { "Right" };
        wrong += u32::from(why.is_some());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        say(&kmt_reporters::escape(&format!("{word:>12} {name}{why}")));
    };
    for manifest in desk.store.list()? {
        let checked = desk.store.verify(&manifest, Hashing::All).await;
        judge(
            &format!("{} {}", manifest.kind.as_str(), manifest.name),
            checked.err().map(|error| error.to_string()),
        );
    }
    for (name, entry) in desk.store.generation()?.map(|generation| generation.images).unwrap_or_default() {
        let checked = desk.store.verify_file(&entry.file).await;
        judge(&name, checked.err().map(|error| error.to_string()));
    }
    if at_server {
        for image in published(desk) {
            let there = desk.store.published_files().size(&image.url).await;
            judge(&format!("{} at its server", image.name), there.err().map(|error| error.to_string()));
        }
    }
    Ok(if wrong == 0 { 0 } else { 2 })
}

/// Removes what no generation, no record and no machine needs.
///
/// # Errors
/// The store or a stack cannot be read.
pub(super) async fn gc(dry_run: bool, desk: &Desk<'_>) -> Result<u8> {
    let (mut disks, mut machines) = (BTreeSet::<PathBuf>::new(), 0);
    for stack in Stack::all(&desk.settings.home)? {
        for id in stack.record()?.machines.keys() {
            machines += 1;
            disks.extend(overlay_base(&stack.machine_folder(id).join("root.qcow2")));
        }
    }
    let wanted = wanted(desk);
    let garbage = desk.store.garbage(&|slug| wanted.contains(slug), &disks, machines > 0).await?;
    let bytes: u64 = garbage.files.iter().map(|(_, size)| size).sum();
    for (file, size) in &garbage.files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        say(&format!("{:>12} {name} ({} MiB)", if dry_run { "Would go" } else { "Removed" }, size >> 20));
    }
    if !dry_run {
        desk.store.remove_garbage(&garbage).await?;
    }
    let word = if dry_run { "would be" } else { "are" };
    say(&format!(
        "{:>12} {} MiB {word} free, of {}",
        "Garbage",
        bytes >> 20,
        kmt_reporters::plural(garbage.files.len() as u64, "file")
    ));
    if machines > 0 {
        say(&format!(
            "{:>12} kernels stay while there are machines ({machines}): some may boot from them",
            "Note"
        ));
    }
    Ok(0)
}

/// The names under which the catalogue's images are recorded.
fn wanted(desk: &Desk<'_>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for platform in desk.catalogue.platforms() {
        for arch in platform.arches() {
            all.extend(ImageRequest::platform(platform, arch).slugs());
        }
    }
    for kernel in desk.catalogue.customs() {
        let Some(userland) = desk.catalogue.platform(&kernel.userland) else { continue };
        for arch in kernel.arches() {
            all.extend(ImageRequest::custom(kernel, userland, arch).slugs());
        }
    }
    all
}
