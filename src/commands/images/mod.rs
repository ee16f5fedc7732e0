//! `images`: get, update, check, list and clear away what machines boot from.
//!
//! Owns what these commands say. Does not own how an image is had (`image`). To add one: a variant of `cli::Images`, and
//! a file here.

mod fetched;
mod first;
mod kept;

use std::path::Path;

use kmt_reporters::event::Arch;
use serde_json::json;

use super::source::{self, catalogue, image_of};
use super::{Open, print, print_json, say};
use crate::cli::{self, Format};
use crate::error::{Failure, Kind, Result};
use crate::image::{Availability, ImageProgress, ImageRequest, ImageStore};
use crate::matrix::{Catalogue, spec};
use crate::settings::{Settings, Wishes};
use crate::world::World;

/// What every one of them needs.
struct Desk<'a> {
    settings: &'a Settings,
    world: &'a World,
    store: ImageStore,
    catalogue: Catalogue,
}

/// Does what was typed.
///
/// # Errors
/// An image that is unknown or cannot be had.
pub(super) async fn images(command: &cli::Images, wishes: &Wishes, open: Open<'_>) -> Result<u8> {
    let settings = Settings::load(wishes)?;
    let world = open(&settings);
    let (images, cache) = (settings.home.images(), settings.home.cache());
    let store = ImageStore::new(images, cache, world.debian.clone(), world.store.clone());
    let desk = Desk { settings: &settings, world: &world, store, catalogue: catalogue()? };
    match command {
        cli::Images::Init(args) => first::init(args, &desk).await,
        cli::Images::Build { names, matrix, force } => build(names, matrix.as_deref(), *force, &desk).await,
        cli::Images::Update(args) => fetched::update(args, &desk).await,
        cli::Images::Revert { destroy_stacks, yes } => fetched::revert(*destroy_stacks, *yes, &desk).await,
        cli::Images::Validate { published } => kept::validate(*published, &desk).await,
        cli::Images::Gc { dry_run } => kept::gc(*dry_run, &desk).await,
        cli::Images::Ls { format } => list(&desk.store, *format),
    }
}

async fn build(names: &[String], matrix: Option<&Path>, force: bool, desk: &Desk<'_>) -> Result<u8> {
    let (store, catalogue) = (&desk.store, &desk.catalogue);
    let mut requests: Vec<ImageRequest> = Vec::new();
    for name in names {
        requests.push(request(name, catalogue)?);
    }
    if let Some(path) = matrix {
        for resolved in source::read_matrix(path)?.expand(catalogue, Arch::host())? {
            requests.push(image_of(&resolved.cell, catalogue)?);
        }
    }
    if requests.is_empty() {
        return Err(Failure::new(Kind::NothingSelected, "no image was named")
            .hint("`kmt-run images build debian_12 custom-6.12`, or `--matrix matrices/demo.toml`"));
    }
    for request in &requests {
        let begun = std::time::Instant::now();
        let told = |progress: ImageProgress| tell(&progress);
        let image =
            if force { store.rebuild(request, &told).await? } else { store.ensure(request, &told).await? };
        say(&format!(
            "{:>12} [{:>7.3}s] {} {}",
            "Image",
            begun.elapsed().as_secs_f64(),
            image.name,
            image.kernel_release
        ));
    }
    Ok(0)
}

/// Whether an image can be had: `present`, `buildable` here, `elsewhere` (published, fetched when needed), `unavailable`.
pub(super) fn image_word(availability: &Availability) -> &'static str {
    match availability {
        Availability::Present => "present",
        Availability::Buildable => "buildable",
        Availability::Fetchable => "elsewhere",
        Availability::Unavailable { .. } => "unavailable",
    }
}

/// A name such as `debian_12` or `custom-6.12`, or a machine in the short form.
fn request(name: &str, catalogue: &Catalogue) -> Result<ImageRequest> {
    if let Some(platform) = catalogue.platform(name) {
        return Ok(ImageRequest::platform(platform, Arch::host()));
    }
    let text = if name.starts_with("custom-") && !name.contains("-local") {
        format!("{name}-local")
    } else {
        name.to_owned()
    };
    let resolved = spec::resolve(&text, catalogue, Arch::host())?;
    image_of(&resolved.cell, catalogue)
}

fn tell(progress: &ImageProgress) {
    if !matches!(progress, ImageProgress::Said { .. }) {
        say(&format!("{:>12} {}", "Image", kmt_reporters::escape(&progress.line())));
    }
}

fn list(store: &ImageStore, format: Format) -> Result<u8> {
    let manifests = store.list()?;
    let generation = store.generation()?;
    if format == Format::Json {
        return print_json(&json!({ "schema": 1, "images": manifests, "published": generation }));
    }
    let mut text = String::new();
    for manifest in &manifests {
        let bytes: u64 = manifest.files.values().map(|file| file.size).sum();
        let release = manifest.kernel_release.as_deref().unwrap_or("");
        let key = &manifest.key[..12.min(manifest.key.len())];
        text.push_str(&line(manifest.kind.as_str(), &manifest.name, bytes, key, release));
    }
    for (name, entry) in generation.iter().flat_map(|generation| &generation.images) {
        let key = &entry.sum[..12.min(entry.sum.len())];
        text.push_str(&line("disk", name, entry.file.size, key, entry.facts.kernel().unwrap_or_default()));
    }
    if text.is_empty() {
        say("no images yet: `kmt-run images build debian_12`");
    }
    print(text.as_bytes())
}

fn line(kind: &str, name: &str, bytes: u64, key: &str, release: &str) -> String {
    format!("{kind:<8} {name:<24} {:>6} MiB  {key}  {release}\n", bytes >> 20)
}
