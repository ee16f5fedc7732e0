//! From a matrix to its cells.

use std::collections::HashSet;

use kmt_reporters::event::{Arch, CellId, Location};
use toml::Spanned;

use super::super::catalogue::{Catalogue, Platform};
use super::super::select;
use super::super::spec::{self, Recipe, Resolved};
use super::super::version::{Version, VersionReq};
use super::super::{Cell, Complaint, DEFAULT_MEMORY_MIB, DEFAULT_VCPU};
use super::layer::{Exclude, Layer, Names, Where};
use super::sets::{SetOfCells, set_named};

/// Cells in their order, each once.
#[derive(Default)]
pub(super) struct Found {
    pub(super) all: Vec<Resolved>,
    ids: HashSet<CellId>,
}

/// What a layer adds to the cells, with what it takes for granted.
pub(super) struct Expansion<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) host: Arch,
    /// Where machines of axes are, whatever these say.
    pub(super) place: Option<Where>,
    /// Every combination is a cell.
    pub(super) vcpus: Vec<u32>,
    /// The same, MiB.
    pub(super) memories: Vec<u32>,
}

impl Expansion<'_> {
    /// Adds the cells of a layer.
    pub(super) fn add(&self, layer: &Layer, cells: &mut Found) -> Result<(), Complaint> {
        for text in &layer.file.vms {
            let resolved = self.vm(layer, text)?;
            self.sized(layer, text, &resolved, cells)?;
        }
        if let Some(axes) = &layer.file.axes {
            for resolved in self.axes(layer)? {
                self.sized(layer, axes, &resolved, cells)?;
            }
        }
        for include in &layer.file.include {
            let row = include.get_ref();
            let resolved = self.vm(layer, &row.vm)?;
            let only = Expansion {
                vcpus: one_of(layer, row.vcpu.as_ref(), vcpu)?
                    .map_or_else(|| self.vcpus.clone(), |n| vec![n]),
                memories: one_of(layer, row.memory.as_ref(), memory)?
                    .map_or_else(|| self.memories.clone(), |n| vec![n]),
                ..*self
            };
            only.sized(layer, &row.vm, &resolved, cells)?;
        }
        Ok(())
    }

    fn vm(&self, layer: &Layer, text: &Spanned<String>) -> Result<Resolved, Complaint> {
        spec::resolve(text.get_ref(), self.catalogue, self.host).map_err(|other| layer.pass_on(text, other))
    }

    /// A cell of each size.
    fn sized<T>(
        &self,
        layer: &Layer,
        place: &Spanned<T>,
        resolved: &Resolved,
        cells: &mut Found,
    ) -> Result<(), Complaint> {
        for vcpu in &self.vcpus {
            for memory in &self.memories {
                let mut resolved = resolved.clone();
                let cell = &mut resolved.cell;
                (cell.vcpu, cell.memory_mib) = (*vcpu, *memory);
                if (*vcpu, *memory) != (DEFAULT_VCPU, DEFAULT_MEMORY_MIB) {
                    cell.id.size = Some((*vcpu, *memory));
                }
                if !cells.ids.insert(resolved.cell.id.clone()) {
                    let what = format!("cell `{}` is there twice", resolved.cell.id);
                    let complaint = layer.complain(place.span(), &what);
                    return Err(complaint.hint("a machine is named once, whatever its spelling; lists of `vcpu` and `memory` make several cells of it"));
                }
                cells.all.push(resolved);
            }
        }
        Ok(())
    }

    fn axes(&self, layer: &Layer) -> Result<Vec<Resolved>, Complaint> {
        let Some(axes) = &layer.file.axes else { return Ok(Vec::new()) };
        let written = axes.get_ref();
        if written.distro.is_empty() && written.kernel.is_empty() {
            let complaint = layer.complain(axes.span(), "axes without `distro` and `kernel` name no cell");
            return Err(
                complaint.hint("`distro = [\"ubuntu\", \"debian_12\"]`, `kernel = [\">=5.4, <6.2\"]`")
            );
        }
        let kernels =
            written.kernel.iter().map(|text| comparison(layer, text)).collect::<Result<Vec<_>, _>>()?;
        let arches = written.arch.iter().map(|text| layer.arch(text)).collect::<Result<Vec<_>, _>>()?;
        let arches = if arches.is_empty() { vec![self.host] } else { arches };
        let wanted = |kernel: &str| {
            let version = Version::of(kernel);
            kernels.is_empty()
                || version.is_some_and(|version| kernels.iter().any(|req| req.matches(&version)))
        };
        let (platforms, customs) = self.named(layer)?;
        let mut cells = Vec::new();
        for arch in arches {
            let place = self.place(self.place.unwrap_or(written.place), arch);
            for row in &platforms {
                if let Some(kernel) = row.kernel(arch).filter(|kernel| wanted(kernel)) {
                    let id = CellId { location: place, ..CellId::local(&row.id, kernel, arch) };
                    cells.push(self.assumed(Cell::on(row, id)));
                }
            }
            let kernels = self.catalogue.customs().iter().filter(|row| row.variants.contains_key(&arch));
            for row in kernels.filter(|row| customs == Customs::Wanted && wanted(&row.version)) {
                if let Some(userland) = self.catalogue.platform(&row.userland) {
                    let id = CellId { location: place, ..CellId::local("custom", &row.version, arch) };
                    cells.push(self.assumed(Cell::on(userland, id)));
                }
            }
        }
        if cells.is_empty() {
            let complaint = layer.complain(axes.span(), "no machine of the catalogue is in these axes");
            return Err(complaint.hint("`kmt-run ls` lists what there is"));
        }
        Ok(cells)
    }

    fn place(&self, place: Where, arch: Arch) -> Location {
        match place {
            Where::Remote => Location::Remote,
            Where::Auto if arch != self.host => Location::Remote,
            Where::Local | Where::Auto => Location::Local,
        }
    }

    fn assumed(&self, cell: Cell) -> Resolved {
        let foreign = cell.id.location == Location::Local && cell.id.arch != self.host;
        let notices =
            if foreign { vec![format!("`{}` is emulated on this machine", cell.id)] } else { Vec::new() };
        Resolved { cell, notices }
    }

    /// The platforms that the axis of distributions names, each once, and whether custom kernels are meant.
    fn named(&self, layer: &Layer) -> Result<(Vec<&Platform>, Customs), Complaint> {
        let axes = layer.file.axes.as_ref().map(Spanned::get_ref);
        let names = axes.map(|axes| axes.distro.as_slice()).unwrap_or_default();
        let mut customs = if names.is_empty() { Customs::Wanted } else { Customs::Unwanted };
        let mut rows: Vec<&Platform> = Vec::new();
        for name in names {
            self.name(name.get_ref(), &mut rows, &mut customs).map_err(|other| layer.pass_on(name, other))?;
        }
        Ok((rows, customs))
    }

    /// The same of a list.
    fn of_names(
        &self,
        layer: &Layer,
        names: &Spanned<Names>,
    ) -> Result<(Vec<&Platform>, Customs), Complaint> {
        let (mut rows, mut customs) = (Vec::new(), Customs::Unwanted);
        for name in names.get_ref().all() {
            self.name(name, &mut rows, &mut customs).map_err(|other| layer.pass_on(names, other))?;
        }
        Ok((rows, customs))
    }

    fn name<'s>(
        &'s self,
        name: &str,
        rows: &mut Vec<&'s Platform>,
        customs: &mut Customs,
    ) -> Result<(), Complaint> {
        if name == "custom" {
            *customs = Customs::Wanted;
            return Ok(());
        }
        for row in rows_of(name, self.catalogue)? {
            if !rows.iter().any(|known| known.id == row.id) {
                rows.push(row);
            }
        }
        Ok(())
    }

    /// Leaves out what a row excludes.
    pub(super) fn exclude(
        &self,
        layer: &Layer,
        row: &Spanned<Exclude>,
        sets: &[SetOfCells<'_>],
        cells: &mut Vec<Resolved>,
    ) -> Result<(), Complaint> {
        let written = row.get_ref();
        if written.reason.as_ref().is_none_or(|reason| reason.get_ref().trim().is_empty()) {
            let complaint = layer.complain(row.span(), "an exclusion says why");
            return Err(complaint.hint("`reason = \"…\"`: who reads the matrix later will ask"));
        }
        let vm = written.vm.as_ref().map(|text| self.vm(layer, text)).transpose()?;
        let named = written.distro.as_ref().map(|names| self.of_names(layer, names)).transpose()?;
        let kernel = written.kernel.as_ref().map(|text| comparison(layer, text)).transpose()?;
        let arch = written.arch.as_ref().map(|text| layer.arch(text)).transpose()?;
        let set = written.set.as_ref().map(|name| set_named(layer, name, sets)).transpose()?;
        if vm.is_none() && written.distro.is_none() && kernel.is_none() && arch.is_none() && set.is_none() {
            let what = "an exclusion says which cells: `vm`, `distro`, `kernel`, `arch`, `set`";
            return Err(layer.complain(row.span(), what));
        }
        let meant = |id: &CellId| {
            let here = |vm: &Resolved| CellId { size: None, set: None, ..id.clone() } == vm.cell.id;
            let version = Version::of(&id.kernel);
            vm.as_ref().is_none_or(here)
                && named.as_ref().is_none_or(|(rows, customs)| match Recipe::of(id) {
                    Recipe::Custom => *customs == Customs::Wanted,
                    Recipe::Distro => rows.iter().any(|row| row.id == id.platform),
                })
                && kernel
                    .as_ref()
                    .is_none_or(|req| version.as_ref().is_some_and(|version| req.matches(version)))
                && arch.is_none_or(|arch| id.arch == arch)
                && set.is_none_or(|set| id.set.as_deref() == Some(set))
        };
        let before = cells.len();
        cells.retain(|resolved| !meant(&resolved.cell.id));
        if cells.len() == before {
            let complaint = layer.complain(row.span(), "this excludes nothing");
            return Err(complaint.hint("a row that is needed no longer is better gone"));
        }
        Ok(())
    }
}

