//! The host: what libvirt and QEMU say of a machine that they cannot define or start.

use super::facts::{Ended, Facts};
use super::rule::{Cause, From, Rule, rule};
use crate::event::BootPhase;

const IMAGE_MISSING: Cause = Cause {
    id: "image-missing",
    phase: BootPhase::Defined,
    says: "a file that the machine boots from is not there",
    advice: "build or fetch the image again; a backing file of an overlay must not move",
};

const IMAGE_CORRUPT: Cause = Cause {
    id: "image-corrupt",
    phase: BootPhase::Defined,
    says: "the image is corrupt or cut short",
    advice: "remove the image and build or fetch it again; check that the disk was not full then",
};

const DIGEST_MISMATCH: Cause = Cause {
    id: "digest-mismatch",
    phase: BootPhase::Defined,
    says: "the image is not the one that its digest promises",
    advice: "fetch the image again; where it differs again, its source has changed",
};

const HOST_MEMORY: Cause = Cause {
    id: "host-memory",
    phase: BootPhase::Powered,
    says: "the host has not enough memory for the machine",
    advice: "give the machine less memory, run fewer at a time, or stop what else runs on the host",
};

const HOST_DISK: Cause = Cause {
    id: "host-disk",
    phase: BootPhase::Defined,
    says: "the host's disk is full",
    advice: "free space where images and stacks lie (`stack gc`, old runs, old images)",
};

const QEMU_ARGUMENT: Cause = Cause {
    id: "qemu-argument",
    phase: BootPhase::Powered,
    says: "QEMU or libvirt refused an argument",
    advice: "the machine asks for what this QEMU does not have: another machine type, device or processor, or a newer QEMU",
};

const KVM_UNUSABLE: Cause = Cause {
    id: "kvm-unusable",
    phase: BootPhase::Powered,
    says: "KVM cannot be used",
    advice: "check /dev/kvm, its group and nested virtualisation, or let the machine be emulated",
};

const PORT_TAKEN: Cause = Cause {
    id: "port-taken",
    phase: BootPhase::Powered,
    says: "a port that the machine needs on the host is taken",
    advice: "find who listens there (`ss -ltnp`); a machine that was left behind goes with `stack gc`",
};

const NAME_TAKEN: Cause = Cause {
    id: "name-taken",
    phase: BootPhase::Defined,
    says: "its name, network or identity is taken by another",
    advice: "a machine that was left behind goes with `stack gc`; else choose another stack name",
};

const IMAGE_IN_USE: Cause = Cause {
    id: "image-in-use",
    phase: BootPhase::Powered,
    says: "another process holds the lock of its disk",
    advice: "a QEMU that was left behind uses the image: end it, or remove its machine with `stack gc`",
};

const HOST_NETWORK: Cause = Cause {
    id: "host-network",
    phase: BootPhase::Powered,
    says: "the host's network for the machine is not there",
    advice: "start the libvirt network (`virsh net-start`), or make the bridge that the machine names",
};

const LIBVIRT_DOWN: Cause = Cause {
    id: "libvirt-down",
    phase: BootPhase::Defined,
    says: "libvirt does not answer",
    advice: "start libvirtd and virtlogd (`cargo xtask setup`, `systemctl start libvirtd`)",
};

const PERMISSION: Cause = Cause {
    id: "permission",
    phase: BootPhase::Defined,
    says: "libvirt or QEMU may not do what the machine needs",
    advice: "QEMU's own user must be able to read the images and enter each folder above them; you must be in the group `libvirt`",
};

const IO_ERROR: Cause = Cause {
    id: "paused-io-error",
    phase: BootPhase::Ready,
    says: "QEMU paused the machine: its disk on the host failed or is full",
    advice: "free space on the host, look at its kernel log for errors of the disk, and boot the machine afresh",
};

/// A QEMU that ended and gave no reason.
pub(super) const QEMU_DIED: Cause = Cause {
    id: "qemu-died",
    phase: BootPhase::Ready,
    says: "QEMU ended",
    advice: "see QEMU's log (`/var/log/libvirt/qemu/`) and the host's kernel log: the OOM killer of the host, a crash of QEMU, or somebody ended it",
};

