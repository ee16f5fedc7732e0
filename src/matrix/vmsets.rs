//! vmsets files (`vmconfig.json`) of the tool that this one replaces: read, so that its stacks can be taken over, and
//! written.
//!
//! Lines that begin with `#` are comments. Unknown keys are errors, as they are there; every known one is kept.

use std::collections::BTreeMap;

use kmt_reporters::event::{Arch, CellId, Location};
use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, Source};
use super::spec::{Recipe, Resolved};
use super::{Cell, Complaint, DEFAULT_MEMORY_MIB, DEFAULT_VCPU, Extras};
use crate::error::nearest;

/// Largest file, bytes.
const LARGEST: usize = 10 << 20;
/// The test set that stands for none.
const DEFAULT_SET: &str = "default";

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSets {
    /// Sets of machines.
    pub vmsets: Vec<VmSet>,
    /// Not used by anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Not used by anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sshkey: Option<String>,
    /// Not used by anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_user: Option<String>,
}

/// Machines that have all but the kernel in common: one of each kernel, number of processors and size of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSet {
    /// `<recipe>_<arch>`, and the test set.
    pub tags: Vec<String>,
    /// `distro-` or `custom-`, and the architecture or `local`.
    pub recipe: String,
    /// `x86_64`, `arm64` or `local`.
    pub arch: String,
    /// One machine each.
    pub kernels: Vec<Kernel>,
    /// Numbers of processors.
    pub vcpu: Vec<u32>,
    /// Sizes of memory, MiB.
    pub memory: Vec<u32>,
    /// Root filesystem of custom kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// libvirt's machine type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Disks besides the root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<ExtraDisk>,
    /// `file` for a console in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_type: Option<String>,
    /// What is known of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
}

/// A kernel, or a distribution's image with its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// File of the image, or folder of the kernel.
    pub dir: String,
    /// Platform id, or version of a custom kernel.
    pub tag: String,
    /// Where the image comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_source: Option<String>,
    /// Words of the kernel command line.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_params: BTreeMap<String, String>,
}

/// A root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its file.
    pub image_path: String,
    /// Where it comes from.
    pub image_source: String,
}

/// A disk besides the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraDisk {
    /// `default`, or `ram`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it comes from.
    pub source: String,
    /// Its file on the host.
    pub target: String,
    /// `NNM` or `NNG`, of a disk in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Folder in the guest.
    pub mount_point: String,
}

impl ExtraDisk {
    /// Whether a machine can have it.
    ///
    /// # Errors
    /// A type, a size or a place that is none.
    pub fn check(&self) -> Result<(), Complaint> {
        self.memory_bytes()?;
        let sane = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if !self.mount_point.starts_with('/') || !self.mount_point.chars().all(sane) {
            return Err(Complaint::new(format!("a disk cannot be mounted at `{}`", self.mount_point))
                .hint("an absolute path, such as `/mnt/docker`"));
        }
        Ok(())
    }

    /// Size of a disk in memory, bytes; `None` for a disk that is a file.
    ///
    /// # Errors
    /// A type or a size that is none.
    pub fn memory_bytes(&self) -> Result<Option<u64>, Complaint> {
        let wrong = |what: &str, value: &str, hint: &str| {
            let at = &self.mount_point;
            Err(Complaint::new(format!("the disk for `{at}` has the {what} `{value}`")).hint(hint))
        };
        match (self.kind.as_str(), self.size.as_deref().unwrap_or_default()) {
            ("default", _) => Ok(None),
            ("ram", size) => {
                let (number, shift) = match size.as_bytes().last() {
                    Some(b'M') => (&size[..size.len() - 1], 20),
                    Some(b'G') => (&size[..size.len() - 1], 30),
                    _ => ("", 0),
                };
                match number.parse::<u32>() {
                    Ok(number) if number > 0 => Ok(Some(u64::from(number) << shift)),
                    _ => wrong("size", size, "a disk in memory has a size such as `512M` or `2G`"),
                }
            }
            (kind, _) => wrong("type", kind, "`default` is a file, `ram` is memory"),
        }
    }
}

/// What is known of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Processors to pin to.
    pub available_cpus: u32,
}

impl VmSets {
    /// Reads the text of a file called `name`.
    ///
    /// # Errors
    /// Line, column and what was expected.
    pub fn parse(name: &str, text: &str) -> Result<VmSets, Complaint> {
        if text.len() > LARGEST {
            return Err(Complaint::new(format!(
                "`{name}` is no vmsets file: it has {} MiB",
                text.len() >> 20
            )));
        }
        // Lines stay where they are, so that places are right.
        let comment = |line: &str| line.trim_start().starts_with('#');
        let code: Vec<&str> = text.lines().map(|line| if comment(line) { "" } else { line }).collect();
        serde_json::from_str(&code.join("\n")).map_err(|error| {
            Complaint::new(format!("`{name}` is not a valid vmsets file: {error}"))
                .hint("`kmt-run plan --vms LIST` needs no file")
        })
    }

