//! Disks a machine has besides its root: made on the host, found and mounted in the guest.

use std::path::{Path, PathBuf};

use super::BootFailure;
use kmt_reporters::event::BootPhase;

use crate::error::{Failure, Result};
use crate::external::hypervisor::{Disk, DiskFormat, Hypervisor};
use crate::external::transport::Connection;
use crate::matrix::ExtraDisk;
use crate::stack::{MachineRecord, Stack};

/// Mounts the disk whose serial number is the first argument at the second one; an empty disk gets a file system.
/// Where Docker is, a disk at `/mnt/docker` is where it keeps what it has.
const MOUNT: &str = r#"
for known in /sys/block/*/serial; do
    [ "$(cat "$known" 2>/dev/null)" = "$1" ] && device=/dev/$(basename "$(dirname "$known")")
done
[ -n "$device" ] || { echo "no disk $1" >&2; exit 1; }
mkdir -p "$2" || exit
mountpoint -q "$2" && exit
mount "$device" "$2" 2>/dev/null || { mkfs.ext4 -q "$device" && mount "$device" "$2"; } || exit
[ "$2" = /mnt/docker ] && command -v dockerd >/dev/null || exit 0
mkdir -p /etc/docker && echo '{"data-root": "/mnt/docker"}' >/etc/docker/daemon.json && systemctl restart docker
"#;

fn serial(number: usize) -> String {
    format!("kmt{number}")
}

/// Makes the disks of a machine, in the order in which they are written down.
///
/// # Errors
/// The file a disk is of is not there, or it cannot be written.
pub(super) async fn make(
    stack: &Stack,
    record: &MachineRecord,
    hypervisor: &dyn Hypervisor,
) -> Result<Vec<Disk>> {
    let mut made = Vec::new();
    for (number, disk) in record.extras.disks.iter().enumerate() {
        let (file, format) = match disk.memory_bytes()? {
            Some(size) => {
                let file = stack.memory_disk(&record.id, number);
                hypervisor.create_disk(&file, size).await?;
                (file, DiskFormat::Raw)
            }
            None => {
                let file = stack.machine_folder(&record.id).join(format!("disk{number}.qcow2"));
                let _ = std::fs::remove_file(&file);
                hypervisor.create_overlay(&base_of(disk)?, &file).await?;
                (file, DiskFormat::Qcow2)
            }
        };
        made.push(Disk { file, format, serial: Some(serial(number)) });
    }
    Ok(made)
}

/// The file a disk is an overlay of: it is only read, by all machines that have it.
fn base_of(disk: &ExtraDisk) -> Result<PathBuf> {
    let target = Path::new(&disk.target);
    if target.is_file() {
        return Ok(target.to_path_buf());
    }
    match disk.source.strip_prefix("file://").map(PathBuf::from) {
        Some(file) if file.is_file() => Ok(file),
        _ => Err(Failure::usage(format!("the disk for `{}` is not here", disk.mount_point))
            .caused_by(format!("neither `{}` nor `{}` is a file", disk.target, disk.source))
            .hint(format!("put the unpacked image at {}", disk.target))),
    }
}

/// Mounts the disks of a machine in its guest.
pub(super) async fn mount(
    record: &MachineRecord,
    connection: &dyn Connection,
) -> std::result::Result<(), BootFailure> {
    for (number, disk) in record.extras.disks.iter().enumerate() {
        let at = format!("{}{}", connection.prefix(), disk.mount_point);
        let mounted = connection.run(&["sh", "-c", MOUNT, "sh", &serial(number), &at], Vec::new()).await;
        let mounted = mounted.map_err(|error| BootFailure::at(BootPhase::Sshd, error.into()))?;
        if !mounted.ok() {
            let failure = Failure::usage(format!("cannot mount a disk at `{}`", disk.mount_point));
            let failure = failure.caused_by(String::from_utf8_lossy(&mounted.stderr));
            return Err(BootFailure::at(BootPhase::Sshd, failure));
        }
    }
    Ok(())
}
