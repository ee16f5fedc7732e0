//! Arguments of `ci`: what CI jobs and those who look after pipelines call.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use kmt_reporters::event::Arch;

use super::{Format, Selection, parse_arch};
use crate::settings::file::parse_duration;

/// Subcommands of `ci`.
#[derive(Debug, Subcommand)]
pub enum Ci {
    /// Print the child pipeline of a matrix: a job for each cell, or for each part of the tests.
    Emit(Box<Emit>),
    /// Wait until setup jobs of a pipeline are done; 102 where one failed, 103 where it takes too long.
    Wait(Wait),
    /// Run again what failed in a pipeline, in the right order: setup, uploads, cleanup, tests.
    ///
    /// While the cleanup has not begun the machines are alive, and only what failed runs again.
    #[command(visible_alias = "retry-failed-pipeline")]
    Retry(Retry),
}

/// Arguments of `ci emit`.
#[derive(Debug, Args, Default)]
pub struct Emit {
    /// What is tested, and where.
    #[command(flatten)]
    pub selection: Selection,

    /// So many jobs, each a part of the tests in all cells, instead of a job for each cell.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=200))]
    pub parallel: Option<u32>,

    /// Tags of the runners that take the jobs.
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    pub tags: Vec<String>,

    /// Image of the jobs' containers.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,

    /// How the jobs call this program.
    #[arg(long, value_name = "COMMAND", default_value = "kmt-run")]
    pub program: String,

    /// Longest time of a job.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1h30m")]
    pub job_timeout: Duration,

    /// How long artifacts are kept, in GitLab's words.
    #[arg(long, value_name = "TIME", default_value = "2 weeks")]
    pub expire: String,

    /// No job that compiles for all: each job compiles for itself.
    #[arg(long)]
    pub no_build_job: bool,

    /// Write it to this file instead; unchanged where it is the same.
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// Arguments of `ci wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// Jobs whose names contain this; all setup jobs without it.
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,

    /// The pipeline [default: that of the job this runs in].
    #[arg(long, value_name = "PIPELINE")]
    pub pipeline: Option<String>,

    /// Only setup jobs of this component.
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,

    /// Only setup jobs of this architecture.
    #[arg(long, value_name = "ARCH", value_parser = parse_arch)]
    pub arch: Option<Arch>,

    /// How long to wait.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "40m")]
    pub timeout: Duration,

    /// How long between two looks.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    pub interval: Duration,
}

/// Arguments of `ci retry`.
#[derive(Debug, Args)]
pub struct Retry {
    /// The pipeline: its number or address; without it the newest of the branch.
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<String>,

    /// Only of this component.
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,

    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Lines for people, or JSON (schema 1): `steps`, each with `do` (cancel or retry), `job`, `name`, `result`.
    #[arg(long, value_enum, default_value_t = Format::Human, value_name = "FORMAT")]
    pub format: Format,
}
