//! What a scripted world is told to do: `world.toml`. Unknown keys are errors.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::CloudScript;
use crate::external::Class;
use crate::external::host::HostState;
use crate::external::store::fake::Published;
use crate::machine::Deadlines;
use crate::settings::file::parse_duration;

/// The whole script.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Script {
    /// Processors of the host.
    pub cores: u32,
    /// Memory of the host that guests could have, MiB.
    pub memory: u64,
    /// Whether guests may have more than that.
    pub overcommit: bool,
    /// Whether machines start from templates.
    pub warm: bool,
    /// Deadlines that differ from the real ones, by name.
    #[serde(deserialize_with = "durations")]
    pub deadlines: BTreeMap<String, Duration>,
    /// Machines by the beginning of their id.
    pub machine: BTreeMap<String, MachineScript>,
    /// Packages of the component.
    pub package: Vec<PackageScript>,
    /// Calls that are refused.
    pub refusal: Vec<Refusal>,
    /// Step of Debian's tools that is refused (see `FakeDebian`).
    pub debian: Option<String>,
    /// Files that a server of images has.
    pub published: Vec<Published>,
    /// What the machine has and allows.
    pub host: HostState,
    /// What the cloud has.
    pub cloud: CloudScript,
    /// Remote hosts by name; one that is not named has room and does all well.
    pub remote: BTreeMap<String, RemoteScript>,
}

/// What a remote host has, and what is wrong with it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RemoteScript {
    /// Processors.
    pub cores: u32,
    /// Memory that guests could have, MiB.
    pub memory: u64,
    /// Room on its disk, MiB.
    pub free_mib: u64,
    /// What is wrong.
    pub fault: HostFault,
}

impl Default for RemoteScript {
    fn default() -> RemoteScript {
        RemoteScript { cores: 4, memory: 16384, free_mib: 102_400, fault: HostFault::Well }
    }
}

/// What is wrong with a remote host when it is looked at. What happens later its guests ask for: `host-dies`,
/// `host-reboots`, `link-cut`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostFault {
    /// Nothing.
    #[default]
    Well,
    /// It knows nobody's key.
    RefusesLogin,
    /// It does not answer.
    Down,
    /// Nothing that runs machines is on it.
    NoLibvirt,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            cores: 4,
            memory: 16384,
            overcommit: false,
            warm: false,
            deadlines: BTreeMap::new(),
            machine: BTreeMap::new(),
            package: Vec::new(),
            refusal: Vec::new(),
            debian: None,
            published: Vec::new(),
            host: HostState::default(),
            cloud: CloudScript::default(),
            remote: BTreeMap::new(),
        }
    }
}

/// What a machine does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MachineScript {
    /// What happens to its first boot, its second, …; after that all goes well.
    pub boots: Vec<Fault>,
    /// Whether its kernel log can be followed.
    pub kernel_log: bool,
    /// What its `uname -r` says.
    pub release: Option<String>,
}

/// What a machine does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Nothing.
    #[default]
    Well,
    /// The disk of the host is full when its overlay is made.
    OverlayFull,
    /// The hypervisor refuses its description.
    DefineRefused,
    /// QEMU may not open a file.
    StartDenied,
    /// QEMU refuses an argument.
    StartRefused,
    /// Its port is taken meanwhile.
    PortTaken,
    /// Its console stays empty, and nothing answers.
    Mute,
    /// It stays in its firmware.
    StuckFirmware,
    /// Its kernel speaks, and nothing follows.
    StuckKernel,
    /// Its first process runs, and nothing follows.
    StuckInit,
    /// It has an address, and its SSH server never greets.
    NeverGreets,
    /// Its kernel panics before the first process.
    Panic,
    /// QEMU ends while it boots.
    QemuDies,
    /// Somebody presses Ctrl-C when its kernel speaks.
    Interrupted,
    /// It shows another host key.
    HostKey,
    /// It greets, and no login ends.
    LoginHangs,
    /// It logs us in, and no command ends.
    FactsHang,
    /// Its commands say nothing.
    FactsMute,
    /// Its disk is full when files arrive.
    DiskFull,
    /// The connection breaks while files arrive.
    ShipCut,
    /// QEMU ends while files arrive.
    ShipDeath,
    /// It goes on from a template and takes no identity.
    Deaf,
    /// Its kernel has no port on which it could be told who it is.
    NoPort,
}

