//! The door to virtual machines: define, start, look, remove.
//!
//! Owns what a domain is asked to be ([`DomainSpec`]) and what is seen ([`OwnedDomain`]). Does not know
//! why a machine is wanted. To add a hypervisor, implement [`Hypervisor`] and name it in `world.rs`.

pub mod fake;
pub mod libvirt;
pub mod network;
pub(super) mod probe;
mod saved;
mod xml;

use std::path::PathBuf;

use async_trait::async_trait;
use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::remote::Depot;
use crate::external;
use network::{NetworkSpec, OwnedNetwork};

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The Linux kernel's.
    Kvm,
    /// macOS's.
    Hvf,
    /// QEMU's own emulation: works everywhere, several times slower.
    Tcg,
}

impl Accelerator {
    /// QEMU's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Hvf => "hvf",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// The accelerator and CPU model that were seen to run a guest on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceleration {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// QEMU's CPU model under it.
    pub cpu: String,
    /// Why not a better one, in one line.
    pub notice: Option<String>,
}

/// What a host is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Its architecture.
    pub arch: Arch,
    /// How guests run.
    pub acceleration: Acceleration,
    /// Processors.
    pub cores: u32,
    /// Memory that could be given to guests now, MiB.
    pub memory_mib: u64,
    /// User and group QEMU runs as, where that is not us.
    pub qemu_user: Option<(u32, u32)>,
    /// Most virtual processors a guest should get, where more would not be sound.
    pub most_vcpu: Option<u32>,
    /// What makes this host slower or weaker than it need be, one line each with the remedy.
    pub notices: Vec<String>,
    /// The programs that write and read the memory of guests, with their versions: what others wrote is not read.
    pub software: String,
}

impl HostFacts {
    /// How guests of that architecture run: as seen where it is the host's, emulated where it is foreign.
    pub fn acceleration_of(&self, arch: Arch) -> Acceleration {
        if arch == self.arch {
            self.acceleration.clone()
        } else {
            Acceleration { accelerator: Accelerator::Tcg, cpu: "max".to_owned(), notice: None }
        }
    }
}

/// What the guest's network reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuestNetwork {
    /// Nothing: only our SSH forward reaches in.
    #[default]
    #[serde(alias = "user")]
    Closed,
    /// The world, through the host.
    Outbound,
    /// The world through the host, and in a network of the stack's own its other machines and the host: machines have
    /// addresses. Needs `qemu:///system`.
    Nat,
}

impl GuestNetwork {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            GuestNetwork::Closed => "closed",
            GuestNetwork::Outbound => "outbound",
            GuestNetwork::Nat => "nat",
        }
    }
}

/// A disk of a domain, in the order the guest sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub file: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Serial number by which the guest finds it; the disks of the image have none.
    pub serial: Option<String>,
}

/// How a disk's bytes lie in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// Writable overlay.
    Qcow2,
    /// Plain bytes, given read-only and shared between guests.
    RawReadOnly,
    /// Plain bytes.
    Raw,
}

/// A kernel for direct boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectBoot {
    /// Its image.
    pub kernel: PathBuf,
    /// Initial RAM file system, which says who the machine is.
    pub initrd: PathBuf,
    /// Its command line.
    pub cmdline: String,
}

/// A domain to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    /// Name, unique on the host.
    pub name: String,
    /// Identity of the domain.
    pub uuid: Uuid,
    /// Stack it belongs to; kept in the domain's metadata.
    pub stack: Uuid,
    /// Machine id within the stack; kept in the domain's metadata.
    pub machine: String,
    /// Architecture of the guest.
    pub arch: Arch,
    /// QEMU's machine type, where it is not the usual one of the architecture.
    pub machine_type: Option<String>,
    /// Accelerator and CPU model.
    pub acceleration: Acceleration,
    /// Virtual processors.
    pub vcpu: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// What is booted without the help of the first disk; none where that boots by itself.
    pub direct: Option<DirectBoot>,
    /// Disks: vda, vdb, …
    pub disks: Vec<Disk>,
    /// File the serial console is appended to. Exists before the start.
    pub console: PathBuf,
    /// Loopback port of the host that leads to the guest's port 22; 0 where nothing leads in.
    pub ssh_port: u16,
    /// Loopback port of the host on which a gdb stub of its processor listens, where one is wanted.
    pub gdb: Option<u16>,
    /// MAC address of its one card.
    pub mac: String,
    /// What its network reaches.
    pub network: GuestNetwork,
    /// Network of the hypervisor that its card is in, instead of one of QEMU's own.
    pub lan: Option<String>,
    /// Beginning of the names of two pipes, `.in` and `.out`, behind a port on which the guest is told who it is, where
    /// it does not know it from its initrd. [`Hypervisor::define`] makes them.
    pub identity: Option<PathBuf>,
}

