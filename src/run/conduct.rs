//! The dispatcher: one lane a cell, all at once within the host's room, one order of facts.
//!
//! Each lane goes its own way (image, machine, artifacts, packages) and a failure of one is a fact about
//! that cell only. What the lanes share is waited for where it is needed: an image by the cells that boot
//! it, the build by the guests that are ready for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kmt_reporters::event::{Arch, BootPhase, CellId, Event, EventSink as _};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, timeout};

use super::capacity::{Capacity, Room};
use super::filter::TestFilters;
use super::lane::{Aftermath, Lane};
use super::prepare::{self, Step};
use crate::artifact::{self, ArtifactSet, Store, TestPackage};
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::{GuestNetwork, HostFacts};
use crate::image::{ImageProgress, ImageRequest, ImageStore, LocalImage};
use crate::machine::{self, BootFailure, Guest, Parts};
use crate::matrix::Cell;
use crate::plan::Plan;
use crate::record::Record;
use crate::settings::Home;
use crate::settings::component::for_arch;
use crate::stack::record::{Owner, Progress};
use crate::stack::{Lease, MachineRecord, Stack, remove_machine};
use crate::world::World;

/// Reuse machines that are up, or boot fresh ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines {
    /// Those that are up and healthy are taken.
    Reuse,
    /// Those that are up are removed first.
    Fresh,
}

/// What becomes of the machines at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// They stay for the next run.
    Keep,
    /// They are removed.
    ThrowAway,
}

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
    /// Environment, `{root}` not yet replaced.
    pub env: Vec<(String, String)>,
    /// Arguments of every binary.
    pub args: Vec<String>,
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
    /// Where state lives.
    pub home: &'a Home,
    /// Machines that outlive the run.
    pub stack: &'a Stack,
    /// The host.
    pub host: &'a HostFacts,
    /// Room on it.
    pub capacity: Capacity,
    /// Images of this machine.
    pub images: &'a ImageStore,
    /// Images by name, made once.
    pub ready_images: BTreeMap<String, OnceCell<LocalImage>>,
    /// What the guests' network reaches.
    pub network: GuestNetwork,
    /// Reuse or fresh.
    pub machines: Machines,
    /// Keep or throw away.
    pub afterwards: Afterwards,
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

