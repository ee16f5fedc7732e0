//! Arguments of `report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How a run is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum To {
    /// What `run` showed.
    #[default]
    Terminal,
    /// JUnit XML, in the flavour of `--flavour`.
    Junit,
    /// One page that opens without a network.
    Html,
    /// The summary (schema 1).
    Json,
    /// A trace for Perfetto: a lane a machine.
    Trace,
    /// A comment for a merge request.
    Markdown,
}

/// Arguments of `report`.
#[derive(Debug, Args, Default)]
pub struct Report {
    /// A run: its id, the beginning or end of it, its folder, or a file of `--export`; without one the `latest`.
    #[arg(value_name = "RUN")]
    pub run: Option<String>,

    /// How to tell it.
    #[arg(long, value_enum, default_value_t = To::Terminal, value_name = "FORM")]
    pub to: To,

    /// Flavour of JUnit: gitlab, datadog, jenkins or buildkite.
    #[arg(long, value_name = "NAME", default_value = "gitlab")]
    pub flavour: String,

    /// Write here instead of to standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Compare with this run, or with the `previous` one, cell by cell: what fails newly, is mended, flaky, missing,
    /// slower.
    #[arg(long, value_name = "RUN2", conflicts_with = "export")]
    pub diff: Option<String>,

    /// Write the run as one file to take elsewhere, secrets scrubbed; `report FILE` reads it.
    #[arg(long, value_name = "FILE.tar.zst")]
    pub export: Option<PathBuf>,

    /// Say the one command that runs each failing cell and its failing tests here, and what differs here.
    #[arg(long, conflicts_with_all = ["export", "diff"])]
    pub reproduce: bool,

    /// Say what a consumer drops, merges or refuses of this JUnit file, whoever wrote it; 2 where anything gets lost.
    #[arg(long, value_name = "FILE", requires = "consumer", conflicts_with_all = ["run", "export", "diff", "reproduce"])]
    pub lint: Option<PathBuf>,

    /// The consumer of `--lint`: gitlab, datadog, jenkins or buildkite.
    #[arg(long = "for", id = "consumer", value_name = "CONSUMER", requires = "lint")]
    pub consumer: Option<String>,

    /// Show every test, also subtests that pass.
    #[arg(short, long)]
    pub verbose: bool,
}
