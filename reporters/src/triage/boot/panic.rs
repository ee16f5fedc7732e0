//! Panics, told apart by what they say and by what was said before.

use super::rule::{Cause, Milestone, Rule, rule};
use crate::event::BootPhase;

/// The kernel's own panic, not the initramfs that gave up.
const NO_ROOT: Cause = Cause {
    id: "no-root-device",
    phase: BootPhase::Kernel,
    says: "the kernel cannot mount the root file system",
    advice: "check `root=` against the devices that the console lists; if it lists none, the driver of the disk is missing from kernel and initrd",
};

const NO_INIT: Cause = Cause {
    id: "no-init",
    phase: BootPhase::Kernel,
    says: "there is no first program to run",
    advice: "the root file system is empty, not the one meant, or `init=` names a program that is not there (or whose libraries are not)",
};

/// Unpacking went wrong, and what came next was no boot.
const BAD_INITRD: Cause = Cause {
    id: "bad-initrd",
    phase: BootPhase::Kernel,
    says: "the initramfs cannot be unpacked",
    advice: "the initrd is corrupt, cut short, packed in a way that this kernel cannot read, or the machine has too little memory for it",
};

/// Not a program was killed: the kernel itself has no memory left.
pub(super) const OUT_OF_MEMORY: Cause = Cause {
    id: "kernel-out-of-memory",
    phase: BootPhase::Kernel,
    says: "the machine has too little memory to boot",
    advice: "give the machine more memory (kernel and unpacked initrd need some hundred MiB)",
};

/// Any other panic.
pub(super) const PANIC: Cause = Cause {
    id: "panic",
    phase: BootPhase::Kernel,
    says: "the kernel panicked",
    advice: "read the lines before the panic; try the same kernel with another machine size or version to see what it depends on",
};

/// A panic with an advice of its own.
const INIT_DIED: Cause = Cause {
    id: PANIC.id,
    phase: BootPhase::Kernel,
    says: "the first program ended, so the kernel panicked",
    advice: "the exit code in the panic tells how init ended (0x100: status 1, 0x7f00: not found, 0x0b: a crash); read what it said before",
};

const INIT_FROZE: Cause = Cause {
    id: "init-froze",
    phase: BootPhase::Init,
    says: "systemd gave up and froze",
    advice: "systemd could not mount what it needs, load the SELinux policy, or crashed: cgroup version, /proc, /sys and its kernel options",
};

