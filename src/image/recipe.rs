//! What goes into a guest, as lists: a change of any of them changes the key of every image.

/// Raised when the code that builds images makes something else of the same lists.
pub(super) const VERSION: u32 = 1;

/// What every clock in an image says: 2023-11-14, the same in every build.
pub(super) const EPOCH: u64 = 1_700_000_000;

/// Size of a root filesystem as the guest sees it; the file is sparse.
pub(super) const ROOTFS_BYTES: u64 = 2 << 30;

/// Packages of the root filesystem beside the essential ones and apt. Recommendations are not followed.
pub(super) const PACKAGES: [&str; 8] =
    ["systemd", "systemd-sysv", "openssh-server", "mount", "iproute2", "iputils-ping", "kmod", "procps"];

/// The package that brings the initrd its only program.
pub(super) const BUSYBOX: &str = "busybox-static";

/// Modules the initrd loads where the kernel has them as modules, each after what it depends on.
pub(super) const INITRD_MODULES: [&str; 7] =
    ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "autofs4"];

/// The unit of sshd.
pub const SSH_UNIT: &str = include_str!("guest/ssh.service");

/// Files laid over the root filesystem: path, mode, text.
pub(super) const FILES: [(&str, u32, &str); 14] = [
    ("etc/ssh/sshd_config", 0o644, include_str!("guest/sshd_config")),
    ("etc/systemd/system/ssh.service", 0o644, SSH_UNIT),
    ("etc/systemd/system/systemd-sysctl.service.d/kmt.conf", 0o644, GIVES_WAY),
    ("etc/systemd/system/systemd-tmpfiles-setup.service.d/kmt.conf", 0o644, GIVES_WAY),
    ("etc/systemd/system/systemd-user-sessions.service.d/kmt.conf", 0o644, GIVES_WAY),
    ("etc/systemd/journald.conf.d/kmt.conf", 0o644, include_str!("guest/journald.conf")),
    ("etc/sysctl.d/90-kmt.conf", 0o644, include_str!("guest/sysctl.conf")),
    ("etc/hostname", 0o644, "kmt\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/fstab", 0o644, ""),
    ("etc/resolv.conf", 0o644, ""),
    ("etc/machine-id", 0o444, ""),
    ("etc/.updated", 0o644, ""),
    ("var/.updated", 0o644, ""),
];

/// For units that only set something up once: while somebody logs in, they wait. On an emulated processor the first
/// login takes 2 s beside them, and 1 s before them.
const GIVES_WAY: &str = "[Service]\nNice=19\n";

/// What must not be in an image: keys, and what a build leaves.
pub(super) const REMOVED: [&str; 6] = [
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/ssh/ssh_host_ecdsa_key",
    "etc/ssh/ssh_host_ecdsa_key.pub",
    "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/ssh_host_rsa_key.pub",
];

/// Units that delay a boot or serve nobody: masked.
pub(super) const MASKED: [&str; 64] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "cryptsetup.target",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty.target",
    "getty@tty1.service",
    "integritysetup.target",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "proc-sys-fs-binfmt_misc.automount",
    "remote-fs.target",
    "run-lock.mount",
    "serial-getty@ttyAMA0.service",
    "serial-getty@ttyS0.service",
    "ssh.socket",
    "sshd-keygen.service",
    "sshd-unix-local.socket",
    "sshd-vsock.socket",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-creds.socket",
    "systemd-firstboot.service",
    "systemd-hibernate-clear.service",
    "systemd-hostnamed.socket",
    "systemd-hwdb-update.service",
    "systemd-initctl.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-networkd-wait-online.service",
    "systemd-pcrextend.socket",
    "systemd-pcrlock.socket",
    "systemd-pcrmachine.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-sysext.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tpm2-setup-early.service",
    "systemd-tpm2-setup.service",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "tmp.mount",
    "veritysetup.target",
];

/// Generators that find nothing in a guest: each costs a process at boot.
pub(super) const GENERATORS: [&str; 17] = [
    "systemd-bless-boot-generator",
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-factory-reset-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-import-generator",
    "systemd-integritysetup-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-tpm2-generator",
    "systemd-veritysetup-generator",
];

/// Links that enable units: path, target.
pub(super) const LINKS: [(&str, &str); 3] = [
    ("etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target"),
    ("etc/systemd/system/sysinit.target.wants/ssh.service", "/etc/systemd/system/ssh.service"),
    ("etc/systemd/system/sshd.service", "/etc/systemd/system/ssh.service"),
];

/// What sshd needs to hear from version 9.8 on, which would otherwise shut out the one address all come from.
pub(super) const NO_PENALTIES: &str = "PerSourcePenalties no\n";

/// The initrd's first program, and what its DHCP client calls.
pub(super) const INIT: &str = include_str!("guest/init");
/// The script of the DHCP client.
pub(super) const DHCP: &str = include_str!("guest/dhcp");
