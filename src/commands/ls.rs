//! `ls`: every machine that could be asked for.

use std::fmt::Write as _;

use kmt_reporters::event::{Arch, CellId, Location};
use serde::Serialize;
use serde_json::json;

use super::images::image_word;
use super::source::catalogue;
use super::{Open, print, print_json, say};
use crate::cli::{self, Format};
use crate::error::Result;
use crate::image::{ImageRequest, ImageStore};
use crate::matrix::catalogue::{Catalogue, CustomKernel, Platform};
use crate::matrix::select::known_distro;
use crate::matrix::spec::{self, Recipe};
use crate::matrix::version::Version;
use crate::settings::{Settings, Wishes};

/// One line, and one object of the JSON.
#[derive(Debug, Serialize)]
struct Row {
    /// Platform id, such as `debian_12`; version of a custom kernel.
    id: String,
    recipe: &'static str,
    /// Distribution of the userland.
    distro: String,
    version: String,
    aliases: Vec<String>,
    machines: Vec<Machine>,
    /// Under which it is listed.
    #[serde(skip)]
    heading: String,
}

/// A row on one architecture.
#[derive(Debug, Serialize)]
struct Machine {
    arch: Arch,
    kernel: String,
    /// `present`; `buildable` here; `elsewhere`, that is published; `unavailable`: no place is known, or what builds
    /// it is missing.
    image: &'static str,
    /// What to type for `--vms`: a machine on this box, or a remote one of another architecture.
    vms: Option<String>,
}

/// Lists the catalogue.
///
/// # Errors
/// An unknown distribution; nothing to write to.
pub(super) fn ls(args: &cli::Ls, wishes: &Wishes, open: Open<'_>) -> Result<u8> {
    let settings = Settings::load(wishes)?;
    let world = open(&settings);
    let images = ImageStore::new(
        settings.home.images(),
        settings.home.cache(),
        world.debian.clone(),
        world.store.clone(),
    );
    let catalogue = catalogue()?;
    let rows = rows(args, &catalogue, &images)?;
    if args.format == Format::Json {
        return print_json(&json!({ "schema": 1, "rows": rows }));
    }
    if rows.is_empty() {
        say("nothing here is like that; without options `kmt-run ls` lists all there is");
    }
    print(table(&rows).as_bytes())
}

fn rows(args: &cli::Ls, catalogue: &Catalogue, images: &ImageStore) -> Result<Vec<Row>> {
    let only = match args.distro.as_ref().and_then(Option::as_ref) {
        Some(name) => Some(known_distro(name, catalogue)?.to_owned()),
        None => None,
    };
    let mut rows = Vec::new();
    if args.distro.is_some() || !args.custom {
        for distro in catalogue.distros().iter().filter(|d| only.as_ref().is_none_or(|only| *only == d.id)) {
            let mut platforms: Vec<&Platform> =
                catalogue.platforms().iter().filter(|row| row.distro == distro.id).collect();
            // A rolling one has no number and comes last.
            platforms.sort_by_key(|row| {
                let version = Version::of(row.short_version());
                (version.is_none(), version)
            });
            rows.extend(platforms.into_iter().map(|platform| platform_row(platform, &distro.name, images)));
        }
    }
    if args.custom || args.distro.is_none() {
        let mut customs: Vec<&CustomKernel> = catalogue.customs().iter().collect();
        customs.sort_by_key(|row| Version::of(&row.version));
        rows.extend(customs.into_iter().filter_map(|kernel| custom_row(kernel, catalogue, images)));
    }
    for row in &mut rows {
        row.machines.retain(|machine| {
            args.arch.is_none_or(|arch| arch == machine.arch)
                && (!args.local_images || machine.image == "present")
        });
    }
    rows.retain(|row| !row.machines.is_empty());
    Ok(rows)
}

fn platform_row(platform: &Platform, heading: &str, images: &ImageStore) -> Row {
    let machine = |(arch, variant): (&Arch, &crate::matrix::catalogue::Variant)| {
        machine(
            &CellId::local(&platform.id, &variant.kernel, *arch),
            &ImageRequest::platform(platform, *arch),
            images,
        )
    };
    Row {
        id: platform.id.clone(),
        recipe: Recipe::Distro.as_str(),
        distro: platform.distro.clone(),
        version: platform.version.clone(),
        aliases: platform.aliases.clone(),
        machines: platform.variants.iter().map(machine).collect(),
        heading: heading.to_owned(),
    }
}

fn custom_row(kernel: &CustomKernel, catalogue: &Catalogue, images: &ImageStore) -> Option<Row> {
    let userland = catalogue.platform(&kernel.userland)?;
    let machine = |arch| {
        machine(
            &CellId::local("custom", &kernel.version, arch),
            &ImageRequest::custom(kernel, userland, arch),
            images,
        )
    };
    Some(Row {
        id: kernel.version.clone(),
        recipe: Recipe::Custom.as_str(),
        distro: userland.distro.clone(),
        version: userland.version.clone(),
        aliases: Vec::new(),
        machines: kernel.arches().map(machine).collect(),
        heading: "Custom kernels".to_owned(),
    })
}

fn machine(cell: &CellId, image: &ImageRequest, images: &ImageStore) -> Machine {
    Machine {
        arch: cell.arch,
        kernel: cell.kernel.clone(),
        image: image_word(&images.available(image)),
        vms: spec::spelling(cell, Arch::host())
            .or_else(|| spec::spelling(&CellId { location: Location::Remote, ..cell.clone() }, Arch::host())),
    }
}

/// Groups with a heading each; columns as wide as they need be.
fn table(rows: &[Row]) -> String {
    let lines: Vec<[String; 5]> = rows.iter().map(columns).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    let mut heading = "";
    for (row, line) in rows.iter().zip(&lines) {
        if row.heading != heading {
            heading = &row.heading;
            let _ = writeln!(text, "{}{heading}", if text.is_empty() { "" } else { "\n" });
        }
        let [id, kernel, arches, aliases, image] = line;
        let [a, b, c, d] = widths;
        let line = format!("  {id:<a$}  {kernel:<b$}  {arches:<c$}  {aliases:<d$}  {image}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if !rows.is_empty() {
        let _ = writeln!(
            text,
            "\n* an image is on this machine; + one can be built here; - none is to be had; the others are published"
        );
    }
    text
}

fn columns(row: &Row) -> [String; 5] {
    let mut kernels: Vec<&str> = row.machines.iter().map(|machine| machine.kernel.as_str()).collect();
    kernels.dedup();
    let arch = |machine: &Machine| {
        let mark = match machine.image {
            "present" => "*",
            "buildable" => "+",
            "unavailable" => "-",
            _ => "",
        };
        format!("{}{mark}", machine.arch)
    };
    let arches: Vec<String> = row.machines.iter().map(arch).collect();
    let example = row.machines.iter().find_map(|machine| machine.vms.clone()).unwrap_or_default();
    [row.id.clone(), kernels.join(", "), arches.join(" "), row.aliases.join(", "), example]
}
