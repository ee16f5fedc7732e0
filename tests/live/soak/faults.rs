//! What befalls a machine while its tests run, one thing after another, on real machines: every test has a result, what was
//! said before is kept, the exit code is the right one, the next run works, and nothing is left.
//!
//! `lost` and `full` have the rest: a panic, a killed QEMU, a host without room.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::harness::{Home, Namespace, Told, cell, fixture, qemu_of, step};

const PACKAGE: &str = "pkg/faults";
const MACHINE: &str = "debian_12-6.1-x86_64";

/// A machine in a network of the story's own.
struct Story {
    home: Home,
    inside: Namespace,
    /// What a run without a fault says of each test.
    clean: BTreeMap<String, String>,
}

impl Story {
    /// Runs the package with a fault, which `befalls` it while its slow test runs.
    fn run(&self, fault: &str, packages: &str, code: i32, befalls: Option<&dyn Fn(&Story)>) -> Told {
        let (fixture, fault) = (fixture(), format!("FIXTURE_FAULT={fault}"));
        let args = ["-C", &fixture, "run", "--vms", "debian_12-local-distro", "--packages", packages];
        let call = self.home.call(args.into_iter().chain(["--test-env", &fault])).limit(400);
        let mut running = call.inside(&self.inside).start();
        if let Some(befalls) = befalls {
            running.wait_for_event("start of TestSlow", |event| {
                event["event"] == "test-started" && event["test"] == "TestSlow"
            });
            befalls(self);
        }
        running.end().expect(code).told()
    }

    /// The same; exactly these tests are not as without it, and then a run without a fault works.
    fn fault(&self, fault: &str, befalls: Option<&dyn Fn(&Story)>, wanted: &[(&str, &str)]) -> Told {
        let code = if wanted.is_empty() { 0 } else { 100 };
        let told = self.run(fault, "./pkg/faults", code, befalls);
        let mut expected = self.clean.clone();
        expected.extend(wanted.iter().map(|(test, result)| ((*test).to_owned(), (*result).to_owned())));
        assert_eq!(told.results(&debian(), PACKAGE), expected, "{fault}");
        step("the next run works");
        assert_eq!(self.run("", "./pkg/faults", 0, None).results(&debian(), PACKAGE), self.clean);
        told
    }

    /// Has the guest do something.
    fn guest(&self, line: &str) {
        let fixture = fixture();
        let args = ["-C", &fixture, "stack", "exec", "--", "sh", "-c", line];
        self.home.call(args).inside(&self.inside).limit(120).end();
    }
}

fn debian() -> String {
    cell("debian_12/6.1")
}

/// Needs root: network, libvirtd and machine are the story's own.
#[test]
fn whatever_befalls_a_machine_every_test_has_its_result() {
    let mut story = Story { home: Home::new("befalls"), inside: Namespace::new(), clean: BTreeMap::new() };
    step("no fault");
    story.clean = story.run("", "./pkg/faults", 0, None).results(&debian(), PACKAGE);
    programs(&story);
    output(&story);
    goes_on(&story);
    is_lost(&story);
    guest_is_full(&story);
    let fixture = fixture();
    let destroy = ["-C", &fixture, "stack", "destroy", "--yes"];
    story.home.call(destroy).inside(&story.inside).end().expect(0);
    assert_eq!(story.inside.said("virsh -c qemu:///system list --all --name").trim(), "");
    story.home.nothing_left();
}

/// What ends a test binary, and what the kernel complains of while all goes on.
fn programs(story: &Story) {
    step("the kernel has no memory for the tests");
    let told = story.fault("oom", None, &[("TestOOM", "crashed")]);
    let words = told.junit_words(&debian(), PACKAGE, "TestOOM");
    assert!(words.contains("killed by signal 9") && words.contains("out of memory"), "{words}");
    step("a test binary is killed");
    story.fault("kill", None, &[("TestKilled", "crashed")]);
    step("the kernel complains, and goes on");
    let told = story.fault("splat", None, &[("TestSplat", "crashed")]);
    assert!(told.kind("splat-seen").iter().any(|event| event["test_running"] == "TestSplat"));
}

/// What tests print.
fn output(story: &Story) {
    step("a hundred megabytes, a line of ten, and bytes that are no text");
    let told = story.fault("ten-megabytes,hundred-megabytes,utf8", None, &[]);
    let whole = told.output(&told.kind("shard-finished")[0]["output"]);
    assert!(whole.len() > 110 << 20, "{} bytes", whole.len());
    let of_test = told.output(&told.test(&debian(), PACKAGE, "TestMegabyte")["output"]);
    assert!(of_test.len() < 4 << 20 && text(&of_test).contains("bytes left out here; the whole is in"));
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// What a run gets over.
fn goes_on(story: &Story) {
    step("the clock of the guest jumps an hour ahead, and back");
    let jump = |story: &Story| {
        story.guest("date -s '+1 hour'");
        sleep(Duration::from_secs(2));
        story.guest("date -s '-1 hour'");
    };
    let told = story.fault("slow", Some(&jump), &[]);
    let took = told.test(&debian(), PACKAGE, "TestSlow")["duration_ms"].as_u64().unwrap();
    assert!((9_000..60_000).contains(&took), "{took} ms");

    step("the network is cut for 20 s");
    let cut = |story: &Story| {
        story.inside.said("ip link set lo down");
        sleep(Duration::from_secs(20));
        story.inside.said("ip link set lo up");
    };
    let told = story.fault("slow", Some(&cut), &[]);
    assert_eq!(told.kind("machine-lost").len(), 0);

    step("libvirtd is started again");
    let again = |story: &Story| {
        story.inside.end_libvirtd(Signal::TERM);
        story.inside.start_libvirt();
    };
    let told = story.fault("slow", Some(&again), &[]);
    assert_eq!(told.kind("machine-lost").len(), 0);
}

/// What ends a machine that is not to blame: another takes its place, and the test is tried again.
fn is_lost(story: &Story) {
    let reboot = |story: &Story| story.guest("echo b >/proc/sysrq-trigger");
    let freeze = |story: &Story| {
        kill_process(qemu_of(&story.home.domain(MACHINE)), Signal::STOP).unwrap();
    };
    for (name, befalls) in [("the guest reboots", &reboot as &dyn Fn(&Story)), ("the machine hangs", &freeze)]
    {
        step(name);
        let told = story.fault("slow", Some(befalls), &[]);
        assert_eq!(told.kind("machine-lost").len(), 1, "{name}");
        assert_eq!(told.test(&debian(), PACKAGE, "TestSlow")["earlier"], json!(["lost"]), "{name}");
    }
}

/// What cannot be shipped.
fn guest_is_full(story: &Story) {
    step("the guest's disk is full");
    // What is left for root alone is written.
    story.guest(
        "fallocate -l $(df --output=avail -B1 /var | tail -1) /var/full; dd if=/dev/zero of=/var/more bs=1M 2>/dev/null; sync",
    );
    let told = story.run("", "./pkg/ebpf", 102, None);
    assert!(told.all_results(&debian()).values().all(|result| result == "not-run"));
    step("the next run works");
    story.run("", "./pkg/ebpf", 0, None);
}
