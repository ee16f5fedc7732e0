//! What holds after every call of `kmt-run`, whatever the scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kmt_reporters::event::TestResult;
use kmt_reporters::junit::{self, Flavour};
use kmt_reporters::model::Run;
use kmt_reporters::{Masks, RunDirectory};
use kmt_run::external::cloud::InstanceState;
use kmt_run::external::scripted::{Power, Stage};
use serde_json::Value;

use crate::scene::Scene;

/// Machines written down in all stacks, as names of domains, with their records; folders of machines beside.
fn recorded(scene: &Scene) -> (Vec<(String, Value)>, BTreeSet<String>) {
    let (mut machines, mut folders) = (Vec::new(), BTreeSet::new());
    for stack in folders_in(&scene.home().join("stacks")) {
        let Ok(text) = fs::read(stack.join("stack.json")) else { continue };
        let record: Value = serde_json::from_slice(&text).unwrap();
        let short = record["uuid"].as_str().unwrap()[..8].to_owned();
        for (id, machine) in record["machines"].as_object().unwrap() {
            machines.push((format!("kmt-{short}-{id}"), machine.clone()));
        }
        let below = folders_in(&stack.join("machines"));
        folders.extend(
            below.iter().map(|f| format!("kmt-{short}-{}", f.file_name().unwrap().to_string_lossy())),
        );
    }
    (machines, folders)
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    listed.filter(|path| path.is_dir()).collect()
}

fn stage_networks(scene: &Scene) -> BTreeSet<String> {
    scene.stage().networks().into_iter().map(|network| network.subnet.to_string()).collect()
}

/// Subnets that are written down in all stacks.
fn subnets(scene: &Scene) -> BTreeSet<String> {
    let texts = folders_in(&scene.home().join("stacks"))
        .into_iter()
        .filter_map(|f| fs::read(f.join("stack.json")).ok());
    let records = texts.map(|text| serde_json::from_slice::<Value>(&text).unwrap());
    records.filter_map(|record| record["subnet"].as_str().map(str::to_owned)).collect()
}

/// A line that folds GitLab's log.
fn is_section(line: &str) -> bool {
    line.starts_with("\x1b[0Ksection_")
}

/// Nothing from a guest moves the cursor.
pub(crate) fn tame(said: &str) {
    let mut lines = said.lines().filter(|line| !is_section(line));
    let wild = lines.find(|line| line.chars().any(char::is_control));
    assert!(wild.is_none(), "a control character is shown as it is: {wild:?}");
}

/// All domains but those of guests that are to become templates, which are known by their folders.
fn domains_of_machines(scene: &Scene) -> BTreeSet<String> {
    let made: BTreeSet<String> = folders_in(&scene.home().join("templates"))
        .into_iter()
        .filter_map(|folder| Some(folder.file_name()?.to_str()?.strip_suffix(".making")?.to_owned()))
        .map(|key| format!("kmt-template-{key}"))
        .collect();
    let domains = scene.stage().domains().into_iter().map(|domain| domain.name);
    domains.filter(|name| !made.contains(name)).collect()
}

/// After a crash: whatever exists is written down.
pub(crate) fn journal(scene: &Scene) {
    let (machines, folders) = recorded(scene);
    let known: BTreeSet<String> = machines.into_iter().map(|(name, _)| name).collect();
    let domains = domains_of_machines(scene);
    assert!(domains.is_subset(&known), "domains {domains:?} that the journal does not know: {known:?}");
    let networks = stage_networks(scene);
    assert!(networks.is_subset(&subnets(scene)), "networks {networks:?} that the journal does not know");
    let [alive, rented] = rentals(scene);
    assert!(alive.is_subset(&rented), "rented hosts {alive:?} that the journal does not know: {rented:?}");
    assert!(folders.is_subset(&known), "folders {folders:?} that the journal does not know: {known:?}");
}

