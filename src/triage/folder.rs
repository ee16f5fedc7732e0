//! A folder of downloaded artifacts: whatever lies in it, by the names that jobs give.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kmt_reporters::RunDirectory;
use kmt_reporters::event::Arch;
use kmt_reporters::explain::{Explanation, Machine, Place, Reason, Subject, grouped};

use super::decide::{self, Evidence, Told};
use super::entries::{self, Entry, State};
use super::junit::{self, OfCell, Results};
use super::machines::{self, StackOutput};
use super::names::Names;
use super::run;
use super::sizes::{self, Asked};
use crate::error::{Failure, Result};
use crate::external::ci::Job;
use crate::matrix::spec::arch_named;

/// Most files that are looked at.
const FILES: usize = 100_000;
/// Deepest folder.
const DEPTH: usize = 16;

/// What lies in a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Jobs and cells.
    pub entries: Vec<Entry>,
    /// Its explanation.
    pub told: Explanation,
}

/// Reads a folder; one file is a folder of that file alone.
///
/// # Errors
/// There is nothing in it that anybody knows.
pub fn read(folder: &Path, names: &Names) -> Result<Found> {
    let files = files(folder)?;
    let mut found = Found::default();
    let mut notices = Vec::new();
    let artifacts = &names.artifacts;
    let mut setups = Setups::default();
    for path in &files {
        let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
        if path.file_name().is_some_and(|name| name == "events.jsonl") {
            match run::read(path) {
                Ok(recorded) => {
                    let output = RunDirectory(path.parent().unwrap_or(folder).to_path_buf());
                    let (mut own, told) = run::explained(&recorded, &output);
                    found.entries.append(&mut own);
                    found.told.machines.extend(told.machines);
                    found.told.causes.extend(told.causes);
                }
                Err(error) => notices.push(format!("`{name}` {error}")),
            }
        } else if let Some(words) = names.words_of(&artifacts.junit, &name) {
            found.entries.push(of_junit(path, &name, Some(&words), &mut notices));
        } else if names.words_of(&artifacts.stack_output, &name).is_some() {
            match StackOutput::read(path) {
                Ok(output) => setups.outputs.push(output),
                Err(error) => notices.push(format!("`{name}` {error}")),
            }
        } else if let Some(words) = names.words_of(&artifacts.vmconfig, &name) {
            setups.asked.push((arch_named(value(&words, "arch")), Asked::read(path)));
        } else if let Some(words) = names.words_of(&artifacts.console, &name) {
            setups.consoles.push((words, path.clone()));
        } else if name.ends_with(".zip") {
            notices.push(format!("`{name}` is packed: unpack it, and name the folder"));
        }
    }
    if found.entries.is_empty() {
        // JUnit of any tool, in one run each; a recorded run has its own beside it.
        let loose = files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "xml"));
        found.entries = loose.flat_map(|path| of_loose(path, &mut notices)).collect();
    }
    setups.explain(&mut found, &mut notices);
    setups.size(&mut found.entries);
    if found.entries.is_empty() && found.told.machines.is_empty() {
        let failure =
            Failure::usage(format!("nothing in `{}` is a run, an artifact or JUnit", folder.display()));
        let failure = notices.into_iter().fold(failure, Failure::caused_by);
        return Err(failure
            .hint("name a pipeline, a run directory (it has an `events.jsonl`), or a folder of artifacts"));
    }
    finish(&mut found, folder, notices);
    Ok(found)
}

fn finish(found: &mut Found, folder: &Path, notices: Vec<String>) {
    let mut causes = entries::causes(&found.entries);
    causes.append(&mut found.told.causes);
    let failed = found.entries.iter().filter(|entry| matches!(entry.state, State::Failed(_))).count();
    found.told = Explanation {
        schema: 1,
        subject: Subject {
            kind: "artifacts",
            name: folder.display().to_string(),
            total: found.entries.len(),
            failed,
            ..Subject::default()
        },
        groups: entries::groups(&found.entries),
        causes: grouped(causes),
        notices,
        machines: std::mem::take(&mut found.told.machines),
        ..Explanation::default()
    };
}

/// All files below, in the order of their paths; links are not followed.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let data = std::fs::metadata(folder)
        .map_err(|error| Failure::usage(format!("no `{}`", folder.display())).caused_by(error))?;
    if data.is_file() {
        return Ok(vec![folder.to_path_buf()]);
    }
    let (mut found, mut open) = (Vec::new(), vec![(folder.to_path_buf(), 0)]);
    while let Some((folder, depth)) = open.pop() {
        let listed = std::fs::read_dir(&folder).map_err(|error| Failure::file("read", &folder, &error))?;
        for entry in listed.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH => open.push((entry.path(), depth + 1)),
                Ok(kind) if kind.is_file() && found.len() < FILES => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

fn value<'w>(words: &'w [(String, String)], key: &str) -> &'w str {
    words.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value.as_str())
}

