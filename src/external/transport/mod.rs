//! How a command reaches a guest and its words come back.
//!
//! Owns the door [`Connection`] and its adapters: `ssh` for guests, [`local`] for this machine. Does not
//! own what is run there (`run`), what is sent (`artifact`) or when a machine is ready (`machine`). To add
//! one: a file beside `local.rs` that implements the trait; `world.rs` alone names it.

pub mod local;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::Result;
use super::process::Output;

/// A way into a machine that can run commands.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Runs `argv` in the guest to its end, feeding `stdin`; a status of `None` means a signal.
    async fn run(&self, argv: &[&str], stdin: Vec<u8>) -> Result<Output>;
    /// The same, with `stdin` streamed from a reader.
    async fn feed(&self, argv: &[&str], stdin: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Output>;
    /// Starts `argv`; its standard output is a stream; `stdin` is given whole.
    async fn stream(&self, argv: &[&str], stdin: Vec<u8>) -> Result<Box<dyn RemoteStream>>;
    /// Ends the connection.
    async fn close(&self);
}

/// The standard output of a command that runs in a guest.
#[async_trait]
pub trait RemoteStream: Send {
    /// Reads some bytes; 0 at the end.
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize>;
    /// Waits for the command's end; `None` where a signal ended it.
    async fn wait(self: Box<Self>) -> Result<Option<i32>>;
}
