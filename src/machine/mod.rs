//! One machine's life: from a record to a guest, or to a boot failure that says how far it got.
//!
//! Owns the boot ladder and its deadlines, the console tap, the identity that is injected, the room on the host
//! and the supply of machines within it. Does not decide which machines should exist (`stack`) nor what runs in
//! them (`run`). To add a phase: a variant of `BootPhase`, the console line that shows it in [`console`], its
//! deadline in [`Deadlines`].

pub mod capacity;
pub mod console;
pub mod converge;
pub mod copy;
mod deadlines;
mod disks;
mod identity;
pub mod seats;
mod seed;
pub mod supply;
mod wake;
pub mod warm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kmt_reporters::event::{BootPhase, CellId, Event, EventSink};
use sha2::Digest as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::{
    DirectBoot, Disk, DiskFormat, DomainSpec, DomainState, GuestNetwork, HostFacts, Hypervisor,
};
use crate::external::remote::alias_of;
use crate::external::transport::{Connection, Route, Transport};
use crate::external::{self, Class};
use crate::image::LocalImage;
use crate::matrix::Cell;
use crate::stack::{Keys, MachineRecord, Stack};
use console::ConsoleTap;
pub use deadlines::Deadlines;
use identity::IdentityFile;
use warm::Template;

/// What a guest is asked once it answers, after it has ended what a killed run left at work in it. Fixed text;
/// its one argument is what stands before paths there.
const FACTS: &str = "for f in \"$1\"/run/kmt/*.pid; do \
                     [ -r \"$f\" ] && kill -KILL \"-$(cat \"$f\")\" 2>/dev/null; rm -f \"$f\"; done; \
                     uname -rm; . \"$1/etc/os-release\"; echo \"$ID-${VERSION_ID:-rolling}\"; \
                     [ -e \"$1/var/lib/kmt\" ] || echo untouched; \
                     command -v gzip >/dev/null && echo gzip";
/// How often the console is read during a boot.
const TICK: Duration = Duration::from_millis(50);
/// How often a machine whose console is silent is asked for a greeting.
const GREET_EVERY: Duration = Duration::from_millis(500);
/// How often the hypervisor is asked whether QEMU still runs during a boot.
const STATE_EVERY: u32 = 10;

/// What a machine is made with, besides its record.
pub struct Parts<'a> {
    /// The stack it belongs to.
    pub stack: &'a Stack,
    /// The host it runs on.
    pub host: &'a HostFacts,
    /// Runs it.
    pub hypervisor: &'a dyn Hypervisor,
    /// Reaches it.
    pub transport: &'a dyn Transport,
    /// Takes the facts.
    pub sink: &'a dyn EventSink,
    /// How long each phase may take.
    pub deadlines: Deadlines,
}

/// A machine that can be used.
#[derive(Clone)]
pub struct Guest {
    /// Machine id.
    pub machine: String,
    /// The cell it serves.
    pub cell: CellId,
    /// Name of its domain.
    pub domain: String,
    /// The one connection to it.
    pub connection: Arc<dyn Connection>,
    /// Its console file.
    pub console: PathBuf,
    /// Whether nothing was ever shipped to it.
    pub untouched: bool,
    /// Whether it can undo gzip.
    pub gzip: bool,
}

/// A machine that did not come up: facts only.
#[derive(Debug)]
pub struct BootFailure {
    /// The last phase it reached.
    pub phase: Option<BootPhase>,
    /// One line.
    pub message: String,
    /// Last console lines.
    pub excerpt: Vec<String>,
    /// How long ago the console had grown last, where it was watched.
    pub idle: Option<Duration>,
}

impl BootFailure {
    /// Whether it did not start because somebody else listens where it should.
    fn port_was_taken(&self) -> bool {
        let taken = ["host forwarding", "gdbstub"].iter().any(|words| self.message.contains(words));
        self.phase == Some(BootPhase::Defined) && taken
    }

