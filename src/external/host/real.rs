//! This machine as it is: files, groups, sockets, variables. Values of credentials are never read.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Host, HostState, Kvm};
use crate::external::process::Child;
use crate::external::{Class, Error, Result};

/// The sockets of root's daemons.
const DAEMONS: [(&str, &str); 2] =
    [("virtlogd", "/run/libvirt/virtlogd-sock"), ("libvirtd", "/run/libvirt/libvirt-sock")];
const KVM: &str = "/dev/kvm";
/// How long a daemon may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// Variables that give credentials of AWS, or say where they are.
const CLOUD: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
];
/// Variables that give a token of GitLab.
const GITLAB: [&str; 3] = ["KMT_GITLAB_TOKEN", "GITLAB_TOKEN", "CI_JOB_TOKEN"];

/// The machine this program runs on.
#[derive(Debug, Default)]
pub struct ThisHost;

#[async_trait]
impl Host for ThisHost {
    async fn look(&self, home: &Path, programs: &[&str]) -> HostState {
        let said = |program: &'static str, args: &'static [&'static str]| async move {
            let output = Child::new(program).args(args).success().await.ok()?;
            Some(output.text().trim().to_owned())
        };
        let root = rustix::process::geteuid().is_root();
        let (user, groups) = (said("id", &["-un"]).await, said("id", &["-Gn"]).await);
        let (id, groups) = (rustix::process::geteuid().as_raw().to_string(), groups.unwrap_or_default());
        let missing =
            programs.iter().filter(|program| !in_path(program)).map(|program| (*program).to_owned());
        let deaf = DAEMONS.iter().filter(|(_, socket)| root && !answers(socket));
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        HostState {
            user: user.unwrap_or(id),
            root,
            groups: groups.split(' ').map(str::to_owned).collect(),
            missing: missing.collect(),
            go: said("go", &["version"]).await,
            kvm: kvm(),
            deaf: deaf.map(|(name, _)| (*name).to_owned()).collect(),
            free_mib: free_mib(home),
            routes: networks(&routes),
            cloud: cloud(),
            gitlab: GITLAB.iter().find(|name| set(name)).map(|name| (*name).to_owned()),
        }
    }

    fn sockets(&self) -> PathBuf {
        PathBuf::from("/tmp")
    }

    async fn start_daemons(&self) -> Result<()> {
        if Path::new("/run/systemd/system").is_dir() {
            let units = ["start", "virtlogd.socket", "libvirtd.service"];
            Child::new("systemctl").args(units).success().await?;
        } else {
            for (name, socket) in DAEMONS {
                if !answers(socket) {
                    Child::new(format!("/usr/sbin/{name}")).arg("-d").success().await?;
                }
            }
        }
        let begun = Instant::now();
        while let Some((name, socket)) = DAEMONS.iter().find(|(_, socket)| !answers(socket)) {
            if begun.elapsed() > PATIENCE {
                let words = format!("it does not listen on {socket} after {} s", PATIENCE.as_secs());
                return Err(Error::new("this machine", "start", *name, Class::Unreachable, words));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn open_kvm(&self) -> Result<()> {
        Child::new("chgrp").args(["kvm", KVM]).success().await?;
        Child::new("chmod").args(["0660", KVM]).success().await?;
        Ok(())
    }
}

fn set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn in_path(program: &str) -> bool {
    // Debian keeps some of them from ordinary users' PATH.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is = |file: PathBuf| {
        file.metadata().is_ok_and(|seen| seen.is_file() && seen.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).chain(more).any(|folder| is(folder.join(program)))
}

/// Whether somebody listens on this socket. A refusal by its mode counts: the daemon is there.
fn answers(socket: &str) -> bool {
    UnixStream::connect(socket)
        .map_or_else(|error| error.kind() == std::io::ErrorKind::PermissionDenied, |_| true)
}

fn kvm() -> Kvm {
    let wanted = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    match rustix::fs::access(KVM, wanted) {
        Ok(()) => Kvm::Open,
        Err(rustix::io::Errno::NOENT) => Kvm::Absent,
        Err(_) => Kvm::Closed,
    }
}

/// Space that this user may fill on the file system of the nearest folder upward that exists, MiB.
fn free_mib(home: &Path) -> Option<u64> {
    let there = home.ancestors().find(|folder| folder.is_dir())?;
    let seen = rustix::fs::statvfs(there).ok()?;
    Some(seen.f_bavail.saturating_mul(seen.f_frsize) / (1024 * 1024))
}

/// The networks of `/proc/net/route`, default routes left out.
pub(in crate::external) fn networks(table: &str) -> Vec<String> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok().map(u32::swap_bytes);
        let (network, mask) = (number(1)?, number(7)?);
        (mask != 0).then(|| format!("{}/{}", std::net::Ipv4Addr::from(network), mask.leading_ones()))
    };
    let mut networks: Vec<String> = table.lines().skip(1).filter_map(row).collect();
    networks.dedup();
    networks
}

fn cloud() -> Vec<String> {
    let variables = CLOUD.iter().filter(|name| set(name)).map(|name| (*name).to_owned());
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let files = ["credentials", "config"].map(|name| home.join(".aws").join(name));
    let files = files.into_iter().filter(|file| file.is_file()).map(|file| file.display().to_string());
    variables.chain(files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_networks() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                     eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\n\
                     eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        let table = if cfg!(target_endian = "little") { table } else { return };
        assert_eq!(networks(table), ["10.0.2.0/24"]);
        assert!(networks("").is_empty());
    }

    #[tokio::test]
    async fn this_machine_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let seen = ThisHost.look(&temp.path().join("not/yet"), &["sh", "no-such-program-here"]).await;
        assert_eq!(seen.missing, ["no-such-program-here"]);
        assert!(seen.free_mib.is_some() && !seen.groups.is_empty() && !seen.user.is_empty(), "{seen:?}");
    }
}