/// Whether a domain's processor exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainState {
    /// QEMU runs.
    Running,
    /// QEMU exists and does not run the guest.
    Paused,
    /// There is no QEMU; the guest's memory is kept in a file, and it goes on from there when it is started.
    Saved,
    /// There is no QEMU.
    Off,
}

/// A domain that says it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedDomain {
    /// Its name.
    pub name: String,
    /// Stack in its metadata.
    pub stack: Uuid,
    /// Machine in its metadata.
    pub machine: String,
    /// Its state.
    pub state: DomainState,
}

/// Runs virtual machines on one host.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Looks at the host: reachable, how guests run, what is free.
    async fn facts(&self) -> external::Result<HostFacts>;

    /// The store of its host for guests, where what they get comes over a link to it; none on this machine.
    fn depot(&self) -> Option<&dyn Depot> {
        None
    }

    /// The machine of the domain `name` is about to be made; its files are those in `folder`. A host elsewhere makes a
    /// folder for it, and takes what was there away.
    async fn begin(&self, _name: &str, _folder: &std::path::Path) -> external::Result<()> {
        Ok(())
    }

    /// Has what the machine writes to its console come into the file `console` here, where that lies elsewhere, for as
    /// long as this process lives. Idempotent.
    async fn follow(&self, _name: &str, _console: &std::path::Path) -> external::Result<()> {
        Ok(())
    }

    /// Makes a writable overlay over `base` (raw or qcow2), readable by QEMU's user. Sparse.
    async fn create_overlay(&self, base: &std::path::Path, overlay: &std::path::Path)
    -> external::Result<()>;

    /// Makes a sparse disk of `size` bytes with an empty ext4, readable by QEMU's user; replaces a file of that name.
    async fn create_disk(&self, file: &std::path::Path, size: u64) -> external::Result<()>;

    /// Makes the domain known; replaces one of the same name and uuid.
    async fn define(&self, spec: &DomainSpec) -> external::Result<()>;

    /// Starts a defined domain, or lets a saved one go on. `Busy` where its port was taken meanwhile.
    async fn start(&self, name: &str) -> external::Result<()>;

    /// Keeps the memory of a running domain in a file and ends QEMU: the host has the memory back.
    async fn save(&self, name: &str) -> external::Result<()>;

    /// Writes the memory of a running domain to `file`, for [`Hypervisor::revive`], and ends QEMU. It stays defined.
    async fn keep(&self, name: &str, _file: &std::path::Path) -> external::Result<()> {
        Err(elsewhere(name))
    }

    /// Makes the domain known and has it go on from `memory`, which another one of the same hardware left. Its disks must
    /// be what they were then. `Busy` where its port was taken meanwhile.
    async fn revive(&self, spec: &DomainSpec, _memory: &std::path::Path) -> external::Result<()> {
        Err(elsewhere(&spec.name))
    }

    /// Writes to the port on which the guest of a running domain waits to hear who it is.
    async fn tell(&self, spec: &DomainSpec, _words: &[u8]) -> external::Result<()> {
        Err(elsewhere(&spec.name))
    }

    /// Ends a running domain as if its power failed; it stays defined. Nothing to do where it is off.
    async fn stop(&self, name: &str) -> external::Result<()>;

    /// Its state; `None` where there is none of that name.
    async fn state(&self, name: &str) -> external::Result<Option<DomainState>>;

    /// Ends and forgets it. Idempotent.
    async fn remove(&self, name: &str) -> external::Result<()>;

    /// All domains with our metadata.
    async fn owned(&self) -> external::Result<Vec<OwnedDomain>>;

    /// Networks that the host has a route to, or that its hypervisor may have, such as `192.168.122.0/24`.
    async fn networks(&self) -> external::Result<Vec<String>>;

    /// Makes the network known and has it up. Idempotent.
    async fn raise_network(&self, network: &NetworkSpec) -> external::Result<()>;

    /// Ends and forgets the network of that name. Idempotent.
    async fn remove_network(&self, name: &str) -> external::Result<()>;

    /// All networks with our metadata.
    async fn owned_networks(&self) -> external::Result<Vec<OwnedNetwork>>;
}

/// What is done on this machine only.
fn elsewhere(domain: &str) -> external::Error {
    let class = external::Class::Rejected;
    external::Error::new(
        "the host",
        "start warm",
        domain,
        class,
        "only machines of this host start from templates",
    )
}