    /// What failed in a machine that had got so far.
    fn at(phase: BootPhase, failure: Failure) -> BootFailure {
        BootFailure { phase: Some(phase), ..failure.into() }
    }
}

impl From<Failure> for BootFailure {
    fn from(failure: Failure) -> BootFailure {
        BootFailure { phase: None, message: failure.one_line(), excerpt: Vec::new(), idle: None }
    }
}

impl From<external::Error> for BootFailure {
    fn from(error: external::Error) -> BootFailure {
        Failure::from(error).into()
    }
}

/// Digest of everything a machine boots from: another digest means that a machine cannot be reused.
pub fn made_of(image: &LocalImage, network: GuestNetwork, cell: &Cell) -> String {
    let (vcpu, memory_mib) = (cell.vcpu, cell.memory_mib);
    let direct = image.direct.as_ref();
    let mut text = format!(
        "1\n{}\n{}\n{}\n{:?}\n{}\n{network:?} {vcpu} {memory_mib}",
        image.rootfs.display(),
        direct.map(|direct| direct.kernel.display()).unwrap_or(Path::new("").display()),
        direct.map(|direct| direct.initrd.display()).unwrap_or(Path::new("").display()),
        image.modules,
        image.cmdline.join(" "),
    );
    if !cell.extras.is_none() {
        text.push_str(&format!("\n{:?}", cell.extras));
    }
    hex::encode(sha2::Sha256::digest(text.as_bytes()))
}

