//! Questions about this machine. Nothing here changes anything.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::process::{output, words};

/// Where root's libvirtd listens.
pub(crate) const LIBVIRT_SOCKET: &str = "/run/libvirt/libvirt-sock";
/// Where root's virtlogd listens.
pub(crate) const VIRTLOGD_SOCKET: &str = "/run/libvirt/virtlogd-sock";
/// The door to the processor's virtualization.
pub(crate) const KVM: &str = "/dev/kvm";
/// Subordinate ids a user needs for a whole Debian root filesystem.
pub(crate) const SUBIDS: u64 = 65536;

/// The effective user id of this process.
pub(crate) fn uid() -> u32 {
    // Who owns /proc/self is who we are: the standard library has no `geteuid`.
    fs::metadata("/proc/self").map_or(u32::MAX, |status| status.uid())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    uid() == 0
}

/// Our own name, or the number where the user has none.
pub(crate) fn user_name() -> String {
    let name = output(&mut words(&["id", "-un"])).unwrap_or_default();
    if name.trim().is_empty() { uid().to_string() } else { name.trim().to_owned() }
}

/// The ordinary user behind `sudo`, if root was reached that way.
pub(crate) fn sudo_user() -> Option<String> {
    std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty() && name != "root")
}

/// Whether somebody listens on this socket. A refusal by its mode counts: the daemon is there.
pub(crate) fn answers(socket: &str) -> bool {
    UnixStream::connect(socket)
        .map_or_else(|error| error.kind() == std::io::ErrorKind::PermissionDenied, |_| true)
}

/// Whether systemd runs this machine (not merely: is installed).
pub(crate) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The id of a group.
pub(crate) fn group_id(name: &str) -> Option<u32> {
    output(&mut words(&["getent", "group", name]))?.split(':').nth(2)?.parse().ok()
}

/// Whether `/dev/kvm` exists but is closed to the group that QEMU's own user is in.
///
/// libvirt then distrusts what it has remembered about QEMU and probes it again at every call: 4 s a start.
pub(crate) fn kvm_is_closed() -> bool {
    fs::metadata(KVM).is_ok_and(|status| is_closed(status.mode(), status.gid(), group_id("kvm")))
}

fn is_closed(mode: u32, gid: u32, kvm: Option<u32>) -> bool {
    let open_to_all = mode & 0o006 == 0o006;
    let open_to_group = mode & 0o060 == 0o060 && Some(gid) == kvm;
    !open_to_all && !open_to_group
}

/// The ids that a file of `/etc/subuid`'s kind gives `user`, if they are enough.
pub(crate) fn subid_range(file: &str, user: &str) -> Option<Range<u64>> {
    let text = fs::read_to_string(file).ok()?;
    let mut rows = subids(&text).filter(|(who, _, count)| *who == user && *count >= SUBIDS);
    rows.next().map(|(_, start, count)| start..start + count)
}

/// Where a new range of subordinate ids can start, free in all the files given.
pub(crate) fn free_subids(texts: &[String]) -> u64 {
    let ends = texts.iter().flat_map(|text| subids(text)).map(|(_, start, count)| start + count);
    ends.fold(100_000, u64::max)
}

/// The rows of `/etc/subuid`: who, first id, how many. Other lines are left out, as the tools do.
fn subids(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    text.lines().filter_map(|line| {
        let mut parts = line.trim().split(':');
        Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// A kernel switch that keeps ordinary users from making user namespaces, and the command that opens it.
pub(crate) fn closed_userns() -> Option<&'static str> {
    if reads("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some("sysctl -w kernel.unprivileged_userns_clone=1");
    }
    reads("/proc/sys/user/max_user_namespaces", "0").then_some("sysctl -w user.max_user_namespaces=15000")
}

/// AppArmor's switch (Ubuntu), under which programs with a profile, as mmdebstrap may have, still work.
pub(crate) fn hampered_userns() -> Option<&'static str> {
    let closed = reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1");
    closed.then_some("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
}

fn reads(path: &str, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}

/// Where kmt-run keeps images and runs: `KMT_HOME`, else root's or the user's own place.
pub(crate) fn kmt_home() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("KMT_HOME") {
        return home;
    }
    if is_root() {
        return PathBuf::from("/var/lib/kmt-run");
    }
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from("/var/tmp")).join("kmt-run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_must_be_open_to_its_group_or_to_all() {
        assert!(is_closed(0o20600, 0, Some(104)), "as on the development machines");
        assert!(is_closed(0o20660, 0, Some(104)), "another group");
        assert!(is_closed(0o20640, 104, Some(104)), "read only");
        assert!(is_closed(0o20660, 104, None), "no such group");
        assert!(!is_closed(0o20660, 104, Some(104)));
        assert!(!is_closed(0o20666, 0, None));
    }

    #[test]
    fn subordinate_ids_are_read_and_given_out_past_the_last() {
        let text = "alice:100000:65536\nbroken\nbob:165536:1000\n# carol:1:2\n";
        let rows: Vec<_> = subids(text).collect();
        assert_eq!(rows, [("alice", 100_000, 65536), ("bob", 165_536, 1000), ("# carol", 1, 2)]);
        assert_eq!(free_subids(&[text.to_owned(), "dora:300000:65536".to_owned()]), 365_536);
        assert_eq!(free_subids(&[]), 100_000);
    }
}
