//! The script that makes a bare image a host, and what it says of itself.

use std::path::Path;
use std::time::Duration;

use kmt_reporters::event::Arch;

const SCRIPT: &str = include_str!("setup.sh");
/// How a line of the script on the console begins.
const SAYS: &str = "kmt-run: ";
/// Longest script that EC2 takes, bytes.
pub const LONGEST: usize = 16 * 1024;

/// What differs from host to host.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Architecture.
    pub arch: Arch,
    /// How long it lives.
    pub ttl: Duration,
    /// Who logs in.
    pub user: &'a str,
    /// The public key that logs in besides that of the key pair: one line.
    pub key: Option<&'a str>,
    /// Where images and machines lie.
    pub folder: &'a Path,
}

/// Debian's and Ubuntu's packages of what a host needs.
pub fn packages(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &[
            "qemu-system-x86",
            "qemu-utils",
            "libvirt-daemon-system",
            "libvirt-clients",
            "dnsmasq-base",
            "iptables",
            "e2fsprogs",
            "xz-utils",
            "zstd",
        ],
        Arch::Arm64 => &[
            "qemu-system-arm",
            "qemu-efi-aarch64",
            "qemu-utils",
            "libvirt-daemon-system",
            "libvirt-clients",
            "dnsmasq-base",
            "iptables",
            "e2fsprogs",
            "xz-utils",
            "zstd",
        ],
    }
}

/// The script, as user data.
pub fn script(setup: &Setup<'_>) -> String {
    let emulator = match setup.arch {
        Arch::X86_64 => "qemu-system-x86_64",
        Arch::Arm64 => "qemu-system-aarch64",
    };
    let key = setup.key.unwrap_or_default().trim();
    let values = [
        ("ttl", setup.ttl.as_secs().to_string()),
        ("user", setup.user.to_owned()),
        ("key", key.to_owned()),
        ("folder", setup.folder.display().to_string()),
        ("emulator", emulator.to_owned()),
        ("packages", packages(setup.arch).join(" ")),
    ];
    let values: String = values.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect();
    format!("#!/bin/sh\n{values}{SCRIPT}")
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What the script said of itself so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The host's public key.
    pub host_key: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Why it will not be.
    pub failed: Option<String>,
}

/// Reads a console.
pub fn said(console: &str) -> Said {
    let mut said = Said::default();
    for line in console.lines() {
        let Some(at) = line.find(SAYS) else { continue };
        let words = line[at + SAYS.len()..].trim();
        if let Some(key) = words.strip_prefix("host-key ") {
            // Anybody may write on a console: only what is a key is taken for one.
            let mut parts = key.split(' ');
            let kind = parts.next().unwrap_or_default();
            let text = parts.next().unwrap_or_default();
            let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
            if kind == "ssh-ed25519" && text.len() >= 60 && text.chars().all(base64) {
                said.host_key = Some(format!("{kind} {text}"));
            }
        } else if let Some(why) = words.strip_prefix("failed: ") {
            said.failed = Some(why.to_owned());
        } else if words == "ready" {
            said.ready = true;
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(user: &'static str) -> Setup<'static> {
        Setup {
            arch: Arch::X86_64,
            ttl: Duration::from_hours(2),
            user,
            key: Some("ssh-ed25519 AAAA it's mine\n"),
            folder: Path::new("/var/lib/kmt-run"),
        }
    }

    #[test]
    fn values_are_words_and_the_end_comes_first() {
        let text = script(&setup("admin"));
        assert!(
            text.starts_with("#!/bin/sh\nttl='7200'\nuser='admin'\nkey='ssh-ed25519 AAAA it'\\''s mine'\n")
        );
        let main = &text[text.find("\narm || ").unwrap()..];
        assert!(main.find("arm").unwrap() < main.find("install_what_is_missing").unwrap());
        for arch in Arch::ALL {
            assert!(script(&Setup { arch, ..setup("admin") }).len() < LONGEST / 2);
        }
    }

    #[test]
    fn what_is_said_is_heard_and_rubbish_is_not() {
        let key = format!("ssh-ed25519 {}", "A".repeat(68));
        let console = format!(
            "[  5.1] x\r\n[ 9.0] cloud-init[7]: kmt-run: host-key {key} root@x\r\nkmt-run: host-key ssh-rsa AAAA\r\n\
             kmt-run: host-key ssh-ed25519 $(id)\r\nkmt-run: disk /dev/x\r\nkmt-run: ready\r\n"
        );
        assert_eq!(said(&console), Said { host_key: Some(key), ready: true, failed: None });
        assert_eq!(said("kmt-run: failed: no room at /x\n").failed.as_deref(), Some("no room at /x"));
        assert_eq!(said("login: \n"), Said::default());
    }
}
