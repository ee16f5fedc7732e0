//! The hosts machines run on: this one, and others that are reached by SSH.
//!
//! Owns which hypervisor a machine's record means ([`Hosts`]), the OpenSSH configuration of a host ([`config`]), and which
//! cell goes to which host ([`place`]). Does not hire hosts nor end them, and does not know how a host is reached
//! (`external::remote`). To add hosts from elsewhere, give [`RemoteHost`]s to [`place`]: a stack writes down those that its
//! machines are on.

pub mod config;
pub mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::Digest as _;

use crate::error::{Failure, Result};
use crate::external::hypervisor::Hypervisor;
use crate::external::remote::{Checked, Gate, RemoteHost, Way};
use crate::settings::Home;
use crate::stack::{MachineRecord, StackRecord};

/// The hypervisors of this machine and of others, each opened once.
pub struct Hosts {
    here: Arc<dyn Hypervisor>,
    gate: Arc<dyn Gate>,
    home: Home,
    open: Mutex<BTreeMap<String, Opened>>,
}

/// A host as it was when it was opened, and its hypervisor.
type Opened = (RemoteHost, Arc<dyn Hypervisor>);

impl Hosts {
    /// This machine's hypervisor, and the gate to others.
    pub fn new(here: Arc<dyn Hypervisor>, gate: Arc<dyn Gate>, home: &Home) -> Hosts {
        Hosts { here, gate, home: home.clone(), open: Mutex::default() }
    }

    /// The hypervisor of this machine.
    pub fn here(&self) -> Arc<dyn Hypervisor> {
        self.here.clone()
    }

    /// The hypervisor of that host.
    ///
    /// # Errors
    /// Its configuration cannot be written.
    pub fn of(&self, host: &RemoteHost) -> Result<Arc<dyn Hypervisor>> {
        let way = self.way(host)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, hypervisor)) = open.get(&host.name)
            && known == host
        {
            return Ok(hypervisor.clone());
        }
        let hypervisor = self.gate.open(host, &way);
        open.insert(host.name.clone(), (host.clone(), hypervisor.clone()));
        Ok(hypervisor)
    }

    /// The hypervisor that a machine of that stack is on.
    ///
    /// # Errors
    /// The record does not say what its host is, or the host's configuration cannot be written.
    pub fn of_machine(&self, stack: &StackRecord, machine: &MachineRecord) -> Result<Arc<dyn Hypervisor>> {
        match &machine.host {
            None => Ok(self.here()),
            Some(name) => self.of(stack.host(name)?),
        }
    }

    /// How a host's SSH server is named; its configuration is written with that.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn way(&self, host: &RemoteHost) -> Result<Way> {
        let folder = folder_of(&self.home, host);
        config::write(&folder, host)?;
        Ok(Way {
            alias: host.alias(),
            config: folder.join(config::CONFIG),
            sockets: sockets(host),
            cache: folder,
        })
    }

    /// Whether a host can be used now.
    ///
    /// # Errors
    /// It refuses the login, does not answer, or lacks something, with a hint.
    pub async fn check(&self, host: &RemoteHost) -> Result<Checked> {
        let way = self.way(host)?;
        self.gate.check(host, &way).await.map_err(Failure::from)
    }

    /// Ends what is kept open to a host between commands.
    pub async fn close(&self, host: &RemoteHost) {
        if let Ok(way) = self.way(host) {
            self.gate.close(&way).await;
        }
    }
}

/// Folder of what is kept of a host on this machine.
fn folder_of(home: &Home, host: &RemoteHost) -> PathBuf {
    home.root.value.join("hosts").join(&host.name)
}

/// Folder of a host's control sockets: short, as socket paths must be, and the same for whoever names the host, so that
/// one login serves all.
pub fn sockets(host: &RemoteHost) -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let text = format!("{}\n{}\n{}\n{:?}", host.address, host.port, host.user, host.host_key);
    let digest = hex::encode(&sha2::Sha256::digest(text.as_bytes())[..6]);
    Path::new("/tmp").join(format!("kmt-hosts-{user}")).join(digest)
}
