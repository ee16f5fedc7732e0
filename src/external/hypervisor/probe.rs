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

/// QEMU's exit status when the firmware ran: `(0x10 << 1) | 1`.
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

/// A 64 KiB firmware: the code, and a jump to it at the reset vector.
fn firmware() -> Vec<u8> {
    let mut rom = vec![0xf4u8; 0x1_0000];
    rom[..CODE.len()].copy_from_slice(CODE);
    rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
    rom
}

/// The ladder, best first.
fn ladder(arch: Arch) -> Vec<(Accelerator, &'static str)> {
    let mut steps = Vec::new();
    if arch == Arch::host() {
        if cfg!(target_os = "macos") {
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

/// Whether a guest ran, or QEMU's reason why not.
async fn runs(
    arch: Arch,
    accelerator: Accelerator,
    cpu: &str,
    rom: &Path,
) -> external::Result<Result<(), String>> {
    let child = Child::new(emulator(arch)).args(["-nodefaults", "-no-user-config", "-display", "none"]);
    let (child, ran) = match arch {
        Arch::X86_64 => (
            child
                .args(["-m", "16", "-machine"])
                .arg(format!("pc,accel={}", accelerator.as_str()))
                .args(["-cpu", cpu, "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios"])
                .arg(rom),
            RAN,
        ),
        // The exit port is a device of PCs: here the code asks for power off, and QEMU ends well.
        Arch::Arm64 => (
            child
                .args(["-m", "64", "-machine"])
                .arg(format!("virt,accel={}", accelerator.as_str()))
                .args(["-cpu", cpu, "-device"])
                .arg(format!("loader,file={},addr={ARM64_AT},cpu-num=0,force-raw=on", rom.display())),
            0,
        ),
    };
    let patience = if accelerator == Accelerator::Tcg { PATIENCE_EMULATED } else { PATIENCE };
    match timeout(patience, child.output()).await {
        Ok(output) => {
            let output = output?;
            let words = String::from_utf8_lossy(&output.stderr);
            let line = words.lines().find(|l| !l.trim().is_empty()).unwrap_or("it ran no instruction");
            let line = line.split_once(": ").map_or(line, |(_, rest)| rest.trim_start_matches("error: "));
            Ok(if output.status == Some(ran) { Ok(()) } else { Err(line.trim().to_owned()) })
        }
        Err(_) => Ok(Err("the guest got stuck before it could switch to 64 bits".to_owned())),
    }
}

/// The best acceleration that works, remembered in `cache` until QEMU, the device or the boot changes.
pub(super) async fn acceleration(arch: Arch, cache: &Path) -> external::Result<Acceleration> {
    let key = key(arch);
    let file = cache.join(format!("acceleration-{arch}.json"));
    if let Ok(text) = std::fs::read(&file)
        && let Ok(verdict) = serde_json::from_slice::<Verdict>(&text)
        && verdict.schema == 3
        && verdict.key == key
    {
        return Ok(verdict.acceleration);
    }
    let acceleration = climb(arch, cache).await?;
    let verdict = Verdict { schema: 3, key, acceleration: acceleration.clone() };
    if let Ok(bytes) = serde_json::to_vec(&verdict) {
        // Only speed is lost where it cannot be remembered.
        let _ = std::fs::write(&file, bytes);
    }
    Ok(acceleration)
}

async fn climb(arch: Arch, cache: &Path) -> external::Result<Acceleration> {
    let failed =
        |error: &std::io::Error| Error::io("file system", "write", cache.display().to_string(), error);
    std::fs::create_dir_all(cache).map_err(|error| failed(&error))?;
    let rom = cache.join(format!("probe-{}.rom", std::process::id()));
    let code = match arch {
        Arch::X86_64 => firmware(),
        Arch::Arm64 => ARM64.iter().flat_map(|word| word.to_le_bytes()).collect(),
    };
    std::fs::write(&rom, code).map_err(|error| failed(&error))?;
    let mut refused: Option<String> = None;
    let mut found = None;
    for (accelerator, cpu) in ladder(arch) {
        match runs(arch, accelerator, cpu, &rom).await {
            Ok(Ok(())) => {
                found = Some((accelerator, cpu));
                break;
            }
            Ok(Err(why)) => {
                refused = refused.or(Some(format!(
                    "{} cannot run a guest here: {why}",
                    accelerator.as_str().to_uppercase()
                )))
            }
            Err(error) => {
                let _ = std::fs::remove_file(&rom);
                let package =
                    if arch == Arch::X86_64 { "qemu-system-x86" } else { "qemu-system-arm qemu-efi-aarch64" };
                return Err(error.hint(format!("apt-get install {package}")));
            }
        }
    }
    let _ = std::fs::remove_file(&rom);
    let (accelerator, cpu) = found.ok_or_else(|| {
        let why = refused.clone().unwrap_or_default();
        Error::new("qemu", "run a guest with", emulator(arch), Class::Rejected, why)
    })?;
    let notice = refused.map(|why| format!("{why}; using {}", name_of(accelerator)));
    Ok(Acceleration { accelerator, cpu: cpu.to_owned(), notice })
}

/// What a user should know of an accelerator.
fn name_of(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Hvf => "HVF",
        Accelerator::Tcg => "TCG, one processor a machine",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_starts_at_the_reset_vector() {
        let rom = firmware();
        assert_eq!(rom.len(), 65536);
        assert_eq!(rom[0], CODE[0]);
        assert_eq!(rom[0xfff0], 0xe9, "a jump");
    }

    #[test]
    fn emulation_is_the_last_step_and_foreign_guests_have_no_other() {
        assert_eq!(ladder(Arch::host()).last().unwrap().0, Accelerator::Tcg);
        let foreign = if Arch::host() == Arch::X86_64 { Arch::Arm64 } else { Arch::X86_64 };
        assert_eq!(ladder(foreign).len(), 1);
    }
}
