//! A pipeline, read so that what failed in it can run again: besides the evidence, sizes of machines and, where they are
//! meant, the tests of jobs that passed only when they were retried.

use std::collections::BTreeMap;

use kmt_reporters::explain::Mark;

use super::entries::{Entry, State};
use super::failed::Flaky;
use super::jobs::{Attempts, Jobs};
use super::junit::Results;
use super::kept;
use super::machines::StackOutput;
use super::pipeline::{Read, Reader, SMALL, place, words};
use super::sizes::{self, Asked};
use crate::error::Result;
use crate::external::ci::{Id, Job, Status};
use crate::settings::gitlab::Role;

/// What a setup job says of the sizes of its machines.
#[derive(Debug, Default)]
struct Sized {
    asked: Asked,
    output: Option<StackOutput>,
}

impl Reader<'_> {
    /// The pipeline of that number, with what a run of it needs.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn read_to_run(&self, id: Id, flaky: Flaky) -> Result<Read> {
        let mut notices = Vec::new();
        let (pipeline, jobs) = self.jobs(id, &mut notices).await?;
        let mut read = self.read_jobs(pipeline, &jobs, notices).await?;
        if flaky == Flaky::Again {
            self.recovered(&jobs, &mut read).await?;
        }
        let mut setups: BTreeMap<Id, Sized> = BTreeMap::new();
        for test in jobs.that(Role::Test) {
            let Some(entry) = read.entries.iter_mut().find(|entry| is_of(entry, test)) else { continue };
            let runs = matches!(entry.state, State::Failed(_)) || entry.results.is_some();
            let Some(setup) = jobs.setup_of(test).filter(|_| runs) else { continue };
            let id = setup.latest().id;
            if let std::collections::btree_map::Entry::Vacant(empty) = setups.entry(id) {
                empty.insert(self.sized(setup).await?);
            }
            let (platform, set) = (test.named.platform.as_str(), test.named.set.as_str());
            entry.size = setups.get(&id).and_then(|known| {
                known.asked.of(platform, set).or_else(|| {
                    let output = known.output.as_ref()?;
                    sizes::of_name(output, test.named.arch(), (platform, set))
                })
            });
        }
        Ok(read)
    }

    async fn sized(&self, setup: &Attempts) -> Result<Sized> {
        let (job, words) = (setup.latest(), words(setup));
        if !job.has_archive() && !job.artifacts.is_empty() {
            return Ok(Sized::default());
        }
        let paths = self.names.paths(&self.names.artifacts.vmconfig, &words);
        let got = self.store.first(job.id, &paths, SMALL).await?;
        if let Some(path) = got.path() {
            return Ok(Sized { asked: Asked::read(path), output: None });
        }
        let paths = self.names.paths(&self.names.artifacts.stack_output, &words);
        let got = self.store.first(job.id, &paths, SMALL).await?;
        let output = got.path().and_then(|path| StackOutput::read(path).ok());
        Ok(Sized { asked: Asked::default(), output })
    }

    /// Gives jobs that passed when they were retried the tests that failed before, as flaky.
    async fn recovered(&self, jobs: &Jobs, read: &mut Read) -> Result<()> {
        for test in jobs.that(Role::Test).filter(|test| test.recovered()) {
            let left =
                |job: &&Job| job.status == Status::Failed && (job.has_archive() || job.artifacts.is_empty());
            let Some(job) = test.earlier().iter().rev().find(left) else { continue };
            let Some(mut results) = self.results_of(job, test).await? else { continue };
            results.tests.values_mut().filter(|outcome| outcome.mark == Mark::Fail).for_each(|outcome| {
                outcome.mark = Mark::Flaky;
            });
            if let Some(entry) = read.entries.iter_mut().find(|entry| is_of(entry, test)) {
                entry.results = Some(results);
            }
        }
        Ok(())
    }

    async fn results_of(&self, job: &Job, test: &Attempts) -> Result<Option<Results>> {
        let paths = self.names.paths(&self.names.artifacts.junit, &words(test));
        let got = self.store.first(job.id, &paths, super::pipeline::ARCHIVE).await?;
        Ok(got.path().map(|path| kept::results(path)))
    }
}

fn is_of(entry: &Entry, test: &Attempts) -> bool {
    entry.name == test.latest().name && entry.url == test.latest().web_url && entry.place == place(test)
}
