//! A host of one's own that is none: a namespace with libvirtd and sshd of its own, at the other end of a link.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{ARCH, Call, Namespace, text};

/// A host at the end of a link. Dropped, it is gone with all that runs on it.
pub(crate) struct Lab {
    namespace: Namespace,
    /// Its keys and configuration, the user's file, and its folder of images and machines.
    folder: TempDir,
    link: String,
    address: String,
}

/// Runs a program of this machine, which must succeed.
fn must(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

impl Lab {
    /// One that nobody has used. Only root can make it.
    pub(crate) fn new() -> Lab {
        let folder = tempfile::Builder::new().prefix("kmt-lab-").tempdir_in("/var/tmp").unwrap();
        let namespace = Namespace::new();
        let number = std::process::id() % 250;
        let (link, far) = (format!("kmtlab{number}"), format!("kmtfar{number}"));
        let (here, there) = (format!("10.199.{number}.1/24"), format!("10.199.{number}.2/24"));
        let holder = namespace.holder().to_string();
        must(&["ip", "link", "add", &link, "type", "veth", "peer", "name", &far, "netns", &holder]);
        must(&["ip", "addr", "add", &here, "dev", &link]);
        must(&["ip", "link", "set", &link, "up"]);
        namespace.said(&format!("ip addr add {there} dev {far}; ip link set {far} up"));
        let address = there.trim_end_matches("/24").to_owned();
        let lab = Lab { namespace, folder, link, address };
        lab.start_sshd(&lab.address);
        lab
    }

    fn path(&self, name: &str) -> String {
        text(self.folder.path().join(name))
    }

    fn start_sshd(&self, address: &str) {
        // QEMU's user passes through.
        must(&["chmod", "711", &text(self.folder.path())]);
        for key in ["login", "hostkey"] {
            must(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &self.path(key)]);
        }
        let config = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPermitRootLogin yes\nUsePAM \
             no\nPidFile none\nMaxSessions 100\n",
            self.path("hostkey"),
            self.path("login.pub")
        );
        fs::write(self.path("sshd_config"), config).unwrap();
        self.namespace.said(&format!("/usr/sbin/sshd -f {}", self.path("sshd_config")));
        let host_key = fs::read_to_string(self.path("hostkey.pub")).unwrap();
        let user = format!(
            "[[host]]\nname = \"lab\"\naddress = \"{address}\"\narch = \"{ARCH}\"\nkey = \"{}\"\nhost-key = \
             \"{}\"\nfolder = \"{}\"\n",
            self.path("login"),
            host_key.trim(),
            self.path("kmt")
        );
        fs::create_dir_all(self.folder.path().join("config/kmt-run")).unwrap();
        fs::write(self.path("config/kmt-run/config.toml"), user).unwrap();
    }

    /// The call of a user who has this host.
    pub(crate) fn known_to<'h>(&self, call: Call<'h>) -> Call<'h> {
        call.env("XDG_CONFIG_HOME", &self.path("config"))
    }

    /// What `[ec2]` says of it, where it stands for an instance.
    pub(crate) fn as_rented(&self) -> String {
        let host_key = fs::read_to_string(self.path("hostkey.pub")).unwrap();
        let (address, folder) = (&self.address, self.path("kmt"));
        format!("reach = \"{address}\"\nhost-key = \"{}\"\nfolder = \"{folder}\"\n", host_key.trim())
    }

    /// The call of a user who has no host, and a key.
    pub(crate) fn hired_by<'h>(&self, call: Call<'h>) -> Call<'h> {
        let folder = self.folder.path().join("hirer/kmt-run");
        fs::create_dir_all(&folder).unwrap();
        let key = self.path("login");
        let user = format!("[ssh-key]\npath = \"{key}\"\nname = \"login\"\naws-key-name = \"login\"\n");
        fs::write(folder.join("config.toml"), user).unwrap();
        call.env("XDG_CONFIG_HOME", &self.path("hirer"))
    }

    /// Nothing passes the link any more, or all does again.
    pub(crate) fn link(&self, state: &str) {
        must(&["ip", "link", "set", &self.link, state]);
    }

    /// Ends and forgets all that runs on it, and the files of machines.
    pub(crate) fn wipe(&self) {
        for domain in self.domains() {
            self.namespace.said(&format!(
                "virsh -c qemu:///system destroy {domain} >/dev/null 2>&1; virsh -c qemu:///system undefine {domain}"
            ));
        }
        let _ = fs::remove_dir_all(self.folder.path().join("kmt/machines"));
    }

    /// Domains on it.
    pub(crate) fn domains(&self) -> Vec<String> {
        let said = self.namespace.said("virsh -c qemu:///system list --all --name");
        said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Files below a folder of its own.
    pub(crate) fn files(&self, below: &str) -> Vec<PathBuf> {
        let listed = fs::read_dir(self.folder.path().join("kmt").join(below));
        listed.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }
}
