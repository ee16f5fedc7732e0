//! A stack's life on real machines: configured step by step, paused, resumed, told from its neighbour.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{Home, cell, fixture, qemu_of, step};

/// What a command in a machine of the stack says.
fn said(home: &Home, stack: &str, vm: &str, line: &str) -> String {
    let fixture = fixture();
    let args = ["-C", &fixture, "stack", "ssh", "--stack", stack, vm, "--", line];
    home.call(args).limit(60).end().expect(0).stdout.trim().to_owned()
}

fn stack(home: &Home, words: &str) {
    let fixture = fixture();
    let words: Vec<&str> = ["-C", &fixture, "stack"].into_iter().chain(words.split(' ')).collect();
    home.call(words).limit(600).end().expect(0);
}

const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";

#[test]
fn a_stack_grows_shrinks_and_what_stays_keeps_running() {
    let home = Home::new("stack");
    step("configured and launched: one machine");
    stack(&home, "configure --vms debian_12-local-distro --stack grow --init-stack --yes");
    stack(&home, "launch --stack grow");
    let boot = said(&home, "grow", "debian_12", BOOT);

    step("more are added: they are made, the first one keeps running");
    stack(&home, "configure --vms custom-6.12-local,debian_13-local-distro --stack grow --yes");
    stack(&home, "launch --stack grow");
    assert_eq!(home.machines().len(), 3);
    assert_eq!(said(&home, "grow", "debian_12", BOOT), boot, "it was booted again");
    assert!(said(&home, "grow", "custom-6.12-local", "uname -r").starts_with("6.12"));

    step("started afresh with one of them: the others go, it keeps running");
    stack(&home, "configure --new --vms debian_12-local-distro --stack grow --yes");
    stack(&home, "launch --stack grow");
    assert_eq!(home.machines().len(), 1);
    assert_eq!(said(&home, "grow", "debian_12", BOOT), boot, "it was booted again");

    step("a machine made anew is as its image is");
    said(&home, "grow", "debian_12", "touch /root/mark; sync");
    stack(&home, "reset debian_12 --stack grow");
    assert_ne!(said(&home, "grow", "debian_12", BOOT), boot);
    assert_eq!(said(&home, "grow", "debian_12", "ls /root"), "");

    step("remote machines can be configured, and not launched without a provider");
    let fixture = fixture();
    let remote = "x86-ubuntu20-distro,distro-bionic-x86,distro-arm64-ubuntu22";
    stack(&home, &format!("configure --vms {remote} --stack grow --yes"));
    home.call(["-C", &fixture, "stack", "launch", "--stack", "grow"]).end().refused(104, &["remote machine"]);
    home.destroy();
}

/// Memory that a process has, MiB.
fn resident(process: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_paused_machine_takes_no_memory_and_goes_on_where_it_was() {
    let home = Home::new("pause");
    stack(&home, "configure --vms debian_12-local-distro --memory 1024 --stack rest --init-stack --yes");
    stack(&home, "launch --stack rest");
    step("its memory is full of something, and a program runs");
    let fill = "head -c 400M /dev/urandom >/dev/shm/full; sha256sum </dev/shm/full; \
                nohup setsid sleep 100000 >/dev/null 2>&1 </dev/null & echo $!";
    let before = said(&home, "rest", "debian_12", fill);
    let (digest, program) = before.split_once('\n').unwrap();
    let machine = cell("debian_12/6.1").replace('/', "-");
    let domain = home.domain(&machine);
    let qemu = qemu_of(&domain).as_raw_nonzero().get();
    assert!(resident(qemu) > 400, "{} MiB", resident(qemu));

    step("paused: there is no QEMU any more");
    stack(&home, "pause --stack rest");
    assert!(!std::path::Path::new(&format!("/proc/{qemu}")).exists(), "QEMU still runs");
    std::thread::sleep(std::time::Duration::from_secs(5));

    step("resumed: it answers, the program runs, memory is as it was, the clock is right");
    stack(&home, "resume --stack rest");
    let after = said(&home, "rest", "debian_12", &format!("kill -0 {program} && sha256sum </dev/shm/full"));
    assert_eq!(after, digest);
    let theirs: u64 = said(&home, "rest", "debian_12", "date +%s").parse().unwrap();
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(ours.abs_diff(theirs) <= 3, "the clock of the guest is {theirs}, ours {ours}");

    step("powered off: its disk is kept, and it boots from it");
    said(&home, "rest", "debian_12", "echo kept >/root/mark");
    stack(&home, "pause --cold --stack rest");
    stack(&home, "resume --stack rest");
    assert_eq!(said(&home, "rest", "debian_12", "cat /root/mark"), "kept");
    home.destroy();
}

#[test]
fn a_stack_is_told_from_one_whose_name_contains_its_own() {
    let home = Home::new("names");
    for name in ["foo", "x-foo-bar"] {
        stack(&home, &format!("configure --vms debian_12-local-distro --stack {name} --init-stack --yes"));
        stack(&home, &format!("launch --stack {name}"));
    }
    let boot = said(&home, "x-foo-bar", "debian_12", BOOT);
    step("one is destroyed, the other does not notice");
    stack(&home, "destroy --stack foo --yes");
    assert_eq!(home.stacks().len(), 1);
    assert_eq!(said(&home, "x-foo-bar", "debian_12", BOOT), boot);
    home.destroy();
}
