//! A `KMT_HOME` of one story, and the search for what it left behind.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::call::Call;
use super::program;

/// How long a process may take to be gone after the command that ended it.
const PATIENCE: Duration = Duration::from_secs(5);

/// State of one story. Dropped, it is destroyed; a story that failed leaves its runs to be looked at, until the
/// next test buries them.
pub(crate) struct Home {
    /// `KMT_HOME`.
    pub(crate) folder: PathBuf,
    seen: RefCell<Seen>,
}

/// What stacks had, even if they are gone now.
#[derive(Debug, Default)]
struct Seen {
    domains: BTreeSet<String>,
    ports: BTreeSet<u64>,
}

impl Home {
    /// A home with the caller's images and cache.
    pub(crate) fn new(story: &str) -> Home {
        let home = Home::bare(story);
        let (images, cache) = (base().join("images"), base_cache());
        let built = fs::read_dir(&images).is_ok_and(|mut entries| entries.next().is_some());
        assert!(built, "no images in {}: `cargo xtask test images` builds them", images.display());
        fs::create_dir_all(&cache).unwrap();
        symlink(images, home.folder.join("images")).unwrap();
        symlink(cache, home.folder.join("cache")).unwrap();
        home
    }

    /// A home with nothing in it.
    pub(crate) fn bare(story: &str) -> Home {
        let all = base().join("live");
        fs::create_dir_all(&all).unwrap();
        bury_the_dead(&all);
        let folder = all.join(format!("{story}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Home { folder, seen: RefCell::default() }
    }

    /// A call of `kmt-run` in this home.
    pub(crate) fn call<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Call<'_> {
        Call::new(self, args)
    }

    /// Run directories, oldest first.
    pub(crate) fn runs(&self) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(self.folder.join("runs")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect()
    }

    /// The stacks as `stack.json` has them, by folder.
    pub(crate) fn stacks(&self) -> Vec<(PathBuf, Value)> {
        let entries = fs::read_dir(self.folder.join("stacks")).into_iter().flatten().flatten();
        let read = |folder: PathBuf| {
            let text = fs::read(folder.join("stack.json")).ok()?;
            Some((folder, serde_json::from_slice(&text).ok()?))
        };
        entries.filter_map(|entry| read(entry.path())).collect()
    }

    /// Takes note of domains and ports, so that they can be looked for later.
    pub(super) fn remember(&self) {
        let mut seen = self.seen.borrow_mut();
        for (_, stack) in self.stacks() {
            let uuid = stack["uuid"].as_str().unwrap().replace('-', "");
            seen.domains.insert(format!("kmt-{}-", &uuid[..8]));
            for machine in stack["machines"].as_object().unwrap().values() {
                seen.ports.insert(machine["port"].as_u64().unwrap());
            }
        }
    }

    /// Folder of the only stack.
    pub(crate) fn stack(&self) -> PathBuf {
        let stacks = self.stacks();
        assert_eq!(stacks.len(), 1, "stacks: {stacks:?}");
        stacks[0].0.clone()
    }

    /// The ids of the machines that are written down, in all stacks.
    pub(crate) fn machines(&self) -> BTreeSet<String> {
        let stacks = self.stacks();
        let machines = stacks.iter().flat_map(|(_, stack)| stack["machines"].as_object().unwrap().keys());
        machines.cloned().collect()
    }

    /// `ssh` to a machine, as a user would who copies the line of `stack list`.
    pub(crate) fn ssh(&self, machine: &str) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.stack().join("ssh_config")).arg("-n").arg(machine);
        command
    }

    /// The domain of a machine.
    pub(crate) fn domain(&self, machine: &str) -> String {
        self.remember();
        let seen = self.seen.borrow();
        assert_eq!(seen.domains.len(), 1, "{seen:?}");
        format!("{}{machine}", seen.domains.first().unwrap())
    }

    /// Whether a name begins like a domain of this home.
    pub(crate) fn owns(&self, name: &str) -> bool {
        self.seen.borrow().domains.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Removes all stacks; then nothing may be left.
    pub(crate) fn destroy(&self) {
        self.call(["stack", "destroy", "--all", "--yes"]).end().expect(0);
        self.nothing_left();
        assert_eq!(fs::read_dir(self.folder.join("stacks")).into_iter().flatten().count(), 0);
    }

    /// Panics if a domain, process, port, control socket or file of a machine of this home is left.
    pub(crate) fn nothing_left(&self) {
        self.remember();
        let deadline = Instant::now() + PATIENCE;
        let mut left = self.left();
        while !left.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            left = self.left();
        }
        assert!(left.is_empty(), "left over:\n  {}", left.join("\n  "));
    }

    fn left(&self) -> Vec<String> {
        let seen = self.seen.borrow();
        let ours = |domain: &&str| seen.domains.iter().any(|prefix| domain.starts_with(prefix));
        let mut left: Vec<String> =
            domains().lines().filter(ours).map(|domain| format!("domain {domain}")).collect();
        left.extend(processes_with(&self.folder.display().to_string()));
        let open = seen.ports.iter().filter(|port| TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
        left.extend(open.map(|port| format!("somebody listens on port {port}")));
        for (_, stack) in self.stacks() {
            left.extend(stack["machines"].as_object().unwrap().keys().map(|id| format!("machine {id}")));
        }
        left.extend(files_below(&self.folder.join("stacks"), "machines"));
        left.extend(self.sockets());
        left
    }

    /// Control sockets of SSH connections, and their folders.
    fn sockets(&self) -> Vec<String> {
        let user = rustix::process::geteuid().as_raw();
        let of_stack = |prefix: &String| {
            let stack = prefix.trim_start_matches("kmt-").trim_end_matches('-');
            fs::read_dir(format!("/tmp/kmt-{user}-{stack}")).into_iter().flatten().flatten()
        };
        let left = self.seen.borrow().domains.iter().flat_map(of_stack).collect::<Vec<_>>();
        left.iter().map(|entry| format!("control socket {}", entry.path().display())).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        destroy_quietly(&self.folder);
        if std::thread::panicking() {
            println!("runs of the failed story: {}", self.folder.join("runs").display());
        } else {
            fs::remove_dir_all(&self.folder).unwrap();
        }
    }
}

