//! What turns a source tree into binaries.
//!
//! Owns the door [`Builder`] and its adapters: [`go`] (the Go toolchain), [`prebuilt`] (a folder of finished
//! test binaries) and [`fake`]. Does not own what was built before (`artifact`) or where it goes. To add one
//! (Bazel, Make, …): a file here that lists units with everything their content depends on.

pub mod fake;
pub mod go;
pub mod prebuilt;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kmt_reporters::event::Arch;

use super::Result;

/// Whether C code may be part of a binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cgo {
    /// `CGO_ENABLED=0`: static binaries that run in any guest.
    #[default]
    Off,
    /// `CGO_ENABLED=1`.
    On,
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Root of the module (or folder of finished binaries).
    pub root: PathBuf,
    /// For which architecture.
    pub arch: Arch,
    /// Patterns of packages whose tests are built, such as `./pkg/...`.
    pub packages: Vec<String>,
    /// Packages of programs that are built, such as `./cmd/system-probe`.
    pub binaries: Vec<String>,
    /// Build tags.
    pub tags: Vec<String>,
    /// Linker flags, one string as the toolchain takes it.
    pub ldflags: Option<String>,
    /// Whether cgo is used.
    pub cgo: Cgo,
    /// Variables for the toolchain.
    pub env: Vec<(String, String)>,
    /// More files or folders to ship, relative to the root.
    pub extra: Vec<PathBuf>,
}

impl BuildRequest {
    /// Builds nothing yet, from `root` for `arch`.
    pub fn new(root: impl Into<PathBuf>, arch: Arch) -> BuildRequest {
        BuildRequest {
            root: root.into(),
            arch,
            packages: Vec::new(),
            binaries: Vec::new(),
            tags: Vec::new(),
            ldflags: None,
            cgo: Cgo::Off,
            env: Vec::new(),
            extra: Vec::new(),
        }
    }
}

/// What a unit becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitKind {
    /// A test binary, `<name>/testsuite`.
    Test,
    /// A program, `bin/<last part of the name>`.
    Binary,
}

/// One binary that can be built.
#[derive(Debug, Clone)]
pub struct Unit {
    /// What it becomes.
    pub kind: UnitKind,
    /// Its name in reports: the folder relative to the root (`.` for the root itself).
    pub name: String,
    /// What the toolchain calls it.
    pub import_path: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Files whose content it depends on.
    pub inputs: Vec<PathBuf>,
    /// Anything else it depends on: toolchain, versions of modules, flags.
    pub facts: Vec<String>,
    /// The finished file, where there is nothing to compile.
    pub made: Option<PathBuf>,
}

/// Builds binaries.
#[async_trait]
pub trait Builder: Send + Sync {
    /// The units that the request selects; packages without tests are left out.
    async fn list(&self, request: &BuildRequest) -> Result<Vec<Unit>>;
    /// Compiles one unit to the file `into`. An error's detail is the compiler's own words.
    async fn compile(&self, request: &BuildRequest, unit: &Unit, into: &Path) -> Result<()>;
}
