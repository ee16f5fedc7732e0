//! One file a subcommand, each a screen of calls into rooms. `run.rs` is THE main path.
//!
//! Owns the order of steps and nothing else. To add a subcommand: a variant in `cli`, a file here, a line in
//! [`dispatch`].

mod build;
mod chosen;
mod ci;
mod clean;
mod config;
mod doctor;
mod explain;
mod from_ci;
mod hire;
mod images;
mod in_job;
mod init;
mod jobs;
mod keys;
mod lifecycle;
mod ls;
mod machines;
mod plan;
mod preflight;
mod reach;
mod remotes;
mod rent;
mod report;
mod reports;
mod reproduce;
mod rerun;
mod run;
mod signals;
mod source;
mod ssh_key;
mod stack;

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::cli::{self, Cli, Command};
use crate::error::{Failure, Result};
use crate::settings::{Settings, Wishes};
use crate::world::World;

/// Opens the doors for the settings of one invocation: [`World::real`], or a scripted world in tests.
pub type Open<'a> = &'a (dyn Fn(&Settings) -> World + Sync);

/// Does what was typed; the result is the exit code.
///
/// # Errors
/// Whatever kept it from being done.
pub async fn dispatch(cli: Cli, open: Open<'_>) -> Result<u8> {
    let wishes = Wishes { folder: cli.folder.clone(), profile: cli.profile.clone(), matrix_root: None };
    match cli.command {
        Command::Run(mut args) => {
            from_ci::fill(&mut args.selection, &wishes, open).await?;
            if let Some(written) = args.selection.written.as_mut().filter(|_| args.skip_unavailable) {
                written.homeless = cli::Homeless::NotRun;
            }
            if args.dry_run {
                return plan::plan(&args.selection, args.format, wishes, open).await;
            }
            run::run(&args, wishes, open).await
        }
        Command::Plan(mut args) => {
            from_ci::fill(&mut args.selection, &wishes, open).await?;
            plan::plan(&args.selection, args.format, wishes, open).await
        }
        Command::Rerun(args) => rerun::rerun(&args, wishes, open).await,
        Command::Build(mut args) => {
            from_ci::fill(&mut args.selection, &wishes, open).await?;
            build::build(&args, wishes, open).await
        }
        Command::Ci(command) => ci::ci(command, wishes, open).await,
        Command::Report(args) => report::report(&args),
        Command::Explain(args) => explain::explain(&args, &wishes).await,
        Command::Ls(args) => ls::ls(&args, &wishes, open),
        Command::Stack(command) => stack::stack(&command, wishes, open).await,
        Command::Images(command) => images::images(&command, &wishes, open).await,
        Command::Clean(args) => clean::clean(&args, &Settings::load(&wishes)?),
        Command::Config(cli::Config::Init(args)) => init::init(&args, wishes.folder.as_deref()),
        Command::Config(cli::Config::Schema) => init::schema(),
        Command::Config(cli::Config::Show { format }) => config::show(format, &Settings::load(&wishes)?),
        Command::Config(cli::Config::SshKey(choice)) => ssh_key::ssh_key(&choice).await,
        Command::Doctor(args) => doctor::doctor(&args, &Settings::load(&wishes)?, open).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kmt-run", &mut script);
            print(&script)
        }
        Command::Man { dir } => man(dir.as_deref()),
    }
}

/// Writes to standard output; a closed pipe is quiet.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print(bytes: &[u8]) -> Result<u8> {
    match std::io::stdout().lock().write_all(bytes).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::file("write", std::path::Path::new("standard output"), &error))
        }
        _ => Ok(0),
    }
}

/// Writes a line for people to standard error; nobody may be listening.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints JSON, indented, with a newline.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<u8> {
    print(format!("{value:#}\n").as_bytes())
}

fn man(dir: Option<&std::path::Path>) -> Result<u8> {
    let failed = |error: &std::io::Error| Failure::usage("cannot write the manual").caused_by(error);
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|error| Failure::file("create", dir, &error))?;
            clap_mangen::generate_to(Cli::command(), dir).map_err(|error| failed(&error))?;
            Ok(0)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|error| failed(&error))?;
            print(&page)
        }
    }
}
