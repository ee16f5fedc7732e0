//! THE main path: from what was typed to an exit code.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kmt_reporters::event::{Event, EventSink, PlannedShard, RunEnd};
use tokio::sync::watch;

use super::hire::{self, Hiring, Needed};
use super::jobs::{self, Job};
use super::remotes::{self, Remotes};
use super::source::{self, Source};
use super::{Open, chosen, in_job, keys, preflight, reports, signals};
use crate::artifact::{self, Log};
use crate::cli;
use crate::error::Result;
use crate::external::builder::Builder;
use crate::external::hypervisor::{GuestNetwork, HostFacts};
use crate::image::{ImageStore, SharedImages};
use crate::known::Known;
use crate::machine::seats::Seats;
use crate::machine::supply::{Debugging, Machines, Supply};
use crate::machine::warm::{Templates, Unbegun};
use crate::plan::{self, Plan};
use crate::record::{Record, history};
use crate::run::brake::Brake;
use crate::run::conduct::{Built, Conductor};
use crate::run::groups::Groups;
use crate::settings::profile::FlakyResult;
use crate::settings::{Rules, Wishes};
use crate::stack::Stack;
use crate::stack::record::Owner;
use crate::world::World;

/// Runs a matrix.
///
/// # Errors
/// Whatever keeps it from starting. Once it has started, failures are facts in the record.
pub(super) async fn run(args: &cli::Run, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    let mut source = source::resolve(&args.selection, wishes).await?;
    let world = open(&source.settings);
    let (mut tests, junit) = (preflight::tests(args, &source)?, preflight::junit(args, &source)?);
    let builder = world.builder(source.component.builder);
    let jobs = jobs::wanted(args, builder.as_ref(), &source);
    let (jobs, host) = tokio::try_join!(jobs, preflight::host(&source.settings, &world))?;
    tests.limits = preflight::limits(args, &source, &jobs);
    let images = images(&source, &world);
    let plan = plan_of(&mut source, &jobs, &args.selection)?;
    chosen::narrow(&mut tests, args, &source, &plan)?;
    let (remotes, cells, needed) = where_it_can_run(args, &source, &world, &images).await?;
    let stack = Stack::open_or_create(&source.settings.home, &source.stack, &source.settings.root.value)?;

    let (masks, job) = (preflight::masks(args), source.settings.job()?);
    let show = |folder: &Path| reports::show(args, &masks, folder, job.as_ref());
    let record = Arc::new(Record::create(&source.settings.home, &masks, show)?);
    job.iter().try_for_each(|job| in_job::begin(job, record.folder()))?;
    let (cancel, cancelled) = signals::listen(record.clone() as Arc<dyn EventSink>);
    let _keyboard = keys::listen(&record, &stack, cancel, reports::watched(args, job.as_ref()));
    begin(&record, &source, (&host, &remotes), &plan, &cells, &tests.known);
    let (brake, stop) = brake(&record, &tests.rules, &cancelled);
    let (done, built) = watch::channel(Built::new());
    let (all_here, arrived) = watch::channel(needed.is_none());
    let hiring = Hiring { needed, world: &world, stack: &stack, sink: record.as_ref() };
    let seats = remotes::seats(&world, &stack, &host, remotes, &cells.all(), args.oversubscribe).await?;
    let supply = supply(args, &source, (&world, &stack), seats, &record, stop.clone())?;
    let conductor = Conductor {
        world: &world,
        supply,
        images: SharedImages::new(&images, cells.runnable.iter().map(|(_, image)| image)),
        plan: &plan,
        tests,
        record: &record,
        built,
        cancelled: cancelled.clone(),
        groups: Groups::new(&source.settings.config.group),
        brake: &brake,
        stop: stop.clone(),
        arrived,
    };
    let building = build_all(&jobs, builder.as_ref(), &source, &record, &stop, &done);
    let reports = reports::Reports { record: &record, junit: &junit, masks: &masks, job: job.as_ref() };
    let (seats, all) = (&conductor.supply.seats, cells.all());
    let working = async {
        let bringing = hiring.bring(seats, &all, args.oversubscribe, &all_here, stop.clone());
        let conducting = conductor.supply.beside(conductor.conduct(&cells.runnable), Unbegun::Leave);
        let (leases, ..) = tokio::join!(bringing, building, conducting);
        hiring.give_back(leases).await;
    };
    reports.at_the_latest(working, cancelled.clone()).await;
    end(args, &world, &record, &stack, &cancelled).await;
    reports.close()?;
    Ok(record.with_run(kmt_reporters::model::Run::exit_code))
}

