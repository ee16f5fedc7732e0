//! How long things took before, from the logs of earlier runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kmt_reporters::event::{CellId, Event, LogReader, ShardEnd, TestResult};

use crate::plan::Durations;

/// Runs that are looked at, newest first.
const RUNS: usize = 12;
/// Longest log that is read, bytes: a run of millions of tests tells nothing that a smaller one does not.
const LOG: u64 = 64 << 20;

/// How long packages took in one run; nothing where an execution did not end by itself.
type Packages = HashMap<(CellId, String), Option<Duration>>;

/// The durations in the newest runs below `runs`. What cannot be read tells nothing.
pub fn durations(runs: &Path) -> Durations {
    let mut durations = Durations::default();
    // Oldest first, so that what came later wins.
    for log in newest(runs).into_iter().rev() {
        read(&log, &mut durations);
    }
    durations
}

/// Logs of the newest runs, newest first: a run's name begins with its time.
fn newest(runs: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut logs: Vec<PathBuf> = folders.map(|entry| entry.path().join("events.jsonl")).collect();
    logs.sort_unstable_by(|a, b| b.cmp(a));
    logs.truncate(RUNS);
    logs
}

fn read(log: &Path, durations: &mut Durations) {
    let Ok(file) = File::open(log) else { return };
    if file.metadata().map_or(u64::MAX, |data| data.len()) > LOG {
        return;
    }
    let mut narrow = false;
    let mut packages = Packages::new();
    for envelope in LogReader::new(BufReader::new(file)).map_while(Result::ok) {
        match envelope.event {
            // Parts of packages say nothing about the whole.
            Event::RunStarted { command, .. } => narrow = command.iter().any(|word| narrows(word)),
            // All executions of a package together are its work.
            Event::ShardFinished { cell, package, end, duration_ms, .. } => {
                let sum = packages.entry((cell, package)).or_insert(Some(Duration::ZERO));
                let took = Duration::from_millis(duration_ms);
                *sum = sum.filter(|_| end == ShardEnd::Exited).map(|sum| sum + took);
            }
            Event::TestFinished { cell, package, test, result, duration_ms, .. }
                if matches!(result, TestResult::Pass | TestResult::Fail) && !test.contains('/') =>
            {
                durations.note_test(cell, &package, test, Duration::from_millis(duration_ms));
            }
            // A machine that was reused is ready at once.
            Event::MachineReady { duration_ms, .. } if duration_ms > 1000 => {
                durations.note_boot(Duration::from_millis(duration_ms));
            }
            _ => {}
        }
    }
    for ((cell, package), took) in packages {
        if let Some(took) = took.filter(|_| !narrow) {
            durations.note(cell, package, took);
        }
    }
}

/// Whether an argument leaves tests of a package out, or repeats them.
fn narrows(word: &str) -> bool {
    word.starts_with("-E")
        || ["--run", "--skip", "--count", "--run-count", "--filter-expr", "--partition", "--stress"]
            .iter()
            .any(|flag| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::{Arch, CellId, Envelope, LogWriter, SCHEMA};

    use super::*;

    fn log(runs: &Path, name: &str, events: Vec<Event>) {
        std::fs::create_dir(runs.join(name)).unwrap();
        let mut log = LogWriter::new(File::create(runs.join(name).join("events.jsonl")).unwrap());
        for (seq, event) in (0..).zip(events) {
            let time = chrono::Utc::now();
            log.append(&Envelope { schema: SCHEMA, seq, time, elapsed_ms: 0, event }).unwrap();
        }
    }

    fn finished(cell: &CellId, end: ShardEnd, duration_ms: u64) -> Event {
        Event::ShardFinished {
            cell: cell.clone(),
            package: "pkg/a".to_owned(),
            attempt: 1,
            end,
            status: Some(0),
            duration_ms,
            leaked: false,
            output: None,
        }
    }

    #[test]
    fn the_newest_duration_counts_and_a_broken_log_tells_nothing() {
        let runs = tempfile::tempdir().unwrap();
        let cell = CellId::local("debian_12", "6.1", Arch::X86_64);
        log(runs.path(), "20260102T000000Z-b", vec![finished(&cell, ShardEnd::Exited, 200)]);
        log(runs.path(), "20260101T000000Z-a", vec![finished(&cell, ShardEnd::Exited, 100)]);
        log(runs.path(), "20260103T000000Z-c", vec![finished(&cell, ShardEnd::TimedOut, 900)]);
        std::fs::create_dir(runs.path().join("20260104T000000Z-d")).unwrap();
        std::fs::write(runs.path().join("20260104T000000Z-d/events.jsonl"), b"{\"schema\":").unwrap();
        let durations = durations(runs.path());
        assert_eq!(durations.of(&cell, "pkg/a"), Some(Duration::from_millis(200)));
        assert_eq!(durations.of(&cell, "pkg/b"), None);
        assert_eq!(super::durations(Path::new("/nowhere")), Durations::default());
    }
}
