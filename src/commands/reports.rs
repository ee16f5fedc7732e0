//! What a run leaves and says: the terminal, JUnit, the summary; also when it must leave early.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use kmt_reporters::event::{Envelope, Event, EventSink as _};
use kmt_reporters::junit::{self, Flavour};
use kmt_reporters::model::Run;
use kmt_reporters::terminal::{self, Terminal};
use kmt_reporters::{Masks, RunDirectory, json};
use tokio::sync::watch;

use super::source::Source;
use crate::cli::{self, Format};
use crate::error::{Color, Failure, Kind, Result};
use crate::record::{Record, Show};

/// How long an orderly end may take after a signal before reports are written as things stand.
const PATIENCE: Duration = Duration::from_secs(3);

/// Shows facts on a terminal or as lines.
struct Human(Terminal);

impl Show for Human {
    fn event(&mut self, envelope: &Envelope, run: &Run) {
        self.0.event(envelope, run);
    }

    fn finish(&mut self, run: &Run, source: &RunDirectory, masks: &Masks, hints: &[String]) {
        self.0.finish(run, source, masks, hints);
    }
}

/// Prints events as they come.
struct Lines;

impl Show for Lines {
    fn event(&mut self, envelope: &Envelope, _run: &Run) {
        if let Ok(mut line) = serde_json::to_vec(envelope) {
            line.push(b'\n');
            // Whoever read them may have gone; the record has them all.
            let _ = std::io::stdout().lock().write_all(&line);
        }
    }

    fn finish(&mut self, _run: &Run, _source: &RunDirectory, _masks: &Masks, _hints: &[String]) {}
}

/// Whoever shows the facts of this run.
pub(super) fn show(args: &cli::Run, masks: &Masks) -> Box<dyn Show> {
    if args.format == Format::Json {
        return Box::new(Lines);
    }
    let live = std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
    let color = Color::of(std::io::stderr().is_terminal()) == Color::Yes;
    Box::new(Human(terminal::on_stderr(color, live, args.verbose, masks.clone())))
}

/// The reports of a run.
pub(super) struct Reports<'a> {
    /// The record.
    pub(super) record: &'a Record,
    /// JUnit files that were asked for.
    pub(super) junit: &'a [(Flavour, PathBuf)],
    /// What must not show.
    pub(super) masks: &'a Masks,
}

impl Reports<'_> {
    /// Does the work; if it does not end soon after a cancellation, writes reports as things stand, and goes
    /// on waiting.
    pub(super) async fn at_the_latest<T>(&self, work: impl Future<Output = T>, mut cancelled: watch::Receiver<bool>) {
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

    /// Writes `junit.xml` and `summary.json` in the run directory, and JUnit wherever it was asked for.
    ///
    /// # Errors
    /// A file that cannot be written; the others are.
    pub(super) fn write(&self) -> Result<()> {
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
        });
        match failed.or_else(|| self.record.log_failure()) {
            Some(why) => Err(Failure::new(Kind::Internal, "a report is not complete")
                .caused_by(why)
                .hint(format!("what there is lies in {}", folder.display()))),
            None => Ok(()),
        }
    }

    /// The last lines: failures again, the matrix, the summary, the next command.
    pub(super) fn farewell(&self, source: &Source, args: &cli::Run) {
        let output = RunDirectory(self.record.folder().to_path_buf());
        let mut hints = vec![format!("record: {}", self.record.folder().display())];
        if !args.throw_away {
            let folder = source.settings.root.value.display();
            hints.push(format!(
                "machines stay for the next run; remove them: kmt-run -C {folder} stack destroy --stack {} --yes",
                source.stack
            ));
        }
        self.record.finish_show(&output, self.masks, &hints);
    }
}
