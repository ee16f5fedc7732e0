//! A CI server of a few jobs in memory, for tests of what is decided. It is strict: what does not exist is an error,
//! and a job that is at work or never began cannot be retried.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;

use super::{Bridge, Ci, Cost, Fetched, Id, Job, Piece, Pipeline, Status};
use crate::external::{Class, Error, Result};

/// One pipeline.
#[derive(Debug, Default)]
pub struct FakeCi {
    pipeline: Pipeline,
    jobs: Mutex<Vec<Job>>,
    pieces: BTreeMap<(Id, Piece), Vec<u8>>,
    calls: Mutex<Vec<String>>,
}

impl FakeCi {
    /// A pipeline with these jobs.
    pub fn new(pipeline: Pipeline, jobs: Vec<Job>) -> FakeCi {
        FakeCi { pipeline, jobs: Mutex::new(jobs), ..FakeCi::default() }
    }

    /// The same, where the job left this.
    #[must_use]
    pub fn left(mut self, job: Id, piece: Piece, bytes: &[u8]) -> FakeCi {
        self.pieces.insert((job, piece), bytes.to_vec());
        self
    }

    /// What was asked so far, in order.
    pub fn calls(&self) -> Vec<String> {
        locked(&self.calls).clone()
    }

    fn asked(&self, call: String) {
        locked(&self.calls).push(call);
    }

    fn nothing(operation: &'static str, subject: impl std::fmt::Display) -> Error {
        Error::new("fake CI", operation, subject.to_string(), Class::NotFound, "there is none")
    }

    /// Changes the job of that number, and gives it as it is then.
    fn change(&self, id: Id, operation: &'static str, change: impl FnOnce(&mut Job) -> bool) -> Result<Job> {
        let mut jobs = locked(&self.jobs);
        let job = jobs.iter_mut().find(|job| job.id == id).ok_or_else(|| Self::nothing(operation, id))?;
        if change(job) {
            return Ok(job.clone());
        }
        Err(Error::new(
            "fake CI",
            operation,
            id.to_string(),
            Class::Rejected,
            format!("it is {}", job.status),
        ))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[async_trait]
impl Ci for FakeCi {
    fn place(&self) -> String {
        "fake/project".to_owned()
    }

    async fn pipeline(&self, id: Id) -> Result<Pipeline> {
        self.asked(format!("pipeline {id}"));
        if id == self.pipeline.id { Ok(self.pipeline.clone()) } else { Err(Self::nothing("read", id)) }
    }

    async fn newest(&self, branch: &str) -> Result<Option<Id>> {
        self.asked(format!("newest {branch}"));
        Ok((branch == self.pipeline.branch).then_some(self.pipeline.id))
    }

    async fn jobs(&self, pipeline: Id) -> Result<Vec<Job>> {
        self.asked(format!("jobs {pipeline}"));
        if pipeline == self.pipeline.id {
            Ok(locked(&self.jobs).clone())
        } else {
            Err(Self::nothing("list", pipeline))
        }
    }

    async fn bridges(&self, pipeline: Id) -> Result<Vec<Bridge>> {
        self.asked(format!("bridges {pipeline}"));
        Ok(Vec::new())
    }

    async fn fetch(&self, job: Id, piece: &Piece, to: &Path, limit: u64) -> Result<Fetched> {
        self.asked(format!("fetch {job} {piece}"));
        let bytes = self.pieces.get(&(job, piece.clone())).ok_or_else(|| Self::nothing("download", piece))?;
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(bytes.len());
        std::fs::write(to, &bytes[..length])
            .map_err(|error| Error::io("file system", "write", to.display().to_string(), &error))?;
        Ok(Fetched { bytes: length as u64, cut: length < bytes.len() })
    }

    async fn retry(&self, id: Id) -> Result<Job> {
        self.asked(format!("retry {id}"));
        let old = self.change(id, "retry", |job| job.status.is_final())?;
        let mut jobs = locked(&self.jobs);
        let next = jobs.iter().map(|job| job.id).max().unwrap_or(0) + 1;
        let new = Job { id: next, status: Status::Pending, failure_reason: None, ..old };
        jobs.push(new.clone());
        Ok(new)
    }

    async fn cancel(&self, id: Id) -> Result<Job> {
        self.asked(format!("cancel {id}"));
        self.change(id, "cancel", |job| {
            let possible = !job.status.is_final();
            job.status = if possible { Status::Canceled } else { job.status.clone() };
            possible
        })
    }

    fn cost(&self) -> Cost {
        Cost { requests: locked(&self.calls).len() as u64, ..Cost::default() }
    }
}