const fn host(cause: &'static Cause, rank: u16, words: &'static [&'static str]) -> Rule {
    rule(cause, rank, words).from(From::Hypervisor).always()
}

/// Of what was said, the most particular wins: `Could not open 'x': Permission denied` is about permission.
pub(super) const RULES: &[Rule] = &[
    host(
        &IO_ERROR,
        1090,
        &[
            "paused (I/O error)",
            "paused (ioerror)",
            "I/O error on device",
            "BLOCK_IO_ERROR",
            "due to I/O error",
            "reason: I/O error",
            "\"nospace\": true",
        ],
    ),
    host(&DIGEST_MISMATCH, 1085, &["sha256", "SHA256", "digest", "checksum", "Checksum"]).with(&[
        "mismatch",
        "did NOT match",
        "does not match",
        "differs",
        "expected",
        "wrong",
        "FAILED",
        "not the one",
    ]),
    host(
        &LIBVIRT_DOWN,
        1080,
        &[
            "Failed to connect socket to",
            "failed to connect to the hypervisor",
            "failed to dial libvirt",
            "Cannot recv data",
            "End of file while reading data",
            "client socket is closed",
            "unable to connect to server at",
            "Cannot write data: Broken pipe",
            "libvirtd is not running",
            "Unable to open system token",
        ],
    )
    .without(&["Permission denied"]),
    host(
        &KVM_UNUSABLE,
        1075,
        &[
            "Could not access KVM kernel module",
            "failed to initialize kvm",
            "failed to initialize KVM",
            "KVM is not available",
            "KVM not supported",
            "requires KVM",
            "requires hardware virtualization",
            "invalid accelerator kvm",
            "failed to set MSR",
            "KVM internal error",
            "kvm run failed",
            "ioctl(KVM_",
            "kvm_init_vcpu",
            "KVM_SET_USER_MEMORY_REGION failed",
            "error: kvm",
            "for domaintype=kvm",
            "does not support virt type 'kvm'",
            "domain type 'kvm' is not supported",
            "host-passthrough' for",
            "does not support KVM",
            "KVM kernel module",
            "HVF error",
        ],
    ),
    host(
        &IMAGE_IN_USE,
        1070,
        &[
            "Failed to get \"write\" lock",
            "Failed to get shared \"write\" lock",
            "Is another process using the image",
            "Failed to lock byte",
            "Failed to acquire lock",
        ],
    ),
    host(
        &PORT_TAKEN,
        1065,
        &[
            "Could not set up host forwarding rule",
            "could not set up host forwarding rule",
            "Address already in use",
            "Failed to find an available port",
            "Unable to find an unused port",
        ],
    ),
    host(
        &NAME_TAKEN,
        1060,
        &[
            "already exists with uuid",
            "is already active",
            "is already running",
            "already in use by interface",
            "is already in use",
            "already exists",
            "already defined with uuid",
            "bridge name",
        ],
    )
    .with(&["already"]),
    host(
        &HOST_NETWORK,
        1055,
        &[
            "is not active",
            "Network not found",
            "no network with matching name",
            "Cannot get interface MTU on",
            "failed to get mtu of bridge",
            "Failed to create tap",
            "could not configure /dev/net/tun",
            "could not open /dev/net/tun",
            "bridge helper failed",
            "failed to launch bridge helper",
            "Unable to create tap device",
        ],
    )
    .with(&["etwork", "bridge", "tap", "MTU", "tun"]),
    host(
        &HOST_MEMORY,
        1050,
        &[
            "cannot set up guest memory",
            "Cannot set up guest memory",
            "Cannot allocate memory",
            "cannot allocate memory",
            "unable to map backing store for guest RAM",
            "unable to allocate memory",
            "not enough memory",
            "not enough free memory",
            "Not enough memory",
            "insufficient memory",
            "Out of memory",
            "MiB of memory",
        ],
    )
    .without(&["at least"]),
    host(
        &HOST_DISK,
        1045,
        &[
            "No space left on device",
            "no space left on device",
            "Disk quota exceeded",
            "not enough space",
            "not enough free space",
            "ENOSPC",
            "disk is full",
        ],
    ),
    host(
        &PERMISSION,
        1040,
        &[
            "Permission denied",
            "permission denied",
            "authentication unavailable",
            "authentication failed",
            "access denied",
            "Operation not permitted",
            "polkit",
        ],
    ),
    host(
        &IMAGE_CORRUPT,
        1035,
        &[
            "Image is not in ",
            "Could not read qcow2 header",
            "qcow2 header too short",
            "Image is corrupt",
            "image is corrupt",
            "Unsupported qcow2 version",
            "Unknown image format",
            "Could not read L1 table",
            "L1 table is too small",
            "L1 table offset invalid",
            "Reference count table",
            "Invalid cluster",
            "Marking image as corrupt",
            "is not a valid image",
            "invalid VMDK",
            "Invalid VHD",
            "Corrupt ",
            "Image too small",
            "image size is not a multiple",
            "is truncated",
            "file is too small",
            "Failed to read metadata",
            "does not contain a valid",
            "unexpected end of file",
            "corrupt input",
        ],
    ),
    host(
        &super::kernel::WRONG_ARCHITECTURE,
        1034,
        &[
            "Error loading uncompressed kernel without PVH ELF Note",
            "Error while loading elf kernel",
            "invalid kernel header",
            "kernel image is for a different architecture",
            "could not load 64-bit kernel",
            "Failed to load kernel: wrong architecture",
            "The image is from incompatible architecture",
            "Trying to load a 64-bit",
            "linux kernel too old to load a ram disk",
        ],
    ),
    host(
        &QEMU_ARGUMENT,
        1030,
        &[
            "unsupported machine type",
            "unsupported bus type",
            "machine type",
            "is not a valid device model name",
            "not a valid device",
            "Property '",
            "invalid option",
            "Invalid parameter",
            "invalid parameter",
            "unable to find CPU model",
            "unsupported configuration",
            "XML error",
            "expects a",
            "Parameter '",
            "parameter '",
            "Duplicate ID",
            "bus found for device",
            "not supported by",
            "not supported in this QEMU",
            "is not supported",
            "unknown type",
            "unrecognized",
            "Could not find machine",
            "Use -machine help",
            "requires an argument",
            "Invalid CPU topology",
            "Invalid SMP CPUs",
            "exceeds max CPUs",
            "exceeds the maximum",
            "Invalid RAM size",
            "at most",
            "invalid argument",
            "Unsupported option",
            "drive with bus=",
            "unable to find any firmware",
            "Unable to find any firmware",
            "out of range",
            "no default CPU",
            "PCI: slot",
        ],
    ),
    host(
        &IMAGE_MISSING,
        1025,
        &[
            "No such file or directory",
            "no such file or directory",
            "could not open kernel file",
            "could not open kernel",
            "could not load kernel",
            "could not load initrd",
            "could not load PC BIOS",
            "Could not open initrd",
            "Could not open '",
            "Storage volume not found",
            "no storage vol",
            "no storage pool with matching",
            "Cannot access storage file",
            "Cannot access backing file",
            "cannot open file",
            "image is missing",
            "is not here",
            "not published",
            "HTTP status 404",
            "404 Not Found",
        ],
    ),
];

/// Words of a QEMU that ended though nothing above fits.
pub(super) fn died(facts: &Facts) -> Option<String> {
    let words =
        facts.hypervisor.as_deref().and_then(|text| text.lines().rev().find(|line| !line.trim().is_empty()));
    let how = match facts.qemu_exit {
        Some(signal) if signal < 0 => Some(format!("killed by signal {}", -signal)),
        Some(0) | None => None,
        Some(status) => Some(format!("exit status {status}")),
    };
    match (words, how) {
        (Some(words), Some(how)) => Some(format!("{how}; {}", words.trim())),
        (Some(words), None) => Some(words.trim().to_owned()),
        (None, Some(how)) => Some(how),
        (None, None) => (facts.ended == Ended::QemuGone).then(|| "without a word".to_owned()),
    }
}
