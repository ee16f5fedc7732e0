//! Arguments of commands that take their cells from a pipeline.

use clap::Args;

/// What failed in CI, as a source of cells and tests.
#[derive(Debug, Args, Clone, Default)]
pub struct FromPipeline {
    /// What failed in this pipeline: its number or address, `newest` of the branch, a folder of downloaded artifacts, a
    /// run directory, or a JUnit file.
    ///
    /// Each failed job of the component is a cell with the size it had in CI, and runs the tests that failed in it; a
    /// job that left no results runs all. In CI an architecture means a remote machine.
    #[arg(long, value_name = "PIPELINE", help_heading = "From CI", conflicts_with_all = ["matrix", "vmsets"])]
    pub from_ci_pipeline: Option<String>,

    /// Put a cell on this machine where its architecture and an image allow.
    #[arg(long, requires = "from_ci_pipeline", help_heading = "From CI")]
    pub use_local_if_possible: bool,

    /// Only jobs whose names contain one of these, or match it where it has `*`; `only_usm` as well as a whole name.
    #[arg(long = "job", value_name = "NAME", requires = "from_ci_pipeline", help_heading = "From CI")]
    pub jobs: Vec<String>,

    /// Of the tests that failed only those whose full name matches.
    #[arg(long = "test", value_name = "REGEXP", requires = "from_ci_pipeline", help_heading = "From CI")]
    pub tests: Vec<String>,

    /// Also tests that passed only in a later attempt, or in a later job.
    #[arg(long, requires = "from_ci_pipeline", help_heading = "From CI")]
    pub include_flaky: bool,
}
