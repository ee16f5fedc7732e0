//! The grammar of matrix files. Unknown keys are errors; whatever is wrong is shown where it stands.
//!
//! A matrix is layers: the files it `extends`, then itself. Lists add up; single values and packages of a later
//! layer win. Files are read by whoever calls: this room does no I/O.

mod expand;
mod layer;
mod sets;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use kmt_reporters::event::Arch;
use toml::Spanned;

use super::catalogue::Catalogue;
use super::sets::TestSets;
use super::spec::Resolved;
use super::{Complaint, DEFAULT_MEMORY_MIB, DEFAULT_VCPU};
use crate::external::hypervisor::GuestNetwork;
use expand::{Expansion, Found};
pub use layer::Where;
use layer::{Exclude, Layer, Sizes, Written};
use sets::SetOfCells;

/// Files that build on one another.
const DEPTH: usize = 16;

/// A matrix: what its files say together.
#[derive(Debug, Clone, Default)]
pub struct MatrixFile {
    /// Repository under test, relative to where the caller is if the names of the files are.
    pub root: Option<PathBuf>,
    /// Component of its `kmt.toml`.
    pub component: Option<String>,
    /// What the guests' network reaches.
    pub network: GuestNetwork,
    /// Packages, instead of the component's.
    pub packages: Vec<String>,
    /// Environment of the tests, over the component's.
    pub env: BTreeMap<String, String>,
    /// Longest time of packages by pattern, over the component's.
    pub timeouts: BTreeMap<String, Duration>,
    /// Parts of the suite; every cell comes once with each.
    pub sets: TestSets,
    /// Where the machines of axes are, whatever the files say.
    pub place: Option<Where>,
    /// Where a set says which cells have it: number of the layer, expression.
    having: BTreeMap<String, (usize, Option<Spanned<String>>)>,
    layers: Vec<Layer>,
}

/// Where files that a file names are looked for.
const RELATIVE: &str = "it is looked for beside the file that names it";

/// How a kernel of one's own is written.
const OWN: &str = "`[[custom-kernel]]` with `version = \"6.19\"` and `from = \"linux-image-6.19.deb\"`";

/// Which rows of `[[exclude]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowsWith {
    NoSet,
    ASet,
}

/// Reads the text of a file.
pub type Read<'a> = &'a dyn Fn(&Path) -> Result<String, Complaint>;

impl MatrixFile {
    /// Reads the file at `path` and those it builds on.
    ///
    /// # Errors
    /// File, line, column and what was expected.
    pub fn load(path: &Path, read: Read<'_>) -> Result<MatrixFile, Complaint> {
        let mut matrix = MatrixFile::default();
        matrix.take(path, read, &mut Vec::new())?;
        Ok(matrix)
    }

    /// Reads the text of a matrix called `name` that builds on no other.
    ///
    /// # Errors
    /// File, line, column and what was expected.
    pub fn parse(name: &str, text: &str) -> Result<MatrixFile, Complaint> {
        let whole = |path: &Path| match path == Path::new(name) {
            true => Ok(text.to_owned()),
            false => Err(Complaint::new(format!("cannot read `{}`", path.display()))),
        };
        MatrixFile::load(Path::new(name), &whole)
    }

    /// Takes a file, after those it builds on; `chain` are those that build on it.
    fn take(&mut self, path: &Path, read: Read<'_>, chain: &mut Vec<PathBuf>) -> Result<(), Complaint> {
        let layer = Layer::read(&path.display().to_string(), &read(path)?)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        chain.push(path.to_path_buf());
        for name in &layer.file.extends {
            let other = plain(&folder.join(name.get_ref()));
            if chain.contains(&other) || chain.len() >= DEPTH {
                let names: Vec<String> = chain.iter().map(|path| path.display().to_string()).collect();
                let what = match chain.contains(&other) {
                    true => "these files extend one another",
                    false => "too many files extend one another",
                };
                let complaint = layer.complain(name.span(), what);
                return Err(complaint.hint(format!("{} -> {}", names.join(" -> "), other.display())));
            }
            // Its own faults are told as its own; that it cannot be read is this file's.
            let text = read(&other).map_err(|unread| layer.pass_on(name, unread).hint(RELATIVE))?;
            let known = |path: &Path| if path == other { Ok(text.clone()) } else { read(path) };
            self.take(&other, &known, chain)?;
        }
        chain.pop();
        self.merge(layer, folder, read)
    }

