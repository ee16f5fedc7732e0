//! `cargo xtask setup`: what this machine lacks, and mending it.
//!
//! First everything is looked at ([`lacks`]), without one call to apt; where nothing is missing nothing
//! happens and nothing is said. What only root can do is done by this same program, called again through
//! sudo, so that there is one way and one list. Nothing is ever removed.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::IsTerminal;
use std::os::unix::fs::{PermissionsExt, chown};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Wanted;
use crate::packages::{self, DPKG_FORMAT, Need, Package};
use crate::process::{check, command, on_path, output, succeeds, words};
use crate::{apt, host};

/// Mend, or only look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Install and start what is missing.
    Mend,
    /// Only say it.
    Check,
}

/// One thing that this machine lacks. All of it is root's to mend, except [`Lack::UserNamespaces`], which the
/// owner decides.
#[derive(Debug)]
enum Lack {
    Packages { missing: Vec<Package>, suite: Option<String> },
    Kvm,
    SubIds { user: String },
    Daemon,
    UserNamespaces { cure: &'static str },
}

impl Lack {
    /// What is wrong, in words.
    fn tell(&self) -> String {
        match self {
            Self::Packages { missing, .. } => {
                let rows = missing
                    .iter()
                    .map(|row| format!("\n  {:<32} {:<6} {}", row.name, row.need.word(), row.why));
                format!("{} packages are not installed:{}", missing.len(), rows.collect::<String>())
            }
            Self::Kvm => {
                "/dev/kvm is closed to group kvm: libvirt probes QEMU again at every start, 4 s each"
                    .to_owned()
            }
            Self::SubIds { user } => {
                format!("user {user} has no subordinate ids: mmdebstrap cannot build images")
            }
            Self::Daemon => "libvirtd does not run".to_owned(),
            Self::UserNamespaces { .. } => {
                "ordinary users may not make user namespaces: mmdebstrap needs them".to_owned()
            }
        }
    }

    /// Whether kmt-run cannot work with it. A closed `/dev/kvm` only makes it slow.
    fn blocks(&self) -> bool {
        !matches!(self, Self::Kvm)
    }

    /// The commands that mend it, as one types them.
    fn commands(&self) -> String {
        match self {
            Self::Packages { missing, suite } => {
                let names = apt::names(&missing.iter().map(|row| row.name).collect::<Vec<_>>());
                let from = suite.as_ref().map(|suite| format!("    # QEMU and its firmware from {suite}"));
                let words = format!("apt-get install -y --no-install-recommends {}", names.join(" "));
                words + &from.unwrap_or_default()
            }
            Self::Kvm => "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm".to_owned(),
            Self::SubIds { user } => format!("usermod {} {user}", subid_arguments().join(" ")),
            Self::Daemon if host::has_systemd() => {
                "systemctl start virtlogd.socket libvirtd.service".to_owned()
            }
            Self::Daemon => "virtlogd -d; libvirtd -d".to_owned(),
            Self::UserNamespaces { cure } => (*cure).to_owned(),
        }
    }

    fn mend(&self) -> Result<(), String> {
        match self {
            Self::Packages { missing, suite } => {
                let names = apt::names(&missing.iter().map(|row| row.name).collect::<Vec<_>>());
                println!("setup: installing {}", names.join(" "));
                apt::install(&names, suite.as_deref())
            }
            Self::Kvm => open_kvm(),
            Self::SubIds { user } => {
                println!("setup: giving user {user} subordinate ids");
                give_subids(user)
            }
            Self::Daemon => start_daemon(),
            Self::UserNamespaces { .. } => {
                Err(format!("{}; if you agree, run `{}`", self.tell(), self.commands()))
            }
        }
    }
}

/// For whom the machine is made ready.
struct Audience {
    /// An ordinary user.
    user: Option<String>,
    /// Root, whose libvirtd does not start by itself.
    root: bool,
}

impl Audience {
    /// Whoever called, and who called sudo if that was it.
    fn caller() -> Self {
        let user = if host::is_root() { host::sudo_user() } else { Some(host::user_name()) };
        Self { user, root: host::is_root() }
    }

