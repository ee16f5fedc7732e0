//! What a run leaves and says: the terminal, JUnit, the summary; also when it must leave early.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kmt_reporters::event::{CellId, Envelope, Event, EventSink as _};
use kmt_reporters::junit::{self, Flavour};
use kmt_reporters::model::Run;
use kmt_reporters::terminal::{Ask, LiveBoard, Style, Tail, Terminal, Verbosity};
use kmt_reporters::{Masks, RunDirectory, html, json};
use tokio::sync::watch;

use super::in_job::{self, Folded};
use super::reproduce::{self, quoted};
use crate::cli::{self, Format};
use crate::error::{Color, Failure, Kind, Result};
use crate::record::{Record, Show};
use crate::settings::job::Job;

/// How long an orderly end may take after a signal before reports are written as things stand.
const PATIENCE: Duration = Duration::from_secs(3);

/// Shows facts on a terminal or as lines. Whoever looked may have gone: the record has them all.
struct Human(Terminal);

impl Show for Human {
    fn event(&mut self, envelope: &Envelope, run: &Run) {
        let _ = self.0.event(envelope, run);
    }

    fn finish(&mut self, run: &Run, hints: &[String]) {
        let _ = self.0.finish(run, hints);
    }

    fn now(&mut self, run: &Run, elapsed_ms: u64, ask: Ask, tail: Tail<'_>) {
        let _ = self.0.now(run, elapsed_ms, ask, tail);
    }

    fn say(&mut self, text: &str) {
        let _ = self.0.say(text);
    }
}

/// Prints events as they come.
struct Lines;

impl Show for Lines {
    fn event(&mut self, envelope: &Envelope, _run: &Run) {
        if let Ok(mut line) = serde_json::to_vec(envelope) {
            line.push(b'\n');
            let _ = std::io::stdout().lock().write_all(&line);
        }
    }

    fn finish(&mut self, _run: &Run, _hints: &[String]) {}
}

/// Whoever shows the facts of the run that is recorded in `folder`.
pub(super) fn show(args: &cli::Run, masks: &Masks, folder: &Path, job: Option<&Job>) -> Box<dyn Show> {
    super::rerun::note(folder, &args.selection);
    if args.format == Format::Json {
        return Box::new(Lines);
    }
    let verbosity = if args.verbose { Verbosity::Verbose } else { Verbosity::Normal };
    let terminal = terminal(verbosity, folder).with_masks(masks.clone());
    let style = style_of(std::io::stderr().is_terminal());
    let human = Box::new(Human(if watched(args, job) {
        terminal.with_board(LiveBoard::on_stderr(style))
    } else {
        terminal
    }));
    match job.filter(|job| job.sections) {
        Some(_) => Box::new(Folded::new(human)),
        None => human,
    }
}

/// Whether a person sees the board.
pub(super) fn watched(args: &cli::Run, job: Option<&Job>) -> bool {
    let human = args.format != Format::Json && std::env::var_os("CI").is_none() && job.is_none();
    human && std::io::stderr().is_terminal()
}

/// Lines for people on standard error, as facts come; files that they name lie in `folder`.
pub(super) fn lines(folder: &Path) -> Box<dyn Show> {
    Box::new(Human(terminal(Verbosity::Normal, folder)))
}

fn terminal(verbosity: Verbosity, folder: &Path) -> Terminal {
    let style = style_of(std::io::stderr().is_terminal());
    Terminal::new(Box::new(std::io::stderr()), style, verbosity)
        .with_output(Box::new(RunDirectory(folder.to_path_buf())))
}

/// What standard output can show; a file has no colour.
pub(super) fn style(stdout: bool) -> Style {
    style_of(stdout && std::io::stdout().is_terminal())
}

fn style_of(terminal: bool) -> Style {
    let unicode = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    Style {
        color: Color::of(terminal) == Color::Yes,
        width: columns(),
        unicode: unicode.is_none_or(|locale| locale.to_ascii_lowercase().contains("utf")),
    }
}

