//! `images init`: from nothing to a machine that can run tests.

use std::io::IsTerminal as _;

use kmt_reporters::event::Arch;

use super::{Desk, build};
use crate::cli::{self, SshKeyChoice};
use crate::commands::say;
use crate::commands::ssh_key::ssh_key;
use crate::error::{Failure, Result};

/// What is made where nothing is named.
const FIRST: &str = "debian_12";

/// Makes the folders; unless `--lite`, has images, and ends with the choice of the SSH key.
///
/// # Errors
/// A folder cannot be made, or an image cannot be had.
pub(super) async fn init(args: &cli::InitImages, desk: &Desk<'_>) -> Result<u8> {
    let home = &desk.settings.home;
    for folder in [home.images(), home.stacks(), home.runs(), home.cache().to_owned()] {
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file("make", &folder, &error))?;
        say(&format!("{:>12} {}", "Folder", folder.display()));
    }
    if args.lite {
        say(&format!(
            "{:>12} images come when a run needs them, or by `kmt-run images build` and `update`",
            "next:"
        ));
        return Ok(0);
    }
    let mut names = args.images.clone();
    if args.all_images {
        let here = |platform: &&crate::matrix::catalogue::Platform| {
            platform.variants.get(&Arch::host()).is_some_and(|variant| !variant.sources.is_empty())
        };
        names = desk.catalogue.platforms().iter().filter(here).map(|platform| platform.id.clone()).collect();
    }
    if names.is_empty() {
        names.push(FIRST.to_owned());
    }
    build(&names, None, false, desk).await?;
    if args.skip_ssh_setup {
        return Ok(0);
    }
    if std::io::stdin().is_terminal() {
        return ssh_key(&SshKeyChoice::default()).await;
    }
    say(&format!("{:>12} `kmt-run config ssh-key` chooses the key for remote hosts", "next:"));
    Ok(0)
}
