//! Who a machine is: keys, name and id. A machine that boots finds them in its initial RAM file system, one that goes on
//! from a template is told them on a port; in both cases they are the same files, and they are nowhere else.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Failure, Result};
use crate::image::{SSH_UNIT, identity_cpio};
use crate::stack::{Keys, MachineRecord};

/// Where the unit of sshd is in a guest.
const UNIT: &str = "/etc/systemd/system/ssh.service";
/// Where a guest that becomes a template has what it needs for that; gone once it knows who it is.
const WAITS: &str = "/usr/lib/kmt-warm";
/// Bytes of the host's randomness that a guest gets.
const SEED: usize = 32;

/// A file of a machine's identity: path in the guest, mode, content.
pub(super) type IdentityFile = (&'static str, u32, Vec<u8>);

/// The identity of a machine: its own key, the key that opens it, its name and id.
///
/// # Errors
/// The key cannot be read.
pub(super) fn files(record: &MachineRecord, login: &Keys, host_key: &Keys) -> Result<Vec<IdentityFile>> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| Failure::file("read", path, &error));
    let line = |text: &str| format!("{text}\n").into_bytes();
    let name = record.id.replace(['_', '@', '+'], "-");
    Ok(vec![
        ("/etc/ssh/ssh_host_ed25519_key", 0o600, read(&host_key.private)?),
        ("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, line(&host_key.public)),
        ("/root/.ssh/authorized_keys", 0o600, line(&login.public)),
        ("/etc/hostname", 0o644, line(&name)),
        ("/etc/machine-id", 0o444, line(&record.uuid.simple().to_string())),
    ])
}

/// What a machine that goes on from a template has besides: the unit of those that boot, for the day it boots itself.
pub(super) fn usual_unit() -> IdentityFile {
    (UNIT, 0o644, SSH_UNIT.as_bytes().to_vec())
}

/// Writes a machine's initrd: that of its image, at `base`, followed by an archive of its identity.
///
/// # Errors
/// It cannot be written.
pub(super) fn initrd(folder: &Path, base: &Path, files: &[IdentityFile]) -> Result<PathBuf> {
    let files: Vec<(&str, u32, &[u8])> =
        files.iter().map(|(path, mode, content)| (*path, *mode, content.as_slice())).collect();
    write(folder, base, &identity_cpio(&files))
}

/// The initrd of a guest that waits until it is told who it is. Its machine id is nobody's.
///
/// # Errors
/// It cannot be written.
pub(super) fn initrd_of_nobody(folder: &Path, base: &Path, seed: &[u8]) -> Result<PathBuf> {
    let id = format!("{}\n", Uuid::new_v4().simple());
    let (wait, seeds) = (format!("{WAITS}/wait"), format!("{WAITS}/seed"));
    write(
        folder,
        base,
        &identity_cpio(&[
            (UNIT, 0o644, unit_that_waits().as_bytes()),
            (&wait, 0o644, include_bytes!("warm/guest/wait.sh")),
            (&seeds, 0o755, seed),
            ("/etc/machine-id", 0o444, id.as_bytes()),
        ]),
    )
}

/// The unit of sshd, after all others. Its process is the script that waits, which becomes sshd: a process that systemd
/// starts takes an emulated guest some tenths of a second.
pub(super) fn unit_that_waits() -> String {
    SSH_UNIT
        .lines()
        .map(|line| match line.split_once('=') {
            Some(("Before", _)) => "Before=shutdown.target\nAfter=multi-user.target\n".to_owned(),
            Some(("ExecStart", sshd)) => format!(
                "TimeoutStartSec=infinity\nExecStart=/bin/sh -c '[ ! -e {WAITS}/wait ] || exec /bin/sh {WAITS}/wait; exec {sshd}'\n"
            ),
            _ => format!("{line}\n"),
        })
        .collect()
}

fn write(folder: &Path, base: &Path, archive: &[u8]) -> Result<PathBuf> {
    let path = folder.join("initrd");
    let _ = std::fs::remove_file(&path);
    let written = (|| {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut base = std::fs::read(base)?;
        base.resize(base.len().next_multiple_of(4), 0);
        file.write_all(&base)?;
        file.write_all(archive)
    })();
    written.map_err(|error| Failure::file("write", &path, &error))?;
    Ok(path)
}

