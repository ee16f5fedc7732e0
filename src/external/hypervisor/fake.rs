//! A hypervisor of a scripted world: a domain is a file, its console is written line by line, its guest is a
//! folder. Stricter than libvirt: whatever a careful caller never does is refused and noted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::Signal;

use super::network::{NetworkSpec, OwnedNetwork};
use super::{
    Acceleration, Accelerator, Disk, DiskFormat, DomainSpec, DomainState, HostFacts, Hypervisor, OwnedDomain,
};
use crate::external::remote::Depot;
use crate::external::remote::fake::FakeDepot;
use crate::external::scripted::{Domain, Fault, Power, Stage, end_processes, freeze_processes, signal_self};
use crate::external::{Class, Error, Result};

const SYSTEM: &str = "libvirt";
/// What stands in a file for the memory of a guest that waits.
const MEMORY: &[u8] = b"the memory of a guest that waits\n";

/// Plays the machines of a stage.
#[derive(Debug, Clone)]
pub struct FakeHypervisor {
    stage: Arc<Stage>,
    host: Option<String>,
    parcels: Option<FakeDepot>,
}

impl FakeHypervisor {
    /// The hypervisor of `stage`.
    pub fn new(stage: Arc<Stage>) -> FakeHypervisor {
        FakeHypervisor { stage, host: None, parcels: None }
    }

    /// That of a remote host of `stage`.
    pub fn on(stage: Arc<Stage>, host: &str) -> FakeHypervisor {
        FakeHypervisor {
            parcels: Some(FakeDepot::new(stage.clone(), host)),
            stage,
            host: Some(host.to_owned()),
        }
    }

    /// The domains of its host.
    fn domains(&self) -> Vec<Domain> {
        self.stage.domains().into_iter().filter(|domain| domain.host == self.host).collect()
    }

    /// Memory and processors of its host.
    fn room(&self) -> (u64, u32) {
        match &self.host {
            None => (self.stage.script.memory, self.stage.script.cores),
            Some(host) => {
                let remote = self.stage.script.remote(host);
                (remote.memory, remote.cores)
            }
        }
    }

    async fn reachable(&self) -> Result<()> {
        self.stage.reachable(self.host.as_deref()).await
    }

    /// Its domain of that name.
    fn domain(&self, name: &str) -> Option<Domain> {
        self.stage.domain(name).filter(|domain| domain.host == self.host)
    }

    fn refused(operation: &'static str, subject: &str, class: Class, words: &str) -> Error {
        Error::new(SYSTEM, operation, subject, class, words)
    }

    /// What must hold when a domain starts.
    fn check(&self, domain: &Domain) -> Result<()> {
        let careless = |what: &str| Err(self.stage.careless("start", &domain.name, what));
        if matches!(domain.power, Power::On | Power::Silent) {
            return careless("it runs already");
        }
        if let Some(file) = domain.files.iter().find(|file| !file.is_file()) {
            return careless(&format!("there is no file `{}`", file.display()));
        }
        if domain.port != 0 && self.stage.ssh_at(domain).is_none() {
            return careless("its network is not there, or has no lease for it");
        }
        let others: Vec<Domain> = self.domains();
        let others = others.iter().filter(|other| other.name != domain.name && other.runs());
        let ports = |domain: &Domain| {
            std::iter::once(domain.port).filter(|port| *port != 0).chain(domain.gdb).collect::<Vec<_>>()
        };
        if others.clone().flat_map(ports).any(|port| ports(domain).contains(&port)) {
            return careless("its port belongs to another domain");
        }
        let taken: u64 = others.map(Domain::takes_mib).sum::<u64>() + domain.takes_mib();
        let (there, _) = self.room();
        if taken > there && !self.stage.script.overcommit {
            return careless(&format!("guests would have {taken} MiB of {there}"));
        }
        Ok(())
    }

