//! `stack console`: what a machine wrote, and goes on to write.

use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use kmt_reporters::text::escape_line;

use super::super::print;
use super::{find, interrupted};
use crate::error::{Failure, Kind, Result};
use crate::settings::Settings;
use crate::stack::alias::Named;
use crate::world::World;

/// How often a console is read that is followed.
const TICK: Duration = Duration::from_millis(100);
/// How often, and how many times at most, it is looked whether all of a console elsewhere has come.
const FETCH: Duration = Duration::from_millis(250);
const FETCHES: u32 = 20;

/// Prints the console of a machine.
///
/// # Errors
/// No such machine, or it has no console yet.
pub(super) async fn console(
    settings: &Settings,
    world: &World,
    stack: Option<&str>,
    vm: &str,
    (follow, lines): (bool, Option<usize>),
) -> Result<u8> {
    let named = find(settings, stack, vm).await?;
    let path = named.stack.machine_folder(&named.machine.id).join("console.log");
    fetched(world, &named, &path).await?;
    let mut file = std::fs::File::open(&path).map_err(|error| {
        Failure::new(Kind::Infrastructure, format!("machine `{}` has no console", named.machine.id))
            .caused_by(error)
            .hint("a machine that runs has one: `kmt-run stack status`")
    })?;
    let failed = |error: &std::io::Error| Failure::file("read", &path, error);
    let mut seen = Vec::new();
    file.read_to_end(&mut seen).map_err(|error| failed(&error))?;
    let mut shown = Shown { terminal: std::io::stdout().is_terminal(), rest: Vec::new() };
    shown.print(last_lines(&seen, lines))?;
    if !follow {
        shown.flush()?;
        return Ok(0);
    }
    let following = async {
        let mut at = seen.len() as u64;
        while still_there(&path, &file) {
            tokio::time::sleep(TICK).await;
            // A machine that boots again begins its console anew.
            let length = file.metadata().map_err(|error| failed(&error))?.len();
            at = if length < at { 0 } else { at };
            let mut more = Vec::new();
            let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_to_end(&mut more));
            at += read.map_err(|error| failed(&error))? as u64;
            shown.print(&more)?;
        }
        shown.flush()
    };
    tokio::select! {
        followed = following => followed.map(|()| 0),
        () = interrupted() => Ok(0),
    }
}

/// Has what a machine on another host has written come here.
async fn fetched(world: &World, named: &Named, path: &Path) -> Result<()> {
    if named.machine.host.is_none() {
        return Ok(());
    }
    let hypervisor = world.hosts.of_machine(&named.stack.record()?, &named.machine)?;
    hypervisor.follow(&named.stack.domain_name(&named.machine.id), path).await?;
    // What is there comes in one go; what comes later is followed.
    let mut length = None;
    for _ in 0..FETCHES {
        tokio::time::sleep(FETCH).await;
        let now = std::fs::metadata(path).map_or(0, |meta| meta.len());
        if now > 0 && length == Some(now) {
            break;
        }
        length = Some(now);
    }
    Ok(())
}

/// Whether the file is still the one at its path.
fn still_there(path: &Path, file: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (named, open) = (std::fs::metadata(path), file.metadata());
    named.is_ok_and(|named| open.is_ok_and(|open| (named.dev(), named.ino()) == (open.dev(), open.ino())))
}

/// The last `lines` of a text, all of it without a number.
fn last_lines(text: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(lines) = lines else { return text };
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    let ends = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match lines.checked_sub(1) {
        None => &[],
        Some(before) => ends.map(|(at, _)| at + 1).nth(before).map_or(text, |from| &text[from..]),
    }
}

/// On a terminal whole lines, whose control characters are shown and do nothing; elsewhere the bytes.
struct Shown {
    terminal: bool,
    rest: Vec<u8>,
}

impl Shown {
    fn print(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.terminal {
            return print(bytes).map(drop);
        }
        self.rest.extend(bytes);
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        print(tame(&lines).as_bytes()).map(drop)
    }

    fn flush(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Ok(()) } else { print(tame(&rest).as_bytes()).map(drop) }
    }
}

fn tame(lines: &[u8]) -> String {
    let text = String::from_utf8_lossy(lines);
    text.lines().fold(String::new(), |tamed, line| tamed + &escape_line(line) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_with_and_without_an_end() {
        for (text, lines, wanted) in [
            ("a\nb\nc\n", Some(2), "b\nc\n"),
            ("a\nb\nc", Some(1), "c"),
            ("a\nb\n", Some(9), "a\nb\n"),
            ("a\n", Some(0), ""),
            ("a\nb", None, "a\nb"),
            ("", Some(3), ""),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), wanted.as_bytes(), "{text:?} {lines:?}");
        }
    }

    #[test]
    fn a_console_cannot_move_the_cursor() {
        assert_eq!(tame(b"one\x1b[2J\x1b]0;title\x07\r\ntwo\x08\n"), "one\ntwo\\x08\n");
    }
}