    /// The cells, in the order of the file. A test set other than `default` is the cell's set.
    ///
    /// # Errors
    /// A kernel that the catalogue does not know, a set that contradicts itself or has no machine, a cell that is
    /// there twice.
    pub fn expand(&self, catalogue: &Catalogue, host: Arch) -> Result<Vec<Resolved>, Complaint> {
        let mut cells: Vec<Resolved> = Vec::new();
        for (number, set) in self.vmsets.iter().enumerate() {
            let name = format!("set {} (`{}`)", number + 1, set.tags.join("-"));
            let failed = |complaint: Complaint| Complaint {
                message: format!("{name}: {}", complaint.message),
                hints: complaint.hints,
            };
            let mut notices: Vec<String> =
                set.unused().map(|what| format!("{name}: {what}")).into_iter().collect();
            for cell in set.cells(catalogue, host).map_err(failed)? {
                if cells.iter().any(|known| known.cell.id == cell.id) {
                    return Err(failed(Complaint::new(format!("cell `{}` is there twice", cell.id))));
                }
                cells.push(Resolved { cell, notices: std::mem::take(&mut notices) });
            }
        }
        Ok(cells)
    }

    /// The same cells as a file: a set for each recipe, place, test set and size.
    ///
    /// # Errors
    /// A machine on this box (of architecture `host`) that is emulated: the format has no word for it.
    pub fn of(cells: &[Cell], catalogue: &Catalogue, host: Arch) -> Result<VmSets, Complaint> {
        let mut sets: Vec<VmSet> = Vec::new();
        for cell in cells {
            let id = &cell.id;
            let arch = match id.location {
                Location::Remote => id.arch.as_str(),
                Location::Local if id.arch == host => "local",
                Location::Local => {
                    let what = format!("`{id}` is emulated on this machine, which a vmsets file cannot say");
                    return Err(Complaint::new(what));
                }
            };
            let recipe = Recipe::of(id).as_str();
            let set = id.set.clone().unwrap_or_else(|| DEFAULT_SET.to_owned());
            let tags = vec![format!("{recipe}_{arch}"), set];
            let kernel = kernel(cell, catalogue);
            let size = (vec![cell.vcpu], vec![cell.memory_mib]);
            let extras = &cell.extras;
            let same = |known: &&mut VmSet| {
                known.tags == tags
                    && (&known.vcpu, &known.memory) == (&size.0, &size.1)
                    && (&known.machine, &known.disks) == (&extras.machine, &extras.disks)
            };
            if let Some(known) = sets.iter_mut().find(same) {
                known.kernels.push(kernel);
                continue;
            }
            sets.push(VmSet {
                tags,
                recipe: format!("{recipe}-{arch}"),
                arch: arch.to_owned(),
                kernels: vec![kernel],
                vcpu: size.0,
                memory: size.1,
                image: None,
                machine: extras.machine.clone(),
                disks: extras.disks.clone(),
                console_type: None,
                host: None,
            });
        }
        Ok(VmSets { vmsets: sets, ..VmSets::default() })
    }
}

/// A cell's kernel as it is written.
fn kernel(cell: &Cell, catalogue: &Catalogue) -> Kernel {
    let id = &cell.id;
    let param = |word: &String| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (word.clone(), String::new()),
    };
    let extra_params: BTreeMap<String, String> = cell.extras.cmdline.iter().map(param).collect();
    if Recipe::of(id) == Recipe::Custom {
        let dir = format!("kernel-v{}.{}.pkg", id.kernel, id.arch);
        return Kernel { dir, tag: id.kernel.clone(), image_source: None, extra_params };
    }
    let variant = catalogue.platform(&id.platform).and_then(|platform| platform.variants.get(&id.arch));
    let url = variant.and_then(|variant| variant.sources.iter().find_map(Source::url)).map(str::to_owned);
    let file = url.as_deref().and_then(|url| url.rsplit('/').next()).map(|file| file.trim_end_matches(".xz"));
    Kernel {
        dir: file.map_or_else(|| format!("{}-{}.qcow2", id.platform, id.arch), str::to_owned),
        tag: id.platform.clone(),
        image_source: url,
        extra_params,
    }
}

impl VmSet {
    /// What is read and reaches no machine.
    fn unused(&self) -> Option<String> {
        self.host.is_some().then(|| "host is kept and not used".to_owned())
    }

