//! `stack cp`: files to a machine and back.

use std::path::PathBuf;

use kmt_reporters::text::{bytes, plural};

use super::super::say;
use super::{find, interrupted, unreachable};
use crate::cli::Place;
use crate::error::{Failure, Kind, Result};
use crate::external::process::Child;
use crate::external::transport::Terminal;
use crate::machine::Parts;
use crate::machine::copy::{self, Copied, Load};
use crate::settings::Settings;
use crate::stack::alias::Named;
use crate::world::World;

/// Copies all but the last to the last.
///
/// # Errors
/// Not exactly one side is a machine, something is not there, or cannot be read or written.
pub(super) async fn cp(
    settings: &Settings,
    world: &World,
    stack: Option<&str>,
    paths: &[String],
) -> Result<u8> {
    let mut places: Vec<Place> = paths.iter().map(|text| Place::of(text)).collect();
    let to = places.pop();
    let here: Option<Vec<PathBuf>> = places
        .iter()
        .map(|place| match place {
            Place::Here(path) => Some(path.clone()),
            Place::There { .. } => None,
        })
        .collect();
    let work = async {
        match (here, &places[..], to) {
            (Some(files), _, Some(Place::There { vm, path })) => {
                let named = reachable(settings, world, stack, &vm).await?;
                let load = Load::of(&files)
                    .map_err(|error| Failure::usage("cannot copy what is not there").caused_by(error))?;
                let program = program(world, &named, &load.line(&path)).await?;
                let copied = copy::put(program, load, &format!("{}:{path}", named.label())).await?;
                told(&copied, &format!("{}:{path}", named.label()))
            }
            (None, [Place::There { vm, path }], Some(Place::Here(to))) => {
                let named = reachable(settings, world, stack, vm).await?;
                let program = program(world, &named, &copy::give_line(path)).await?;
                let copied = copy::get(program, path, &to, &format!("{}:{path}", named.label())).await?;
                told(&copied, &to.display().to_string())
            }
            _ => Err(Failure::usage("exactly one side of a copy is a machine")
                .hint("kmt-run stack cp FILE… VM:PATH, or kmt-run stack cp VM:PATH FILE")),
        }
    };
    tokio::select! {
        copied = work => copied,
        () = interrupted() => Err(Failure::new(Kind::Interrupted, "interrupted; nothing was copied")),
    }
}

async fn reachable(settings: &Settings, world: &World, stack: Option<&str>, vm: &str) -> Result<Named> {
    let named = find(settings, stack, vm).await?;
    unreachable(world, &named).await.map_or(Ok(named), Err)
}

async fn program(world: &World, named: &Named, line: &str) -> Result<Child> {
    let route = Parts::route_of(&named.stack, &named.machine);
    Ok(world.transport.program(&route, Some(line), Terminal::None).await?)
}

fn told(copied: &Copied, to: &str) -> Result<u8> {
    let (files, size) = (plural(copied.files, "file"), bytes(copied.bytes));
    say(&format!("{:>12} {files}, {size}, to {to}", "Copied"));
    Ok(0)
}
