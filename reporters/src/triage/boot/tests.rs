//! What programs of many distributions and kernels print, typed as they print it, and the cause it must yield.

use super::*;
use crate::event::BootPhase;

/// A boot that was given up, with this at the end of its console.
fn given_up() -> Facts {
    Facts { ended: Ended::Deadline, elapsed_ms: Some(300_000), idle_ms: Some(120_000), ..Facts::default() }
}

fn find(console: &str, facts: &Facts) -> Option<Finding> {
    let mut classifier = Classifier::new();
    classifier.push(console.as_bytes());
    classifier.finding(facts)
}

#[track_caller]
fn given(cause: &str, consoles: &[&str]) {
    for console in consoles {
        let found = find(console, &given_up());
        assert_eq!(found.as_ref().map(|finding| finding.cause), Some(cause), "{console}\n{found:#?}");
        let evidence = found.unwrap().evidence;
        let marked = evidence.iter().all(|evidence| match evidence.place {
            Place::Console { offset, .. } => (offset as usize) < console.len(),
            _ => false,
        });
        assert!(marked && !evidence.is_empty(), "{evidence:?}");
    }
}

use crate::triage::Place;

const KERNEL: &str = "[    0.000000] Linux version 5.15.0-91-generic (buildd@lcy02) (gcc) #101-Ubuntu SMP\n[    0.000000] Command line: BOOT_IMAGE=/vmlinuz root=/dev/vda1 panic=-1 console=ttyS0\n";

fn after_kernel(rest: &str) -> String {
    format!("{KERNEL}{rest}")
}

fn after_systemd(rest: &str) -> String {
    format!(
        "{KERNEL}[    1.2] Freeing unused kernel image (initmem) memory: 2700K\n[    2.0] systemd[1]: systemd 249.11-0ubuntu3 running in system mode\n\
         [\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mLocal File Systems\x1b[0m.\n{rest}"
    )
}

#[test]
fn firmware() {
    given(
        "no-bootable-disk",
        &[
            "\x1bc\x1b[?7l\x1b[2JSeaBIOS (version 1.16.2-1)\nBooting from Hard Disk...\nBoot failed: not a bootable disk\n\nNo bootable device.\n",
            "SeaBIOS (version rel-1.10.2)\niPXE (http://ipxe.org) 00:03.0 C980\nBooting from ROM..iPXE (PCI 00:03.0) starting execution\nNothing to boot: No such file or directory (http://ipxe.org/2d03e13b)\nNo more network devices\n\nNo bootable device.  Retrying in 60 seconds.\n",
            "BdsDxe: failed to load Boot0001 \"UEFI QEMU DVD-ROM QM00003 \" from PciRoot(0x0)/Pci(0x1F,0x2)/Sata(0x1,0xFFFF,0x0): Not Found\n\n>>Start PXE over IPv4.\n  PXE-E18: Server response timeout.\nBdsDxe: No bootable option or device was found.\nBdsDxe: Press any key to enter the Boot Manager Menu.\n",
            "Booting from Hard Disk...\nMissing operating system.\n",
            "SYSLINUX 6.04 EDD Copyright (C) 1994-2015 H. Peter Anvin et al\nNo DEFAULT or UI configuration directive found!\nboot: ",
        ],
    );
    given(
        "uefi-shell",
        &[
            "BdsDxe: loading Boot0002 \"EFI Internal Shell\" from Fv(7CB8BDC9-F8EB-4F34-AAEA-3EE4AF6516A1)\nUEFI Interactive Shell v2.2\nEDK II\nUEFI v2.70 (EDK II, 0x00010000)\nmap: No mapping found.\nPress ESC in 1 seconds to skip startup.nsh or any other key to continue.\nShell> ",
            "\x1b[2J\x1b[01;01HUEFI Interactive Shell v2.1\x1b[02;01HEDK II\x1b[0m\x1b[37m\x1b[40mMapping table\x1b[33mShell> ",
        ],
    );
    given(
        "grub-rescue",
        &[
            "Booting from Hard Disk...\nGRUB loading.\nWelcome to GRUB!\n\nerror: no such device: 0f0e0d0c-1111-2222-3333-444455556666.\nEntering rescue mode...\ngrub rescue> ",
            "error: ../../grub-core/kern/fs.c:121:unknown filesystem.\nEntering rescue mode...\ngrub rescue> ",
            "Loading Linux 5.14.0-362.el9.x86_64 ...\nerror: file `/vmlinuz-5.14.0-362.el9.x86_64' not found.\nerror: you need to load the kernel first.\n\nPress any key to continue...\n",
            "                             GNU GRUB  version 2.06\n\n   Minimal BASH-like line editing is supported. For the first word, TAB\n   lists possible command completions.\n\ngrub> ",
        ],
    );
    given(
        "secure-boot",
        &[
            "BdsDxe: failed to load Boot0003 \"Fedora\" from HD(1,GPT,aa)/\\EFI\\fedora\\shimx64.efi: Access Denied\n",
            "error: ../../grub-core/kern/efi/sb.c:182:bad shim signature.\nerror: you need to load the kernel first.\n",
        ],
    );
    given(
        "wrong-architecture",
        &[
            "BdsDxe: failed to load Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x3,0x0): Unsupported\n",
        ],
    );
}

