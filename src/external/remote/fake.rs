//! Hosts of a scripted world: each is a part of the stage, with room of its own, and with the troubles its script says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tempfile::TempPath;
use tokio::sync::Mutex;

use super::{Brought, Checked, Depot, Gate, Login, RemoteHost, Way};
use crate::external::hypervisor::Hypervisor;
use crate::external::hypervisor::fake::FakeHypervisor;
use crate::external::process::Output;
use crate::external::scripted::{HostFault, Power, Stage};
use crate::external::transport::fake::played;
use crate::external::{Class, Error, Result};

/// Opens the hosts of a stage.
#[derive(Debug, Clone)]
pub struct FakeGate {
    stage: Arc<Stage>,
}

impl FakeGate {
    /// The gate of `stage`.
    pub fn new(stage: Arc<Stage>) -> FakeGate {
        FakeGate { stage }
    }
}

#[async_trait]
impl Gate for FakeGate {
    fn open(&self, host: &RemoteHost, _: &Way) -> Arc<dyn Hypervisor> {
        Arc::new(FakeHypervisor::on(self.stage.clone(), &host.name))
    }

    async fn close(&self, way: &Way) {
        self.stage.act("close", &way.alias).unwrap_or_default();
    }

    async fn check(&self, host: &RemoteHost, way: &Way) -> Result<Checked> {
        self.stage.act("check", &host.name)?;
        let config = std::fs::read_to_string(&way.config).unwrap_or_default();
        if !config.contains(&format!("\nHost {}\n  HostName {}\n", way.alias, host.address)) {
            return Err(self.stage.careless("check", &host.name, "its configuration is not written"));
        }
        let refused = |class, system, operation, words: &str, hint: &str| {
            Err(Error::new(system, operation, &host.name, class, words).hint(hint))
        };
        let script = self.stage.script.remote(&host.name);
        match script.fault {
            HostFault::Well => {
                self.stage.reachable(Some(&host.name)).await?;
                Ok(Checked { free_mib: Some(script.free_mib) })
            }
            HostFault::RefusesLogin => refused(
                Class::Denied,
                "ssh",
                "log in to",
                "Permission denied (publickey).",
                "`key` and `host-key` of its `[[host]]` say how to log in and what its key is",
            ),
            HostFault::Down => {
                refused(Class::Unreachable, "ssh", "log in to", "No route to host", "is it switched on?")
            }
            HostFault::NoLibvirt => refused(
                Class::NotFound,
                "the host",
                "give machines",
                "no libvirt listens on it",
                "as root there: apt-get install qemu-system qemu-utils libvirt-daemon-system",
            ),
        }
    }
}

/// The store of a host of a stage. Who logs in from there is checked as OpenSSH would.
#[derive(Debug, Clone)]
pub struct FakeDepot {
    stage: Arc<Stage>,
    host: String,
    /// Held while a parcel is brought.
    turn: Arc<Mutex<()>>,
}

impl FakeDepot {
    /// That of the host of that name.
    pub fn new(stage: Arc<Stage>, host: &str) -> FakeDepot {
        FakeDepot { stage, host: host.to_owned(), turn: Arc::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.stage.place("parcels").join(&self.host).join(name)
    }

    fn unwritten(&self, error: &std::io::Error) -> Error {
        Error::io("the host", "take a file on", self.host.as_str(), error)
    }
}

#[async_trait]
impl Depot for FakeDepot {
    async fn bring(&self, name: &str, make: BoxFuture<'_, Result<TempPath>>) -> Result<Brought> {
        let _turn = self.turn.lock().await;
        self.stage.reachable(Some(&self.host)).await?;
        let there = self.at(name);
        if let Ok(meta) = std::fs::metadata(&there) {
            return Ok(Brought { sent: 0, size: meta.len() });
        }
        let file = make.await?;
        self.stage.act("upload", &self.host)?;
        let taken = std::fs::create_dir_all(there.parent().unwrap_or(Path::new("/")))
            .and_then(|()| std::fs::copy(&file, &there));
        let size = taken.map_err(|error| self.unwritten(&error))?;
        self.stage.done("upload", &self.host);
        Ok(Brought { sent: size, size })
    }

    async fn feed(&self, name: &str, guest: &Login, argv: &[&str]) -> Result<Output> {
        let refused = |class, words: &str| Err(Error::new("the host", "log in to", &self.host, class, words));
        self.stage.reachable(Some(&self.host)).await?;
        let at = (guest.address.to_string(), guest.port);
        let of_host =
            self.stage.domains().into_iter().filter(|domain| domain.host.as_ref() == Some(&self.host));
        let mut there = of_host.filter(|domain| self.stage.ssh_at(domain).as_ref() == Some(&at));
        let Some(domain) = there.find(|domain| domain.power == Power::On && domain.greets) else {
            return refused(Class::Unreachable, "Connection refused");
        };
        self.stage.act("hand-over", &domain.machine)?;
        let initrd = std::fs::read(&domain.initrd).unwrap_or_default();
        let injected =
            |key: &str| !key.is_empty() && initrd.windows(key.len()).any(|bytes| bytes == key.as_bytes());
        let login = std::fs::read_to_string(guest.key.with_extension("pub")).unwrap_or_default();
        let login: Vec<&str> = login.split_whitespace().take(2).collect();
        if !injected(&guest.host_key) || !injected(&login.join(" ")) || !guest.key.is_file() {
            return refused(Class::Denied, "Permission denied (publickey).");
        }
        let (Some((program, args)), Ok(mut parcel)) =
            (argv.split_first(), tokio::fs::File::open(self.at(name)).await)
        else {
            return Err(self.stage.careless("hand-over", &domain.machine, "the parcel was not brought"));
        };
        let child = played(&self.stage.guest(&domain.name), Path::new(program)).args(args);
        let output = child.fed(&mut parcel).await;
        self.stage.reachable(Some(&self.host)).await?;
        self.stage.done("hand-over", &domain.machine);
        output
    }
}