/// Rented hosts that live, and those that are written down, as stack and name.
fn rentals(scene: &Scene) -> [BTreeSet<String>; 2] {
    let alive = scene.stage().rented().into_iter().map(|host| host.instance);
    let alive = alive.filter(|instance| instance.state != InstanceState::Ended);
    let alive =
        alive.map(|one| format!("{} {}", one.tags["kmt-run:stack"], one.tags["kmt-run:host"])).collect();
    let mut known = BTreeSet::new();
    for stack in folders_in(&scene.home().join("stacks")) {
        let Ok(text) = fs::read(stack.join("stack.json")) else { continue };
        let record: Value = serde_json::from_slice(&text).unwrap();
        let names = record["rentals"].as_object().into_iter().flat_map(|all| all.keys());
        known.extend(names.map(|name| format!("{} {name}", record["uuid"].as_str().unwrap())));
    }
    [alive, known]
}

/// After an orderly end: what is written down is there, ready and complete, and nothing else is.
pub(crate) fn order(scene: &Scene) {
    let stage = scene.stage();
    careful(&stage);
    let (machines, folders) = recorded(scene);
    for (name, machine) in &machines {
        assert_eq!(machine["progress"], "ready", "{name}");
        assert!(["run", "configured"].contains(&machine["owner"].as_str().unwrap()), "{name}");
        let power = stage.domain(name).expect("a machine has its domain").power;
        match machine["rest"].as_str() {
            None => assert_eq!(power, Power::On, "{name}"),
            // Killed between the word and the deed, it still runs.
            Some("saved") => assert!([Power::Saved, Power::On].contains(&power), "{name}: {power:?}"),
            Some(_) => assert!([Power::Off, Power::On].contains(&power), "{name}: {power:?}"),
        }
        for file in stage.domain(name).expect("a machine has its domain").files {
            assert!(file.is_file(), "{} is gone under a running machine", file.display());
        }
    }
    let known: BTreeSet<String> = machines.into_iter().map(|(name, _)| name).collect();
    let [alive, rented] = rentals(scene);
    assert_eq!(alive, rented, "rented hosts and records");
    assert_eq!(domains_of_machines(scene), known, "domains and records");
    assert_eq!(folders, known, "folders and records");
    // What a killed process had begun in a guest comes to its end.
    let until = Instant::now() + Duration::from_secs(5);
    while stage.busy() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!stage.busy(), "a process of a guest is left");
    leases(scene);
    for folder in ["home/stacks", "home/runs", "home/images", "stage/guests"] {
        litter(&scene.temp.path().join(folder));
    }
}

fn careful(stage: &Stage) {
    let violations = stage.violations();
    assert!(violations.is_empty(), "careless: {violations:#?}");
}

/// Nobody holds a machine.
fn leases(scene: &Scene) {
    for stack in folders_in(&scene.home().join("stacks")) {
        for lease in fs::read_dir(stack.join("leases")).into_iter().flatten().flatten() {
            File::open(lease.path()).unwrap().try_lock().expect("a lease is held");
        }
    }
}

/// No temporary name is left anywhere.
fn litter(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let is = name.contains(".new")
            || name.contains(".latest-")
            || name.ends_with(".tmp")
            || name.ends_with('~');
        assert!(!is, "left over: {}", path.display());
        if path.is_dir() && !path.is_symlink() {
            litter(&path);
        }
    }
}