#[test]
fn panics() {
    given(
        "no-root-device",
        &[
            &after_kernel(
                "[    1.9] VFS: Cannot open root device \"vda9\" or unknown-block(0,0): error -6\n[    1.9] Please append a correct \"root=\" boot option; here are the available partitions:\n[    1.9] fe00         2097152 vda \n[    1.9]  driver: virtio_blk\n[    1.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n[    1.9] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 3.10.0-1160.el7.x86_64 #1\n[    1.9] Call Trace:\n[    1.9]  [<ffffffff81234567>] dump_stack+0x19/0x1b\n",
            ),
            &after_kernel(
                "[    1.9] /dev/root: Can't open blockdev\n[    1.9] VFS: Cannot open root device \"/dev/vda9\" or unknown-block(0,0): error -6\n[    1.9] Kernel panic - not syncing: VFS: Unable to mount root fs on \"/dev/vda9\" or unknown-block(0,0)\n",
            ),
            &after_kernel(
                "[    1.9] No filesystem could mount root, tried:  ext3 ext2 ext4 squashfs vfat\n[    1.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(254,1)\n",
            ),
        ],
    );
    given(
        "no-init",
        &[
            &after_kernel(
                "[    1.9] Freeing unused kernel memory: 1240k freed\n[    1.9] Kernel panic - not syncing: No init found.  Try passing init= option to kernel. See Linux Documentation/init.txt for guidance.\n",
            ),
            &after_kernel(
                "[    1.9] Run /sbin/inti as init process\n[    1.9] Kernel panic - not syncing: Requested init /sbin/inti failed (error -2).\n",
            ),
            &after_kernel(
                "[    1.9] Run /bin/sh as init process\n[    1.9] Kernel panic - not syncing: No working init found.  Try passing init= option to kernel. See Linux Documentation/admin-guide/init.rst for guidance.\n",
            ),
            &after_kernel(
                "Loading, please wait...\nBegin: Mounting root file system ... done.\nTarget filesystem doesn't have requested /sbin/init.\nrun-init: can't execute '/etc/init': No such file or directory\nNo init found. Try passing init= bootarg.\n\nBusyBox v1.30.1 (Ubuntu 1:1.30.1-7ubuntu3) built-in shell (ash)\n\n(initramfs) ",
            ),
        ],
    );
}

#[test]
fn more_panics() {
    given(
        "bad-initrd",
        &[
            &after_kernel(
                "[    0.5] Trying to unpack rootfs image as initramfs...\n[    0.6] Initramfs unpacking failed: invalid magic at start of compressed archive\n[    1.9] VFS: Cannot open root device \"vda1\" or unknown-block(0,0): error -6\n[    1.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n",
            ),
            &after_kernel(
                "[    0.5] rootfs image is not initramfs (junk in compressed archive); looks like an initrd\n[    1.8] RAMDISK: Couldn't find valid RAM disk image starting at 0.\n[    1.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(1,0)\n",
            ),
            &after_kernel(
                "[    0.5] Initramfs unpacking failed: XZ-compressed data is corrupt\n[    1.9] Run /init as init process\n[    1.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n",
            ),
        ],
    );
    given(
        "kernel-out-of-memory",
        &[
            &after_kernel(
                "[    0.6] Initramfs unpacking failed: write error\n[    0.9] Kernel panic - not syncing: System is deadlocked on memory\n",
            ),
            &after_kernel(
                "[    3.1] Out of memory and no killable processes...\n[    3.1] Kernel panic - not syncing: Out of memory and no killable processes...\n",
            ),
            &after_kernel(
                "[    0.0] Kernel panic - not syncing: early_memremap_ptes: Failed to allocate 4096 bytes align=0x1000\n",
            ),
            "error: out of memory.\n\nPress any key to continue...\n",
        ],
    );
    given(
        "panic",
        &[
            &after_kernel(
                "[    4.4] sysrq: Trigger a crash\n[    4.4] Kernel panic - not syncing: sysrq triggered crash\n[    4.4] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\n",
            ),
            &after_kernel(
                "[    4.4][    T1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n",
            ),
            &after_kernel(
                "<0>[    4.4] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug and send a report.\n",
            ),
        ],
    );
}