/// Whether axes mean custom kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Customs {
    Wanted,
    Unwanted,
}

/// The platforms of a distribution, or the one platform of that name.
fn rows_of<'c>(name: &str, catalogue: &'c Catalogue) -> Result<Vec<&'c Platform>, Complaint> {
    if let Some(platform) = catalogue.platform(&name.to_lowercase()) {
        return Ok(vec![platform]);
    }
    let distro = select::known_distro(name, catalogue)?;
    Ok(catalogue.platforms().iter().filter(|row| row.distro == distro).collect())
}

fn comparison(layer: &Layer, text: &Spanned<String>) -> Result<VersionReq, Complaint> {
    text.get_ref().parse::<VersionReq>().map_err(|error| {
        // Past the opening quote.
        let start = text.span().start + 1;
        let complaint = layer.complain(start + error.at.start..start + error.at.end, &error.message);
        complaint.hint("`kernel = \">=5.4, <6.2\"`")
    })
}

fn one_of(
    layer: &Layer,
    size: Option<&Spanned<u32>>,
    check: fn(u32) -> Result<u32, String>,
) -> Result<Option<u32>, Complaint> {
    let checked = |size: &Spanned<u32>| {
        check(*size.get_ref()).map_err(|what| layer.complain(size.span(), &what).hint(SIZES))
    };
    size.map(checked).transpose()
}

/// How sizes are written.
pub(super) const SIZES: &str = "`vcpu = 4`, `memory = 8192` (MiB), or lists of them";

/// A number of processors that can be.
pub(super) fn vcpu(vcpu: u32) -> Result<u32, String> {
    if (1..=512).contains(&vcpu) {
        Ok(vcpu)
    } else {
        Err(format!("vcpu = {vcpu} cannot be: a machine has 1 to 512"))
    }
}

/// An amount of memory that can be.
pub(super) fn memory(memory: u32) -> Result<u32, String> {
    if memory >= 256 {
        Ok(memory)
    } else {
        Err(format!("memory = {memory} cannot be: a machine has at least 256 (MiB)"))
    }
}
