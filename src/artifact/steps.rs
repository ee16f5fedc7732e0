//! The commands of a component: each runs when what it reads has changed, or what it made is not there any more.
//!
//! `<cache>/steps/<name>.json` notes for each command what it read and made the last time it succeeded.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::cache;
use crate::external::builder::{BuildRequest, Builder, Lines, pattern};
use crate::external::{Class, Error};
use crate::settings::component::BuildCommand;

const EDITION: &str = "kmt-run step 1";

/// What a command read and made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    key: String,
    outputs: Vec<Made>,
}

/// A file that a command made, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    path: PathBuf,
    size: u64,
    modified: (i64, i64),
    inode: u64,
}

/// How a command is called in reports.
pub(super) fn subject(command: &BuildCommand) -> String {
    format!("command {}", command.argv.join(" "))
}

/// Runs the commands of `request` that have something to do, in order. How many ran, how many had nothing to do.
///
/// # Errors
/// The first that fails, or makes nothing of what it declares; with how it is called.
pub(super) async fn carry_out(
    request: &BuildRequest,
    builder: &dyn Builder,
    cache: &Path,
    lines: Lines<'_>,
) -> Result<(u32, u32), (String, Error)> {
    let (mut ran, mut idle) = (0, 0);
    for command in &request.commands {
        let failed = |error: Error| (subject(command), error);
        let unread =
            |error: io::Error| failed(Error::io("the build", "read the inputs of", subject(command), &error));
        let file = note_file(cache, request, command);
        let key = key(request, command).map_err(unread)?;
        let outputs = made(request, command).map_err(&unread)?;
        if complete(request, command).is_ok() && read(&file) == Some(Note { key: key.clone(), outputs }) {
            idle += 1;
            continue;
        }
        // Whatever happens now, what was noted is not true any more.
        let _ = fs::remove_file(&file);
        lines(&format!("$ {}", command.argv.join(" ")));
        builder.command(request, command, lines).await.map_err(failed)?;
        complete(request, command).map_err(failed)?;
        let outputs = made(request, command).map_err(&unread)?;
        write(&file, &Note { key, outputs }).map_err(unread)?;
        ran += 1;
    }
    Ok((ran, idle))
}

fn note_file(cache: &Path, request: &BuildRequest, command: &BuildCommand) -> PathBuf {
    let name =
        format!("{}\n{}\n{:?} {}", request.repository.display(), request.arch, command.argv, command.dir);
    cache.join("steps").join(format!("{}.json", hex::encode(Sha256::digest(name))))
}

/// All that a command depends on. What it makes is no input, whatever the patterns say.
fn key(request: &BuildRequest, command: &BuildCommand) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{EDITION}\n{command:?}\n"));
    let outputs = pattern::files(&request.repository, &command.outputs);
    let inputs: BTreeSet<PathBuf> = pattern::files(&request.repository, &command.inputs);
    for input in inputs.difference(&outputs) {
        let digest = match fs::read_link(input) {
            Ok(target) => format!("link to {}", target.display()),
            Err(_) => cache::digest(input)?.0,
        };
        hash.update(format!("{}\n{digest}\n", input.display()));
    }
    Ok(hex::encode(hash.finalize()))
}

fn made(request: &BuildRequest, command: &BuildCommand) -> io::Result<Vec<Made>> {
    let files = pattern::files(&request.repository, &command.outputs).into_iter();
    files
        .map(|path| {
            let meta = fs::symlink_metadata(&path)?;
            Ok(Made {
                size: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                inode: meta.ino(),
                path,
            })
        })
        .collect()
}

/// Whether each pattern of outputs matches something.
fn complete(request: &BuildRequest, command: &BuildCommand) -> Result<(), Error> {
    for output in &command.outputs {
        let refuse = |words: String| Error::new("the build command", "make", output, Class::Rejected, words);
        if pattern::matching(&request.repository, output).map_err(refuse)?.is_empty() {
            let words = format!("`{}` ended well, and nothing matches `{output}`", command.argv.join(" "));
            return Err(refuse(words).hint("`outputs` are relative to kmt.toml, not to the command's `dir`"));
        }
    }
    Ok(())
}

fn read(file: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Half a note is as good as none, so it is written where it stays.
fn write(file: &Path, note: &Note) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    fs::write(file, serde_json::to_vec(note)?)
}