#[test]
fn the_kernel_before_its_first_program() {
    given(
        "early-exception",
        &[
            "[    0.000000] PANIC: early exception 0x0e IP 10:ffffffff81f5f6a0 error 0 cr2 0xffff88807fffe000\n",
            "PANIC: early exception 08 rip 246:10 error ffffffff810353e4 cr2 0\n",
        ],
    );
    given(
        "bad-kernel-image",
        &[
            "early console in extract_kernel\n\nDecompressing Linux... \n\nXZ-compressed data is corrupt\n\n -- System halted",
        ],
    );
    given(
        "wrong-architecture",
        &[
            "This kernel requires an x86-64 CPU, but only detected an i686 CPU.\nUnable to boot - please use a kernel appropriate for your CPU.\n",
            &after_kernel(
                "[    1.9] Starting init: /sbin/init exists but couldn't execute it (error -8)\n[    1.9] Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.\n",
            ),
            &after_kernel(
                "run-init: can't execute '/sbin/init': Exec format error\n[    2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00\n",
            ),
        ],
    );
    given(
        "cpu-too-old",
        &[&after_kernel(
            "Fatal glibc error: CPU does not support x86-64-v2\n[    2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00\n",
        )],
    );
    given(
        "kernel-too-old",
        &[&after_kernel(
            "FATAL: kernel too old\n[    2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00\n",
        )],
    );
    given(
        "no-output",
        &[
            "SeaBIOS (version 1.16.2-1)\nBooting from ROM...\n",
            "Booting `Ubuntu'\n\nLoading Linux 5.15.0 ...\nLoading initial ramdisk ...\n\u{1b}[2J",
        ],
    );
    given(
        "hang",
        &[
            &after_kernel("[    0.9] pci 0000:00:02.0: vgaarb: setting as boot VGA device\n"),
            &after_systemd("[  ***] A start job is running for LVM event activation (1min / no limit)\n"),
        ],
    );
    let counting = Facts { idle_ms: Some(0), ..given_up() };
    let stuck = after_systemd(
        "[ ***  ] Job wait.service/start running (1min 2s / no limit)\n\x1bM\r\x1b[K[***   ] Job wait.service/start running (1min 3s / no limit)\r\n",
    );
    assert_eq!(find(&stuck, &counting).unwrap().cause, "hang");
    assert_eq!(find(&stuck.replace("1min ", ""), &counting).unwrap().cause, "slow");
    let silent = find("", &given_up()).unwrap();
    assert_eq!(silent.cause, "no-output");
    assert!(silent.evidence.is_empty() && silent.says.contains("the console is empty"));
}

#[test]
fn stalls_that_stop_a_boot() {
    let soft = "[   26.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [swapper/0:1]\n[   26.0] RIP: 0010:spin+0x1/0x2\n";
    given(
        "soft-lockup",
        &[
            &after_kernel(soft),
            &after_kernel("[   26.0] Kernel panic - not syncing: softlockup: hung tasks\n"),
        ],
    );
    given(
        "rcu-stall",
        &[&after_kernel(
            "[   21.0] INFO: rcu_sched self-detected stall on CPU { 0}  (t=21000 jiffies g=-299 c=-300 q=3)\n",
        )],
    );
    given(
        "hard-lockup",
        &[&after_kernel("[   21.0] NMI watchdog: Watchdog detected hard LOCKUP on cpu 0\n")],
    );
    given(
        "hung-task",
        &[&after_systemd(
            "[  241.0] INFO: task systemd-udevd:312 blocked for more than 120 seconds.\n[  241.0]       Not tainted 4.18.0-513.el8.x86_64 #1\n",
        )],
    );
    let went_on = after_kernel(&format!(
        "{soft}[   30.0] Freeing unused kernel memory: 100K\n[   31.0] systemd[1]: systemd 252 running in system mode\n"
    ));
    assert_eq!(find(&went_on, &Facts { idle_ms: Some(100), ..given_up() }).unwrap().cause, "slow");
}