/// The reports of a run that ended are whole and agree, and no unfinished binary is left.
pub(crate) fn record(scene: &Scene, run: &Path, code: &str) {
    litter(&scene.home().join("cache"));
    let log = std::io::BufReader::new(File::open(run.join("events.jsonl")).unwrap());
    let model = Run::from_log(log).unwrap();
    assert!(model.ended.is_some(), "the log has no end");
    // A rerun that passed knows of others that still have not: its own record is of what it ran.
    let code = if code == "5" { "0" } else { code };
    assert_eq!(model.exit_code().to_string(), code, "the log gives another exit code");
    let summary: Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["exit_code"].to_string(), code, "the summary says another exit code");
    let junit = fs::read_to_string(run.join("junit.xml")).unwrap();
    assert!(junit.trim_end().ends_with("</testsuites>"), "junit.xml is cut");
    valid(&model, run);
    let cells = summary["cells"].as_array().unwrap().iter();
    let packages = cells.flat_map(|cell| cell["packages"].as_array().unwrap());
    for test in packages.flat_map(|package| package["tests"].as_array().unwrap()) {
        let name = test["test"].as_str().unwrap();
        assert!(name.is_empty() || junit.contains(&format!("name=\"{name}\"")), "`{name}` is not in JUnit");
    }
}

/// Every flavour of JUnit is valid by the common schema, and its own consumer loses nothing of it.
#[expect(clippy::disallowed_methods, reason = "xmllint is the judge")]
fn valid(run: &Run, folder: &Path) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/junit.xsd");
    let temp = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for flavour in Flavour::ALL {
        let first = files.len();
        let path = temp.path().join(format!("junit-{flavour}.xml"));
        let written =
            junit::write(run, flavour, &RunDirectory(folder.to_path_buf()), &Masks::default(), &path);
        for file in written.unwrap() {
            let verdict = junit::lint::lint(&fs::read(&file).unwrap(), "junit.xml", flavour);
            assert!(!verdict.loses(), "{}", junit::lint::told(&verdict, &file.display().to_string()));
            files.push(file);
        }
        read_back(run, &files[first..]);
    }
    let mut judge = Command::new("xmllint");
    let said =
        judge.args(["--noout", "--schema"]).arg(schema).args(&files).output().expect("xmllint is installed");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Counts what Python's `junitparser` reads of our tests by the element that says how each went.
const READ_BACK: &str = "
import collections, json, sys
from junitparser import JUnitXml
counts = collections.Counter()
for file in sys.argv[1:]:
    for suite in JUnitXml.fromfile(file):
        for case in suite:
            if not case.classname.endswith('kmt'):
                kinds = [type(it).__name__.lower() for it in case.result]
                counts[' '.join(kind for kind in kinds if kind in ('failure', 'error', 'skipped')) or 'none'] += 1
print(json.dumps(counts))
";

/// A reader that nobody here wrote sees each test once, with its verdict.
#[expect(clippy::disallowed_methods, reason = "junitparser is the reader")]
fn read_back(run: &Run, files: &[PathBuf]) {
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    for (_, _, test) in run.report().tests() {
        let element = match test.result {
            TestResult::Pass | TestResult::Flaky => "none",
            TestResult::Skip => "skipped",
            TestResult::Lost | TestResult::NotRun | TestResult::Missing => "error",
            _ => "failure",
        };
        *wanted.entry(element.to_owned()).or_default() += 1;
    }
    // Debian's Python, which sees Debian's `junitparser`.
    let said = Command::new("/usr/bin/python3").args(["-c", READ_BACK]).args(files).output().unwrap();
    assert!(said.status.success(), "python3-junitparser: {}", String::from_utf8_lossy(&said.stderr));
    let theirs: BTreeMap<String, u64> = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(theirs, wanted, "junitparser reads something else in {files:?}");
}

/// Every report made from the log and the output alone, elsewhere, is the one that the run left, byte for byte.
pub(crate) fn replay(scene: &Scene, run: &Path, args: &[&str], said: &str) {
    let temp = tempfile::tempdir().unwrap();
    let copy = temp.path().join(run.file_name().unwrap());
    fs::create_dir(&copy).unwrap();
    fs::copy(run.join("events.jsonl"), copy.join("events.jsonl")).unwrap();
    for folder in ["output", "machines"].into_iter().filter(|folder| run.join(folder).is_dir()) {
        copy_all(&run.join(folder), &copy.join(folder));
    }
    let folder = copy.to_str().unwrap();
    for (form, file) in [("junit", "junit.xml"), ("json", "summary.json"), ("html", "report.html")] {
        let again = scene.call(&["report", folder, "--to", form], &[]);
        assert_eq!(again.code, "0", "{}", again.text);
        assert!(again.text == fs::read_to_string(run.join(file)).unwrap(), "{file} is told otherwise again");
    }
    if !args.contains(&"json") {
        let verbose: &[&str] = if args.contains(&"--verbose") { &["--verbose"] } else { &[] };
        let again = scene.call(&[&["report", folder], verbose].concat(), &[]).text;
        let again = again.replace(folder, run.to_str().unwrap());
        let said = only_facts(said);
        assert!(said.ends_with(&again), "told otherwise again:\n{again}\nat first:\n{said}");
    }
}

