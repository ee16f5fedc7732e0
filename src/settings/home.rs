//! Where state lives: `KMT_HOME` and the folders below it.
//!
//! As root the default is `/var/lib/kmt-run` and not root's own data folder: QEMU then runs as a user of its
//! own, which cannot enter `/root`.

use std::path::{Path, PathBuf};

use super::{Known, Origin};
use crate::error::{Failure, Result};

/// The folders of one user's state.
#[derive(Debug, Clone)]
pub struct Home {
    /// `KMT_HOME`.
    pub root: Known<PathBuf>,
    cache: PathBuf,
}

impl Home {
    /// From `KMT_HOME`, else the default of this user. Creates nothing.
    ///
    /// # Errors
    /// Neither `KMT_HOME` nor `HOME` is set, or `KMT_HOME` is relative.
    pub fn find() -> Result<Home> {
        if let Some(root) = absolute("KMT_HOME")? {
            let cache = root.join("cache");
            return Ok(Home { root: Known { value: root, origin: Origin::Environment("KMT_HOME") }, cache });
        }
        if rustix::process::geteuid().is_root() {
            let root = PathBuf::from("/var/lib/kmt-run");
            let cache = root.join("cache");
            return Ok(Home { root: Known { value: root, origin: Origin::Default }, cache });
        }
        let user = absolute("HOME")?;
        let below = |variable: &'static str, rest: &str| -> Result<PathBuf> {
            match (absolute(variable)?, &user) {
                (Some(folder), _) => Ok(folder.join("kmt-run")),
                (None, Some(user)) => Ok(user.join(rest).join("kmt-run")),
                (None, None) => {
                    Err(Failure::usage("neither KMT_HOME nor HOME is set").hint("export KMT_HOME=DIR"))
                }
            }
        };
        let root = below("XDG_DATA_HOME", ".local/share")?;
        let cache = below("XDG_CACHE_HOME", ".cache")?;
        Ok(Home { root: Known { value: root, origin: Origin::Default }, cache })
    }

    /// A home at `root`, for tests.
    pub fn at(root: &Path) -> Home {
        Home { root: Known { value: root.to_path_buf(), origin: Origin::Default }, cache: root.join("cache") }
    }

    /// Root filesystems and kernels.
    pub fn images(&self) -> PathBuf {
        self.root.value.join("images")
    }

    /// One folder a stack.
    pub fn stacks(&self) -> PathBuf {
        self.root.value.join("stacks")
    }

    /// Memory and disks that machines start from.
    pub fn templates(&self) -> PathBuf {
        self.root.value.join("templates")
    }

    /// One folder a run.
    pub fn runs(&self) -> PathBuf {
        self.root.value.join("runs")
    }

    /// Downloads and build outputs.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}

pub(super) fn absolute(variable: &'static str) -> Result<Option<PathBuf>> {
    match std::env::var_os(variable) {
        Some(value) if !value.is_empty() => {
            let path = PathBuf::from(value);
            if path.is_absolute() {
                Ok(Some(path))
            } else {
                Err(Failure::usage(format!("{variable} is `{}`, not an absolute path", path.display())))
            }
        }
        _ => Ok(None),
    }
}