#[test]
fn early_user_space() {
    given(
        "initramfs-shell",
        &[
            &after_kernel(
                "Begin: Waiting for root file system ... Begin: Running /scripts/local-block ... done.\nGave up waiting for root file system device.  Common problems:\n - Boot args (cat /proc/cmdline)\n   - Check rootdelay= (did the system wait long enough?)\nALERT!  UUID=0f0e0d0c-1111-2222-3333-444455556666 does not exist.  Dropping to a shell!\n\n\nBusyBox v1.30.1 (Debian 1:1.30.1-6+b3) built-in shell (ash)\nEnter 'help' for a list of built-in commands.\n\n(initramfs) ",
            ),
            &after_kernel(
                "[  190.1] dracut-initqueue[312]: Warning: dracut-initqueue timeout - starting timeout scripts\n[  193.0] dracut-initqueue[312]: Warning: Could not boot.\n[  193.1] dracut-initqueue[312]: Warning: /dev/mapper/rhel-root does not exist\n\nGenerating \"/run/initramfs/rdsosreport.txt\"\n\n\nEntering emergency mode. Exit the shell to continue.\nType \"journalctl\" to view system logs.\n\n\n:/# ",
            ),
            &after_kernel(
                "Warning: /dev/disk/by-uuid/aa does not exist\n[  OK  ] Started Show Plymouth Boot Screen.\nGenerating \"/run/initramfs/rdsosreport.txt\"\ndracut:/# ",
            ),
            &after_kernel(
                ":: running early hook [udev]\nERROR: device 'UUID=aa' not found. Skipping fsck.\n:: mounting 'UUID=aa' on real root\nmount: /new_root: can't find UUID=aa.\nYou are now being dropped into an emergency shell.\nsh: can't access tty; job control turned off\n[rootfs ]# ",
            ),
            &after_kernel(
                "kmt-init: kernel 6.1.0\nkmt-init: FAILED root disk /dev/vdz did not appear\n[    9.1] reboot: Power down\n",
            ),
        ],
    );
    given(
        "emergency-shell",
        &[
            &after_systemd(
                "[ TIME ] Timed out waiting for device /dev/disk/by-uuid/aa.\n[DEPEND] Dependency failed for /data.\n[DEPEND] Dependency failed for Local File Systems.\n[  OK  ] Started Emergency Shell.\n[  OK  ] Reached target Emergency Mode.\nYou are in emergency mode. After logging in, type \"journalctl -xb\" to view\nsystem logs, \"systemctl reboot\" to reboot, \"systemctl default\" or \"exit\"\nto boot into default mode.\nGive root password for maintenance\n(or press Control-D to continue): ",
            ),
            &after_systemd(
                "Welcome to emergency mode! After logging in, type \"journalctl -xb\" to view\nGive root password for maintenance\n",
            ),
            &after_systemd(
                "Cannot open access to console, the root account is locked.\nSee sulogin(8) man page for more details.\n\nPress Enter to continue.\n",
            ),
        ],
    );
}

#[test]
fn later_user_space() {
    given(
        "failed-unit",
        &[&after_systemd(
            "[FAILED] Failed to start dbus.service - D-Bus System Message Bus.\nSee 'systemctl status dbus.service' for details.\n",
        )],
    );
    given(
        "module-mismatch",
        &[
            &after_kernel(
                "Begin: Loading essential drivers ... modprobe: FATAL: Module virtio_blk not found in directory /lib/modules/5.10.0-28-amd64\nALERT!  /dev/vda1 does not exist.  Dropping to a shell!\n(initramfs) ",
            ),
            &after_systemd(
                "[    3.3] virtio_net: version magic '5.4.0-1 SMP mod_unload ' should be '5.4.0-2 SMP mod_unload '\n[FAILED] Failed to start Raise network interfaces.\n",
            ),
            &after_kernel("kmt-init: FAILED load module virtio_blk.ko\n"),
        ],
    );
    given(
        "init-froze",
        &[&after_kernel(
            "[    2.1] systemd[1]: Failed to mount tmpfs at /sys/fs/cgroup: No such file or directory\n[!!!!!!] Failed to mount API filesystems, freezing.\n[    2.1] systemd[1]: Freezing execution.\n",
        )],
    );
    let relabel = "*** Warning -- SELinux targeted policy relabel is required.\n*** Relabeling could take a very long time, depending on file\n[   40.0] reboot: Restarting system\n";
    let twice = format!("{}{}{}", after_kernel(relabel), after_kernel(relabel), after_kernel(""));
    given("selinux-relabel-loop", &[&twice]);
}

