//! The door to Debian's tools: mmdebstrap, apt, dpkg-deb, depmod, mke2fs.
//!
//! Owns how a tree of files, a package and a file system are got from those tools, as root or as an ordinary
//! user. Does not own what goes into an image (`image`). To add a distribution's tools: a door of its own.

mod apt;
mod fake;
mod tools;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::matrix::catalogue::DebianSource;

pub use fake::{FakeDebian, Trouble};
pub use tools::DebianHost;

/// Takes each line a tool says while it works.
pub type Lines<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// A package as it was taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Whether the archive's Release file is within its dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It is.
    Current,
    /// It is past its date, and the catalogue's entry accepts that.
    Expired,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// By xz.
    Xz,
    /// By zstd.
    Zstd,
    /// By lz4.
    Lz4,
}

/// A suite for one architecture, as far as the tools need to know it.
#[derive(Debug, Clone, Copy)]
pub struct Suite<'a> {
    /// Where the packages come from.
    pub source: &'a DebianSource,
    /// For which architecture.
    pub arch: Arch,
}

/// A file system to be made of a tree.
#[derive(Debug, Clone)]
pub struct Ext4<'a> {
    /// The tree whose content becomes the root folder.
    pub tree: &'a Path,
    /// The file to write.
    pub image: &'a Path,
    /// Volume label.
    pub label: &'a str,
    /// Volume UUID; also seeds the folders' hash.
    pub uuid: &'a str,
    /// Size in bytes; the file is sparse.
    pub size: u64,
    /// How many inodes it has at least.
    pub inodes: u64,
    /// What every clock in it says, in seconds since 1970.
    pub epoch: u64,
}

/// What is asked of Debian's tools. Trees that `bootstrap` unpacks belong to the root of a user namespace
/// where the caller is an ordinary user: write into them freely, remove them by `remove`.
#[async_trait]
pub trait DebianTools: Send + Sync {
    /// Whether the tools for a guest of `arch` are there: an error names the first that is not, with the
    /// command that brings it.
    fn ready(&self, arch: Arch) -> Result<()>;

    /// Reads the suite's package lists.
    async fn refresh(&self, suite: Suite<'_>) -> Result<Freshness>;

    /// Makes a root filesystem with `packages` and what they need, unpacked at `tree` (which it makes) without
    /// device nodes. `work` is a folder for what lies in between.
    async fn bootstrap(
        &self,
        suite: Suite<'_>,
        packages: &[&str],
        work: &Path,
        tree: &Path,
        lines: Lines<'_>,
    ) -> Result<()>;

    /// Downloads the package that `wanted` means (a name, or a pattern with `*`; a metapackage of a kernel is
    /// followed, and so are the parts of a kernel in several packages) and unpacks it at `tree`; says which
    /// packages came. The suite has been refreshed.
    async fn unpack(&self, suite: Suite<'_>, wanted: &str, tree: &Path) -> Result<Vec<Package>>;

    /// Unpacks the package in `file`, which must be for `arch`, over what is at `tree`; says what it is.
    async fn unpack_file(&self, file: &Path, arch: Arch, tree: &Path) -> Result<Package>;

    /// Writes the module indexes of `lib/modules/<release>` below `tree`.
    async fn depmod(&self, tree: &Path, release: &str) -> Result<()>;

    /// The bytes of a compressed file.
    async fn decompress(&self, how: Compression, file: &Path) -> Result<Vec<u8>>;

    /// Makes a file system of a tree.
    async fn ext4(&self, wish: &Ext4<'_>) -> Result<()>;

    /// Removes a tree or a file, whoever in our namespaces owns it; nothing there is fine.
    async fn remove(&self, tree: &Path) -> Result<()>;
}

/// The sources a suite means, one line of apt each, from `mirror` where one is given.
pub(crate) fn source_lines(source: &DebianSource, mirror: Option<&str>) -> Vec<String> {
    let mirror = mirror.map_or(source.mirror.as_str(), |mirror| mirror.trim_end_matches('/'));
    let line = |archive: &crate::matrix::catalogue::Archive| {
        format!(
            "deb [signed-by={KEYRING}] {mirror}/{} {} {}",
            archive.path,
            archive.suite,
            archive.components.join(" ")
        )
    };
    source.archives.iter().map(line).collect()
}

/// The keys that sign Debian's archives.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A folder's name as one word for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The first of `names` that is a program in `PATH` or where administrators' tools lie.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
