//! libvirt on another host, by its own socket, which is led here through the connection that all commands share.
//!
//! `qemu+ssh` through the same connection was measured beside that, from `virsh` to a libvirtd in a network namespace on a
//! busy machine: it opens and lists in 0.63 to 0.80 s, since a shell and a helper have to be started over there, this way in
//! 0.07 to 0.11 s. What it would give, a connection that makes itself again, is done here: a question that finds the
//! socket dead has it led here once more, and asks again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use kmt_reporters::event::Arch;
use tokio::sync::{Mutex, OnceCell};

use super::depot::Parcels;
use super::facts::{Facts, acceleration, facts};
use super::files::Files;
use super::shell::Shell;
use super::{Checked, Depot, RemoteHost, Way};
use crate::external::hypervisor::libvirt::{Libvirt, most_vcpu};
use crate::external::hypervisor::network::{NetworkSpec, OwnedNetwork};
use crate::external::hypervisor::{
    Disk, DiskFormat, DomainSpec, DomainState, HostFacts, Hypervisor, OwnedDomain,
};
use crate::external::{Class, Error, Result};

/// Makes an overlay of `$1`, whose format is `$2`.
const OVERLAY: &str = r#"exec qemu-img create -q -f qcow2 -F "$2" -b "$1" "$3""#;
/// Makes a sparse disk with an empty file system.
const DISK: &str = r#"rm -f "$1" && truncate -s "$2" "$1" && PATH=$PATH:/usr/sbin:/sbin exec mke2fs -q -F -t ext4 -m 0 "$1""#;
/// Gives files to QEMU's user, and has an empty console.
const GIVE: &str = r#"
owner=$1; console=$2; shift; : >"$console" || exit
if [ "$owner" != - ]; then
  [ "$(id -u)" = 0 ] && exec chown "$owner" -- "$@"
  chmod a+r "$console" && exec sudo -n chown "$owner" -- "$@"
fi"#;

/// The hypervisor of another host.
pub(super) struct RemoteLibvirt {
    host: RemoteHost,
    shell: Arc<Shell>,
    files: Files,
    parcels: Parcels,
    libvirt: Libvirt,
    /// The socket here.
    socket: PathBuf,
    facts: OnceCell<Facts>,
    /// Whether the socket was led here; held while that is done.
    linked: Mutex<bool>,
}

impl RemoteLibvirt {
    pub(super) fn new(host: &RemoteHost, way: &Way) -> RemoteLibvirt {
        let shell = Arc::new(Shell::new(way));
        let socket = way.sockets.join("libvirt");
        RemoteLibvirt {
            host: host.clone(),
            files: Files::new(shell.clone(), &host.folder),
            parcels: Parcels::new(shell.clone(), &host.folder),
            libvirt: Libvirt::new(format!("qemu+unix:///system?socket={}", socket.display()), &way.cache),
            shell,
            socket,
            facts: OnceCell::new(),
            linked: Mutex::new(false),
        }
    }

    async fn seen(&self) -> Result<&Facts> {
        self.facts.get_or_try_init(|| facts(&self.shell, &self.host)).await
    }

    /// Has the daemon's socket here.
    async fn link(&self) -> Result<()> {
        let socket = &self.seen().await?.socket;
        let mut linked = self.linked.lock().await;
        if !*linked {
            // The connection first: a socket is led through one that is there.
            self.shell.must("ask", "true", &[], Vec::new()).await?;
            self.shell.forward(&self.socket, socket).await?;
            *linked = true;
        }
        Ok(())
    }

    /// Asks libvirt; where its socket leads nowhere any more, once again over a new one.
    async fn ask<T, F: Future<Output = Result<T>>>(&self, question: impl Fn() -> F) -> Result<T> {
        self.link().await.map_err(|error| self.named(error))?;
        match question().await {
            Err(error) if error.class == Class::Unreachable => {
                *self.linked.lock().await = false;
                self.link().await.map_err(|error| self.named(error))?;
                question().await.map_err(|error| self.named(error))
            }
            done => done.map_err(|error| self.named(error)),
        }
    }

    /// Says which host an error is of.
    fn named(&self, mut error: Error) -> Error {
        if error.system == "libvirt" && !error.subject.contains(&self.host.name) {
            error.subject = format!("{} on {}", error.subject, self.host.name);
        }
        error
    }

    /// Where a file of a domain lies on the host; one that machines share is brought there.
    async fn there(&self, file: &Path) -> Result<PathBuf> {
        match self.files.own(file) {
            Some(there) => Ok(there),
            None => self.files.shared(file).await.map(PathBuf::from),
        }
    }
}

#[async_trait]
impl Hypervisor for RemoteLibvirt {
    async fn facts(&self) -> Result<HostFacts> {
        let seen = facts(&self.shell, &self.host).await?;
        let known = self.seen().await?;
        let acceleration = acceleration(&self.shell, known).await?;
        let qemu_user = self.ask(|| self.libvirt.qemu_user()).await?;
        let free = seen.memory_mib;
        Ok(HostFacts {
            arch: known.arch,
            software: String::new(),
            most_vcpu: most_vcpu(&acceleration),
            acceleration,
            cores: self.host.cores.map_or(seen.cores, |most| most.min(seen.cores)),
            memory_mib: self.host.memory_mib.map_or(free, |most| most.min(free)),
            qemu_user,
            notices: Vec::new(),
        })
    }