    /// The root of a guest: its own programs before those of this machine.
    fn furnish(&self, domain: &Domain) -> std::io::Result<()> {
        let root = self.stage.guest(&domain.name);
        // Started again without being defined anew, it has the disk it had.
        let old = if domain.starts == 0 { root.clone() } else { root.join("run") };
        let _ = fs::remove_dir_all(old);
        for folder in ["bin", "etc", "run", "var/lib", "opt"] {
            fs::create_dir_all(root.join(folder))?;
        }
        if self.stage.script.machine(&domain.machine).kernel_log {
            fs::create_dir(root.join("dev"))?;
            fs::write(root.join("dev/kmsg"), "6,1,1000000,-;Linux version 6.1.0-fake\n")?;
        }
        let program = |name: &str, text: &str| {
            let file = root.join("bin").join(name);
            fs::write(&file, format!("#!/bin/sh\n{text}\n"))?;
            fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        };
        let release = self.stage.script.machine(&domain.machine).release;
        let release = release.unwrap_or_else(|| "6.1.0-fake".to_owned());
        // However full the disk of this machine is, the guest's has room.
        program("df", "printf 'Filesystem\\n/dev/vda 100 10 90 10%% /\\n'")?;
        program("dmesg", &format!("echo '[    0.000000] Linux version {release}'"))?;
        match domain.fault {
            Fault::FactsHang => program("uname", "sleep 600")?,
            Fault::FactsMute => return program("uname", "exit 1"),
            _ => program(
                "uname",
                &format!(
                    "case $1 in -m) echo x86_64;; -rm) echo {release} x86_64;; *) echo {release};; esac"
                ),
            )?,
        }
        // The clock of this host is not its to set.
        program("date", "echo \"$@\" >>\"$KMT_GUEST/clock\"")?;
        if domain.fault == Fault::DiskFull {
            program(
                "tar",
                "cat >/dev/null; echo 'tar: x: Cannot write: No space left on device' >&2; exit 2",
            )?;
        }
        fs::write(root.join("etc/os-release"), "ID=debian\nVERSION_ID=12\n")
    }

