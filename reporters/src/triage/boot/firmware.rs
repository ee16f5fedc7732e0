//! Firmware and boot loaders: SeaBIOS, OVMF and AAVMF, GRUB, SYSLINUX, iPXE.

use super::rule::{Cause, Milestone, Rule, rule};
use crate::event::BootPhase;

const NO_BOOTABLE_DISK: Cause = Cause {
    id: "no-bootable-disk",
    phase: BootPhase::Firmware,
    says: "the firmware found nothing to boot from",
    advice: "the disk is empty, not attached, or made for the other firmware (BIOS or UEFI): check the image and the machine's firmware",
};

const UEFI_SHELL: Cause = Cause {
    id: "uefi-shell",
    phase: BootPhase::Firmware,
    says: "the firmware ended in its own shell: no boot entry worked",
    advice: "the image has no EFI/BOOT/BOOTX64.EFI (BOOTAA64.EFI on arm64), or its boot entries lie in another machine's variables",
};

const GRUB_RESCUE: Cause = Cause {
    id: "grub-rescue",
    phase: BootPhase::Firmware,
    says: "GRUB cannot find or load what it should boot",
    advice: "the partition or files that GRUB's configuration names are not there: compare the UUIDs of the image with its grub.cfg",
};

const SECURE_BOOT: Cause = Cause {
    id: "secure-boot",
    phase: BootPhase::Firmware,
    says: "Secure Boot refused the boot loader or the kernel",
    advice: "use firmware without Secure Boot, or a signed kernel",
};

const fn before_kernel(cause: &'static Cause, rank: u16, words: &'static [&'static str]) -> Rule {
    rule(cause, rank, words).until(Milestone::Kernel)
}

pub(super) const RULES: &[Rule] = &[
    before_kernel(
        &SECURE_BOOT,
        960,
        &[
            "bad shim signature",
            "Security Violation",
            "Secure Boot Violation",
            "Invalid signature detected",
            "prohibited by secure boot policy",
            "Verification failed: (0x1A)",
        ],
    ),
    before_kernel(&SECURE_BOOT, 960, &["failed to load Boot", "failed to start Boot"])
        .with(&["Access Denied"]),
    before_kernel(&super::kernel::WRONG_ARCHITECTURE, 955, &["failed to load Boot", "failed to start Boot"])
        .with(&[": Unsupported"]),
    before_kernel(
        &super::kernel::WRONG_ARCHITECTURE,
        955,
        &[
            "plain image kernel not supported",
            "invalid arch-dependent ELF magic",
            "invalid arch-independent ELF magic",
            "Image type X64 can't be loaded on",
            "Image type AARCH64 can't be loaded on",
        ],
    ),
    before_kernel(&super::panic::OUT_OF_MEMORY, 950, &["error: out of memory."]).start(),
    before_kernel(&super::panic::OUT_OF_MEMORY, 950, &["mm.c:"]).with(&["out of memory"]),
    before_kernel(
        &GRUB_RESCUE,
        940,
        &[
            "grub rescue>",
            "Entering rescue mode...",
            "Minimal BASH-like line editing is supported",
            "error: no such partition",
            "error: unknown filesystem",
            "error: no such device",
            "error: you need to load the kernel first",
            "error: file `",
            "error: disk `",
            "error: symbol `",
            "error: attempt to read or write outside of disk",
            "error: failure reading sector",
            "error: invalid magic number",
            "error: premature end of file",
            "error: couldn't find a valid",
            "Failed to boot both default and fallback entries",
            "Error 15: File not found",
            "Error 17: Cannot mount selected partition",
            "Error 22: No such partition",
        ],
    ),
    // Newer ones say where in their source: `error: ../../grub-core/kern/fs.c:121:unknown filesystem.`
    before_kernel(&GRUB_RESCUE, 940, &["grub-core/"]).with(&[
        "no such partition",
        "unknown filesystem",
        "no such device",
        "you need to load the kernel first",
        "not found",
        "outside of disk",
        "failure reading sector",
        "invalid magic number",
        "premature end of file",
    ]),
    before_kernel(&GRUB_RESCUE, 940, &["grub>"]).end(),
    before_kernel(
        &UEFI_SHELL,
        930,
        &[
            "UEFI Interactive Shell v",
            "EFI Shell version",
            "to skip startup.nsh",
            "any other key to continue.",
        ],
    )
    .with(&["Shell", "startup.nsh"]),
    before_kernel(&UEFI_SHELL, 930, &["Shell>", "FS0:\\>"]).end(),
    before_kernel(
        &NO_BOOTABLE_DISK,
        920,
        &[
            "No bootable device",
            "No bootable option or device was found",
            "Boot failed: could not read the boot disk",
            "Boot failed: not a bootable disk",
            "Missing operating system",
            "Operating system not found",
            "Operating System not found",
            "Error loading operating system",
            "Invalid partition table",
            "Non-system disk",
            "DISK BOOT FAILURE",
            "Nothing to boot",
            "No more network devices",
            "No boot device available",
            "Could not find kernel image",
            "No DEFAULT or UI configuration directive found",
            "No configuration file found",
            "Failed to load COM32 file",
            "Failed to load ldlinux.c32",
            "to enter the Boot Manager Menu.",
            "PXE-E16: No valid offer received",
            "PXE-E18: Server response timeout",
            "PXE-E53: No boot filename received",
            "No bootable medium found",
        ],
    ),
    before_kernel(&NO_BOOTABLE_DISK, 920, &["failed to load Boot", "failed to start Boot"]).with(&[
        "Not Found",
        "No Media",
        "Time out",
        "Device Error",
        "No Response",
    ]),
];
