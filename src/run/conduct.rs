//! The dispatcher: one lane a cell, all at once within the host's room, one order of facts.
//!
//! Each lane goes its own way (image, machine, artifacts, packages) and a failure of one is a fact about
//! that cell only. What the lanes share is waited for where it is needed: an image by the cells that boot
//! it, the build by the guests that are ready for it.

mod shipping;
mod turns;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kmt_reporters::event::{Arch, Event, EventSink as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::brake::{Brake, Halt};
use super::container::Containers;
use super::filter::TestFilters;
use super::groups::Groups;
use super::lane::{Aftermath, Allowed, Lane, Listed, Watch};
use super::prepare::{self, Step};
use super::task::Task;
use super::words::PackageWords;
use super::work::Work;
use crate::artifact::{ArtifactSet, TestPackage};
use crate::error::{Failure, Kind};
use crate::external::{self, Class};
use crate::image::{ImageRequest, LocalImage, SharedImages};
use crate::known::{Known, Marks};
use crate::machine::console::{self, warn_unwritten};
use crate::machine::supply::{Condition, Held, Supply};
use crate::matrix::Cell;
use crate::plan::{self, Durations, Partition, Plan};
use crate::record::Record;
use crate::settings::Rules;
use crate::world::World;

/// What builds came to, by architecture: the artifacts, or nothing where one failed (the record says why).
pub type Built = BTreeMap<Arch, Option<Arc<ArtifactSet>>>;

/// How long the packages of a cell may take, where nobody has timed any.
const UNKNOWN: Duration = Duration::from_secs(60);

/// Longest time of a guest's preparation.
const PREPARATION: Duration = Duration::from_secs(600);

/// How the tests are run.
pub struct Tests {
    /// Folder of the component in the guest.
    pub layout: String,
    /// What each guest must be first.
    pub preparation: Vec<Step>,
    /// The containers that tests of cells run in.
    pub containers: Containers,
    /// Arguments and environment of the binaries.
    pub words: PackageWords,
    /// Which tests of each package.
    pub filters: TestFilters,
    /// `--count`.
    pub count: u32,
    /// Longest time of each package.
    pub limits: BTreeMap<String, Duration>,
    /// Machines of each cell.
    pub machines: u32,
    /// The part of the tests that is run.
    pub partition: Option<Partition>,
    /// How long tests took before.
    pub durations: Durations,
    /// How long what passes is done again.
    pub stress: Option<Duration>,
    /// What is slow, stuck, tried again.
    pub rules: Rules,
    /// Complaints of the kernel that are allowed.
    pub allowed: Vec<Allowed>,
    /// By which words a test says that it is known to be flaky.
    pub marks: Arc<Marks>,
    /// What the repository says of tests before they run.
    pub known: Known,
}

/// Everything a run needs, resolved.
pub struct Conductor<'a> {
    /// The doors.
    pub world: &'a World,
    /// Gives the machines, which outlive the run.
    pub supply: Supply<'a>,
    /// Images, each made once.
    pub images: SharedImages<'a>,
    /// Which packages run in which cell, in which order.
    pub plan: &'a Plan,
    /// The tests.
    pub tests: Tests,
    /// Takes the facts.
    pub record: &'a Record,
    /// The builds that are done.
    pub built: watch::Receiver<Built>,
    /// Turns true when the run is cancelled.
    pub cancelled: watch::Receiver<bool>,
    /// Packages that must not run at the same time.
    pub groups: Groups,
    /// Stops the run by its own rules.
    pub brake: &'a Brake,
    /// Turns true when the run is cancelled, or stops by its own rules.
    pub stop: watch::Receiver<bool>,
    /// Turns true once no more hosts come.
    pub arrived: watch::Receiver<bool>,
}

/// Where tests run in a guest.
struct Place {
    /// Folder of the component, with prefix.
    root: String,
    /// What scripts of the preparation export.
    exported: Vec<(String, String)>,
}

/// What comes before the tests.
enum Stage {
    Ship,
    Prepare,
}

/// What a machine has done for its cell.
struct Served {
    aftermath: Aftermath,
    /// Whether another machine has a chance with what is left.
    goes_on: bool,
}

