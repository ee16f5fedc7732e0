//! Installing packages by apt, from Debian's own archive.
//!
//! One peculiarity: where `qemu-utils` already comes from backports, `qemu-system-x86` must come from there
//! as well, since the two break each other across versions. Backports is then used for this one call, from a
//! folder of our own that is removed at once, also after a failure; `/etc/apt` and apt's lists stay as they
//! were.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host;
use crate::process::{check, command, succeeds};

/// What of the catalogue comes from backports there: QEMU, and the firmware its version asks for.
const PINNED: &str = "qemu-* seabios ipxe-qemu";

/// The suite that an installed version shows: `bookworm-backports` for `…~bpo12+1`.
pub(crate) fn backports_suite(version: &str, codename: &str) -> Option<String> {
    (version.contains("~bpo") && !codename.is_empty()).then(|| format!("{codename}-backports"))
}

/// Debian's name for the installed release, from the text of `/etc/os-release`.
pub(crate) fn codename(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

/// The names to install: those missing, and what makes them fit this machine.
pub(crate) fn names(missing: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = missing.iter().map(|name| (*name).to_owned()).collect();
    if missing.contains(&"libvirt-daemon-system") && !host::has_systemd() {
        // Otherwise its first alternative is taken, which brings (or upgrades) systemd where systemd does not
        // run.
        names.push("libvirt-daemon-system-sysv".to_owned());
    }
    names
}

/// Installs packages as root; `suite` is the backports suite QEMU must come from, if any.
pub(crate) fn install(names: &[String], suite: Option<&str>) -> Result<(), String> {
    let own = match suite {
        None => None,
        Some(suite) => {
            Some(OwnSources::new(suite).map_err(|error| format!("cannot write apt's sources: {error}"))?)
        }
    };
    let options = own.as_ref().map(OwnSources::options).unwrap_or_default();
    // A broken source of somebody else must not stop us: what counts is whether the packages can be
    // installed.
    if !succeeds(apt(&options).arg("update")) {
        eprintln!("warning: `apt-get update` had errors; going on with what it could read");
    }
    check(apt(&options).args(["-y", "-qq", "--no-install-recommends", "install"]).args(names))
}

fn apt(options: &[String]) -> Command {
    let mut child = command("apt-get");
    child.env("DEBIAN_FRONTEND", "noninteractive");
    child.args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0", "-o", "Acquire::Retries=3"]);
    // Keeps a configuration file that somebody changed; without this dpkg asks.
    child.args(["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]);
    child.args(options.iter().flat_map(|option| ["-o", option]));
    child
}

/// A folder with sources, lists and pins of our own, which goes when this goes.
struct OwnSources {
    folder: PathBuf,
}

impl OwnSources {
    fn new(suite: &str) -> io::Result<Self> {
        let own = Self { folder: std::env::temp_dir().join(format!("kmt-apt-{}", std::process::id())) };
        let parts = own.folder.join("sources.list.d");
        fs::create_dir(&own.folder)?;
        fs::create_dir(&parts)?;
        fs::create_dir_all(own.folder.join("lists/partial"))?;
        copy_sources(Path::new("/etc/apt/sources.list.d"), &parts)?;
        if Path::new("/etc/apt/sources.list").is_file() {
            fs::copy("/etc/apt/sources.list", own.folder.join("sources.list"))?;
        }
        fs::write(parts.join("kmt-backports.sources"), source(suite))?;
        fs::write(own.folder.join("preferences"), pin(suite))?;
        Ok(own)
    }

    fn options(&self) -> Vec<String> {
        let set = |key: &str, below: &str| format!("{key}={}", self.folder.join(below).display());
        vec![
            set("Dir::Etc::sourcelist", "sources.list"),
            set("Dir::Etc::sourceparts", "sources.list.d"),
            set("Dir::Etc::preferences", "preferences"),
            set("Dir::State::lists", "lists"),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            // The folder is root's alone.
            "APT::Sandbox::User=root".to_owned(),
        ]
    }
}

impl Drop for OwnSources {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The sources that apt would read: files named `*.list` and `*.sources`.
fn copy_sources(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "list" || end == "sources") {
            fs::copy(&path, to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn source(suite: &str) -> String {
    format!(
        "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {suite}\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )
}

fn pin(suite: &str) -> String {
    format!("Package: {PINNED}\nPin: release n={suite}\nPin-Priority: 990\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backport_asks_for_backports() {
        let suite = backports_suite("1:10.0.2+ds-2+deb13u1~bpo12+1", "bookworm");
        assert_eq!(suite.as_deref(), Some("bookworm-backports"));
        assert_eq!(backports_suite("1:7.2+dfsg-7+deb12u18+b3", "bookworm"), None);
        assert_eq!(backports_suite("1:10.0.2~bpo12+1", ""), None);
    }

    #[test]
    fn the_codename_may_stand_in_quotes_or_be_absent() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), "bookworm");
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n"), "trixie");
        assert_eq!(codename("ID=arch\n"), "");
    }

    #[test]
    fn own_sources_are_complete_and_vanish() {
        let own = OwnSources::new("bookworm-backports").expect("the folder can be made");
        let folder = own.folder.clone();
        let read = |below: &str| fs::read_to_string(folder.join(below)).expect("it is there");
        assert!(read("sources.list.d/kmt-backports.sources").contains("Suites: bookworm-backports\n"));
        assert!(read("preferences").contains("Pin: release n=bookworm-backports\n"));
        assert!(own.options().iter().all(|option| option.contains('=')));
        drop(own);
        assert!(!folder.exists());
    }
}
