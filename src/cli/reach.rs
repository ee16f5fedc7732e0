//! Subcommands of `stack` that reach machines and change none.

use std::path::PathBuf;

use clap::Subcommand;

use super::Format;

/// Reaching machines.
#[derive(Debug, Subcommand)]
pub enum Reach {
    /// Print an OpenSSH configuration of all machines, for `~/.ssh/config` to include.
    ///
    /// Write it to a file and put `Include kmt_ssh_config` at the top of `~/.ssh/config`; then
    /// `ssh kmt-<stack>-local-debian_12` works from everywhere, host keys checked. Write it again when machines
    /// were added.
    SshConfig {
        /// Only these stacks; all without one, or with `all`.
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        stack: Vec<String>,
    },
    /// Open a shell in a machine, or run a command in it.
    ///
    /// VM is a machine's id, cell, platform, short form or host of `ssh-config`, or the beginning of one. One word
    /// after `--` is a line for the shell there; several are a command and its arguments.
    Ssh {
        /// The machine.
        #[arg(value_name = "VM")]
        vm: String,
        /// Stack to use instead of the git branch's.
        #[arg(long, value_name = "NAME")]
        stack: Option<String>,
        /// What to run; a shell without it.
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Run a command in all machines at once; the exit code is the worst of theirs.
    ///
    /// Each line of output says which machine it is from. One word after `--` is a line for the shell there; several
    /// are a command and its arguments. 255 stands for a machine that could not be reached.
    Exec {
        /// Only these machines.
        #[arg(long, value_name = "LIST", value_delimiter = ',')]
        vms: Vec<String>,
        /// Stack to use instead of the git branch's.
        #[arg(long, value_name = "NAME")]
        stack: Option<String>,
        /// What to run.
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Copy files and folders to a machine (`FILE… VM:PATH`) or from it (`VM:PATH FILE`).
    ///
    /// As `cp -r`: into PATH where it is a folder, else as PATH; folders on the way are made. A relative PATH begins
    /// at root's home. A file here whose name has a colon is `./a:b`.
    Cp {
        /// Sources, then the destination.
        #[arg(value_name = "FROM|TO", num_args = 2.., required = true)]
        paths: Vec<String>,
        /// Stack to use instead of the git branch's.
        #[arg(long, value_name = "NAME")]
        stack: Option<String>,
        /// Accepted and meant anyway.
        #[arg(short, long, hide = true)]
        recursive: bool,
    },
    /// Show what a machine wrote to its console.
    Console {
        /// The machine.
        #[arg(value_name = "VM")]
        vm: String,
        /// Stack to use instead of the git branch's.
        #[arg(long, value_name = "NAME")]
        stack: Option<String>,
        /// Go on with what it writes from now on, until Ctrl-C or its end.
        #[arg(short, long)]
        follow: bool,
        /// Only the last N lines of what is there.
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<usize>,
    },
    /// Show the machines of a stack: state, address, size, age, image, what runs in them, how to reach them.
    ///
    /// States: `not-launched` (it is configured, and the next launch makes it), `ready`, `silent` (it runs, its SSH server does not answer), `booting`, `paused`, `off`, `gone`,
    /// `spoiled` and `half-made` (the next command removes it), `unknown` (the hypervisor does not answer).
    ///
    /// JSON (schema 1): `stacks`, each with `name`, `uuid`, `repository`, `folder`, `created`, `missing` (configured and not made: `cell`,
    /// `vcpu`, `memory_mib`, `image`) and `machines`: `id`,
    /// `cell`, `hosts` (as in `ssh-config`), `state`, `progress`, `owner`, `address`, `vcpu`, `memory_mib`, `created`,
    /// `image`, `domain`, `ssh`, `gdb` (what is typed to debug its kernel, or null) and `uses`: null, or `pid`, `run`, `package`, `test`.
    Status {
        /// Stack to show instead of the git branch's.
        #[arg(long, value_name = "NAME")]
        stack: Option<String>,
        /// Show every stack of this user.
        #[arg(long, conflicts_with = "stack")]
        all: bool,
        /// A table, or JSON.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Write an archive for whoever is asked for help: records, consoles, versions, what `doctor` says; no keys.
    Flare {
        /// Only this stack; all without one.
        #[arg(long, value_name = "NAME")]
        stack: Option<String>,
        /// Folder for `kmt_flare_<time>.tar.gz`, instead of this one.
        #[arg(long, alias = "dest-folder", value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Open a tmux session with all machines: one window a host, one pane a machine.
    ///
    /// A session of that name is replaced. `:set synchronize-panes on` types into all panes at once.
    Tmux {
        /// Stack to use instead of the git branch's.
        #[arg(long, value_name = "NAME")]
        stack: Option<String>,
        /// Make it, and do not attach to it.
        #[arg(short, long)]
        detach: bool,
    },
}

/// A place in a `cp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    Here(PathBuf),
    /// In a machine of the stack.
    There {
        /// The machine, as it was typed.
        vm: String,
        /// The path in it; empty is root's home.
        path: String,
    },
}

impl Place {
    /// Reads `VM:PATH`, or a path of this machine: one without a colon, or that begins like a path.
    pub fn of(text: &str) -> Place {
        let path = ["/", "./", "../", "~"].iter().any(|start| text.starts_with(start));
        match text.split_once(':') {
            Some((vm, rest)) if !path && !vm.is_empty() => {
                Place::There { vm: vm.to_owned(), path: rest.to_owned() }
            }
            _ => Place::Here(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_place_in_a_machine_unless_it_stands_in_a_path() {
        let there = |vm: &str, path: &str| Place::There { vm: vm.to_owned(), path: path.to_owned() };
        assert_eq!(Place::of("debian_12:/tmp/a:b"), there("debian_12", "/tmp/a:b"));
        assert_eq!(Place::of("debian_12/6.1/x86_64:"), there("debian_12/6.1/x86_64", ""));
        for here in ["file", "./a:b", "/a:b", "../a:b", ":x"] {
            assert_eq!(Place::of(here), Place::Here(here.into()));
        }
    }
}
