//! Whole ends of consoles as people posted them, from other distributions, kernels and firmware than our own images have:
//! shortened, and the cause that each must yield; and boots that went well though they print frightening lines.

use super::*;

fn find(console: &str, facts: &Facts) -> Option<&'static str> {
    let mut classifier = Classifier::new();
    classifier.push(console.as_bytes());
    classifier.finding(facts).map(|finding| finding.cause)
}

#[track_caller]
fn given(cause: &str, console: &str) {
    let facts = Facts { ended: Ended::Deadline, ..Facts::default() };
    assert_eq!(find(console, &facts), Some(cause), "{console}");
}

#[test]
fn kernels_without_a_root() {
    given(
        "no-root-device",
        "[    0.980404] /dev/root: Can't open blockdev\n\
         [    0.981116] VFS: Cannot open root device \"UUID=96991ead\" or unknown-block(0,0): error -6\n\
         [    0.983625] 0b00         1048575 sr0 \n\
         [    0.984593] List of all bdev filesystems:\n\
         [    0.987030] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n\
         [    0.987874] CPU: 0 UID: 0 PID: 1 Comm: swapper/0 Not tainted 6.11.2-300.fc41.x86_64 #1\n",
    );
    given(
        "no-root-device",
        "[guest0/uart0] [    1.859726] check access for rdinit=/init failed: -2, ignoring\n\
         [guest0/uart0] [    1.869647] VFS: Cannot open root device \"/dev/ram\" or unknown-block(1,0): error -6\n\
         [guest0/uart0] [    1.885337] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(1,0)\n\
         [guest0/uart0] [    1.896331] [<ffffffff800151e0>] dump_backtrace+0x1c/0x24\n",
    );
    // The root is missing because the initrd could not be read.
    given(
        "bad-initrd",
        "[    1.760459] RAMDISK: gzip image found at block 0\n\
         [    1.800889] RAMDISK: EOF while reading compressed data\n\
         [    1.800892] uncompression error\n\
         [    1.802731] VFS: Cannot open root device \"(null)\" or unknown-block(0,0): error -6\n\
         [    1.879398] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n",
    );
}

#[test]
fn shells_of_dracut_and_initramfs_tools() {
    given(
        "initramfs-shell",
        " dracut-initqueue[455]: Warning: dracut-initqueue timeout - starting timeout scripts\n \
         dracut-initqueue[455]: Warning: Could not boot.\n         Starting Dracut Emergency Shell...\n\
         Warning: /dev/mapper/rootvg-rootlv does not exist\nGenerating \"/run/initramfs/rdsosreport.txt\"\n\n\
         Entering emergency mode. Exit the shell to continue.\ndracut:/# ",
    );
    given(
        "initramfs-shell",
        "Begin: Running /scripts/local-premount ... Begin: Waiting for suspend/resume device ... Begin: Running /scripts/local-block ... done.\n\
         [    5.386073] sched: DL replenish lagged too much\nGave up waiting for suspend/resume device\ndone.\n\
         Begin: Waiting for root file system ... Begin: Running /scripts/local-block ... done.\ndone.\n\
         Gave up waiting for root file system device.  Common problems:\n - Boot args (cat /proc/cmdline)\n\
         ALERT!  UUID=2351ccc2-3dbd-4de6-9221-255a8e1fb132 does not exist.  Dropping to a shell!\n",
    );
}

#[test]
fn a_root_on_the_network_fails_with_the_network() {
    let ends = "[   28.381198] dracut-initqueue[945]: Warning: dracut-initqueue timeout - starting timeout scripts\n\
                [   28.400096] dracut-initqueue[945]: Warning: Could not boot.\n";
    given(
        "no-carrier",
        &format!(
            "[   10.547290] dracut-initqueue[1144]: Warning: No carrier detected on interface nmn0\n{ends}"
        ),
    );
    given(
        "no-dhcp-lease",
        &format!("[   10.547290] dracut-initqueue[1144]: Warning: dhcp for interface eth0 failed\n{ends}"),
    );
}

#[test]
fn what_user_space_says_last() {
    given(
        "file-system-errors",
        "[    8.629731] XFS (sdc1): metadata I/O error in \"xfs_trans_read_buf_map\" at daddr 0x10 len 8 error 74\n\
         [FAILED] Failed to mount /data.\n[DEPEND] Dependency failed for Local File Systems.\n\
         You are in emergency mode. After logging in, type \"journalctl -xb\" to view\n\
         Give root password for maintenance\n(or press Control-D to continue): ",
    );
    given(
        "cpu-too-old",
        "[    2.170000] Run /init as init process\nFatal glibc error: CPU does not support x86-64-v2\n\
         [    2.195862] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00\n",
    );
    given(
        "fsck-failed",
        "Begin: Will now check root file system ... fsck from util-linux 2.36.1\n\
         /dev/vda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n\t(i.e., without -a or -p options)\n\
         fsck exited with status code 4\nThe root filesystem on /dev/vda1 requires a manual fsck\n\n(initramfs) ",
    );
}