#[test]
fn storage() {
    given(
        "file-system-errors",
        &[
            &after_systemd(
                "[    3.0] EXT4-fs error (device vda1): ext4_lookup:1701: inode #2049: comm systemd: deleted inode referenced: 2060\n[    3.0] EXT4-fs (vda1): Remounting filesystem read-only\n",
            ),
            &after_kernel(
                "[    2.0] XFS (dm-0): Metadata corruption detected at xfs_agi_verify+0xc4/0x1d0 [xfs], xfs_agi block 0x2\n[    2.0] XFS (dm-0): Unmount and run xfs_repair\n",
            ),
            &after_kernel(
                "[    2.0] BTRFS error (device vda2): parent transid verify failed on 30408704 wanted 7 found 5\n[    2.0] BTRFS error (device vda2): open_ctree failed\n",
            ),
            &after_kernel(
                "[    2.0] blk_update_request: I/O error, dev vda, sector 2048 op 0x0:(READ) flags 0x80700\n[    2.0] Buffer I/O error on dev vda1, logical block 0, async page read\n",
            ),
        ],
    );
    given(
        "fsck-failed",
        &[
            &after_kernel(
                "Begin: Will now check root file system ... fsck from util-linux 2.38.1\n/dev/vda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n\t(i.e., without -a or -p options)\nfsck exited with status code 4\ndone.\nFailure: File system check of the root filesystem failed\nThe root filesystem on /dev/vda1 requires a manual fsck\n\nBusyBox v1.35.0 (Debian) built-in shell (ash)\n(initramfs) ",
            ),
            &after_systemd(
                "[    3.9] systemd-fsck[401]: fsck failed with exit status 4.\n[FAILED] Failed to start File System Check on /dev/disk/by-uuid/aa.\n[DEPEND] Dependency failed for Local File Systems.\nYou are in emergency mode.\n",
            ),
        ],
    );
    given(
        "disk-full",
        &[&after_systemd(
            "[    9.0] systemd-journald[299]: Failed to create new system journal: No space left on device\n[FAILED] Failed to start OpenSSH server daemon.\n",
        )],
    );
    given("image-corrupt", &[&after_kernel("[    1.0] EXT4-fs (vda1): bad geometry: block count 2621179 exceeds size of device (1048315 blocks)\n[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(254,1)\n").replace("Kernel panic - not syncing: VFS", "VFS")]);
}

#[test]
fn network() {
    given(
        "no-dhcp-lease",
        &[
            &after_systemd(
                "dhclient[512]: No DHCPOFFERS received.\ndhclient[512]: No working leases in persistent database - sleeping.\n",
            ),
            &after_systemd("udhcpc: sending discover\nudhcpc: sending discover\nudhcpc: no lease, failing\n"),
            &after_kernel(
                "[    2.0] Freeing unused kernel memory: 1k\nIP-Config: ens3 hardware address 52:54:00:12:34:56 mtu 1500 DHCP RARP\nIP-Config: no response after 2 secs - giving up\n",
            ),
            &after_kernel(
                "[    3.0] Sending DHCP requests .....\n[   99.0]  timed out!\n[   99.0] IP-Config: Auto-configuration of network failed\n",
            ),
            &after_systemd(
                "[FAILED] Failed to start Wait for Network to be Configured.\nSee 'systemctl status systemd-networkd-wait-online.service' for details.\n[  OK  ] Reached target Network is Online.\n",
            ),
            &after_systemd(
                "[   48.2] NetworkManager[700]: <warn>  [1700000000.1] dhcp4 (eth0): request timed out\n",
            ),
            &after_systemd(
                "[   12.0] cloud-init[500]: ci-info: | eth0 | True |     .     |     .     |   .    | 52:54:00:12:34:56 |\n",
            ),
        ],
    );
    given(
        "wrong-interface",
        &[
            &after_systemd(
                "Cannot find device \"eth0\"\nFailed to bring up eth0.\n[FAILED] Failed to start Raise network interfaces.\n",
            ),
            &after_systemd(
                "Bringing up interface eth0:  Device eth0 does not seem to be present, delaying initialization.\n[FAILED]\n",
            ),
            &after_kernel("[    3.0] IP-Config: No network devices available\n"),
            &after_systemd("[ TIME ] Timed out waiting for device sys-subsystem-net-devices-eth0.device.\n"),
        ],
    );
}

#[test]
fn more_of_the_network() {
    given(
        "no-carrier",
        &[
            &after_systemd(
                "[    5.0] systemd-networkd[300]: eth0: Lost carrier\n[FAILED] Failed to start Wait for Network to be Configured.\n",
            ),
            &after_systemd(
                "2: eth0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc pfifo_fast state DOWN\n",
            ),
        ],
    );
    given(
        "address-taken",
        &[
            &after_systemd(
                "Error, some other host (52:54:00:AA:BB:CC) already uses address 192.168.122.10.\n",
            ),
            &after_systemd("dhclient[4]: DHCPDECLINE of 10.0.2.15 on eth0 to 10.0.2.2 port 67\n"),
        ],
    );
    given(
        "no-route",
        &[&after_systemd(
            "dhclient[4]: bound to 10.0.2.15 -- renewal in 3000 seconds.\ncurl: (7) Couldn't connect to server: Network is unreachable\n",
        )],
    );
}

