//! `stack exec`: one command in many machines at once.

use std::io::{IsTerminal as _, Write as _};

use kmt_reporters::text::escape_line;
use tokio::sync::Notify;

use super::super::say;
use super::super::source::catalogue;
use super::{interrupted, line_of, of_stack, unreachable};
use crate::error::{Failure, Kind, Result};
use crate::external::process::Side;
use crate::external::transport::Terminal;
use crate::machine::Parts;
use crate::settings::Settings;
use crate::stack::alias::{self, Named};
use crate::world::World;

/// The status of a machine in which nothing ran, as `ssh` has it.
const UNREACHED: u8 = 255;

/// Runs the command in the machines that `vms` means, in all of them without one.
///
/// # Errors
/// No such machine or stack, none at all, or a signal.
pub(super) async fn exec(
    settings: &Settings,
    world: &World,
    stack: Option<&str>,
    vms: &[String],
    command: &[String],
) -> Result<u8> {
    let (stack, machines) = of_stack(settings, stack).await?;
    let chosen = choose(&machines, vms)?;
    if chosen.is_empty() {
        let failure = Failure::new(Kind::NothingSelected, format!("stack `{}` has no machines", stack.name));
        return Err(failure.hint("`kmt-run run --vms debian_12-local-distro` boots one"));
    }
    let line = line_of(command).unwrap_or_default();
    let width = chosen.iter().map(|named| named.label().len()).max().unwrap_or(0);
    let closed = Notify::new();
    let told = Told { width, closed: &closed };
    let work = futures_util::future::join_all(chosen.iter().map(|named| one(world, named, &line, &told)));
    let statuses = tokio::select! {
        statuses = work => statuses,
        () = closed.notified() => return Ok(0),
        () = interrupted() => {
            return Err(Failure::new(Kind::Interrupted, "interrupted; in the machines the command may go on"));
        }
    };
    for (named, status) in chosen.iter().zip(&statuses).filter(|(_, status)| **status != 0) {
        say(&format!("{:>12} {}: status {status}", "Failed", named.label()));
    }
    Ok(statuses.into_iter().max().unwrap_or(0))
}

/// The machines that the words mean, once each.
fn choose<'m>(machines: &'m [Named], vms: &[String]) -> Result<Vec<&'m Named>> {
    if vms.is_empty() {
        return Ok(machines.iter().collect());
    }
    let catalogue = catalogue()?;
    let mut chosen: Vec<&Named> = Vec::new();
    for wanted in vms {
        let meant = alias::matching(machines, wanted, &catalogue);
        if meant.is_empty() {
            return Err(alias::none(machines, wanted));
        }
        for named in meant {
            if !chosen.iter().any(|known| known.machine.id == named.machine.id) {
                chosen.push(named);
            }
        }
    }
    Ok(chosen)
}

/// How lines are shown.
struct Told<'a> {
    width: usize,
    closed: &'a Notify,
}

impl Told<'_> {
    /// Shows a line of a machine. On a terminal nothing in it moves the cursor; in a file it is as it came.
    fn line(&self, label: &str, side: Side, bytes: &[u8]) {
        let terminal = match side {
            Side::Out => std::io::stdout().is_terminal(),
            Side::Err => std::io::stderr().is_terminal(),
        };
        let mut text = format!("{label:<width$} | ", width = self.width).into_bytes();
        if terminal {
            text.extend(escape_line(&String::from_utf8_lossy(bytes)).into_bytes());
        } else {
            text.extend(bytes);
        }
        text.push(b'\n');
        let written = match side {
            Side::Out => {
                let mut out = std::io::stdout().lock();
                out.write_all(&text).and_then(|()| out.flush())
            }
            Side::Err => std::io::stderr().lock().write_all(&text),
        };
        if side == Side::Out && written.is_err() {
            self.closed.notify_one();
        }
    }
}

/// Runs the line in one machine.
async fn one(world: &World, named: &Named, line: &str, told: &Told<'_>) -> u8 {
    let label = named.label();
    let why = match unreachable(world, named).await {
        Some(failure) => failure.message,
        None => {
            let route = Parts::route_of(&named.stack, &named.machine);
            let ended = match world.transport.program(&route, Some(line), Terminal::None).await {
                Ok(program) => program.lines(|side, bytes| told.line(&label, side, bytes)).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(status) => return status.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNREACHED),
                Err(error) => error.to_string(),
            }
        }
    };
    told.line(&label, Side::Err, why.as_bytes());
    UNREACHED
}
