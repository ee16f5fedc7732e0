//! Tests that fail, crash, exit, hang, leak and shout: each gets its right result, and none is missing.

use std::collections::BTreeMap;

use crate::harness::{Home, Told, cell, fixture, step, subtests_end_at_once};

const PACKAGE: &str = "pkg/faults";

fn debian_12() -> String {
    cell("debian_12/6.1")
}

/// Runs the package with a fault, on the machine that is there.
fn fault(home: &Home, fault: &str, code: i32) -> Told {
    step(fault);
    let told = run(home, &["--test-env", &format!("FIXTURE_FAULT={fault}")], code);
    assert_eq!(told.cell(&debian_12())["reused"], true, "before `{fault}` the machine was not healthy");
    told
}

fn run(home: &Home, more: &[&str], code: i32) -> Told {
    let fixture = fixture();
    let args = ["-C", &fixture, "run", "--vms", "debian_12-local-distro"];
    let packages = ["--packages", "./pkg/faults,./pkg/util/kernel"];
    home.call(args.into_iter().chain(packages).chain(more.iter().copied()))
        .limit(240)
        .end()
        .expect(code)
        .told()
}

/// Panics unless exactly these tests differ from a run without faults, which all pass. Each is there.
fn differs(told: &Told, wanted: &[(&str, &str)]) {
    let mut found = told.results(&debian_12(), PACKAGE);
    let known = subtests_end_at_once();
    found.retain(|test, result| {
        let untold = !known && (test.ends_with("/before") || test.ends_with("/ready"));
        result != "pass" && !untold
    });
    let wanted: BTreeMap<String, String> =
        wanted.iter().map(|(test, result)| ((*test).to_owned(), (*result).to_owned())).collect();
    assert_eq!(found, wanted);
    // The next package is not concerned.
    assert!(told.results(&debian_12(), "pkg/util/kernel").values().all(|result| result == "pass"));
}

/// `missing` for every top-level test from `first` on, in the order of the source.
fn missing_from<'t>(order: &'t [String], first: &str) -> Vec<(&'t str, &'static str)> {
    order.iter().skip_while(|test| *test != first).map(|test| (test.as_str(), "missing")).collect()
}

#[test]
fn every_fault_has_its_result_and_no_test_is_missing() {
    let home = Home::new("faults");
    step("no fault");
    let clean = run(&home, &[], 0);
    differs(&clean, &[]);
    let listed = clean.kind("tests-listed").into_iter().find(|event| event["package"] == PACKAGE).unwrap();
    let order: Vec<String> = serde_json::from_value(listed["tests"].clone()).unwrap();
    assert_eq!(
        (order.first().unwrap().as_str(), order.last().unwrap().as_str()),
        ("TestBefore", "TestAfter")
    );

    tests_fail(&home);
    binaries_end_early(&home);
    odd_tests_pass(&home);
    a_hang_is_ended(&home, &order);
    home.destroy();
}

fn tests_fail(home: &Home) {
    let told = fault(home, "fail,megabyte,utf8", 100);
    differs(&told, &[("TestFail", "fail"), ("TestUTF8", "fail")]);
    let words = told.junit_words(&debian_12(), PACKAGE, "TestFail");
    assert!(words.contains("1 + 1 = 2, want 3"), "{words}");

    let told = fault(home, "subfail,subskip", 100);
    let failed = [("TestTable", "fail"), ("TestTable/with_space", "fail"), ("TestSkip/skipped", "skip")];
    differs(&told, &failed);
}

/// The test that ends its binary is to blame for it; the others go on in another execution.
fn binaries_end_early(home: &Home) {
    for (name, wanted, word) in [
        ("exit", vec![("TestExit", "crashed"), ("TestExit/exits", "crashed")], "status 3"),
        ("exit0", vec![("TestExitZero", "fail"), ("TestExitZero/exits", "fail")], "os.Exit(0)"),
        ("exit0-raw", vec![("TestExitZero", "unfinished"), ("TestExitZero/exits", "unfinished")], "status 0"),
        ("goroutine-panic", vec![("TestGoroutinePanic", "crashed")], "panic: FIXTURE_FAULT=goroutine-panic"),
        ("segv", vec![("TestSegv", "crashed")], "signal 11"),
    ] {
        let told = fault(home, name, 100);
        differs(&told, &wanted);
        let (test, _) = wanted.last().unwrap();
        let words = told.junit_words(&debian_12(), PACKAGE, test);
        assert!(words.contains(word), "{name}: {words}");
        let executions = told.kind("shard-started");
        assert_eq!(executions.iter().filter(|event| event["package"] == PACKAGE).count(), 2, "{name}");
    }
}

/// [`differs`], where subtests of tests that never ran are unknown.
fn differs_after(told: &Told, wanted: &[(&str, &str)]) {
    differs(told, wanted);
    assert_eq!(told.results(&debian_12(), PACKAGE)["TestBefore"], "pass");
}

fn odd_tests_pass(home: &Home) {
    let told = fault(home, "megabyte,utf8,forge,unterminated", 0);
    differs(&told, &[]);
    assert!(!told.results(&debian_12(), PACKAGE).contains_key("TestInvented"));
    let output = told.output(&told.test(&debian_12(), PACKAGE, "TestMegabyte")["output"]);
    assert!(output.len() > 1 << 20, "{} bytes of the megabyte", output.len());

    let told = fault(home, "leak", 0);
    differs(&told, &[]);
    let ended = told.kind("shard-finished").into_iter().find(|event| event["package"] == PACKAGE).unwrap();
    assert_eq!(ended["leaked"], true, "{ended}");
}

fn a_hang_is_ended(home: &Home, order: &[String]) {
    step("hang");
    let told = run(home, &["--timeout", "20s", "--test-env", "FIXTURE_FAULT=hang"], 100);
    let mut wanted = vec![("TestHang", "timed-out"), ("TestHang/waits", "timed-out")];
    wanted.extend(missing_from(order, "TestLeak"));
    differs_after(&told, &wanted);
    let words = told.junit_words(&debian_12(), PACKAGE, "TestHang/waits");
    assert!(words.contains("goroutine "), "where it hung is not told: {words}");
    let machine = told.folder.join("machines").join(debian_12().replace('/', "-"));
    let kernel = String::from_utf8_lossy(&std::fs::read(machine.join("dmesg.log")).unwrap()).into_owned();
    let asked = kernel.contains("Show Blocked State") && kernel.contains("Mem-Info:");
    assert!(asked, "the kernel was not asked what waits: {kernel:.3000}");
}
