//! The stage: a folder where domains and guests live, whoever looks. It outlives a process that is killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fault, Script};
use crate::external::hypervisor::DomainState;
use crate::external::hypervisor::network::{NUMBERS, NetworkSpec};
use crate::external::{Class, Error, Result};

/// Variable of the environment: the step at which this process kills itself as `kill -9` would.
pub const KILL_AT: &str = "KMT_SCRIPTED_KILL_AT";
/// How long nothing passes a link that is cut.
const LINK_CUT: Duration = Duration::from_millis(1500);
/// How long a line of a console takes.
const LINE: Duration = Duration::from_millis(4);

/// Calls of the cloud.
const CLOUD: [&str; 9] = [
    "list-regions",
    "list-subnets",
    "list-offers",
    "rehearse",
    "rent",
    "list-hosts",
    "check-host",
    "read-console",
    "end-host",
];

/// What a domain's processor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It has never run, or has ended.
    Off,
    /// It runs.
    On,
    /// It runs, and its guest does not answer any more.
    Silent,
    /// Its memory is in a file; its processes are frozen.
    Saved,
}

/// A domain as the stage knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// Stack it says it belongs to.
    pub stack: Uuid,
    /// Machine of the stack.
    pub machine: String,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// The remote host it is on; none on this machine.
    #[serde(default)]
    pub host: Option<String>,
    /// Network of the host that its card is in, and the card.
    #[serde(default)]
    pub lan: Option<(String, String)>,
    /// Port of its gdb stub on this host.
    #[serde(default)]
    pub gdb: Option<u16>,
    /// Port of its SSH server on this host.
    pub port: u16,
    /// Files that must exist when it starts.
    pub files: Vec<PathBuf>,
    /// Its console.
    pub console: PathBuf,
    /// Its initrd, which holds its keys.
    pub initrd: PathBuf,
    /// Whether its guest is told who it is.
    #[serde(default)]
    pub told: bool,
    /// Whether its guest waits for that.
    #[serde(default)]
    pub waits: bool,
    /// What it does.
    pub power: Power,
    /// Whether its SSH server answers.
    pub greets: bool,
    /// What goes wrong in this boot.
    pub fault: Fault,
    /// Times it was started.
    pub starts: u32,
}

impl Domain {
    /// Whether its processor exists.
    pub fn runs(&self) -> bool {
        matches!(self.power, Power::On | Power::Silent)
    }

    /// Memory of the host that it takes, MiB: its own and QEMU's.
    pub(in crate::external) fn takes_mib(&self) -> u64 {
        u64::from(self.memory_mib) + 96
    }

    /// What a hypervisor says of it.
    pub(in crate::external) fn state(&self) -> DomainState {
        match self.power {
            Power::Off => DomainState::Off,
            Power::On | Power::Silent => DomainState::Running,
            Power::Saved => DomainState::Saved,
        }
    }
}

/// The stage of one scripted world.
#[derive(Debug)]
pub struct Stage {
    /// What is played.
    pub script: Script,
    folder: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: BTreeMap<String, u32>,
    steps: u32,
    kill_at: Option<u32>,
}

