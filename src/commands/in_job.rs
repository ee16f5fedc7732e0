//! What a run does besides where it is a CI job: artifacts where `explain` looks, sections in the log, links beside the job.

use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kmt_reporters::event::Envelope;
use kmt_reporters::model::Run;
use kmt_reporters::terminal::{Ask, Tail};
use serde_json::json;

use crate::error::{Failure, Result};
use crate::record::Show;
use crate::settings::job::Job;

/// The section of what happened, which is folded: failures and the summary come after it.
const SECTION: &str = "kmt_run";
/// The event log, in a run directory and in artifacts.
const EVENTS: &str = "events.jsonl";

/// Makes the folder of artifacts and has the event log in it from the beginning, so that a job that is killed leaves it.
///
/// # Errors
/// The folder cannot be made.
pub(super) fn begin(job: &Job, record: &Path) -> Result<()> {
    std::fs::create_dir_all(&job.out).map_err(|error| Failure::file("create", &job.out, &error))?;
    let _ = std::fs::remove_file(job.out.join(EVENTS));
    // On another file system it is copied at the end.
    let _ = std::fs::hard_link(record.join(EVENTS), job.out.join(EVENTS));
    Ok(())
}

/// Brings all that a run left to the folder of artifacts, with links for the page of the job.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn leave(job: &Job, record: &Path) -> Result<()> {
    mirror(record, &job.out)?;
    let Some(url) = &job.url else { return Ok(()) };
    let link = |label: &str, file: &str| json!({"external_link": {"label": label, "url": format!("{url}/artifacts/file/kmt-out/{file}")}});
    let links = json!({"kmt-run": [link("Report of the run", "report.html"), link("Event log", EVENTS)]});
    let path = job.out.join("annotations.json");
    std::fs::write(&path, format!("{links:#}\n")).map_err(|error| Failure::file("write", &path, &error))
}

/// The same files in another folder: linked, or copied where that cannot be.
fn mirror(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|error| Failure::file("create", to, &error))?;
    let listed = std::fs::read_dir(from).map_err(|error| Failure::file("read", from, &error))?;
    for entry in listed.flatten() {
        let (path, there) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => mirror(&path, &there)?,
            Ok(kind) if kind.is_file() => {
                let _ = std::fs::remove_file(&there);
                if std::fs::hard_link(&path, &there).is_err() {
                    std::fs::copy(&path, &there).map_err(|error| Failure::file("write", &there, &error))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Folds what is shown of a run into a section of GitLab's log.
pub(super) struct Folded {
    inner: Box<dyn Show>,
    open: bool,
}

impl Folded {
    /// Around whoever shows.
    pub(super) fn new(inner: Box<dyn Show>) -> Folded {
        Folded { inner, open: false }
    }
}

impl Show for Folded {
    fn event(&mut self, envelope: &Envelope, run: &Run) {
        if !self.open {
            self.open = true;
            mark(&format!(
                "section_start:{}:{SECTION}[collapsed=true]\r\x1b[0Kmachines and tests, as they came",
                now()
            ));
        }
        self.inner.event(envelope, run);
    }

    fn finish(&mut self, run: &Run, hints: &[String]) {
        if self.open {
            mark(&format!("section_end:{}:{SECTION}\r\x1b[0K", now()));
        }
        self.inner.finish(run, hints);
    }

    fn now(&mut self, run: &Run, elapsed_ms: u64, ask: Ask, tail: Tail<'_>) {
        self.inner.now(run, elapsed_ms, ask, tail);
    }

    fn say(&mut self, text: &str) {
        self.inner.say(text);
    }
}

/// A line for the log; whoever reads may have gone.
fn mark(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "\x1b[0K{text}");
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_have_the_log_from_the_beginning_and_the_rest_at_the_end() {
        let temp = tempfile::tempdir().unwrap();
        let (record, out) = (temp.path().join("run"), temp.path().join("kmt-out"));
        std::fs::create_dir_all(record.join("machines/a")).unwrap();
        std::fs::write(record.join(EVENTS), "{}\n").unwrap();
        let job = Job { out: out.clone(), url: Some("https://git/job/1".to_owned()), ..Job::default() };
        begin(&job, &record).unwrap();
        assert_eq!(std::fs::read_to_string(out.join(EVENTS)).unwrap(), "{}\n");
        std::fs::write(record.join("machines/a/console.log"), "x").unwrap();
        leave(&job, &record).unwrap();
        leave(&job, &record).unwrap();
        assert!(out.join("machines/a/console.log").is_file());
        let links = std::fs::read_to_string(out.join("annotations.json")).unwrap();
        assert!(links.contains("https://git/job/1/artifacts/file/kmt-out/report.html"), "{links}");
    }
}
