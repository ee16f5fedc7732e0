//! libvirt by the `virt` crate, on `qemu:///session` unless told otherwise.
//!
//! Its calls block and cannot be cancelled, and its handles panic when a connection broke: all of them live
//! on one thread of their own, which answers questions one by one and reconnects after a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kmt_reporters::event::Arch;
use tokio::sync::{OnceCell, oneshot};
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::{Domain, DomainState as Raw};
use virt::enumutil::Enum;
use virt::error::ErrorNumber;
use virt::network::Network;

use super::network::{NetworkSpec, OwnedNetwork, subnets_of};
use super::{Accelerator, DomainSpec, DomainState, HostFacts, Hypervisor, OwnedDomain, probe, saved, xml};
use crate::external::process::Child;
use crate::external::{self, Class, Error};

/// How long any one call may take; a first definition probes QEMU and may need a minute.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long closing the connection may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// What helps when the daemon does not answer.
const START_HINT: &str = "`cargo xtask setup` starts it; by hand, as root: `virtlogd -d; libvirtd -d`";

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The real hypervisor of one host.
#[derive(Debug)]
pub struct Libvirt {
    /// Gone only while this is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    uri: String,
    cache: PathBuf,
    qemu_user: OnceCell<Option<(u32, u32)>>,
}

/// Lives on the thread: the connection, if there is one.
struct Worker {
    uri: String,
    connection: Option<Connect>,
}

impl Worker {
    fn connection(&mut self) -> Result<&Connect, virt::error::Error> {
        let alive = self.connection.as_ref().is_some_and(|c| c.is_alive().unwrap_or(false));
        if !alive {
            self.drop_connection();
            self.connection = Some(Connect::open(Some(&self.uri))?);
        }
        self.connection.as_ref().ok_or_else(virt::error::Error::last_error)
    }

    fn drop_connection(&mut self) {
        let old = self.connection.take();
        // Giving a broken connection back panics in `virt`.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(old)));
    }
}

impl Libvirt {
    /// Connects to `uri` at the first question. `cache` remembers what the acceleration probe found.
    pub fn new(uri: impl Into<String>, cache: impl Into<PathBuf>) -> Libvirt {
        let uri = uri.into();
        let (jobs, queue) = mpsc::channel::<Job>();
        let mut worker = Worker { uri: uri.clone(), connection: None };
        // The thread ends with the last sender; a machine that cannot make one cannot run tests either, and
        // the first question then says that nobody answers.
        let thread = std::thread::Builder::new().name("libvirt".to_owned()).spawn(move || {
            virt::error::clear_error_callback();
            while let Ok(job) = queue.recv() {
                job(&mut worker);
            }
            worker.drop_connection();
        });
        Libvirt {
            jobs: Some(jobs),
            thread: thread.ok(),
            uri,
            cache: cache.into(),
            qemu_user: OnceCell::new(),
        }
    }

    /// Runs `work` on the thread.
    async fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        subject: &str,
        work: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> external::Result<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            let result = catch_unwind(AssertUnwindSafe(|| worker.connection().and_then(work)));
            if result.is_err() {
                worker.drop_connection();
            }
            let _ = answer.send(result);
        });
        let gone =
            |why: &str| Error::new("libvirt", operation, subject, Class::Unreachable, why).hint(START_HINT);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(gone("its thread has ended"));
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(Ok(result))) => result.map_err(|error| classed(operation, subject, &self.uri, &error)),
            Ok(_) => Err(gone("the connection broke")),
            Err(_) => Err(gone("no answer within 120 s")),
        }
    }

    /// Makes a domain known whose files are QEMU's to use already.
    pub(in crate::external) async fn define_as(
        &self,
        spec: &DomainSpec,
        qemu_user: Option<(u32, u32)>,
    ) -> external::Result<()> {
        let text = xml::domain(spec, qemu_user);
        let defined = self.ask("define", &spec.name, move |c| c.define_domain_xml(&text).map(drop)).await;
        defined.map_err(|error| match spec.arch {
            Arch::Arm64 if lacks_emulator(&error.detail) => error.hint(ARM64_HINT),
            _ => error,
        })
    }

    /// Networks that the hypervisor may have.
    pub(in crate::external) async fn known_networks(&self) -> external::Result<Vec<String>> {
        let known = self.ask("list the networks of", &self.uri, |c| {
            let all = c.list_all_networks(0)?;
            all.iter()
                .map(|network| network.xml_desc(0).map(|xml| subnets_of(&xml)))
                .collect::<Result<Vec<_>, _>>()
        });
        Ok(known.await?.into_iter().flatten().collect())
    }

    /// User of QEMU where it is not us: the system daemon's, which a session URI means for root.
    pub(in crate::external) async fn qemu_user(&self) -> external::Result<Option<(u32, u32)>> {
        self.qemu_user
            .get_or_try_init(|| async {
                if !rustix::process::geteuid().is_root() && !self.uri.contains("/system") {
                    return Ok(None);
                }
                let text = self.ask("look at", &self.uri, |c| c.capabilities()).await?;
                Ok(xml::dac_label(&text))
            })
            .await
            .copied()
    }
}

