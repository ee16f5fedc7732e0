//! The run directory: the event log first, then output and consoles.
//!
//! Owns `runs/<id>/` and the order of facts. [`Record`] is the one sink of a run: each fact gets its number
//! and time, is appended to `events.jsonl`, folded into the model, and shown. Reports are written from the
//! model at the end, or whenever somebody must leave early.

pub mod export;
mod files;
pub mod history;
pub mod now;
pub mod recorded;

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chrono::Utc;
use kmt_reporters::Masks;
use kmt_reporters::event::{CellId, Envelope, Event, EventSink, LogWriter, SCHEMA};
use kmt_reporters::model::Run;
use kmt_reporters::terminal::{Ask, Tail};

use crate::error::{Failure, Result};
use crate::settings::Home;
pub use files::{PackageFiles, tail};

/// Whoever shows facts while they come.
pub trait Show: Send {
    /// Shows one fact; `run` has it already.
    fn event(&mut self, envelope: &Envelope, run: &Run);

    /// Says the last words of the run.
    fn finish(&mut self, run: &Run, hints: &[String]);

    /// Tells what goes on at this moment; who shows no words to people says nothing.
    fn now(&mut self, _run: &Run, _elapsed_ms: u64, _ask: Ask, _tail: Tail<'_>) {}

    /// Says something that is no fact of the run.
    fn say(&mut self, _text: &str) {}
}

/// Bytes from the end of a package's output in which its last words are looked for.
const TAIL: u64 = 4096;

/// The record of one run.
pub struct Record {
    folder: PathBuf,
    begun: Instant,
    masks: Masks,
    inner: Mutex<Inner>,
}

struct Inner {
    seq: u64,
    log: LogWriter<BufWriter<File>>,
    run: Run,
    show: Box<dyn Show>,
    failed: Option<String>,
}

impl Record {
    /// Makes a fresh run directory and its log; what `masks` hides reaches neither.
    ///
    /// # Errors
    /// The directory or the log cannot be made.
    pub fn create(home: &Home, masks: &Masks, show: impl FnOnce(&Path) -> Box<dyn Show>) -> Result<Record> {
        let (folder, _) = files::fresh_folder(&home.runs())?;
        let path = folder.join("events.jsonl");
        let file = File::create(&path).map_err(|error| Failure::file("create", &path, &error))?;
        files::point_latest(&home.runs(), &folder);
        let inner = Inner {
            seq: 0,
            log: LogWriter::new(BufWriter::new(file)),
            run: Run::new(),
            show: show(&folder),
            failed: None,
        };
        Ok(Record { folder, begun: Instant::now(), masks: masks.clone(), inner: Mutex::new(inner) })
    }

    /// The run directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its name: the run id.
    pub fn id(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the model as it is now.
    pub fn with_run<T>(&self, read: impl FnOnce(&Run) -> T) -> T {
        read(&self.inner().run)
    }

    /// Why the log is incomplete, if it is.
    pub fn log_failure(&self) -> Option<String> {
        self.inner().failed.clone()
    }

    /// Lets whoever shows facts say the last words.
    pub fn finish_show(&self, hints: &[String]) {
        let Inner { run, show, .. } = &mut *self.inner();
        show.finish(run, hints);
    }

    /// Has whoever shows facts tell what goes on.
    pub fn show_now(&self, ask: Ask) {
        let elapsed_ms = self.elapsed_ms();
        let Inner { run, show, .. } = &mut *self.inner();
        let tail = |cell: &CellId, package: &str, attempt: u32| {
            files::raw_tail(&self.folder, &cell.slug(), package, attempt, TAIL).unwrap_or_default()
        };
        show.now(run, elapsed_ms, ask, &tail);
    }

    /// Has whoever shows facts say something that is none.
    pub fn say(&self, text: &str) {
        self.inner().show.say(text);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Files for the output of one package in one cell.
    pub fn package_files(&self, cell: &CellId, package: &str, attempt: u32) -> PackageFiles {
        PackageFiles::below(&self.folder, &self.masks, &cell.slug(), package, attempt)
    }

    /// Folder for what one machine left: console and kernel log.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn machine_folder(&self, machine: &str) -> Result<PathBuf> {
        let folder = self.folder.join("machines").join(machine);
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file("create", &folder, &error))?;
        Ok(folder)
    }
}

/// The fact without secrets. Ids are ours, and stay as they are.
fn masked(event: Event, masks: &Masks) -> Event {
    const OURS: [&str; 5] = ["event", "cell", "machine", "package", "arch"];
    if masks.is_empty() {
        return event;
    }
    let value = serde_json::to_value(&event).map(|value| masks.mask_json(value, &OURS));
    value.and_then(serde_json::from_value).unwrap_or(event)
}

impl EventSink for Record {
    fn emit(&self, event: Event) {
        let event = masked(event, &self.masks);
        let mut inner = self.inner();
        let envelope = Envelope {
            schema: SCHEMA,
            seq: inner.seq,
            time: Utc::now(),
            elapsed_ms: self.elapsed_ms(),
            event,
        };
        inner.seq += 1;
        if let Err(error) = inner.log.append(&envelope)
            && inner.failed.is_none()
        {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            inner.failed = Some(why);
        }
        let Inner { run, show, .. } = &mut *inner;
        run.fold(&envelope);
        show.event(&envelope, run);
    }
}
