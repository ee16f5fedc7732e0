//! What stops a run by its own rules: too many failed tests, no time left.

use std::sync::atomic::{AtomicU32, Ordering};

use kmt_reporters::event::{Event, EventSink};
use tokio::sync::watch;

/// Stops a run once.
#[derive(Debug)]
pub struct Brake {
    most: Option<u32>,
    failed: AtomicU32,
    halted: watch::Sender<Halt>,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// It goes on.
    No,
    /// It has seen enough: what runs is ended and has no result.
    Enough,
    /// Its time is over: what runs has timed out.
    OutOfTime,
}

impl Brake {
    /// Stops after `most` failed tests.
    pub fn new(most: Option<u32>) -> Brake {
        Brake { most, failed: AtomicU32::new(0), halted: watch::Sender::new(Halt::No) }
    }

    /// So many more tests have failed for good.
    pub fn failed(&self, count: u32, sink: &dyn EventSink) {
        let before = self.failed.fetch_add(count, Ordering::Relaxed);
        if let Some(most) = self.most.filter(|most| before < *most && before + count >= *most) {
            let tests = if most == 1 { "a test has".to_owned() } else { format!("{most} tests have") };
            self.halt(Halt::Enough, &format!("{tests} failed"), sink);
        }
    }

    /// Stops it now.
    pub fn halt(&self, why: Halt, reason: &str, sink: &dyn EventSink) {
        let first = self.halted.send_if_modified(|now| {
            let first = *now == Halt::No;
            if first {
                *now = why;
            }
            first
        });
        if first {
            sink.emit(Event::RunHalted { reason: reason.to_owned() });
        }
    }

    /// Tells when it stops.
    pub fn halted(&self) -> watch::Receiver<Halt> {
        self.halted.subscribe()
    }

    /// Turns true when it stops, or when the run is cancelled.
    pub fn or(&self, mut cancelled: watch::Receiver<bool>) -> watch::Receiver<bool> {
        let (stop, stopped) = watch::channel(false);
        let mut halted = self.halted();
        tokio::spawn(async move {
            tokio::select! {
                _ = cancelled.wait_for(|cancelled| *cancelled) => {}
                _ = halted.wait_for(|halt| *halt != Halt::No) => {}
                () = stop.closed() => {}
            }
            stop.send_replace(true);
        });
        stopped
    }

    /// Whether it has stopped.
    pub fn is_on(&self) -> bool {
        *self.halted.borrow() != Halt::No
    }
}