/// What is asked of the lines before wins over the panic's own words.
pub(super) const RULES: &[Rule] = &[
    rule(&OUT_OF_MEMORY, 945, &["Kernel panic - not syncing: "]).start().with(&[
        "deadlocked on memory",
        "Out of memory",
        "out of memory",
        "compulsory panic_on_oom",
        "Failed to allocate",
        "failed to allocate",
        "cannot allocate",
        "Cannot allocate",
        "Can't allocate",
        "Could not allocate",
        "ENOMEM",
        "insufficient memory",
    ]),
    rule(
        &OUT_OF_MEMORY,
        943,
        &[
            "Initramfs unpacking failed: write error",
            "initrd extends beyond end of memory",
            "rootfs image is not initramfs (write error)",
            "Out of memory and no killable processes",
            "Kernel memory allocation failed",
            "Out of memory while allocating",
            "Failed to allocate memory for",
            "EFI stub: ERROR: Failed to allocate",
            "Not enough memory to load",
            "RAMDISK: incomplete write",
        ],
    )
    .until(Milestone::Root)
    .explains(),
    rule(
        &BAD_INITRD,
        940,
        &[
            "Initramfs unpacking failed: ",
            "RAMDISK: Couldn't find valid RAM disk image",
            "RAMDISK: image too big",
            "RAMDISK: EOF while reading",
            "RAMDISK: error decompressing",
            "rootfs image is not initramfs (",
            "initrd overwritten (",
            "EFI stub: ERROR: Failed to load initrd",
            "junk in compressed archive",
            "junk within compressed archive",
        ],
    )
    .start()
    .until(Milestone::Root)
    .explains(),
    rule(&NO_INIT, 925, &["Kernel panic - not syncing: "]).start().with(&[
        "No init found",
        "No working init found",
        "Requested init ",
        "/sbin/init",
    ]),
    rule(
        &NO_INIT,
        924,
        &[
            "No init found. Try passing init= bootarg",
            "Target filesystem doesn't have requested",
            "run-init: ",
            "switch_root: can't execute",
            "switch_root: failed to execute",
            "switch_root: execvp",
            "kmt-init: FAILED no ",
            "kmt-init: FAILED switch to",
            "Cannot find init!",
            "does not seem to be an OS tree",
            "error while loading shared libraries: libsystemd",
            "/sbin/init: error while loading shared libraries",
            "Failed to switch root: Failed to determine whether root path",
            "Failed to execute /sbin/init, trying fallback",
            "Error: init not found",
            "init not found in new root",
            "Failed to switch root, dropping to a shell",
            "exec /sbin/init",
            "Cannot execute /sbin/init",
        ],
    )
    .with(&[
        "No such file",
        "not found",
        "No init",
        "doesn't have",
        "can't execute",
        "failed to execute",
        "FAILED",
        "OS tree",
        "libraries",
        "Cannot find init",
        "trying fallback",
        "Failed to determine",
        "dropping to a shell",
        "annot execute",
        "execvp",
    ])
    .until(Milestone::Root),
    rule(
        &NO_INIT,
        924,
        &["Failed to execute /", "exists but couldn't execute it (error -2)", "Failed to execute /init"],
    )
    .start()
    .with(&["(error -2)", "(error -13)"])
    .until(Milestone::Root)
    .explains(),
    rule(
        &NO_ROOT,
        922,
        &[
            "Kernel panic - not syncing: VFS: Unable to mount root fs",
            "Kernel panic - not syncing: VFS: Cannot open root device",
            "Kernel panic - not syncing: VFS: Unable to mount root",
        ],
    )
    .start(),
    rule(
        &NO_ROOT,
        921,
        &[
            "VFS: Cannot open root device ",
            "VFS: Unable to mount root fs via NFS",
            "VFS: Unable to mount root fs ",
        ],
    )
    .start()
    .until(Milestone::Userland),
    rule(&NO_ROOT, 560, &["Waiting for root device "]).start().until(Milestone::Userland),
    rule(&super::after::SOFT_LOCKUP, 918, &["Kernel panic - not syncing: softlockup: hung tasks"])
        .start()
        .always(),
    rule(&super::after::HARD_LOCKUP, 918, &["Kernel panic - not syncing: "])
        .start()
        .with(&["ard LOCKUP"])
        .always(),
    rule(&super::after::HUNG_TASK, 918, &["Kernel panic - not syncing: hung_task: blocked tasks"])
        .start()
        .always(),
    rule(&super::after::RCU_STALL, 918, &["Kernel panic - not syncing: RCU Stall"]).start().always(),
    rule(
        &super::after::KASAN,
        918,
        &["Kernel panic - not syncing: KASAN: ", "Kernel panic - not syncing: kasan.fault="],
    )
    .start()
    .always(),
    rule(&super::after::UBSAN, 918, &["Kernel panic - not syncing: UBSAN: "]).start().always(),
    rule(&super::after::WARNING, 840, &["Kernel panic - not syncing: panic_on_warn set"]).start().always(),
    rule(&INIT_FROZE, 870, &["Freezing execution", ", freezing.", "Failed to load SELinux policy"]).with(&[
        "systemd[1]",
        "!!!!!!",
        "Failed to load SELinux policy",
    ]),
    rule(&NO_INIT, 923, &["Kernel panic - not syncing: Attempted to kill init!"])
        .start()
        .with(&["exitcode=0x00007f00"]),
    rule(&INIT_DIED, 850, &["Kernel panic - not syncing: Attempted to kill init!"]).start(),
    rule(&PANIC, 800, &["Kernel panic - not syncing"]).start().always(),
];
