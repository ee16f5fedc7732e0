//! Splats as kernels of many versions and both architectures print them.

use super::*;

fn scan(log: &str) -> Vec<Splat> {
    let mut scanner = Scanner::default();
    let mut splats: Vec<Splat> = log.lines().filter_map(|line| scanner.push(line.as_bytes())).collect();
    splats.extend(scanner.finish());
    splats
}

#[track_caller]
fn one(log: &str, kind: Kind, title: &str, function: Option<&str>) -> Splat {
    let splats = scan(log);
    assert_eq!(splats.len(), 1, "{splats:#?}");
    let splat = splats.into_iter().next().unwrap();
    assert_eq!(
        (splat.kind, splat.title.as_str(), splat.function.as_deref()),
        (kind, title, function),
        "{splat:#?}"
    );
    splat
}

const NULL_6_1: &str = "\
[   12.101010] BUG: kernel NULL pointer dereference, address: 0000000000000008
[   12.101030] #PF: supervisor read access in kernel mode
[   12.101040] #PF: error_code(0x0000) - not-present page
[   12.101050] PGD 0 P4D 0
[   12.101060] Oops: 0000 [#1] PREEMPT SMP NOPTI
[   12.101070] CPU: 1 PID: 345 Comm: insmod Tainted: G           OE      6.1.0-13-amd64 #1  Debian 6.1.55-1
[   12.101080] Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2 04/01/2014
[   12.101090] RIP: 0010:broken_read+0x15/0x30 [broken]
[   12.101100] Code: 0f 1f 44 00 00
[   12.101110] RSP: 0018:ffffb1f3c0a3fd08 EFLAGS: 00010246
[   12.101120] Call Trace:
[   12.101130]  <TASK>
[   12.101140]  ? __die_body.cold+0x1a/0x1f
[   12.101150]  ? page_fault_oops+0xd2/0x2b0
[   12.101160]  do_one_initcall+0x56/0x220
[   12.101170]  </TASK>
[   12.101180] Modules linked in: broken(OE+)
[   12.101190] ---[ end trace 0000000000000000 ]---
[   12.101200] note: insmod[345] exited with irqs disabled
";

#[test]
fn one_bug_is_one_signature_on_every_kernel_and_processor() {
    let title = "kernel NULL pointer dereference in broken_read";
    let new = one(NULL_6_1, Kind::Oops, title, Some("broken_read"));
    assert_eq!(new.lines.len(), 18);
    let old = "\
[   99.5] BUG: unable to handle kernel NULL pointer dereference at           (null)
[   99.5] IP: [<ffffffffa0123015>] broken_read+0x15/0x40 [broken]
[   99.5] PGD 0
[   99.5] Oops: 0000 [#1] SMP
[   99.5] CPU: 0 PID: 812 Comm: cat Tainted: GF          O--------------   3.10.0-1160.el7.x86_64 #1
[   99.5] RIP: 0010:[<ffffffffa0123015>]  [<ffffffffa0123015>] broken_read+0x15/0x40 [broken]
[   99.5] Call Trace:
[   99.5]  [<ffffffff811f1234>] vfs_read+0x9f/0x170
[   99.5] Code: 00
[   99.5] ---[ end trace 7c1f1a1f6e1b2c3d ]---
";
    let arm = "\
[    8.1] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010
[    8.1] Mem abort info:
[    8.1]   ESR = 0x0000000096000004
[    8.1] Internal error: Oops: 0000000096000004 [#1] SMP
[    8.1] CPU: 2 PID: 77 Comm: cat Not tainted 6.8.0-31-generic #31-Ubuntu
[    8.1] pstate: 60400005 (nZCv daif +PAN -UAO -TCO -DIT -SSBS BTYPE=--)
[    8.1] pc : broken_read+0x1c/0x50 [broken]
[    8.1] lr : vfs_read+0xc8/0x2a0
[    8.1] Call trace:
[    8.1]  broken_read+0x1c/0x50 [broken]
[    8.1]  vfs_read+0xc8/0x2a0
[    8.1] ---[ end trace 0000000000000000 ]---
";
    for log in [old, arm] {
        assert_eq!(one(log, Kind::Oops, title, Some("broken_read")).signature, new.signature);
    }
}

#[test]
fn warnings_in_three_wordings() {
    for first in [
        "WARNING: at net/core/dev.c:2145 skb_warn+0xc0/0x110() (Not tainted)",
        "WARNING: CPU: 3 PID: 12 at net/core/dev.c:3245 skb_warn+0xc0/0x110",
        "WARNING: net/core/dev.c:3245 at skb_warn+0xc0/0x110, CPU#3: ksoftirqd/3/12",
    ] {
        let log = format!(
            "[    1.0] ------------[ cut here ]------------\n[    1.0] {first}\n[    1.0] Call Trace:\n[    1.0]  dump_stack+0x1/0x2\n[    1.0] ---[ end trace abcd ]---\n[    2.0] fine\n"
        );
        one(&log, Kind::Warning, "WARNING in skb_warn", Some("skb_warn"));
    }
    let machinery = "\
[    1.0] refcount_t: underflow; use-after-free.
[    1.0] WARNING: CPU: 0 PID: 9 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110
[    1.0] RIP: 0010:refcount_warn_saturate+0xba/0x110
[    1.0] Call Trace:
[    1.0]  <TASK>
[    1.0]  ? __warn+0x7d/0x140
[    1.0]  ? report_bug+0xe6/0x170
[    1.0]  ? real_guess+0x1/0x2
[    1.0]  bpf_link_put+0x50/0x90
[    1.0] ---[ end trace 0 ]---
";
    one(machinery, Kind::Warning, "WARNING in bpf_link_put", Some("bpf_link_put"));
    for none in [
        "WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks!",
        "WARNING: failed to meet at noon",
    ] {
        assert_eq!(scan(none), [], "{none}");
    }
}

#[test]
fn lockups_stalls_and_hung_tasks() {
    for first in [
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [insmod:345]",
        "NMI watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [insmod:9]",
        "BUG: soft lockup - CPU#0 stuck for 23s! [insmod:9]",
    ] {
        let log = format!(
            "[   40.0] {first}\n[   40.0] RIP: 0010:spin_for_ever+0x5/0x10 [lockup]\n[   40.0] Kernel panic - not syncing: softlockup: hung tasks\n"
        );
        one(&log, Kind::SoftLockup, "soft lockup in spin_for_ever", Some("spin_for_ever"));
    }
    one(
        "[  60.0][    C0] rcu: INFO: rcu_preempt self-detected stall on CPU\n[  60.0] rcu: \t0-....: (20999 ticks this GP)\n[  60.0] RIP: 0010:native_queued_spin_lock_slowpath+0x1/0x2\n[  60.0] Call Trace:\n[  60.0]  _raw_spin_lock+0x1/0x2\n[  60.0]  holder+0x1/0x2",
        Kind::RcuStall,
        "RCU stall in holder",
        Some("holder"),
    );
    one(
        "[  60.0] INFO: rcu_sched detected stalls on CPUs/tasks: { 1} (detected by 0, t=60002 jiffies)",
        Kind::RcuStall,
        "RCU stall",
        None,
    );
    one(
        "INFO: task mount:312 blocked for more than 120 seconds.\n      Not tainted 5.14.0-362.el9.x86_64 #1\n\"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\" disables this message.\ntask:mount state:D stack:0 pid:312\nCall Trace:\n <TASK>\n __schedule+0x248/0x620\n schedule+0x5a/0xc0\n rwsem_down_write_slowpath+0x1/0x2\n deactivate_super+0x33/0x40\n",
        Kind::HungTask,
        "task hung in deactivate_super",
        Some("deactivate_super"),
    );
    one(
        "[ 3.0] NMI watchdog: Watchdog detected hard LOCKUP on cpu 2\n[ 3.0] RIP: 0010:stuck+0x1/0x2\n[ 3.0] Kernel panic - not syncing: Hard LOCKUP",
        Kind::HardLockup,
        "hard lockup in stuck",
        Some("stuck"),
    );
}

#[test]
fn sanitizers_and_lockdep() {
    one(
        "BUG: KASAN: slab-use-after-free in leaf+0x12/0x30 [mod]\nRead of size 8 at addr ffff888004d5a000 by task cat/7",
        Kind::Kasan,
        "KASAN: slab-use-after-free in leaf",
        Some("leaf"),
    );
    one(
        "BUG: KASAN: slab-out-of-bounds in memcpy+0x1/0x2\nCall Trace:\n dump_stack+0x1/0x2\n print_report+0x1/0x2\n caller+0x1/0x2",
        Kind::Kasan,
        "KASAN: slab-out-of-bounds in caller",
        Some("caller"),
    );
    one(
        "BUG: KCSAN: data-race in zeta+0x1/0x2 / alpha+0x1/0x2",
        Kind::Kcsan,
        "KCSAN: data-race in alpha / zeta",
        Some("alpha / zeta"),
    );
    one(
        "BUG: KFENCE: out-of-bounds read in peek+0x1/0x2",
        Kind::Kfence,
        "KFENCE: out-of-bounds read in peek",
        Some("peek"),
    );
    one(
        "UBSAN: array-index-out-of-bounds in drivers/x/y.c:123:45\nindex 9 is out of range\nCall Trace:\n dump_stack_lvl+0x1/0x2\n __ubsan_handle_out_of_bounds+0x1/0x2\n probe+0x1/0x2",
        Kind::Ubsan,
        "UBSAN: array-index-out-of-bounds in probe",
        Some("probe"),
    );
    one(
        "UBSAN: Undefined behaviour in net/a.c:1:2",
        Kind::Ubsan,
        "UBSAN: Undefined behaviour in net/a.c:1:2".trim_end_matches(":1:2"),
        None,
    );
    for first in [
        "WARNING: possible circular locking dependency detected",
        "[ INFO: possible circular locking dependency detected ]",
    ] {
        one(first, Kind::Lockdep, "possible circular locking dependency detected", None);
    }
}

#[test]
fn the_rest() {
    one(
        "[1.0] kernel BUG at mm/slub.c:305!\n[1.0] invalid opcode: 0000 [#1] SMP\n[1.0] RIP: 0010:kfree+0x2d9/0x2f0",
        Kind::Bug,
        "kernel BUG in kfree",
        Some("kfree"),
    );
    one(
        "[1.0] Oops: general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP\n[1.0] RIP: 0010:walk+0x1/0x2",
        Kind::Oops,
        "general protection fault in walk",
        Some("walk"),
    );
    one(
        "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580\nCall Trace:\n dump_stack_lvl+0x1/0x2\n __might_resched+0x1/0x2\n mutex_lock+0x1/0x2\n in_timer+0x1/0x2",
        Kind::Bug,
        "BUG: sleeping function called from invalid context in in_timer",
        Some("in_timer"),
    );
    one("BUG: Bad page state in process cat  pfn:12345", Kind::Bug, "BUG: Bad page state", None);
    let title = "out of memory: killed stress";
    one(
        "Out of memory: Killed process 412 (stress) total-vm:912340kB, anon-rss:1kB",
        Kind::OomKill,
        title,
        None,
    );
    one(
        "Out of memory: Kill process 413 (stress) score 900 or sacrifice child\nKilled process 413 (stress) total-vm:1kB",
        Kind::OomKill,
        title,
        None,
    );
    one(
        "vm7 login: [  412.0] Kernel panic - not syncing: sysrq triggered crash",
        Kind::Panic,
        "kernel panic: sysrq triggered crash",
        None,
    );
}

#[test]
fn two_splats_are_two_and_what_is_none_is_none() {
    let log = format!("{NULL_6_1}{}", NULL_6_1.replace("broken_read", "other"));
    let functions: Vec<_> = scan(&log).into_iter().map(|splat| splat.function.unwrap()).collect();
    assert_eq!(functions, ["broken_read", "other"]);
    for none in [
        "[    0.0] Kernel command line: panic=-1 oops=panic softlockup_panic=1",
        "ok: the log has no Kernel panic - not syncing",
        "systemd[1]: Reached target BUG: none",
        "INFO: task runner started",
    ] {
        assert_eq!(scan(none), [], "{none}");
    }
}

#[test]
fn a_splat_that_never_ends_is_bounded() {
    let mut scanner = Scanner::default();
    let begin = "[ 1.0] BUG: unable to handle page fault for address: ffff888000000000";
    assert_eq!(scanner.push(begin.as_bytes()), None);
    let ended = (0..MOST).find_map(|_| scanner.push(b"[ 1.0]  one+0x1/0x2")).unwrap();
    assert!(ended.lines.len() <= KEPT);
}
