//! `build`: the artifacts, and what the machines of the stack lack of them.

use std::collections::BTreeSet;

use kmt_reporters::event::{Event, EventSink};

use super::source::{self, Source};
use super::{Open, preflight, say};
use crate::artifact::{self, BuildFailure};
use crate::cli::{self, Selection};
use crate::error::{Failure, Kind, Result};
use crate::external::builder::{BuildRequest, Unit, UnitKind};
use crate::machine::Parts;
use crate::settings::{BuilderKind, Wishes};
use crate::stack::record::Progress;
use crate::stack::{MachineRecord, Stack};
use crate::world::World;

/// What the component and the selection ask the builder for.
///
/// # Errors
/// A component that does not say what its builder needs.
pub(super) fn request(selection: &Selection, source: &Source) -> Result<BuildRequest> {
    let component = &source.component;
    let root = match (component.builder, &component.folder) {
        (BuilderKind::Go, _) => source.settings.root.value.clone(),
        (BuilderKind::Prebuilt, Some(folder)) => source.settings.root.value.join(folder),
        (BuilderKind::Prebuilt, None) => {
            return Err(Failure::usage(format!(
                "component `{}` is prebuilt and names no folder",
                source.component_name
            ))
            .hint("`folder = \"DIR\"` in its section of kmt.toml"));
        }
    };
    let arch = source.cells.first().map_or_else(kmt_reporters::event::Arch::host, |(cell, _)| cell.id.arch);
    let packages = [&selection.packages, &source.matrix.packages, &component.packages];
    let packages = packages.into_iter().find(|list| !list.is_empty()).cloned().unwrap_or_default();
    Ok(BuildRequest {
        packages,
        binaries: component.binaries.clone(),
        tags: component.tags.clone(),
        env: component.build_env.clone().into_iter().collect(),
        ..BuildRequest::new(root, arch)
    })
}

/// Names of the packages among the units.
pub(super) fn test_packages(units: &[Unit]) -> Vec<&str> {
    let tests = units.iter().filter(|unit| unit.kind == UnitKind::Test);
    tests.map(|unit| unit.name.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Says on standard error what a build did.
struct Told;

impl EventSink for Told {
    fn emit(&self, event: Event) {
        if let Event::BuildFinished { arch, compiled, cached, duration_ms } = event {
            say(&format!(
                "{:>12} [{:>7.3}s] {arch}: {compiled} compiled, {cached} from the cache",
                "Built",
                duration_ms as f64 / 1000.0
            ));
        }
    }
}

/// What did not build, in the compiler's words.
fn failed(failure: &BuildFailure) -> Failure {
    failure.failures.iter().fold(Failure::new(Kind::Build, "the build failed"), |all, (subject, error)| {
        let words = if error.detail.is_empty() { error.to_string() } else { error.detail.clone() };
        let lines: Vec<_> = words.lines().map(kmt_reporters::escape).collect();
        all.caused_by(format!("{}\n{}", kmt_reporters::escape(subject), lines.join("\n")))
    })
}

/// Builds, then ships to the machines of the stack that are up.
///
/// # Errors
/// What does not compile, or cannot be shipped.
pub(super) async fn build(args: &cli::Build, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    let source = source::resolve_for_build(&args.selection, wishes).await?;
    let world = open(&source.settings);
    let request = request(&args.selection, &source)?;
    let builder = world.builder(source.component.builder);
    let units = preflight::units(builder.as_ref(), &request, &source).await?;
    let cache = source.settings.home.cache().join("build");
    let artifacts = artifact::build(&request, &units, builder.as_ref(), &cache, &Told)
        .await
        .map_err(|failure| failed(&failure))?;
    if args.compile_only {
        return Ok(0);
    }
    let folder = Stack::folder_of(&source.settings.home, &source.stack, &source.settings.root.value);
    if !Stack::is_at(&folder) {
        say(&format!("{:>12} stack `{}` has no machines to ship to", "Note", source.stack));
        return Ok(0);
    }
    let stack = Stack::open(&folder)?;
    let wanted = |machine: &MachineRecord| {
        args.selection.vms.is_empty() || source.cells.iter().any(|(cell, _)| cell.id == machine.cell)
    };
    for machine in
        stack.record()?.machines.into_values().filter(|m| m.progress == Progress::Ready).filter(wanted)
    {
        ship(&source, &world, &stack, &machine, &artifacts).await?;
    }
    Ok(0)
}

async fn ship(
    source: &Source,
    world: &World,
    stack: &Stack,
    machine: &MachineRecord,
    artifacts: &artifact::ArtifactSet,
) -> Result<()> {
    let Some(_lease) = stack.lease(&machine.id)? else {
        say(&format!("{:>12} {} is in use by another kmt-run", "Skipped", machine.id));
        return Ok(());
    };
    let route = Parts::route_of(stack, machine);
    let connection =
        tokio::time::timeout(world.deadlines.ready, world.transport.connect(&route)).await.map_err(
            |_| Failure::new(Kind::Infrastructure, format!("machine `{}` does not answer", machine.id)),
        )??;
    let prefix = connection.prefix();
    let layout = format!("{prefix}{}", source.component.layout_of(&source.component_name));
    let store = artifact::Store::below(&format!("{prefix}/var/lib/kmt"), &layout);
    let report = artifact::ship(artifacts, connection.as_ref(), &store).await;
    connection.close().await;
    let report = report?;
    say(&format!("{:>12} {}: {} bytes, {} files", "Shipped", machine.id, report.bytes, report.files));
    Ok(())
}