    fn depot(&self) -> Option<&dyn Depot> {
        Some(&self.parcels)
    }

    async fn begin(&self, name: &str, folder: &Path) -> Result<()> {
        self.files.begin(name, folder).await
    }

    async fn create_overlay(&self, base: &Path, overlay: &Path) -> Result<()> {
        let format = if crate::external::hypervisor::libvirt::is_qcow2(base) { "qcow2" } else { "raw" };
        let base = self.files.shared(base).await?;
        let overlay = self.there(overlay).await?.display().to_string();
        self.shell.must("make a disk on", OVERLAY, &[&base, format, &overlay], Vec::new()).await.map(drop)
    }

    async fn create_disk(&self, file: &Path, size: u64) -> Result<()> {
        let file = self.there(file).await?.display().to_string();
        self.shell.must("make a disk on", DISK, &[&file, &size.to_string()], Vec::new()).await.map(drop)
    }

    async fn define(&self, spec: &DomainSpec) -> Result<()> {
        let user = self.ask(|| self.libvirt.qemu_user()).await?;
        let mut there = spec.clone();
        if let Some(boot) = &mut there.direct {
            boot.kernel = self.there(&boot.kernel).await?;
            boot.initrd = self.files.give(&boot.initrd, "0600").await?;
        }
        there.console = self.there(&spec.console).await?;
        for disk in &mut there.disks {
            // What was written here for this machine alone goes along; what was made there is there.
            let file = match disk.format {
                DiskFormat::Raw if disk.file.is_file() => self.files.give(&disk.file, "0600").await?,
                _ => self.there(&disk.file).await?,
            };
            *disk = Disk { file, ..disk.clone() };
        }
        let own = there.direct.iter().map(|boot| &boot.initrd).chain([&there.console]).chain(
            there.disks.iter().filter(|disk| disk.format != DiskFormat::RawReadOnly).map(|disk| &disk.file),
        );
        let owner = user.map_or("-".to_owned(), |(user, group)| format!("{user}:{group}"));
        let console = there.console.display().to_string();
        let own: Vec<String> = own.map(|file| file.display().to_string()).collect();
        let args: Vec<&str> =
            [owner.as_str(), &console].into_iter().chain(own.iter().map(String::as_str)).collect();
        self.shell.must("give QEMU the disks on", GIVE, &args, Vec::new()).await?;
        self.ask(|| self.libvirt.define_as(&there, user)).await
    }

    async fn follow(&self, name: &str, console: &Path) -> Result<()> {
        self.files.follow(name, console);
        Ok(())
    }

    async fn start(&self, name: &str) -> Result<()> {
        self.ask(|| self.libvirt.start(name)).await
    }

    async fn save(&self, name: &str) -> Result<()> {
        self.ask(|| self.libvirt.save(name)).await
    }

    async fn stop(&self, name: &str) -> Result<()> {
        self.ask(|| self.libvirt.stop(name)).await
    }

    async fn state(&self, name: &str) -> Result<Option<DomainState>> {
        self.ask(|| self.libvirt.state(name)).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.ask(|| self.libvirt.remove(name)).await?;
        self.files.end(name).await
    }

    async fn owned(&self) -> Result<Vec<OwnedDomain>> {
        self.ask(|| self.libvirt.owned()).await
    }

    async fn networks(&self) -> Result<Vec<String>> {
        let routes = self.shell.must("look at the routes of", "cat /proc/net/route", &[], Vec::new()).await?;
        let known = self.ask(|| self.libvirt.known_networks()).await?;
        Ok(known.into_iter().chain(crate::external::host::networks(&routes.text())).collect())
    }

    async fn raise_network(&self, network: &NetworkSpec) -> Result<()> {
        self.ask(|| self.libvirt.raise_network(network)).await
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        self.ask(|| self.libvirt.remove_network(name)).await
    }

    async fn owned_networks(&self) -> Result<Vec<OwnedNetwork>> {
        self.ask(|| self.libvirt.owned_networks()).await
    }
}

/// Whether a host has what machines need, and its architecture is what was said.
pub(super) async fn check(host: &RemoteHost, way: &Way) -> Result<Checked> {
    let shell = Shell::new(way);
    let seen = facts(&shell, host).await?;
    if seen.arch != host.arch {
        let words = format!("it is of {}, and is said to be of {}", seen.arch, host.arch);
        return Err(Error::new("the host", "use", &host.name, Class::Rejected, words)
            .hint(format!("`arch = \"{}\"` in its `[[host]]`", seen.arch)));
    }
    Ok(Checked { free_mib: seen.free_mib })
}

/// The architecture of what `uname -m` says.
pub(super) fn arch_of(machine: &str) -> Option<Arch> {
    match machine {
        "x86_64" => Some(Arch::X86_64),
        "aarch64" | "arm64" => Some(Arch::Arm64),
        _ => None,
    }
}
