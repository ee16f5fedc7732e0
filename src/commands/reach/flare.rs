//! `stack flare`: an archive for whoever is asked for help. It holds what is named here and nothing else: no key,
//! no disk, no output of tests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::Utc;
use flate2::Compression;
use flate2::write::GzEncoder;
use kmt_reporters::event::{Event, LogReader};
use kmt_reporters::text::bytes;

use super::super::{doctor, say};
use super::{everything, of_stack};
use crate::doctor::checks;
use crate::error::{Failure, Result};
use crate::external::process::Child;
use crate::settings::Settings;
use crate::stack::Stack;
use crate::world::World;

/// Most bytes of one console or log: the end of it.
const MOST: usize = 4 * 1024 * 1024;
/// Most runs that are put in, the newest.
const RUNS: usize = 3;
/// Files of a stack that are put in.
const OF_STACK: [&str; 4] = ["stack.json", "stack.output", "ssh_config", "known_hosts"];
/// Files of a run that are put in.
const OF_RUN: [&str; 2] = ["events.jsonl", "summary.json"];
/// What a private key begins with, whoever wrote it.
const PRIVATE: &[u8] = b"PRIVATE KEY-----";

/// Writes the archive of one stack, or of all.
///
/// # Errors
/// The archive cannot be written.
pub(super) async fn flare(
    settings: &Settings,
    world: &World,
    stack: Option<&str>,
    folder: Option<&Path>,
) -> Result<u8> {
    let stacks = match stack {
        Some(name) => vec![of_stack(settings, Some(name)).await?.0],
        None => Stack::all(&settings.home)?,
    };
    let name = format!("kmt_flare_{}", Utc::now().format("%Y%m%d-%H%M%S"));
    let path = folder.unwrap_or(Path::new(".")).join(format!("{name}.tar.gz"));
    let mut parts: Vec<(String, Vec<u8>)> = vec![("versions.txt".to_owned(), versions().await.into_bytes())];
    let facts = doctor::facts(settings, world).await?;
    let verdicts = doctor::as_json(&checks::examine(&facts));
    parts.push(("doctor.json".to_owned(), format!("{verdicts:#}\n").into_bytes()));
    for stack in &stacks {
        of_one_stack(stack, &mut parts);
    }
    let hosts = everything(settings)?.iter().map(|named| named.hosts.join(" ") + "\n").collect::<String>();
    parts.push(("hosts.txt".to_owned(), hosts.into_bytes()));
    let runs = newest_runs(&settings.home.runs());
    for run in &runs {
        of_one_run(run, &mut parts);
    }
    mask(&mut parts, runs.iter().flat_map(|run| typed_values(run)).collect());
    let written = fs::File::create(&path).and_then(|file| pack(file, &name, &parts));
    let size = written.map_err(|error| Failure::file("write", &path, &error))?;
    say(&format!("{:>12} {} ({}): look into it before you send it", "Written", path.display(), bytes(size)));
    Ok(0)
}

async fn versions() -> String {
    let mut text = format!("kmt-run {}\n", env!("CARGO_PKG_VERSION"));
    let asked: [(&str, &[&str]); 6] = [
        ("uname", &["-a"]),
        ("libvirtd", &["--version"]),
        ("qemu-img", &["--version"]),
        ("ssh", &["-V"]),
        ("go", &["version"]),
        ("git", &["--version"]),
    ];
    for (program, args) in asked {
        let said = match Child::new(program).args(args).output().await {
            Ok(output) if output.stdout.is_empty() => String::from_utf8_lossy(&output.stderr).into_owned(),
            Ok(output) => output.text(),
            Err(error) => error.detail,
        };
        text.push_str(&format!("{program}: {}\n", said.lines().next().unwrap_or_default()));
    }
    text
}

fn of_one_stack(stack: &Stack, parts: &mut Vec<(String, Vec<u8>)>) {
    let name = stack.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for file in OF_STACK {
        take(&stack.folder.join(file), format!("stacks/{name}/{file}"), parts);
    }
    let machines = fs::read_dir(stack.folder.join("machines")).into_iter().flatten().flatten();
    for machine in machines {
        let id = machine.file_name().to_string_lossy().into_owned();
        take(&machine.path().join("console.log"), format!("stacks/{name}/{id}/console.log"), parts);
    }
}

