//! Triage of a gigabyte of console on one core: bytes a second of the processor's time, which a busy machine does not
//! change, and that memory does not grow.
//!
//! `cargo xtask bench triage`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::fs;
use std::path::Path;

use kmt_reporters::triage::boot::{Classifier, Ended, Facts};

/// Bytes that are read.
const BYTES: usize = 1 << 30;
/// Bytes a second that an optimized build must reach.
const ENOUGH: f64 = 200e6;
/// Growth of memory that is none, KiB.
const GROWTH: u64 = 4096;
/// Bytes that come at once, as from a file.
const PIECE: usize = 1 << 16;

fn main() {
    let recorded = recorded();
    println!(
        "{:.1} MB of recorded consoles, read until {} MB were read",
        recorded.len() as f64 / 1e6,
        BYTES >> 20
    );
    let plain: Vec<u8> = (0..64_000)
        .flat_map(|n| {
            format!(
                "[{:>5}.{:06}] pci 0000:00:{:02x}.0: BAR 0: assigned [mem 0xfe000000]\n",
                n / 100,
                n,
                n % 32
            )
            .into_bytes()
        })
        .collect();
    for (name, text) in [("recorded", &recorded), ("one kind of line", &plain)] {
        let mut classifier = Classifier::new();
        classifier.push(&text[..text.len().min(PIECE)]);
        let (before, begun) = (memory(), processor());
        let mut read = 0;
        while read < BYTES {
            for piece in text.chunks(PIECE) {
                classifier.push(piece);
            }
            read += text.len();
        }
        let taken = processor() - begun;
        let finding = classifier.finding(&Facts { ended: Ended::Deadline, ..Facts::default() });
        let (speed, grown) = (read as f64 / taken, memory().saturating_sub(before));
        println!(
            "{name:<18} {:>7.1} MB/s, memory grew by {grown} KiB, {}",
            speed / 1e6,
            finding.map_or("none", |it| it.cause)
        );
        assert!(cfg!(debug_assertions) || speed >= ENOUGH, "less than {ENOUGH} bytes a second");
        assert!(grown < GROWTH, "memory grows with the console");
    }
}

/// Every console that was recorded, one behind another.
fn recorded() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/consoles");
    let causes =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let logs = causes.flat_map(|cause| fs::read_dir(cause).unwrap()).map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        logs.filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect();
    logs.sort();
    logs.iter().flat_map(|path| fs::read(path).unwrap()).collect()
}

/// Seconds that this process was on a processor.
fn processor() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // User and system time, in hundredths of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Resident memory of this process, KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