impl Parts<'_> {
    /// How the machine of `record` is reached.
    pub fn route_of(stack: &Stack, record: &MachineRecord) -> Route {
        let (address, port) = record.ssh_at();
        Route {
            alias: record.alias(),
            config: stack.ssh_config(),
            address: address.to_string(),
            port,
            sockets: stack.machine_sockets(&record.id),
            behind: record.host.as_deref().map(alias_of),
        }
    }

    fn route(&self, record: &MachineRecord) -> Route {
        Parts::route_of(self.stack, record)
    }

    fn console(&self, machine: &str) -> PathBuf {
        self.stack.machine_folder(machine).join("console.log")
    }

    fn reached(&self, machine: &str, phase: BootPhase) {
        self.sink.emit(Event::MachinePhase { machine: machine.to_owned(), phase });
    }

    /// Makes the machine of `record`, which is written down and leased, from `image` and boots it.
    ///
    /// # Errors
    /// How far it got, and its last words. What exists of it then is for the caller to remove.
    pub async fn boot(
        &self,
        record: &MachineRecord,
        image: &LocalImage,
    ) -> std::result::Result<Guest, BootFailure> {
        let begun = Instant::now();
        let (spec, _) = self.make(record, image, None).await?;
        self.hypervisor.define(&spec).await?;
        self.sink.emit(Event::MachineDefined { machine: record.id.clone(), cell: record.cell.clone() });
        self.reached(&record.id, BootPhase::Defined);
        self.rise(record, ConsoleTap::open(&spec.console), begun).await
    }

    /// From a domain that is off to a guest.
    async fn rise(
        &self,
        record: &MachineRecord,
        mut tap: ConsoleTap,
        begun: Instant,
    ) -> std::result::Result<Guest, BootFailure> {
        let domain = self.stack.domain_name(&record.id);
        self.start(&domain).await?;
        self.hypervisor.follow(&domain, &self.console(&record.id)).await?;
        self.reached(&record.id, BootPhase::Powered);
        let (phase, seen) = watch::channel(BootPhase::Powered);
        let connection = tokio::select! {
            connection = self.reach(record, seen, &phase) => connection?,
            failure = self.watch_boot(&domain, record, &mut tap, &phase) => return Err(failure),
        };
        let (guest, event) = self.ready(record, connection, begun).await?;
        disks::mount(record, guest.connection.as_ref()).await?;
        self.reached(&record.id, BootPhase::Ready);
        self.sink.emit(event);
        Ok(guest)
    }

    async fn start(&self, domain: &str) -> std::result::Result<(), BootFailure> {
        let failed = |error: external::Error| BootFailure::at(BootPhase::Defined, error.into());
        self.hypervisor.start(domain).await.map_err(failed)
    }

    /// Everything on disk and the description of the domain: one that boots, or one that goes on from a template and is
    /// told who it is.
    async fn make(
        &self,
        record: &MachineRecord,
        image: &LocalImage,
        template: Option<&Template>,
    ) -> Result<(DomainSpec, Vec<IdentityFile>)> {
        let folder = self.stack.machine_folder(&record.id);
        crate::stack::create_private(&folder)?;
        self.hypervisor.begin(&self.stack.domain_name(&record.id), &folder).await?;
        let login = Keys::login(&self.stack.folder, self.transport).await?;
        let host_key = Keys::at(&folder.join("hostkey"), self.transport).await?;
        let mut identity = identity::files(record, &login, &host_key)?;
        identity.extend(template.map(|_| identity::usual_unit()));
        let (direct, seed) = match &image.direct {
            Some(boot) => {
                let initrd = identity::initrd(&folder, &boot.initrd, &identity)?;
                let (kernel, cmdline) = (boot.kernel.clone(), cmdline(image, record));
                (Some(DirectBoot { kernel, initrd, cmdline }), None)
            }
            None => (None, Some(seed::write(&folder, record, &login, &host_key)?)),
        };
        self.stack.change(|stack| {
            if let Some(machine) = stack.machines.get_mut(&record.id) {
                machine.host_key = Some(host_key.public.clone());
            }
        })?;
        let overlay = folder.join("root.qcow2");
        let _ = std::fs::remove_file(&overlay);
        let base = match template {
            None => image.rootfs.clone(),
            Some(template) => own_name(&template.root(), &folder.join("template.qcow2"))?,
        };
        self.hypervisor.create_overlay(&base, &overlay).await?;
        let console = self.console(&record.id);
        std::fs::write(&console, b"").map_err(|error| Failure::file("write", &console, &error))?;
        let mut disks = vec![Disk { file: overlay, format: DiskFormat::Qcow2, serial: None }];
        disks.extend(seed.map(|file| Disk { file, format: DiskFormat::Raw, serial: None }));
        let modules = image.modules.iter().cloned();
        disks.extend(modules.map(|file| Disk { file, format: DiskFormat::RawReadOnly, serial: None }));
        disks.extend(disks::make(self.stack, record, self.hypervisor).await?);
        let spec = DomainSpec {
            name: self.stack.domain_name(&record.id),
            uuid: record.uuid,
            stack: self.stack.uuid,
            machine: record.id.clone(),
            arch: record.cell.arch,
            machine_type: record.extras.machine.clone(),
            acceleration: self.host.acceleration_of(record.cell.arch),
            vcpu: self.host.most_vcpu.map_or(record.vcpu, |most| record.vcpu.min(most)),
            memory_mib: record.memory_mib,
            direct,
            disks,
            console,
            ssh_port: record.port,
            gdb: record.gdb,
            mac: record.mac.clone(),
            network: record.network,
            lan: record.address.map(|_| self.stack.network_name()),
            identity: template.map(|_| folder.join("identity")),
        };
        Ok((spec, identity))
    }

    /// Follows console and QEMU; returns only when the boot has failed.
    async fn watch_boot(
        &self,
        domain: &str,
        record: &MachineRecord,
        tap: &mut ConsoleTap,
        phase: &watch::Sender<BootPhase>,
    ) -> BootFailure {
        let (mut since, mut heard) = (Instant::now(), Instant::now());
        let mut last = BootPhase::Powered;
        // A disk that boots by itself may never speak on this console.
        let silent = seed::path(&self.stack.machine_folder(&record.id)).exists();
        for tick in 1u32.. {
            sleep(TICK).await;
            let lines = tap.lines();
            if !lines.is_empty() {
                heard = Instant::now();
            }
            for line in lines {
                if let Some(reached) = console::phase_of(&line)
                    && advance(phase, reached)
                {
                    self.reached(&record.id, reached);
                }
            }
            let now = *phase.borrow();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let failed = |message: String, tap: &ConsoleTap| BootFailure {
                phase: Some(now),
                message,
                excerpt: tap.excerpt(),
                idle: Some(heard.elapsed()),
            };
            let limit = if silent { self.deadlines.whole() } else { self.deadlines.after(now) };
            if since.elapsed() > limit {
                let seconds = limit.as_secs();
                return failed(format!("no progress for {seconds} s after phase `{}`", now.as_str()), tap);
            }
            if tick % STATE_EVERY == 0
                && matches!(self.hypervisor.state(domain).await, Ok(None | Some(DomainState::Off)))
            {
                tap.lines();
                let why = tap
                    .panic()
                    .map_or("QEMU ended".to_owned(), |line| format!("the kernel panicked: {line}"));
                return failed(format!("{why} in phase `{}`", now.as_str()), tap);
            }
        }
        unreachable!("the loop above has no end")
    }

    /// Waits for an address, then for a greeting, then logs in.
    async fn reach(
        &self,
        record: &MachineRecord,
        mut seen: watch::Receiver<BootPhase>,
        phase: &watch::Sender<BootPhase>,
    ) -> std::result::Result<Arc<dyn Connection>, BootFailure> {
        // A guest that never says that it has an address may still answer.
        let _ = timeout(self.deadlines.address, seen.wait_for(|p| *p >= BootPhase::Network)).await;
        let route = self.route(record);
        // The console says when the server listens; one whose console is silent is asked, which costs an
        // emulated guest a tenth of a second each time.
        let listens = seen.wait_for(|p| *p >= BootPhase::Sshd);
        let greets = async {
            while self.transport.greeting(&route).await.is_err() {
                sleep(GREET_EVERY).await;
            }
        };
        tokio::select! {
            _ = listens => {}
            () = greets => {}
        }
        if advance(phase, BootPhase::Sshd) {
            self.reached(&record.id, BootPhase::Sshd);
        }
        loop {
            match self.transport.connect(&route).await {
                Ok(connection) => return Ok(connection),
                Err(error) if error.class == Class::Unreachable => sleep(Duration::from_millis(200)).await,
                Err(error) => return Err(BootFailure { phase: Some(BootPhase::Sshd), ..error.into() }),
            }
        }
    }

    /// A guest over whose connection it was asked what it is, and the event of it.
    async fn ready(
        &self,
        record: &MachineRecord,
        connection: Arc<dyn Connection>,
        begun: Instant,
    ) -> std::result::Result<(Guest, Event), BootFailure> {
        let facts = self.facts(connection.as_ref()).await?;
        self.is_ready(record, connection, begun, &facts)
    }

    /// What a guest says that it is.
    async fn facts(&self, connection: &dyn Connection) -> std::result::Result<String, BootFailure> {
        let question = ["sh", "-c", FACTS, "sh", connection.prefix()];
        let asked = timeout(self.deadlines.ready, connection.run(&question, Vec::new())).await;
        let late =
            || BootFailure::at(BootPhase::Sshd, Failure::usage("it does not answer over its connection"));
        let output = asked.map_err(|_| late())?;
        Ok(output.map_err(|error| BootFailure::at(BootPhase::Sshd, error.into()))?.text())
    }

    /// A guest that is what `facts` say, and the event of it.
    fn is_ready(
        &self,
        record: &MachineRecord,
        connection: Arc<dyn Connection>,
        begun: Instant,
        facts: &str,
    ) -> std::result::Result<(Guest, Event), BootFailure> {
        let failed = |message: &str| BootFailure::at(BootPhase::Sshd, Failure::usage(message));
        let mut lines = facts.lines();
        let (Some((kernel_release, machine_arch)), Some(os_name)) =
            (lines.next().and_then(|line| line.rsplit_once(' ')), lines.next())
        else {
            return Err(failed("it cannot say what it is"));
        };
        let facts: Vec<&str> = lines.collect();
        let event = Event::MachineReady {
            machine: record.id.clone(),
            cell: record.cell.clone(),
            kernel_release: kernel_release.to_owned(),
            machine_arch: machine_arch.to_owned(),
            os_name: os_name.to_owned(),
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            console: Some(format!("machines/{}/console.log", record.id)),
        };
        let guest = Guest {
            machine: record.id.clone(),
            cell: record.cell.clone(),
            domain: self.stack.domain_name(&record.id),
            connection,
            console: self.console(&record.id),
            untouched: facts.contains(&"untouched"),
            gzip: facts.contains(&"gzip"),
        };
        Ok((guest, event))
    }

    /// Takes a machine that should be up. `None` where it is not healthy.
    pub async fn reuse(&self, record: &MachineRecord) -> Option<Guest> {
        let begun = Instant::now();
        let route = self.route(record);
        self.hypervisor.follow(&self.stack.domain_name(&record.id), &self.console(&record.id)).await.ok()?;
        self.transport.greeting(&route).await.ok()?;
        let connection = timeout(self.deadlines.ready, self.transport.connect(&route)).await.ok()?.ok()?;
        let (guest, event) = self.ready(record, connection, begun).await.ok()?;
        self.sink.emit(Event::MachineReused { machine: record.id.clone(), cell: record.cell.clone() });
        self.sink.emit(event);
        Some(guest)
    }
}

