//! `plan`, and `run --dry-run`: what a run would do. Reads, and changes nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use kmt_reporters::event::{CellId, Location};
use serde_json::{Value, json};

use super::images::image_word;
use super::jobs::{self, Job};
use super::run::plan_of;
use super::source::{self, Places, Source};
use super::{Open, print, print_json, say};
use crate::artifact;
use crate::cli::{Format, Selection};
use crate::cloud::kinds::PRICED;
use crate::error::Result;
use crate::external::builder::Unit;
use crate::image::{Availability, ImageStore};
use crate::matrix::spec::Recipe;
use crate::plan::{self, Plan, cost};
use crate::record::history;
use crate::settings::Wishes;
use crate::stack::Stack;
use crate::stack::record::Progress;

/// What is to be built: how much of it is in the cache already.
struct Work {
    component: String,
    units: usize,
    cached: usize,
    cached_bytes: u64,
    plan: Plan,
}

/// Shows the plan. JSON has `schema` 1 and keeps its fields: `cells` (each with `id`, `distro`, `distro_version`,
/// `recipe`, `arch`, `location`, `kernel`, `vcpu`, `memory_mib`, `machine`: boot, reuse or remote, `image`: present,
/// buildable, elsewhere or unavailable, `packages` in the order they run, `expected_ms`), `packages`, `test_sets` by
/// name, `shards`, `build`, `images`, `predicted_ms`, `bytes_to_fetch`, `cost` (`hosts`, `usd_per_hour`, `usd` as predicted,
/// `priced`; `null` where nothing is remote).
/// What is not known is `null`.
///
/// # Errors
/// A matrix, machine or package that is not one; nothing selected.
pub(super) async fn plan(
    selection: &Selection,
    format: Format,
    wishes: Wishes,
    open: Open<'_>,
) -> Result<u8> {
    let mut places = source::resolve_places(selection, wishes.clone()).await?;
    if places.cells.is_empty() {
        return Err(source::nothing_selected(selection, &places.stack));
    }
    let mut notices = std::mem::take(&mut places.notices);
    let work = if has_component(selection, &places) {
        let mut source = source::resolve_for_build(selection, wishes).await?;
        let world = open(&source.settings);
        let builder = world.builder(source.component.builder);
        let jobs = jobs::jobs(builder.as_ref(), selection, &source).await?;
        let plan = plan_of(&mut source, &jobs, selection)?;
        places.cells = source.cells.clone();
        work(&source, &jobs, plan, &mut notices)
    } else {
        notices.push("no kmt.toml here, so no packages: machines only".to_owned());
        let cells = places.cells.iter().map(|(cell, _)| cell);
        let plan =
            plan::make(cells, Vec::new(), &plan::Durations::default(), &places.choice, &places.matrix.sets);
        Work { component: String::new(), units: 0, cached: 0, cached_bytes: 0, plan }
    };
    let world = open(&places.settings);
    let home = &places.settings.home;
    let images = ImageStore::new(home.images(), home.cache(), world.debian.clone(), world.store.clone());
    let ready = ready_cells(&Stack::folder_of(home, &places.stack, &places.settings.root.value))?;
    let cells: Vec<Row> = places
        .cells
        .iter()
        .zip(&work.plan.cells)
        .map(|((cell, image), (_, shards))| Row {
            cell,
            packages: work.plan.names(shards).collect(),
            needs: image.to_string(),
            machine: match cell.id.location {
                Location::Remote => "remote",
                Location::Local if ready.contains(&cell.id) => "reuse",
                Location::Local => "boot",
            },
            word: image_word(&images.available(image)),
            image: images.available(image),
            expected: Plan::expected(shards).filter(|_| !shards.is_empty()),
        })
        .collect();
    let boot = history::durations(&home.runs()).boot();
    let places_at_once = std::thread::available_parallelism().map_or(1, usize::from) * 2;
    let predicted =
        work.plan.predicted(places_at_once, boot, |id| !ready.contains(id)).filter(|_| work.units > 0);
    match format {
        Format::Json => print_json(&json(&places, &cells, &work, predicted, &notices)),
        Format::Human => {
            notices.iter().for_each(|notice| say(&format!("{:>12} {notice}", "Note")));
            print(table(&places, &cells, &work, predicted).as_bytes())
        }
    }
}

