//! Argument types only: what was typed, nothing resolved.
//!
//! Owns names, help texts and old spellings. What a value means is for `settings` and `matrix`. To add a
//! subcommand: a variant of [`Command`], its file in `commands/`.

mod ci;
pub mod former;
mod lifecycle;
mod pipeline;
mod reach;
pub mod report;
mod rules;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kmt_reporters::event::Arch;

use crate::matrix::file::Where;
pub use ci::{Ci, Emit, Retry, Wait};
pub use lifecycle::{Configure, Launch, Lifecycle, Network, Target};
pub use pipeline::FromPipeline;
pub use reach::{Place, Reach};
pub use rules::Rules;

/// Runs kernel-dependent tests over a matrix of distributions, kernels and architectures.
#[derive(Debug, Parser)]
#[command(name = "kmt-run", version, max_term_width = 100, disable_help_subcommand = true, after_help = AFTER)]
pub struct Cli {
    /// Use the repository at DIR (its `kmt.toml` is looked for from there upward).
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub folder: Option<PathBuf>,

    /// Settings of this profile of `kmt.toml` [env: KMT_PROFILE].
    #[arg(long, value_name = "NAME", global = true)]
    pub profile: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "\
Exit codes: 0 passed · 1 internal · 2 usage · 4 nothing selected · 5 others outstanding · 100 tests failed · 101 build failed
            102 a cell never ran or was lost · 103 no CI data · 104 no remote provider · 130 interrupted";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a test matrix: boot or reuse machines, build, ship, test, report.
    ///
    /// While it runs on a terminal: Enter says what runs where, `t` also its last lines, `c` shows a machine's console,
    /// `q` cancels. SIGUSR1 asks for the same without a terminal.
    #[command(visible_alias = "test")]
    Run(Box<Run>),
    /// Show what `run` would do, and do nothing: cells, machines, images, work, time.
    Plan(Plan),
    /// Run again what did not pass in an earlier run, and nothing else.
    Rerun(Box<Rerun>),
    /// Build system-probe and the tests, and ship them to the machines of the stack.
    #[command(visible_alias = "prepare")]
    Build(Build),
    /// Remove what was built here.
    Clean(Clean),
    /// Tell a recorded run again, compare two, or make one a file to take elsewhere.
    #[command(visible_alias = "show-last-test-results")]
    Report(report::Report),
    /// Say why a pipeline, a run or a folder of artifacts is red.
    #[command(visible_alias = "explain-ci-failure")]
    Explain(Explain),
    /// For CI: print a child pipeline, wait for a setup job, run again what failed.
    #[command(subcommand)]
    Ci(Ci),
    /// List every machine that could be asked for.
    Ls(Ls),
    /// Look after the machines that outlive a run.
    #[command(subcommand)]
    Stack(Stack),
    /// Look after root filesystems and kernels.
    #[command(subcommand)]
    Images(Images),
    /// Show what is configured, and where each value comes from.
    #[command(subcommand)]
    Config(Config),
    /// Check this machine: what is wrong, and the command that mends it.
    Doctor(Doctor),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them.
    Man {
        /// Write `kmt-run.1` and one page a subcommand into this folder.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// What is tested, and where.
#[derive(Debug, Args, Clone, Default)]
pub struct Selection {
    /// Matrix file, such as `matrices/demo.toml`.
    #[arg(value_name = "MATRIX")]
    pub matrix: Option<PathBuf>,

    /// vmsets file (`vmconfig.json`) of the former tool, instead of a matrix.
    #[arg(long, value_name = "FILE", conflicts_with = "matrix")]
    pub vmsets: Option<PathBuf>,

    /// Machines `<recipe>-<arch>-<version>`, such as `debian_12-local-distro,custom-6.12-local`. With a
    /// matrix: only these of it.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub vms: Vec<String>,

    /// Where the machines of a matrix's axes are, instead of what it says: local, remote, or auto (local where this
    /// machine has the architecture).
    #[arg(long = "where", value_name = "PLACE", value_parser = parse_where, requires = "matrix", help_heading = "Selection")]
    pub place: Option<Where>,

    /// Only cells of these distributions.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Selection")]
    pub distro: Vec<String>,

    /// Only cells with such a kernel: `'>=5.8'`, `'>=5.4, <6.2'`.
    #[arg(long, value_name = "COMPARISON", help_heading = "Selection")]
    pub kernel: Option<String>,

    /// Only cells of these architectures.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_arch, help_heading = "Selection")]
    pub arch: Vec<Arch>,

    /// Only these cells: ids such as `debian_12/6.1/x86_64`, or globs.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Selection")]
    pub cell: Vec<String>,

    /// Only what a filter expression says, such as `'kernel(>=5.8) & !distro(amazon) & test(/DNS/)'`; several are
    /// alternatives.
    ///
    /// Predicates: all() none() distro() platform() kernel() arch() recipe() location() set() cell() package()
    /// test(). Operators: `!`/not, `&`/and, `-` (and not), `|`/or, parentheses. Values: `=exact`, `~part`,
    /// `/regular expression/`, `#glob`; `kernel(>=5.4, <6.2)` compares, `package(./pkg/network/...)` is a pattern
    /// of Go. `test()` is about top-level tests, by a part of their name unless it says `=Name`; `--run` chooses
    /// subtests.
    #[arg(short = 'E', long = "filter-expr", value_name = "EXPR", help_heading = "Selection")]
    pub filter_expr: Vec<String>,

    /// A kernel of your own, as the custom kernel of that version: a `.deb`, an archive (`.pkg.tar.gz`), a built kernel
    /// tree, or the name of a package of Debian, on the userland `debian_12` or another one. `--vms
    /// custom-VERSION-local` means it.
    #[arg(long, value_name = "VERSION=FROM[@USERLAND]", help_heading = "Selection")]
    pub custom_kernel: Vec<String>,

    /// Component of `kmt.toml`.
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,

    /// Packages with tests: `./pkg/...` patterns, several with commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub packages: Vec<String>,

    /// Run config or test-set file (JSON) of the former tool: which packages and tests run, with which arguments.
    #[arg(long, value_name = "FILE")]
    pub packages_run_config: Option<PathBuf>,

    /// Stack to use instead of the git branch's.
    #[arg(long, value_name = "NAME")]
    pub stack: Option<String>,

    /// What failed in CI, instead of a matrix.
    #[command(flatten)]
    pub pipeline: FromPipeline,

    /// Cells that were found elsewhere, such as in a pipeline; never typed.
    #[arg(skip)]
    pub written: Option<Written>,

    /// Only what did not pass in an earlier run; never typed.
    #[arg(skip)]
    pub again: Option<crate::plan::Again>,

    /// Folder of that run; never typed.
    #[arg(skip)]
    pub again_of: Option<PathBuf>,
}

impl Selection {
    /// Whether a file says which machines there are.
    pub fn has_file(&self) -> bool {
        self.matrix.is_some() || self.vmsets.is_some() || self.written.is_some()
    }
}

/// Cells that were found elsewhere than in a file.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// The cells.
    pub cells: Vec<crate::matrix::Cell>,
    /// Sentences about where they come from.
    pub notices: Vec<String>,
    /// What becomes of cells for which no machine is to be had.
    pub homeless: Homeless,
}

/// What becomes of cells that want a machine nobody provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Homeless {
    /// Nothing is started.
    #[default]
    Refused,
    /// They are recorded as not run.
    NotRun,
}

