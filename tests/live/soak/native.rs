//! A repository without Go: its guests are prepared, its BPF object is relocated by the BTF of each kernel, and what
//! `kmt-run` says of its TAP is what its binaries say by hand.

use std::collections::BTreeMap;

use regex::Regex;

use crate::harness::{Home, Told, cell, copy, repository, step, text};

const PACKAGES: [&str; 2] = ["prepared", "relocated"];
/// Where the guests have it.
const LAYOUT: &str = "/opt/probe-tests";
/// The test that only a kernel with `mm_cid` passes.
const NEWER: &str = "relocated a field of newer kernels is found";
/// What the tests are told beside what `kmt.toml` says by itself.
const OTHER_WORD: &str = "PROBE_WORD=another";

type Verdicts = BTreeMap<String, String>;

#[test]
fn suites_in_c_get_the_results_they_have_by_hand() {
    let home = Home::new("native");
    let tree = home.folder.join("probe");
    copy(&repository().join("tests/fixtures/probe"), &tree);
    let tree = text(tree);
    let vms = "debian_12-local-distro,custom-6.12-local";

    step("clang and gcc build it, two kernels are prepared and run it");
    let args = ["-C", &tree, "run", "--vms", vms];
    let told = home.call(args).limit(300).end().expect(0).told();
    let cells = ["debian_12/6.1", "custom/6.12"].map(cell);
    for cell in &cells {
        prepared(&told, cell);
    }
    let [old, new] = cells.each_ref().map(|cell| told.all_results(cell));
    assert_eq!((old[NEWER].as_str(), new[NEWER].as_str()), ("skip", "pass"));
    let differ: Vec<_> = old.keys().filter(|name| old[*name] != new[*name]).collect();
    assert_eq!(differ, [NEWER], "what differs between the kernels");
    let [old, new] = cells.each_ref().map(|cell| shape(&told, cell));
    println!("           {}: {old}\n           {}: {new}", cells[0], cells[1]);
    assert_ne!(old, new, "the kernels have the same task_struct: nothing had to be relocated");

    step("by hand it is the same");
    for cell in &cells {
        assert_eq!(told.all_results(cell), by_hand(&home, cell, None), "in {cell}");
    }

    step("again with another word: one test fails, here and by hand; nothing is built or sent");
    let args = ["-C", &tree, "run", "--vms", vms, "--test-env", OTHER_WORD];
    let told = home.call(args).end().expect(100).told();
    for cell in &cells {
        assert_eq!(told.cell(cell)["ship_bytes"], 0);
        assert_eq!(told.all_results(cell)["prepared environment"], "fail");
        assert_eq!(told.all_results(cell), by_hand(&home, cell, Some(OTHER_WORD)), "in {cell}");
        let words = told.junit_words(cell, "prepared", "environment");
        assert!(words.contains("PROBE_WORD is `another`"), "{words}");
    }
    home.destroy();
}

/// Panics unless each step of the preparation stands in the record, with its time, and in JUnit.
fn prepared(told: &Told, cell: &str) {
    let wanted = [
        "program sh",
        "program mount",
        "package procps",
        "package no-such-package|mount",
        "module veth",
        "mount tmpfs at /mnt/probe",
        "sysctl net.core.somaxconn=1234",
        "/sys/kernel/rcu_expedited=1",
    ];
    let steps = told.cell(cell)["prepare_steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, wanted, "in {cell}");
    assert!(steps.iter().all(|step| step["duration_ms"].as_u64() < Some(20_000)), "{steps:?}");
    let suite = told.junit.iter().find(|suite| suite.name == cell).unwrap();
    assert!(suite.cases.iter().any(|case| case.name == "prepare" && case.outcome.is_none()), "no such case");
    for name in wanted {
        let time = &suite.properties[&format!("kmt.prepare.{name}")];
        assert!(time.ends_with(" ms"), "{name}: {time}");
    }
}

/// What the suite says of the kernel's task.
fn shape(told: &Told, cell: &str) -> String {
    let test = told.test(cell, "relocated", NEWER.split_once(' ').unwrap().1);
    let said = String::from_utf8(told.output(&test["output"])).unwrap();
    said.lines().find(|line| line.starts_with("# task_struct has ")).expect("its size").to_owned()
}

/// The same binaries in the same folders, called over plain SSH, their output read by an expression.
fn by_hand(home: &Home, cell: &str, env: Option<&str>) -> Verdicts {
    let result = Regex::new(r"(?m)^(ok|not ok) \d+ - (.+?)( # SKIP .*)?$").unwrap();
    let mut verdicts = Verdicts::new();
    for package in PACKAGES {
        let word = env.unwrap_or("PROBE_WORD='two words'");
        let arch = crate::harness::ARCH;
        let object = format!("PROBE_OBJECT={LAYOUT}/build/{arch}/probe.bpf.o");
        let script = format!("cd {LAYOUT}/{package} && exec env {object} {word} ./testsuite");
        let output = home.ssh(&cell.replace('/', "-")).arg(script).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        for found in result.captures_iter(&said) {
            let verdict = match (&found[1], found.get(3)) {
                (_, Some(_)) => "skip",
                ("ok", None) => "pass",
                _ => "fail",
            };
            verdicts.insert(format!("{package} {}", &found[2]), verdict.to_owned());
        }
        let failed = output.status.code() != Some(0);
        let own = verdicts.iter().any(|(name, verdict)| name.starts_with(package) && verdict == "fail");
        assert_eq!(failed, own, "{package} in {cell} ended with {}\n{said}", output.status);
    }
    verdicts
}
