//! What a run that still writes its log is doing in a cell.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use kmt_reporters::event::{CellId, Event, LogReader};

/// A test that was started and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// Its package.
    pub package: String,
    /// Its name.
    pub test: String,
}

/// The test that was started last in the cell and has not ended, by the log in a run directory.
pub fn busy(run: &Path, cell: &CellId) -> Option<Busy> {
    let log = File::open(run.join("events.jsonl")).ok()?;
    let events = LogReader::new(BufReader::new(log)).map_while(Result::ok).map(|envelope| envelope.event);
    last_open(events, cell)
}

fn last_open(events: impl Iterator<Item = Event>, wanted: &CellId) -> Option<Busy> {
    let mut open: Vec<Busy> = Vec::new();
    for event in events {
        match event {
            Event::TestStarted { cell, package, test, .. } if cell == *wanted => {
                open.push(Busy { package, test })
            }
            Event::TestFinished { cell, package, test, .. } if cell == *wanted => {
                open.retain(|busy| busy.package != package || busy.test != test);
            }
            _ => {}
        }
    }
    open.pop()
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::*;

    #[test]
    fn the_last_test_that_has_not_ended_counts_in_its_own_cell() {
        let cell = CellId::local("debian_12", "6.1", Arch::X86_64);
        let started = |cell: &CellId, test: &str| Event::TestStarted {
            cell: cell.clone(),
            package: "pkg/a".to_owned(),
            test: test.to_owned(),
            attempt: 1,
        };
        let other = CellId::local("debian_13", "6.12", Arch::X86_64);
        let events = [started(&cell, "TestA"), started(&cell, "TestA/sub"), started(&other, "TestB")];
        let busy = last_open(events.into_iter(), &cell).unwrap();
        assert_eq!(busy.test, "TestA/sub");
        assert_eq!(last_open(std::iter::empty(), &cell), None);
    }
}
