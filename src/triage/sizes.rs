//! What size machines had in CI: by the file that they were made from, or by their names.

use std::path::Path;

use serde::Deserialize;

use super::archive;
use super::machines::StackOutput;

/// Processors and memory in MiB.
pub type Size = (u32, u32);

/// The machines that a setup job made, as `vmconfig-*.json` asks for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Asked {
    vmsets: Vec<Set>,
}

/// Machines that have all but the kernel in common. Read more kindly than files that people write: what is not
/// understood is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Set {
    tags: Vec<String>,
    kernels: Vec<Kernel>,
    vcpu: Vec<u32>,
    memory: Vec<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Kernel {
    tag: String,
}

impl Asked {
    /// Reads the file; nothing where it is none.
    pub fn read(path: &Path) -> Asked {
        let bytes = archive::whole(path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// The size of the machine of a platform and test set.
    pub fn of(&self, platform: &str, set: &str) -> Option<Size> {
        let has = |own: &&Set| own.kernels.iter().any(|kernel| kernel.tag == platform);
        let mut sets = self.vmsets.iter().filter(has);
        let meant = |own: &&Set| own.tags.iter().any(|tag| tag == set);
        let found = sets.clone().find(meant).or_else(|| sets.find(|_| set.is_empty()))?;
        Some((*found.vcpu.first()?, *found.memory.first()?))
    }
}

/// The size of a machine by the end of its name: `…-ddvm-<processors>-<MiB>`.
pub fn of_name(output: &StackOutput, arch: kmt_reporters::event::Arch, place: (&str, &str)) -> Option<Size> {
    let vm = output.machine(arch, place.0, place.1)?;
    let (_, numbers) = vm.id.rsplit_once("-ddvm-")?;
    let (vcpu, memory) = numbers.split_once('-')?;
    Some((vcpu.parse().ok()?, memory.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_the_size_that_was_asked_for() {
        let text = r#"{"vmsets": [
            {"tags": ["distro_x86_64", "no_usm"], "kernels": [{"tag": "debian_12", "dir": "x"}], "vcpu": [4], "memory": [12288], "new": 1},
            {"tags": ["distro_x86_64", "only_usm"], "kernels": [{"tag": "debian_12"}], "vcpu": [2], "memory": [4096]},
            {"tags": ["x"], "kernels": [{"tag": "debian_11"}]}]}"#;
        let asked: Asked = serde_json::from_str(text).unwrap();
        assert_eq!(asked.of("debian_12", "only_usm"), Some((2, 4096)));
        assert_eq!(asked.of("debian_12", "no_usm"), Some((4, 12288)));
        assert_eq!((asked.of("debian_12", "other"), asked.of("debian_11", "x")), (None, None));
    }
}
