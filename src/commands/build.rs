//! `build`: the artifacts, what the machines of the stack lack of them, and what installs them there.

use std::collections::BTreeMap;

use kmt_reporters::event::{Arch, Event, EventSink};

use super::jobs::{self, Job};
use super::source::{self, Source};
use super::{Open, say};
use crate::artifact::install::BuildLayout;
use crate::artifact::{self, ArtifactSet, BuildFailure, Log};
use crate::cli::{self, Selection};
use crate::error::{Failure, Kind, Result};
use crate::external::transport::Connection;
use crate::machine::Parts;
use crate::settings::Wishes;
use crate::stack::record::Progress;
use crate::stack::{MachineRecord, Stack};
use crate::world::World;

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
        let all = all.caused_by(format!("{}\n{}", kmt_reporters::escape(subject), lines.join("\n")));
        match &error.hint {
            Some(hint) => all.hint(hint),
            None => all,
        }
    })
}

/// Where `--override-agent` looks for what it replaces.
const EMBEDDED: &str = "/opt/datadog-agent/embedded/bin";

/// Builds for every architecture that is wanted, then ships and installs in the machines of the stack that are up.
///
/// # Errors
/// What does not compile, or cannot be shipped or installed. One architecture that fails does not keep others.
pub(super) async fn build(args: &cli::Build, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    let source = source::resolve_for_build(&args.selection, wishes).await?;
    let world = open(&source.settings);
    let layout = args.layout.as_deref().map(BuildLayout::read).transpose()?;
    if let Some(layout) = &layout {
        layout.files(&source.settings.root.value)?;
    }
    let builder = world.builder(source.component.builder);
    let cache = source.settings.home.cache().join("build");
    let (mut built, mut failures) = (BTreeMap::new(), Vec::new());
    for Job { request, units, .. } in jobs::jobs(builder.as_ref(), &args.selection, &source).await? {
        match artifact::build(&request, &units, builder.as_ref(), &cache, &Told, &Log::nowhere()).await {
            Ok(artifacts) => drop(built.insert(request.arch, artifacts)),
            Err(failure) => failures.push(failed(&failure)),
        }
    }
    if !args.compile_only {
        let install = Install { layout, source: &source, world: &world, replace: args.override_agent };
        install.everywhere(&args.selection, &built).await?;
    }
    failures
        .into_iter()
        .reduce(|all, next| next.causes.into_iter().fold(all, Failure::caused_by))
        .map_or(Ok(0), Err)
}

/// How what was built gets into machines.
struct Install<'a> {
    layout: Option<BuildLayout>,
    source: &'a Source,
    world: &'a World,
    /// Put the programs over those of an installed agent.
    replace: bool,
}

impl Install<'_> {
    async fn everywhere(&self, selection: &Selection, built: &BTreeMap<Arch, ArtifactSet>) -> Result<()> {
        let source = self.source;
        let folder = Stack::folder_of(&source.settings.home, &source.stack, &source.settings.root.value);
        if !Stack::is_at(&folder) {
            say(&format!("{:>12} stack `{}` has no machines to ship to", "Note", source.stack));
            return Ok(());
        }
        let stack = Stack::open(&folder)?;
        let named = |machine: &MachineRecord| {
            selection.vms.is_empty() || source.cells.iter().any(|(cell, _)| cell.id == machine.cell)
        };
        let machines = stack.record()?.machines.into_values();
        for machine in machines.filter(|machine| machine.progress == Progress::Ready).filter(named) {
            if let Some(artifacts) = built.get(&machine.cell.arch) {
                self.machine(&stack, &machine, artifacts).await?;
            }
        }
        Ok(())
    }

    async fn machine(&self, stack: &Stack, machine: &MachineRecord, artifacts: &ArtifactSet) -> Result<()> {
        let Some(_lease) = stack.lease(&machine.id)? else {
            say(&format!("{:>12} {} is in use by another kmt-run", "Skipped", machine.id));
            return Ok(());
        };
        let route = Parts::route_of(stack, machine);
        let connection =
            tokio::time::timeout(self.world.deadlines.ready, self.world.transport.connect(&route))
                .await
                .map_err(|_| {
                Failure::new(Kind::Infrastructure, format!("machine `{}` does not answer", machine.id))
            })??;
        let done = self.guest(machine, connection.as_ref(), artifacts).await;
        connection.close().await;
        done
    }

    async fn guest(
        &self,
        machine: &MachineRecord,
        guest: &dyn Connection,
        artifacts: &ArtifactSet,
    ) -> Result<()> {
        let prefix = guest.prefix();
        let layout = format!("{prefix}{}", self.source.component.layout_of(&self.source.component_name));
        let mut store = artifact::Store::below(&format!("{prefix}/var/lib/kmt"), &layout);
        store.link = artifact::Link::to(machine.host.as_deref());
        let report = artifact::ship(artifacts, guest, &store).await?;
        say(&format!("{:>12} {}: {} bytes, {} files", "Shipped", machine.id, report.bytes, report.files));
        if let Some(layout) = &self.layout {
            layout.apply(&self.source.settings.root.value, guest).await?;
            say(&format!("{:>12} {}: the build layout", "Installed", machine.id));
        }
        for program in
            artifacts.files.iter().filter(|file| file.dest.starts_with("bin/")).filter(|_| self.replace)
        {
            let to = format!("{EMBEDDED}/{}", program.dest.trim_start_matches("bin/"));
            if !guest.run(&["test", "-f", &format!("{prefix}{to}")], Vec::new()).await?.ok() {
                let message = format!("machine `{}` has no `{to}` to replace", machine.id);
                return Err(Failure::new(Kind::Infrastructure, message)
                    .hint("install the agent first, or leave out `--override-agent`"));
            }
            artifact::install::put(guest, &program.source, &to).await?;
            say(&format!("{:>12} {}: {to}", "Replaced", machine.id));
        }
        Ok(())
    }
}
