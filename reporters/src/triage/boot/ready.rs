//! From a login to a machine that tests can use: setup units, cloud-init, shared folders, the clock.

use super::rule::{Cause, From, Milestone, Rule, rule};
use crate::event::BootPhase;

const SETUP_UNIT: Cause = Cause {
    id: "setup-unit-failed",
    phase: BootPhase::Ready,
    says: "the unit that sets the machine up failed",
    advice: "read its journal in the guest (`journalctl -u setup-ddvm`, `cloud-init status --long`, /var/log/cloud-init-output.log)",
};

const SHARED_FOLDER: Cause = Cause {
    id: "shared-folder-not-mounted",
    phase: BootPhase::Ready,
    says: "the folder shared by the host cannot be mounted",
    advice: "the device or export is missing, or the guest's kernel has no 9p, virtiofs or NFS: check the tag, the export and the module",
};

const DISK: Cause = Cause {
    id: "disk-not-mounted",
    phase: BootPhase::Ready,
    says: "a disk of the machine cannot be mounted in it",
    advice: "the disk holds no file system that this kernel knows, or the guest has no `mkfs.ext4` for an empty one: look at it with `qemu-img info` and `stack console`",
};

/// Also found where the guest was asked for the time.
pub(super) const CLOCK: Cause = Cause {
    id: "clock-off",
    phase: BootPhase::Ready,
    says: "the guest's clock is far off",
    advice: "give the machine a clock in UTC (`<clock offset='utc'/>`, `-rtc base=utc`), or run chrony or systemd-timesyncd in it",
};

pub(super) const RULES: &[Rule] = &[
    rule(
        &SHARED_FOLDER,
        440,
        &[
            "9pnet_virtio: no channels available",
            "9pnet: Could not find request transport",
            "unknown filesystem type '9p'",
            "unknown filesystem type 'virtiofs'",
            "unknown filesystem type 'nfs'",
            "unknown filesystem type 'vboxsf'",
            "virtio-fs: tag <",
            "virtiofs: tag",
            "mount.nfs: ",
            "mount.nfs4: ",
            "nfs: server ",
            "Failed to mount /opt/kernel-version-testing",
            "Failed to mount /mnt/",
            // Newer ones name the unit first.
            "Failed to mount mnt-",
            "Failed to mount opt-kernel",
            "Failed to mount kernel-version-testing",
        ],
    )
    .with(&[
        "no channels",
        "Could not find",
        "unknown filesystem",
        "not found",
        "timed out",
        "denied",
        "refused",
        "not responding",
        "No route",
        "not supported",
        "Failed to mount",
        "No such",
        "unreachable",
        "Protocol not",
        "access denied",
    ]),
    rule(
        &SETUP_UNIT,
        430,
        &[
            "Failed to start Setup ddvm",
            "Failed to start setup-ddvm",
            "setup-ddvm.service: Failed with result",
            "setup-ddvm.service: Main process exited",
            "Failed to start Initial cloud-init job",
            "Failed to start Apply the settings specified in cloud-config",
            "Failed to start Execute cloud user/final scripts",
            "Failed to start cloud-init",
            "Failed to start cloud-config",
            "Failed to start cloud-final",
            "Failed to start Cloud-init",
            "Failed to start Cloud-Init",
            "Failed to run module scripts",
            "Failed to run module scripts_user",
            "Failed to run module scripts-user",
            "Failed running /var/lib/cloud/instance/scripts",
            "Failed to start Ignition",
            "Ignition failed",
            "Failed to start ignition",
            "Failed to start Afterburn",
        ],
    ),
    rule(&SETUP_UNIT, 425, &["Failed to start"]).with(&["etup"]).without(&[
        "Setup Virtual Console",
        "Virtual Console Setup",
        "vconsole-setup",
        "network",
        "Network",
        "Keyboard",
        "keyboard",
        "console-setup",
        "LVM",
        "dev-setup",
        "Device",
        "udev",
        "cryptsetup",
        "Cryptography",
        "tmpfiles",
    ]),
    rule(&DISK, 560, &["cannot mount a disk at `"]).from(From::Contact),
    rule(
        &CLOCK,
        420,
        &[
            "is not valid yet (invalid for another",
            "not yet valid",
            "certificate is not yet valid",
            "certificate has expired or is not yet valid",
            "Clock skew too great",
            "clock skew detected",
            "System clock wrong by",
        ],
    ),
    rule(
        &CLOCK,
        410,
        &[
            "System time before build time, advancing clock",
            "System clock time unset or jumped backwards",
            "has modification time in the future",
            "Superblock last write time is in the future",
            "Superblock last mount time is in the future",
        ],
    )
    .until(Milestone::Sshd),
];
