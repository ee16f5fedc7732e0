//! The door to other hosts: machines that are not this one, reached by SSH, on which guests run.
//!
//! Owns what a remote host is ([`RemoteHost`]) and how one is opened ([`Gate`]): what comes out is a [`Hypervisor`] like
//! that of this machine, whose files are made, filled and followed over there. Does not know which cell goes where
//! (`hosts`), nor who pays for a host. To add a kind of host that is hired, add a variant of [`Provider`]; who hires it
//! gives a [`RemoteHost`].

mod depot;
mod facts;
pub mod fake;
mod files;
mod libvirt;
mod shell;
pub mod ssh;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::hypervisor::Hypervisor;
use super::process::Output;
use crate::external;

/// Where state lies on a host that says nothing else.
pub const FOLDER: &str = "/var/lib/kmt-run";

/// A host other than this machine: all that is needed to reach it, use it and, where it is hired, to end it. Kept in the
/// record of each stack that has machines on it, so that any later command can take them away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteHost {
    /// Name, unique among the hosts of a user: `lab1`, or what its provider calls it (`i-0123456789abcdef0`). Letters,
    /// digits, `-`, `_` and `.` only.
    pub name: String,
    /// Architecture of its processors, and of the guests it gets.
    pub arch: Arch,
    /// Address of its SSH server, as this machine reaches it.
    pub address: String,
    /// Port of it.
    pub port: u16,
    /// Who logs in: root, or a member of group `libvirt` who may `sudo -n`.
    pub user: String,
    /// File of the private key; without one OpenSSH takes what an agent or `~/.ssh` has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Its public host key, `ssh-ed25519 AAAA…`. Without one the user's own `known_hosts` must know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Folder on it where images and machines lie, absolute.
    pub folder: PathBuf,
    /// Most memory its guests get together, MiB; without it what is free there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Most processors its guests count on; without it what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Whose it is.
    #[serde(default)]
    pub provider: Provider,
}

/// Whose a host is, and with that whether it is ours to end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Provider {
    /// The user's own: never ended.
    #[default]
    Own,
    /// An instance of EC2 that a stack of ours launched: terminated with the stack.
    Ec2 {
        /// Region.
        region: String,
        /// Id, `i-…`.
        instance: String,
    },
}

/// How the SSH server of a host is named: as [`super::transport::Route`], for hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Alias of the host in `config`.
    pub alias: String,
    /// OpenSSH client configuration that has it.
    pub config: PathBuf,
    /// Folder for sockets of this host, short enough for a socket path.
    pub sockets: PathBuf,
    /// Where what was found out about it may be remembered.
    pub cache: PathBuf,
}

/// What a host that can be used shows besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Room on the disk where images and machines lie, MiB, where it says.
    pub free_mib: Option<u64>,
}

/// Opens hosts.
#[async_trait]
pub trait Gate: Send + Sync {
    /// The hypervisor of that host. Connects at the first question; a connection that is lost is made again.
    fn open(&self, host: &RemoteHost, way: &Way) -> Arc<dyn Hypervisor>;

    /// Ends what is kept open between commands, once nobody uses it. Idempotent.
    async fn close(&self, way: &Way);

    /// Whether that host can be logged in to now, and gives what machines need: `Denied`, `Unreachable`, or `NotFound`
    /// with a hint what is missing on it.
    async fn check(&self, host: &RemoteHost, way: &Way) -> external::Result<Checked>;
}

/// How a guest is logged in to from the host that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Address of its SSH server, as the host reaches it.
    pub address: Ipv4Addr,
    /// Port of it.
    pub port: u16,
    /// Its public host key.
    pub host_key: String,
    /// File here of the private key that logs in. Over there it is in the memory of an agent only, for one command.
    pub key: PathBuf,
}

/// A parcel that lies on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brought {
    /// Bytes that went over the link for it; none where it lay there.
    pub sent: u64,
    /// Its size.
    pub size: u64,
}

/// The store of a host for its guests: what several of them get comes over the link once.
#[async_trait]
pub trait Depot: Send + Sync {
    /// Has the parcel of that name, a digest of all that is in it, lie on the host. `make` gives it as a file here, where
    /// it does not lie there; whoever wants one meanwhile waits. It appears whole or not at all, and goes after a day
    /// without use.
    async fn bring(
        &self,
        name: &str,
        make: BoxFuture<'_, external::Result<TempPath>>,
    ) -> external::Result<Brought>;

    /// Runs `argv` in a guest of the host, with a parcel that was brought as its standard input.
    async fn feed(&self, name: &str, guest: &Login, argv: &[&str]) -> external::Result<Output>;
}

/// The name of a host in an OpenSSH configuration.
pub fn alias_of(name: &str) -> String {
    format!("kmt-host-{name}")
}

impl RemoteHost {
    /// Its name in an OpenSSH configuration.
    pub fn alias(&self) -> String {
        alias_of(&self.name)
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match self.port {
            22 => format!("{}@{}", self.user, self.address),
            port => format!("{}@{}:{port}", self.user, self.address),
        }
    }
}
