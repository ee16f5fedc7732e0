//! The root file system: errors, checks that fail, a full or shortened disk.

use super::rule::{Cause, Milestone, Rule, rule};
use crate::event::BootPhase;

const FILE_SYSTEM_ERRORS: Cause = Cause {
    id: "file-system-errors",
    phase: BootPhase::Init,
    says: "the root file system has errors",
    advice: "boot from a fresh copy of the image; where the image itself has them, build it again and check the host's disk",
};

const FSCK_FAILED: Cause = Cause {
    id: "fsck-failed",
    phase: BootPhase::Init,
    says: "the check of a file system failed and wants a hand",
    advice: "boot from a fresh copy of the image, or repair it (`fsck -y` on the unmounted image, or `fsck.repair=yes`)",
};

const DISK_FULL: Cause = Cause {
    id: "disk-full",
    phase: BootPhase::Init,
    says: "the guest's disk is full",
    advice: "make the image or the machine's disk larger, or take out what fills it",
};

const TRUNCATED: Cause = Cause {
    id: "image-corrupt",
    phase: BootPhase::Init,
    says: "the disk is shorter than its file system: the image was cut",
    advice: "remove the image and build or fetch it again; check that the disk was not full then",
};

pub(super) const RULES: &[Rule] = &[
    rule(
        &TRUNCATED,
        926,
        &[
            "bad geometry: block count",
            "attempt to access beyond end of device",
            "extends beyond EOD",
            "device smaller than filesystem",
            "size of device (",
        ],
    )
    .with(&["exceeds size of device", "beyond end of device", "beyond EOD", "smaller than"])
    .without(&["loop", "sr0", "fd0"])
    .until(Milestone::Network),
    rule(
        &FSCK_FAILED,
        740,
        &[
            "UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY",
            "requires a manual fsck",
            "File system check of the root filesystem failed",
            "fsck failed with exit status",
            "fsck failed with error code",
            "fsck exited with status code 4",
            "fsck exited with status code 8",
            "fsck exited with status code 12",
            "An error occurred during the file system check",
            "An automatic file system check (fsck) of the root filesystem failed",
            "Failed to start File System Check",
            "Failed to start systemd-fsck",
            "fsck failed.  Please repair manually",
            "fsck found errors that it could not correct",
            "REBUILD YOUR FILE SYSTEM",
            "Failed to repair filesystem",
            "FILESYSTEM IS NOT CLEAN; RUN fsck MANUALLY",
        ],
    )
    .until(Milestone::Network),
    rule(
        &FILE_SYSTEM_ERRORS,
        735,
        &[
            "EXT4-fs error (device",
            "EXT3-fs error (device",
            "EXT2-fs error (device",
            "EXT4-fs (",
            "EXT4-fs: ",
        ],
    )
    .start()
    .with(&[
        "error (device",
        "group descriptors corrupted",
        "unable to read superblock",
        "Remounting filesystem read-only",
        "initial error at time",
        "failed to open journal",
        "no journal found",
        "error loading journal",
        "Checksum for group",
        "not in group",
        "get root inode failed",
        "corrupt root inode",
        "bad block size",
        "invalid inodes per group",
        "Filesystem error recorded from previous mount",
        "Superblock checksum does not match",
        "journal inode is deleted",
        "invalid inode",
    ])
    .until(Milestone::Network),
    rule(&FILE_SYSTEM_ERRORS, 735, &["XFS ("])
        .start()
        .with(&[
            "orruption detected",
            "Internal error",
            "Corruption of in-memory data",
            "Filesystem has been shut down",
            "xfs_do_force_shutdown",
            "bad magic number",
            "SB validate failed",
            "log mount/recovery failed",
            "log mount failed",
            "Unmount and run xfs_repair",
            "metadata I/O error",
            "Superblock has unknown",
            "failed to read root inode",
        ])
        .until(Milestone::Network),
    rule(
        &FILE_SYSTEM_ERRORS,
        735,
        &[
            "BTRFS error (device",
            "BTRFS critical (device",
            "BTRFS: error (device",
            "BTRFS: open_ctree failed",
            "SQUASHFS error: ",
            "EROFS: (device",
            "overlayfs: failed to",
        ],
    )
    .start()
    .without(&["space cache"])
    .until(Milestone::Network),
    rule(
        &FILE_SYSTEM_ERRORS,
        732,
        &[
            "Buffer I/O error on dev",
            "I/O error, dev ",
            "JBD2: I/O error",
            "Aborting journal on device",
            "JBD2: Error",
            "critical medium error, dev ",
        ],
    )
    .without(&["dev fd", "dev sr", "dev loop", "device fd", "device sr"])
    .until(Milestone::Network),
    rule(
        &FILE_SYSTEM_ERRORS,
        732,
        &[
            "mount: mounting /dev/",
            "mount: /root",
            "mount: /sysroot",
            "mount: /new_root",
            "mount: wrong fs type",
            "Structure needs cleaning",
            "kmt-init: FAILED busybox mount -t ext4",
        ],
    )
    .with(&[
        "Invalid argument",
        "failed: I/O error",
        "Input/output error",
        "wrong fs type",
        "bad superblock",
        "can't read superblock",
        "tructure needs cleaning",
        "kmt-init: FAILED",
    ])
    .without(&["/dev/vdb ", "/root/lib/modules"])
    .until(Milestone::Network),
    rule(&FILE_SYSTEM_ERRORS, 722, &["EXT4-fs (", "EXT4-fs: "])
        .start()
        .with(&["VFS: Can't find ext4 filesystem", "VFS: Can't find an ext4 filesystem"])
        .until(Milestone::Userland)
        .times(1),
    rule(
        &DISK_FULL,
        738,
        &[
            "No space left on device",
            "no space left on device",
            "ENOSPC",
            "Disk full",
            "disk is full",
            "not enough free disk space",
            "file system full",
            "filesystem full",
        ],
    )
    // A file system in memory that is full is another matter, and inotify says so for its watches.
    .without(&["watch", "/dev/shm", "mmc"])
    .until(Milestone::Never),
];
