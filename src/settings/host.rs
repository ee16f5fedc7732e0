//! `[[host]]` of the user's file: hosts of one's own on which remote cells run.

use std::path::{Path, PathBuf};

use kmt_reporters::event::Arch;
use serde::Deserialize;

use super::user::SshKey;
use crate::error::{Failure, Result};
use crate::external::remote::{FOLDER, Provider, RemoteHost};
use crate::hosts::config;

/// A host as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostSection {
    /// What it is called; its address, where it has no other name.
    pub name: Option<String>,
    /// Address of its SSH server.
    pub address: String,
    /// `x86_64` or `arm64`; that of this machine where nothing is said.
    pub arch: Option<Arch>,
    /// Port of its SSH server, 22.
    pub port: Option<u16>,
    /// Who logs in, root.
    pub user: Option<String>,
    /// File of the private key, the key of `[ssh-key]` where nothing is said. `~/` is this user's home.
    pub key: Option<PathBuf>,
    /// Its public host key, `ssh-ed25519 AAAA…`; without it the user's `known_hosts` must know it.
    pub host_key: Option<String>,
    /// Folder on it where images and machines lie.
    pub folder: Option<PathBuf>,
    /// Most memory of its guests together, MiB.
    pub memory: Option<u64>,
    /// Most processors that its guests count on.
    pub cores: Option<u32>,
}

impl HostSection {
    /// The host that is meant.
    ///
    /// # Errors
    /// A value that cannot be one.
    fn host(&self, key: Option<&SshKey>, home: Option<&Path>) -> Result<RemoteHost> {
        let host = RemoteHost {
            name: self.name.clone().unwrap_or_else(|| self.address.replace(':', "_")),
            arch: self.arch.unwrap_or_else(Arch::host),
            address: self.address.clone(),
            port: self.port.unwrap_or(22),
            user: self.user.clone().unwrap_or_else(|| "root".to_owned()),
            key: self
                .key
                .clone()
                .map(|path| of_home(path, home))
                .or_else(|| key.and_then(|key| key.path.clone())),
            host_key: self
                .host_key
                .as_deref()
                .map(|key| key.split_whitespace().take(2).collect::<Vec<_>>().join(" ")),
            folder: self.folder.clone().unwrap_or_else(|| PathBuf::from(FOLDER)),
            memory_mib: self.memory,
            cores: self.cores,
            provider: Provider::Own,
        };
        config::check(&host).map(|()| host)
    }
}

/// A path with `~/` at its beginning, which no shell has read.
fn of_home(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

/// The hosts that are written in `file`.
///
/// # Errors
/// A value that cannot be one, or two hosts of one name.
pub(super) fn all(
    sections: &[HostSection],
    key: Option<&SshKey>,
    home: Option<&Path>,
    file: &Path,
) -> Result<Vec<RemoteHost>> {
    let mut hosts: Vec<RemoteHost> = Vec::new();
    let wrong = |failure: Failure| failure.caused_by(format!("`[[host]]` of {}", file.display()));
    for section in sections {
        let host = section.host(key, home).map_err(wrong)?;
        if hosts.iter().any(|known| known.name == host.name) {
            return Err(wrong(Failure::usage(format!("two hosts are called `{}`", host.name)))
                .hint("`name = \"…\"` tells them apart"));
        }
        hosts.push(host);
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::super::user::UserFile;
    use super::*;

    fn hosts(text: &str) -> Result<Vec<RemoteHost>> {
        let file: UserFile = toml::from_str(text).unwrap();
        all(&file.host, file.ssh_key.as_ref(), Some(Path::new("/home/me")), Path::new("/c.toml"))
    }

    #[test]
    fn a_host_needs_an_address_and_takes_the_rest_from_what_is_usual() {
        let text = "[[host]]\naddress = '10.0.0.5'\n\n[[host]]\nname = 'arm'\naddress = 'lab.example.org'\narch = \
                    'arm64'\nport = 2222\nuser = 'ubuntu'\nkey = '~/.ssh/lab'\nhost-key = 'ssh-ed25519 AAAA \
                    comment'\nfolder = '/srv/kmt'\nmemory = 8192\ncores = 4\n\n[ssh-key]\npath = '/k/id'\nname = \
                    'k'\naws-key-name = 'k'\n";
        let hosts = hosts(text).unwrap();
        assert_eq!((hosts[0].name.as_str(), hosts[0].port, hosts[0].user.as_str()), ("10.0.0.5", 22, "root"));
        assert_eq!(hosts[0].key.as_deref(), Some(Path::new("/k/id")));
        assert_eq!(hosts[1].key.as_deref(), Some(Path::new("/home/me/.ssh/lab")));
        assert_eq!(hosts[1].host_key.as_deref(), Some("ssh-ed25519 AAAA"));
        assert_eq!((hosts[1].arch, hosts[1].memory_mib), (Arch::Arm64, Some(8192)));
        assert_eq!(hosts[1].place(), "ubuntu@lab.example.org:2222");
    }

    #[test]
    fn what_would_be_an_option_or_another_line_is_refused() {
        for text in [
            "[[host]]\naddress = '-oProxyCommand=x'\n",
            "[[host]]\naddress = 'a b'\n",
            "[[host]]\naddress = 'a'\nname = '../a'\n",
            "[[host]]\naddress = 'a'\nuser = 'r\\noot'\n",
            "[[host]]\naddress = 'a'\nfolder = 'relative'\n",
            "[[host]]\naddress = 'a'\n[[host]]\naddress = 'a'\n",
        ] {
            assert!(hosts(text).is_err(), "{text}");
        }
    }
}
