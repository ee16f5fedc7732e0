//! The grammar of matrix files. Unknown keys are errors, with line and column.

use std::collections::BTreeMap;

use kmt_reporters::event::Arch;
use serde::Deserialize;

use super::catalogue::Catalogue;
use super::spec::{self, Resolved};
use super::{Complaint, DEFAULT_MEMORY_MIB, DEFAULT_VCPU};
use crate::external::hypervisor::GuestNetwork;

/// A matrix as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MatrixFile {
    /// Repository under test, relative to the file.
    pub root: Option<String>,
    /// Component of its `kmt.toml`.
    pub component: Option<String>,
    /// Machines in the short form.
    #[serde(default)]
    pub vms: Vec<String>,
    /// Virtual processors of each machine.
    pub vcpu: Option<u32>,
    /// Memory of each machine, MiB.
    pub memory: Option<u32>,
    /// What the guests' network reaches.
    #[serde(default)]
    pub network: GuestNetwork,
    /// Packages, instead of the component's.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Environment of the tests, over the component's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl MatrixFile {
    /// Reads the text of a matrix file called `name`.
    ///
    /// # Errors
    /// Line, column and what was expected.
    pub fn parse(name: &str, text: &str) -> Result<MatrixFile, Complaint> {
        toml::from_str(text).map_err(|error| {
            Complaint::new(format!("`{name}` is not a valid matrix\n{}", error.to_string().trim_end()))
        })
    }

    /// The cells, in the order of the file.
    ///
    /// # Errors
    /// A machine that is unknown or there twice, a size that cannot be.
    pub fn expand(&self, catalogue: &Catalogue, host: Arch) -> Result<Vec<Resolved>, Complaint> {
        let mut cells: Vec<Resolved> = Vec::new();
        for text in &self.vms {
            let mut resolved = spec::resolve(text, catalogue, host)?;
            self.size(&mut resolved)?;
            if cells.iter().any(|known| known.cell.id == resolved.cell.id) {
                return Err(Complaint::new(format!("`{text}` is there twice: cell `{}`", resolved.cell.id)));
            }
            cells.push(resolved);
        }
        Ok(cells)
    }

    fn size(&self, resolved: &mut Resolved) -> Result<(), Complaint> {
        let vcpu = self.vcpu.unwrap_or(DEFAULT_VCPU);
        let memory = self.memory.unwrap_or(DEFAULT_MEMORY_MIB);
        if vcpu == 0 || vcpu > 512 {
            return Err(Complaint::new(format!("vcpu = {vcpu} cannot be: a machine has 1 to 512")));
        }
        if memory < 256 {
            return Err(Complaint::new(format!(
                "memory = {memory} cannot be: a machine has at least 256 (MiB)"
            )));
        }
        let cell = &mut resolved.cell;
        (cell.vcpu, cell.memory_mib) = (vcpu, memory);
        if (vcpu, memory) != (DEFAULT_VCPU, DEFAULT_MEMORY_MIB) {
            cell.id.size = Some((vcpu, memory));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<Vec<String>, Complaint> {
        let cells =
            MatrixFile::parse("m.toml", text)?.expand(&Catalogue::embedded().unwrap(), Arch::X86_64)?;
        Ok(cells.into_iter().map(|r| r.cell.id.to_string()).collect())
    }

    #[test]
    fn cells_come_in_order_and_carry_a_size_that_is_not_default() {
        let text = "vms = [\"debian_13-local-distro\", \"custom-6.12-local\"]\nmemory = 2048\n";
        assert_eq!(expand(text).unwrap(), ["debian_13/6.12/x86_64#2x2048", "custom/6.12/x86_64#2x2048"]);
    }

    #[test]
    fn wrong_files_are_told_with_their_line() {
        assert!(expand("vms = []\nvmz = []\n").unwrap_err().message.contains("line 2"));
        assert!(expand("vms = [1]\n").unwrap_err().message.contains("line 1"));
        assert!(
            expand("vms = [\"bookworm-local-distro\", \"debian_12-local-distro\"]")
                .unwrap_err()
                .message
                .contains("twice")
        );
        assert!(
            expand("vms = [\"debian_12-local-distro\"]\nmemory = 1\n").unwrap_err().message.contains("256")
        );
    }
}