/// Cells that the stack in this folder has a machine for.
fn ready_cells(stack: &Path) -> Result<BTreeSet<CellId>> {
    if !Stack::is_at(stack) {
        return Ok(BTreeSet::new());
    }
    let machines = Stack::open(stack)?.record()?.machines.into_values();
    let ready = machines.filter(|machine| machine.progress == Progress::Ready);
    Ok(ready.map(|machine| machine.cell).collect())
}

fn has_component(selection: &Selection, places: &Places) -> bool {
    let named = selection.component.is_some() || places.matrix.component.is_some();
    named || !selection.packages.is_empty() || !places.settings.config.component.is_empty()
}

fn work(source: &Source, jobs: &[Job], plan: Plan, notices: &mut Vec<String>) -> Work {
    let cache = source.settings.home.cache().join("build");
    let units: Vec<Unit> = jobs.iter().flat_map(|job| job.units.clone()).collect();
    let (cached, cached_bytes) = artifact::cached(&units, &cache).unwrap_or_else(|error| {
        notices.push(format!("what is in the build cache is not known: {error}"));
        (0, 0)
    });
    let component = source.component_name.clone();
    Work { component, units: units.len(), cached, cached_bytes, plan }
}

/// A cell, and what is known of it.
struct Row<'a> {
    cell: &'a crate::matrix::Cell,
    /// In the order they run.
    packages: Vec<&'a str>,
    /// Name of the image.
    needs: String,
    machine: &'static str,
    image: Availability,
    /// The same in a word.
    word: &'static str,
    expected: Option<Duration>,
}

/// How many different images the machines on this box need, by where those are.
struct Images {
    present: usize,
    to_build: usize,
    to_fetch: usize,
    unavailable: usize,
}

