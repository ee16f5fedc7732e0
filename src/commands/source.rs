//! Where cells come from: a matrix file, `--vms`, or the machines of the stack; and what is tested in them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kmt_reporters::event::{Arch, CellId, Location};

use crate::cli::{Homeless, Selection};
use crate::error::{Failure, Kind, Result};
use crate::image::ImageRequest;
use crate::matrix::select::{Expression, Flags};
use crate::matrix::vmsets::VmSets;
use crate::matrix::{
    Catalogue, Cell, Complaint, DEFAULT_MEMORY_MIB, DEFAULT_VCPU, ExtraDisk, Extras, MatrixFile, TestSet,
    sets, spec,
};
use crate::settings::file::longest_match;
use crate::settings::job::Job;
use crate::settings::{Component, Settings, Wishes};
use crate::stack::{self, MachineSpec, Stack, StackSpec};

/// What was asked for, resolved.
pub(super) struct Source {
    /// Settings of the repository.
    pub(super) settings: Settings,
    /// The matrix, or an empty one.
    pub(super) matrix: MatrixFile,
    /// Name of the component.
    pub(super) component_name: String,
    /// The component.
    pub(super) component: Component,
    /// Name of the stack.
    pub(super) stack: String,
    /// Cells and what they boot from.
    pub(super) cells: Vec<(Cell, ImageRequest)>,
    /// What of it is wanted.
    pub(super) choice: Expression,
    /// Sentences about what was assumed.
    pub(super) notices: Vec<String>,
}

impl Source {
    /// Longest time of a package: what the matrix says of it, else `kmt.toml`.
    pub(super) fn timeout_of(&self, package: &str) -> Duration {
        longest_match(&self.matrix.timeouts, package).unwrap_or_else(|| self.component.timeout_of(package))
    }
}

/// Resolves a selection.
///
/// # Errors
/// A matrix, machine, component or stack that is not one; nothing selected; remote machines.
pub(super) async fn resolve(selection: &Selection, wishes: Wishes) -> Result<Source> {
    let source = resolve_for_build(selection, wishes).await?;
    if source.cells.is_empty() {
        return Err(nothing_selected(selection, &source.stack));
    }
    match &selection.written {
        Some(written) if written.homeless == Homeless::NotRun => {}
        Some(_) => refuse_remote(&source.cells, &source.settings).map_err(|failure| {
            let from = &selection.pipeline;
            match from.use_local_if_possible {
                true => failure.hint("`--skip-unavailable` runs the others; `--job` chooses among them"),
                false if from.from_ci_pipeline.is_some() => {
                    failure.hint("`--use-local-if-possible` puts here what this machine can run")
                }
                false => failure,
            }
        })?,
        None => refuse_remote(&source.cells, &source.settings)?,
    }
    Ok(source)
}

/// Why there is no cell, and what to name.
pub(super) fn nothing_selected(selection: &Selection, stack: &str) -> Failure {
    let failure = Failure::new(Kind::NothingSelected, "no cell is selected");
    let narrowed = selection.kernel.is_some()
        || [&selection.distro, &selection.cell, &selection.filter_expr].iter().any(|list| !list.is_empty())
        || !selection.arch.is_empty();
    if narrowed {
        return failure.hint("`kmt-run plan` without the filters shows what they choose from");
    }
    if selection.has_file() && selection.vms.is_empty() {
        return failure.hint("a matrix names machines: `vms`, `[axes]` or `[[include]]`");
    }
    if selection.has_file() {
        return failure.hint("`--vms` leaves only machines that the matrix has; without it all of them run");
    }
    failure
        .caused_by(format!("stack `{stack}` has no machines"))
        .hint("name a matrix (`kmt-run run matrices/demo.toml`) or machines (`--vms debian_12-local-distro`)")
}

/// The same where no machine is needed.
///
/// # Errors
/// A matrix, machine, component or stack that is not one.
pub(super) async fn resolve_for_build(selection: &Selection, wishes: Wishes) -> Result<Source> {
    let places = resolve_places(selection, wishes).await?;
    let (component_name, component) = {
        let asked = selection.component.as_deref().or(places.matrix.component.as_deref());
        let (name, component) = places.settings.component(asked)?;
        (name, component.clone())
    };
    let Places { settings, matrix, stack, mut cells, choice, notices } = places;
    equip(&mut cells, &component, &settings.root.value)?;
    Ok(Source { settings, matrix, component_name, component, stack, cells, choice, notices })
}

