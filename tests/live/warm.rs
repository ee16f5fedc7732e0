//! A machine goes on from the memory of another one, as somebody else.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use crate::harness::{Ended, Home, fixture, step, wait_for};

const STACK: &str = "warm";
const VM: &str = "debian_12-6.1-x86_64";
/// How far a guest's clock may be off, in seconds: what a command in an emulated guest takes on a busy host.
const OFF: u64 = 20;
/// How long an emulated guest may take to become a template, once it was begun.
const MAKING: Duration = Duration::from_secs(240);

fn stack(home: &Home, words: &str) -> Ended {
    let fixture = fixture();
    let args = ["-C", &fixture, "stack"].into_iter().chain(words.split(' ')).chain(["--stack", STACK]);
    home.call(args).env("KMT_WARM", "on").limit(240).end().expect(0)
}

/// What a guest says when it is asked by plain SSH.
fn asked(home: &Home, line: &str) -> String {
    let output = home.ssh(VM).arg(line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What must differ between two guests of one template, one a line.
const SELF: &str = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /proc/sys/kernel/random/uuid; \
                    od -An -tx1 -N16 /dev/urandom; cut -c1-36 /proc/sys/kernel/random/uuid";

fn is_right(home: &Home) {
    let asked_at = SystemTime::now();
    let said: u64 = asked(home, "date +%s").trim().parse().unwrap();
    let now = asked_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(said.abs_diff(now) <= OFF, "its clock says {said}, it is {now}");
    assert_eq!(asked(home, "hostname").trim(), VM.replace('_', "-"));
    let record = &home.stacks()[0].1["machines"][VM];
    assert_eq!(asked(home, "cat /etc/machine-id").trim(), record["uuid"].as_str().unwrap().replace('-', ""));
    assert_eq!(asked(home, "cat /sys/class/net/eth0/address").trim(), record["mac"].as_str().unwrap());
    assert_eq!(asked(home, "ls /usr/lib/kmt-warm 2>/dev/null || echo gone").trim(), "gone");
    assert!(!asked(home, "journalctl -q -n 1 --no-pager").is_empty(), "its journal cannot be read");
}

/// Nothing of a template is a key: the guest had none, and the host keeps none.
fn has_no_secret(home: &Home) {
    let templates = home.folder.join("templates");
    for folder in fs::read_dir(&templates).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for file in ["memory", "root.qcow2"] {
            let bytes = fs::read(folder.path().join(file)).unwrap();
            let key = b"BEGIN OPENSSH PRIVATE KEY-----\nb3Bl";
            let found = memchr::memmem::find(&bytes, key);
            assert_eq!(found, None, "a private key in {file}");
        }
    }
}

#[test]
fn machines_of_one_template_are_not_the_same() {
    let home = Home::new("warm");
    step("the first machine boots, and a guest is begun that becomes a template");
    stack(&home, "configure --init-stack --vms debian_12-local-distro --yes");
    let cold = stack(&home, "launch");
    assert!(cold.stderr.contains("  BOOT ["), "{}", cold.stderr);
    let templates = home.folder.join("templates");
    wait_for("a guest that waits", MAKING, || {
        let folders = fs::read_dir(&templates).ok()?.flatten();
        let waits = |console: String| console.contains("kmt-warm: waiting").then_some(());
        folders
            .map(|entry| entry.path().join("console.log"))
            .find_map(|file| waits(fs::read_to_string(file).ok()?))
    });

    step("made anew, it goes on from the template, and is itself");
    let mut selves: Vec<Vec<String>> = Vec::new();
    for _ in 0..2 {
        let warm = stack(&home, &format!("reset {VM}"));
        assert!(warm.stderr.contains("  WARM ["), "{}", warm.stderr);
        is_right(&home);
        selves.push(asked(&home, SELF).lines().map(str::to_owned).collect());
    }
    let (first, second) = (&selves[0], &selves[1]);
    assert_eq!(first[0], second[0], "a machine keeps its id");
    for (number, one) in first.iter().enumerate().skip(1) {
        assert_ne!(*one, second[number], "line {number}");
    }
    let all: BTreeSet<&String> = selves.iter().flatten().collect();
    assert_eq!(all.len(), first.len() * 2 - 1, "{selves:?}");

    step("no key was ever in it");
    has_no_secret(&home);

    step("a template whose memory is not whole is not used, and the machine boots");
    let folder =
        fs::read_dir(&templates).unwrap().flatten().map(|entry| entry.path()).find(|path| path.is_dir());
    fs::write(folder.unwrap().join("memory"), b"LibvirtQemudPart").unwrap();
    let broken = stack(&home, &format!("reset {VM}"));
    assert!(broken.stderr.contains("  COLD ") && broken.stderr.contains("  BOOT ["), "{}", broken.stderr);
    home.destroy();
}