/// Width of the terminal, `COLUMNS`, or 100.
fn columns() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let seen = rustix::termios::tcgetwinsize(std::io::stderr()).ok().map(|size| usize::from(size.ws_col));
    asked.or(seen).filter(|width| *width >= 20).unwrap_or(100)
}

/// The reports of a run.
pub(super) struct Reports<'a> {
    /// The record.
    pub(super) record: &'a Record,
    /// JUnit files that were asked for.
    pub(super) junit: &'a [(Flavour, PathBuf)],
    /// What must not show.
    pub(super) masks: &'a Masks,
    /// The CI job that this is.
    pub(super) job: Option<&'a Job>,
}

impl Reports<'_> {
    /// Does the work; if it does not end soon after a cancellation, writes reports as things stand, and goes
    /// on waiting.
    pub(super) async fn at_the_latest<T>(
        &self,
        work: impl Future<Output = T>,
        mut cancelled: watch::Receiver<bool>,
    ) {
        tokio::pin!(work);
        let late = async {
            if cancelled.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            _ = &mut work => return,
            () = late => {}
        }
        if let Err(failure) = self.write() {
            self.record.emit(Event::Warning { subject: "reports".to_owned(), message: failure.message });
        }
        work.await;
    }

    /// Writes `junit.xml`, `summary.json` and `report.html` in the run directory, and JUnit wherever it was asked for.
    ///
    /// # Errors
    /// A file that cannot be written; the others are.
    fn write(&self) -> Result<()> {
        let folder = self.record.folder();
        let output = RunDirectory(folder.to_path_buf());
        let own = [(Flavour::Gitlab, folder.join("junit.xml"))];
        let mut failed = None;
        self.record.with_run(|run| {
            for (flavour, path) in own.iter().chain(self.junit) {
                if let Err(error) = junit::write(run, *flavour, &output, self.masks, path) {
                    failed = Some(error.to_string());
                }
            }
            if let Err(error) = json::write(run, self.masks, &folder.join("summary.json")) {
                failed = Some(error.to_string());
            }
            let sources = html::Sources { output: &output, masks: self.masks, spelling: &spelling };
            if let Err(error) = html::write(run, &sources, &folder.join("report.html")) {
                failed = Some(error.to_string());
            }
        });
        let left = self.job.map_or(Ok(()), |job| in_job::leave(job, folder));
        let failed = failed.or_else(|| left.err().map(|failure| failure.message));
        match failed.or_else(|| self.record.log_failure()) {
            Some(why) => Err(Failure::new(Kind::Internal, "a report is not complete")
                .caused_by(why)
                .hint(format!("what there is lies in {}", folder.display()))),
            None => Ok(()),
        }
    }

    /// Writes all reports and says the last words.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn close(&self) -> Result<()> {
        self.write()?;
        self.farewell();
        Ok(())
    }

    /// The last lines: failures again, the matrix, the summary, the next command.
    fn farewell(&self) {
        let hints = self.record.with_run(|run| hints(run, self.record.folder()));
        self.record.finish_show(&hints);
    }
}

/// How a cell is asked for on a command line.
pub(super) fn spelling(cell: &CellId) -> Option<String> {
    let mut cell = cell.clone();
    cell.location = kmt_reporters::event::Location::Local;
    crate::matrix::spec::spelling(&cell, kmt_reporters::event::Arch::host())
}

/// What may be done next with a run that is recorded in `folder`.
pub(super) fn hints(run: &Run, folder: &Path) -> Vec<String> {
    let mut hints = vec![format!("record: {}", folder.display())];
    if !run.kept.is_empty() {
        hints.push(format!(
            "machines stay for the next run; remove them: kmt-run -C {} stack destroy --stack {} --yes",
            quoted(&run.root),
            quoted(&run.stack)
        ));
    }
    hints.extend(reproduce::first(run));
    hints
}
