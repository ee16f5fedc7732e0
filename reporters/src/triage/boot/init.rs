//! Early user space: the initramfs (initramfs-tools, dracut, mkinitcpio, our own), and systemd until the network.

use super::rule::{Cause, Milestone, Rule, rule};
use crate::event::BootPhase;

const INITRAMFS_SHELL: Cause = Cause {
    id: "initramfs-shell",
    phase: BootPhase::Init,
    says: "the initramfs gave up and opened a shell: the root file system did not come",
    advice: "compare `root=` with the disks that the kernel found; a missing driver in the initrd or a slow disk (`rootdelay=`) looks the same",
};

const EMERGENCY_SHELL: Cause = Cause {
    id: "emergency-shell",
    phase: BootPhase::Init,
    says: "the system went into emergency mode",
    advice: "mostly a line of /etc/fstab that cannot be mounted: mend it, or give it `nofail`",
};

const FAILED_UNIT: Cause = Cause {
    id: "failed-unit",
    phase: BootPhase::Init,
    says: "a unit failed that the boot needs",
    advice: "read the unit's journal (`journalctl -u`), on the console with `systemd.log_level=debug systemd.journald.forward_to_console=1`",
};

/// Found by counting, not by a rule of its own: once is what a first boot does.
pub(super) const RELABEL_LOOP: Cause = Cause {
    id: "selinux-relabel-loop",
    phase: BootPhase::Init,
    says: "SELinux relabels the file system at every boot and starts anew",
    advice: "the root file system cannot keep labels or /.autorelabel cannot be removed (read-only, full): mount it writable, or boot with `selinux=0`",
};

const RELABELS: Cause = Cause {
    id: RELABEL_LOOP.id,
    phase: BootPhase::Init,
    says: "SELinux relabels the file system and did not come to an end",
    advice: "relabelling takes minutes on an emulated machine: do it when the image is made, or boot with `selinux=0`",
};

const MODULE_MISMATCH: Cause = Cause {
    id: "module-mismatch",
    phase: BootPhase::Init,
    says: "the modules do not fit the kernel",
    advice: "kernel, initrd and /lib/modules must be of one build: compare `uname -r` with the folders in /lib/modules",
};

pub(super) const RULES: &[Rule] = &[
    rule(
        &RELABELS,
        730,
        &[
            "SELinux targeted policy relabel is required",
            "Relabeling could take a very long time",
            "SELinux mls policy relabel is required",
            "SELinux minimum policy relabel is required",
        ],
    )
    .until(Milestone::Network),
    rule(
        &MODULE_MISMATCH,
        725,
        &[
            "version magic '",
            "disagrees about version of symbol",
            "Invalid module format",
            "invalid module format",
            "Key was rejected by service",
            "Loading of unsigned module is rejected",
            "Loading of module with unavailable key is rejected",
            "kmt-init: FAILED load module",
        ],
    )
    .until(Milestone::Network),
    rule(
        &MODULE_MISMATCH,
        725,
        &[
            "modprobe: FATAL: Module ",
            "modprobe: can't change directory to",
            "modprobe: module ",
            "could not open moddep file",
            "could not open builtin file",
            "depmod: ERROR: could not open directory",
            "insmod: can't insert",
            "insmod: ERROR: could not insert module",
            "modprobe: ERROR: could not insert",
            "Failed to insert module",
        ],
    )
    .with(&[
        "not found in directory",
        "can't change directory",
        "moddep",
        "No such file",
        "nvalid",
        "unknown symbol",
        "Unknown symbol",
        "Exec format",
        "builtin file",
        "not found in modules.dep",
        "could not open directory",
    ])
    // Modules that images ask for and many kernels have built in or not at all.
    .without(&[
        "dm_mod",
        "dm-mod",
        "kms",
        "efi_pstore",
        "configfs",
        "/drm",
        "Module drm",
        "fuse",
        "pstore",
        "autofs",
        "loop",
        "msr",
        "parport",
        "lp",
        "ppdev",
        "nvme_",
        "qemu_fw_cfg",
    ])
    .until(Milestone::Network),
    rule(
        &INITRAMFS_SHELL,
        720,
        &[
            "ALERT!  ",
            "ALERT! ",
            "Gave up waiting for root file system device",
            "Gave up waiting for root device",
            "kmt-init: FAILED root disk",
            "Mounting boot media failed",
            "initramfs emergency recovery shell launched",
            "You are now being dropped into an emergency shell",
            "Starting Dracut Emergency Shell",
            "Dropping to debug shell",
            "dracut-initqueue timeout - starting timeout scripts",
            "dracut-initqueue: timeout, still waiting for following initqueue hooks",
            "dracut Warning: No root device",
            "FATAL: No or empty root= argument",
            "FATAL: Don't know how to handle 'root=",
            "dracut: Refusing to continue",
            "-- exiting to /bin/sh",
            "Generating \"/run/initramfs/rdsosreport.txt\"",
            "Entering emergency mode. Exit the shell to continue.",
            "Failed to mount /sysroot",
            "Dependency failed for Initrd Root File System",
            "Dependency failed for initrd-root-fs.target",
            "Dependency failed for Initrd Root Device",
            "Failed to mount sysroot.mount",
            "ERROR: Unable to find root device",
            "ERROR: Failed to mount '",
            "Spawning shell within the initramfs",
            "built-in shell (ash)",
        ],
    )
    .without(&["starting timeout scripts 0"])
    .until(Milestone::Root),
    rule(&INITRAMFS_SHELL, 720, &["(initramfs)", "dracut:/#", "dracut:/root#", "[rootfs ]#", "[rootfs /]#"])
        .end()
        .until(Milestone::Root),
    rule(
        &EMERGENCY_SHELL,
        700,
        &[
            "You are in emergency mode",
            "Welcome to emergency mode",
            "You are in rescue mode",
            "Welcome to rescue mode",
            "Give root password for maintenance",
            "Give root password for system maintenance",
            "Press Enter for maintenance",
            "Press Enter for system maintenance",
            "Cannot open access to console, the root account is locked",
            "Started Emergency Shell",
            "Started emergency.service",
            "Reached target Emergency Mode",
            "Reached target emergency.target",
            "Reached target Rescue Mode",
            "Reached target rescue.target",
            "Dependency failed for Local File Systems",
            "Dependency failed for local-fs.target",
            "sulogin: ",
        ],
    )
    .until(Milestone::Up),
    rule(
        &FAILED_UNIT,
        300,
        &[
            "[FAILED] Failed to start",
            "[FAILED] Failed to mount",
            "[FAILED] Failed to listen",
            "systemd[1]: Failed to start",
            "systemd[1]: Failed to mount",
            "[DEPEND] Dependency failed for",
            "systemd[1]: Dependency failed for",
        ],
    )
    // What fails on many machines that are well.
    .without(&[
        "Load Kernel Modules",
        "systemd-modules-load",
        "Hostname",
        "Plymouth",
        "plymouth",
        "kdump",
        "Crash recovery",
        "Apport",
        "apport",
        "motd",
        "udisks",
        "ModemManager",
        "irqbalance",
        "smartd",
        "SMART",
    ])
    .until(Milestone::Up),
    rule(&FAILED_UNIT, 310, &["kmt-init: FAILED "]).until(Milestone::Up),
];
