//! What an OpenSSH client is told of a host: one section, the same wherever it stands.
//!
//! Whoever names the host becomes the master of one connection, or uses the one that is there; it goes a minute after the
//! last who used it. A guest behind the host is reached by `ProxyJump` through that same connection.

use std::path::Path;

use super::sockets;
use crate::error::{Failure, Result};
use crate::external::remote::RemoteHost;
use crate::stack::{quoted, write_atomically};

/// Name of the configuration in a host's folder.
pub const CONFIG: &str = "ssh_config";
/// Name of the file of its host key, in the same folder as a configuration that has it.
pub const KNOWN_HOSTS: &str = "known_hosts";

/// The section of a host, for a configuration in `folder`.
pub fn section(folder: &Path, host: &RemoteHost) -> String {
    let mut text = format!(
        "\nHost {alias}\n  HostName {address}\n  Port {port}\n  User {user}\n  BatchMode yes\n  ForwardAgent no\n  \
         ForwardX11 no\n  Compression no\n  LogLevel ERROR\n  StrictHostKeyChecking yes\n  ConnectTimeout 15\n  \
         ServerAliveInterval 15\n  ServerAliveCountMax 4\n  ControlMaster auto\n  ControlPersist 60\n  \
         ControlPath {path}\n  StreamLocalBindUnlink yes\n",
        alias = host.alias(),
        address = host.address,
        port = host.port,
        user = host.user,
        path = quoted(&sockets(host).join("master")),
    );
    if let Some(key) = &host.key {
        text.push_str(&format!("  IdentityFile {}\n  IdentitiesOnly yes\n", quoted(key)));
    }
    if host.host_key.is_some() {
        let known = quoted(&folder.join(KNOWN_HOSTS));
        text.push_str(&format!(
            "  HostKeyAlias {}\n  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n",
            host.alias()
        ));
    }
    text
}

/// The line of its host key, where it is given.
pub fn known(host: &RemoteHost) -> Option<String> {
    host.host_key.as_ref().map(|key| format!("{} {key}\n", host.alias()))
}

/// Writes a configuration of the host alone into `folder`; one that stands there already is left as it is.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(folder: &Path, host: &RemoteHost) -> Result<()> {
    crate::stack::create_private(folder)?;
    let config = format!("# The host `{}`. Written by kmt-run.\n{}", host.name, section(folder, host));
    for (name, text) in [(KNOWN_HOSTS, known(host).unwrap_or_default()), (CONFIG, config)] {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        write_atomically(&path, text.as_bytes())?;
    }
    Ok(())
}

/// Refuses a host that no OpenSSH configuration can name.
///
/// # Errors
/// A name, address, user or path with blanks or control characters, or an empty one.
pub fn check(host: &RemoteHost) -> Result<()> {
    let word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let address = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
    };
    let line = |text: &str| !text.chars().any(char::is_control) && !text.contains("${");
    let bad = |what: &str, value: &str| {
        Err(Failure::usage(format!("`{}` cannot be the {what} of a host", value.escape_debug())))
    };
    if !word(&host.name) || host.name.starts_with(['-', '.']) || host.name.len() > 60 {
        return bad("name", &host.name);
    }
    if !address(&host.address) {
        return bad("address", &host.address);
    }
    if !word(&host.user) || host.user.starts_with('-') {
        return bad("user", &host.user);
    }
    if let Some(key) = host.host_key.as_ref().filter(|key| !line(key) || key.split_whitespace().count() < 2) {
        return bad("host-key", key);
    }
    let folder = host.folder.display().to_string();
    if !host.folder.is_absolute() || !line(&folder) || folder.contains([',', '\'', '"', ' ']) {
        return bad("folder", &folder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use kmt_reporters::event::Arch;

    use super::*;
    use crate::external::process::Child;
    use crate::external::remote::Provider;

    #[tokio::test]
    async fn openssh_reads_the_section_as_it_is_meant() {
        let temp = tempfile::tempdir().unwrap();
        let host = RemoteHost {
            name: "lab".to_owned(),
            arch: Arch::Arm64,
            address: "10.0.0.5".to_owned(),
            port: 2222,
            user: "ubuntu".to_owned(),
            key: Some(PathBuf::from("/keys/my key")),
            host_key: Some("ssh-ed25519 AAAA".to_owned()),
            folder: PathBuf::from("/srv/kmt"),
            memory_mib: None,
            cores: None,
            provider: Provider::Own,
        };
        write(temp.path(), &host).unwrap();
        let read = Child::new("ssh").args(["-G", "-F"]).arg(temp.path().join(CONFIG)).arg(host.alias());
        let read = read.success().await.unwrap().text();
        for line in [
            "hostname 10.0.0.5",
            "port 2222",
            "user ubuntu",
            "identityfile /keys/my key",
            "stricthostkeychecking true",
            "hostkeyalias kmt-host-lab",
            "controlmaster auto",
        ] {
            assert!(read.lines().any(|read| read == line), "no `{line}` in\n{read}");
        }
        let known = std::fs::read_to_string(temp.path().join(KNOWN_HOSTS)).unwrap();
        assert_eq!(known, "kmt-host-lab ssh-ed25519 AAAA\n");
    }
}
