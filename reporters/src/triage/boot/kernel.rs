//! The kernel before its first program: exceptions, wrong images, lockups.

use super::rule::{Cause, Milestone, Rule, rule};
use crate::event::BootPhase;

/// A kernel, or a first program, that this processor cannot run.
pub(super) const WRONG_ARCHITECTURE: Cause = Cause {
    id: "wrong-architecture",
    phase: BootPhase::Kernel,
    says: "the kernel or its first program is built for another architecture",
    advice: "the image's architecture must be the machine's: check the catalogue entry and with `file` the kernel and /sbin/init",
};

const CPU_TOO_OLD: Cause = Cause {
    id: "cpu-too-old",
    phase: BootPhase::Kernel,
    says: "the distribution needs a newer processor than the machine has",
    advice: "give the machine a newer CPU model (`host-passthrough`, or `max` where it is emulated): RHEL 9 needs x86-64-v2, RHEL 10 x86-64-v3",
};

const KERNEL_TOO_OLD: Cause = Cause {
    id: "kernel-too-old",
    phase: BootPhase::Kernel,
    says: "the distribution needs a newer kernel than the machine has",
    advice: "its C library refuses this kernel: take an older distribution for it",
};

const EARLY_EXCEPTION: Cause = Cause {
    id: "early-exception",
    phase: BootPhase::Kernel,
    says: "the kernel hit an exception before it was set up",
    advice: "mostly a kernel that does not fit the (emulated) processor or firmware, or a bug in early code: try another CPU model and kernel",
};

const BAD_KERNEL: Cause = Cause {
    id: "bad-kernel-image",
    phase: BootPhase::Kernel,
    says: "the kernel cannot unpack or start itself",
    advice: "the kernel image is corrupt, cut short or of a kind that this loader cannot start: fetch it again",
};

/// Where a kernel stops for good without a panic.
pub(super) const RULES: &[Rule] = &[
    rule(&KERNEL_TOO_OLD, 935, &["FATAL: kernel too old"]),
    rule(
        &CPU_TOO_OLD,
        935,
        &[
            "Fatal glibc error: CPU does not support",
            "CPU ISA level is lower than required",
            "This program can only be run on AMD64 processors with v",
        ],
    ),
    rule(
        &WRONG_ARCHITECTURE,
        930,
        &[
            "This kernel requires an x86-64 CPU",
            "This kernel requires an i686 CPU",
            "Unable to boot - please use a kernel appropriate for your CPU",
        ],
    ),
    rule(
        &WRONG_ARCHITECTURE,
        930,
        &[
            "Failed to execute /init (error -8)",
            "Failed to execute /sbin/init (error -8)",
            "exists but couldn't execute it (error -8)",
            "Failed to execute /usr/lib/systemd/systemd (error -8)",
        ],
    )
    .until(Milestone::Root),
    rule(&WRONG_ARCHITECTURE, 930, &["Exec format error", "exec format error"])
        .with(&["init", "systemd:", "/bin/sh", "switch_root"])
        .without(&["modprobe", "insmod", "could not insert", "module", "systemd["])
        .until(Milestone::Root),
    rule(&WRONG_ARCHITECTURE, 925, &["Requested init"]).with(&["(error -8)"]),
    rule(&EARLY_EXCEPTION, 920, &["PANIC: early exception ", "Early exception ", "early exception 0"])
        .start(),
    rule(&EARLY_EXCEPTION, 920, &["EFI stub: ERROR: ", "exit_boot() failed!"])
        .without(&["Failed to load initrd", "relocate"])
        .until(Milestone::Kernel),
    rule(
        &BAD_KERNEL,
        915,
        &[
            "-- System halted",
            "Kernel is not a valid ELF file",
            "Failed to parse ELF file",
            "XZ-compressed data is corrupt",
            "ZSTD-compressed data is corrupt",
            "ZSTD-compressed data is truncated",
            "LZ4 data is corrupt",
            "crc error",
            "Decompression error",
            "invalid compressed format (err=",
        ],
    )
    .start()
    .until(Milestone::Kernel),
];
