//! `cargo xtask setup`: what this machine lacks, and mending it.
//!
//! First everything is looked at ([`lacks`]), without one call to apt; where nothing is missing nothing
//! happens and nothing is said. What only root can do is done by this same program, called again through
//! sudo, so that there is one way and one list. Nothing is ever removed.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::IsTerminal;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Stdio;
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
    Packages {
        missing: Vec<Package>,
        suite: Option<String>,
    },
    Kvm,
    SubIds {
        user: String,
    },
    Daemon,
    UserNamespaces {
        cure: &'static str,
    },
}

impl Lack {
    /// What is wrong, in words.
    fn tell(&self) -> String {
        match self {
            Self::Packages { missing, .. } => {
                let rows = missing
                    .iter()
                    .map(|row| format!("\n  {:<32} {:<6} {}", row.name, row.need.word(), row.why));
                format!(
                    "{} packages are not installed:{}",
                    missing.len(),
                    rows.collect::<String>()
                )
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

    /// The commands that mend it, as one types them.
    fn commands(&self) -> String {
        match self {
            Self::Packages { missing, suite } => {
                let names = apt::names(&missing.iter().map(|row| row.name).collect::<Vec<_>>());
                let from = suite
                    .as_ref()
                    .map(|suite| format!("    # QEMU and its firmware from {suite}"));
                let words = format!("apt-get install -y --no-install-recommends {}", names.join(" "));
                words + &from.unwrap_or_default()
            }
            Self::Kvm => "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm".to_owned(),
            Self::SubIds { user } => format!("usermod {} {user}", subid_arguments().join(" ")),
            Self::Daemon if host::has_systemd() => "systemctl start libvirtd.service".to_owned(),
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
            Self::UserNamespaces { .. } => Err(format!(
                "{}; if you agree, run `{}`",
                self.tell(),
                self.commands()
            )),
        }
    }
}

/// The task `setup`, with its exit code.
pub(crate) fn task(wanted: &Wanted) -> Result<u8, String> {
    let user = wanted.user.clone().or_else(ordinary_user);
    match wanted.mode {
        Mode::Mend => ready_for(wanted.need, user.as_deref()).map(|()| 0),
        Mode::Check => {
            let lacks = lacks(wanted.need, user.as_deref());
            for lack in &lacks {
                println!("{}\n  mend: {}", lack.tell(), lack.commands());
            }
            suggest(user.as_deref());
            Ok(u8::from(!lacks.is_empty()))
        }
    }
}

/// Makes this machine ready, or says exactly what somebody with more rights has to run. Silent when nothing
/// is missing.
pub(crate) fn ready(need: Need) -> Result<(), String> {
    ready_for(need, ordinary_user().as_deref())
}

fn ready_for(need: Need, user: Option<&str>) -> Result<(), String> {
    if lacks(need, user).is_empty() {
        return Ok(());
    }
    if host::is_root() {
        mend(need, user)
    } else {
        through_sudo(need, user)
    }
}

/// Who must be able to use what we set up, when that is not root.
fn ordinary_user() -> Option<String> {
    if host::is_root() {
        host::sudo_user()
    } else {
        Some(host::user_name())
    }
}

/// Everything that is missing now.
fn lacks(need: Need, user: Option<&str>) -> Vec<Lack> {
    let mut found: Vec<Lack> = missing_packages(need).into_iter().collect();
    if need == Need::Build {
        return found;
    }
    if host::kvm_is_closed() {
        found.push(Lack::Kvm);
    }
    if let Some(user) = user.filter(|user| *user != "root" && !has_subids(user)) {
        found.push(Lack::SubIds {
            user: user.to_owned(),
        });
    }
    // For an ordinary user the session's daemon starts by itself.
    if host::is_root() && !host::answers(host::LIBVIRT_SOCKET) {
        found.push(Lack::Daemon);
    }
    if user.is_some_and(|user| user != "root") {
        found.extend(host::closed_userns().map(|cure| Lack::UserNamespaces { cure }));
    }
    found
}

fn missing_packages(need: Need) -> Option<Lack> {
    let mut query = words(&["dpkg-query", "-W", "-f", DPKG_FORMAT, "qemu-utils"]);
    query.args(packages::TABLE.iter().map(|row| row.name));
    let installed: BTreeMap<String, String> = packages::parse_dpkg(&output(&mut query).unwrap_or_default());
    let missing = packages::missing(need, &installed, on_path);
    let codename = apt::codename(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let suite = installed
        .get("qemu-utils")
        .and_then(|version| apt::backports_suite(version, &codename));
    let suite = suite.filter(|_| {
        missing
            .iter()
            .any(|row| row.name.starts_with("qemu") || row.name == "seabios")
    });
    (!missing.is_empty()).then_some(Lack::Packages { missing, suite })
}

/// As root: mends one thing after the other, and looks again after each, since packages bring groups and
/// daemons.
fn mend(need: Need, user: Option<&str>) -> Result<(), String> {
    let _one_at_a_time = lock("/run/lock/kmt-run-setup.lock");
    for round in 0.. {
        let Some(lack) = lacks(need, user).into_iter().next() else {
            break;
        };
        if round > 8 {
            return Err(format!("mended, but still: {}", lack.tell()));
        }
        lack.mend()?;
    }
    suggest(user);
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
fn through_sudo(need: Need, user: Option<&str>) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let mut arguments = vec!["setup".to_owned(), "--for".to_owned(), need.word().to_owned()];
    arguments.extend(
        user.into_iter()
            .flat_map(|user| ["--user".to_owned(), user.to_owned()]),
    );
    let silent = succeeds(&mut words(&["sudo", "-n", "true"]));
    if silent || (on_path("sudo") && std::io::stdin().is_terminal()) {
        check(
            command("sudo")
                .args(silent.then_some("-n"))
                .arg(&program)
                .args(&arguments)
                .stdin(Stdio::inherit()),
        )?;
        // What is still missing now is not root's to mend, and was said by that call.
        return Ok(());
    }
    let mut text = "this machine lacks something that only root can add; as root, run\n".to_owned();
    text += &format!(
        "  sudo {} {}\nwhich does\n",
        program.display(),
        arguments.join(" ")
    );
    for lack in lacks(need, user) {
        text += &format!("  {}\n", lack.commands());
    }
    Err(text.trim_end().to_owned())
}

/// What makes things faster but is the user's own decision. Said only after something was mended, or by
/// `--check`.
fn suggest(user: Option<&str>) {
    let Some(user) = user.filter(|user| *user != "root") else {
        return;
    };
    let groups = output(&mut words(&["id", "-nG", user])).unwrap_or_default();
    if fs::exists(host::KVM).unwrap_or(false) && !groups.split_whitespace().any(|group| group == "kvm") {
        println!(
            "note: user {user} may not use /dev/kvm; `sudo usermod -aG kvm {user}` and a new login allow it"
        );
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
        check(&mut words(&["systemctl", "start", "libvirtd.service"]))?;
    } else {
        if !host::answers(host::VIRTLOGD_SOCKET) {
            check(&mut words(&["/usr/sbin/virtlogd", "-d"]))?;
        }
        check(&mut words(&["/usr/sbin/libvirtd", "-d"]))?;
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
    ["/etc/subuid", "/etc/subgid"]
        .iter()
        .all(|file| host::subid_range(file, user).is_some())
}

/// Gives a user subordinate ids, unless it has them.
pub(crate) fn give_subids(user: &str) -> Result<(), String> {
    if has_subids(user) {
        Ok(())
    } else {
        check(command("usermod").args(subid_arguments()).arg(user))
    }
}

/// What `usermod` takes to give a user a range that nobody has.
fn subid_arguments() -> [String; 4] {
    let texts = ["/etc/subuid", "/etc/subgid"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let first = host::free_subids(&texts);
    let range = format!("{first}-{}", first + host::SUBIDS - 1);
    [
        "--add-subuids".to_owned(),
        range.clone(),
        "--add-subgids".to_owned(),
        range,
    ]
}
