//! What is built for which architecture: requests of a component, and the units its builder finds for each.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use kmt_reporters::event::Arch;

use super::preflight;
use super::source::Source;
use crate::artifact::{self, ArtifactSet, TestPackage};
use crate::cli::{self, Selection};
use crate::error::{Failure, Kind, Result};
use crate::external::builder::{BuildRequest, Builder, Cgo, Race, Unit, UnitKind};
use crate::plan::Plan;
use crate::settings::component::{Artifact, BuildCommand, Moved, for_arch};

/// The build of one architecture.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// What is asked of the builder.
    pub(super) request: BuildRequest,
    /// What it will make.
    pub(super) units: Vec<Unit>,
    /// What was made before, and how long ago, where nothing is to be built.
    pub(super) made: Option<(ArtifactSet, Duration)>,
}

/// The builds of a source as they were the last time: nothing is listed, and nothing will be compiled.
///
/// # Errors
/// An architecture was never built, or what was built is gone; none of the packages is in it.
fn made(selection: &Selection, source: &Source) -> Result<Vec<Job>> {
    let cache = source.settings.home.cache().join("build");
    let job = |arch| {
        let request = request(selection, source, arch)?;
        let (set, age) = artifact::last(&request, &cache).ok_or_else(|| {
            Failure::usage(format!("`--quick` has nothing to use: component `{}` was not built for {arch}, or it has changed since in kmt.toml", source.component_name))
                .hint("run once without `--quick`, or `kmt-run build --compile-only`")
        })?;
        if set.packages.is_empty() {
            let message = format!("what was built last for {arch} has none of these packages");
            return Err(Failure::new(Kind::NothingSelected, message).hint("run once without `--quick`"));
        }
        let units = set.packages.iter().map(|package| unit_of(package, &set)).collect();
        Ok(Job { request, units, made: Some((set, age)) })
    };
    arches(selection, source).into_iter().map(job).collect()
}

fn unit_of(package: &TestPackage, set: &ArtifactSet) -> Unit {
    let file = set.files.iter().find(|file| file.dest == package.binary).map(|file| file.source.clone());
    Unit {
        kind: UnitKind::Test,
        name: package.name.clone(),
        import_path: package.name.clone(),
        dir: PathBuf::new(),
        inputs: Vec::new(),
        facts: Vec::new(),
        made: file,
    }
}

/// The builds of a run, listed anew or, with `--quick`, as they were.
///
/// # Errors
/// As [`jobs`] and [`made`].
pub(super) async fn wanted(args: &cli::Run, builder: &dyn Builder, source: &Source) -> Result<Vec<Job>> {
    if args.quick { made(&args.selection, source) } else { jobs(builder, &args.selection, source).await }
}

/// The builds of a source, one an architecture, in the order of its cells.
///
/// # Errors
/// A package that is unknown, a tree that cannot be listed.
pub(super) async fn jobs(builder: &dyn Builder, selection: &Selection, source: &Source) -> Result<Vec<Job>> {
    let mut requests = Vec::new();
    for arch in arches(selection, source) {
        requests.push(request(selection, source, arch)?);
    }
    let listing = requests.into_iter().map(|request| async {
        let units = preflight::units(builder, &request, source).await?;
        Ok(Job { request, units, made: None })
    });
    futures_util::future::join_all(listing).await.into_iter().collect()
}

/// Architectures of the cells; without any, those that were asked for, else this machine's.
fn arches(selection: &Selection, source: &Source) -> Vec<Arch> {
    let cells = source.cells.iter().map(|(cell, _)| cell.id.arch);
    let wanted = cells.chain(selection.arch.iter().copied().filter(|_| source.cells.is_empty()));
    let mut arches = Vec::new();
    for arch in wanted {
        if !arches.contains(&arch) {
            arches.push(arch);
        }
    }
    if arches.is_empty() { vec![Arch::host()] } else { arches }
}

