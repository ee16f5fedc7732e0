//! `cargo xtask`: everything a machine needs before, and every way to run, kmt-run's own checks.
//!
//! This package builds with the standard library alone, because it runs on machines that have only Rust and
//! gcc: it is what installs libvirt, so it must not link to it. One file a concern:
//!
//! | file | what it owns |
//! |---|---|
//! | `args.rs` | the command line: parsing and `--help` |
//! | `packages.rs` | THE table of Debian packages: which, why, for what |
//! | `apt.rs` | installing them, QEMU from backports where that is what fits |
//! | `host.rs` | questions about this machine: user, `/dev/kvm`, subuid, libvirtd |
//! | `setup.rs` | what is missing, and mending it |
//! | `process.rs` | children: run, capture, run within a limit |
//! | `groups.rs` | the gate: groups, their limits, the table at the end |
//! | `live.rs` | the gate's group `user`: the live tests as an ordinary user that it makes and removes |
//! | `tasks.rs` | demo, soak, bench, triage-score |

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool: it talks to a terminal")]

mod apt;
mod args;
mod groups;
mod host;
mod live;
mod packages;
mod process;
mod setup;
mod tasks;

use std::process::ExitCode;

use args::Task;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let task = match args::parse(&words) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("error: {error}\nhint: `cargo xtask --help` lists what there is");
            return ExitCode::from(2);
        }
    };
    // What follows names files below the repository; setup alone can also be called by sudo from elsewhere.
    if !matches!(task, Task::Help | Task::Setup(_))
        && let Err(error) = std::env::set_current_dir(tasks::repository())
    {
        eprintln!("error: cannot enter {}: {error}", tasks::repository().display());
        return ExitCode::FAILURE;
    }
    let done = match task {
        Task::Help => {
            println!("{}", args::HELP);
            Ok(0)
        }
        Task::Setup(wanted) => setup::task(&wanted),
        Task::Demo { extra } => tasks::demo(&extra),
        Task::Test { groups, list } => groups::task(&groups, list),
        Task::Soak => tasks::soak(),
        Task::TriageScore { folder } => tasks::triage_score(folder.as_deref()),
        Task::Bench { name } => tasks::bench(name.as_deref()),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