/// A machine that is held for one cell.
struct Held {
    record: MachineRecord,
    guest: Guest,
    lease: Lease,
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
            image = self.image(request) => image,
            _ = cancelled.wait_for(|stop| *stop) => return,
        };
        let image = match image {
            Ok(image) => image,
            Err(failure) => return self.failed(cell, "image", &failure),
        };
        let held = match self.machine(cell, &image).await {
            Ok(Some(held)) => held,
            Ok(None) => return,
            Err(failure) => return self.failed(cell, "host", &failure),
        };
        let aftermath = self.work(cell, &held).await;
        self.leave(held, aftermath).await;
    }

    async fn image(&self, request: &ImageRequest) -> Result<LocalImage> {
        let name = request.to_string();
        let made =
            self.ready_images.get(&name).ok_or_else(|| Failure::usage(format!("no image `{name}`")))?;
        let begun = Instant::now();
        let image = made.get_or_try_init(|| async {
            let cached = std::sync::atomic::AtomicBool::new(true);
            let progress = |progress: ImageProgress| {
                cached.store(false, std::sync::atomic::Ordering::Relaxed);
                self.record.emit(image_fact(&name, &progress));
            };
            let image = self.images.ensure(request, &progress).await?;
            self.record.emit(Event::ImageReady {
                image: name.clone(),
                digest: image.rootfs_digest.clone(),
                cached: cached.into_inner(),
                duration_ms: millis(begun),
            });
            Ok::<_, Failure>(image)
        });
        image.await.cloned()
    }

    /// A guest for the cell: one that is up, or a new one. `None` where the record says why there is none.
    async fn machine(&self, cell: &Cell, image: &LocalImage) -> Result<Option<Held>> {
        let made_of = machine::made_of(image, self.network, cell.vcpu, cell.memory_mib);
        for record in self.stack.record()?.machines.into_values().filter(|m| m.cell == cell.id) {
            let Some(lease) = self.stack.lease(&record.id)? else { continue };
            if let Some(held) = self.reuse(record, lease, &made_of, image).await? {
                return Ok(Some(held));
            }
        }
        if let Err(failure) = self.room(cell).await {
            self.failed(cell, "capacity", &failure);
            return Ok(None);
        }
        let made = self.make(cell, image, &made_of).await;
        if made.is_err() {
            self.capacity.given_up();
        }
        made
    }

    /// A new machine in the room that was granted. `None` where nothing is left of it and the record says why.
    async fn make(&self, cell: &Cell, image: &LocalImage, made_of: &str) -> Result<Option<Held>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (record, lease) = self.write_down(cell, made_of)?;
            let begun = Instant::now();
            let mut cancelled = self.cancelled.clone();
            let parts = self.parts(image);
            let _processors = self.capacity.processors(cell.vcpu).await;
            let booted = tokio::select! {
                booted = parts.boot(&record) => Some(booted),
                _ = cancelled.wait_for(|stop| *stop) => None,
            };
            match booted {
                Some(Ok(guest)) => {
                    self.mark(&record.id, Progress::Ready)?;
                    return Ok(Some(Held { record, guest, lease }));
                }
                other => {
                    let failure = other.and_then(std::result::Result::err);
                    self.keep_console(&record.id);
                    let removed =
                        remove_machine(self.stack, &record.id, self.world.hypervisor.as_ref(), lease).await;
                    if removed.is_ok() && tries < 3 && failure.as_ref().is_some_and(port_was_taken) {
                        continue;
                    }
                    if let Some(failure) = failure {
                        self.boot_failed(cell, &record.id, failure, begun);
                    }
                    match removed {
                        Ok(()) => self.capacity.gone(cell.memory_mib),
                        Err(failure) => self.still_there(&record.id, &failure),
                    }
                    return Ok(None);
                }
            }
        }
    }

    fn boot_failed(&self, cell: &Cell, machine: &str, failure: BootFailure, begun: Instant) {
        self.record.emit(Event::BootFailed {
            machine: machine.to_owned(),
            cell: cell.id.clone(),
            phase: failure.phase,
            message: failure.message,
            excerpt: failure.excerpt,
            duration_ms: millis(begun),
        });
    }

    fn parts<'b>(&'b self, image: &'b LocalImage) -> Parts<'b> {
        Parts {
            stack: self.stack,
            image,
            host: self.host,
            network: self.network,
            hypervisor: self.world.hypervisor.as_ref(),
            transport: self.world.transport.as_ref(),
            sink: self.record,
            deadlines: self.world.deadlines,
        }
    }

    /// Takes a machine of the stack that is up; one that cannot be used is removed.
    async fn reuse(
        &self,
        record: MachineRecord,
        lease: Lease,
        made_of: &str,
        image: &LocalImage,
    ) -> Result<Option<Held>> {
        if !self.capacity.take_idle(&record.id) {
            // Evicted meanwhile, or never idle: its lease is ours, so it is nobody's.
            return Ok(None);
        }
        let fit = self.machines == Machines::Reuse
            && record.made_of == made_of
            && record.progress == Progress::Ready;
        if fit && let Some(guest) = self.parts(image).reuse(&record).await {
            if self.afterwards == Afterwards::ThrowAway {
                self.stack.change(|stack| {
                    stack.machines.entry(record.id.clone()).and_modify(|m| m.owner = Owner::ThrowAway);
                })?;
            }
            return Ok(Some(Held { record, guest, lease }));
        }
        let removed = remove_machine(self.stack, &record.id, self.world.hypervisor.as_ref(), lease).await;
        match &removed {
            Ok(()) => self.capacity.gone(record.memory_mib),
            Err(_) => self.capacity.given_up(),
        }
        removed.map(|()| None)
    }

    /// Waits for memory; idle machines go first.
    async fn room(&self, cell: &Cell) -> Result<()> {
        loop {
            match self.capacity.room(cell.memory_mib).await {
                Ok(Room::Granted) => return Ok(()),
                Ok(Room::Evict(id)) => {
                    let memory = self.stack.record()?.machines.get(&id).map_or(0, |m| m.memory_mib);
                    if let Some(lease) = self.stack.lease(&id)? {
                        remove_machine(self.stack, &id, self.world.hypervisor.as_ref(), lease).await?;
                        self.capacity.removed(memory);
                    }
                }
                Err((wanted, there)) => {
                    return Err(Failure::usage(format!(
                        "a machine of {wanted} MiB does not fit: the host has {there} MiB to give"
                    ))
                    .hint("`memory =` in the matrix, or end other machines: `kmt-run stack list`"));
                }
            }
        }
    }

    fn write_down(&self, cell: &Cell, made_of: &str) -> Result<(MachineRecord, Lease)> {
        let known: Vec<u16> = Stack::all(self.home)?
            .iter()
            .filter_map(|stack| stack.record().ok())
            .flat_map(|record| record.machines.into_values().map(|m| m.port))
            .collect();
        let port = machine::free_port(|port| known.contains(&port))?;
        let owner = match self.afterwards {
            Afterwards::Keep => Owner::Run,
            Afterwards::ThrowAway => Owner::ThrowAway,
        };
        self.stack.add_leased(|record| {
            let mut machine = record.add(&cell.id, cell.vcpu, cell.memory_mib, port);
            machine.made_of = made_of.to_owned();
            machine.owner = owner;
            record.machines.insert(machine.id.clone(), machine.clone());
            machine
        })
    }

    fn mark(&self, machine: &str, progress: Progress) -> Result<()> {
        self.stack.change(|record| {
            record.machines.entry(machine.to_owned()).and_modify(|m| m.progress = progress);
        })
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
        let Some(_processors) = self.capacity.processors(cell.vcpu).await else { return Aftermath::Healthy };
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

    /// Environment of the tests in a cell.
    fn env(&self, cell: &CellId, root: &str) -> Vec<(String, String)> {
        let value = |text: &str| for_arch(&text.replace("{root}", root), cell.arch);
        self.tests.env.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    async fn packages(&self, held: &Held, packages: &[TestPackage], root: String) -> Aftermath {
        let lane = Lane {
            guest: &held.guest,
            env: self.env(&held.guest.cell, &root),
            root,
            args: self.tests.args.clone(),
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
        self.keep_console(&held.record.id);
        let stays = aftermath == Aftermath::Healthy && self.afterwards == Afterwards::Keep;
        if stays {
            self.capacity.now_idle(&held.record.id, held.record.memory_mib);
            return;
        }
        let id = held.record.id.clone();
        let removed = remove_machine(self.stack, &id, self.world.hypervisor.as_ref(), held.lease).await;
        match removed {
            Ok(()) => self.capacity.gone(held.record.memory_mib),
            Err(failure) => self.still_there(&id, &failure),
        }
    }

    /// A machine could not be removed: it may still take its memory.
    fn still_there(&self, machine: &str, failure: &Failure) {
        self.capacity.given_up();
        let message = format!("{}; the next command tries again", failure.one_line());
        self.record.emit(Event::Warning { subject: machine.to_owned(), message });
    }

    async fn keep_kernel_log(&self, held: &Held) {
        let asked =
            timeout(self.world.deadlines.last_words, held.guest.connection.run(&["dmesg"], Vec::new())).await;
        if let (Ok(Ok(output)), Ok(folder)) = (asked, self.record.machine_folder(&held.record.id)) {
            self.warn_unwritten(&held.record.id, std::fs::write(folder.join("dmesg.log"), output.stdout));
        }
    }

    fn keep_console(&self, machine: &str) {
        let console = self.stack.machine_folder(machine).join("console.log");
        if let Ok(folder) = self.record.machine_folder(machine)
            && console.exists()
        {
            self.warn_unwritten(machine, std::fs::copy(console, folder.join("console.log")).map(drop));
        }
    }

    fn warn_unwritten(&self, machine: &str, written: std::io::Result<()>) {
        if let Err(error) = written {
            let message = format!("its logs are not in the run directory: {error}");
            self.record.emit(Event::Warning { subject: machine.to_owned(), message });
        }
    }
}

/// What getting an image tells, as a fact.
fn image_fact(name: &str, progress: &ImageProgress) -> Event {
    match progress {
        ImageProgress::Warned { .. } => Event::Warning { subject: name.to_owned(), message: progress.line() },
        _ => Event::Progress { subject: format!("image {}", progress.line()), done: 0, total: None },
    }
}

fn port_was_taken(failure: &BootFailure) -> bool {
    failure.phase == Some(BootPhase::Defined) && failure.message.contains("host forwarding")
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