/// Another name for a file that is only read: whoever has it keeps it when the first name goes.
fn own_name(file: &Path, name: &Path) -> Result<PathBuf> {
    let _ = std::fs::remove_file(name);
    std::fs::hard_link(file, name).map_err(|error| Failure::file("link", file, &error))?;
    Ok(name.to_path_buf())
}

/// The kernel command line of a machine: the image's, then its own. Who debugs it finds symbols where they were linked.
fn cmdline(image: &LocalImage, record: &MachineRecord) -> String {
    let debugged: &[String] = if record.gdb.is_some() { &["nokaslr".to_owned()] } else { &[] };
    let addressed: &[String] = if record.address.is_some() { &["kmt.net=dhcp".to_owned()] } else { &[] };
    [&image.cmdline[..], debugged, addressed, &record.extras.cmdline[..]].concat().join(" ")
}

/// Sets the phase if it is further; phases never go back.
fn advance(phase: &watch::Sender<BootPhase>, reached: BootPhase) -> bool {
    phase.send_if_modified(|now| {
        let further = reached > *now;
        if further {
            *now = reached;
        }
        further
    })
}

/// A loopback port that nobody listens on now and no record claims.
///
/// # Errors
/// The host gives no port.
pub fn free_port(claimed: impl Fn(u16) -> bool) -> Result<u16> {
    for _ in 0..64 {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .map(|address| address.port());
        match port {
            Ok(port) if !claimed(port) => return Ok(port),
            Ok(_) => {}
            Err(error) => {
                return Err(Failure::new(Kind::Infrastructure, "no free loopback port").caused_by(error));
            }
        }
    }
    Err(Failure::new(Kind::Infrastructure, "no loopback port that no machine claims"))
}

/// Whether QEMU's own user may enter every folder on the way to `file`; the one it may not, otherwise.
pub fn closed_to_others(file: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    file.ancestors().skip(1).find_map(|folder| {
        let mode = std::fs::metadata(folder).ok()?.mode();
        (mode & 0o001 == 0).then(|| folder.to_path_buf())
    })
}