/// What gives the run its machines.
fn supply<'a>(
    args: &cli::Run,
    source: &'a Source,
    (world, stack): (&'a World, &'a Stack),
    seats: Seats,
    record: &'a Record,
    stop: watch::Receiver<bool>,
) -> Result<Supply<'a>> {
    Ok(Supply {
        world,
        home: &source.settings.home,
        stack,
        seats,
        templates: Templates::of(&source.settings.home, world.warmth),
        network: network(source, &args.selection, stack)?,
        machines: if args.fresh { Machines::Fresh } else { Machines::Reuse },
        debugging: Debugging::Off,
        owner: if args.throw_away { Owner::ThrowAway } else { Owner::Run },
        sink: record,
        consoles: record.folder().join("machines"),
        cancelled: stop,
    })
}

/// The remote hosts that answer, the cells that have an image and a host, and what is rented for them.
async fn where_it_can_run<'a>(
    args: &cli::Run,
    source: &'a Source,
    world: &'a World,
    images: &ImageStore,
) -> Result<(Remotes, preflight::Cells, Option<Needed<'a>>)> {
    let folder = Stack::folder_of(&source.settings.home, &source.stack, &source.settings.root.value);
    let stack = Stack::is_at(&folder).then(|| Stack::open(&folder)).transpose()?;
    let ids = source.cells.iter().map(|(cell, _)| &cell.id);
    let mut remotes = remotes::ask(&source.settings, world, stack.as_ref(), ids).await?;
    let asked = source.cells.iter().map(|(cell, _)| cell);
    let needed = hire::needed(asked, &remotes, &source.settings, world).await?;
    if let Some(needed) = &needed {
        needed.preflight(args.yes).await?;
        remotes.coming = needed.archs();
    }
    let cells = preflight::images(args, source, images, &remotes)?;
    Ok((remotes, cells, needed))
}

/// What the guests' network reaches: where the stack is the source, what it is configured to.
fn network(source: &Source, selection: &cli::Selection, stack: &Stack) -> Result<GuestNetwork> {
    let own = source.matrix.network;
    let of_file = selection.has_file() || own != GuestNetwork::Closed;
    let network = if of_file { own } else { stack.record()?.spec.network };
    preflight::network(&source.settings, network).map(|()| network)
}

fn images(source: &Source, world: &World) -> ImageStore {
    let home = &source.settings.home;
    ImageStore::new(home.images(), home.cache(), world.debian.clone(), world.store.clone())
}

/// What machines that are thrown away were in goes with them.
async fn drop_network(stack: &Stack, world: &World, record: &Record) {
    if let Err(failure) = stack.drop_unused_network(&world.hosts).await {
        record.emit(Event::Warning { subject: stack.name.clone(), message: failure.one_line() });
    }
}

/// The last facts: which machines stay, and why the run ended.
async fn end(
    args: &cli::Run,
    world: &World,
    record: &Record,
    stack: &Stack,
    cancelled: &watch::Receiver<bool>,
) {
    if args.throw_away {
        drop_network(stack, world, record).await;
    }
    if let Ok(kept) = stack.record()
        && !kept.machines.is_empty()
    {
        record.emit(Event::MachinesKept { machines: kept.machines.into_keys().collect() });
    }
    let why = if *cancelled.borrow() { RunEnd::Cancelled } else { RunEnd::Completed };
    record.emit(Event::RunFinished { why });
}

/// What a build came to: nothing where it failed, or where nobody wants it any more.
async fn until_cancelled<T, E>(
    build: impl Future<Output = std::result::Result<T, E>>,
    cancelled: &watch::Receiver<bool>,
) -> Option<T> {
    let mut cancelled = cancelled.clone();
    tokio::select! {
        built = build => built.ok(),
        _ = cancelled.wait_for(|stop| *stop) => None,
    }
}