/// Gives cells the disks that the component wants, but where a machine has one in that place.
///
/// # Errors
/// A disk that no machine can have.
fn equip(cells: &mut [(Cell, ImageRequest)], component: &Component, root: &Path) -> Result<()> {
    for wish in &component.prepare.disks {
        let image = wish.image.as_ref().map(|image| root.join(image));
        if let Some(image) = image.as_ref().filter(|image| !image.is_file()) {
            let message =
                format!("the disk for `{}` has no image: no file `{}`", wish.target, image.display());
            return Err(Failure::usage(message)
                .hint("`image` in kmt.toml is relative to it; `size` makes an empty disk"));
        }
        let disk = ExtraDisk {
            kind: if image.is_some() { "default" } else { "ram" }.to_owned(),
            source: String::new(),
            target: image.map(|image| image.display().to_string()).unwrap_or_default(),
            size: wish.size.clone(),
            mount_point: wish.target.clone(),
        };
        disk.check()?;
        for (cell, _) in cells.iter_mut() {
            if !cell.extras.disks.iter().any(|known| known.mount_point == disk.mount_point) {
                cell.extras.disks.push(disk.clone());
            }
        }
    }
    Ok(())
}

/// Where things would run, whatever it is that runs.
pub(super) struct Places {
    /// Settings of the repository.
    pub(super) settings: Settings,
    /// The matrix, or an empty one.
    pub(super) matrix: MatrixFile,
    /// Name of the stack.
    pub(super) stack: String,
    /// Cells and what they boot from.
    pub(super) cells: Vec<(Cell, ImageRequest)>,
    /// What of it is wanted.
    pub(super) choice: Expression,
    /// Sentences about what was assumed.
    pub(super) notices: Vec<String>,
}

/// The same where no component is needed.
///
/// # Errors
/// A matrix, machine or stack that is not one.
pub(super) async fn resolve_places(selection: &Selection, mut wishes: Wishes) -> Result<Places> {
    let mut matrix = match &selection.matrix {
        Some(path) => {
            let matrix = read_matrix(path)?;
            if wishes.folder.is_none()
                && let Some(root) = &matrix.root
            {
                wishes.matrix_root = Some(root.clone());
            }
            matrix
        }
        None => MatrixFile::default(),
    };
    matrix.place = selection.place;
    if let Some(path) = &selection.packages_run_config {
        matrix.sets.set_usual(read_run_config(path, &matrix)?);
    }
    let settings = Settings::load(&wishes)?;
    let stack = match &selection.stack {
        Some(name) => name.clone(),
        None => stack::name::default_name(&settings.root.value).await,
    };
    let catalogue = catalogue_with(selection, &matrix)?;
    let (mut cells, mut notices) = cells(selection, &matrix, &catalogue, &settings, &stack)?;
    if let Some(job) = settings.job()? {
        sized(&mut cells, &job);
    }
    if selection.written.is_none() {
        notices.extend(unknown_sets(&cells, &matrix));
    }
    let choice = choice(selection, &catalogue)?;
    cells.retain(|cell| choice.in_cell(cell).is_some());
    let cells = cells
        .into_iter()
        .map(|cell| image_of(&cell, &catalogue).map(|image| (cell, image)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Places { settings, matrix, stack, cells, choice, notices })
}

/// Gives cells the size that a CI job says, where it says one.
fn sized(cells: &mut [Cell], job: &Job) {
    for cell in cells.iter_mut().filter(|_| job.vcpu.is_some() || job.memory_mib.is_some()) {
        cell.vcpu = job.vcpu.unwrap_or(cell.vcpu);
        cell.memory_mib = job.memory_mib.unwrap_or(cell.memory_mib);
        let size = (cell.vcpu, cell.memory_mib);
        cell.id.size = (size != (DEFAULT_VCPU, DEFAULT_MEMORY_MIB)).then_some(size);
    }
}

/// What the selection flags leave of it.
fn choice(selection: &Selection, catalogue: &Catalogue) -> Result<Expression> {
    let flags = Flags {
        distros: &selection.distro,
        kernel: selection.kernel.as_deref(),
        arches: &selection.arch,
        cells: &selection.cell,
        expressions: &selection.filter_expr,
    };
    Ok(Expression::of_flags(&flags, catalogue)?)
}

/// Reads a matrix file and those it builds on.
///
/// # Errors
/// One cannot be read, or is none.
pub(super) fn read_matrix(path: &Path) -> Result<MatrixFile> {
    Ok(MatrixFile::load(path, &|path| {
        let name = path.display();
        let bytes = std::fs::read(path).map_err(|error| {
            let complaint = Complaint::new(format!("cannot read the matrix `{name}`: {error}"));
            match path.extension() {
                Some(ending) if ending == "json" => Complaint::new(format!("cannot read `{name}`: {error}")),
                None => complaint.hint(format!("to name machines: `--vms {name}`")),
                Some(_) => complaint,
            }
        })?;
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let before = &error.as_bytes()[..at];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
            Complaint::new(format!("the matrix `{name}` is not UTF-8 in line {line}, column {column}"))
                .hint("a matrix is a TOML file: see `matrices/demo.toml`")
        })
    })?)
}

