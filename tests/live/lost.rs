//! Machines that die under a test: by a kernel panic, which is the tests' fault, and with their QEMU, which is not.

use std::fs;

use rustix::process::{Signal, kill_process};

use crate::harness::{Home, Told, cell, fixture, qemu_of, step, subtests_end_at_once};

const PACKAGE: &str = "pkg/faults";

fn args<'a>(fixture: &'a str, vms: &'a str, fault: &'a str) -> [&'a str; 9] {
    let packages = "./pkg/faults,./pkg/util/kernel";
    ["-C", fixture, "run", "--vms", vms, "--packages", packages, "--test-env", fault]
}

#[test]
fn a_panic_fails_its_test_and_a_killed_qemu_costs_another_attempt() {
    let home = Home::new("lost");
    let fixture = fixture();
    let debian = "debian_12-local-distro";

    step("the kernel panics while a test runs");
    let call = home.call(args(&fixture, debian, "FIXTURE_FAULT=panic")).limit(240);
    the_panic_is_told(&call.end().expect(100).told());
    assert_eq!(
        home.machines().len(),
        1,
        "the machine whose kernel is dead goes, the one that took its place stays"
    );

    step("the next run works, on that machine");
    let next = home.call(args(&fixture, debian, "FIXTURE_FAULT=")).limit(240).end().expect(0).told();
    assert_eq!(next.kind("machine-defined").len(), 0);

    step("QEMU of one of two cells is killed while a test runs");
    let both = "debian_12-local-distro,custom-6.12-local";
    let mut running = home.call(args(&fixture, both, "FIXTURE_FAULT=slow")).limit(300).start();
    let victim = cell("debian_12/6.1");
    running.wait_for_event("start of TestSlow", |event| {
        event["event"] == "test-started" && event["test"] == "TestSlow" && event["cell"] == victim
    });
    let machine = victim.replace('/', "-");
    kill_process(qemu_of(&home.domain(&machine)), Signal::KILL).unwrap();
    the_loss_is_told(&running.end().expect(0).told());
    home.destroy();
}

fn the_panic_is_told(told: &Told) {
    let cell = cell("debian_12/6.1");
    let results = told.results(&cell, PACKAGE);
    let of = |test: &str| results.get(test).map(String::as_str);
    assert_eq!(of("TestBefore"), Some("pass"));
    if subtests_end_at_once() {
        assert_eq!(of("TestKernelPanic/before"), Some("pass"));
    }
    assert_eq!(of("TestKernelPanic/panics"), Some("crashed"));
    assert_eq!(of("TestKernelPanic"), Some("crashed"));
    // What had not run yet goes on, on a machine that takes the dead one's place.
    assert_eq!((of("TestSlow"), of("TestAfter")), (Some("pass"), Some("pass")));
    let bad = results.iter().filter(|(test, result)| *test != "TestKernelPanic/before" && *result != "pass");
    assert_eq!(bad.count(), 2, "{results:?}");
    assert!(told.results(&cell, "pkg/util/kernel").values().all(|result| result == "pass"));
    assert_eq!(told.kind("machine-defined").len(), 2);
    let words = told.junit_words(&cell, PACKAGE, "TestKernelPanic/panics");
    assert!(words.contains("Kernel panic - not syncing"), "{words}");
    let console = told.folder.join(told.cell(&cell)["console"].as_str().unwrap());
    let console = String::from_utf8_lossy(&fs::read(console).unwrap()).into_owned();
    assert!(console.contains("Kernel panic - not syncing"), "the console ends: {console:.2000}");
}

fn the_loss_is_told(told: &Told) {
    let (lost, other) = (cell("debian_12/6.1"), cell("custom/6.12"));
    let results = told.results(&lost, PACKAGE);
    // The test that ran is tried again on another machine, for free, and both attempts are told.
    assert_eq!(told.kind("machine-lost").len(), 1);
    assert_eq!(told.test(&lost, PACKAGE, "TestSlow")["earlier"], serde_json::json!(["lost"]));
    assert!(results.values().all(|result| result == "pass"), "a loss is not the test's fault: {results:?}");
    assert!(told.results(&lost, "pkg/util/kernel").values().all(|result| result == "pass"));
    assert_eq!((told.kind("machine-reused").len(), told.kind("machine-defined").len()), (1, 2));
    assert!(told.all_results(&other).values().all(|result| result == "pass"), "the other cell is not green");
    assert_eq!(told.results(&other, PACKAGE)["TestSlow"], "pass");
}