/// The home of whoever calls the tests.
fn base() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("KMT_HOME") {
        return home;
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/kmt-run");
    }
    let data = set("XDG_DATA_HOME").unwrap_or_else(|| set("HOME").expect("HOME").join(".local/share"));
    data.join("kmt-run")
}

/// Where that home keeps downloads and build outputs.
fn base_cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if set("KMT_HOME").is_some() || rustix::process::geteuid().is_root() {
        return base().join("cache");
    }
    set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").expect("HOME").join(".cache")).join("kmt-run")
}

/// Removes the homes of tests that were killed or failed: their names end in the id of a process that is gone.
fn bury_the_dead(all: &Path) {
    for entry in fs::read_dir(all).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let pid = name.rsplit('-').next().unwrap_or_default();
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            destroy_quietly(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn destroy_quietly(home: &Path) {
    let mut command = Command::new(program());
    command.args(["stack", "destroy", "--all", "--yes"]).env("KMT_HOME", home).current_dir("/");
    let _ = command.output();
}

/// Names of all domains, one a line.
fn domains() -> String {
    let output = Command::new("virsh")
        .args(["-c", "qemu:///session", "list", "--all", "--name"])
        .output()
        .expect("virsh: apt-get install libvirt-clients");
    assert!(output.status.success(), "virsh: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Processes, not this one, with `words` in their command line.
fn processes_with(words: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().into_string().unwrap();
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid != own && pid.parse::<u32>().is_ok() && line.contains(words) {
            let shown: String = line.chars().take(160).collect();
            found.push(format!("process {pid}: {shown}"));
        }
    }
    found
}

/// The process that runs a domain.
pub(crate) fn qemu_of(domain: &str) -> rustix::process::Pid {
    let found = processes_with(&format!("guest={domain},"));
    assert_eq!(found.len(), 1, "{found:?}");
    let pid = found[0].split([' ', ':']).nth(1).unwrap().parse().unwrap();
    rustix::process::Pid::from_raw(pid).unwrap()
}

/// Files in any folder called `name` below `folder`.
fn files_below(folder: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        if entry.file_name() == name {
            let machines = fs::read_dir(entry.path()).unwrap().flatten();
            found.extend(machines.map(|machine| format!("file {}", machine.path().display())));
        } else {
            found.extend(files_below(&entry.path(), name));
        }
    }
    found
}