/// Reads a run config of the former tool, for cells that the matrix gives no test set.
fn read_run_config(path: &Path, matrix: &MatrixFile) -> Result<TestSet> {
    if let Some(name) = matrix.sets.named().keys().next() {
        let what = format!("`--packages-run-config` and test set `{name}` of the matrix both say what runs");
        return Err(Failure::usage(what)
            .hint("in the matrix: `import = \"FILE.json\"` in a section `[test-sets.NAME]`"));
    }
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read the run config `{name}`")).caused_by(error))?;
    Ok(sets::json::parse(&name, &text)?)
}

/// Reads a vmsets file.
fn read_vmsets(path: &Path) -> Result<VmSets> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read the vmsets file `{name}`")).caused_by(error))?;
    Ok(VmSets::parse(&name, &text)?)
}

/// The catalogue this program carries.
///
/// # Errors
/// It is damaged: a bug.
pub(super) fn catalogue() -> Result<Catalogue> {
    Catalogue::embedded().map_err(|error| Failure::new(Kind::Internal, error.to_string()))
}

/// The same with the kernels of a matrix and of the command line.
///
/// # Errors
/// A kernel that cannot be one.
fn catalogue_with(selection: &Selection, matrix: &MatrixFile) -> Result<Catalogue> {
    let (mut catalogue, host) = (catalogue()?, Arch::host());
    matrix.own_kernels(&mut catalogue, host)?;
    for word in &selection.custom_kernel {
        let refuse = |what: String| {
            let hint =
                "`--custom-kernel 6.19=linux-image-6.19.deb`, `--custom-kernel 6.19=../linux/@debian_13`";
            Failure::usage(format!("`--custom-kernel {word}`: {what}")).hint(hint)
        };
        let (version, from) = word.split_once('=').ok_or_else(|| refuse("it has no `=`".to_owned()))?;
        let (from, userland) = match from.rsplit_once('@') {
            Some((from, userland)) if !userland.contains('/') => (from, Some(userland)),
            _ => (from, None),
        };
        let folder = std::env::current_dir().map_err(|error| refuse(error.to_string()))?;
        catalogue.add_custom(version, from, userland, &folder, host).map_err(refuse)?;
    }
    Ok(catalogue)
}

fn cells(
    selection: &Selection,
    matrix: &MatrixFile,
    catalogue: &Catalogue,
    settings: &Settings,
    stack: &str,
) -> Result<(Vec<Cell>, Vec<String>)> {
    let host = Arch::host();
    let mut notices = Vec::new();
    let mut named = Vec::new();
    for text in &selection.vms {
        let resolved = spec::resolve(text, catalogue, host)?;
        notices.extend(resolved.notices);
        if !named.contains(&resolved.cell) {
            named.push(resolved.cell);
        }
    }
    let mut cells = Vec::new();
    let written = match (&selection.written, &selection.vmsets) {
        (Some(written), _) => {
            notices.extend(written.notices.iter().cloned());
            cells.extend(written.cells.iter().cloned());
            Vec::new()
        }
        (None, Some(path)) => read_vmsets(path)?.expand(catalogue, host)?,
        (None, None) => matrix.expand(catalogue, host)?,
    };
    for resolved in written {
        notices.extend(resolved.notices);
        cells.push(resolved.cell);
    }
    if selection.has_file() {
        if !named.is_empty() {
            cells.retain(|cell| named.iter().any(|n| same_place(n, cell)));
        }
    } else if named.is_empty() {
        cells = cells_of_stack(catalogue, settings, stack)?;
    } else {
        let known = cells_of_stack(catalogue, settings, stack)?;
        let added = named.iter().filter(|cell| !known.iter().any(|k| k.id == cell.id));
        let added: Vec<String> = added.map(|cell| format!("`{}`", cell.id)).collect();
        if !known.is_empty() && !added.is_empty() {
            notices.push(format!("{} added to stack `{stack}`", added.join(", ")));
        }
        cells = named;
    }
    Ok((cells, notices))
}

/// What to say of sets that machines of a stack or of a vmsets file have, and no matrix explains.
fn unknown_sets(cells: &[Cell], matrix: &MatrixFile) -> Vec<String> {
    let names: BTreeSet<&String> = cells
        .iter()
        .filter(|cell| matrix.sets.of(&cell.id).is_none())
        .filter_map(|cell| cell.id.set.as_ref())
        .collect();
    let told = |name| format!("test set `{name}` is explained by no matrix: all packages run in its cells");
    names.into_iter().map(told).collect()
}