impl Stage {
    /// The stage in `folder`, which is made if it is not there.
    pub fn open(script: Script, folder: &Path) -> Stage {
        let kill_at = std::env::var(KILL_AT).ok().and_then(|text| text.parse().ok());
        for name in ["domains", "guests", "boots", "networks", "hosts"] {
            // A stage that cannot be made refuses the first call.
            let _ = fs::create_dir_all(folder.join(name));
        }
        let inner = Inner { kill_at, ..Inner::default() };
        Stage { script, folder: folder.to_path_buf(), inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that changes nothing begins: refused where the script says so.
    pub(in crate::external) fn look(&self, call: &'static str, subject: &str) -> Result<()> {
        let count = {
            let mut inner = self.inner();
            let count = inner.calls.entry(call.to_owned()).or_default();
            *count += 1;
            *count
        };
        let refused = |r: &&super::Refusal| r.call == call && count >= r.from && count - r.from < r.times;
        match self.script.refusal.iter().find(refused) {
            Some(refusal) => {
                let operation = match call {
                    "facts" | "state" => "look at",
                    "owned" => "list the domains of",
                    "create-overlay" => "make the overlay of",
                    "make-key" => "make",
                    "connect" => "log in to",
                    "rehearse" => "rehearse the launch of",
                    "rent" => "launch",
                    "end-host" => "end",
                    "list-hosts" => "list the instances in",
                    "upload" => "take a file on",
                    "hand-over" => "log in to",
                    call => call,
                };
                let of_host = ["upload", "hand-over"].contains(&call);
                let error = |system| Error::new(system, operation, subject, refusal.class, &refusal.words);
                Err(match CLOUD.contains(&call) {
                    true => error("ec2"),
                    false if of_host => error("the host"),
                    false => error("libvirt").hint("mend it"),
                })
            }
            None => Ok(()),
        }
    }

    /// A call that changes the world begins: written down, refused where the script says so, and one of the
    /// steps at which this process may be killed.
    pub(in crate::external) fn act(&self, call: &'static str, subject: &str) -> Result<()> {
        self.step("before", call, subject);
        self.append("calls", &format!("{call} {subject}"));
        self.look(call, subject)
    }

    /// A call that changes the world has changed it.
    pub(in crate::external) fn done(&self, call: &'static str, subject: &str) {
        self.step("after", call, subject);
    }

    /// A step at which this process may be killed. Comes before each change of the world, and after it.
    pub fn step(&self, when: &str, call: &str, subject: &str) {
        let mut inner = self.inner();
        inner.steps += 1;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        self.append("steps", &format!("{now} {when} {call} {subject}"));
        if inner.kill_at == Some(inner.steps) {
            signal_self(Signal::KILL);
        }
    }

    /// Notes that a caller did what it must never do; the call is refused.
    pub(in crate::external) fn careless(&self, call: &'static str, subject: &str, what: &str) -> Error {
        self.append("violations", &format!("{call} `{subject}`: {what}"));
        Error::new("the script", call, subject, Class::Rejected, what)
    }

    fn append(&self, file: &str, line: &str) {
        let opened = fs::OpenOptions::new().create(true).append(true).open(self.folder.join(file));
        let _ =
            opened.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()));
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Calls that changed the world, by all processes so far: call and subject.
    pub fn calls(&self) -> Vec<String> {
        self.lines("calls")
    }

    /// Steps at which processes could have been killed so far: the time, in milliseconds of the clock; when, call and
    /// subject.
    pub fn steps(&self) -> Vec<(u64, String)> {
        let lines = self.lines("steps");
        let step = |line: &String| {
            let (time, step) = line.split_once(' ')?;
            Some((time.parse().ok()?, step.to_owned()))
        };
        lines.iter().filter_map(step).collect()
    }

    /// What callers must never do and did.
    pub fn violations(&self) -> Vec<String> {
        self.lines("violations")
    }

    /// A place of the stage for what else there is.
    pub(in crate::external) fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join("domains").join(name)
    }

    /// The folder that is the root of a domain's guest.
    pub fn guest(&self, domain: &str) -> PathBuf {
        self.folder.join("guests").join(domain)
    }

    /// The domain of that name.
    pub fn domain(&self, name: &str) -> Option<Domain> {
        serde_json::from_slice(&fs::read(self.file(name)).ok()?).ok()
    }