    /// The user that was named, else whoever called.
    fn named(user: Option<&String>) -> Self {
        match user.filter(|name| *name != "root") {
            Some(name) => Self { user: Some(name.clone()), root: false },
            None => Self::caller(),
        }
    }
}

/// The task `setup`, with its exit code.
pub(crate) fn task(wanted: &Wanted) -> Result<u8, String> {
    let audience = Audience::named(wanted.user.as_ref());
    match wanted.mode {
        Mode::Mend => ready_for(wanted.need, &audience).map(|()| 0),
        Mode::Check => {
            let lacks = lacks(wanted.need, &audience);
            for lack in &lacks {
                println!("{}\n  mend: {}", lack.tell(), lack.commands());
            }
            suggest(&audience);
            Ok(u8::from(!lacks.is_empty()))
        }
    }
}

/// Makes this machine ready, or says exactly what somebody with more rights has to run. Silent when nothing
/// is missing.
pub(crate) fn ready(need: Need) -> Result<(), String> {
    ready_for(need, &Audience::caller())
}

fn ready_for(need: Need, audience: &Audience) -> Result<(), String> {
    if lacks(need, audience).is_empty() {
        return Ok(());
    }
    if host::is_root() { mend(need, audience) } else { through_sudo(need, audience) }
}

/// Everything that is missing now.
fn lacks(need: Need, audience: &Audience) -> Vec<Lack> {
    let mut found: Vec<Lack> = missing_packages(need).into_iter().collect();
    if need == Need::Build {
        return found;
    }
    if host::kvm_is_closed() {
        found.push(Lack::Kvm);
    }
    if let Some(user) = audience.user.as_deref().filter(|user| !has_subids(user)) {
        found.push(Lack::SubIds { user: user.to_owned() });
    }
    if audience.root && ![host::VIRTLOGD_SOCKET, host::LIBVIRT_SOCKET].into_iter().all(host::answers) {
        found.push(Lack::Daemon);
    }
    if audience.user.is_some() {
        found.extend(host::closed_userns().map(|cure| Lack::UserNamespaces { cure }));
    }
    found
}

/// What of the table is not installed. A machine without dpkg is its owner's affair.
fn missing_packages(need: Need) -> Option<Lack> {
    if !on_path("dpkg-query") {
        return None;
    }
    let mut query = words(&["dpkg-query", "-W", "-f", DPKG_FORMAT, "qemu-utils"]);
    query.args(packages::TABLE.iter().map(|row| row.name));
    let installed: BTreeMap<String, String> = packages::parse_dpkg(&output(&mut query).unwrap_or_default());
    let missing = packages::missing(need, &installed, on_path);
    let codename = apt::codename(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let suite = installed.get("qemu-utils").and_then(|version| apt::backports_suite(version, &codename));
    let suite =
        suite.filter(|_| missing.iter().any(|row| row.name.starts_with("qemu") || row.name == "seabios"));
    (!missing.is_empty()).then_some(Lack::Packages { missing, suite })
}

/// As root: mends one thing after the other, and looks again after each, since packages bring groups and
/// daemons.
fn mend(need: Need, audience: &Audience) -> Result<(), String> {
    let _one_at_a_time = lock("/run/kmt-run-setup.lock");
    let mut rounds = 0;
    let mut kvm_stays = false;
    while let Some(lack) = lacks(need, audience).into_iter().find(|lack| lack.blocks() || !kvm_stays) {
        rounds += 1;
        if rounds > 8 {
            return Err(format!("mended, but still: {}", lack.tell()));
        }
        match lack.mend() {
            Ok(()) => {}
            Err(error) if lack.blocks() => return Err(error),
            Err(error) => {
                eprintln!("warning: {error}: {}", lack.tell());
                kvm_stays = true;
            }
        }
    }
    suggest(audience);
    Ok(())
}

/// Takes a lock on a file until dropped; where that cannot be, goes on without.
pub(crate) fn lock(path: &str) -> Option<File> {
    let file = File::options().create(true).append(true).open(path).ok()?;
    if file.try_lock().is_err() {
        eprintln!("waiting for {path}: another xtask holds it");
        file.lock().ok()?;
    }
    Some(file)
}

/// Calls this program again as root, or says what is to be run.
fn through_sudo(need: Need, audience: &Audience) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let mut arguments = vec!["setup".to_owned(), "--for".to_owned(), need.word().to_owned()];
    arguments.extend(audience.user.iter().flat_map(|user| ["--user".to_owned(), user.clone()]));
    let silent = succeeds(&mut words(&["sudo", "-n", "true"]));
    if silent || (on_path("sudo") && std::io::stdin().is_terminal()) {
        let mut child = command("sudo");
        child.args(silent.then_some("-n")).arg(&program).args(&arguments);
        return check(&mut child);
    }
    let lacks = lacks(need, audience);
    if !lacks.iter().any(Lack::blocks) {
        return Ok(());
    }
    let mut text = "this machine lacks something that only root can add; as root, run\n".to_owned();
    text += &format!("  sudo {} {}\nwhich does\n", program.display(), arguments.join(" "));
    for lack in lacks {
        text += &format!("  {}\n", lack.commands());
    }
    Err(text.trim_end().to_owned())
}

/// What makes things faster but is the user's own decision. Said only after something was mended, or by
/// `--check`.
fn suggest(audience: &Audience) {
    let Some(user) = &audience.user else {
        return;
    };
    let groups = output(&mut words(&["id", "-nG", user])).unwrap_or_default();
    if fs::exists(host::KVM).unwrap_or(false) && !groups.split_whitespace().any(|group| group == "kvm") {
        println!(
            "note: user {user} may not use /dev/kvm; `sudo usermod -aG kvm {user}` and a new login allow it"
        );
    }
    if let Some(cure) = host::hampered_userns() {
        println!("note: AppArmor hampers user namespaces here; if mmdebstrap fails, `sudo {cure}`");
    }
}

fn open_kvm() -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot change {}: {error}", host::KVM);
    let group = match host::group_id("kvm") {
        Some(group) => group,
        None => {
            check(&mut words(&["groupadd", "--system", "kvm"]))?;
            host::group_id("kvm").ok_or("group kvm cannot be found after it was made")?
        }
    };
    println!("setup: opening /dev/kvm to group kvm");
    chown(host::KVM, None, Some(group)).map_err(failed)?;
    fs::set_permissions(host::KVM, Permissions::from_mode(0o660)).map_err(failed)
}

