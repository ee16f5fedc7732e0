//! Scenarios: a scripted world, what was typed, and what must come out. Each folder beside this file is one.
//!
//! | file | what it is |
//! |---|---|
//! | `world.toml` | the script of the world (`external::scripted::Script`) |
//! | `invocation` | one line a call of `kmt-run`: the exit code that is promised, then the words |
//! | `kmt.toml`, `matrix.toml` | files of the repository under test, where the common ones do not do |
//! | `expected/terminal` | what was said, redacted; lines before the closing part in any order |
//! | `expected/results` | what `summary.json` says of cells and tests |
//! | `expected/world` | how often each machine was started, connected to, removed, … |
//!
//! Besides, `kill.rs` walks every step of commands, listed by number in `steps/`, and kills them there.
//!
//! This program is both the harness and, where `KMT_SCRIPTED_STAGE` is set, the `kmt-run` whose world is
//! scripted: every call is a process with its own environment, signals and death. `SCENARIOS=overwrite cargo test
//! --test scenarios` writes `expected/`; exit codes and the checks of `check.rs` stay promises.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod check;
mod expected;
mod fifty;
mod kill;
mod scene;

use std::path::Path;
use std::process::ExitCode;

use kmt_run::external::scripted::Script;
use kmt_run::world::World;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    if let Some(stage) = std::env::var_os(scene::STAGE) {
        return program(Path::new(&stage));
    }
    let mut trials = Vec::new();
    let is_scenario = |entry: &std::fs::DirEntry| entry.path().join("invocation").is_file();
    for entry in std::fs::read_dir(scene::folder()).unwrap().flatten().filter(is_scenario) {
        let name = entry.file_name().into_string().unwrap();
        trials.push(trial(name.clone(), move || scene::play(&name)));
    }
    for (name, walk) in kill::WALKS {
        trials.push(trial(format!("killed_at_every_step_of_{name}"), move || walk().go(name)));
    }
    trials.push(trial("two_runs_at_once_share_no_machine".to_owned(), kill::two_at_once));
    trials.push(trial("fifty_machines_keep_within_the_host".to_owned(), fifty::machines));
    trials.push(trial("two_launches_at_once_are_one".to_owned(), kill::two_launches_at_once));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    scene::clear();
    conclusion.exit_code()
}

fn trial(name: String, body: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        done.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Failed::from(text.unwrap_or_default())
        })
    })
}

/// `kmt-run`, but for its world.
fn program(stage: &Path) -> ExitCode {
    let script = std::fs::read_to_string(std::env::var_os(scene::SCRIPT).unwrap()).unwrap();
    let script = Script::parse(&script).unwrap_or_else(|error| panic!("world.toml: {error}"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open =
        |settings: &kmt_run::settings::Settings| World::scripted(script.clone(), stage, settings).unwrap();
    ExitCode::from(runtime.block_on(kmt_run::main_in(&open)))
}