/// What the component and the selection ask the builder for.
///
/// # Errors
/// An archive of test binaries that cannot be unpacked.
fn request(selection: &Selection, source: &Source, arch: Arch) -> Result<BuildRequest> {
    let component = &source.component;
    let repository = source.settings.root.value.clone();
    let put = |text: &String| for_arch(text, arch);
    let all = |texts: &[String]| -> Vec<String> { texts.iter().map(put).collect() };
    let root = match &component.folder {
        Some(folder) => artifact::folder_of(&repository.join(put(folder)), source.settings.home.cache())?,
        None => repository.clone(),
    };
    let packages = [&selection.packages, &source.matrix.packages, &component.packages];
    let packages = packages.into_iter().find(|list| !list.is_empty()).cloned().unwrap_or_default();
    Ok(BuildRequest {
        repository,
        commands: component.command.iter().map(|command| command_for(command, arch)).collect(),
        packages,
        exclude: component.exclude.clone(),
        binaries: component.binaries.clone(),
        helpers: component.helpers.clone(),
        tests: component.tests.iter().map(|(name, file)| (name.clone(), PathBuf::from(put(file)))).collect(),
        format: component.format,
        tags: component.tags.clone(),
        ldflags: component.ldflags.as_ref().map(put),
        cgo: if component.cgo { Cgo::On } else { Cgo::Off },
        race: if component.race { Race::Detected } else { Race::Ignored },
        args: all(&component.build_args),
        env: component.build_env.iter().map(|(name, value)| (name.clone(), put(value))).collect(),
        inputs: all(&component.inputs),
        artifacts: artifacts_of(component, arch),
        ..BuildRequest::new(root, arch)
    })
}

/// What is shipped besides tests, scripts of the preparation with it.
fn artifacts_of(component: &crate::settings::Component, arch: Arch) -> Vec<Artifact> {
    let scripts = component.prepare.scripts.iter().map(|script| Artifact::Same(script.clone()));
    let all = component.artifacts.iter().cloned().chain(scripts);
    all.map(|artifact| artifact_for(&artifact, arch)).collect()
}

fn artifact_for(artifact: &Artifact, arch: Arch) -> Artifact {
    match artifact {
        Artifact::Same(from) => Artifact::Same(for_arch(from, arch)),
        Artifact::Moved(Moved { from, to }) => {
            Artifact::Moved(Moved { from: for_arch(from, arch), to: for_arch(to, arch) })
        }
    }
}

fn command_for(command: &BuildCommand, arch: Arch) -> BuildCommand {
    let put = |text: &String| for_arch(text, arch);
    let all = |texts: &[String]| -> Vec<String> { texts.iter().map(put).collect() };
    let mut container = command.container.clone();
    if let Some(container) = &mut container {
        container.image = put(&container.image);
        container.args = all(&container.args);
    }
    BuildCommand {
        argv: all(&command.argv),
        dir: put(&command.dir),
        env: command.env.iter().map(|(name, value)| (name.clone(), put(value))).collect(),
        inputs: all(&command.inputs),
        outputs: all(&command.outputs),
        container,
    }
}

/// Names of the packages among the units.
pub(super) fn test_packages(units: &[Unit]) -> BTreeSet<&str> {
    let tests = units.iter().filter(|unit| unit.kind == UnitKind::Test);
    tests.map(|unit| unit.name.as_str()).collect()
}

/// Names of the packages of all builds.
pub(super) fn all_packages(jobs: &[Job]) -> BTreeSet<&str> {
    jobs.iter().flat_map(|job| test_packages(&job.units)).collect()
}

/// Takes packages out of cells whose architecture does not have them.
pub(super) fn only_where_built(plan: &mut Plan, jobs: &[Job]) {
    for (cell, shards) in &mut plan.cells {
        let Some(job) = jobs.iter().find(|job| job.request.arch == cell.arch) else { continue };
        let there = test_packages(&job.units);
        shards.retain(|shard| there.contains(plan.packages[shard.package].as_str()));
    }
}