/// Starts root's libvirtd, by systemd where that runs.
fn start_daemon() -> Result<(), String> {
    println!("setup: starting libvirtd");
    if host::has_systemd() {
        check(&mut words(&["systemctl", "start", "virtlogd.socket", "libvirtd.service"]))?;
    } else {
        if !host::answers(host::VIRTLOGD_SOCKET) {
            check(&mut words(&["/usr/sbin/virtlogd", "-d"]))?;
        }
        if !host::answers(host::LIBVIRT_SOCKET) {
            check(&mut words(&["/usr/sbin/libvirtd", "-d"]))?;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while !host::answers(host::LIBVIRT_SOCKET) {
        if Instant::now() > deadline {
            return Err(format!(
                "libvirtd was started and does not listen on {} after 20 s",
                host::LIBVIRT_SOCKET
            ));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn has_subids(user: &str) -> bool {
    ["/etc/subuid", "/etc/subgid"].iter().all(|file| host::subid_range(file, user).is_some())
}

/// Gives a user subordinate ids, unless it has them.
pub(crate) fn give_subids(user: &str) -> Result<(), String> {
    if has_subids(user) { Ok(()) } else { check(command("usermod").args(subid_arguments()).arg(user)) }
}

/// What `usermod` takes to give a user a range that nobody has.
fn subid_arguments() -> [String; 4] {
    let texts = ["/etc/subuid", "/etc/subgid"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let first = host::free_subids(&texts);
    let range = format!("{first}-{}", first + host::SUBIDS - 1);
    ["--add-subuids".to_owned(), range.clone(), "--add-subgids".to_owned(), range]
}