fn of_junit(path: &Path, name: &str, words: Option<&[(String, String)]>, notices: &mut Vec<String>) -> Entry {
    let results = Results::read(path);
    notices.extend(results.trouble.iter().map(|trouble| format!("`{name}`: {trouble}")));
    let words = words.unwrap_or_default();
    let broken = !results.trouble.is_empty() && results.files == 0;
    let failed = results.failed().next().is_some();
    let evidence = Evidence { results: Some(results.clone()), ..Evidence::default() };
    let told = (failed || broken).then(|| decide::test_job(&Job::default(), &evidence));
    let (platform, arch) = match value(words, "platform") {
        "" => (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), None),
        platform => (platform.to_owned(), arch_named(value(words, "arch"))),
    };
    Entry {
        component: component_of(&results),
        set: value(words, "set").to_owned(),
        place: Place { platform, arch: arch.unwrap_or(Arch::host()) },
        name: name.to_owned(),
        url: String::new(),
        attempts: 1,
        allowed: false,
        size: None,
        state: told.map_or(State::Passed, State::Failed),
        results: Some(results),
    }
}

/// A file of any tool: by the cells it names, else as one place of its name.
fn of_loose(path: &Path, notices: &mut Vec<String>) -> Vec<Entry> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut entries = Vec::new();
    for (cell, OfCell { results, trouble }) in junit::by_cell(path) {
        notices.extend(results.trouble.iter().cloned());
        if results.files == 0 {
            continue;
        }
        let evidence = Evidence { results: Some(results.clone()), ..Evidence::default() };
        let told = match trouble {
            Some(trouble) => Some(Told::new(Reason::Boot, "no-machine", trouble)),
            None => results.failed().next().is_some().then(|| decide::test_job(&Job::default(), &evidence)),
        };
        let place = match &cell {
            Some(cell) => run::place(cell),
            None => Place { platform: stem.clone(), arch: Arch::host() },
        };
        entries.push(Entry {
            component: component_of(&results),
            set: cell.as_ref().and_then(|cell| cell.set.clone()).unwrap_or_default(),
            place,
            name: cell.as_ref().map_or_else(|| path.display().to_string(), ToString::to_string),
            url: String::new(),
            attempts: 1,
            allowed: false,
            size: cell.as_ref().and_then(|cell| cell.size),
            state: told.map_or(State::Passed, State::Failed),
            results: Some(results),
        });
    }
    entries
}

/// The component, by its packages: names of files do not say it.
fn component_of(results: &Results) -> String {
    let security = results.tests.keys().any(|(package, _)| package.starts_with("pkg/security"));
    if security { "security-agent".to_owned() } else { "system-probe".to_owned() }
}

/// What setup jobs left.
#[derive(Default)]
struct Setups {
    outputs: Vec<StackOutput>,
    asked: Vec<(Option<Arch>, Asked)>,
    consoles: Vec<(Vec<(String, String)>, PathBuf)>,
}

impl Setups {
    /// Gives entries the size of their machines.
    fn size(&self, entries: &mut [Entry]) {
        for entry in entries.iter_mut().filter(|entry| entry.size.is_none()) {
            let Place { platform, arch } = &entry.place;
            let mut asked = self.asked.iter().filter(|(own, _)| own.is_none_or(|own| own == *arch));
            let by_name = || {
                let mut outputs = self.outputs.iter();
                outputs.find_map(|output| sizes::of_name(output, *arch, (platform, &entry.set)))
            };
            entry.size = asked.find_map(|(_, asked)| asked.of(platform, &entry.set)).or_else(by_name);
        }
    }

    /// Machines whose console shows that they did not come up.
    fn explain(&self, found: &mut Found, notices: &mut Vec<String>) {
        let mut by_machine = BTreeMap::new();
        for (words, path) in &self.consoles {
            match machines::console(path) {
                Ok(console) => _ = by_machine.insert(value(words, "vm").to_owned(), (words, console)),
                Err(error) => notices.push(format!("`{}` cannot be read: {error}", path.display())),
            }
        }
        for (vm, (words, console)) in by_machine.into_iter().filter(|(_, (_, console))| !console.login) {
            let known = self.outputs.iter().find_map(|output| output.by_id(&vm));
            let arch = arch_named(&value(words, "arch-dashed").replace("x86-64", "x86_64"));
            let place = Place {
                platform: known.map_or(vm.clone(), |known| known.tag.clone()),
                arch: arch.unwrap_or(Arch::host()),
            };
            let evidence = Evidence { login: Some(false), finding: console.finding, ..Evidence::default() };
            let told = decide::test_job(&Job::default(), &evidence);
            let component = value(words, "component").to_owned();
            found.told.causes.push(told.cause(format!("{component} {place}")));
            found.told.machines.push(Machine {
                component,
                set: String::new(),
                place,
                login: Some(false),
                unit: console.unit,
                address: None,
                phase: console.phase,
                says: told.says,
            });
        }
    }
}
