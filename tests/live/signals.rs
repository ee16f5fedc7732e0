//! Signals and sudden death: reports are on disk in time, and what must not stay does not stay.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Home, Running, cell, fixture, step, text, wait_for};

/// When reports must be on disk after a signal.
const REPORTS: Duration = Duration::from_secs(5);

fn start<'h>(home: &'h Home, more: &[&str]) -> Running<'h> {
    let fixture = fixture();
    let args = ["-C", &fixture, "run", "--vms", "debian_12-local-distro", "--packages", "./pkg/faults"];
    let slow = ["--test-env", "FIXTURE_FAULT=slow"];
    home.call(args.into_iter().chain(slow).chain(more.iter().copied())).limit(240).start()
}

fn until_slow(running: &mut Running<'_>) {
    running.wait_for_event("start of TestSlow", |event| {
        event["event"] == "test-started" && event["test"] == "TestSlow"
    });
}

#[test]
fn sigterm_leaves_reports_within_five_seconds() {
    let home = Home::new("sigterm");
    let junit = home.folder.join("asked-for.xml");
    step("a run is told to end while a test runs");
    let mut running = start(&home, &["--junit", &text(&junit)]);
    until_slow(&mut running);
    let own = running.run_folder().unwrap().join("junit.xml");
    assert!(!own.exists() && !junit.exists(), "reports before the end");
    running.signal(Signal::TERM);
    let told = Instant::now();
    wait_for("JUnit on disk", REPORTS, || (own.exists() && junit.exists()).then_some(()));
    println!("           JUnit on disk after {:.2} s", told.elapsed().as_secs_f64());
    let ended = running.end().expect(130);
    assert_eq!(fs::read(&own).unwrap(), fs::read(&junit).unwrap());

    step("it says what was done and what was not");
    let told = ended.told();
    let results = told.results(&cell("debian_12/6.1"), "pkg/faults");
    assert_eq!(results["TestBefore"], "pass");
    assert_eq!(results["TestSlow"], "not-run");
    assert_eq!(results["TestAfter"], "not-run");
    assert_eq!(told.summary["cancelled_by"], "SIGTERM");
    home.destroy();
}

#[test]
fn a_run_that_throws_away_leaves_nothing_after_a_signal_or_its_death() {
    let home = Home::new("throw-away");
    step("Ctrl-C while a test runs");
    let mut running = start(&home, &["--throw-away"]);
    until_slow(&mut running);
    running.signal(Signal::INT);
    running.end().expect(130);
    home.nothing_left();

    step("kill -9 during a boot");
    let mut running = start(&home, &["--throw-away"]);
    running.wait_for_event("boot", |event| event["event"] == "machine-phase" && event["phase"] == "kernel");
    running.signal(Signal::KILL);
    assert_eq!(running.end().signal, Some(9));
    assert_eq!(home.machines().len(), 1, "there was nothing to find");

    step("the next command removes what it left");
    let list = home.call(["stack", "list"]).end().expect(0);
    assert!(list.stderr.contains("left by a process that is gone"), "{}", list.stderr);
    home.nothing_left();
}
