//! `clean`: removes what was built, here. Machines, images and records stay.

use std::path::Path;

use super::say;
use crate::cli::Clean;
use crate::error::{Failure, Result};
use crate::settings::Settings;

/// Removes the cache of built binaries, unpacked archives and notes on commands; with `--dry-run` only says so.
///
/// # Errors
/// Something cannot be removed.
pub(super) fn clean(args: &Clean, settings: &Settings) -> Result<u8> {
    let cache = settings.home.cache();
    let mut total = 0;
    for name in ["build", "archives"] {
        let folder = cache.join(name);
        let bytes = size(&folder);
        total += bytes;
        if args.dry_run || !folder.exists() {
            continue;
        }
        std::fs::remove_dir_all(&folder).map_err(|error| Failure::file("remove", &folder, &error))?;
    }
    let verb = if args.dry_run { "Would free" } else { "Freed" };
    say(&format!("{verb:>12} {} in {}", kmt_reporters::bytes(total), cache.display()));
    Ok(0)
}

/// Bytes of all files below a folder; what cannot be read counts nothing.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(one).sum()
}