fn of_one_run(run: &Path, parts: &mut Vec<(String, Vec<u8>)>) {
    let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for file in OF_RUN {
        take(&run.join(file), format!("runs/{name}/{file}"), parts);
    }
    for machine in fs::read_dir(run.join("machines")).into_iter().flatten().flatten() {
        let id = machine.file_name().to_string_lossy().into_owned();
        for file in ["console.log", "dmesg.log"] {
            take(&machine.path().join(file), format!("runs/{name}/machines/{id}/{file}"), parts);
        }
    }
}

/// Puts a file in, its end where it is long; one that is not there, or that shows a key, stays out.
fn take(file: &Path, name: String, parts: &mut Vec<(String, Vec<u8>)>) {
    let Ok(mut content) = fs::read(file) else { return };
    if content.len() > MOST {
        content.drain(..content.len() - MOST);
    }
    let shows_key = content.windows(PRIVATE.len()).any(|window| window == PRIVATE);
    parts.push(if shows_key {
        (name, b"left out: it shows a private key\n".to_vec())
    } else {
        (name, content)
    });
}

/// Puts dots for the values, wherever they show: as they are, or as JSON has them.
fn mask(parts: &mut [(String, Vec<u8>)], mut values: Vec<String>) {
    let as_json = |value: &String| serde_json::Value::from(value.as_str()).to_string();
    values.extend(values.clone().iter().map(as_json).map(|quoted| quoted[1..quoted.len() - 1].to_owned()));
    // A value may be a part of another one.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for value in values {
        for (_, content) in parts.iter_mut() {
            if content.windows(value.len()).any(|window| window == value.as_bytes()) {
                *content = String::from_utf8_lossy(content).replace(&value, "•••").into_bytes();
            }
        }
    }
}

/// The values that tests of a run were given on its command line, by `--test-env NAME=VALUE`; what came by the
/// environment is in no record anyway. Words of up to three letters are no secrets.
fn typed_values(run: &Path) -> Vec<String> {
    let Ok(log) = fs::File::open(run.join("events.jsonl")) else { return Vec::new() };
    let first = LogReader::new(io::BufReader::new(log)).find_map(|line| line.ok());
    let Some(Event::RunStarted { command, .. }) = first.map(|envelope| envelope.event) else {
        return Vec::new();
    };
    let flags = ["--test-env", "--test-extra-env"];
    let mut values = Vec::new();
    for (at, word) in command.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| command.get(at));
        let pair = match word.split_once('=') {
            Some((flag, pair)) if flags.contains(&flag) => Some(pair),
            Some(_) if before.is_some_and(|flag| flags.contains(&flag.as_str())) => Some(word.as_str()),
            _ => None,
        };
        let value = pair.and_then(|pair| pair.split_once('=')).map(|(_, value)| value);
        values.extend(value.filter(|value| value.len() > 3).map(str::to_owned));
    }
    values
}

fn newest_runs(runs: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = listed.filter(|path| path.is_dir() && !path.is_symlink()).collect();
    folders.sort();
    folders.split_off(folders.len().saturating_sub(RUNS))
}

fn pack(file: fs::File, name: &str, parts: &[(String, Vec<u8>)]) -> io::Result<u64> {
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (part, content) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(Utc::now().timestamp()).unwrap_or(0));
        tar.append_data(&mut header, format!("{name}/{part}"), content.as_slice())?;
    }
    let file = tar.into_inner()?.finish()?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_dots_also_where_json_quotes_them() {
        let mut parts = vec![("log".to_owned(), br#"{"a":"one say \"hi\" two"} say "hi" sayonara"#.to_vec())];
        mask(&mut parts, vec!["say".to_owned(), "say \"hi\"".to_owned()]);
        assert_eq!(String::from_utf8_lossy(&parts[0].1), "{\"a\":\"one ••• two\"} ••• •••onara");
    }

    #[test]
    fn what_shows_a_key_stays_out_and_a_long_console_is_cut_at_its_beginning() {
        let temp = tempfile::tempdir().unwrap();
        let (key, long) = (temp.path().join("key"), temp.path().join("long"));
        fs::write(&key, "console\n-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n").unwrap();
        let mut text = vec![b'a'; MOST];
        text.extend(b"end");
        fs::write(&long, text).unwrap();
        let mut parts = Vec::new();
        for file in [&key, &long, &temp.path().join("none")] {
            take(file, file.display().to_string(), &mut parts);
        }
        assert_eq!(parts.len(), 2);
        assert!(!String::from_utf8_lossy(&parts[0].1).contains("secret"));
        assert!(parts[1].1.len() == MOST && parts[1].1.ends_with(b"end"));
    }
}
