//! What a command about a stack tells while it works: the same lines as a run, without a run.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use chrono::Utc;
use kmt_reporters::event::{Envelope, Event, EventSink, SCHEMA};
use kmt_reporters::model::Run;

use super::super::reports;
use crate::record::Show;

/// Shows facts as they come; keeps none.
pub(super) struct Told {
    begun: Instant,
    inner: Mutex<(u64, Run, Box<dyn Show>)>,
}

impl Told {
    /// Lines for people; files that facts name lie in `folder`.
    pub(super) fn new(folder: &Path) -> Told {
        Told { begun: Instant::now(), inner: Mutex::new((0, Run::new(), reports::lines(folder))) }
    }
}

impl EventSink for Told {
    fn emit(&self, event: Event) {
        let (seq, run, show) = &mut *self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let envelope = Envelope { schema: SCHEMA, seq: *seq, time: Utc::now(), elapsed_ms, event };
        *seq += 1;
        run.fold(&envelope);
        show.event(&envelope, run);
    }
}
