//! A suite that nobody here wrote, from before Go's modules: what `kmt-run` says of Debian's cilium/ebpf is what its
//! binaries say by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;

use crate::harness::{Home, Told, cell, step, text};

/// Where Debian's `golang-github-cilium-ebpf-dev` lies.
const GOPATH: &str = "/usr/share/gocode";
const SUITE: &str = "github.com/cilium/ebpf";
/// Its packages with tests, but for the one that calls compilers.
const PACKAGES: [&str; 11] = [
    ".",
    "asm",
    "btf",
    "features",
    "internal",
    "internal/epoll",
    "internal/sys",
    "link",
    "perf",
    "ringbuf",
    "rlimit",
];
/// Where the guests have it.
const LAYOUT: &str = "/opt/foreign";

/// What became of each test; a test without a word of its own has none.
type Verdicts = BTreeMap<String, Option<String>>;

#[test]
fn foreign_tests_get_the_results_they_have_by_hand() {
    let home = Home::new("foreign");
    let suite = home.folder.join("suite");
    configure(&suite);

    step("compile Debian's cilium/ebpf and run it by kmt-run on two kernels");
    let suite = text(suite);
    let args = ["-C", &suite, "run", "--vms", "debian_12-local-distro,custom-6.12-local"];
    let ended = home.call(args).limit(400).end();
    assert!(matches!(ended.code, Some(0 | 100)), "{:?}\n{}", ended.code, ended.stderr);
    let ended = ended.code.map(|code| ended.expect(code)).unwrap();
    let told = ended.told();
    let packages = told.cell(&cell("debian_12/6.1"))["packages"].as_array().unwrap().iter();
    let packages: Vec<_> = packages.map(|known| known["package"].as_str().unwrap().to_owned()).collect();
    assert_eq!(packages, PACKAGES, "the packages with tests");

    step("run them by hand in the same guests");
    let cells = ["debian_12/6.1", "custom/6.12"].map(cell);
    let stack = home.stack();
    let by_hand = std::thread::scope(|scope| {
        let home = &stack;
        cells.each_ref().map(|cell| scope.spawn(move || by_hand(home, cell))).map(|hand| hand.join().unwrap())
    });
    let mut good = 0;
    for (cell, by_hand) in cells.iter().zip(&by_hand) {
        let by_us = by_us(&told, cell);
        let count = |word: &str| by_hand.values().filter(|result| result.as_deref() == Some(word)).count();
        let (pass, fail, skip) = (count("pass"), count("fail"), count("skip"));
        println!("           {cell}: {} tests: {pass} pass, {fail} fail, {skip} skip", by_hand.len());
        let differ: Vec<_> = by_us
            .keys()
            .chain(by_hand.keys())
            .filter(|name| by_us.get(*name) != by_hand.get(*name))
            .map(|name| format!("{name}: {:?}, by hand {:?}", by_us.get(name), by_hand.get(name)))
            .collect();
        assert!(differ.is_empty(), "in {cell}:\n{}", differ.join("\n"));
        assert!(pass > 300 && skip > 0, "too few to tell");
        good += usize::from(fail == 0);
    }
    assert_eq!(ended.code, Some(if good == cells.len() { 0 } else { 100 }));
    home.destroy();
}

/// A `kmt.toml` that names the folder of the suite, in which nothing can be written.
fn configure(folder: &Path) {
    let config = format!(
        r#"[component.ebpf]
builder = "go"
folder = "{GOPATH}/src/{SUITE}"
exclude = ["./cmd/..."]
ldflags = "-w"
layout = "{LAYOUT}"
timeout = "3m"
build-env = {{ GO111MODULE = "off", GOFLAGS = "", GOPATH = "{GOPATH}" }}
"#
    );
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("kmt.toml"), config).unwrap();
}

fn by_us(told: &Told, cell: &str) -> Verdicts {
    let own = |result: String| matches!(result.as_str(), "pass" | "fail" | "skip").then_some(result);
    let all = PACKAGES.iter().flat_map(|package| {
        let results = told.results(cell, package).into_iter();
        results.map(move |(test, result)| (format!("{package} {test}"), result))
    });
    all.filter(|(name, result)| result != "missing" && !name.ends_with(' '))
        .map(|(name, result)| (name, own(result)))
        .collect()
}

/// The same binaries in the same folders, called over plain SSH, their output read by an expression.
fn by_hand(stack: &Path, cell: &str) -> Verdicts {
    let started = Regex::new(r"(?m)^=== RUN   (\S+)$").unwrap();
    let ended = Regex::new(r"--- (PASS|FAIL|SKIP): (\S+) \(\d").unwrap();
    let mut verdicts = Verdicts::new();
    for package in PACKAGES {
        let script = format!("cd {LAYOUT}/{package} && exec ./testsuite -test.v 2>&1");
        let output = Command::new("ssh")
            .arg("-F")
            .arg(stack.join("ssh_config"))
            .args(["-n", &cell.replace('/', "-"), &script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        for found in started.captures_iter(&said) {
            verdicts.insert(format!("{package} {}", &found[1]), None);
        }
        for found in ended.captures_iter(&said) {
            verdicts.insert(format!("{package} {}", &found[2]), Some(found[1].to_lowercase()));
        }
    }
    verdicts
}
