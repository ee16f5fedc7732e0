//! The door to a guest: run a command, feed it, follow what it prints.
//!
//! Owns the traits and how a machine is addressed ([`Route`]). Does not know what is run. To add a way to
//! reach machines, implement [`Transport`] beside [`ssh`] and name it in `world.rs`.

pub mod fake;
pub mod local;
pub mod ssh;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::process::{Child, Output};
use crate::external;

/// How a machine is reached: a name in an OpenSSH client configuration, and the address that answers first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Host alias in `config`; also the name its host key is known by.
    pub alias: String,
    /// OpenSSH client configuration that says key, known hosts, port and jumps.
    pub config: PathBuf,
    /// Address of the SSH server, or of the forward that leads to it.
    pub address: String,
    /// Port of it.
    pub port: u16,
    /// Folder for the control sockets of this machine alone, short enough for a socket path. What a killed
    /// process left there goes with the next connection.
    pub sockets: PathBuf,
    /// Alias of the host in `config` that the machine is behind: `address` and `port` are as that one reaches it. The
    /// way through it is in `config` too (`ProxyJump`), so that a guest behind a host is SSH through SSH.
    pub behind: Option<String>,
}

/// Whether somebody sits at a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// A terminal of its own in the guest.
    Wanted,
    /// Pipes.
    None,
}

/// Reaches machines.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Whether an SSH server answers there now. Cheap: no login. `Unreachable` where none does.
    async fn greeting(&self, route: &Route) -> external::Result<()>;

    /// Logs in, host key checked, one connection for all commands.
    async fn connect(&self, route: &Route) -> external::Result<Arc<dyn Connection>>;

    /// The program that runs `line` in the guest's login shell over a connection of its own, host key checked; without
    /// a line, that shell itself. It gives the guest's outputs and status as they are, 255 where there was none.
    async fn program(&self, route: &Route, line: Option<&str>, terminal: Terminal)
    -> external::Result<Child>;

    /// Makes an Ed25519 key pair: `file`, mode 0600, and `file.pub`.
    async fn make_key(&self, file: &Path) -> external::Result<()>;
}

/// One multiplexed connection to a guest. Commands are argument lists; nothing passes through our shell.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Runs `argv` to its end, feeding `stdin`. A status of `None` means that a signal ended it.
    async fn run(&self, argv: &[&str], stdin: Vec<u8>) -> external::Result<Output>;

    /// The same with standard input streamed from a reader.
    async fn feed(
        &self,
        argv: &[&str],
        stdin: &mut (dyn AsyncRead + Send + Unpin),
    ) -> external::Result<Output>;

    /// Starts `argv` with `stdin` given whole; its standard output is a stream.
    async fn stream(&self, argv: &[&str], stdin: Vec<u8>) -> external::Result<Box<dyn RemoteStream>>;

    /// Ends the connection. Idempotent.
    async fn close(&self);

    /// What stands before every path in the guest: nothing, but where a guest is only played.
    fn prefix(&self) -> &str {
        ""
    }
}

/// The standard output of a command that runs in a guest.
#[async_trait]
pub trait RemoteStream: Send {
    /// The next bytes; 0 at the end.
    async fn read(&mut self, buf: &mut [u8]) -> external::Result<usize>;

    /// Its exit status; `None` means that a signal ended it.
    async fn wait(self: Box<Self>) -> external::Result<Option<i32>>;
}