impl Conductor<'_> {
    /// Runs every cell to an end, within the time of the run.
    pub async fn conduct(&self, cells: &[(Cell, ImageRequest)]) {
        let turns = self.turns(cells).into_iter();
        let lanes = turns.map(|(turn, (cell, image))| self.cell(cell, image, turn));
        let lanes = futures_util::future::join_all(lanes);
        tokio::pin!(lanes);
        if let Some(limit) = self.tests.rules.global_timeout {
            tokio::select! {
                _ = &mut lanes => return,
                () = tokio::time::sleep(limit) => {
                    let reason = format!("its time of {} s is over", limit.as_secs_f64());
                    self.brake.halt(Halt::OutOfTime, &reason, self.record);
                }
            }
        }
        lanes.await;
    }

    fn failed(&self, cell: &Cell, stage: &str, failure: &Failure) {
        let message = failure.one_line();
        self.record.emit(Event::CellFailed { cell: cell.id.clone(), stage: stage.to_owned(), message });
    }

    async fn cell(&self, cell: &Cell, request: &ImageRequest, turn: u32) {
        let mut stop = self.stop.clone();
        let image = tokio::select! {
            image = self.images.get(request, self.record) => image,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let image = match image {
            Ok(image) => image,
            Err(failure) => return self.failed(cell, "image", &failure),
        };
        let mut arrived = self.arrived.clone();
        if self.supply.seats.of_cell(&cell.id).is_err() {
            tokio::select! {
                _ = arrived.wait_for(|all| *all) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
        let stress = self.tests.stress.map(|time| Instant::now() + time);
        let work = Work::new(self.tasks_of(cell), self.tests.rules.retries, self.groups.clone(), stress);
        let lanes =
            (0..self.tests.machines.max(1)).map(|number| self.lane(cell, &image, &work, (number, turn)));
        futures_util::future::join_all(lanes).await;
    }

    /// One machine after another, until the work of the cell is over.
    async fn lane(&self, cell: &Cell, image: &LocalImage, work: &Work, (number, turn): (u32, u32)) {
        let mut left = self.tests.rules.retries.infrastructure;
        while !work.is_over() && !self.stopped() {
            let held = match self.supply.machine(cell, image, turn).await {
                Ok(Some(held)) => held,
                Ok(None) => return,
                Err(failure) if number > 0 => {
                    let message = format!("{} machines instead of more: {}", number, failure.one_line());
                    return self.record.emit(Event::Warning { subject: cell.id.to_string(), message });
                }
                Err(failure) => return self.failed(cell, "host", &failure),
            };
            if number > 0 && work.is_over() {
                return self.leave(held, Aftermath::Healthy).await;
            }
            let served = self.serve(cell, &held, work, &mut left).await;
            self.leave(held, served.aftermath).await;
            if !served.goes_on {
                return;
            }
        }
    }

    fn tasks_of(&self, cell: &Cell) -> Vec<Task> {
        let planned = self.plan.cells.iter().find(|(id, _)| *id == cell.id);
        let shards = planned.map(|(_, shards)| shards.as_slice()).unwrap_or_default();
        let names = self.plan.names(shards);
        names.zip(shards).map(|(package, shard)| Task::whole(package, shard.expected)).collect()
    }

    /// How long the packages of a cell took before, all of them one after another.
    fn expected(&self, cell: &Cell) -> Option<Duration> {
        let (_, shards) = self.plan.cells.iter().find(|(id, _)| *id == cell.id)?;
        shards.iter().map(|shard| shard.expected).sum()
    }

    fn stopped(&self) -> bool {
        *self.cancelled.borrow() || self.brake.is_on()
    }

    /// Artifacts, then the work of the cell as far as this machine gets. So many machines are `left` to take the place of
    /// those that are lost before that.
    async fn serve(&self, cell: &Cell, held: &Held, work: &Work, left: &mut u32) -> Served {
        let (mut built, mut stop) = (self.built.clone(), self.stop.clone());
        let ends = |aftermath| Served { aftermath, goes_on: false };
        let artifacts = tokio::select! {
            built = built.wait_for(|all| all.contains_key(&cell.id.arch)) => {
                built.ok().and_then(|all| all.get(&cell.id.arch).cloned().flatten())
            }
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let Some(artifacts) = artifacts else { return ends(Aftermath::Healthy) };
        let Ok(seat) = self.supply.seats.of_machine(&held.record) else { return ends(Aftermath::Lost) };
        let Some(_processors) = seat.capacity.processors(cell.vcpu).await else {
            return ends(Aftermath::Healthy);
        };
        let root = format!("{}{}", held.guest.connection.prefix(), self.tests.layout);
        let shipped = tokio::select! {
            shipped = self.ship(cell, held, &artifacts, &root) => shipped,
            // What was sent so far is not published: the guest is as before.
            _ = stop.wait_for(|stop| *stop) => return ends(Aftermath::Healthy),
        };
        if let Err(error) = shipped {
            return self.not_ready(cell, held, Stage::Ship, error, left);
        }
        let prepared = tokio::select! {
            prepared = self.prepare(cell, held, &root) => prepared,
            _ = stop.wait_for(|stop| *stop) => return ends(Aftermath::Doubtful),
        };
        let exported = match prepared {
            Ok(Some(exported)) => exported,
            Ok(None) => return ends(Aftermath::Doubtful),
            Err(error) => return self.not_ready(cell, held, Stage::Prepare, error, left),
        };
        let place = Place { root, exported };
        Served { aftermath: self.tasks(held, &artifacts.packages, place, work).await, goes_on: true }
    }

    /// What follows from a machine that could not be made ready: where it was lost, another takes its place.
    fn not_ready(
        &self,
        cell: &Cell,
        held: &Held,
        stage: Stage,
        error: external::Error,
        left: &mut u32,
    ) -> Served {
        let lost = error.class == Class::Unreachable;
        let failure = Failure::from(error);
        if lost && *left > 0 && !self.stopped() {
            *left -= 1;
            let message = format!("another machine takes its place: {}", failure.one_line());
            self.record.emit(Event::Warning { subject: held.record.id.clone(), message });
            return Served { aftermath: Aftermath::Lost, goes_on: true };
        }
        match stage {
            Stage::Ship => self.record.emit(Event::ShipFailed {
                machine: held.record.id.clone(),
                cell: cell.id.clone(),
                message: failure.one_line(),
            }),
            Stage::Prepare => self.failed(cell, "prepare", &failure),
        }
        Served { aftermath: Aftermath::Doubtful, goes_on: false }
    }

    /// Makes the guest what the component wants it to be; what its scripts export where it is. `None` where it is not, as a
    /// fact says.
    async fn prepare(
        &self,
        cell: &Cell,
        held: &Held,
        root: &str,
    ) -> external::Result<Option<Vec<(String, String)>>> {
        let steps: Vec<Step> =
            self.tests.preparation.iter().chain(self.tests.containers.steps.get(&cell.id)).cloned().collect();
        if steps.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let preparing = prepare::prepare(&steps, cell.id.arch, held.guest.connection.as_ref(), root);
        let failure = match timeout(PREPARATION, preparing).await {
            Ok(Ok(prepared)) => {
                let (machine, last) =
                    (held.record.id.clone(), prepared.steps.last().map(|step| step.name.clone()));
                let (steps, failed) = (prepared.steps, prepared.failed.clone());
                self.record.emit(Event::GuestPrepared { machine, cell: cell.id.clone(), steps, failed });
                let Some(why) = prepared.failed else { return Ok(Some(prepared.env)) };
                Failure::new(Kind::Infrastructure, format!("`{}`", last.unwrap_or_default())).caused_by(why)
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => Failure::new(Kind::Infrastructure, format!("not done in {} s", PREPARATION.as_secs())),
        };
        self.failed(cell, "prepare", &failure);
        Ok(None)
    }

    /// One task after another, until all is over or the machine cannot be trusted any more, its kernel watched.
    async fn tasks(&self, held: &Held, packages: &[TestPackage], place: Place, work: &Work) -> Aftermath {
        let rules = &self.tests.rules;
        let hypervisor = match self.supply.seats.of_machine(&held.record) {
            Ok(seat) => seat.hypervisor.as_ref(),
            Err(_) => return Aftermath::Lost,
        };
        let lane = Lane {
            guest: &held.guest,
            root: place.root,
            exported: place.exported,
            words: &self.tests.words,
            container: self.tests.containers.engine_of(&held.guest.cell),
            filters: &self.tests.filters,
            count: self.tests.count,
            watch: Watch { slow: rules.slow, test: rules.test_timeout, silence: rules.no_output_timeout },
            work,
            brake: self.brake,
            record: self.record,
            hypervisor,
            deadlines: self.world.deadlines,
            cancelled: self.cancelled.clone(),
            allowed: &self.tests.allowed,
            marks: &self.tests.marks,
            timeline: Mutex::default(),
            tainted: AtomicBool::new(false),
            starved: Mutex::default(),
        };
        let (done, left) = watch::channel(None);
        let working = async {
            let aftermath = self.one_after_another(&lane, packages, work).await;
            done.send_replace(Some(aftermath));
            aftermath
        };
        let (aftermath, ()) = tokio::join!(working, lane.watch_kernel(left));
        match aftermath {
            // It may have complained after the last test ended.
            Aftermath::Healthy if lane.tainted.load(Ordering::Relaxed) => Aftermath::Doubtful,
            aftermath => aftermath,
        }
    }

    async fn one_after_another(&self, lane: &Lane<'_>, packages: &[TestPackage], work: &Work) -> Aftermath {
        if (self.tests.machines > 1 || self.tests.partition.is_some())
            && work.split(async |whole| self.split(lane, packages, whole).await).await.is_err()
        {
            return Aftermath::Lost;
        }
        let mut stop = self.stop.clone();
        while !self.stopped() {
            let next = tokio::select! {
                next = work.next() => next,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            let Some(taken) = next else { break };
            let (task, number) = (&taken.task, taken.number);
            let Some(package) = packages.iter().find(|package| package.name == task.package) else {
                work.dropped();
                continue;
            };
            let limit = self.tests.limits.get(&package.name).copied().unwrap_or(Duration::from_secs(600));
            match lane.execute(task, number, package, limit).await {
                Aftermath::Healthy => {}
                worse => return worse,
            }
        }
        Aftermath::Healthy
    }

    /// Asks each package for its tests, takes those of this part, and splits them for the machines of the cell. A package
    /// that does not list its tests stays whole.
    ///
    /// # Errors
    /// The machine does not answer.
    async fn split(
        &self,
        lane: &Lane<'_>,
        packages: &[TestPackage],
        whole: Vec<Task>,
    ) -> std::result::Result<Vec<Task>, ()> {
        let cell = &lane.guest.cell;
        let (mut tasks, mut listed) = (Vec::new(), Vec::new());
        for task in whole {
            let Some(package) = packages.iter().find(|package| package.name == task.package) else {
                continue;
            };
            let tests = match lane.list(package).await {
                Listed::Tests(tests) => tests,
                Listed::Refused => {
                    // It cannot be taken apart: the whole of it belongs to one part.
                    let whole = vec![package.name.clone()];
                    let ours =
                        self.tests.partition.is_none_or(|p| !p.of(cell, &package.name, whole).is_empty());
                    match ours {
                        true => tasks.push(task),
                        false => lane.tell_tests(&package.name, Vec::new()),
                    }
                    continue;
                }
                Listed::Unanswered => return Err(()),
            };
            let tests = match &self.tests.partition {
                Some(partition) => partition.of(cell, &package.name, tests),
                None => tests,
            };
            lane.tell_tests(&package.name, tests.clone());
            listed.push((task.package, tests));
        }
        let known = |package: &str, test: &str| self.tests.durations.of_test(cell, package, test);
        for part in plan::split(listed, known, self.tests.machines) {
            let expected = Some(part.expected);
            tasks.extend(
                Task::parts(&part.package, part.tests).into_iter().map(|task| Task { expected, ..task }),
            );
        }
        Ok(tasks)
    }

    /// Collects what the machine leaves, then lets it stay or takes it away.
    async fn leave(&self, held: Held, aftermath: Aftermath) {
        if aftermath != Aftermath::Lost && !*self.cancelled.borrow() {
            self.keep_kernel_log(&held).await;
        }
        held.guest.connection.close().await;
        let id = &held.record.id;
        console::keep(&held.guest.console, &self.supply.consoles.join(id), id, self.record);
        let good = aftermath == Aftermath::Healthy;
        self.supply.leave(held, if good { Condition::Good } else { Condition::Doubtful }).await;
    }

    async fn keep_kernel_log(&self, held: &Held) {
        let asked =
            timeout(self.world.deadlines.last_words, held.guest.connection.run(&["dmesg"], Vec::new())).await;
        if let (Ok(Ok(output)), Ok(folder)) = (asked, self.record.machine_folder(&held.record.id)) {
            let written = std::fs::write(folder.join("dmesg.log"), output.stdout);
            warn_unwritten(written, &held.record.id, self.record);
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