    fn merge(&mut self, layer: Layer, folder: &Path, read: Read<'_>) -> Result<(), Complaint> {
        let file = &layer.file;
        if let Some(root) = &file.root {
            self.root = Some(folder.join(root));
        }
        if file.component.is_some() {
            self.component.clone_from(&file.component);
        }
        self.network = file.network.unwrap_or(self.network);
        if let Some(packages) = &file.packages {
            self.packages.clone_from(packages);
        }
        self.env.extend(file.env.clone());
        self.timeouts.extend(layer.timeouts()?);
        for (name, set) in layer.test_sets(folder, read)? {
            let cells = file.test_sets[&name].get_ref().cells.clone();
            self.having.insert(name.clone(), (self.layers.len(), cells));
            self.sets.insert(&name, set);
        }
        self.layers.push(layer);
        Ok(())
    }

    /// What a matrix file may say, as a JSON Schema. `matrices/matrix.schema.json` is this, for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Written).to_value()
    }

    /// Adds the kernels of the files to a catalogue.
    ///
    /// # Errors
    /// A kernel that cannot be one: where it stands.
    pub fn own_kernels(&self, catalogue: &mut Catalogue, host: Arch) -> Result<(), Complaint> {
        for layer in &self.layers {
            let folder = Path::new(&layer.name).parent().unwrap_or(Path::new(""));
            for row in &layer.file.custom_kernel {
                let own = row.get_ref();
                let arch = match &own.arch {
                    None => Some(host),
                    Some(name) => super::spec::arch_named(name),
                };
                let added = arch.ok_or_else(|| "its `arch` is none".to_owned()).and_then(|arch| {
                    catalogue.add_custom(&own.version, &own.from, own.userland.as_deref(), folder, arch)
                });
                added.map_err(|what| layer.complain(row.span(), &what).hint(OWN))?;
            }
        }
        Ok(())
    }

    /// The cells, in the order of the files.
    ///
    /// # Errors
    /// A machine that is unknown or there twice, a size that cannot be, an exclusion of nothing: where it stands.
    pub fn expand(&self, catalogue: &Catalogue, host: Arch) -> Result<Vec<Resolved>, Complaint> {
        let vcpus = self.sizes(|layer| layer.file.vcpu.as_ref(), expand::vcpu)?;
        let memories = self.sizes(|layer| layer.file.memory.as_ref(), expand::memory)?;
        let expansion = Expansion {
            catalogue,
            host,
            place: self.place,
            vcpus: vcpus.unwrap_or_else(|| vec![DEFAULT_VCPU]),
            memories: memories.unwrap_or_else(|| vec![DEFAULT_MEMORY_MIB]),
        };
        let mut cells = Found::default();
        for layer in &self.layers {
            expansion.add(layer, &mut cells)?;
        }
        let sets: Vec<SetOfCells<'_>> = self
            .having
            .iter()
            .map(|(name, (layer, cells))| {
                SetOfCells::new(name, &self.layers[*layer], cells.as_ref(), catalogue)
            })
            .collect::<Result<_, _>>()?;
        let mut cells = cells.all;
        // What a row leaves out of every set needs none.
        self.exclude(&expansion, &sets, RowsWith::NoSet, &mut cells)?;
        let mut cells = sets::times(cells, &sets)?;
        self.exclude(&expansion, &sets, RowsWith::ASet, &mut cells)?;
        Ok(cells)
    }

    fn exclude(
        &self,
        expansion: &Expansion<'_>,
        sets: &[SetOfCells<'_>],
        with: RowsWith,
        cells: &mut Vec<Resolved>,
    ) -> Result<(), Complaint> {
        for layer in &self.layers {
            let rows = layer.file.exclude.iter();
            let meant = |row: &&Spanned<Exclude>| row.get_ref().set.is_some() == (with == RowsWith::ASet);
            for row in rows.filter(meant) {
                expansion.exclude(layer, row, sets, cells)?;
            }
        }
        Ok(())
    }

    /// The sizes that the last layer with any says, checked.
    fn sizes(
        &self,
        of: fn(&Layer) -> Option<&Spanned<Sizes>>,
        check: fn(u32) -> Result<u32, String>,
    ) -> Result<Option<Vec<u32>>, Complaint> {
        let Some((layer, sizes)) = self.layers.iter().rev().find_map(|layer| Some((layer, of(layer)?)))
        else {
            return Ok(None);
        };
        let all = sizes.get_ref().all();
        if all.is_empty() {
            return Err(layer
                .complain(sizes.span(), "an empty list of sizes makes no cell")
                .hint(expand::SIZES));
        }
        let checked = all.iter().map(|size| check(*size)).collect::<Result<Vec<_>, _>>();
        checked.map(Some).map_err(|what| layer.complain(sizes.span(), &what).hint(expand::SIZES))
    }
}

/// The path without `.` and `..`, so that one file has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
