//! The dispatcher: one lane a cell, all at once within the host's room, one order of facts.
//!
//! Each lane goes its own way (image, machine, artifacts, packages) and a failure of one is a fact about
//! that cell only. What the lanes share is waited for where it is needed: an image by the cells that boot
//! it, the build by the guests that are ready for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kmt_reporters::event::{Arch, Event, EventSink as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::filter::TestFilters;
use super::lane::{Aftermath, Lane};
use super::prepare::{self, Step};
use super::words::PackageWords;
use crate::artifact::{self, ArtifactSet, Store, TestPackage};
use crate::error::{Failure, Kind};
use crate::image::{ImageRequest, SharedImages};
use crate::machine::console::{self, warn_unwritten};
use crate::machine::supply::{Condition, Held, Supply};
use crate::matrix::Cell;
use crate::plan::Plan;
use crate::record::Record;
use crate::world::World;

/// What builds came to, by architecture: the artifacts, or nothing where one failed (the record says why).
pub type Built = BTreeMap<Arch, Option<Arc<ArtifactSet>>>;

/// Longest time of a guest's preparation.
const PREPARATION: Duration = Duration::from_secs(600);

/// How the tests are run.
pub struct Tests {
    /// Folder of the component in the guest.
    pub layout: String,
    /// What each guest must be first.
    pub preparation: Vec<Step>,
    /// Arguments and environment of the binaries.
    pub words: PackageWords,
    /// Which tests of each package.
    pub filters: TestFilters,
    /// `--count`.
    pub count: u32,
    /// Longest time of each package.
    pub limits: BTreeMap<String, Duration>,
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
}

impl Conductor<'_> {
    /// Runs every cell to an end.
    pub async fn conduct(&self, cells: &[(Cell, ImageRequest)]) {
        let lanes = cells.iter().map(|(cell, image)| self.cell(cell, image));
        futures_util::future::join_all(lanes).await;
    }

    fn failed(&self, cell: &Cell, stage: &str, failure: &Failure) {
        let message = failure.one_line();
        self.record.emit(Event::CellFailed { cell: cell.id.clone(), stage: stage.to_owned(), message });
    }

    async fn cell(&self, cell: &Cell, request: &ImageRequest) {
        let mut cancelled = self.cancelled.clone();
        let image = tokio::select! {
            image = self.images.get(request, self.record) => image,
            _ = cancelled.wait_for(|stop| *stop) => return,
        };
        let image = match image {
            Ok(image) => image,
            Err(failure) => return self.failed(cell, "image", &failure),
        };
        let held = match self.supply.machine(cell, &image).await {
            Ok(Some(held)) => held,
            Ok(None) => return,
            Err(failure) => return self.failed(cell, "host", &failure),
        };
        let aftermath = self.work(cell, &held).await;
        self.leave(held, aftermath).await;
    }

    /// Artifacts, then every package.
    async fn work(&self, cell: &Cell, held: &Held) -> Aftermath {
        let mut built = self.built.clone();
        let mut cancelled = self.cancelled.clone();
        let artifacts = tokio::select! {
            built = built.wait_for(|all| all.contains_key(&cell.id.arch)) => {
                built.ok().and_then(|all| all.get(&cell.id.arch).cloned().flatten())
            }
            _ = cancelled.wait_for(|stop| *stop) => None,
        };
        let Some(artifacts) = artifacts else { return Aftermath::Healthy };
        let Some(_processors) = self.supply.capacity.processors(cell.vcpu).await else {
            return Aftermath::Healthy;
        };
        let root = format!("{}{}", held.guest.connection.prefix(), self.tests.layout);
        let shipped = tokio::select! {
            shipped = self.ship(cell, held, &artifacts, &root) => shipped,
            // What was sent so far is not published: the guest is as before.
            _ = cancelled.wait_for(|stop| *stop) => return Aftermath::Healthy,
        };
        if !shipped {
            return Aftermath::Doubtful;
        }
        let prepared = tokio::select! {
            prepared = self.prepare(cell, held, &root) => prepared,
            _ = cancelled.wait_for(|stop| *stop) => return Aftermath::Doubtful,
        };
        if !prepared {
            return Aftermath::Doubtful;
        }
        self.packages(held, &artifacts.packages, root).await
    }

    async fn ship(&self, cell: &Cell, held: &Held, artifacts: &ArtifactSet, root: &str) -> bool {
        let begun = Instant::now();
        let machine = held.record.id.clone();
        let connection = held.guest.connection.as_ref();
        let store = Store::below(&format!("{}/var/lib/kmt", connection.prefix()), root);
        match artifact::ship(artifacts, connection, &store).await {
            Ok(report) => {
                self.record.emit(Event::ShipFinished {
                    machine,
                    cell: cell.id.clone(),
                    bytes: report.bytes,
                    files: report.files,
                    duration_ms: millis(begun),
                });
                true
            }
            Err(error) => {
                let message = Failure::from(error).one_line();
                self.record.emit(Event::ShipFailed { machine, cell: cell.id.clone(), message });
                false
            }
        }
    }

    /// Makes the guest what the component wants it to be; whether it is.
    async fn prepare(&self, cell: &Cell, held: &Held, root: &str) -> bool {
        let steps = &self.tests.preparation;
        if steps.is_empty() {
            return true;
        }
        let preparing = prepare::prepare(steps, cell.id.arch, held.guest.connection.as_ref(), root);
        let failure = match timeout(PREPARATION, preparing).await {
            Ok(Ok(prepared)) => {
                let (machine, last) =
                    (held.record.id.clone(), prepared.steps.last().map(|step| step.name.clone()));
                let (steps, failed) = (prepared.steps, prepared.failed.clone());
                self.record.emit(Event::GuestPrepared { machine, cell: cell.id.clone(), steps, failed });
                let Some(why) = prepared.failed else { return true };
                Failure::new(Kind::Infrastructure, format!("`{}`", last.unwrap_or_default())).caused_by(why)
            }
            Ok(Err(error)) => Failure::from(error),
            Err(_) => Failure::new(Kind::Infrastructure, format!("not done in {} s", PREPARATION.as_secs())),
        };
        self.failed(cell, "prepare", &failure);
        false
    }

    async fn packages(&self, held: &Held, packages: &[TestPackage], root: String) -> Aftermath {
        let lane = Lane {
            guest: &held.guest,
            root,
            words: &self.tests.words,
            filters: &self.tests.filters,
            count: self.tests.count,
            record: self.record,
            hypervisor: self.world.hypervisor.as_ref(),
            deadlines: self.world.deadlines,
            cancelled: self.cancelled.clone(),
        };
        let mut worst = Aftermath::Healthy;
        let planned = self.plan.order(&held.guest.cell);
        for package in planned.filter_map(|name| packages.iter().find(|package| package.name == name)) {
            if *self.cancelled.borrow() {
                break;
            }
            let limit = self.tests.limits.get(&package.name).copied().unwrap_or(Duration::from_secs(600));
            match lane.package(package, limit).await {
                Aftermath::Healthy => {}
                Aftermath::Doubtful => worst = Aftermath::Doubtful,
                Aftermath::Lost => return Aftermath::Lost,
            }
        }
        worst
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
