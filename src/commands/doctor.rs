//! `doctor`: what is wrong with this machine, and what mends it.

use std::path::Path;

use futures_util::future::join_all;
use kmt_reporters::text::escape;
use serde_json::{Value, json};

use super::{Open, print, print_json, say};
use crate::cli::{self, Format};
use crate::doctor::look::{Doors, look, mend};
use crate::doctor::{Facts, Grade, OwnHost, Verdict, checks};
use crate::error::Result;
use crate::external::remote::RemoteHost;
use crate::image::{Hashing, ImageStore};
use crate::settings::Settings;
use crate::world::World;

/// Exit code where something is wrong.
const FOUND: u8 = 2;
/// Most rounds of mending: what starts first shows what else there is.
const ROUNDS: usize = 3;

/// Examines this machine, mends what it may, and tells what is left.
///
/// # Errors
/// The stacks of this home cannot be listed.
pub(super) async fn doctor(args: &cli::Doctor, settings: &Settings, open: Open<'_>) -> Result<u8> {
    let world = open(settings);
    let (store, sockets) = (store(settings, &world), world.host.sockets());
    let (own_hosts, rentable) =
        tokio::join!(own_hosts(settings, &world), super::rent::rentable(settings, &world));
    let doors = Doors { own_hosts, rentable, ..doors(&world, &store, &sockets) };
    let hashing = if args.hash { Hashing::All } else { Hashing::Changed };
    let what = if args.hash { "; its images are hashed" } else { "" };
    say(&format!("{:>12} this machine{what}", "Examining"));
    let mut verdicts = checks::examine(&look(settings, &doors, hashing).await?);
    for _ in 0..if args.fix { ROUNDS } else { 0 } {
        if !mend_all(&verdicts, settings, &doors).await {
            break;
        }
        verdicts = checks::examine(&look(settings, &doors, Hashing::Changed).await?);
    }
    match args.format {
        Format::Json => print_json(&as_json(&verdicts))?,
        Format::Human => print(as_text(&verdicts, args.fix).as_bytes())?,
    };
    Ok(if verdicts.iter().any(|verdict| verdict.grade == Grade::Wrong) { FOUND } else { 0 })
}

/// The facts of this machine, as `doctor` sees them.
///
/// # Errors
/// The stacks of this home cannot be listed.
pub(super) async fn facts(settings: &Settings, world: &World) -> Result<Facts> {
    let (store, sockets) = (store(settings, world), world.host.sockets());
    look(settings, &doors(world, &store, &sockets), Hashing::Changed).await
}

fn store(settings: &Settings, world: &World) -> ImageStore {
    ImageStore::new(settings.home.images(), settings.home.cache(), world.debian.clone(), world.store.clone())
}

/// Those of this machine alone.
fn doors<'a>(world: &'a World, images: &'a ImageStore, sockets: &'a Path) -> Doors<'a> {
    let host = world.host.as_ref();
    Doors { host, hosts: &world.hosts, images, sockets, own_hosts: Vec::new(), rentable: None }
}

/// The user's own hosts, all asked at once: one that does not answer takes its time.
async fn own_hosts(settings: &Settings, world: &World) -> Vec<OwnHost> {
    let look = async |host: &RemoteHost| {
        let seen = async {
            let checked = world.hosts.check(host).await?;
            Ok((world.hosts.of(host)?.facts().await?, checked.free_mib))
        };
        let seen = seen.await;
        OwnHost { name: host.name.clone(), place: host.place(), folder: host.folder.clone(), seen }
    };
    join_all(settings.hosts.value.iter().map(look)).await
}

/// Whether anything was mended.
async fn mend_all(verdicts: &[Verdict], settings: &Settings, doors: &Doors<'_>) -> bool {
    let mut mended = false;
    for verdict in verdicts {
        let Some(remedy) = &verdict.remedy else { continue };
        match mend(remedy, settings, doors).await {
            Ok(()) => {
                mended = true;
                say(&format!("{:>12} {}: {}", "Mended", verdict.check, verdict.says));
            }
            Err(failure) => say(&format!("{:>12} {}: {}", "Not mended", verdict.check, failure.one_line())),
        }
    }
    mended
}

/// The verdicts as JSON of schema 1.
pub(super) fn as_json(verdicts: &[Verdict]) -> Value {
    let row = |verdict: &Verdict| {
        json!({
            "check": verdict.check, "grade": verdict.grade.as_str(), "says": verdict.says, "mend": verdict.mend,
            "fixable": verdict.remedy.is_some(),
        })
    };
    json!({
        "schema": 1, "wrong": count(verdicts, Grade::Wrong),
        "checks": verdicts.iter().map(row).collect::<Vec<_>>(),
    })
}

fn count(verdicts: &[Verdict], grade: Grade) -> usize {
    verdicts.iter().filter(|verdict| verdict.grade == grade).count()
}

/// The verdicts for people: whatever is not fine with the command that mends it.
fn as_text(verdicts: &[Verdict], fixed: bool) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        let says = escape(&verdict.says);
        text.push_str(&format!("{:>12} {:<12} {says}\n", verdict.grade.as_str(), verdict.check));
        if let Some(mend) = verdict.mend.as_ref().filter(|_| verdict.grade != Grade::Fine) {
            text.push_str(&format!("{:>25} mend: {}\n", "", escape(mend)));
        }
    }
    let [fine, note, wrong] = [Grade::Fine, Grade::Note, Grade::Wrong].map(|grade| count(verdicts, grade));
    text.push_str(&format!("{fine} fine, {note} to know, {wrong} wrong"));
    let fixable = verdicts.iter().filter(|verdict| verdict.remedy.is_some()).count();
    if fixable > 0 && !fixed {
        text.push_str(&format!("; `kmt-run doctor --fix` mends {fixable}"));
    }
    text + "\n"
}