/// What a guest that waits is told: a script that makes it the machine of `record`. Randomness first, then the time, then
/// the files; at its end the guest says so, and starts sshd.
///
/// # Errors
/// The host has no randomness.
pub(super) fn script(files: &[IdentityFile], record: &MachineRecord) -> Result<Vec<u8>> {
    let mut seed = [0; SEED];
    let source = Path::new("/dev/urandom");
    let read = std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut seed));
    read.map_err(|error| Failure::file("read", source, &error))?;
    let seed = hex::encode(seed);
    let now = chrono::Utc::now();
    let mut text = format!(
        "set -e\ntrap 'echo kmt-warm: lost >/dev/console' EXIT\nread -r sleeps </run/kmt-warm\nkill $sleeps || :\nprintf %s {seed} | {WAITS}/seed\n\
         date -u -s @{}.{:06} >/dev/null\nread -r old </etc/machine-id\n[ -d /root/.ssh ] || mkdir -m 0700 /root/.ssh\n",
        now.timestamp(),
        now.timestamp_subsec_micros()
    );
    // Words of the shell itself: a process takes an emulated guest longer than all it says here. A file that is there
    // keeps its mode, which is the same.
    for (path, mode, content) in files {
        let content = String::from_utf8_lossy(content).replace('\'', r"'\''");
        let _ = writeln!(text, "umask {:03o}\nprintf %s '{content}' >{path}", 0o777 & !mode);
    }
    let (id, mac) = (record.uuid.simple(), &record.mac);
    let sshd = SSH_UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap_or_default();
    // What nobody waits for is done beside sshd's start.
    let _ = write!(
        text,
        "read -r name </etc/hostname\necho \"$name\" >/proc/sys/kernel/hostname\n\
         notify=/proc/sys/net/ipv4/conf/eth0/arp_notify\necho 1 >$notify\n\
         ip link set eth0 address {mac}\necho 0 >$notify\n\
         trap - EXIT\necho 'kmt-warm: mine' >/dev/console\n\
         {{ rm -rf {WAITS} /run/kmt-warm; [ ! -d /run/log/journal/$old ] || mv /run/log/journal/$old /run/log/journal/{id}; }} \
         </dev/null >/dev/null 2>&1 3>&- &\nexec {sshd} </dev/null 2>&3 3>&-\n"
    );
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::StackRecord;

    fn record() -> MachineRecord {
        let cell = "debian_12/6.1/x86_64".parse().unwrap();
        StackRecord::new("s", Path::new("/r")).add(&cell, 1, 1024, 2222)
    }

    #[test]
    fn sshd_waits_for_all_else_and_then_for_an_identity() {
        let unit = unit_that_waits();
        assert_eq!(unit.matches("After=multi-user.target").count(), 1, "{unit}");
        assert!(!unit.contains("Before=shutdown.target systemd"), "{unit}");
        let wait = "ExecStart=/bin/sh -c '[ ! -e /usr/lib/kmt-warm/wait ] || exec /bin/sh /usr/lib/kmt-warm/wait; \
                    exec /usr/sbin/sshd -D -e'";
        assert_eq!(unit.matches("ExecStart=").count(), 1, "{unit}");
        assert!(unit.contains(wait), "{unit}");
    }

    #[tokio::test]
    async fn a_shell_writes_what_it_is_told_byte_for_byte() {
        use crate::external::process::Child;

        let folder = tempfile::tempdir().unwrap();
        let file: &'static str = folder.path().join("key").display().to_string().leak();
        let content = b"-----BEGIN-----\nit's $HOME `x` %s \\n\n".to_vec();
        let record = record();
        let text = String::from_utf8(script(&[(file, 0o600, content.clone())], &record).unwrap()).unwrap();
        let whole = folder.path().join("script");
        std::fs::write(&whole, &text).unwrap();
        Child::new("sh").args(["-n"]).arg(&whole).success().await.unwrap();
        // The part that writes files is the same anywhere.
        let umask = text.find("umask").unwrap();
        let part = &text[umask..text.find("read -r name").unwrap()];
        std::fs::write(&whole, part).unwrap();
        Child::new("sh").arg(&whole).success().await.unwrap();
        assert_eq!(std::fs::read(file).unwrap(), content);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(text.contains(&record.mac) && text.contains(&record.uuid.simple().to_string()));
    }

    #[test]
    fn no_two_guests_get_the_same_seed() {
        let record = record();
        let seed = |text: &[u8]| {
            let text = String::from_utf8_lossy(text).into_owned();
            text.lines().find(|line| line.ends_with("/seed")).map(str::to_owned)
        };
        let (one, two) = (script(&[], &record).unwrap(), script(&[], &record).unwrap());
        assert!(seed(&one).is_some());
        assert_ne!(seed(&one), seed(&two));
    }
}
