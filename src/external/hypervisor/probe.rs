//! Which accelerator and CPU model really run a guest here.
//!
//! Asks QEMU to execute a firmware of 214 bytes (`probe.S`) that climbs from real mode to long mode with paging
//! and then writes to its exit port. A `/dev/kvm` that opens, and may even execute real mode, but cannot run a
//! kernel is found out in seconds; nothing is believed from its existence. On arm64 four instructions ask for power off.
//! macOS has HVF in the place of KVM: this is written and was never run there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Acceleration, Accelerator};
use crate::external::process::Child;
use crate::external::{self, Class, Error};

/// QEMU's exit status when the firmware ran on a PC: `(0x10 << 1) | 1`.
const RAN: i32 = 33;
/// How long the firmware may take; a processor needs a tenth of a second, an emulated one on a busy host more.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_EMULATED: Duration = Duration::from_secs(30);
/// Its code, for the beginning of a ROM that ends at 4 GiB.
const CODE: &[u8] = include_bytes!("probe.bin");

/// The same for arm64: the call of its firmware for power off (PSCI's SYSTEM_OFF), and a loop for where nobody answers.
const ARM64: [u32; 4] = [0x5280_0100, 0x72b0_8000, 0xd400_0002, 0x1400_0000];
/// Where it is put: behind what QEMU itself puts at the beginning of memory.
const ARM64_AT: &str = "0x40200000";

/// What a remembered verdict means now.
const SCHEMA: u32 = 3;

/// The verdict and what it depends on.
#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    schema: u32,
    key: String,
    acceleration: Acceleration,
}

/// The system emulator of an architecture.
pub(super) fn emulator(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "qemu-system-x86_64",
        Arch::Arm64 => "qemu-system-aarch64",
    }
}

/// QEMU's name of an architecture.
pub(in crate::external) fn qemu_arch(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64",
        Arch::Arm64 => "aarch64",
    }
}

/// What is executed: on a PC a firmware of 64 KiB, the code and a jump to it at the reset vector.
pub(in crate::external) fn firmware(arch: Arch) -> Vec<u8> {
    if arch == Arch::Arm64 {
        return ARM64.iter().flat_map(|word| word.to_le_bytes()).collect();
    }
    let mut rom = vec![0xf4u8; 0x1_0000];
    rom[..CODE.len()].copy_from_slice(CODE);
    rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
    rom
}

/// Whether guests are of the host's own architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::external) enum Native {
    /// They may use its processors.
    Yes,
    /// They are emulated.
    No,
}

impl Native {
    fn here(arch: Arch) -> Native {
        if arch == Arch::host() { Native::Yes } else { Native::No }
    }
}

/// The ladder, best first.
fn ladder(arch: Arch, native: Native) -> Vec<(Accelerator, &'static str)> {
    let mut steps = Vec::new();
    if native == Native::Yes {
        if cfg!(target_os = "macos") && arch == Arch::host() {
            steps.push((Accelerator::Hvf, "host"));
        } else {
            steps.push((Accelerator::Kvm, "host"));
            steps.push((Accelerator::Kvm, if arch == Arch::X86_64 { "qemu64" } else { "max" }));
        }
    }
    steps.push((Accelerator::Tcg, "max"));
    steps
}

/// What the verdict depends on: the emulator's file, the device, this boot of the host.
fn key(arch: Arch) -> String {
    use std::os::unix::fs::MetadataExt;
    let stat = |path: &Path| {
        std::fs::metadata(path).map_or("none".to_owned(), |m| {
            format!("{}.{}.{}.{:o}.{}", m.ino(), m.size(), m.mtime(), m.mode(), m.gid())
        })
    };
    let qemu = std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(emulator(arch)))
        .find(|file| file.exists())
        .unwrap_or_else(|| PathBuf::from(emulator(arch)));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{} {} {}", stat(&qemu), stat(Path::new("/dev/kvm")), boot.trim())
}

/// One step of the ladder, to be tried.
#[derive(Debug, Clone, Copy)]
pub(in crate::external) struct Tried {
    accelerator: Accelerator,
    cpu: &'static str,
    /// How long the firmware may take.
    pub(in crate::external) patience: Duration,
}