/// Arguments of `run`.
#[derive(Debug, Args, Default)]
pub struct Run {
    /// What is tested, and where.
    #[command(flatten)]
    pub selection: Selection,

    /// Run only tests that match, with the meaning of Go's `-test.run`.
    #[arg(long, value_name = "REGEXP")]
    pub run: Option<String>,

    /// Skip tests that match, with the meaning of Go's `-test.skip`.
    #[arg(long, value_name = "REGEXP")]
    pub skip: Option<String>,

    /// Run each test so many times.
    #[arg(long, alias = "run-count", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,

    /// Run again what passes, for so long; stop at what does not.
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::file::parse_duration, conflicts_with = "count")]
    pub stress: Option<Duration>,

    /// Share the tests of each cell out over so many machines, the longest first, as earlier runs took.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub vms_per_cell: u32,

    /// Run one part of the tests: slice:M/N (in turn) or hash:M/N (by name); each test is in exactly one of the N.
    #[arg(long, value_name = "WAY:M/N")]
    pub partition: Option<crate::plan::Partition>,

    /// Longest time a package may take (90s, 5m, 1h30m); wins over `kmt.toml`.
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::file::parse_duration)]
    pub timeout: Option<Duration>,

    /// What is slow, stuck, tried again.
    #[command(flatten)]
    pub rules: Rules,

    /// Build nothing: use what was built last, and say how old it is.
    #[arg(long)]
    pub quick: bool,

    /// Start fresh machines instead of reusing those that are up: from the memory of one that has booted, where that is
    /// to be had (`KMT_WARM=off`: they boot).
    #[arg(long)]
    pub fresh: bool,

    /// Remove the machines of this run at its end, also on Ctrl-C.
    #[arg(long)]
    pub throw_away: bool,

    /// Give machines more memory and processors than this host has.
    #[arg(long)]
    pub oversubscribe: bool,

    /// Rent hosts without asking, even above `price-limit` of `[ec2]`.
    #[arg(short, long)]
    pub yes: bool,

    /// Record cells whose image cannot be had as not run, instead of refusing to start.
    #[arg(long)]
    pub skip_unavailable: bool,

    /// Show what would be done, and do nothing: as `plan`.
    #[arg(long)]
    pub dry_run: bool,

    /// Write JUnit here as well: PATH, or FLAVOUR=PATH with gitlab, datadog, jenkins or buildkite.
    #[arg(long, value_name = "[FLAVOUR=]PATH")]
    pub junit: Vec<String>,

    /// Argument for every test binary.
    #[arg(long, alias = "test-extra-arguments", value_name = "ARG", allow_hyphen_values = true)]
    pub test_arg: Vec<String>,

    /// Environment of the tests: NAME=VALUE, or NAME to pass a value on without it being typed or shown.
    #[arg(long, alias = "test-extra-env", value_name = "NAME[=VALUE]")]
    pub test_env: Vec<String>,

    /// Lines for people on standard error, or events as JSON lines on standard output.
    #[arg(long, value_enum, default_value_t = Format::Human, value_name = "FORMAT")]
    pub format: Format,

    /// Show every test, also subtests that pass.
    #[arg(short, long)]
    pub verbose: bool,
}

