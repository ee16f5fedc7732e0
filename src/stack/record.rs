//! What is written down of a stack: schema 1 of `stack.json`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use kmt_reporters::event::CellId;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use uuid::Uuid;

use super::StackSpec;
use super::rental::Rental;
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::GuestNetwork;
use crate::external::hypervisor::network::Subnet;
use crate::external::remote::{Provider, RemoteHost};
use crate::matrix::Extras;

/// Schema number of the file.
pub const SCHEMA: u32 = 1;

/// A stack as written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StackRecord {
    /// Schema number.
    pub schema: u32,
    /// Name.
    pub name: String,
    /// Identity.
    pub uuid: Uuid,
    /// Root of the repository it belongs to.
    pub repository: PathBuf,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// What it should be, once it is configured.
    #[serde(default)]
    pub spec: StackSpec,
    /// Subnet of its own network, where machines have addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// Hosts that are rented for it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rentals: BTreeMap<String, Rental>,
    /// Remote hosts that its machines are on, and those that were hired for it, by name: from before anything is made
    /// there until the last of it is gone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, RemoteHost>,
    /// Whether it was destroyed but for what is written here still: on hosts that did not let go of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub destroyed: bool,
    /// Machines by id.
    pub machines: BTreeMap<String, MachineRecord>,
}

/// How far a machine's making got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Something of it may exist. Whoever finds it so, without its maker, removes it.
    Making,
    /// A command ran in it.
    Ready,
    /// It must not be used again and is being taken away. Whoever finds it so goes on with that.
    Spoiled,
}

/// Who wanted a machine, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// A run; it may be removed when room is short.
    Run,
    /// A run that removes it at its end.
    ThrowAway,
    /// The configuration of the stack; no run removes it.
    Configured,
}

/// How a machine was put to rest by `stack pause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Its memory is kept in a file.
    Saved,
    /// It was powered off; its disk is kept.
    Off,
}

/// A machine as written down: all of it follows from this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Id, unique in the stack: the cell, and a number where there are several.
    pub id: String,
    /// The cell it is for.
    pub cell: CellId,
    /// Identity of its domain.
    pub uuid: Uuid,
    /// The remote host it is on; none on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Loopback port of its host that leads to its SSH server, unless it has an address.
    pub port: u16,
    /// Its address in the stack's own network, where it is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Loopback port of the gdb stub of its processor, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gdb: Option<u16>,
    /// MAC address of its card.
    pub mac: String,
    /// Virtual processors.
    pub vcpu: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// What it booted from: digest of image, kernel and settings. Another digest means another machine.
    pub made_of: String,
    /// Public host key, once made.
    pub host_key: Option<String>,
    /// Who wanted it.
    pub owner: Owner,
    /// How far it got.
    pub progress: Progress,
    /// How it was put to rest, from before that is done until it is up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<Rest>,
    /// What its network reaches.
    #[serde(default)]
    pub network: GuestNetwork,
    /// What else it has.
    #[serde(default, skip_serializing_if = "Extras::is_none")]
    pub extras: Extras,
    /// When it was begun.
    pub created: DateTime<Utc>,
}

impl MachineRecord {
    /// Its name in the stack's own OpenSSH configuration: its id, where `@` does not end the name of a user.
    pub fn alias(&self) -> String {
        self.id.replace('@', "-")
    }

    /// Address and port of its SSH server, as this host reaches it.
    pub fn ssh_at(&self) -> (Ipv4Addr, u16) {
        self.address.map_or((Ipv4Addr::LOCALHOST, self.port), |address| (address, 22))
    }

    /// Where it is, for people: its address, or this host's with the port that leads to it, or the host it is behind.
    pub fn place(&self) -> String {
        if let Some(host) = &self.host {
            return format!("via {host}");
        }
        self.address.map_or_else(|| format!("127.0.0.1:{}", self.port), |address| address.to_string())
    }

    /// What is typed to debug its kernel, where it has a gdb stub.
    pub fn gdb_line(&self) -> Option<String> {
        self.gdb.map(|port| format!("gdb -ex 'target remote 127.0.0.1:{port}'"))
    }
}

impl StackRecord {
    /// A stack without machines.
    pub fn new(name: &str, repository: &Path) -> StackRecord {
        StackRecord {
            schema: SCHEMA,
            name: name.to_owned(),
            uuid: Uuid::new_v4(),
            repository: repository.to_path_buf(),
            created: Utc::now(),
            spec: StackSpec::default(),
            subnet: None,
            rentals: BTreeMap::new(),
            hosts: BTreeMap::new(),
            destroyed: false,
            machines: BTreeMap::new(),
        }
    }

    /// The remote host of that name.
    ///
    /// # Errors
    /// The record does not have it.
    pub fn host(&self, name: &str) -> Result<&RemoteHost> {
        self.hosts.get(name).ok_or_else(|| {
            Failure::new(
                Kind::Internal,
                format!("stack `{}` does not say what the host `{name}` is", self.name),
            )
        })
    }

    /// Nobody wants what is left: its machines go as soon as their hosts let go of them. All of `hosts` are to be looked
    /// at then.
    pub fn is_to_go(&mut self, hosts: BTreeMap<String, RemoteHost>) {
        self.destroyed = true;
        self.spec = StackSpec::default();
        self.machines.values_mut().for_each(|machine| machine.progress = Progress::Spoiled);
        self.hosts.extend(hosts);
    }

    /// Strikes out hosts of the user's own that no machine is on any more. Hired ones stay until they are ended, and all
    /// of a stack that is to go.
    pub fn forget_unused_hosts(&mut self) {
        if self.destroyed {
            return;
        }
        let used: Vec<String> = self.machines.values().filter_map(|machine| machine.host.clone()).collect();
        self.hosts.retain(|name, host| host.provider != Provider::Own || used.contains(name));
    }

    /// Writes down a machine that is about to be made.
    pub fn add(&mut self, cell: &CellId, vcpu: u32, memory_mib: u32, port: u16) -> MachineRecord {
        let slug = cell.slug();
        let mut id = slug.clone();
        let mut number = 1;
        while self.machines.contains_key(&id) {
            number += 1;
            id = format!("{slug}.{number}");
        }
        let uuid = Uuid::new_v4();
        let digest = sha2::Sha256::digest(uuid.as_bytes());
        let record = MachineRecord {
            id: id.clone(),
            cell: cell.clone(),
            uuid,
            host: None,
            port,
            address: None,
            gdb: None,
            mac: format!("52:54:00:{:02x}:{:02x}:{:02x}", digest[0], digest[1], digest[2]),
            vcpu,
            memory_mib,
            made_of: String::new(),
            host_key: None,
            owner: Owner::Run,
            progress: Progress::Making,
            rest: None,
            network: GuestNetwork::Closed,
            extras: Extras::default(),
            created: Utc::now(),
        };
        self.machines.insert(id, record.clone());
        record
    }
}