#[test]
fn ssh() {
    given(
        "sshd-not-started",
        &[
            &after_systemd(
                "[FAILED] Failed to start ssh.service - OpenBSD Secure Shell server.\nSee 'systemctl status ssh.service' for details.\n",
            ),
            &after_systemd("[FAILED] Failed to start OpenSSH server daemon.\n"),
            &after_systemd(
                "[  OK  ] Reached target Multi-User System.\n\nAlmaLinux 9.3 (Shamrock Pampas Cat)\nvm7 login: ",
            ),
        ],
    );
    given(
        "host-keys-missing",
        &[&after_systemd(
            "[    6.0] sshd[612]: sshd: no hostkeys available -- exiting.\n[FAILED] Failed to start ssh.service - OpenBSD Secure Shell server.\n",
        )],
    );
    given(
        "key-rejected",
        &[&after_systemd(
            "[  OK  ] Started OpenSSH server daemon.\nsshd[700]: Authentication refused: bad ownership or modes for directory /root\n",
        )],
    );
    given(
        "entropy-starved",
        &[&after_systemd("[    4.0] random: dbus-daemon: uninitialized urandom read (12 bytes read)\n")],
    );
    let listening = after_systemd("[  OK  ] Started OpenSSH server daemon.\nvm7 login: ");
    for (contact, cause) in [
        ("ssh: connect to host 127.0.0.1 port 2222: Connection refused", "ssh-refused"),
        ("root@10.0.0.2: Permission denied (publickey).", "key-rejected"),
        ("Connection timed out during banner exchange", "banner-timeout"),
        ("ssh: connect to host 10.0.0.2 port 22: No route to host", "no-route"),
    ] {
        let facts = Facts { contact: Some(contact.to_owned()), ..given_up() };
        assert_eq!(find(&listening, &facts).unwrap().cause, cause, "{contact}");
    }
    let refused = Facts { contact: Some("Connection refused".to_owned()), ..given_up() };
    assert_eq!(
        find(&after_kernel("[    0.9] pci: x\n"), &refused).unwrap().cause,
        "hang",
        "nobody listens in a machine that boots"
    );
}

#[test]
fn setup() {
    given(
        "setup-unit-failed",
        &[
            &after_systemd(
                "[  OK  ] Started OpenSSH server daemon.\n[FAILED] Failed to start Setup ddvm.\nddvm login: ",
            ),
            &after_systemd(
                "[  OK  ] Started OpenSSH server daemon.\n[FAILED] Failed to start Execute cloud user/final scripts.\nip-10-0-0-1 login: ",
            ),
        ],
    );
    given(
        "shared-folder-not-mounted",
        &[&after_systemd(
            "[  OK  ] Started OpenSSH server daemon.\n[    5.0] 9pnet_virtio: no channels available for device kernel-version-testing\nddvm login: ",
        )],
    );
    given(
        "clock-off",
        &[&after_systemd(
            "[  OK  ] Started OpenSSH server daemon.\nE: Release file for http://deb.debian.org/debian/dists/bookworm-updates/InRelease is not valid yet (invalid for another 3h 2min 1s).\n",
        )],
    );
    let facts = Facts { clock_offset_s: Some(-86_400), ..given_up() };
    assert_eq!(
        find(&after_systemd("[  OK  ] Started OpenSSH server daemon.\n"), &facts).unwrap().cause,
        "clock-off"
    );
}

