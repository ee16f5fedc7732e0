//! Keys of a stack and the OpenSSH configuration that uses them. Nothing is shared between stacks.

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{MachineRecord, StackRecord, write_atomically};
use crate::error::{Failure, Result};
use crate::external::remote::alias_of;
use crate::external::transport::Transport;
use crate::hosts::config;

/// OpenSSH client configuration of a stack.
pub(super) const CONFIG: &str = "ssh_config";
const KNOWN_HOSTS: &str = "known_hosts";
const LOGIN: &str = "keys";
const KEY: &str = "id_ed25519";
/// Ending of a folder whose keys are being made.
const UNFINISHED: &str = "new";
/// How long to wait between two looks at keys that somebody else makes.
const LOOK: Duration = Duration::from_millis(20);

/// A private key file and its public line.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Private key, mode 0600.
    pub private: PathBuf,
    /// `ssh-ed25519 AAAA…`
    pub public: String,
}

impl Keys {
    /// The stack's login key, made at the first call.
    ///
    /// # Errors
    /// `ssh-keygen` failed.
    pub async fn login(stack: &Path, transport: &dyn Transport) -> Result<Keys> {
        Keys::at(&stack.join(LOGIN), transport).await
    }

    /// The key pair in `folder`, made if there is none. Two processes may come at once: one makes it, the other
    /// waits; the folder appears whole, by a rename.
    ///
    /// # Errors
    /// The key cannot be made or read.
    pub async fn at(folder: &Path, transport: &dyn Transport) -> Result<Keys> {
        if !folder.exists() {
            let _right = right_to_make(folder).await?;
            let beside = folder.with_extension(UNFINISHED);
            if !folder.exists() {
                // What a maker left who was killed.
                let _ = std::fs::remove_dir_all(&beside);
                super::create_private(&beside)?;
                transport.make_key(&beside.join(KEY)).await?;
                std::fs::rename(&beside, folder).map_err(|error| Failure::file("write", folder, &error))?;
            }
        }
        let private = folder.join(KEY);
        let public = folder.join(format!("{KEY}.pub"));
        let text =
            std::fs::read_to_string(&public).map_err(|error| Failure::file("read", &public, &error))?;
        let public = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Ok(Keys { private, public })
    }
}

/// The right to make the keys in `folder`: ends with its holder.
async fn right_to_make(folder: &Path) -> Result<File> {
    loop {
        if let Some(right) = try_right(folder)? {
            return Ok(right);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn try_right(folder: &Path) -> Result<Option<File>> {
    let path = folder.with_extension("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| Failure::file("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Failure::file("lock", &path, &error)),
    }
}

/// Removes login keys that nobody makes any more.
pub(super) fn sweep(stack: &Path) -> Result<()> {
    let folder = stack.join(LOGIN);
    let beside = folder.with_extension(UNFINISHED);
    if beside.exists() && try_right(&folder)?.is_some() {
        super::remove::remove_folder(&beside)?;
    }
    Ok(())
}

/// The private key that logs in to the stack's machines.
pub(super) fn login_key(folder: &Path) -> PathBuf {
    folder.join(LOGIN).join(KEY)
}

/// Rewrites the client configuration and the known hosts from the record.
pub(super) fn write_config(folder: &Path, record: &StackRecord) -> Result<()> {
    let mut config = format!("# Machines of the stack `{}`. Written by kmt-run.\n", record.name);
    let mut known = String::new();
    for host in record.hosts.values() {
        config.push_str(&config::section(folder, host));
        known.extend(config::known(host));
    }
    for machine in record.machines.values() {
        let Some(host_key) = &machine.host_key else {
            continue;
        };
        config.push_str(&section(folder, machine, &machine.alias()));
        let _ = writeln!(known, "{} {host_key}", machine.alias());
    }
    write_atomically(&folder.join(KNOWN_HOSTS), known.as_bytes())?;
    write_atomically(&folder.join(CONFIG), config.as_bytes())
}

/// The section of a machine in an OpenSSH configuration, for `hosts` (one, or several with blanks). It stands on
/// its own: what the user's own configuration says for all hosts neither weakens nor breaks it where it comes first.
pub(super) fn section(folder: &Path, machine: &MachineRecord, hosts: &str) -> String {
    let quoted = |file: &str| quoted(&folder.join(file));
    let (address, port) = machine.ssh_at();
    format!(
        "\nHost {hosts}\n  HostName {address}\n  Port {port}\n  User root\n  HostKeyAlias {id}\n  \
         IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  \
         GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  HostKeyAlgorithms ssh-ed25519\n  \
         KexAlgorithms curve25519-sha256\n  Ciphers aes128-gcm@openssh.com\n  PreferredAuthentications publickey\n  \
         Compression no\n{way}  ForwardAgent no\n  ForwardX11 no\n  LogLevel ERROR\n",
        // `ProxyJump none` alone leaves room for somebody else's `ProxyCommand` in newer clients.
        way = machine.host.as_deref().map_or_else(
            || "  ProxyJump none\n  ProxyCommand none\n".to_owned(),
            |host| format!("  ProxyJump {}\n", alias_of(host)),
        ),
        id = machine.alias(),
        key = quoted(&format!("{LOGIN}/{KEY}")),
        known = quoted(KNOWN_HOSTS),
    )
}

/// A path as an argument in an OpenSSH configuration: blanks, quotes, backslashes and `%` mean themselves.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// Refuses a folder that no OpenSSH configuration can name: `${` would be a variable there, and a line ends at its
/// end.
///
/// # Errors
/// The folder is one.
pub(super) fn check_nameable(folder: &Path) -> Result<()> {
    let text = folder.to_string_lossy();
    if text.contains("${") || text.chars().any(char::is_control) {
        let failure = format!("`{}` cannot be named in an OpenSSH configuration", text.escape_debug());
        return Err(Failure::usage(failure).hint("keep state elsewhere: KMT_HOME=DIR"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::process::Child;

    #[tokio::test]
    async fn openssh_reads_odd_paths_as_they_are() {
        let temp = tempfile::tempdir().unwrap();
        for odd in ["plain", "with blank", "100%h", "a\"b", "back\\slash", "it's", "#hash", "ü"] {
            let folder = temp.path().join(odd);
            std::fs::create_dir(&folder).unwrap();
            check_nameable(&folder).unwrap();
            let mut record = StackRecord::new("s", Path::new("/r"));
            let id = record.add(&"debian_12/6.1/x86_64".parse().unwrap(), 1, 512, 2222).id;
            record.machines.get_mut(&id).unwrap().host_key = Some("ssh-ed25519 AAAA".to_owned());
            write_config(&folder, &record).unwrap();
            let read = Child::new("ssh").args(["-G", "-F"]).arg(folder.join(CONFIG)).arg(&id);
            let read = read.success().await.unwrap().text();
            let line = |key: &str| read.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
            // `-G` shows a file before `%%` becomes `%`, when it is opened.
            let shown = folder.display().to_string();
            assert_eq!(line("identityfile ").replace("%%", "%"), format!("{shown}/keys/id_ed25519"), "{odd}");
            assert_eq!(
                line("userknownhostsfile ").replace("%%", "%"),
                format!("{shown}/known_hosts"),
                "{odd}"
            );
            assert_eq!(line("stricthostkeychecking "), "true");
        }
        assert!(check_nameable(Path::new("/a/${HOME}")).is_err());
        assert!(check_nameable(Path::new("/a\nb")).is_err());
    }
}