/// Arguments of `rerun`.
#[derive(Debug, Args, Default)]
pub struct Rerun {
    /// The run: its id, or its folder; the newest without one.
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,

    /// Only in these cells: ids, or globs. If all passes there and others are left, the exit code is 5.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cell: Vec<String>,

    /// What is slow, stuck, tried again.
    #[command(flatten)]
    pub rules: Rules,

    /// Start fresh machines instead of reusing those that are up: from the memory of one that has booted, where that is
    /// to be had (`KMT_WARM=off`: they boot).
    #[arg(long)]
    pub fresh: bool,
}

/// Arguments of `build`.
#[derive(Debug, Args, Default)]
pub struct Build {
    /// What is built, and for which machines.
    #[command(flatten)]
    pub selection: Selection,

    /// Build only; ship nothing.
    #[arg(long)]
    pub compile_only: bool,

    /// Install besides: folders, copies and commands of this file (JSON with `layout`, `copy` and `run`, or TOML).
    #[arg(long, value_name = "FILE")]
    pub layout: Option<PathBuf>,

    /// Put the programs over those of the agent that is installed in the machines.
    #[arg(long)]
    pub override_agent: bool,
}

/// Arguments of `clean`.
#[derive(Debug, Args, Default)]
pub struct Clean {
    /// Say what would be freed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `config init`.
#[derive(Debug, Args)]
pub struct Init {
    /// What the repository is.
    #[arg(long, value_enum, default_value_t = Template::Go)]
    pub template: Template,

    /// Write over a `kmt.toml` that is there.
    #[arg(long)]
    pub force: bool,
}

/// What a first `kmt.toml` is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A Go module.
    Go,
    /// The Datadog agent's tree.
    DatadogAgent,
}

/// Arguments of `plan`.
#[derive(Debug, Args, Default)]
pub struct Plan {
    /// What would be tested, and where.
    #[command(flatten)]
    pub selection: Selection,

