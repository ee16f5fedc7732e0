//! From a source tree to files in a guest: what is built, kept, and sent.
//!
//! Owns the component's commands and when they run, the cache of built binaries ([`build()`]), the set of files that a guest needs ([`ArtifactSet`]) and
//! their way into a guest's store ([`ship()`]). Does not own compilers (`external/builder`), connections
//! (`external/transport`) or what is run. To ship another kind of file, add it to `layout`; to build
//! with another tool, add a builder.

mod archive;
mod build;
mod cache;
pub mod elf;
pub mod install;
mod last;
mod layout;
mod log;
mod ship;
mod steps;

use std::fmt;
use std::path::PathBuf;

use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};

pub use archive::folder_of;
pub use build::{build, cached};
pub use last::last;
pub use log::Log;
pub use ship::SYSTEM as GUEST;
pub use ship::{Coding, Link, ShipReport, Store, Through, Uploaded, ship, ship_through};

use crate::external;
use crate::run::formats::Speech;

/// A file that a guest needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipFile {
    /// Where, relative to the layout root.
    pub dest: String,
    /// The file here.
    pub source: PathBuf,
    /// sha256 of its content, hex.
    pub digest: String,
    /// Permission bits, at most 0777.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
}

/// A symbolic link that a guest needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipLink {
    /// Where, relative to the layout root.
    pub dest: String,
    /// What it points to, as it is here.
    pub target: String,
}

/// A test binary in the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestPackage {
    /// Name in reports, such as `pkg/network/tracer`.
    pub name: String,
    /// The binary, relative to the layout root.
    pub binary: String,
    /// The folder it runs in, relative to the layout root.
    pub workdir: String,
    /// The language it speaks.
    pub speech: Speech,
}

/// Everything that guests of one architecture need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactSet {
    /// The architecture.
    pub arch: Arch,
    /// Files, sorted by destination.
    pub files: Vec<ShipFile>,
    /// Symbolic links, sorted by destination.
    pub links: Vec<ShipLink>,
    /// Test packages, sorted by name.
    pub packages: Vec<TestPackage>,
}

/// Why there are no artifacts.
#[derive(Debug)]
pub struct BuildFailure {
    /// What did not build: a package, or `list`; with the reason. Never empty.
    pub failures: Vec<(String, external::Error)>,
}

impl BuildFailure {
    fn one(subject: &str, error: external::Error) -> BuildFailure {
        BuildFailure { failures: vec![(subject.to_owned(), error)] }
    }
}

impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (_, error)) in self.failures.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BuildFailure {}
