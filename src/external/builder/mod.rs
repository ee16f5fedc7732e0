//! What turns a source tree into binaries.
//!
//! Owns the door [`Builder`] and its adapters: [`go`] (the Go toolchain), [`command`] (commands of one's own),
//! [`prebuilt`] (a folder of finished test binaries) and [`fake`]. Does not own what was built before (`artifact`) or where it goes. To add one
//! (Bazel, Make, …): a file here that lists units with everything their content depends on.

pub mod command;
pub mod fake;
pub mod go;
pub(crate) mod pattern;
pub mod prebuilt;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kmt_reporters::event::Arch;

use super::Result;
use crate::settings::component::{Artifact, BuildCommand, Format};

/// Whether C code may be part of a binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cgo {
    /// `CGO_ENABLED=0`: static binaries that run in any guest.
    #[default]
    Off,
    /// `CGO_ENABLED=1`.
    On,
}

/// Whether binaries look for data races.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Race {
    /// They do not.
    #[default]
    Ignored,
    /// `-race`.
    Detected,
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Root of the module (or folder of finished binaries).
    pub root: PathBuf,
    /// Root of the repository: what commands, inputs and artifacts are relative to.
    pub repository: PathBuf,
    /// For which architecture.
    pub arch: Arch,
    /// Commands that run first, in this order.
    pub commands: Vec<BuildCommand>,
    /// Patterns of packages whose tests are built, such as `./pkg/...`.
    pub packages: Vec<String>,
    /// Patterns of packages that are left out.
    pub exclude: Vec<String>,
    /// Packages of programs that are built, such as `./cmd/system-probe`.
    pub binaries: Vec<String>,
    /// Packages of programs that tests call.
    pub helpers: Vec<String>,
    /// Packages by name, and the files that the commands make of them, relative to the repository.
    pub tests: Vec<(String, PathBuf)>,
    /// What test binaries say their results in.
    pub format: Format,
    /// Build tags.
    pub tags: Vec<String>,
    /// Linker flags, one string as the toolchain takes it.
    pub ldflags: Option<String>,
    /// Whether cgo is used.
    pub cgo: Cgo,
    /// Whether races are detected.
    pub race: Race,
    /// More arguments of each compilation.
    pub args: Vec<String>,
    /// Variables for the toolchain.
    pub env: Vec<(String, String)>,
    /// Patterns of files that the toolchain does not tell of.
    pub inputs: Vec<String>,
    /// More files to ship.
    pub artifacts: Vec<Artifact>,
}

impl BuildRequest {
    /// Builds nothing yet, from `root` for `arch`.
    pub fn new(root: impl Into<PathBuf>, arch: Arch) -> BuildRequest {
        let root = root.into();
        BuildRequest {
            repository: root.clone(),
            root,
            arch,
            commands: Vec::new(),
            packages: Vec::new(),
            exclude: Vec::new(),
            binaries: Vec::new(),
            helpers: Vec::new(),
            tests: Vec::new(),
            format: Format::Gotest,
            tags: Vec::new(),
            ldflags: None,
            cgo: Cgo::Off,
            race: Race::Ignored,
            args: Vec::new(),
            env: Vec::new(),
            inputs: Vec::new(),
            artifacts: Vec::new(),
        }
    }

    /// Whether `name` is among the packages, and not left out. No pattern at all means every package.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        (self.packages.is_empty() || any(&self.packages)) && !any(&self.exclude)
    }
}

/// Go's patterns for folders: `./a`, `a`, `./a/...`, `./...`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
    match pattern.strip_suffix("...") {
        Some("") => true,
        Some(stem) => name == stem.trim_end_matches('/') || name.starts_with(stem),
        None => pattern == name || (pattern.is_empty() && name == "."),
    }
}

/// What a unit becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitKind {
    /// A test binary, `<name>/testsuite`.
    Test,
    /// A program, `bin/<last part of the name>`.
    Binary,
    /// A program that tests call, `<name>/<last part of the name>`.
    Helper,
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

/// Takes the lines that a build says, as they come.
pub type Lines<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Builds binaries.
#[async_trait]
pub trait Builder: Send + Sync {
    /// The units that the request selects; packages without tests are left out.
    async fn list(&self, request: &BuildRequest) -> Result<Vec<Unit>>;

    /// Runs one of the request's commands. An error's detail is the end of what it said.
    async fn command(&self, request: &BuildRequest, command: &BuildCommand, lines: Lines<'_>) -> Result<()> {
        command::carry_out(request, command, lines).await
    }

    /// Compiles many units, each to its file, where that is quicker than one by one. What it does not make, for
    /// whatever reason, is compiled by [`Builder::compile`], which says why it cannot be.
    async fn compile_together(&self, _request: &BuildRequest, _units: &[(Unit, PathBuf)], _lines: Lines<'_>) {
    }

    /// Compiles one unit to the file `into`. An error's detail is the compiler's own words.
    async fn compile(&self, request: &BuildRequest, unit: &Unit, into: &Path) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_select_folders_as_go_does() {
        assert!(matches("./...", "a/b") && matches("...", ".") && matches("./a/...", "a"));
        assert!(
            matches("./a/...", "a/b") && matches("a/b", "a/b") && matches(".", ".") == matches("./", ".")
        );
        assert!(!matches("./a/...", "ab") && !matches("a", "a/b"));
    }

    #[test]
    fn what_is_excluded_is_not_wanted() {
        let mut request = BuildRequest::new("/", Arch::X86_64);
        request.exclude = vec!["./a/b/...".to_owned()];
        assert!(request.wants("a") && !request.wants("a/b") && !request.wants("a/b/c"));
        request.packages = vec!["./a/...".to_owned()];
        assert!(request.wants("a/x") && !request.wants("a/b") && !request.wants("c"));
    }
}