    /// Every domain there is.
    pub fn domains(&self) -> Vec<Domain> {
        let Ok(listed) = fs::read_dir(self.folder.join("domains")) else { return Vec::new() };
        let names = listed.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".new")).collect();
        names.sort();
        names.iter().filter_map(|name| self.domain(name)).collect()
    }

    /// Every network there is.
    pub fn networks(&self) -> Vec<NetworkSpec> {
        let listed = fs::read_dir(self.folder.join("networks")).into_iter().flatten().flatten();
        let mut all: Vec<NetworkSpec> =
            listed.filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Writes a network down.
    pub(in crate::external) fn put_network(&self, network: &NetworkSpec) {
        let text = serde_json::to_vec(network).unwrap_or_default();
        let _ = fs::write(self.folder.join("networks").join(&network.name), text);
    }

    /// Forgets a network.
    pub(in crate::external) fn forget_network(&self, name: &str) {
        let _ = fs::remove_file(self.folder.join("networks").join(name));
    }

    /// Address and port at which the SSH server of a domain is.
    pub(in crate::external) fn ssh_at(&self, domain: &Domain) -> Option<(String, u16)> {
        let Some((lan, mac)) = &domain.lan else { return Some(("127.0.0.1".to_owned(), domain.port)) };
        let network = self.networks().into_iter().find(|network| network.name == *lan)?;
        let number = NUMBERS.into_iter().find(|number| NetworkSpec::mac(network.stack, *number) == *mac)?;
        Some((network.subnet.address(number).to_string(), 22))
    }

    /// Writes a domain down.
    pub(in crate::external) fn put(&self, domain: &Domain) {
        let _guard = self.inner();
        let beside = self.file(&format!("{}.new", domain.name));
        let text = serde_json::to_vec(domain).unwrap_or_default();
        let _ = fs::write(&beside, text).and_then(|()| fs::rename(&beside, self.file(&domain.name)));
    }

    /// Changes a domain, if it is still there.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Domain)) {
        if let Some(mut domain) = self.domain(name) {
            change(&mut domain);
            self.put(&domain);
        }
    }

    /// Ends and forgets a domain: its guest's processes and files too.
    pub fn forget(&self, name: &str) {
        let _ = fs::remove_file(self.file(name));
        end_processes(&self.guest(name));
        let _ = fs::remove_dir_all(self.guest(name));
    }

    /// A boot of a machine begins with its overlay.
    pub(in crate::external) fn boot_begins(&self, machine: &str) {
        let _ = fs::write(self.folder.join("boots").join(machine), (self.boots(machine) + 1).to_string());
    }

    /// How often something was counted before, by all processes.
    pub(in crate::external) fn count(&self, what: &str) -> u32 {
        let counted = self.lines("counts").iter().filter(|line| *line == what).count();
        self.append("counts", what);
        u32::try_from(counted).unwrap_or(u32::MAX)
    }

    fn boots(&self, machine: &str) -> usize {
        let text = fs::read_to_string(self.folder.join("boots").join(machine));
        text.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// What is to happen to the boot of a machine that began last.
    pub(in crate::external) fn fault(&self, machine: &str) -> Fault {
        let number = self.boots(machine).saturating_sub(1);
        self.script.machine(machine).boots.get(number).copied().unwrap_or_default()
    }

    /// A line on a console, after the moment that it takes.
    pub(in crate::external) async fn say(&self, domain: &Domain, line: &str) {
        tokio::time::sleep(LINE).await;
        let opened = fs::OpenOptions::new().append(true).open(&domain.console);
        let _ = opened
            .and_then(|mut file| std::io::Write::write_all(&mut file, format!("{line}\r\n").as_bytes()));
    }

    /// Something happens to a remote host: it dies (`host-dies`), reboots, comes again, or nothing passes its link for a
    /// moment.
    pub fn strike_host(&self, host: &str, what: &str) {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        if what == "host-reboots" {
            // Its machines are off when it comes again.
            for domain in self.domains().iter().filter(|domain| domain.host.as_deref() == Some(host)) {
                end_processes(&self.guest(&domain.name));
                self.change(&domain.name, |domain| domain.power = Power::Off);
            }
        }
        let text = match what {
            "host-dies" => "dead".to_owned(),
            "host-comes" => "0".to_owned(),
            _ => (now + LINK_CUT).as_millis().to_string(),
        };
        let _ = fs::write(self.folder.join("hosts").join(host), text);
    }

    /// Comes once something passes the link to a host (none is this machine, to which all passes); an error where the host
    /// is dead. Whoever strikes it is the script: without one all is well again.
    pub(in crate::external) async fn reachable(&self, host: Option<&str>) -> Result<()> {
        let Some(host) = host.filter(|host| self.script.remote.contains_key(*host)) else { return Ok(()) };
        loop {
            let text = fs::read_to_string(self.folder.join("hosts").join(host)).unwrap_or_default();
            if text == "dead" {
                let words = "No route to host";
                return Err(Error::new("ssh", "log in to", host, Class::Unreachable, words)
                    .hint("is it switched on?"));
            }
            let until = text.parse().map_or(Duration::ZERO, Duration::from_millis);
            if std::time::UNIX_EPOCH.elapsed().unwrap_or_default() >= until {
                return Ok(());
            }
            tokio::time::sleep(LINE).await;
        }
    }

    /// Whatever the guest asked the world for since the last time.
    pub(in crate::external) fn asked(&self, domain: &str) -> Option<String> {
        let file = self.guest(domain).join("control");
        let text = fs::read_to_string(&file).ok()?;
        // A shell makes the file before it writes the word.
        if !text.ends_with('\n') {
            return None;
        }
        let _ = fs::remove_file(&file);
        Some(text.trim().to_owned())
    }
}

/// Sends a signal to this very process.
pub(in crate::external) fn signal_self(signal: Signal) {
    let _ = kill_process(rustix::process::getpid(), signal);
}

/// Processes that belong to the guest at `root`: those that its commands started, and their children.
pub(in crate::external) fn processes(root: &Path) -> Vec<Pid> {
    let mark = format!("KMT_GUEST={}\0", root.display()).into_bytes();
    let Ok(listed) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut ours: Vec<i32> = numbers
        .filter(|number| {
            let environment = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        })
        .collect();
    ours.sort_unstable();
    ours.into_iter().filter_map(Pid::from_raw).collect()
}

/// Ends all processes of a guest at once: stopped first, so that none sees another end. Waits until none is left.
pub(in crate::external) fn end_processes(root: &Path) {
    for _ in 0..200 {
        let left = processes(root);
        if left.is_empty() {
            return;
        }
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &left {
                let _ = kill_process(*process, signal);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Stops all processes of a guest as they are, or lets them go on.
pub(in crate::external) fn freeze_processes(root: &Path, signal: Signal) {
    for process in processes(root) {
        let _ = kill_process(process, signal);
    }
}

impl Stage {
    /// Whether any process of any guest runs.
    pub fn busy(&self) -> bool {
        let Ok(listed) = fs::read_dir(self.folder.join("guests")) else { return false };
        listed.flatten().any(|entry| !processes(&entry.path()).is_empty())
    }
}
