//! The checks: pure functions from facts to verdicts.

mod hosts;

use super::leftover::Leftover;
use super::{Facts, Grade, Remedy, Verdict};
use crate::error::Failure;
use crate::external::host::Kvm;
use crate::external::hypervisor::Accelerator;
use crate::external::hypervisor::network::Subnet;

/// Programs that a run needs, and the Debian packages they are in.
pub const PROGRAMS: &[(&str, &str)] = &[
    (EMULATOR, "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("git", "git"),
];

/// Programs that only a network of a stack's own needs.
pub const NAT_PROGRAMS: &[(&str, &str)] = &[("dnsmasq", "dnsmasq-base"), ("iptables", "iptables")];

const EMULATOR: &str =
    if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" };

/// Less than this where state lives, and runs fail, MiB.
const TOO_LITTLE: u64 = 2 * 1024;
/// Less than this is soon too little, MiB.
const LITTLE: u64 = 10 * 1024;
/// The network QEMU plays for a guest.
const GUEST: Subnet = Subnet::new(10, 0, 2);

/// All verdicts, in the order in which things are needed.
pub fn examine(facts: &Facts) -> Vec<Verdict> {
    let mut verdicts = vec![
        programs(facts),
        daemons(facts),
        hypervisor(facts),
        kvm(facts),
        acceleration(facts),
        groups(facts),
        network(facts),
        nat(facts),
        disk(facts),
    ];
    verdicts.extend(images(facts));
    verdicts.extend(keys(facts));
    verdicts.extend([ssh_key(facts), go(facts)]);
    verdicts.extend(facts.own_hosts.iter().map(hosts::host));
    verdicts.extend([cloud(facts), gitlab(facts)]);
    verdicts.extend(leftovers(facts));
    verdicts
}

fn fine(check: &'static str, says: impl Into<String>) -> Verdict {
    Verdict { check, grade: Grade::Fine, says: says.into(), mend: None, remedy: None }
}

fn note(check: &'static str, says: impl Into<String>, mend: Option<&str>) -> Verdict {
    Verdict { check, grade: Grade::Note, says: says.into(), mend: mend.map(str::to_owned), remedy: None }
}

fn wrong(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Verdict {
    Verdict { check, grade: Grade::Wrong, says: says.into(), mend: Some(mend.into()), remedy: None }
}

impl Verdict {
    fn fixed_by(mut self, remedy: Remedy) -> Verdict {
        self.remedy = Some(remedy);
        self
    }
}

/// A command for root, as this user types it.
fn as_root(facts: &Facts, command: &str) -> String {
    if facts.host.root { command.to_owned() } else { format!("sudo {command}") }
}

fn programs(facts: &Facts) -> Verdict {
    match missing(facts, PROGRAMS) {
        None => fine("programs", "all that a run needs are here"),
        Some((programs, mend)) => wrong("programs", format!("not here: {programs}"), mend),
    }
}

/// Which of these programs are not here, and what installs them.
fn missing(facts: &Facts, programs: &[(&str, &str)]) -> Option<(String, String)> {
    let is_missing = |(program, _): &&(&str, &str)| facts.host.missing.iter().any(|name| name == program);
    let (missing, mut packages): (Vec<&str>, Vec<&str>) = programs.iter().filter(is_missing).copied().unzip();
    packages.dedup();
    let mend = as_root(facts, &format!("apt-get install {}", packages.join(" ")));
    (!missing.is_empty()).then(|| (missing.join(", "), mend))
}

fn daemons(facts: &Facts) -> Verdict {
    if facts.host.deaf.is_empty() {
        let words =
            if facts.host.root { "virtlogd and libvirtd listen" } else { "start by themselves for a user" };
        return fine("daemons", words);
    }
    wrong("daemons", format!("nobody listens: {}", facts.host.deaf.join(", ")), "virtlogd -d; libvirtd -d")
        .fixed_by(Remedy::StartDaemons)
}

fn hypervisor(facts: &Facts) -> Verdict {
    match &facts.hypervisor {
        Ok(host) => fine(
            "hypervisor",
            format!(
                "libvirt answers at {}: {} processors, {} MiB free",
                facts.uri, host.cores, host.memory_mib
            ),
        ),
        Err(_) if !facts.host.deaf.is_empty() => {
            note("hypervisor", "not asked while its daemons do not run", None)
        }
        Err(failure) => {
            let why = Failure { hints: Vec::new(), ..failure.clone() }.one_line();
            let install = || as_root(facts, "apt-get install libvirt-daemon-system");
            wrong("hypervisor", why, failure.hints.first().cloned().unwrap_or_else(install))
        }
    }
}

fn kvm(facts: &Facts) -> Verdict {
    let slow = facts.hypervisor.as_ref().ok().and_then(|host| host.notices.first());
    match (facts.host.kvm, slow) {
        (Kvm::Open, None) => fine("kvm", "/dev/kvm opens"),
        (Kvm::Open, Some(slow)) => {
            let mend = as_root(facts, "sh -c 'chgrp kvm /dev/kvm && chmod 0660 /dev/kvm'");
            let verdict = wrong("kvm", slow.as_str(), mend);
            if facts.host.root { verdict.fixed_by(Remedy::OpenKvm) } else { verdict }
        }
        (Kvm::Absent, _) => note(
            "kvm",
            "there is no /dev/kvm: guests are emulated, several times slower",
            Some("modprobe kvm_intel, or kvm_amd"),
        ),
        (Kvm::Closed, _) if facts.host.groups.iter().any(|group| group == "kvm") => {
            let mend = as_root(facts, "sh -c 'chgrp kvm /dev/kvm && chmod 0660 /dev/kvm'");
            wrong("kvm", "/dev/kvm is closed to group kvm", mend)
        }
        (Kvm::Closed, _) => note("kvm", "/dev/kvm is closed to this user: see groups", None),
    }
}

fn acceleration(facts: &Facts) -> Verdict {
    let Ok(host) = &facts.hypervisor else {
        return note("acceleration", "not known while libvirt does not answer", None);
    };
    match (&host.acceleration.notice, host.acceleration.accelerator) {
        (Some(notice), _) => note("acceleration", notice.as_str(), None),
        (None, Accelerator::Tcg) => note("acceleration", "guests are emulated (TCG)", None),
        (None, accelerator) => fine("acceleration", format!("{} ran a guest", accelerator.as_str())),
    }
}

fn groups(facts: &Facts) -> Verdict {
    let host = &facts.host;
    let system = facts.uri.contains("/system");
    let wanted = [("kvm", host.kvm == Kvm::Closed), ("libvirt", system)];
    let lacking: Vec<&str> = wanted
        .iter()
        .filter(|(group, needed)| *needed && !host.root && !host.groups.iter().any(|own| own == group))
        .map(|(group, _)| *group)
        .collect();
    if lacking.is_empty() {
        return fine("groups", format!("{} is in all that are needed", host.user));
    }
    let mend = format!("sudo usermod -aG {} {}, and a new login", lacking.join(","), host.user);
    wrong("groups", format!("{} is not in {}", host.user, lacking.join(", ")), mend)
}

fn network(facts: &Facts) -> Verdict {
    match facts.host.routes.iter().find(|route| GUEST.meets(route)) {
        None => fine("network", format!("{GUEST}, which guests see, is nowhere else")),
        Some(route) => note(
            "network",
            format!(
                "this machine has a route to {route}: guests with an open network cannot reach what is there"
            ),
            None,
        ),
    }
}

/// Whether a stack could have a network of its own: nobody needs one who does not ask for it.
fn nat(facts: &Facts) -> Verdict {
    let Some(taken) = &facts.networks else {
        return note("nat", "not known while libvirt does not answer", None);
    };
    let free = Subnet::candidates(uuid::Uuid::nil())
        .find(|subnet| !taken.iter().any(|network| subnet.meets(network)));
    match (free, missing(facts, NAT_PROGRAMS)) {
        (None, _) => note(
            "nat",
            "192.168.96.0/24 to 192.168.249.0/24 are all taken: no stack can have a network of its own",
            Some("virsh net-list --all"),
        ),
        (_, Some((programs, mend))) => {
            note("nat", format!("not here: {programs}: needed by `--network nat` only"), Some(&mend))
        }
        (Some(_), None) if !facts.host.root && !facts.uri.contains("/system") => {
            fine("nat", "`--network nat` needs KMT_LIBVIRT_URI=qemu:///system; `user` needs nothing")
        }
        (Some(subnet), None) => fine("nat", format!("{subnet} is free for a stack's own network")),
    }
}

fn disk(facts: &Facts) -> Verdict {
    let place = facts.home.display();
    match facts.host.free_mib {
        None => note("disk", format!("free space at {place} is not known"), None),
        Some(free) if free < TOO_LITTLE => wrong(
            "disk",
            format!("{free} MiB free at {place}"),
            "kmt-run stack destroy, or KMT_HOME=DIR on a larger disk",
        ),
        Some(free) if free < LITTLE => note("disk", format!("only {free} MiB free at {place}"), None),
        Some(free) => fine("disk", format!("{} GiB free at {place}", free / 1024)),
    }
}

fn images(facts: &Facts) -> Vec<Verdict> {
    let spoiled = facts.images.iter().filter_map(|(name, trouble)| trouble.as_ref().map(|why| (name, why)));
    let spoiled: Vec<Verdict> = spoiled
        .map(|(name, why)| wrong("images", why.as_str(), format!("kmt-run images build --force {name}")))
        .collect();
    match facts.images.len() {
        _ if !spoiled.is_empty() => spoiled,
        0 => vec![note("images", "none here yet: a run builds what it needs", Some("kmt-run images build"))],
        count => vec![fine("images", format!("{count} are what was built"))],
    }
}

fn keys(facts: &Facts) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (path, mode) in &facts.keys {
        let shown = path.display();
        match mode {
            None => verdicts.push(wrong(
                "keys",
                format!("{shown} is gone: nobody can log in to the machines of its stack"),
                "kmt-run stack destroy",
            )),
            Some(mode) if mode & 0o077 != 0 => verdicts.push(
                wrong(
                    "keys",
                    format!("{shown} is open to others ({:o})", mode & 0o777),
                    format!("chmod 600 {shown}"),
                )
                .fixed_by(Remedy::CloseKey(path.clone())),
            ),
            Some(_) => {}
        }
    }
    if verdicts.is_empty() {
        verdicts.push(fine("keys", format!("{} of stacks, closed to others", facts.keys.len())));
    }
    verdicts
}

fn ssh_key(facts: &Facts) -> Verdict {
    match &facts.user_key {
        None => note("ssh-key", "none chosen: needed for remote hosts only", Some("kmt-run config ssh-key")),
        Some((key, true)) => fine("ssh-key", key.as_str()),
        Some((key, false)) => wrong("ssh-key", format!("{key} is not there"), "kmt-run config ssh-key"),
    }
}

fn go(facts: &Facts) -> Verdict {
    match &facts.host.go {
        Some(version) => fine("go", version.as_str()),
        None => note(
            "go",
            "no Go here: needed by components that are built by it",
            Some("apt-get install golang-go"),
        ),
    }
}

fn cloud(facts: &Facts) -> Verdict {
    match &facts.rentable {
        Some(Ok(what)) => return fine("cloud", what.as_str()),
        Some(Err(failure)) => {
            let mend = failure.hints.first().map_or("kmt-run config show", String::as_str);
            return wrong("cloud", Failure { hints: Vec::new(), ..failure.clone() }.one_line(), mend);
        }
        None => {}
    }
    match facts.host.cloud.first() {
        Some(place) => fine("cloud", format!("credentials of AWS by {place}, not tried")),
        None => {
            note("cloud", "no credentials of AWS: needed for remote hosts of EC2 only", Some("aws configure"))
        }
    }
}

fn gitlab(facts: &Facts) -> Verdict {
    match &facts.host.gitlab {
        Some(name) => fine("gitlab", format!("a token in {name}, not tried")),
        None => note("gitlab", "no token: needed to read pipelines only", Some("export GITLAB_TOKEN=…")),
    }
}

fn leftovers(facts: &Facts) -> Vec<Verdict> {
    let verdict = |leftover: &Leftover| match leftover {
        Leftover::Foreign { domain } => {
            let mend = format!("virsh -c {} undefine {domain} --managed-save, if it is nobody's", facts.uri);
            let says = format!("domain {domain} is ours, of a stack that is not in {}", facts.home.display());
            note("leftovers", says, Some(&mend))
        }
        Leftover::ForeignNetwork { network } => {
            let mend = format!("virsh -c {} net-destroy {network}, if it is nobody's", facts.uri);
            let says =
                format!("network {network} is ours, of a stack that is not in {}", facts.home.display());
            note("leftovers", says, Some(&mend))
        }
        Leftover::Damaged { folder } => wrong(
            "leftovers",
            format!("the record in {} cannot be read", folder.display()),
            format!("kmt-run stack gc; rm -r {}", folder.display()),
        ),
        other => wrong("leftovers", other.to_string(), "kmt-run doctor --fix")
            .fixed_by(Remedy::Remove(other.clone())),
    };
    let found: Vec<Verdict> = facts.leftovers.iter().map(verdict).collect();
    if found.is_empty() { vec![fine("leftovers", "nothing that nobody owns")] } else { found }
}

#[cfg(test)]
mod tests;