    /// A boot, as its console tells it.
    async fn boot(self, domain: Domain) {
        let stage = &self.stage;
        let fault = domain.fault;
        for (line, last) in [
            ("SeaBIOS (version 1.16.2)", Fault::StuckFirmware),
            ("[    0.000000] Linux version 6.1.0-fake (kmt@stage)", Fault::StuckKernel),
            ("kmt-init: root is vda", Fault::StuckInit),
            ("kmt-init: network eth0 10.0.2.15/24", Fault::NeverGreets),
        ] {
            if fault == Fault::Mute {
                return;
            }
            stage.say(&domain, line).await;
            let speaks = line.contains("Linux version");
            if fault == Fault::Panic && speaks {
                stage.say(&domain, "[    1.200000] VFS: Cannot open root device").await;
                stage
                    .say(&domain, "[    1.300000] Kernel panic - not syncing: VFS: Unable to mount root fs")
                    .await;
            }
            if matches!(fault, Fault::Panic | Fault::QemuDies) && speaks {
                return stage.change(&domain.name, |domain| domain.power = Power::Off);
            }
            if fault == Fault::Interrupted && speaks {
                return signal_self(Signal::INT);
            }
            if fault == last {
                return;
            }
        }
        if domain.told {
            let has_port = fault != Fault::NoPort;
            stage.say(&domain, if has_port { "kmt-warm: waiting" } else { "kmt-warm: no port" }).await;
            return stage.change(&domain.name, |domain| domain.waits = has_port);
        }
        stage.say(&domain, "kmt-init: done").await;
        stage.change(&domain.name, |domain| domain.greets = true);
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn facts(&self) -> Result<HostFacts> {
        self.reachable().await?;
        self.stage.look("facts", "the host")?;
        let running = self.domains().into_iter().filter(Domain::runs);
        let taken: u64 = running.map(|domain| domain.takes_mib()).sum();
        Ok(HostFacts {
            arch: kmt_reporters::event::Arch::host(),
            acceleration: Acceleration {
                accelerator: Accelerator::Kvm,
                cpu: "host".to_owned(),
                notice: None,
            },
            cores: self.room().1,
            memory_mib: self.room().0.saturating_sub(taken),
            qemu_user: None,
            most_vcpu: None,
            notices: Vec::new(),
            software: "QEMU of the stage".to_owned(),
        })
    }

    fn depot(&self) -> Option<&dyn Depot> {
        self.parcels.as_ref().map(|parcels| parcels as &dyn Depot)
    }

    async fn create_disk(&self, file: &Path, size: u64) -> Result<()> {
        let fail =
            |error: std::io::Error| Error::io("this machine", "write", file.display().to_string(), &error);
        fs::File::create(file).and_then(|made| made.set_len(size)).map_err(fail)
    }

    async fn create_overlay(&self, base: &Path, overlay: &Path) -> Result<()> {
        let name = overlay.display().to_string();
        let machine = overlay.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        self.reachable().await?;
        self.stage.act("create-overlay", &machine)?;
        if !base.is_file() || overlay.exists() {
            return Err(self.stage.careless("create-overlay", &name, "no base, or the overlay exists"));
        }
        self.stage.boot_begins(&machine);
        if self.stage.fault(&machine) == Fault::OverlayFull {
            let words = "qemu-img: No space left on device";
            return Err(Error::new("this machine", "run", "qemu-img", Class::Rejected, words));
        }
        fs::write(overlay, b"overlay")
            .map_err(|error| Error::io("this machine", "write", name.as_str(), &error))?;
        self.stage.done("create-overlay", &machine);
        Ok(())
    }

    async fn define(&self, spec: &DomainSpec) -> Result<()> {
        self.reachable().await?;
        self.stage.act("define", &spec.name)?;
        if let Some(known) = self.stage.domain(&spec.name) {
            if known.power != Power::Off {
                return Err(self.stage.careless("define", &spec.name, "it runs, or is saved"));
            }
            if known.uuid != spec.uuid {
                return Err(self.stage.careless("define", &spec.name, "another domain has its name"));
            }
        }
        let fault = self.stage.fault(&spec.machine);
        if fault == Fault::DefineRefused {
            let words = "unsupported configuration: machine type 'q35' is not supported";
            return Err(FakeHypervisor::refused("define", &spec.name, Class::Rejected, words));
        }
        let disk = |disk: &Disk| disk.format == DiskFormat::Qcow2 && disk.serial.is_none();
        if spec.disks.iter().filter(|d| disk(d)).count() != 1 {
            return Err(self.stage.careless("define", &spec.name, "it has not exactly one overlay"));
        }
        let files = spec.disks.iter().map(|disk| disk.file.clone());
        let direct = spec.direct.iter().flat_map(|direct| [direct.kernel.clone(), direct.initrd.clone()]);
        let files = files.chain(direct).chain([spec.console.clone()]);
        // Who boots by itself learns who it is from a disk.
        let seed = spec.disks.iter().find(|disk| disk.format == DiskFormat::Raw && disk.serial.is_none());
        let identity = spec.direct.as_ref().map(|direct| &direct.initrd).or(seed.map(|disk| &disk.file));
        let Some(identity) = identity.cloned() else {
            return Err(self.stage.careless("define", &spec.name, "nothing tells it who it is"));
        };
        self.stage.put(&Domain {
            name: spec.name.clone(),
            uuid: spec.uuid,
            stack: spec.stack,
            machine: spec.machine.clone(),
            memory_mib: spec.memory_mib,
            host: self.host.clone(),
            lan: spec.lan.clone().map(|lan| (lan, spec.mac.clone())),
            gdb: spec.gdb,
            port: spec.ssh_port,
            files: files.collect(),
            console: spec.console.clone(),
            initrd: identity,
            told: spec.identity.is_some(),
            waits: false,
            power: Power::Off,
            greets: false,
            fault,
            starts: 0,
        });
        self.stage.done("define", &spec.name);
        Ok(())
    }

    async fn start(&self, name: &str) -> Result<()> {
        self.reachable().await?;
        self.stage.act("start", name)?;
        let Some(mut domain) = self.domain(name) else {
            return Err(self.stage.careless("start", name, "there is no such domain"));
        };
        self.check(&domain)?;
        let refused = |class, words: &str| Err(FakeHypervisor::refused("start", name, class, words));
        match domain.fault {
            Fault::StartDenied => {
                return refused(
                    Class::Denied,
                    "cannot access storage file (as uid:64055): Permission denied",
                );
            }
            Fault::StartRefused => {
                return refused(Class::Rejected, "qemu-system-x86_64: -cpu host: unsupported CPU model");
            }
            Fault::PortTaken => {
                let words = "qemu-system-x86_64: -netdev user: Could not set up host forwarding rule 'tcp'";
                return refused(Class::Busy, words);
            }
            _ => {}
        }
        if domain.power == Power::Saved {
            freeze_processes(&self.stage.guest(name), Signal::CONT);
            domain.power = Power::On;
            self.stage.put(&domain);
            self.stage.done("start", name);
            return Ok(());
        }
        self.furnish(&domain).map_err(|error| Error::io(SYSTEM, "start", name, &error))?;
        domain.power = Power::On;
        domain.greets = false;
        domain.starts += 1;
        self.stage.put(&domain);
        self.stage.done("start", name);
        tokio::spawn(self.clone().boot(domain));
        Ok(())
    }

    async fn state(&self, name: &str) -> Result<Option<DomainState>> {
        self.reachable().await?;
        self.stage.look("state", name)?;
        Ok(self.domain(name).map(|domain| domain.state()))
    }

    async fn save(&self, name: &str) -> Result<()> {
        self.reachable().await?;
        self.stage.act("save", name)?;
        let Some(mut domain) = self.domain(name).filter(Domain::runs) else {
            return Err(self.stage.careless("save", name, "it does not run"));
        };
        freeze_processes(&self.stage.guest(name), Signal::STOP);
        domain.power = Power::Saved;
        self.stage.put(&domain);
        self.stage.done("save", name);
        Ok(())
    }

    async fn keep(&self, name: &str, file: &Path) -> Result<()> {
        self.stage.act("keep", name)?;
        let Some(mut domain) = self.domain(name).filter(|domain| domain.runs() && domain.waits) else {
            return Err(self.stage.careless("keep", name, "its guest does not wait to hear who it is"));
        };
        let initrd = fs::read(&domain.initrd).unwrap_or_default();
        if initrd.windows(7).any(|word| word == b"PRIVATE") {
            return Err(self.stage.careless("keep", name, "there is a private key in its memory"));
        }
        fs::write(file, MEMORY).map_err(|error| Error::io(SYSTEM, "keep the memory of", name, &error))?;
        end_processes(&self.stage.guest(name));
        domain.power = Power::Off;
        self.stage.put(&domain);
        self.stage.done("keep", name);
        Ok(())
    }

    async fn revive(&self, spec: &DomainSpec, memory: &Path) -> Result<()> {
        self.define(spec).await?;
        let name = spec.name.as_str();
        self.stage.act("revive", name)?;
        let Some(mut domain) = self.domain(name) else {
            return Err(self.stage.careless("revive", name, "there is no such domain"));
        };
        self.check(&domain)?;
        if !domain.told || fs::read(memory).unwrap_or_default() != MEMORY {
            return Err(FakeHypervisor::refused(
                "revive",
                name,
                Class::Rejected,
                "invalid save image header",
            ));
        }
        if domain.fault == Fault::PortTaken {
            let words = "qemu-system-x86_64: -netdev user: Could not set up host forwarding rule 'tcp'";
            return Err(FakeHypervisor::refused("revive", name, Class::Busy, words));
        }
        self.furnish(&domain).map_err(|error| Error::io(SYSTEM, "revive", name, &error))?;
        (domain.power, domain.waits) = (Power::On, true);
        domain.starts += 1;
        self.stage.put(&domain);
        self.stage.done("revive", name);
        Ok(())
    }

    async fn tell(&self, spec: &DomainSpec, words: &[u8]) -> Result<()> {
        let name = spec.name.as_str();
        self.stage.act("tell", name)?;
        let Some(domain) = self.domain(name).filter(|domain| domain.runs() && domain.waits) else {
            return Err(self.stage.careless("tell", name, "its guest does not wait to hear who it is"));
        };
        // What it is told must be what its initrd would have told it.
        let initrd = fs::read(&domain.initrd).unwrap_or_default();
        let text = String::from_utf8_lossy(words);
        let secret = text.lines().find_map(|line| Some(&line.as_bytes()[line.find("PRIVATE")?..]));
        if !secret.is_some_and(|secret| initrd.windows(secret.len()).any(|word| word == secret)) {
            return Err(self.stage.careless("tell", name, "it is told another key than its own"));
        }
        if domain.fault != Fault::Deaf {
            self.stage.say(&domain, "kmt-warm: mine").await;
            self.stage.change(name, |domain| (domain.waits, domain.greets) = (false, true));
        }
        self.stage.done("tell", name);
        Ok(())
    }

    async fn stop(&self, name: &str) -> Result<()> {
        self.reachable().await?;
        self.stage.act("stop", name)?;
        let Some(mut domain) = self.domain(name) else {
            return Err(self.stage.careless("stop", name, "there is no such domain"));
        };
        if domain.runs() {
            end_processes(&self.stage.guest(name));
            domain.power = Power::Off;
            self.stage.put(&domain);
        }
        self.stage.done("stop", name);
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.reachable().await?;
        self.stage.act("remove", name)?;
        self.stage.forget(name);
        self.stage.done("remove", name);
        Ok(())
    }

    async fn owned(&self) -> Result<Vec<OwnedDomain>> {
        self.reachable().await?;
        self.stage.look("owned", "the host")?;
        let owned = |domain: Domain| OwnedDomain {
            state: domain.state(),
            name: domain.name,
            stack: domain.stack,
            machine: domain.machine,
        };
        Ok(self.domains().into_iter().map(owned).collect())
    }

    async fn networks(&self) -> Result<Vec<String>> {
        self.reachable().await?;
        self.stage.look("networks", "the host")?;
        let made = self.stage.networks().into_iter().map(|network| network.subnet.to_string());
        Ok(self.stage.script.host.routes.iter().cloned().chain(made).collect())
    }

    async fn raise_network(&self, network: &NetworkSpec) -> Result<()> {
        let there = self.stage.networks();
        if there.contains(network) {
            return Ok(());
        }
        self.reachable().await?;
        self.stage.act("raise-network", &network.name)?;
        let meets = |taken: &String| network.subnet.meets(taken);
        if self.networks().await?.iter().any(meets) || there.iter().any(|other| other.name == network.name) {
            return Err(self.stage.careless("raise-network", &network.name, "its addresses are taken"));
        }
        self.stage.put_network(network);
        self.stage.done("raise-network", &network.name);
        Ok(())
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        self.reachable().await?;
        self.stage.act("remove-network", name)?;
        let uses = |domain: &Domain| domain.lan.as_ref().is_some_and(|(lan, _)| lan == name);
        if self.stage.domains().iter().any(uses) {
            return Err(self.stage.careless("remove-network", name, "a domain is in it"));
        }
        self.stage.forget_network(name);
        self.stage.done("remove-network", name);
        Ok(())
    }

    async fn owned_networks(&self) -> Result<Vec<OwnedNetwork>> {
        self.reachable().await?;
        self.stage.look("owned-networks", "the host")?;
        let owned = |network: NetworkSpec| OwnedNetwork { name: network.name, stack: network.stack };
        Ok(self.stage.networks().into_iter().map(owned).collect())
    }
}
