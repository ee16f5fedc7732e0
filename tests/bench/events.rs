//! Two million events of tests, from the log to every report: events a second, and the most memory that it took, which may
//! be 200 MB.
//!
//! `cargo xtask bench events`; `cargo bench -p kmt-reporters --bench events -- TESTS [FOLDER]` takes that many tests a
//! cell, and leaves the log and the reports in a folder; a log that lies there is taken.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Instant;

use kmt_reporters::event::{
    CellId, Envelope, Event, LogReader, LogWriter, OutputRef, PlannedShard, RunEnd, SCHEMA, ShardEnd,
    TestResult,
};
use kmt_reporters::junit::{self, Flavour};
use kmt_reporters::model::{Outcome, Run};
use kmt_reporters::terminal::{Style, Terminal, Verbosity};
use kmt_reporters::{Masks, NoOutput, html, json};

/// Cells, packages of each, and tests of each cell.
const CELLS: u64 = 20;
const PACKAGES: u64 = 10;
const TESTS: u64 = 50_000;
/// Memory that it may take, KiB.
const ENOUGH: u64 = 200 * 1000 * 1000 / 1024;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let tests: u64 = args.next().map_or(TESTS, |arg| arg.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let folder = args.next().map_or(temporary.path().to_path_buf(), PathBuf::from);
    let log = folder.join("events.jsonl");
    if !log.is_file() {
        Log::write(&log, tests / PACKAGES);
    }
    println!("{} MB of log", fs::metadata(&log).unwrap().len() / 1_000_000);
    let run = terminal(&log, &folder.join("told.terminal"));
    let none = Masks::default();
    let sources = html::Sources { output: &NoOutput, masks: &none, spelling: &|_| None };
    timed("JUnit", || {
        _ = junit::write(&run, Flavour::Gitlab, &NoOutput, &none, &folder.join("told.xml")).unwrap()
    });
    timed("HTML", || html::write(&run, &sources, &folder.join("told.html")).unwrap());
    timed("JSON", || json::write(&run, &none, &folder.join("told.json")).unwrap());
    let (report, peak) = (run.report(), peak_kib());
    assert!(report.counts.tests(TestResult::Pass) > 0 && report.counts.bad() == 0);
    assert_eq!(report.outcome(), Outcome::Passed);
    println!("{} tests, at most {} MB of memory", report.counts.all_tests(), peak * 1024 / 1_000_000);
    assert!(peak <= ENOUGH, "it is to be at most 200 MB");
}

/// Folds the log, and tells it as it is folded.
fn terminal(log: &Path, to: &Path) -> Run {
    let mut run = Run::new();
    let out = BufWriter::new(File::create(to).unwrap());
    let mut terminal = Terminal::new(Box::new(out), Style::default(), Verbosity::Normal);
    let begun = Instant::now();
    for envelope in LogReader::new(BufReader::new(File::open(log).unwrap())) {
        let envelope = envelope.unwrap();
        run.fold(&envelope);
        terminal.event(&envelope, &run).unwrap();
    }
    terminal.finish(&run, &[]).unwrap();
    let took = begun.elapsed().as_secs_f64();
    let (events, peak) = (run.events, peak_kib() * 1024 / 1_000_000);
    println!("terminal: {took:.1} s, {:.0} events a second, {peak} MB", events as f64 / took);
    run
}

fn timed(what: &str, told: impl FnOnce()) {
    let begun = Instant::now();
    told();
    println!("{what}: {:.1} s, {} MB", begun.elapsed().as_secs_f64(), peak_kib() * 1024 / 1_000_000);
}

/// The most memory that this process ever held.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A log that is being made.
struct Log {
    out: LogWriter<BufWriter<File>>,
    seq: u64,
}

impl Log {
    /// A run of which every test passes, with so many tests a package.
    fn write(path: &Path, tests: u64) {
        let mut log = Log { out: LogWriter::new(BufWriter::new(File::create(path).unwrap())), seq: 0 };
        let cells: Vec<CellId> =
            (0..CELLS).map(|n| format!("debian_{n}/6.{n}/x86_64").parse().unwrap()).collect();
        let packages: Vec<String> = (0..PACKAGES).map(|n| format!("pkg/p{n}")).collect();
        for cell in &cells {
            let (distro, distro_version) = ("debian".to_owned(), "12".to_owned());
            log.add(Event::CellSelected { cell: cell.clone(), distro, distro_version });
        }
        let planned =
            |cell: &CellId, package: &String| PlannedShard { cell: cell.clone(), package: package.clone() };
        let shards = cells.iter().flat_map(|cell| packages.iter().map(move |package| planned(cell, package)));
        log.add(Event::PlanMade { shards: shards.collect() });
        for cell in &cells {
            packages.iter().for_each(|package| log.package(cell, package, tests));
        }
        log.add(Event::RunFinished { why: RunEnd::Completed });
    }

    fn package(&mut self, cell: &CellId, package: &str, tests: u64) {
        let (cell, package) = (cell.clone(), package.to_owned());
        let (machine, attempt) = (cell.slug(), 1);
        self.add(Event::ShardStarted { cell: cell.clone(), package: package.clone(), machine, attempt });
        for number in 0..tests {
            let (cell, package) = (cell.clone(), package.clone());
            let test = match number % 50 {
                0 => format!("TestNumber{}", number / 50),
                below => format!("TestNumber{}/case_{below}", number / 50),
            };
            let output = OutputRef {
                file: format!("output/{}/x.tests", cell.slug()),
                offset: number * 80,
                length: 80,
            };
            let (result, duration_ms, output) = (TestResult::Pass, number % 97, Some(output));
            let begun = (cell.clone(), package.clone(), test.clone());
            self.add(Event::TestStarted { cell: begun.0, package: begun.1, test: begun.2, attempt });
            self.add(Event::TestFinished {
                cell,
                package,
                test,
                attempt,
                result,
                duration_ms,
                output,
                message: None,
            });
        }
        let (end, status, duration_ms) = (ShardEnd::Exited, Some(0), tests);
        let (leaked, output) = (false, None);
        self.add(Event::ShardFinished { cell, package, attempt, end, status, duration_ms, leaked, output });
    }

    fn add(&mut self, event: Event) {
        let time = chrono::DateTime::UNIX_EPOCH;
        let envelope = Envelope { schema: SCHEMA, seq: self.seq, time, elapsed_ms: self.seq / 2, event };
        self.out.append(&envelope).unwrap();
        self.seq += 1;
    }
}