impl Tried {
    /// QEMU and its arguments; the firmware is in the file `rom`.
    pub(in crate::external) fn words(&self, arch: Arch, rom: &str) -> Vec<String> {
        let mut words: Vec<String> =
            [emulator(arch), "-nodefaults", "-no-user-config", "-display", "none"].map(str::to_owned).into();
        let accelerator = self.accelerator.as_str();
        let rest = match arch {
            Arch::X86_64 => [
                ("-m", "16".to_owned()),
                ("-machine", format!("pc,accel={accelerator}")),
                ("-device", "isa-debug-exit,iobase=0xf4,iosize=4".to_owned()),
                ("-bios", rom.to_owned()),
            ],
            // The exit port is a device of PCs: here the code asks for power off, and QEMU ends well.
            Arch::Arm64 => [
                ("-m", "64".to_owned()),
                ("-machine", format!("virt,accel={accelerator}")),
                ("-device", format!("loader,file={rom},addr={ARM64_AT},cpu-num=0,force-raw=on")),
                ("-display", "none".to_owned()),
            ],
        };
        words.extend(["-cpu".to_owned(), self.cpu.to_owned()]);
        words.extend(rest.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        words
    }
}

/// How QEMU ended, `None` where it did not in time, and what it said.
type Ended = (Option<i32>, Vec<u8>);

/// Whether a guest ran, or QEMU's reason why not.
fn judged(arch: Arch, (status, stderr): &Ended) -> Result<(), String> {
    let words = String::from_utf8_lossy(stderr);
    let ran = if arch == Arch::X86_64 { RAN } else { 0 };
    match status {
        Some(status) if *status == ran => Ok(()),
        Some(_) => {
            let line = words.lines().find(|l| !l.trim().is_empty()).unwrap_or("it ran no instruction");
            let line = line.split_once(": ").map_or(line, |(_, rest)| rest.trim_start_matches("error: "));
            Err(line.trim().to_owned())
        }
        None => Err("the guest got stuck before it could switch to 64 bits".to_owned()),
    }
}

/// Tries one step on this machine.
async fn try_here(arch: Arch, tried: Tried, rom: &Path) -> external::Result<Ended> {
    let words = tried.words(arch, &rom.to_string_lossy());
    let (program, args) =
        words.split_first().map_or(("", &[][..]), |(program, args)| (program.as_str(), args));
    let child = Child::new(program).args(args);
    match timeout(tried.patience, child.output()).await {
        Ok(output) => output.map(|output| (output.status, output.stderr)),
        Err(_) => Ok((None, Vec::new())),
    }
}

fn file_of(cache: &Path, arch: Arch) -> PathBuf {
    cache.join(format!("acceleration-{arch}.json"))
}

/// What is remembered in `cache` of a host whose `key` is the same as then.
pub(in crate::external) fn remembered(cache: &Path, arch: Arch, key: &str) -> Option<Acceleration> {
    let text = std::fs::read(file_of(cache, arch)).ok()?;
    let verdict: Verdict = serde_json::from_slice(&text).ok()?;
    (verdict.schema == SCHEMA && verdict.key == key).then_some(verdict.acceleration)
}

/// Remembers it. Only speed is lost where that fails.
pub(in crate::external) fn remember(cache: &Path, arch: Arch, key: &str, acceleration: &Acceleration) {
    let verdict = Verdict { schema: SCHEMA, key: key.to_owned(), acceleration: acceleration.clone() };
    if let Ok(bytes) = serde_json::to_vec(&verdict) {
        let _ = std::fs::write(file_of(cache, arch), bytes);
    }
}

/// The best acceleration that works, remembered in `cache` until QEMU, the device or the boot changes.
pub(super) async fn acceleration(arch: Arch, cache: &Path) -> external::Result<Acceleration> {
    let key = key(arch);
    if let Some(known) = remembered(cache, arch, &key) {
        return Ok(known);
    }
    let failed =
        |error: &std::io::Error| Error::io("file system", "write", cache.display().to_string(), error);
    std::fs::create_dir_all(cache).map_err(|error| failed(&error))?;
    let rom = cache.join(format!("probe-{}.rom", std::process::id()));
    std::fs::write(&rom, firmware(arch)).map_err(|error| failed(&error))?;
    let climbed = climb(arch, Native::here(arch), |tried| try_here(arch, tried, &rom)).await;
    let _ = std::fs::remove_file(&rom);
    let acceleration = climbed.map_err(|error| {
        let package =
            if arch == Arch::X86_64 { "qemu-system-x86" } else { "qemu-system-arm qemu-efi-aarch64" };
        error.hint(format!("apt-get install {package}"))
    })?;
    remember(cache, arch, &key, &acceleration);
    Ok(acceleration)
}

/// Climbs down the ladder until a step holds: `attempt` tries one.
pub(in crate::external) async fn climb<F>(
    arch: Arch,
    native: Native,
    attempt: impl Fn(Tried) -> F,
) -> external::Result<Acceleration>
where
    F: Future<Output = external::Result<Ended>>,
{
    let mut refused: Option<String> = None;
    for (accelerator, cpu) in ladder(arch, native) {
        let patience = if accelerator == Accelerator::Tcg { PATIENCE_EMULATED } else { PATIENCE };
        match judged(arch, &attempt(Tried { accelerator, cpu, patience }).await?) {
            Ok(()) => {
                let notice = refused.map(|why| format!("{why}; using {}", name_of(accelerator)));
                return Ok(Acceleration { accelerator, cpu: cpu.to_owned(), notice });
            }
            Err(why) => {
                let name = accelerator.as_str().to_uppercase();
                refused = refused.or(Some(format!("{name} cannot run a guest here: {why}")));
            }
        }
    }
    let why = refused.unwrap_or_default();
    Err(Error::new("qemu", "run a guest with", emulator(arch), Class::Rejected, why))
}

/// What a user should know of an accelerator.
fn name_of(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Hvf => "HVF",
        Accelerator::Tcg => "TCG, one processor a machine",
    }
}

