//! Arguments and environment of the test binaries of a run.

use std::collections::BTreeMap;

use kmt_reporters::event::{Arch, CellId};

use crate::settings::component::for_arch;

/// Arguments and environment of a test binary; in values `{root}` stands for the component's folder in the
/// guest, `{arch}` and its like for the architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// Arguments, after those that choose tests.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
}

/// The words for every package, and for those that have others.
#[derive(Debug, Clone, Default)]
pub struct PackageWords {
    /// Where nothing else is said.
    pub usual: Words,
    /// By cell and package.
    pub special: BTreeMap<(CellId, String), Words>,
}

impl PackageWords {
    /// The words for a package in a cell.
    pub fn of(&self, cell: &CellId, package: &str) -> &Words {
        if self.special.is_empty() {
            return &self.usual;
        }
        self.special.get(&(cell.clone(), package.to_owned())).unwrap_or(&self.usual)
    }
}

impl Words {
    /// The environment where the component's folder in the guest is `root`.
    pub fn env_below(&self, root: &str, arch: Arch) -> Vec<(String, String)> {
        let put = |value: &str| for_arch(&value.replace("{root}", root), arch);
        self.env.iter().map(|(name, value)| (name.clone(), put(value))).collect()
    }
}