    /// What its machines have besides their size.
    fn extras(&self, kernel: &Kernel) -> Result<Extras, Complaint> {
        if let Some(other) = self.console_type.as_deref().filter(|kind| *kind != "file") {
            let complaint = Complaint::new(format!("console_type `{other}` is none"));
            return Err(complaint.hint("`file`: a console is always kept in a file"));
        }
        for disk in &self.disks {
            disk.check()?;
        }
        let word = |(name, value): (&String, &String)| match (name.as_str(), value.as_str()) {
            ("_", value) => value.to_owned(),
            (name, "") => name.to_owned(),
            (name, value) => format!("{name}={value}"),
        };
        let mut cmdline: Vec<String> = kernel.extra_params.iter().map(word).collect();
        cmdline.sort();
        Ok(Extras { machine: self.machine.clone(), cmdline, disks: self.disks.clone() })
    }

    fn cells(&self, catalogue: &Catalogue, host: Arch) -> Result<Vec<Cell>, Complaint> {
        let (arch, location) = match self.arch.as_str() {
            "local" => (host, Location::Local),
            "x86_64" => (Arch::X86_64, Location::Remote),
            "arm64" => (Arch::Arm64, Location::Remote),
            other => {
                return Err(
                    Complaint::new(format!("no architecture `{other}`")).hint("x86_64, arm64 or local")
                );
            }
        };
        let recipe = match self.recipe.split_once('-') {
            Some(("distro", place)) if place == self.arch => Recipe::Distro,
            Some(("custom", place)) if place == self.arch => Recipe::Custom,
            _ => {
                let what = format!("recipe `{}` does not go with arch `{}`", self.recipe, self.arch);
                return Err(Complaint::new(what).hint(format!("distro-{0} or custom-{0}", self.arch)));
            }
        };
        if self.kernels.is_empty() || self.vcpu.is_empty() || self.memory.is_empty() {
            return Err(Complaint::new("no machine: `kernels`, `vcpu` and `memory` have one value at least"));
        }
        let own = [format!("{}_{}", recipe.as_str(), self.arch), DEFAULT_SET.to_owned()];
        let tags: Vec<&str> = self.tags.iter().filter(|tag| !own.contains(tag)).map(String::as_str).collect();
        let set = (!tags.is_empty()).then(|| tags.join("-"));
        let mut cells = Vec::new();
        for kernel in &self.kernels {
            let cell = cell(&kernel.tag, recipe, arch, catalogue)?;
            let extras = self.extras(kernel)?;
            for vcpu in &self.vcpu {
                for memory in &self.memory {
                    let size = (*vcpu, *memory);
                    let size = (size != (DEFAULT_VCPU, DEFAULT_MEMORY_MIB)).then_some(size);
                    let id = CellId { location, set: set.clone(), size, ..cell.id.clone() };
                    let (vcpu, memory_mib) = (*vcpu, *memory);
                    cells.push(Cell { id, vcpu, memory_mib, extras: extras.clone(), ..cell.clone() });
                }
            }
        }
        Ok(cells)
    }
}