    /// A table, or JSON (schema 1).
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Arguments of `explain`.
#[derive(Debug, Args, Default)]
pub struct Explain {
    /// Number or address of a pipeline, run directory or id, or folder of downloaded artifacts; without it the newest
    /// pipeline of the branch.
    ///
    /// Server, project and token come from KMT_GITLAB_URL, KMT_GITLAB_PROJECT and KMT_GITLAB_TOKEN, else from GITLAB_*,
    /// from what a CI job is given (CI_*), from `[gitlab]` in kmt.toml, from glab, from the git remote.
    #[arg(value_name = "PIPELINE|RUN|FOLDER")]
    pub subject: Option<String>,

    /// The same as PIPELINE.
    #[arg(long, value_name = "ID", conflicts_with = "subject", hide = true)]
    pub pipeline: Option<String>,

    /// For people, for a merge request, one page for a browser, or JSON (schema 1).
    ///
    /// JSON: `subject`, `groups` (by component and test set: `jobs`, `tests`, `boundary`), `machines`, `causes`, `others`,
    /// `notices`, `reproduce`, `cost`.
    #[arg(long, value_enum, default_value_t = ExplainFormat::Human, value_name = "FORMAT")]
    pub format: ExplainFormat,

    /// Write it to this file instead.
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// A form of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ExplainFormat {
    /// For people.
    #[default]
    Human,
    /// For a merge request.
    Markdown,
    /// One page for a browser.
    Html,
    /// JSON with a schema number.
    Json,
}

/// Arguments of `ls`.
#[derive(Debug, Args, Default)]
pub struct Ls {
    /// Distributions only; `--distro=NAME`: only this one, by id or alias.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    pub distro: Option<Option<String>>,

    /// Custom kernels only.
    #[arg(long)]
    pub custom: bool,

    /// Only what exists for this architecture.
    #[arg(long, value_name = "ARCH", value_parser = parse_arch)]
    pub arch: Option<Arch>,

    /// Only what this machine has an image of.
    #[arg(long)]
    pub local_images: bool,

