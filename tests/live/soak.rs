//! What takes too long for the gate.

use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Home, fixture, step};

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
    let told = home.call(["run", &matrix, "--throw-away"]).limit(1800).end().expect(0).told();
    let ready = told.kind("machine-ready");
    assert_eq!(ready.len(), 10, "{ready:?}");
    home.nothing_left();
}
