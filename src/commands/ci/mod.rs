//! Subcommands of `ci`: one file each.
//!
//! Owns what is printed and the exit codes. Which job runs what is `plan::child`'s, in which order jobs run again
//! `triage::again`'s. To add one: a variant in `cli::ci`, a file here, a line in [`ci`].

mod emit;
mod retry;
mod wait;

use super::Open;
use crate::cli;
use crate::error::Result;
use crate::settings::Wishes;

/// Does what was typed.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) async fn ci(command: cli::Ci, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    match command {
        cli::Ci::Emit(args) => emit::emit(*args, wishes, open).await,
        cli::Ci::Wait(args) => wait::wait(&args, &wishes).await,
        cli::Ci::Retry(args) => retry::retry(&args, &wishes).await,
    }
}
