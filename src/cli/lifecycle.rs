//! Subcommands of `stack` that make, change and end machines.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// From nothing to machines that run, and back.
#[derive(Debug, Subcommand)]
pub enum Lifecycle {
    /// Make a stack without machines.
    Create {
        /// Its name; the git branch's without one.
        #[arg(long, value_name = "NAME")]
        stack: Option<String>,
    },
    /// Say which machines a stack should have; `launch` makes it so.
    #[command(visible_alias = "gen-config")]
    Configure(Box<Configure>),
    /// Bring a stack to what is configured: make what is missing, start what is off, remove what is not asked for.
    Launch(Launch),
    /// End its machines and keep what they are: their memory goes to disk.
    Pause {
        /// Which one, and how.
        #[command(flatten)]
        target: Target,
        /// Power them off instead: only their disks are kept.
        #[arg(long)]
        cold: bool,
        /// Pause machines on remote hosts too: they are left alone otherwise.
        #[arg(long)]
        remote: bool,
    },
    /// Bring up again what was paused.
    Resume {
        /// Which one, and how.
        #[command(flatten)]
        target: Target,
        /// Give machines more memory and processors than this host has.
        #[arg(long)]
        oversubscribe: bool,
        /// Resume machines on remote hosts too.
        #[arg(long)]
        remote: bool,
    },
    /// Make a machine anew, as its image is: what is in it is lost.
    Reset {
        /// Which one, and how.
        #[command(flatten)]
        target: Target,
        /// The machine, as `stack ssh` takes it.
        #[arg(value_name = "VM")]
        vm: String,
        /// Give it a gdb stub, and say what to type.
        #[arg(long)]
        gdb: bool,
    },
    /// Run a script in all machines at once; the exit code is the worst of theirs.
    Provision {
        /// Which one, and how.
        #[command(flatten)]
        target: Target,
        /// The script: it travels by standard input, and its first line says what runs it.
        #[arg(value_name = "SCRIPT", required_unless_present = "provision_script")]
        script: Option<PathBuf>,
        /// The same, as it was spelt formerly.
        #[arg(long, value_name = "SCRIPT", hide = true, conflicts_with = "script")]
        provision_script: Option<PathBuf>,
    },
}

/// The stack that is meant, and what to do while another command changes it.
#[derive(Debug, Args, Default, Clone)]
pub struct Target {
    /// Stack to use instead of the git branch's.
    #[arg(long, value_name = "NAME")]
    pub stack: Option<String>,
    /// Fail at once where another command changes the stack, instead of waiting for it.
    #[arg(long)]
    pub no_wait: bool,
}

/// What the guests' network reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// Nothing: only our SSH forward reaches in.
    #[value(alias = "closed")]
    User,
    /// The world, through this host.
    Outbound,
    /// The same, and each other, in a network of the stack's own: machines have addresses. Needs root, or
    /// `KMT_LIBVIRT_URI=qemu:///system`.
    Nat,
}

/// Arguments of `stack configure`.
#[derive(Debug, Args, Default)]
pub struct Configure {
    /// Matrix file whose cells are asked for.
    #[arg(value_name = "MATRIX")]
    pub matrix: Option<PathBuf>,

    /// vmsets file (`vmconfig.json`) whose machines are asked for.
    #[arg(long, value_name = "FILE", conflicts_with = "matrix")]
    pub vmsets: Option<PathBuf>,

    /// Machines `<recipe>-<arch>-<version>`; with a file: only these of it.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub vms: Vec<String>,

    /// What failed in CI, instead of a matrix.
    #[command(flatten)]
    pub pipeline: super::FromPipeline,

    /// Which one, and how.
    #[command(flatten)]
    pub target: Target,

    /// Make the stack first; it must not be there.
    #[arg(long)]
    pub init_stack: bool,

    /// Virtual processors: one machine for each number.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=512))]
    pub vcpu: Vec<u32>,

    /// Memory in MiB: one machine for each size.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(64..))]
    pub memory: Vec<u32>,

    /// Test sets: one machine for each.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub sets: Vec<String>,

    /// What their network reaches [default: as before, `user` at first].
    #[arg(long, value_enum, value_name = "NETWORK")]
    pub network: Option<Network>,

    /// Start afresh: what was asked for before is asked for no longer.
    #[arg(long)]
    pub new: bool,

    /// Write what is asked for afterwards as a vmsets file.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,

    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `stack launch`.
#[derive(Debug, Args, Default)]
pub struct Launch {
    /// Which one, and how.
    #[command(flatten)]
    pub target: Target,

    /// Give machines more memory and processors than this host has.
    #[arg(long)]
    pub oversubscribe: bool,

    /// Rent hosts without asking, even above `price-limit` of `[ec2]`.
    #[arg(short, long)]
    pub yes: bool,

    /// Give machines that are made a gdb stub on a loopback port, and say what to type to debug their kernels.
    #[arg(long)]
    pub gdb: bool,

    /// SSH key for remote hosts instead of the chosen one: a file, a name in ~/.ssh, or a key's comment there or in an
    /// agent.
    #[arg(long, value_name = "KEY")]
    pub ssh_key: Option<String>,

    /// Run this script in all machines once they are up.
    #[arg(long, value_name = "SCRIPT")]
    pub provision_script: Option<PathBuf>,
}