#[test]
fn the_host() {
    for (words, cause) in [
        (
            "Cannot access storage file '/images/a.qcow2' (as uid:64055, gid:109): No such file or directory",
            "image-missing",
        ),
        (
            "qemu-system-x86_64: could not open kernel file '/x/vmlinuz': No such file or directory",
            "image-missing",
        ),
        (
            "internal error: process exited while connecting to monitor: qemu-system-x86_64: -blockdev {...}: Could not open '/a.qcow2': Permission denied",
            "permission",
        ),
        ("qemu-system-x86_64: -drive file=a.qcow2: Image is not in qcow2 format", "image-corrupt"),
        ("sha256 of rootfs does not match: expected aa, got bb", "digest-mismatch"),
        ("qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory", "host-memory"),
        ("error: unable to write '/images/a': No space left on device", "host-disk"),
        (
            "qemu-system-x86_64: unsupported machine type\nUse -machine help to list supported machines",
            "qemu-argument",
        ),
        ("qemu-system-x86_64: -device foo: 'foo' is not a valid device model name", "qemu-argument"),
        (
            "Could not access KVM kernel module: No such file or directory\nqemu-system-x86_64: failed to initialize kvm: No such file or directory",
            "kvm-unusable",
        ),
        ("error: failed to set MSR 0x10a to 0xc000069", "kvm-unusable"),
        (
            "qemu-system-x86_64: -netdev user,hostfwd=tcp::2222-:22: Could not set up host forwarding rule 'tcp::2222-:22'",
            "port-taken",
        ),
        ("operation failed: domain 'vm7' already exists with uuid 5ab2", "name-taken"),
        (
            "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory",
            "libvirt-down",
        ),
        ("Failed to get \"write\" lock\nIs another process using the image [/a.qcow2]?", "image-in-use"),
        ("Requested operation is not valid: network 'default' is not active", "host-network"),
        ("Error loading uncompressed kernel without PVH ELF Note", "wrong-architecture"),
        ("something nobody has seen before", "qemu-died"),
    ] {
        let facts = Facts { ended: Ended::Refused, hypervisor: Some(words.to_owned()), ..Facts::default() };
        let found = find("", &facts).unwrap();
        assert_eq!(found.cause, cause, "{words}\n{found:#?}");
    }
    let paused = Facts {
        ended: Ended::Lost,
        hypervisor: Some("domain vm7 is paused (I/O error)".to_owned()),
        ..Facts::default()
    };
    assert_eq!(find(&after_systemd("vm7 login: "), &paused).unwrap().cause, "paused-io-error");
    let gone = Facts { ended: Ended::QemuGone, qemu_exit: Some(-9), ..Facts::default() };
    let found = find(&after_systemd("vm7 login: "), &gone).unwrap();
    assert_eq!((found.cause, found.says.as_str()), ("qemu-died", "QEMU ended: killed by signal 9"));
}

#[test]
fn a_machine_that_is_up() {
    let up = after_systemd("[  OK  ] Started OpenSSH server daemon.\nvm7 login: ");
    for (rest, cause) in [
        (
            "[   99.0] BUG: kernel NULL pointer dereference, address: 0000000000000008\n[   99.0] RIP: 0010:foo+0x1/0x2\n",
            "oops",
        ),
        ("[   99.0] WARNING: CPU: 3 PID: 12 at net/core/dev.c:3245 skb_warn+0xc0/0x110\n", "warning"),
        ("[   99.0] Out of memory: Killed process 412 (stress) total-vm:912340kB\n", "oom-kill"),
        ("[   99.0] INFO: task mount:312 blocked for more than 120 seconds.\n", "hung-task"),
        ("[   99.0] BUG: KASAN: use-after-free in foo+0x1/0x2\n", "kasan"),
        ("[   99.0] UBSAN: shift-out-of-bounds in lib/x.c:1:2\n", "ubsan"),
        ("[   99.0] Kernel panic - not syncing: sysrq triggered crash\n", "panic"),
        ("[   99.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [a:1]\n", "soft-lockup"),
    ] {
        for ended in [Ended::Unknown, Ended::Ready, Ended::Lost] {
            let found = find(&format!("{up}{rest}"), &Facts { ended, ..Facts::default() });
            assert_eq!(found.map(|finding| finding.cause), Some(cause), "{ended:?} {rest}");
        }
    }
    assert_eq!(find(&up, &Facts { ended: Ended::Lost, ..Facts::default() }).unwrap().cause, "ssh-lost");
    let again = format!("{up}[   99.0] reboot: Restarting system\n{KERNEL}");
    assert_eq!(find(&again, &Facts { ended: Ended::Lost, ..Facts::default() }).unwrap().cause, "rebooted");
    let panicked =
        format!("{up}[   99.0] Kernel panic - not syncing: sysrq triggered crash\n{KERNEL}[    0.1] x\n");
    assert_eq!(find(&panicked, &Facts { ended: Ended::Lost, ..Facts::default() }).unwrap().cause, "panic");
}

