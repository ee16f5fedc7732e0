//! Jobs that are a `kmt-run`: what they recorded, from their artifacts.

use std::path::Path;

use kmt_reporters::NoOutput;
use kmt_reporters::explain::Explanation;

use super::decide::{self, Evidence};
use super::entries::{Entry, State};
use super::jobs::{Attempts, Jobs};
use super::pipeline::{ARCHIVE, LOG, Reader, entry, words};
use super::{junit, run};
use crate::error::Result;
use crate::settings::gitlab::Role;

impl Reader<'_> {
    /// What jobs that are a `kmt-run` recorded: the cells of those that failed become entries, with the run's own
    /// explanation; others are an entry each.
    pub(super) async fn runs(
        &self,
        jobs: &Jobs,
        entries: &mut Vec<Entry>,
        notices: &mut Vec<String>,
    ) -> Result<Vec<Explanation>> {
        let mut runs = Vec::new();
        for attempts in jobs.that(Role::Run) {
            if !attempts.failed() {
                entries.push(entry(attempts, None));
                continue;
            }
            let job = attempts.latest();
            let words = words(attempts);
            let got = self
                .store
                .first(job.id, &self.names.paths(&self.names.artifacts.events, &words), LOG)
                .await?;
            let mut own = Vec::new();
            match got.path().map(|path| run::read(path)) {
                Some(Ok(recorded)) => {
                    let told;
                    (own, told) = run::explained(&recorded, &NoOutput);
                    runs.push(told);
                }
                Some(Err(error)) => notices.push(format!("the event log of `{}` {error}", job.name)),
                None => {}
            }
            if own.iter().any(|entry| matches!(entry.state, State::Failed(_))) {
                let paths = self.names.paths(&self.names.artifacts.run_junit, &words);
                let got = self.store.first(job.id, &paths, ARCHIVE).await?;
                got.path().into_iter().for_each(|path| messages(&mut own, path));
            } else {
                // Its tests do not say why it failed: its log may.
                own.push(self.by_log(attempts).await?);
            }
            own.iter_mut().for_each(|entry| entry.url.clone_from(&job.web_url));
            entries.append(&mut own);
        }
        Ok(runs)
    }

    async fn by_log(&self, attempts: &Attempts) -> Result<Entry> {
        let job = attempts.latest();
        let log = self.log(job.id).await?;
        let told = decide::test_job(job, &Evidence { log, ..Evidence::default() });
        Ok(entry(attempts, Some(told)))
    }
}

/// Gives failed tests the line that tells why, as the JUnit of the run has it: an event log names output, and has none.
fn messages(own: &mut [Entry], path: &Path) {
    let cells = junit::by_cell(path);
    for entry in own {
        let found =
            cells.iter().find(|(cell, _)| cell.as_ref().is_some_and(|cell| cell.to_string() == entry.name));
        let (Some((_, of)), Some(results)) = (found, &mut entry.results) else { continue };
        for (name, outcome) in results.tests.iter_mut().filter(|(_, outcome)| outcome.message.is_empty()) {
            if let Some(told) = of.results.tests.get(name) {
                outcome.message.clone_from(&told.message);
            }
        }
    }
}
