//! kmt-run: a test-matrix runner for code that depends on the kernel.
//!
//! The main path reads like this: a matrix file, or a list of machines, becomes cells ([`matrix`]). What can
//! be refused is refused before anything boots ([`commands`]). The build is started ([`artifact`]); every cell
//! gets its image ([`image`]) and a machine that is reused or booted ([`stack`], [`machine`]); artifacts are
//! shipped, packages run, and each line of output becomes a fact ([`run`]); facts become the record
//! ([`record`]) and the reports (the crate `kmt-reporters`); the model of the run decides the exit code.
//!
//! What went wrong in a pipeline or a run is found out by [`triage`].
//!
//! Everything outside is reached through doors ([`external`]); [`world`] alone says which.

pub mod artifact;
pub mod cli;
pub mod cloud;
pub mod commands;
pub mod doctor;
pub mod error;
pub mod external;
pub mod hosts;
pub mod image;
pub mod known;
pub mod machine;
pub mod matrix;
pub mod plan;
pub mod record;
pub mod run;
pub mod settings;
pub mod stack;
pub mod triage;
pub mod world;

use std::io::{IsTerminal as _, Write as _};

use clap::Parser as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Parses the arguments, does what they say in the real world, and gives the exit code.
pub async fn main() -> u8 {
    main_in(&world::World::real).await
}

/// The same in the world that `open` gives.
pub async fn main_in(open: commands::Open<'_>) -> u8 {
    let cli = match cli::Cli::try_parse_from(cli::former::modern(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: they go to standard output. A closed pipe is quiet.
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    start_logging();
    match commands::dispatch(cli, open).await {
        Ok(code) => code,
        Err(failure) => {
            let color = error::Color::of(std::io::stderr().is_terminal());
            let _ = std::io::stderr().lock().write_all(failure.render(color).as_bytes());
            failure.kind.exit_code()
        }
    }
}

/// What is logged: not how requests to AWS are signed, in whose text credentials could stand.
fn targets(level: tracing::Level) -> Targets {
    let quiet = ["aws_", "hyper", "rustls"].map(|target| (target, LevelFilter::WARN));
    Targets::new().with_default(level).with_targets(quiet)
}

/// Diagnostics for developers of kmt-run itself: `KMT_LOG=debug`, on standard error.
fn start_logging() {
    if let Ok(filter) = std::env::var("KMT_LOG") {
        let level = filter.parse().unwrap_or(tracing::Level::INFO);
        let _ = tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
            .with(targets(level))
            .try_init();
    }
}