#[test]
fn complaints_of_old_kernels_and_of_arm64() {
    given(
        "oops",
        "[  186.402433][    T1] pci 0000:00:01.0: PME# supported from D0 D3hot D3cold\n\
         [  186.415652][    T1] Unable to handle kernel paging request at virtual address ffff800029370000\n\
         [  186.424398][    T1] Mem abort info:\n[  186.427930][    T1]   ESR = 0x96000007\n\
         [  186.478424][    T1] Internal error: Oops: 96000007 [#1] SMP\n\
         [  186.487854][    T1] CPU: 38 PID: 1 Comm: swapper/0 Tainted: G        W    L    5.10.0-rc7 #3\n",
    );
    let lost = Facts { ended: Ended::Lost, ..Facts::default() };
    for (cause, console) in [
        (
            "hung-task",
            "localhost login: [  240.123456] INFO: task jbd2/vda1-8:345 blocked for more than 120 seconds.\n\
             [  240.130001]       Not tainted 3.10.0-1160.el7.x86_64 #1\n[  240.143101] Call Trace:\n\
             [  240.145001]  [<ffffffff8a985da9>] schedule+0x29/0x70\n",
        ),
        (
            "rcu-stall",
            "ip-10-0-0-1 login: [  140.000201] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\n\
             [  140.000301] rcu: \t1-...0: (1 GPs behind) idle=8ca/1/0x4000000000000000 softirq=2233/2234 fqs=2625\n\
             [  140.000401] \t(detected by 0, t=5252 jiffies, g=1537, q=68)\n",
        ),
    ] {
        assert_eq!(find(console, &lost), Some(cause), "{console}");
    }
}

const UBUNTU: &str = "[    0.000000] Linux version 5.15.0-105-generic (buildd@lcy02) (gcc 11.4.0) #115-Ubuntu SMP\n\
    [    0.003000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2 BHB attacks!\n\
    [    0.112001] ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.PCI0], AE_NOT_FOUND (20210730/dswload2-162)\n\
    [    0.900000] platform regulatory.0: Direct firmware load for regulatory.db failed with error -2\n\
    [    1.200111] blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0\n\
    Begin: Mounting root file system ... Begin: Running /scripts/local-top ... done.\n\
    Warning: fsck not present, so skipping root file system\n\
    [    2.500000] EXT4-fs (vda1): INFO: recovery required on readonly filesystem\n\
    [    2.700000] EXT4-fs (vda1): recovery complete\ndone.\n\
    [FAILED] Failed to start Load Kernel Modules.\n[  OK  ] Reached target Local File Systems.\n\
    [   *** ] A start job is running for Wait for Network to be Configured (25s / no limit)\n\
    [  OK  ] Finished Wait for Network to be Configured.\n\
    [   35.100000] cloud-init[600]: 2024-11-26 13:16:12,170 - util.py[WARNING]: failed stage init-local\n\
    [  OK  ] Started OpenBSD Secure Shell server.\n[FAILED] Failed to start Hostname Service.\n\
    [  OK  ] Finished Cloud-init: Final Stage.\n\nUbuntu 22.04.4 LTS ubuntu ttyS0\n\nubuntu login: ";

const CENTOS: &str = "[    0.000000] Linux version 3.10.0-1160.el7.x86_64 (mockbuild@kbuilder) (gcc version 4.8.5) #1 SMP\n\
    [    0.000000] tsc: Fast TSC calibration failed\n[    0.523412] Failed to access perfctr msr (MSR c2 is 0)\n\
    [    1.223412] systemd[1]: Failed to insert module 'ip_tables'\n[    1.523412] blk_update_request: I/O error, dev fd0, sector 0\n\
    [    1.823412] XFS (vda1): Starting recovery (logdev: internal)\n[    1.923412] XFS (vda1): Ending recovery (logdev: internal)\n\
    [    2.723412] systemd-journald[90]: Received SIGTERM from PID 1 (systemd).\nWelcome to CentOS Linux 7 (Core)!\n\n\
    [FAILED] Failed to start Crash recovery kernel arming.\n[FAILED] Failed to start Postfix Mail Transport Agent.\n\
    [   12.523412] kvm: no hardware support\n[  OK  ] Started OpenSSH server daemon.\n\nCentOS Linux 7 (Core)\n\n\
    localhost login: [   60.0] random: crng init done\n";

const AMAZON: &str = "UEFI firmware (version edk2-stable202302 built at 09:05:00 on Mar  1 2023)\n\
    BdsDxe: failed to load Boot0001 \"UEFI QEMU DVD-ROM QM00003 \" from PciRoot(0x0)/Pci(0x1F,0x2)/Sata(0x1,0xFFFF,0x0): Not Found\n\
    BdsDxe: starting Boot0002 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x2,0x0)\n\
    error: no suitable video mode found.\nerror: ../../grub-core/commands/search.c:296:no such device: /.disk/info.\n\
    EFI stub: Booting Linux Kernel...\nEFI stub: WARNING: Failed to measure data for event 1: 0x800000000000000b\n\
    [    0.000000] Booting Linux on physical CPU 0x0000000000 [0x413fd0c1]\n\
    [    0.000000] Linux version 6.1.115-126.197.amzn2023.aarch64 (mockbuild@ip-10-0-0-1) (gcc (GCC) 11.4.1) #1 SMP\n\
    [    0.612001] kvm [1]: HYP mode not available\n\
    [    1.012001] dracut-pre-udev[230]: modprobe: FATAL: Module floppy not found in directory /lib/modules/6.1.115\n\
    [  OK  ] Reached target multi-user.target - Multi-User System.\n\
    Amazon Linux 2023.6.20241121\n\nip-172-31-1-2 login: ";

#[test]
fn frightening_lines_of_boots_that_went_well() {
    let ready =
        Facts { ended: Ended::Ready, phase: Some(crate::event::BootPhase::Ready), ..Facts::default() };
    for console in [UBUNTU, CENTOS, AMAZON] {
        assert_eq!(find(console, &ready), None, "{console}");
        assert_eq!(find(console, &Facts::default()), None, "{console}");
    }
}
