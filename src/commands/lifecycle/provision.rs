//! `stack provision`: one script in all machines at once, by standard input.

use std::path::Path;

use futures_util::future::join_all;

use super::super::{print, say};
use super::plural;
use crate::error::{Failure, Kind, Result};
use crate::external::transport::RemoteStream;
use crate::machine::Parts;
use crate::stack::record::Progress;
use crate::stack::{MachineRecord, Stack};
use crate::world::World;

/// Keeps the script that comes in, runs it as its first line says, and takes it away.
const RUN: &str = "exec 2>&1; f=$(mktemp) && cat >\"$f\" && chmod 700 \"$f\" || exit 126; \
                   \"$f\" </dev/null; s=$?; rm -f \"$f\"; exit $s";
/// The status of a machine that cannot be reached, as ssh has it.
const UNREACHED: u8 = 255;
/// Longest line that is shown, bytes.
const LINE: usize = 16 << 10;

/// Reads a script.
///
/// # Errors
/// It cannot be read, or has no first line that says what runs it.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let script = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("cannot read `{}`", path.display())).caused_by(error))?;
    if !script.starts_with(b"#!") {
        return Err(Failure::usage(format!("`{}` does not say what runs it", path.display()))
            .hint("its first line is such as `#!/bin/bash`"));
    }
    Ok(script)
}

/// Runs the script in all machines of the stack that are ready.
///
/// # Returns
/// The worst status.
///
/// # Errors
/// There is none, or the stack cannot be read.
pub(super) async fn provision(world: &World, stack: &Stack, script: Vec<u8>) -> Result<u8> {
    let machines = stack.record()?.machines;
    let machines: Vec<&MachineRecord> = machines.values().filter(|m| m.progress == Progress::Ready).collect();
    if machines.is_empty() {
        return Err(Failure::new(
            Kind::NothingSelected,
            format!("stack `{}` has no machine that is up", stack.name),
        )
        .hint("kmt-run stack launch"));
    }
    let width = machines.iter().map(|machine| machine.id.len()).max().unwrap_or(0);
    let all = join_all(machines.iter().map(|machine| one(world, stack, machine, &script, width)));
    let statuses = all.await;
    for (machine, status) in machines.iter().zip(&statuses).filter(|(_, status)| **status != 0) {
        say(&format!("{:>12} {}: the script ended with {status}", "Failed", machine.id));
    }
    let good = statuses.iter().filter(|status| **status == 0).count();
    say(&format!("{:>12} {} of {}", "Provisioned", good, plural(machines.len(), "machine")));
    Ok(statuses.into_iter().max().unwrap_or(0))
}

async fn one(world: &World, stack: &Stack, machine: &MachineRecord, script: &[u8], width: usize) -> u8 {
    match run(world, stack, machine, script, width).await {
        Ok(Some(status)) => u8::try_from(status).unwrap_or(UNREACHED),
        Ok(None) => UNREACHED,
        Err(error) => {
            show(&machine.id, width, Failure::from(error).one_line().as_bytes());
            UNREACHED
        }
    }
}

async fn run(
    world: &World,
    stack: &Stack,
    machine: &MachineRecord,
    script: &[u8],
    width: usize,
) -> crate::external::Result<Option<i32>> {
    let connection = world.transport.connect(&Parts::route_of(stack, machine)).await?;
    let mut stream = connection.stream(&["sh", "-c", RUN], script.to_vec()).await?;
    follow(&mut *stream, &machine.id, width).await?;
    let status = stream.wait().await;
    connection.close().await;
    status
}

/// Shows each line with the machine it is from.
async fn follow(stream: &mut dyn RemoteStream, label: &str, width: usize) -> crate::external::Result<()> {
    let (mut line, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        for byte in &buffer[..count] {
            if *byte == b'\n' || line.len() >= LINE {
                show(label, width, &line);
                line.clear();
            }
            if *byte != b'\n' {
                line.push(*byte);
            }
        }
    }
    if !line.is_empty() {
        show(label, width, &line);
    }
    Ok(())
}

/// What comes from a guest moves no cursor.
fn show(label: &str, width: usize, line: &[u8]) {
    let text = kmt_reporters::text::escape_line(&String::from_utf8_lossy(line));
    let _ = print(format!("{label:<width$} | {text}\n").as_bytes());
}