/// How long ago something was.
fn ago(age: Duration) -> String {
    if age < Duration::from_secs(60) {
        return "less than a minute ago".to_owned();
    }
    format!("{} ago", kmt_reporters::roughly(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
}

/// Builds for one architecture after the other, and tells who waits what each came to.
async fn build_all(
    jobs: &[Job],
    builder: &dyn Builder,
    source: &Source,
    record: &Record,
    cancelled: &watch::Receiver<bool>,
    done: &watch::Sender<Built>,
) {
    let cache = source.settings.home.cache().join("build");
    for Job { request, units, made } in jobs {
        let artifacts = match made {
            Some((set, age)) => {
                let message =
                    format!("nothing is built: what is used for {} was built {}", request.arch, ago(*age));
                record.emit(Event::Warning { subject: "quick".to_owned(), message });
                Some(set.clone())
            }
            None => {
                let log = Log::at(&record.folder().join(format!("build/{}.log", request.arch)));
                let built = artifact::build(request, units, builder, &cache, record, &log);
                until_cancelled(built, cancelled).await
            }
        };
        done.send_modify(|all| drop(all.insert(request.arch, artifacts.map(Arc::new))));
    }
}

/// The work, in the order in which it is done. Cells in which nothing is wanted leave the source.
///
/// # Errors
/// Nothing is wanted in any.
pub(super) fn plan_of(source: &mut Source, jobs: &[Job], selection: &cli::Selection) -> Result<Plan> {
    let packages: Vec<String> = jobs::all_packages(jobs).into_iter().map(str::to_owned).collect();
    if selection.packages.is_empty() {
        chosen::no_empty_set(source, &packages)?;
    }
    let durations = history::durations(&source.settings.home.runs());
    let cells = source.cells.iter().map(|(cell, _)| cell);
    let mut plan = plan::make(cells, packages, &durations, &source.choice, &source.matrix.sets);
    jobs::only_where_built(&mut plan, jobs);
    if let Some(again) = &selection.again {
        plan.keep(|cell, package| again.wants(cell, package));
    }
    let mut wanted = plan.cells.iter().map(|(_, shards)| !shards.is_empty());
    source.cells.retain(|_| wanted.next().unwrap_or(false));
    plan.cells.retain(|(_, shards)| !shards.is_empty());
    if source.cells.is_empty() {
        return Err(source::nothing_selected(selection, &source.stack));
    }
    Ok(plan)
}

/// The first facts: who runs what where.
fn begin(
    record: &Record,
    source: &Source,
    (host, remotes): (&HostFacts, &Remotes),
    plan: &Plan,
    cells: &preflight::Cells,
    known: &Known,
) {
    record.emit(Event::RunStarted {
        run: record.id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: preflight::typed(),
        component: source.component_name.clone(),
        stack: source.stack.clone(),
        test_failure_exit_code: source.settings.test_failure_exit_code(),
        root: source.settings.root.value.display().to_string(),
        format: source.component.format.recorded().to_owned(),
    });
    for notice in source.notices.iter().chain(&host.notices) {
        record.emit(Event::Warning { subject: "notice".to_owned(), message: notice.clone() });
    }
    record.emit(Event::HostReady {
        host: "local".to_owned(),
        accelerator: host.acceleration.accelerator.as_str().to_owned(),
        notice: host.acceleration.notice.clone(),
    });
    remotes.tell(record);
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
    say_known(record, known, plan);
    for (cell, why) in &cells.unavailable {
        record.emit(Event::CellFailed {
            cell: cell.id.clone(),
            stage: "image".to_owned(),
            message: why.clone(),
        });
    }
}

/// What the repository says of the tests of each package that is planned.
fn say_known(record: &Record, known: &Known, plan: &Plan) {
    let packages: BTreeSet<&str> = plan.cells.iter().flat_map(|(_, shards)| plan.names(shards)).collect();
    packages.into_iter().filter_map(|package| known.of(package)).for_each(|event| record.emit(event));
}

/// What stops the run by its own rules, and what turns true when anything does. Rules that decide what the run comes to
/// are facts.
fn brake(
    record: &Record,
    rules: &Rules,
    cancelled: &watch::Receiver<bool>,
) -> (Brake, watch::Receiver<bool>) {
    let flaky_fails = rules.flaky_result == FlakyResult::Fail;
    let known_flaky_fails = rules.known_flaky_result == FlakyResult::Fail;
    if flaky_fails || known_flaky_fails {
        record.emit(Event::RulesGiven { flaky_fails, known_flaky_fails });
    }
    let brake = Brake::new(rules.max_fail);
    let stop = brake.or(cancelled.clone());
    (brake, stop)
}