impl Drop for Libvirt {
    /// Waits until the thread has closed its connection: were it still in libvirt while the process exits and
    /// takes libraries down, memory would be corrupted. A call that hangs is not waited for.
    fn drop(&mut self) {
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + FAREWELL;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

/// Sorts libvirt's errors by what can be done about them.
fn classed(operation: &'static str, subject: &str, uri: &str, error: &virt::error::Error) -> Error {
    let message = error.message();
    let class = match error.code() {
        Enum::Known(ErrorNumber::NoDomain) => Class::NotFound,
        Enum::Known(ErrorNumber::AuthFailed | ErrorNumber::AccessDenied) => Class::Denied,
        Enum::Known(ErrorNumber::NoConnect) => Class::Unreachable,
        _ if message.contains("to connect") || message.contains("socket") => Class::Unreachable,
        _ if message.contains("Could not set up host forwarding") || message.contains("gdbstub") => {
            Class::Busy
        }
        _ if message.contains("Permission denied") => Class::Denied,
        _ => Class::Rejected,
    };
    let failed = Error::new("libvirt", operation, subject, class, message);
    if class == Class::Unreachable { failed.hint(format!("{uri}: {START_HINT}")) } else { failed }
}

/// Gives QEMU's user the files of a machine; only root may, so that an ordinary user asks for that by `sudo -n`.
async fn give(files: &[&PathBuf], user: u32, group: u32) -> external::Result<()> {
    let given = files.iter().map(|file| {
        std::os::unix::fs::chown(file, Some(user), Some(group)).map_err(|error| {
            (error.kind(), Error::io("file system", "give QEMU", file.display().to_string(), &error))
        })
    });
    match given.collect::<Result<Vec<()>, _>>() {
        Err((std::io::ErrorKind::PermissionDenied, _)) => {}
        other => return other.map(drop).map_err(|(_, error)| error),
    }
    let chown = Child::new("sudo").args(["-n", "chown", &format!("{user}:{group}"), "--"]).args(files);
    chown.success().await.map(drop).map_err(|error| {
        error.hint(
            "this one step needs root: QEMU's own user gets the disks of the machine. Let `sudo -n chown` be, or use \
             the network `user`, which needs no root",
        )
    })
}

fn state_of(domain: &Domain) -> Result<DomainState, virt::error::Error> {
    Ok(match domain.state()?.0 {
        Enum::Known(Raw::Running | Raw::Blocked) => DomainState::Running,
        Enum::Known(Raw::Paused | Raw::PMSuspended) => DomainState::Paused,
        _ if domain.has_managed_save(0)? => DomainState::Saved,
        _ => DomainState::Off,
    })
}

/// Ends QEMU, where there is one.
fn power_off(domain: &Domain) -> Result<(), virt::error::Error> {
    if matches!(state_of(domain)?, DomainState::Off | DomainState::Saved) {
        return Ok(());
    }
    match domain.destroy() {
        Err(error) if !error.code().is(ErrorNumber::OperationInvalid) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a file is a qcow2 image; raw otherwise.
pub(in crate::external) fn is_qcow2(file: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"QFI\xfb"
}

/// The domain of that name, `None` where there is none.
fn find(connection: &Connect, name: &str) -> Result<Option<Domain>, virt::error::Error> {
    match connection.lookup_domain_by_name(name) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if error.code().is(ErrorNumber::NoDomain) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What brings emulator and firmware of arm64.
const ARM64_HINT: &str = "guests of arm64 need `apt-get install qemu-system-arm qemu-efi-aarch64`";

/// Whether libvirt says that it has no emulator or no firmware of an architecture.
fn lacks_emulator(detail: &str) -> bool {
    let words = ["firmware", "could not find capabilities", "QEMU binary", "emulator"];
    words.iter().any(|word| detail.contains(word))
}

/// Virtual processors of an emulated guest. Several are emulated on several threads, and a kernel that patches
/// its own code, as tracing does, then dies of `Oops: int3` now and then: seen with QEMU 7.2 and 10.0 on Linux 6.12.
/// libvirt 9 cannot ask for one thread.
const SOUND_EMULATED_VCPU: u32 = 1;

/// Most virtual processors of a guest that runs so.
pub(in crate::external) fn most_vcpu(acceleration: &super::Acceleration) -> Option<u32> {
    (acceleration.accelerator == Accelerator::Tcg).then_some(SOUND_EMULATED_VCPU)
}

#[async_trait]
impl Hypervisor for Libvirt {
    async fn facts(&self) -> external::Result<HostFacts> {
        let free = self.ask("look at", &self.uri, |c| {
            let info = c.node_info()?;
            let software =
                format!("QEMU {}, libvirt {}", version(c.hyp_version()?), version(c.lib_version()?));
            Ok((info.cpus, c.free_memory().unwrap_or(0), software))
        });
        let (cores, free, software) = free.await?;
        let qemu_user = self.qemu_user().await?;
        let acceleration = probe::acceleration(Arch::host(), &self.cache).await?;
        let memory_mib = available_memory_mib().unwrap_or(free / (1024 * 1024));
        let most_vcpu = most_vcpu(&acceleration);
        let notices = probe::slow_kvm(qemu_user).into_iter().collect();
        let arch = Arch::host();
        Ok(HostFacts { arch, acceleration, cores, memory_mib, qemu_user, most_vcpu, notices, software })
    }

    async fn create_overlay(&self, base: &Path, overlay: &Path) -> external::Result<()> {
        Child::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F"])
            .args([if is_qcow2(base) { "qcow2" } else { "raw" }, "-b"])
            .arg(base)
            .arg(overlay)
            .success()
            .await
            .map_err(|error| error.hint("apt-get install qemu-utils"))?;
        Ok(())
    }

    async fn create_disk(&self, file: &Path, size: u64) -> external::Result<()> {
        std::fs::File::create(file).and_then(|made| made.set_len(size)).map_err(|error| {
            external::Error::io("this machine", "write", file.display().to_string(), &error)
        })?;
        let mke2fs = Child::new("mke2fs").env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        let made = mke2fs.args(["-q", "-F", "-t", "ext4", "-m", "0"]).arg(file).success().await;
        made.map(drop).map_err(|error| error.hint("apt-get install e2fsprogs"))
    }

    async fn define(&self, spec: &DomainSpec) -> external::Result<()> {
        let qemu_user = self.qemu_user().await?;
        if let Some((user, group)) = qemu_user {
            let initrd = spec.direct.as_ref().map(|direct| &direct.initrd);
            let own = initrd.into_iter().chain([&spec.console]).chain(
                spec.disks.iter().filter(|d| d.format != super::DiskFormat::RawReadOnly).map(|d| &d.file),
            );
            let pipes = saved::make_pipes(spec.identity.as_deref())?;
            give(&own.chain(&pipes).collect::<Vec<_>>(), user, group).await?;
        } else {
            saved::make_pipes(spec.identity.as_deref())?;
        }
        self.define_as(spec, qemu_user).await.map_err(|error| match spec.arch {
            Arch::Arm64 if lacks_emulator(&error.detail) => error.hint(ARM64_HINT),
            _ => error,
        })
    }

    async fn start(&self, name: &str) -> external::Result<()> {
        let wanted = name.to_owned();
        self.ask("start", name, move |c| c.lookup_domain_by_name(&wanted)?.create()).await
    }

    async fn save(&self, name: &str) -> external::Result<()> {
        let wanted = name.to_owned();
        self.ask("save", name, move |c| c.lookup_domain_by_name(&wanted)?.managed_save(0)).await
    }

    async fn keep(&self, name: &str, file: &Path) -> external::Result<()> {
        let (wanted, file) = (name.to_owned(), file.to_path_buf());
        self.ask("keep the memory of", name, move |c| saved::save(&c.lookup_domain_by_name(&wanted)?, &file))
            .await
    }

    async fn revive(&self, spec: &DomainSpec, memory: &Path) -> external::Result<()> {
        self.define(spec).await?;
        let text = xml::domain(spec, self.qemu_user().await?);
        let own = spec.console.with_file_name("memory");
        saved::with_description(memory, &text, &own).await?;
        let file = own.display().to_string();
        let revived = self.ask("revive", &spec.name, move |c| c.restore_domain(&file)).await;
        // QEMU has read all of it.
        let _ = std::fs::remove_file(&own);
        revived
    }

    async fn tell(&self, spec: &DomainSpec, words: &[u8]) -> external::Result<()> {
        saved::tell(spec, words)
    }

    async fn stop(&self, name: &str) -> external::Result<()> {
        let wanted = name.to_owned();
        self.ask("stop", name, move |c| power_off(&c.lookup_domain_by_name(&wanted)?)).await
    }

    async fn state(&self, name: &str) -> external::Result<Option<DomainState>> {
        let wanted = name.to_owned();
        self.ask("look at", name, move |c| find(c, &wanted)?.map(|d| state_of(&d)).transpose()).await
    }

    async fn remove(&self, name: &str) -> external::Result<()> {
        let wanted = name.to_owned();
        self.ask("remove", name, move |c| {
            let Some(domain) = find(c, &wanted)? else {
                return Ok(());
            };
            power_off(&domain)?;
            let flags = virt::sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | virt::sys::VIR_DOMAIN_UNDEFINE_NVRAM;
            match domain.undefine_flags(flags) {
                Err(error) if error.code().is(ErrorNumber::NoDomain) => Ok(()),
                other => other,
            }
        })
        .await
    }

    async fn owned(&self) -> external::Result<Vec<OwnedDomain>> {
        self.ask("list the domains of", &self.uri, |c| {
            let mut owned = Vec::new();
            for domain in c.list_all_domains(0)? {
                let Ok(text) = domain.xml_desc(0) else { continue };
                let Some((stack, machine)) = xml::owner(&text) else {
                    continue;
                };
                let Ok(stack) = Uuid::parse_str(&stack) else {
                    continue;
                };
                owned.push(OwnedDomain { name: domain.name()?, stack, machine, state: state_of(&domain)? });
            }
            Ok(owned)
        })
        .await
    }

    async fn networks(&self) -> external::Result<Vec<String>> {
        let known = self.known_networks().await?;
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        Ok(known.into_iter().chain(crate::external::host::networks(&routes)).collect())
    }

    async fn raise_network(&self, network: &NetworkSpec) -> external::Result<()> {
        let (name, text) = (network.name.clone(), network.xml());
        self.ask("make the network", &network.name, move |c| {
            let network = match find_network(c, &name)? {
                Some(network) => network,
                None => c.define_network_xml(&text)?,
            };
            if network.is_active()? { Ok(()) } else { network.create() }
        })
        .await
        .map_err(|error| error.hint("apt-get install dnsmasq-base iptables"))
    }

    async fn remove_network(&self, name: &str) -> external::Result<()> {
        let wanted = name.to_owned();
        self.ask("remove the network", name, move |c| {
            let Some(network) = find_network(c, &wanted)? else { return Ok(()) };
            if network.is_active()? {
                network.destroy()?;
            }
            network.undefine()
        })
        .await
    }

    async fn owned_networks(&self) -> external::Result<Vec<OwnedNetwork>> {
        self.ask("list the networks of", &self.uri, |c| {
            let mut owned = Vec::new();
            for network in c.list_all_networks(0)? {
                let owner = network.xml_desc(0).ok().and_then(|text| xml::owner(&text));
                let stack = owner.and_then(|(stack, _)| Uuid::parse_str(&stack).ok());
                owned.extend(stack.map(|stack| Ok(OwnedNetwork { name: network.name()?, stack })));
            }
            owned.into_iter().collect()
        })
        .await
    }
}

/// The network of that name, `None` where there is none.
fn find_network(connection: &Connect, name: &str) -> Result<Option<Network>, virt::error::Error> {
    match connection.lookup_network_by_name(name) {
        Ok(network) => Ok(Some(network)),
        Err(error) if error.code().is(ErrorNumber::NoNetwork) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A version as people write it.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

/// `MemAvailable` of the host, MiB.
fn available_memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