    /// A table, or JSON (schema 1).
    ///
    /// JSON: `rows`, each with `id`, `recipe`, `distro`, `version`, `aliases` and `machines`: `arch`, `kernel`, `vms`
    /// (what to type) and `image`: `present`, `buildable`, `elsewhere` (published) or `unavailable`.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Where machines of axes are.
fn parse_where(text: &str) -> Result<Where, String> {
    match text {
        "local" => Ok(Where::Local),
        "remote" => Ok(Where::Remote),
        "auto" => Ok(Where::Auto),
        _ => Err("machines are local, remote or auto".to_owned()),
    }
}

/// An architecture by any of its names.
fn parse_arch(text: &str) -> Result<Arch, String> {
    crate::matrix::spec::arch_named(text)
        .ok_or_else(|| "an architecture is x86_64 (amd64, x64), arm64 (aarch64) or local".to_owned())
}

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// JSON with a schema number.
    Json,
}

/// Subcommands of `stack`.
#[derive(Debug, Subcommand)]
pub enum Stack {
    /// Make, change and end its machines.
    #[command(flatten)]
    Lifecycle(Lifecycle),
    /// List all stacks and their machines.
    List {
        /// For people or for programs.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Remove a stack: machines, disks, keys.
    Destroy {
        /// Which one, and how.
        #[command(flatten)]
        target: Target,
        /// Remove every stack of this user.
        #[arg(long, conflicts_with = "stack")]
        all: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove what killed processes left behind and domains that no stack owns.
    Gc,
    /// Reach its machines.
    #[command(flatten)]
    Reach(Reach),
}

/// Subcommands of `images`.
#[derive(Debug, Subcommand)]
pub enum Images {
    /// Build images from Debian's packages. `run` does it by itself when one is missing.
    Build {
        /// Machines in the short form, or names such as `debian_12` and `custom-6.12`.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// All images of this matrix.
        #[arg(long, value_name = "FILE")]
        matrix: Option<PathBuf>,
        /// Build again from today's packages what is there already.
        #[arg(long)]
        force: bool,
    },
    /// Make the folders, get first images, choose the SSH key.
    Init(InitImages),
    /// Bring published images to what is published now: all that are named, or none.
    ///
    /// Machines keep the image they were made of. An update that is interrupted goes on where it stopped.
    Update(Update),
    /// Use the published images again that were in use before the last update.
    Revert {
        /// Destroy all stacks first.
        #[arg(long)]
        destroy_stacks: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Hash every image that is here; exit code 2 where one is wrong.
    Validate {
        /// Look for every published image of the catalogue at its server, too.
        #[arg(long)]
        published: bool,
    },
    /// Remove images that nobody asks for any more, and what interrupted downloads left.
    Gc {
        /// Say what would go, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// List images that are on this machine.
    Ls {
        /// For people or for programs.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
}

/// Arguments of `images init`.
#[derive(Debug, Args, Default)]
pub struct InitImages {
    /// Folders only.
    #[arg(long)]
    pub lite: bool,
    /// These images, instead of `debian_12`.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "lite")]
    pub images: Vec<String>,
    /// Every image for this architecture: tens of gigabytes.
    #[arg(long, conflicts_with_all = ["lite", "images"])]
    pub all_images: bool,
    /// Do not ask for the SSH key.
    #[arg(long)]
    pub skip_ssh_setup: bool,
}

/// Arguments of `images update`.
#[derive(Debug, Args, Default)]
pub struct Update {
    /// Machines in the short form, or names such as `jammy`; without any, the published images that are here.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// The same with commas.
    #[arg(long = "images", value_name = "LIST", value_delimiter = ',', hide = true)]
    pub images: Vec<String>,
    /// All published images of this matrix.
    #[arg(long, value_name = "FILE")]
    pub matrix: Option<PathBuf>,
    /// Every published image for this architecture: tens of gigabytes.
    #[arg(long)]
    pub all_images: bool,
    /// With `--all-images`: for every architecture.
    #[arg(long, requires = "all_images")]
    pub all_archs: bool,
    /// Destroy all stacks first, as the former tool did.
    #[arg(long)]
    pub destroy_stacks: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Args, Default)]
pub struct Doctor {
    /// Mend what can be mended: start daemons, open `/dev/kvm`, close keys, remove what nobody owns.
    #[arg(long)]
    pub fix: bool,

    /// Hash all images, not only those that changed since they were hashed last.
    #[arg(long)]
    pub hash: bool,

    /// Lines for people, or JSON (schema 1); exit code 2 where something is wrong.
    ///
    /// JSON: `wrong` (a number) and `checks`: `check`, `grade` (`fine`, `note` or `wrong`), `says`, `mend` (a command or
    /// null), `fixable`.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Arguments of `config ssh-key`.
#[derive(Debug, Args, Default, Clone)]
pub struct SshKeyChoice {
    /// A file, a name in `~/.ssh` (with or without `.pem`), or the comment of a key there or in an agent.
    #[arg(value_name = "KEY", conflicts_with_all = ["from_file", "from_agent", "path"])]
    pub hint: Option<String>,

    /// The key in this file, or of this name in `~/.ssh`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_agent", "path"])]
    pub from_file: Option<PathBuf>,

    /// The key with this comment in an SSH agent; its file need not be known.
    #[arg(long, value_name = "COMMENT", conflicts_with = "path")]
    pub from_agent: Option<String>,

    /// By hand: the private key.
    #[arg(long, value_name = "FILE")]
    pub path: Option<PathBuf>,

    /// Its name; alone: a key that only an agent has.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// What AWS calls it; the same name without it.
    #[arg(long, value_name = "NAME")]
    pub aws_name: Option<String>,
}

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Write a first `kmt.toml`, commented.
    Init(Init),
    /// Print the JSON Schema of `kmt.toml`.
    Schema,
    /// Choose the SSH key for remote hosts: from `~/.ssh`, from an agent, or by hand.
    ///
    /// Without arguments it asks. The choice is written to the user's file, which `config show` names.
    SshKey(SshKeyChoice),
    /// Show every value and where it comes from.
    Show {
        /// For people or for programs.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound_and_help_fits_one_screen() {
        Cli::command().debug_assert();
        assert!(Cli::command().render_help().to_string().lines().count() <= 40);
    }

    #[test]
    fn old_spellings_are_understood() {
        let cli = Cli::try_parse_from(["kmt-run", "test", "--run-count", "3", "--vms=a,b"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!((run.count, run.selection.vms.len()), (3, 2));
    }
}
