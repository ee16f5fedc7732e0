//! THE main path: from what was typed to an exit code.

use std::collections::BTreeMap;
use std::sync::Arc;

use kmt_reporters::event::{Event, EventSink as _, PlannedShard, RunEnd};
use tokio::sync::{OnceCell, watch};

use super::source::{self, Source};
use super::{Open, build, preflight, reports, signals};
use crate::artifact;
use crate::cli;
use crate::error::Result;
use crate::external::builder::Unit;
use crate::external::hypervisor::HostFacts;
use crate::image::ImageStore;
use crate::plan::{self, Plan};
use crate::record::{Record, history};
use crate::run::capacity::Capacity;
use crate::run::conduct::{Afterwards, Built, Conductor, Machines};
use crate::settings::Wishes;
use crate::stack::record::Progress;
use crate::stack::{self, Stack};

/// Runs a matrix.
///
/// # Errors
/// Whatever keeps it from starting. Once it has started, failures are facts in the record.
pub(super) async fn run(args: &cli::Run, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    let mut source = source::resolve(&args.selection, wishes).await?;
    let world = open(&source.settings);
    let mut tests = preflight::tests(args, &source)?;
    let junit = preflight::junit(args, &source)?;
    let builder = world.builder(source.component.builder);
    let request = build::request(&args.selection, &source)?;
    let (units, host) = tokio::join!(preflight::units(builder.as_ref(), &request, &source), async {
        // What a killed run left takes room: it goes before anybody counts.
        stack::sweep(&source.settings.home, world.hypervisor.as_ref()).await?;
        preflight::host(&source, &world).await
    },);
    let (units, host) = (units?, host?);
    tests.limits = preflight::limits(args, &source, &units);
    let images =
        ImageStore::new(source.settings.home.images(), source.settings.home.cache(), world.debian.clone());
    let plan = plan_of(&mut source, &units, &args.selection)?;
    preflight::tests_of_expression(&mut tests, &source, &plan)?;
    let cells = preflight::images(args, &source, &images)?;
    let stack = Stack::open_or_create(&source.settings.home, &source.stack, &source.settings.root.value)?;

    let masks = preflight::masks(args);
    let record = Arc::new(Record::create(&source.settings.home, &masks, |folder| {
        reports::show(args, &masks, folder)
    })?);
    let cancelled = signals::listen(record.clone());
    begin(&record, &source, &host, &plan, &cells);
    let (done, built) = watch::channel::<Option<Built>>(None);
    let conductor = Conductor {
        world: &world,
        home: &source.settings.home,
        stack: &stack,
        capacity: capacity(&host, &stack)?,
        host: &host,
        images: &images,
        ready_images: cells.runnable.iter().map(|(_, image)| (image.to_string(), OnceCell::new())).collect(),
        network: source.matrix.network,
        machines: if args.fresh { Machines::Fresh } else { Machines::Reuse },
        afterwards: if args.throw_away { Afterwards::ThrowAway } else { Afterwards::Keep },
        plan: &plan,
        tests,
        record: &record,
        built,
        cancelled: cancelled.clone(),
    };
    let building = async {
        let cache = source.settings.home.cache().join("build");
        let mut cancelled = cancelled.clone();
        let artifacts = tokio::select! {
            built = artifact::build(&request, &units, builder.as_ref(), &cache, record.as_ref()) => built.ok(),
            _ = cancelled.wait_for(|stop| *stop) => None,
        };
        // Nobody waits any more where every lane has ended.
        let _ = done.send(Some(artifacts.map(Arc::new)));
    };
    let reports = reports::Reports { record: &record, junit: &junit, masks: &masks };
    let working = async { tokio::join!(building, conductor.conduct(&cells.runnable)) };
    reports.at_the_latest(working, cancelled.clone()).await;
    let why = if *cancelled.borrow() { RunEnd::Cancelled } else { RunEnd::Completed };
    if let Ok(kept) = stack.record()
        && !kept.machines.is_empty()
    {
        record.emit(Event::MachinesKept { machines: kept.machines.into_keys().collect() });
    }
    record.emit(Event::RunFinished { why });
    reports.write()?;
    reports.farewell();
    Ok(record.with_run(kmt_reporters::model::Run::exit_code))
}

/// The work, in the order in which it is done. Cells in which nothing is wanted leave the source.
///
/// # Errors
/// Nothing is wanted in any.
pub(super) fn plan_of(source: &mut Source, units: &[Unit], selection: &cli::Selection) -> Result<Plan> {
    let packages = build::test_packages(units).into_iter().map(str::to_owned).collect();
    let durations = history::durations(&source.settings.home.runs());
    let cells = source.cells.iter().map(|(cell, _)| cell);
    let mut plan = plan::make(cells, packages, &durations, &source.choice);
    let mut wanted = plan.cells.iter().map(|(_, shards)| !shards.is_empty());
    source.cells.retain(|_| wanted.next().unwrap_or(false));
    plan.cells.retain(|(_, shards)| !shards.is_empty());
    if source.cells.is_empty() {
        return Err(source::nothing_selected(selection, &source.stack));
    }
    Ok(plan)
}

/// The first facts: who runs what where.
fn begin(record: &Record, source: &Source, host: &HostFacts, plan: &Plan, cells: &preflight::Cells) {
    record.emit(Event::RunStarted {
        run: record.id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: preflight::typed(),
        component: source.component_name.clone(),
        stack: source.stack.clone(),
        test_failure_exit_code: source.settings.test_failure_exit_code(),
        root: source.settings.root.value.display().to_string(),
    });
    for notice in source.notices.iter().chain(&host.notices) {
        record.emit(Event::Warning { subject: "notice".to_owned(), message: notice.clone() });
    }
    record.emit(Event::HostReady {
        host: "local".to_owned(),
        accelerator: host.acceleration.accelerator.as_str().to_owned(),
        notice: host.acceleration.notice.clone(),
    });
    for (cell, _) in &source.cells {
        record.emit(Event::CellSelected {
            cell: cell.id.clone(),
            distro: cell.distro.clone(),
            distro_version: cell.distro_version.clone(),
        });
    }
    let shards = plan.cells.iter().flat_map(|(cell, shards)| {
        plan.names(shards).map(|package| PlannedShard { cell: cell.clone(), package: package.to_owned() })
    });
    let shards = shards.collect();
    record.emit(Event::PlanMade { shards });
    for (cell, why) in &cells.unavailable {
        record.emit(Event::CellFailed {
            cell: cell.id.clone(),
            stage: "image".to_owned(),
            message: why.clone(),
        });
    }
}

/// Room on the host, with the stack's idle machines known.
fn capacity(host: &HostFacts, stack: &Stack) -> Result<Capacity> {
    let capacity = Capacity::new(host.cores, host.memory_mib);
    let machines: BTreeMap<_, _> = stack.record()?.machines;
    for machine in machines.values().filter(|m| m.progress == Progress::Ready) {
        if stack.lease(&machine.id)?.is_some() {
            capacity.add_idle(&machine.id, machine.memory_mib);
        }
    }
    Ok(capacity)
}