impl Images {
    fn of(rows: &[Row<'_>]) -> Images {
        let here = rows.iter().filter(|row| row.cell.id.location == Location::Local);
        let count = |word: &str| {
            here.clone().filter(|row| row.word == word).map(|row| &row.needs).collect::<BTreeSet<_>>().len()
        };
        Images {
            present: count("present"),
            to_build: count("buildable"),
            to_fetch: count("elsewhere"),
            unavailable: count("unavailable"),
        }
    }

    fn line(&self) -> String {
        let fetch = match self.to_fetch {
            0 => "nothing to fetch".to_owned(),
            many => format!("{many} to fetch, of unknown size"),
        };
        let all = self.present + self.to_build + self.to_fetch + self.unavailable;
        let none = match self.unavailable {
            0 => String::new(),
            many => format!(", {many} not to be had"),
        };
        format!("{}: {} here, {} to build, {fetch}{none}", counted(all, "image"), self.present, self.to_build)
    }
}

fn counted(count: usize, what: &str) -> String {
    kmt_reporters::plural(count as u64, what)
}

fn millis(time: Option<Duration>) -> Option<u64> {
    time.and_then(|time| u64::try_from(time.as_millis()).ok())
}

fn json(
    places: &Places,
    rows: &[Row<'_>],
    work: &Work,
    predicted: Option<Duration>,
    notices: &[String],
) -> Value {
    let cell = |row: &Row<'_>| {
        let id = &row.cell.id;
        json!({
            "id": id.to_string(), "distro": row.cell.distro, "distro_version": row.cell.distro_version,
            "recipe": Recipe::of(id).as_str(), "arch": id.arch, "location": id.location, "kernel": id.kernel,
            "set": id.set, "vcpu": row.cell.vcpu, "memory_mib": row.cell.memory_mib, "machine": row.machine,
            "image": row.word, "expected_ms": millis(row.expected), "packages": row.packages,
        })
    };
    let images = Images::of(rows);
    json!({
        "schema": 1,
        "cells": rows.iter().map(cell).collect::<Vec<_>>(),
        "stack": places.stack,
        "component": if work.component.is_empty() { Value::Null } else { work.component.clone().into() },
        "packages": work.plan.packages,
        "test_sets": places.matrix.sets.named(),
        "shards": work.plan.shards(),
        "build": { "binaries": work.units, "cached": work.cached, "cached_bytes": work.cached_bytes },
        "predicted_ms": millis(predicted),
        "images": {
            "present": images.present, "to_build": images.to_build, "to_fetch": images.to_fetch,
            "unavailable": images.unavailable,
        },
        "bytes_to_fetch": if images.to_fetch == 0 { 0.into() } else { Value::Null },
        "cost": cost_json(&rented(places, rows), predicted),
        "notices": notices,
    })
}

fn table(places: &Places, rows: &[Row<'_>], work: &Work, predicted: Option<Duration>) -> String {
    let mut text = String::new();
    let width = rows.iter().map(|row| row.cell.id.to_string().len()).max().unwrap_or(0);
    for row in rows {
        let image = match &row.image {
            Availability::Present => "image is here".to_owned(),
            Availability::Buildable => "image is built first".to_owned(),
            Availability::Fetchable => "image is fetched first".to_owned(),
            Availability::Unavailable { why, .. } => format!("no image: {why}"),
        };
        let expected = row.expected.map_or(String::new(), |time| format!("  [{:>8.3}s]", time.as_secs_f64()));
        let _ = writeln!(
            text,
            "{:<width$}  {:<6}  {} vCPU {} MiB  {image}{expected}",
            row.cell.id.to_string(),
            row.machine,
            row.cell.vcpu,
            row.cell.memory_mib
        );
    }
    let count = |machine: &str| rows.iter().filter(|row| row.machine == machine).count();
    let _ = writeln!(
        text,
        "\n{}: {} to boot, {} to reuse, {} remote (stack `{}`)",
        counted(rows.len(), "cell"),
        count("boot"),
        count("reuse"),
        count("remote"),
        places.stack
    );
    let _ = writeln!(text, "{}", Images::of(rows).line());
    if work.units > 0 {
        let _ = writeln!(
            text,
            "{}, {}; {}, {} of them built before",
            counted(work.plan.packages.len(), "package"),
            counted(work.plan.shards(), "shard"),
            if work.units == 1 { "1 binary".to_owned() } else { format!("{} binaries", work.units) },
            work.cached
        );
        let _ = match predicted {
            Some(time) => writeln!(text, "[{:>8.3}s] in all, as earlier runs went", time.as_secs_f64()),
            None => writeln!(text, "no prediction: some of it never ran here"),
        };
    }
    text + &cost_line(&rented(places, rows), predicted)
}

/// What of the rows is rented, and its price.
fn rented(places: &Places, rows: &[Row<'_>]) -> Vec<cost::HostKind> {
    cost::hosts(rows.iter().map(|row| row.cell), places.settings.config.ec2.as_ref(), &[])
}

fn cost_json(hosts: &[cost::HostKind], predicted: Option<Duration>) -> Value {
    if hosts.is_empty() {
        return Value::Null;
    }
    let host = |host: &cost::HostKind| json!({ "arch": host.arch, "instance_type": host.instance_type, "usd_per_hour": host.usd_per_hour });
    json!({
        "hosts": hosts.iter().map(host).collect::<Vec<_>>(),
        "usd_per_hour": cost::usd_per_hour(hosts),
        "usd": predicted.and_then(|time| cost::usd(hosts, time)),
        "priced": PRICED,
    })
}

fn cost_line(hosts: &[cost::HostKind], predicted: Option<Duration>) -> String {
    if hosts.is_empty() {
        return String::new();
    }
    let names =
        hosts.iter().map(|host| format!("{} ({})", host.instance_type, host.arch)).collect::<Vec<_>>();
    let whole = predicted
        .and_then(|time| cost::usd(hosts, time))
        .map_or(String::new(), |usd| format!(", {usd:.2} USD in all"));
    let hourly = match cost::usd_per_hour(hosts) {
        Some(hourly) => format!("{hourly:.2} USD an hour{whole} ({PRICED})"),
        None => "the price is not known: `prices` in `[ec2]` says it".to_owned(),
    };
    format!("remote hosts: {}: {hourly}\n", names.join(", "))
}