/// Whether two cells are one but for their size.
fn same_place(a: &Cell, b: &Cell) -> bool {
    let bare = |cell: &Cell| {
        let mut id = cell.id.clone();
        (id.size, id.set) = (None, None);
        id
    };
    bare(a) == bare(b)
}

/// Cells of the machines that a stack has, and of those that it should have.
fn cells_of_stack(catalogue: &Catalogue, settings: &Settings, stack: &str) -> Result<Vec<Cell>> {
    let folder = Stack::folder_of(&settings.home, stack, &settings.root.value);
    if !Stack::is_at(&folder) {
        return Ok(Vec::new());
    }
    let record = Stack::open(&folder)?.record()?;
    let mut cells = cells_of_spec(catalogue, &record.spec)?;
    for machine in record.machines.into_values() {
        let size = (machine.vcpu, machine.memory_mib);
        let Some(cell) = cell_of(catalogue, &machine.cell, size, &machine.extras) else { continue };
        if !cells.iter().any(|known| known.id == cell.id) {
            cells.push(cell);
        }
    }
    Ok(cells)
}

/// Cells of the machines that a stack should have.
///
/// # Errors
/// The catalogue does not know one any more.
pub(super) fn cells_of_spec(catalogue: &Catalogue, spec: &StackSpec) -> Result<Vec<Cell>> {
    let cell = |wanted: &MachineSpec| {
        cell_of(catalogue, &wanted.cell, (wanted.vcpu, wanted.memory_mib), &wanted.extras).ok_or_else(|| {
            Failure::usage(format!("the catalogue does not know `{}`, which is configured", wanted.cell))
                .hint("`kmt-run stack configure --new --vms LIST` starts afresh")
        })
    };
    spec.machines.iter().map(cell).collect()
}

/// The cell of that coordinate, size (processors, MiB) and equipment; `None` where the catalogue does not know it.
pub(super) fn cell_of(
    catalogue: &Catalogue,
    id: &CellId,
    (vcpu, memory_mib): (u32, u32),
    extras: &Extras,
) -> Option<Cell> {
    let platform = match id.platform.as_str() {
        "custom" => catalogue.platform(&catalogue.custom(&id.kernel)?.userland)?,
        platform => catalogue.platform(platform)?,
    };
    Some(Cell { vcpu, memory_mib, extras: extras.clone(), ..Cell::on(platform, id.clone()) })
}

/// Refuses remote machines where nobody provides them.
///
/// # Errors
/// There is one.
pub(super) fn refuse_remote(cells: &[(Cell, ImageRequest)], settings: &Settings) -> Result<()> {
    let rented = settings.config.ec2.is_some();
    let provided = |arch| rented || settings.hosts.value.iter().any(|host| host.arch == arch);
    let remote =
        cells.iter().find(|(cell, _)| cell.id.location == Location::Remote && !provided(cell.id.arch));
    let Some((cell, _)) = remote else { return Ok(()) };
    let here = CellId { location: Location::Local, ..cell.id.clone() };
    let failure = Failure::new(
        Kind::Remote,
        format!("cell `{}` asks for a remote machine, and no provider is configured", cell.id),
    );
    let failure = match spec::spelling(&here, Arch::host()) {
        Some(spelling) => failure.hint(format!("on this machine: `--vms {spelling}`")),
        None => failure,
    };
    let own = "a host of your own: `[[host]]` with `address` and `arch";
    let failure = failure.hint(format!("{own} = \"{}\"` in ~/.config/kmt-run/config.toml", cell.id.arch));
    Err(failure.hint("rented ones: `[ec2]` in kmt.toml, as `kmt-run config schema` says"))
}

/// What a cell boots from.
///
/// # Errors
/// The catalogue does not know the cell.
pub(super) fn image_of(cell: &Cell, catalogue: &Catalogue) -> Result<ImageRequest> {
    let unknown = || Failure::usage(format!("the catalogue does not know `{}`", cell.id));
    if cell.id.platform == "custom" {
        let kernel = catalogue.custom(&cell.id.kernel).ok_or_else(unknown)?;
        let userland = catalogue.platform(&kernel.userland).ok_or_else(unknown)?;
        return Ok(ImageRequest::custom(kernel, userland, cell.id.arch));
    }
    let platform = catalogue.platform(&cell.id.platform).ok_or_else(unknown)?;
    Ok(ImageRequest::platform(platform, cell.id.arch))
}
