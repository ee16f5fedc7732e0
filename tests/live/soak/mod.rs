//! What takes too long for the gate.

mod arm64;
mod ci;
mod equipment;
mod faults;
mod images;
/// The GitLab of the tests that need no machine.
#[path = "../../gitlab/made.rs"]
mod made;
mod nat;
mod native;
#[path = "../../gitlab/server.rs"]
#[expect(dead_code, reason = "other tests use all of it")]
mod server;

use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Home, Namespace, copy, fixture, repository, step};

/// Moments at which a run is killed, from its first breath to the middle of its tests.
const KILLS: u32 = 20;
/// Between two of them.
const APART: Duration = Duration::from_millis(500);

#[test]
fn killed_at_any_moment_nothing_stays_after_the_next_command() {
    let home = Home::new("kill-loop");
    let fixture = fixture();
    let args = ["-C", &fixture, "run", "--vms", "debian_12-local-distro", "--throw-away"];
    let tests = ["--packages", "./pkg/faults", "--test-env", "FIXTURE_FAULT=slow"];
    for kill in 0..KILLS {
        let moment = APART * kill;
        step(&format!("kill -9 after {} ms", moment.as_millis()));
        let running = home.call(args.into_iter().chain(tests)).limit(240).start();
        sleep(moment);
        running.signal(Signal::KILL);
        assert_eq!(running.end().signal, Some(9));
        home.call(["stack", "list"]).limit(60).end().expect(0);
        home.nothing_left();
    }
    step("and a run works");
    home.call(args).limit(300).end().expect(0);
    home.nothing_left();
}

#[test]
fn every_kernel_that_debian_has_is_green() {
    let home = Home::new("all-of-debian");
    step("ten machines, one suite; images that are missing are built");
    let matrix = format!("{}/../../../matrices/debian.toml", fixture());
    let args = ["run", &matrix, "--arch", "x86_64", "--throw-away"];
    let told = home.call(args).limit(1800).end().expect(0).told();
    let ready = told.kind("machine-ready");
    assert_eq!(ready.len(), 10, "{ready:?}");
    home.nothing_left();
}

#[test]
fn a_machine_waits_for_a_build_of_two_minutes() {
    let home = Home::new("long-build");
    let tree = home.folder.join("probe");
    copy(&repository().join("tests/fixtures/probe"), &tree);
    let config = tree.join("kmt.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("mkdir -p build", "sleep 120; mkdir -p build", 1)).unwrap();
    step("its connection outlives the wait");
    let args = ["-C", tree.to_str().unwrap(), "run", "--vms", "debian_12-local-distro"];
    home.call(args).limit(300).end().expect(0);
    home.destroy();
}

/// Needs root: the libvirtd that is ended is one of the test's own.
#[test]
fn a_launch_goes_on_after_libvirtd_was_restarted_in_its_middle() {
    let home = Home::new("libvirtd");
    let inside = Namespace::new();
    let fixture = fixture();
    let call = |words: &str| {
        let words: Vec<&str> = ["-C", &fixture, "stack"].into_iter().chain(words.split(' ')).collect();
        home.call(words).limit(300).inside(&inside)
    };
    for (number, signal) in [Signal::TERM, Signal::KILL].into_iter().cycle().take(10).enumerate() {
        let moment = APART / 2 * number as u32;
        step(&format!("{signal:?} to libvirtd after {} ms", moment.as_millis()));
        call("configure --init-stack --stack daemon --vms debian_12-local-distro,custom-6.12-local --memory 512 --yes")
            .end()
            .expect(0);
        let running = call("launch --stack daemon").start();
        sleep(moment);
        inside.end_libvirtd(signal);
        inside.start_libvirt();
        let first = running.end();
        assert!([Some(0), Some(102)].contains(&first.code), "{first:?}");
        call("launch --stack daemon").end().expect(0);
        assert_eq!(home.machines().len(), 2);
        call("exec --stack daemon -- true").end().expect(0);
        call("destroy --stack daemon --yes").end().expect(0);
        assert_eq!(inside.said("virsh -c qemu:///system list --all --name").trim(), "");
        home.nothing_left();
    }
}

#[test]
fn a_launch_killed_at_any_moment_goes_on_where_it_was() {
    let home = Home::new("launch-kills");
    let fixture = fixture();
    let call = |words: &str| {
        let words: Vec<&str> = ["-C", &fixture, "stack"].into_iter().chain(words.split(' ')).collect();
        home.call(words).limit(300)
    };
    for kill in 0..10 {
        let moment = APART * 2 * kill;
        step(&format!("kill -9 after {} ms", moment.as_millis()));
        call("configure --init-stack --stack kills --vms debian_12-local-distro --yes").end().expect(0);
        let running = call("launch --stack kills").start();
        sleep(moment);
        running.signal(Signal::KILL);
        running.end();
        call("launch --stack kills").end().expect(0);
        assert_eq!(home.machines().len(), 1);
        step("and a pause, killed, goes on too");
        let running = call("pause --stack kills").start();
        sleep(APART / 5 * kill);
        running.signal(Signal::KILL);
        running.end();
        call("resume --stack kills").end().expect(0);
        call("pause --stack kills").end().expect(0);
        call("destroy --stack kills --yes").end().expect(0);
        home.nothing_left();
    }
}