/// What was said without what is no fact of the run: sections of a log, and answers to who asked what goes on.
fn only_facts(said: &str) -> String {
    let mut answer = false;
    let facts = said.split_inclusive('\n').filter(|line| {
        let begins = ["         NOW [", "     RUNNING ["].iter().any(|verb| line.starts_with(verb));
        answer = begins || answer && line.starts_with(&" ".repeat(26));
        !answer && !is_section(line)
    });
    facts.collect()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        match entry.path().is_dir() {
            true => copy_all(&entry.path(), &to.join(entry.file_name())),
            false => _ = fs::copy(entry.path(), to.join(entry.file_name())).unwrap(),
        }
    }
}

/// The JUnit file that was asked for is there and whole.
pub(crate) fn junit(scene: &Scene, args: &[&str]) {
    let asked = args.iter().position(|arg| *arg == "--junit").and_then(|at| args.get(at + 1));
    if let Some(path) = asked {
        let text = fs::read_to_string(scene.temp.path().join("repo").join(path)).unwrap();
        assert!(text.trim_end().ends_with("</testsuites>"), "{path} is cut");
    }
}

/// What came in by the environment is in no report.
pub(crate) fn secrets(run: &Path, said: &str, env: &[(&str, &str)]) {
    let settings = ["KMT_", "CI_NODE_", "GITLAB_CI"];
    let secret = |name: &str| !settings.iter().any(|start| name.starts_with(start));
    for (name, value) in env.iter().filter(|(name, _)| secret(name)) {
        assert!(!said.contains(value), "{name} shows on the terminal");
        for file in ["events.jsonl", "summary.json", "junit.xml", "report.html"] {
            assert!(!fs::read_to_string(run.join(file)).unwrap().contains(value), "{name} is in {file}");
        }
    }
}

/// No archive for help holds a private key, nor a value that tests were given.
pub(crate) fn flares(scene: &Scene, values: &BTreeSet<String>) {
    for entry in fs::read_dir(scene.temp.path().join("repo")).unwrap().flatten() {
        if entry.path().extension().is_none_or(|ending| ending != "gz") {
            continue;
        }
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(File::open(entry.path()).unwrap()).read_to_end(&mut text).unwrap();
        let holds = |word: &str| text.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(holds("versions.txt") && holds("doctor.json"), "{entry:?} is empty");
        assert!(!holds("PRIVATE "), "{entry:?} holds a private key");
        for value in values {
            assert!(!holds(value), "{entry:?} holds `{value}`");
        }
    }
}

/// After `stack destroy --all`: no domain, no guest, no stack, no process.
pub(crate) fn nothing_left(scene: &Scene) {
    let stage = scene.stage();
    careful(&stage);
    assert!(stage.domains().is_empty(), "{:?}", stage.domains());
    assert!(stage.networks().is_empty(), "{:?}", stage.networks());
    assert!(!stage.busy(), "a process of a guest is left");
    let [alive, _] = rentals(scene);
    assert!(alive.is_empty(), "rented hosts are left: {alive:?}");
    for folder in ["home/stacks", "stage/guests", "stage/domains"] {
        let left: Vec<_> =
            fs::read_dir(scene.temp.path().join(folder)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    litter(&scene.home().join("images"));
}
