//! What is to be tested: from a matrix file or a list of machines to cells.
//!
//! Owns the catalogue, the short form of a machine, the grammar of matrix files, test sets. Pure: text in, cells or a
//! complaint out; no file, no clock. To add a distribution, add rows to `matrices/catalog/`.

pub mod catalogue;
pub mod file;
pub mod pipeline;
mod place;
pub mod select;
pub mod sets;
pub mod spec;
pub mod version;
pub mod vmsets;

use kmt_reporters::event::CellId;
use serde::{Deserialize, Serialize};

pub use catalogue::{Catalogue, CustomKernel, Platform};
pub use file::MatrixFile;
pub use sets::{TestSet, TestSets};
pub use vmsets::ExtraDisk;

/// A coordinate and what the catalogue says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The coordinate.
    pub id: CellId,
    /// Distribution of the userland.
    pub distro: String,
    /// Its version.
    pub distro_version: String,
    /// Virtual processors.
    pub vcpu: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// What else its machine has.
    pub extras: Extras,
}

/// What a machine has besides its size: what a vmsets file can say of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Extras {
    /// QEMU's machine type, where it is not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// More words of the kernel command line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmdline: Vec<String>,
    /// Disks besides the root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<ExtraDisk>,
}

impl Extras {
    /// Whether there is nothing besides.
    pub fn is_none(&self) -> bool {
        *self == Extras::default()
    }
}

impl Cell {
    /// A cell of default size on the userland of `platform`.
    pub fn on(platform: &Platform, id: CellId) -> Cell {
        Cell {
            id,
            distro: platform.distro.clone(),
            distro_version: platform.version.clone(),
            vcpu: DEFAULT_VCPU,
            memory_mib: DEFAULT_MEMORY_MIB,
            extras: Extras::default(),
        }
    }
}

/// Virtual processors of a machine nobody sized.
pub const DEFAULT_VCPU: u32 = 2;
/// Memory in MiB of a machine nobody sized.
pub const DEFAULT_MEMORY_MIB: u32 = 1024;

/// A complaint about what was asked for, with advice. Becomes a usage error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong, the value in backticks.
    pub message: String,
    /// What is meant, perhaps.
    pub hints: Vec<String>,
}

impl Complaint {
    /// A complaint without advice.
    pub fn new(message: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), hints: Vec::new() }
    }

    /// The same with one more advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Complaint {
        self.hints.push(hint.into());
        self
    }
}

impl From<Complaint> for crate::error::Failure {
    fn from(complaint: Complaint) -> crate::error::Failure {
        let failure = crate::error::Failure::usage(complaint.message);
        complaint.hints.into_iter().fold(failure, crate::error::Failure::hint)
    }
}