fn cell(tag: &str, recipe: Recipe, arch: Arch, catalogue: &Catalogue) -> Result<Cell, Complaint> {
    let unknown = |what: &str, names: Vec<&str>| {
        let complaint = Complaint::new(format!("no {what} `{tag}` for {arch}"));
        match nearest(tag, names) {
            Some(near) => complaint.hint(format!("did you mean `{near}`?")),
            None => complaint.hint("`kmt-run ls` lists what there is"),
        }
    };
    match recipe {
        Recipe::Distro => {
            let platform = catalogue.platforms().iter().find(|row| row.id == tag);
            let kernel = platform.and_then(|row| Some((row, row.kernel(arch)?)));
            let (row, kernel) = kernel.ok_or_else(|| {
                let there = catalogue.platforms().iter().filter(|row| row.variants.contains_key(&arch));
                unknown("platform", there.map(|row| row.id.as_str()).collect())
            })?;
            Ok(Cell::on(row, CellId::local(&row.id, kernel, arch)))
        }
        Recipe::Custom => {
            let kernel = catalogue.custom(tag).filter(|row| row.variants.contains_key(&arch));
            let userland = kernel.and_then(|row| catalogue.platform(&row.userland));
            let userland = userland.ok_or_else(|| {
                let there = catalogue.customs().iter().filter(|row| row.variants.contains_key(&arch));
                unknown("custom kernel", there.map(|row| row.version.as_str()).collect())
            })?;
            Ok(Cell::on(userland, CellId::local("custom", tag, arch)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WRITTEN: &str = r##"# made by hand
{"vmsets": [{
  "tags": ["distro_local", "default"], "recipe": "distro-local", "arch": "local",
  "kernels": [{"tag": "ubuntu_22.04", "dir": "ubuntu-22.04-x86_64.qcow2", "image_source": "file:///x.qcow2"}],
  "vcpu": [4], "memory": [8192, 1024], "console_type": "file", "host": {"available_cpus": 8},
  "disks": [{"mount_point": "/mnt/docker", "type": "default", "source": "file:///d", "target": "/d"}]},
 {"tags": ["only_usm", "custom_arm64"], "recipe": "custom-arm64", "arch": "arm64", "machine": "virt",
  "image": {"image_path": "custom-bullseye.arm64.qcow2", "image_source": "https://x/y"},
  "kernels": [{"tag": "5.4", "dir": "kernel-v5.4.arm64.pkg", "extra_params": {"console": "ttyAMA0", "_": "quiet"}}],
  "vcpu": [2], "memory": [1024]}], "ssh_user": "root"}"##;

    fn catalogue() -> Catalogue {
        Catalogue::embedded().unwrap()
    }

    fn ids(cells: &[Resolved]) -> Vec<String> {
        cells.iter().map(|resolved| resolved.cell.id.to_string()).collect()
    }

    fn refused(from: &str, to: &str) -> Complaint {
        let text = WRITTEN.replacen(from, to, 1);
        VmSets::parse("v.json", &text).and_then(|sets| sets.expand(&catalogue(), Arch::X86_64)).unwrap_err()
    }

    #[test]
    fn what_was_written_is_read_and_written_again() {
        let sets = VmSets::parse("v.json", WRITTEN).unwrap();
        let again = serde_json::to_string(&sets).unwrap();
        assert_eq!(VmSets::parse("v.json", &again).unwrap(), sets);
        for kept in ["available_cpus", "/mnt/docker", "ttyAMA0", "custom-bullseye", "virt", "ssh_user"] {
            assert!(again.contains(kept), "{kept}");
        }
        let expected = [
            "ubuntu_22.04/5.15.0-91-generic/x86_64#4x8192",
            "ubuntu_22.04/5.15.0-91-generic/x86_64#4x1024",
            "custom/5.4/arm64@remote+only_usm",
        ];
        let cells = sets.expand(&catalogue(), Arch::X86_64).unwrap();
        assert_eq!(ids(&cells), expected);
        assert_eq!(cells[0].notices, ["set 1 (`distro_local-default`): host is kept and not used"]);
        assert_eq!(cells[1].notices, [""; 0]);
    }

    #[test]
    fn cells_come_back_from_the_file_they_were_written_to() {
        let cells = VmSets::parse("v.json", WRITTEN).unwrap().expand(&catalogue(), Arch::X86_64).unwrap();
        let cells: Vec<Cell> = cells.into_iter().map(|resolved| resolved.cell).collect();
        let written = VmSets::of(&cells, &catalogue(), Arch::X86_64).unwrap();
        let read = written.expand(&catalogue(), Arch::X86_64).unwrap();
        assert_eq!(read.into_iter().map(|resolved| resolved.cell).collect::<Vec<_>>(), cells);
        let kernel = &written.vmsets[0].kernels[0];
        assert_eq!(kernel.dir, "ubuntu-22.04-x86_64.qcow2");
        assert!(kernel.image_source.as_deref().unwrap().ends_with("/ubuntu-22.04-x86_64.qcow2.xz"));
        assert!(VmSets::of(&cells, &catalogue(), Arch::Arm64).unwrap_err().message.contains("emulated"));
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".{0,200}", at in 0..800usize, with in "[\\[\\]{}\",:0-9a-z]{0,4}") {
            let _ = VmSets::parse("v.json", &text).and_then(|sets| sets.expand(&catalogue(), Arch::X86_64));
            let mut changed = WRITTEN.to_owned();
            changed.insert_str(at.min(WRITTEN.len()), &with);
            let _ = VmSets::parse("v.json", &changed).and_then(|sets| sets.expand(&catalogue(), Arch::X86_64));
        }
    }

    #[test]
    fn wrong_files_are_told_with_their_place() {
        let key = refused("\"vcpu\": [4]", "\"vcpus\": [4]");
        assert!(key.message.contains("vcpus") && key.message.contains("line 5 column"), "{key:?}");
        let tag = refused("ubuntu_22.04", "ubuntu_22.40");
        assert!(tag.message.contains("set 1 (`distro_local-default`): no platform"), "{tag:?}");
        assert_eq!(tag.hints, ["did you mean `ubuntu_22.04`?"]);
        assert!(refused("\"tag\": \"5.4\"", "\"tag\": \"4.4\"").message.contains("for arm64"));
        assert!(
            refused("\"recipe\": \"distro-local\"", "\"recipe\": \"distro-arm64\"")
                .message
                .contains("go with")
        );
        assert!(refused("\"vcpu\": [4]", "\"vcpu\": []").message.contains("no machine"));
        assert!(refused("[8192, 1024]", "[1024, 1024]").message.contains("twice"));
        assert!(VmSets::parse("v.json", &" ".repeat(11 << 20)).unwrap_err().message.contains("11 MiB"));
    }
}