/// `/dev/kvm` that exists but is closed to QEMU's user makes libvirt probe QEMU again at every call.
pub(super) fn slow_kvm(qemu_user: Option<(u32, u32)>) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata("/dev/kvm").ok()?;
    let open = match qemu_user {
        Some((user, group)) => {
            let mode = device.mode();
            mode & 0o006 == 0o006
                || (device.uid() == user && mode & 0o600 == 0o600)
                || (mode & 0o060 == 0o060 && (device.gid() == group || in_group(user, device.gid())))
        }
        None => {
            rustix::fs::access("/dev/kvm", rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok()
        }
    };
    (!open).then(|| {
        "/dev/kvm is closed to the user QEMU runs as, so libvirt probes QEMU again at every start (4 s each): \
         `cargo xtask setup`, or as root `chgrp kvm /dev/kvm && chmod 0660 /dev/kvm`"
            .to_owned()
    })
}

/// Whether the group with that id is the primary one of the user with this id, or lists it as a member.
fn in_group(user: u32, group: u32) -> bool {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let (user, group) = (user.to_string(), group.to_string());
    let passwd = read("/etc/passwd");
    let Some(fields) = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|f| f.get(2) == Some(&user.as_str()))
    else {
        return false;
    };
    fields.get(3) == Some(&group.as_str())
        || read("/etc/group").lines().map(|line| line.split(':').collect::<Vec<_>>()).any(|entry| {
            entry.get(2) == Some(&group.as_str())
                && entry
                    .get(3)
                    .is_some_and(|members| members.split(',').any(|name| Some(&name) == fields.first()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_starts_at_the_reset_vector() {
        let rom = firmware(Arch::X86_64);
        assert_eq!(rom.len(), 65536);
        assert_eq!(rom[0], CODE[0]);
        assert_eq!(rom[0xfff0], 0xe9, "a jump");
    }

    #[test]
    fn emulation_is_the_last_step_and_foreign_guests_have_no_other() {
        assert_eq!(ladder(Arch::host(), Native::Yes).last().unwrap().0, Accelerator::Tcg);
        let foreign = if Arch::host() == Arch::X86_64 { Arch::Arm64 } else { Arch::X86_64 };
        assert_eq!(ladder(foreign, Native::here(foreign)).len(), 1);
    }
}
