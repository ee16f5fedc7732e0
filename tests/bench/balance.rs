//! How well a cell's work is shared out over two real machines: the fixture's suite, against the time that it could not have
//! been less. And what a run costs that has nothing to do: one test that does nothing, in a machine that is ready.
//!
//! `cargo xtask bench balance`

#![expect(clippy::disallowed_methods, reason = "a benchmark runs kmt-run from outside")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use kmt_reporters::event::LogReader;
use kmt_reporters::model::Run;
use kmt_run::settings::Home;

use machine::{destroy, kmt_run, median, rounds, trivial_module};

mod machine;

/// Time reached, of the time at best.
const LIMIT: f64 = 1.25;
/// What a run that has nothing to do may take.
const NOTHING: Duration = Duration::from_secs(3);
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/agent");

/// A run in `module`: how long it took, and its model.
fn ours(module: &Path, more: &[&str]) -> (Duration, Run) {
    let begun = Instant::now();
    let mut command = kmt_run(module);
    command.args(["run", "--vms", "debian_12-local-distro", "--stack", "bench"]).args(more);
    let output = command.output().unwrap();
    let taken = begun.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = fs::File::open(Home::find().unwrap().runs().join("latest/events.jsonl")).unwrap();
    let mut model = Run::new();
    LogReader::new(BufReader::new(log)).for_each(|envelope| model.fold(&envelope.unwrap()));
    (taken, model)
}

fn main() {
    let rounds = rounds(3);
    let temp = tempfile::tempdir().unwrap();
    let fixture = Path::new(FIXTURE);
    let two = ["--vms-per-cell", "2"];
    // It learns how long each test takes, and both machines are there.
    ours(fixture, &two);
    println!("{:>8} {:>8} {:>6}", "reached", "at best", "ratio");
    let ratios = (0..rounds).map(|_| {
        let balance = ours(fixture, &two).1.cells[0].balance().unwrap();
        let ratio = balance.reached_ms as f64 / balance.ideal_ms as f64;
        println!("{:>6}ms {:>6}ms {ratio:>6.2}", balance.reached_ms, balance.ideal_ms);
        ratio
    });
    let shared = median(ratios.collect());
    destroy(fixture);
    let module = trivial_module(temp.path());
    ours(&module, &[]);
    let nothing = median((0..rounds).map(|_| ours(&module, &[]).0.as_secs_f64()).collect());
    destroy(&module);
    println!("two machines: {shared:.2} of the best time, at most {LIMIT}");
    println!(
        "nothing to do, in a machine that is ready: {nothing:.2} s, at most {:.0}",
        NOTHING.as_secs_f64()
    );
    assert!(shared <= LIMIT && nothing <= NOTHING.as_secs_f64());
}
