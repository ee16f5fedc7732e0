//! A host that is rented for a run: EC2 is moto's, the host itself a namespace.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    ARCH, Call, Home, Lab, Moto, REGION, SECRET, cell, copy, fixture, step, text, wait_for,
};

/// The fixture in a place of its own, with `[ec2]`.
pub(crate) fn repository(home: &Home, lab: &Lab) -> String {
    let root = home.folder.join("repository");
    copy(Path::new(&fixture()), &root);
    let file = root.join("kmt.toml");
    let whole = format!(
        "{}\n[ec2]\nregion = \"{REGION}\"\nami = {{ {ARCH} = \"ami-12c6146b\" }}\nuser = \"root\"\nteam = \"ebpf\"\nttl = \"2h\"\n{}\
         tags = {{ cost-centre = \"7\" }}\n",
        fs::read_to_string(&file).unwrap(),
        lab.as_rented()
    );
    fs::write(file, whole).unwrap();
    text(root)
}

fn remote() -> String {
    format!("{}@remote", cell("debian_12/6.1"))
}

fn tag<'v>(instance: &'v Value, name: &str) -> &'v str {
    let tags = instance["Tags"].as_array().unwrap();
    let found = tags.iter().find(|tag| tag["Key"] == name);
    found.unwrap_or_else(|| panic!("no tag {name}: {tags:?}"))["Value"].as_str().unwrap()
}

/// What an instance must be whatever became of its run.
pub(crate) fn is_as_ordered(instance: &Value) {
    let kind = if ARCH == "arm64" { "m6gd.metal" } else { "m5d.metal" };
    assert_eq!(instance["InstanceType"], kind);
    assert!(instance["ClientToken"].as_str().unwrap().starts_with("kmt-"), "{instance}");
    assert_eq!(instance["Shutdown"], "terminate");
    let said = instance["UserData"].as_str().unwrap();
    assert!(said.contains("ttl='7200'") && said.contains("kmt-run-end.timer"), "{said}");
    for name in ["kmt-run:stack", "kmt-run:host", "kmt-run:expires", "kmt-run:owner", "branch"] {
        assert!(!tag(instance, name).is_empty());
    }
    assert_eq!((tag(instance, "team"), tag(instance, "cost-centre")), ("ebpf", "7"));
}

/// No file below the folder holds the secret.
fn no_secret_in(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            no_secret_in(&entry.path());
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!found, "{} holds the secret", entry.path().display());
        }
    }
}

#[test]
fn a_cell_here_and_one_on_a_rented_host_that_ends_with_the_run() {
    if !rustix::process::geteuid().is_root() {
        return step("only root can make a host");
    }
    let (home, lab, moto) = (Home::new("rented"), Lab::new(), Moto::new());
    let root = repository(&home, &lab);
    let vms = format!("debian_12-local-distro,debian_12-{ARCH}-distro");
    let run = ["-C", &root, "run", "--vms", &vms, "--packages", "./pkg/faults"];
    let call = |args: &[&str]| moto.known_to(lab.hired_by(home.call(args.iter().copied())));

    step("one cell runs here, one on the host; the price is told before, the age after");
    let ended = call(&run).limit(400).end().expect(0);
    let told = ended.told();
    for cell in [cell("debian_12/6.1"), remote()] {
        let results = told.results(&cell, "pkg/faults");
        assert!(
            !results.is_empty() && results.values().all(|result| result == "pass"),
            "{cell}: {results:?}"
        );
    }
    for words in ["Renting a host in eu-west-1", "USD an hour", "Rented", "Ended"] {
        assert!(ended.stderr.contains(words), "`{words}` is not said:\n{}", ended.stderr);
    }
    assert_eq!((told.kind("host-rented").len(), told.kind("host-ended").len()), (1, 1));

    step("it was what was ordered, and is no more");
    let all = moto.instances();
    assert_eq!((all.len(), moto.alive().len()), (1, 0));
    is_as_ordered(&all[0]);
    no_secret_in(&home.folder.join("runs"));
    no_secret_in(&home.folder.join("stacks"));

    step("killed while it waits for its host: the next command ends it");
    kill_once_written_down(&home, &call, &run);
    assert_eq!(moto.alive().len(), 1);
    is_as_ordered(&moto.alive()[0]);
    call(&["-C", &root, "stack", "gc"]).limit(60).end().expect(0);
    assert_eq!(moto.alive().len(), 0);

    step("destroyed, nothing is left");
    call(&["-C", &root, "stack", "destroy", "--all", "--yes"]).limit(120).end().expect(0);
    home.nothing_left();
    assert_eq!(moto.alive().len(), 0);
}

/// Kills a run as soon as it has written down what it rented.
fn kill_once_written_down<'h>(home: &'h Home, call: &dyn Fn(&[&str]) -> Call<'h>, run: &[&str]) {
    let running = call(run).limit(120).start();
    wait_for("rental", Duration::from_secs(60), || {
        let rented = |stack: &Value| !stack["rentals"]["ec2-".to_owned() + ARCH]["instance"].is_null();
        home.stacks().iter().any(|(_, stack)| rented(stack)).then_some(())
    });
    running.signal(Signal::KILL);
    running.gone();
}