/// A package of the component.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageScript {
    /// Its name.
    pub name: String,
    /// Tests by name: shell text that may call `fail`, `skip`, `sub`, `world`.
    #[serde(default)]
    pub tests: BTreeMap<String, String>,
    /// Why it does not compile, in the compiler's words.
    pub broken: Option<String>,
    /// How long its compilation takes.
    #[serde(default, deserialize_with = "duration")]
    pub compile: Duration,
    /// Shell text at the beginning of the binary, whatever it is asked.
    #[serde(default)]
    pub init: String,
}

/// A call of a door that is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Refusal {
    /// The call: `facts`, `create-overlay`, `define`, `start`, `state`, `remove`, `owned`, `make-key`, `connect`, `keep`,
    /// `revive`, `tell`; of the cloud `rehearse`, `rent`, `list-hosts`, `check-host`, `read-console`, `end-host` and others.
    pub call: String,
    /// The first one that is refused, from 1, counted in each process.
    #[serde(default = "one")]
    pub from: u32,
    /// How many are.
    #[serde(default = "one")]
    pub times: u32,
    /// As what.
    #[serde(default = "unreachable", deserialize_with = "class")]
    pub class: Class,
    /// In these words.
    #[serde(default)]
    pub words: String,
}

impl Script {
    /// Reads `world.toml`.
    ///
    /// # Errors
    /// Line, column and what was expected.
    pub fn parse(text: &str) -> Result<Script, String> {
        let script: Script = toml::from_str(text).map_err(|error| error.to_string())?;
        script.deadlines().map(|_| script)
    }

    /// The deadlines of this world.
    ///
    /// # Errors
    /// A name that is none of a deadline.
    pub fn deadlines(&self) -> Result<Deadlines, String> {
        let mut all = Deadlines::default();
        for (name, value) in &self.deadlines {
            *match name.as_str() {
                "kernel" => &mut all.kernel,
                "init" => &mut all.init,
                "network" => &mut all.network,
                "sshd" => &mut all.sshd,
                "ready" => &mut all.ready,
                "address" => &mut all.address,
                "grace" => &mut all.grace,
                "signal" => &mut all.signal,
                "pulse" => &mut all.pulse,
                "late" => &mut all.late,
                "last-words" => &mut all.last_words,
                "warm" => &mut all.warm,
                "template" => &mut all.template,
                other => return Err(format!("there is no deadline `{other}`")),
            } = *value;
        }
        Ok(all)
    }

    /// The step of Debian's tools that is refused.
    pub fn debian_step(&self) -> Option<&'static str> {
        let steps = ["ready", "refresh", "bootstrap", "unpack", "depmod", "unxz", "ext4"];
        steps.into_iter().find(|step| self.debian.as_deref() == Some(step))
    }

    /// What the script says of the remote host of that name.
    pub(in crate::external) fn remote(&self, name: &str) -> RemoteScript {
        self.remote.get(name).cloned().unwrap_or_default()
    }

    /// What the script says of the machine with this id.
    pub(in crate::external) fn machine(&self, id: &str) -> MachineScript {
        let said = self.machine.iter().filter(|(name, _)| id.starts_with(name.as_str()));
        said.max_by_key(|(name, _)| name.len()).map(|(_, machine)| machine.clone()).unwrap_or_default()
    }
}

fn one() -> u32 {
    1
}

fn unreachable() -> Class {
    Class::Unreachable
}

fn class<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Class, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(match text.as_str() {
        "not-found" => Class::NotFound,
        "denied" => Class::Denied,
        "unreachable" => Class::Unreachable,
        "busy" => Class::Busy,
        "rejected" => Class::Rejected,
        "unintelligible" => Class::Unintelligible,
        other => return Err(serde::de::Error::custom(format!("`{other}` is no class"))),
    })
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn durations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Duration>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let read = |(name, text): (String, String)| {
        parse_duration(&text).map(|value| (name, value)).map_err(serde::de::Error::custom)
    };
    texts.into_iter().map(read).collect()
}
