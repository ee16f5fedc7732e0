//! Cells on a host of one's own, reached by SSH: beside cells of this machine, and while the link to it is cut.

use std::time::Duration;

use crate::harness::{ARCH, Home, Lab, Told, cell, fixture, step};

const PACKAGE: &str = "pkg/faults";

fn remote() -> String {
    format!("{}@remote", cell("debian_12/6.1"))
}

/// What two guests of one host get went there once, and they got it from there.
fn uploaded_once(told: &Told) {
    let uploads = told.kind("artifacts-uploaded");
    assert_eq!(uploads.len(), 1, "{uploads:?}");
    let over_the_link = uploads[0]["bytes"].as_u64().unwrap();
    let shipped = told.kind("ship-finished");
    let there = shipped.iter().filter(|event| event["cell"].as_str().unwrap().ends_with("@remote"));
    let there: Vec<u64> = there.map(|event| event["bytes"].as_u64().unwrap()).collect();
    assert_eq!(there.len(), 2, "{shipped:?}");
    for got in there {
        assert!(got > 1000 && over_the_link < got + got / 10, "{over_the_link} bytes for {got} in each");
    }
    assert!(
        told.kind("warning")
            .iter()
            .all(|event| !event["message"].as_str().unwrap().contains("not from its host"))
    );
}

fn all_pass(told: &Told, cells: &[String], package: &str) {
    for cell in cells {
        let results = told.results(cell, package);
        assert!(
            !results.is_empty() && results.values().all(|result| result == "pass"),
            "{cell}: {results:?}"
        );
    }
}

#[test]
fn a_cell_here_and_one_on_another_host_and_the_link_between_is_cut() {
    if !rustix::process::geteuid().is_root() {
        return step("only root can make a host");
    }
    let (home, lab) = (Home::new("hosts"), Lab::new());
    let fixture = fixture();
    let vms = format!("debian_12-local-distro,debian_12-{ARCH}-distro,custom-6.12-{ARCH}");
    let cells = [cell("debian_12/6.1"), remote(), format!("{}@remote", cell("custom/6.12"))];
    let args = |fault: &'static str| {
        ["-C", &fixture, "run", "--vms", &vms, "--packages", "./pkg/faults", "--test-env", fault]
    };

    step("one cell runs here, two there, and what those get is brought there once");
    let first = lab.known_to(home.call(args("FIXTURE_FAULT="))).limit(400).end().expect(0).told();
    all_pass(&first, &cells, PACKAGE);
    uploaded_once(&first);
    assert_eq!(first.kind("machine-defined").len(), 3);
    assert_eq!(lab.domains().len(), 2, "{:?}", lab.domains());
    assert_eq!(lab.files("machines").len(), 2);
    let console = first.folder.join(first.cell(&remote())["console"].as_str().unwrap());
    let console = String::from_utf8_lossy(&std::fs::read(console).unwrap()).into_owned();
    assert!(console.contains("Linux version"), "the console came over: {console:.500}");

    step(
        "the second time all are up, and not one byte is shipped; the link is cut for 20 s in the middle of a test",
    );
    let mut running = lab.known_to(home.call(args("FIXTURE_FAULT=slow"))).limit(400).start();
    running.wait_for_event("start of TestSlow there", |event| {
        event["event"] == "test-started" && event["test"] == "TestSlow" && event["cell"] == remote()
    });
    lab.link("down");
    std::thread::sleep(Duration::from_secs(20));
    lab.link("up");
    let second = running.end().expect(0).told();
    all_pass(&second, &cells, PACKAGE);
    assert_eq!(second.kind("machine-defined").len(), 0);
    assert_eq!(second.kind("machine-lost").len() + second.kind("shard-requeued").len(), 0, "nothing is lost");
    let shipped: u64 =
        second.kind("ship-finished").iter().map(|event| event["bytes"].as_u64().unwrap()).sum();
    assert_eq!(shipped, 0);

    step("it is reached as machines here are");
    let there = format!("debian_12-{ARCH}-distro");
    let ssh = ["-C", &fixture, "stack", "ssh", &there, "--", "hostname"];
    let said = lab.known_to(home.call(ssh)).end().expect(0).stdout;
    assert!(said.contains("remote"), "{said}");
    let status = ["-C", &fixture, "stack", "status"];
    let said = lab.known_to(home.call(status)).end().expect(0).stdout;
    assert!(said.contains("3 machines, 3 ready"), "{said}");

    step("destroyed, nothing of it is left here or there");
    lab.known_to(home.call(["stack", "destroy", "--all", "--yes"])).end().expect(0);
    home.nothing_left();
    assert_eq!(lab.domains(), Vec::<String>::new());
    assert_eq!(lab.files("machines"), Vec::<std::path::PathBuf>::new());
    assert!(!lab.files("images").is_empty(), "images stay for the next run");
}