#[test]
fn what_is_well_has_no_cause() {
    let noise = "[    0.1] RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks, data leaks possible!\n\
         [    0.5] Initramfs unpacking failed: Decoding failed\n\
         [    0.6] ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.PCI0], AE_NOT_FOUND\n\
         [    1.0] EXT4-fs (vda1): couldn't mount as ext3 due to feature incompatibilities\n\
         [    1.1] GPT:Primary header thinks Alt. header is not at the end of the disk.\n\
         [    1.2] EXT4-fs (vda1): recovery complete\n\
         [    1.3] random: systemd: uninitialized urandom read (16 bytes read)\n";
    let rest = "[    3.0] IPv6: ADDRCONF(NETDEV_UP): eth0: link is not ready\n[    3.0] loop: module verification failed: signature and/or required key missing - tainting kernel\n\
         [FAILED] Failed to start Load Kernel Modules.\n[    4.0] systemd[1]: System time before build time, advancing clock.\n\
         [    5.0] cloud-init[1]: url_helper.py[WARNING]: Calling 'http://169.254.169.254/' failed: Network is unreachable\n\
         [  OK  ] Started OpenSSH server daemon.\n[  OK  ] Reached target Multi-User System.\nvm7 login: ";
    let console = after_kernel(noise) + &after_systemd(rest);
    for ended in [Ended::Ready, Ended::Unknown] {
        let found = find(&console, &Facts { ended, ..Facts::default() });
        assert_eq!(found, None, "{ended:?}");
    }
    let slow = Facts { idle_ms: Some(800), accelerator: Some("tcg".to_owned()), ..given_up() };
    assert_eq!(find(&after_kernel(noise), &slow).unwrap().cause, "slow");
    let words = "ok 1 - the log has no `Kernel panic - not syncing`\ntest: expect (initramfs) to be gone\n";
    assert_eq!(find(&after_systemd(&format!("{words}vm7 login: ")), &Facts::default()), None);
}

#[test]
fn a_login_prompt_is_not_all() {
    let end =
        "[  OK  ] Started OpenSSH server daemon.\n[  OK  ] Reached target Multi-User System.\nddvm login: ";
    for (lines, cause) in [
        ("[FAILED] Failed to start Wait for Network to be Configured.\n", "no-dhcp-lease"),
        ("dhclient[512]: No DHCPOFFERS received.\n", "no-dhcp-lease"),
        ("Cannot find device \"eth0\"\n", "wrong-interface"),
        ("[FAILED] Failed to start setup-ddvm.service - Setup ddvm.\n", "setup-unit-failed"),
        (
            "[FAILED] Failed to mount opt-kernel\\x2dversion\\x2dtesting.mount - /opt/kernel-version-testing.\n",
            "shared-folder-not-mounted",
        ),
    ] {
        let console = after_systemd(&format!("{lines}{end}"));
        for facts in [given_up(), Facts::default()] {
            let found = find(&console, &facts);
            assert_eq!(
                found.as_ref().map(|finding| finding.cause),
                Some(cause),
                "{lines} {facts:?}\n{found:#?}"
            );
        }
        assert_eq!(find(&console, &Facts { ended: Ended::Ready, ..Facts::default() }), None);
        let later = format!("{lines}dhclient[512]: bound to 10.0.2.15 -- renewal in 3000 seconds.\n{end}");
        let voided = find(&after_systemd(&later), &Facts::default()).is_none();
        assert_eq!(voided, !matches!(cause, "setup-unit-failed" | "shared-folder-not-mounted"), "{lines}");
    }
    let no_server = end.replace("Started OpenSSH", "Stopped OpenSSH");
    let failed = format!("[FAILED] Failed to start OpenSSH server daemon.\n{no_server}");
    assert_eq!(find(&after_systemd(&failed), &Facts::default()).unwrap().cause, "sshd-not-started");
}

#[test]
fn it_does_not_matter_how_the_console_is_cut_or_dressed() {
    let console = after_kernel(
        "[    1.9] VFS: Cannot open root device \"vda9\" or unknown-block(0,0): error -6\n[    1.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
    );
    let whole = find(&console, &given_up()).unwrap();
    let dressed = console.replace('\n', "\r\n").replace("Kernel panic", "\x1b[1;31mKernel \x1b[0mpanic");
    assert_eq!(find(&dressed, &given_up()).unwrap().signature, whole.signature);
    for cut in [1, 3, 17] {
        let mut classifier = Classifier::new();
        for piece in console.as_bytes().chunks(cut) {
            classifier.push(piece);
        }
        assert_eq!(classifier.finding(&given_up()).as_ref(), Some(&whole));
        assert_eq!(classifier.phase(), Some(BootPhase::Kernel));
    }
    let other = find(&console.replace("vda9", "vdb3").replace("1.9", "7.7"), &given_up()).unwrap();
    assert_eq!(other.signature, whole.signature);
    let evidence = &whole.evidence[0];
    assert!(matches!(evidence.place, Place::Console { line: 3 | 4, .. }), "{evidence:?}");
}

#[test]
fn every_cause_has_one_name_and_an_advice() {
    let causes = causes();
    assert!(causes.len() > 55, "{}", causes.len());
    let mut ids: Vec<_> = causes.iter().map(|cause| cause.id).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
    for cause in causes {
        assert!(
            cause.advice.len() > 20 && !cause.advice.ends_with('.') && !cause.says.ends_with('.'),
            "{}",
            cause.id
        );
    }
}
