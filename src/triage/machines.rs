//! What is known of a machine that a setup job brought up: its entry, its console, its address.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use kmt_reporters::event::Arch;
use kmt_reporters::triage::Finding;
use kmt_reporters::triage::boot::{Classifier, Ended, Facts};
use serde::Deserialize;

use super::archive;

/// Machines of a setup job, by architecture: its `stack.output`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct StackOutput(BTreeMap<String, Host>);

#[derive(Debug, Clone, Default, Deserialize)]
struct Host {
    #[serde(default)]
    microvms: Vec<Vm>,
}

/// A machine in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Vm {
    /// Domain.
    pub id: String,
    /// Address.
    pub ip: String,
    /// Platform.
    pub tag: String,
    /// Test sets, among other words.
    pub vmset_tags: Vec<String>,
}

impl StackOutput {
    /// Reads the file.
    ///
    /// # Errors
    /// What it is instead.
    pub fn read(path: &Path) -> Result<StackOutput, String> {
        let bytes = archive::whole(path)?;
        serde_json::from_slice(&bytes).map_err(|error| format!("is not what setup jobs write: {error}"))
    }

    /// The machine of a test job.
    pub fn machine(&self, arch: Arch, platform: &str, set: &str) -> Option<&Vm> {
        let host = self.0.get(arch.as_str()).or_else(|| self.0.get("local"))?;
        let meant =
            |vm: &&Vm| vm.tag == platform && (set.is_empty() || vm.vmset_tags.iter().any(|tag| tag == set));
        host.microvms.iter().find(meant)
    }

    /// The machine of that domain.
    pub fn by_id(&self, id: &str) -> Option<&Vm> {
        self.0.values().flat_map(|host| &host.microvms).find(|vm| vm.id == id)
    }
}

/// Addresses that dnsmasq gave out: its status file.
pub fn addresses(path: &Path) -> Vec<String> {
    let bytes = archive::whole(path).unwrap_or_default();
    let leases: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap_or_default();
    let address = |lease: &serde_json::Value| lease.get("ip-address")?.as_str().map(str::to_owned);
    leases.iter().filter_map(address).collect()
}

/// Whether the unit that sets a machine up is active, by the words of systemd; `None` where they do not say.
pub fn unit_is_active(status: &str) -> Option<bool> {
    let word = status.lines().find_map(|line| {
        let line = line.trim();
        let said = line.strip_prefix("Active:").unwrap_or(line).split_whitespace().next()?;
        ["active", "inactive", "failed", "activating", "deactivating"].contains(&said).then_some(said)
    })?;
    Some(word == "active")
}

/// What a console tells.
#[derive(Debug, Clone, Default)]
pub struct Console {
    /// Whether a login prompt is there.
    pub login: bool,
    /// Whether the unit that sets the machine up was done; `None` where no unit is seen at all.
    pub unit: Option<bool>,
    /// The furthest phase.
    pub phase: Option<String>,
    /// Why it failed, where the console says that it did.
    pub finding: Option<Finding>,
}

/// Reads a console, a piece at a time.
///
/// # Errors
/// It cannot be read.
pub fn console(path: &Path) -> std::io::Result<Console> {
    let mut file = std::fs::File::open(path)?;
    let (mut classifier, mut words) = (Classifier::new(), Words::default());
    let mut piece = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        classifier.push(&piece[..count]);
        words.push(&piece[..count]);
    }
    words.line();
    let ended = if words.login { Ended::Unknown } else { Ended::Deadline };
    let finding = classifier.finding(&Facts { ended, ..Facts::default() });
    let unit = words.systemd.then_some(words.unit);
    let phase = classifier.phase().map(|phase| phase.as_str().to_owned());
    Ok(Console { login: words.login, unit, phase, finding })
}

/// The words that the former tool looked for.
#[derive(Default)]
struct Words {
    line: Vec<u8>,
    login: bool,
    systemd: bool,
    unit: bool,
}

impl Words {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.line(),
                // A line without end is nobody's login prompt.
                byte if self.line.len() < 4096 => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        let line = kmt_reporters::strip_ansi(&line).into_owned();
        self.login |= is_prompt(&line);
        if line.trim_start().starts_with('[')
            && line.contains("] ")
            && line.contains('.')
            && !line.contains("OK")
        {
            return;
        }
        self.systemd |= line.to_ascii_lowercase().contains("journal service");
        let done = line.contains("Finished") || line.contains("Started");
        self.unit |= done && (line.contains("Setup ddvm") || line.contains("setup-ddvm"));
    }
}

/// `ddvm login: `, or any host's.
fn is_prompt(line: &str) -> bool {
    line.split_once(" login:").is_some_and(|(host, _)| {
        let host = host.split_whitespace().last().unwrap_or_default();
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inactive_is_not_active() {
        assert_eq!(unit_is_active("   Active: active (exited) since"), Some(true));
        assert_eq!(unit_is_active("inactive\n"), Some(false));
        assert_eq!(unit_is_active("Active: failed (Result: exit-code)"), Some(false));
        assert_eq!(unit_is_active("Unit setup-ddvm.service could not be found."), None);
    }

    #[test]
    fn a_machine_is_found_by_platform_and_set() {
        let text = r#"{"arm64": {"ip": "10.1.2.3", "microvms": [
            {"id": "a", "ip": "100.1.0.2", "tag": "debian_12", "vmset-tags": ["distro_arm64", "no_usm"], "new": 1},
            {"id": "b", "ip": "100.1.0.3", "tag": "debian_12", "vmset-tags": ["only_usm"]}]}}"#;
        let output: StackOutput = serde_json::from_str(text).unwrap();
        assert_eq!(output.machine(Arch::Arm64, "debian_12", "only_usm").unwrap().id, "b");
        assert_eq!(output.machine(Arch::Arm64, "debian_12", "other"), None);
        assert_eq!(output.machine(Arch::X86_64, "debian_12", "no_usm"), None);
    }

    #[test]
    fn a_console_tells_how_far_the_machine_got() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let up = "[    1.0] Linux version 6.1.0\n[  OK  ] Started Journal Service.\n\
                  [  OK  ] Finished setup-ddvm.service - Setup ddvm.\n\nDebian GNU/Linux 12 ddvm ttyS0\n\nddvm login: ";
        std::fs::write(file.path(), up).unwrap();
        let told = console(file.path()).unwrap();
        assert_eq!((told.login, told.unit), (true, Some(true)));
        let panic = "[    1.0] Linux version 6.1.0\n[    2.0] VFS: Cannot open root device \"vda1\" or unknown-block(0,0): \
                     error -6\n[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n";
        std::fs::write(file.path(), panic).unwrap();
        let told = console(file.path()).unwrap();
        assert_eq!((told.login, told.unit), (false, None));
        assert_eq!(told.finding.unwrap().cause, "no-root-device");
    }
}
