//! The door to a CI server: pipelines, their jobs, and what jobs left behind.
//!
//! Owns what is asked for ([`Ci`]) and the facts that come back, as they are: an enumeration of the server that
//! nobody here knows stays a word. Does not decide what a job means (`triage` does). To add a server: an adapter
//! beside [`gitlab`], chosen in `world`.

pub mod fake;
pub mod gitlab;

use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer};

use super::Result;

/// A number of the server: of a pipeline, of a job.
pub type Id = u64;

/// A CI server, seen from one project.
#[async_trait]
pub trait Ci: fmt::Debug + Send + Sync {
    /// Which project of which server, for people.
    fn place(&self) -> String;

    /// A pipeline.
    async fn pipeline(&self, id: Id) -> Result<Pipeline>;

    /// The newest pipeline of a branch.
    async fn newest(&self, branch: &str) -> Result<Option<Id>>;

    /// All jobs of a pipeline, with those that were retried.
    async fn jobs(&self, pipeline: Id) -> Result<Vec<Job>>;

    /// The jobs of a pipeline that stand for other pipelines.
    async fn bridges(&self, pipeline: Id) -> Result<Vec<Bridge>>;

    /// Writes a piece of what a job left to `to`, at most `limit` bytes of it.
    ///
    /// # Errors
    /// Class `NotFound` where the job has no such piece.
    async fn fetch(&self, job: Id, piece: &Piece, to: &Path, limit: u64) -> Result<Fetched>;

    /// Runs a job again; the new one.
    async fn retry(&self, job: Id) -> Result<Job>;

    /// Stops a job.
    async fn cancel(&self, job: Id) -> Result<Job>;

    /// What was asked of the server so far.
    fn cost(&self) -> Cost;
}

/// Something a job left behind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Piece {
    /// One file of its artifacts, by path.
    File(String),
    /// All artifacts, as a zip archive.
    Archive,
    /// Its log.
    Trace,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::File(path) => f.write_str(path),
            Piece::Archive => f.write_str("artifacts.zip"),
            Piece::Trace => f.write_str("trace"),
        }
    }
}

/// What came of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes that were written.
    pub bytes: u64,
    /// Whether there was more than the limit.
    pub cut: bool,
}

/// What was asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Requests, retried ones too.
    pub requests: u64,
    /// Of them those that were repetitions.
    pub repeated: u64,
    /// Bytes of bodies.
    pub bytes: u64,
}

/// State of a pipeline or job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// Not begun, and nothing keeps it.
    #[default]
    Created,
    /// Waits for a runner or a resource.
    Pending,
    /// At work.
    Running,
    /// Done, well.
    Success,
    /// Done, badly.
    Failed,
    /// Stopped by somebody.
    Canceled,
    /// Will not run.
    Skipped,
    /// Waits for somebody.
    Manual,
    /// One that is not known here.
    Other(String),
}

impl Status {
    /// By the server's word.
    pub fn named(word: &str) -> Status {
        match word {
            "created" | "preparing" | "waiting_for_resource" | "waiting_for_callback" | "scheduled" => {
                Status::Created
            }
            "pending" => Status::Pending,
            "running" | "canceling" => Status::Running,
            "success" => Status::Success,
            "failed" => Status::Failed,
            "canceled" => Status::Canceled,
            "skipped" => Status::Skipped,
            "manual" => Status::Manual,
            other => Status::Other(other.to_owned()),
        }
    }

    /// Whether nothing changes any more.
    pub fn is_final(&self) -> bool {
        matches!(self, Status::Success | Status::Failed | Status::Canceled | Status::Skipped)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Created => "created",
            Status::Pending => "pending",
            Status::Running => "running",
            Status::Success => "success",
            Status::Failed => "failed",
            Status::Canceled => "canceled",
            Status::Skipped => "skipped",
            Status::Manual => "manual",
            Status::Other(word) => word,
        })
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Status, D::Error> {
        Ok(Status::named(&Option::<String>::deserialize(deserializer)?.unwrap_or_default()))
    }
}

/// A pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Pipeline {
    /// Its number.
    pub id: Id,
    /// Its state.
    #[serde(default)]
    pub status: Status,
    /// Branch or tag.
    #[serde(default, rename = "ref", deserialize_with = "or_default")]
    pub branch: String,
    /// Commit.
    #[serde(default, deserialize_with = "or_default")]
    pub sha: String,
    /// Where people look at it.
    #[serde(default, deserialize_with = "or_default")]
    pub web_url: String,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Job {
    /// Its number; a retry gets a new one.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Its stage.
    #[serde(default, deserialize_with = "or_default")]
    pub stage: String,
    /// Its state.
    #[serde(default)]
    pub status: Status,
    /// The server's word for why it failed.
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// Whether its failure does not count.
    #[serde(default, deserialize_with = "or_default")]
    pub allow_failure: bool,
    /// Seconds it ran.
    #[serde(default)]
    pub duration: Option<f64>,
    /// Where people look at it.
    #[serde(default, deserialize_with = "or_default")]
    pub web_url: String,
    /// Its artifacts, by kind.
    #[serde(default, deserialize_with = "or_default")]
    pub artifacts: Vec<Artifact>,
}

impl Job {
    /// Whether it left artifacts, by the server's list.
    pub fn has_archive(&self) -> bool {
        self.artifacts.iter().any(|artifact| artifact.file_type == "archive")
    }
}

/// An artifact in the server's list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Artifact {
    /// `archive`, `trace`, `junit`, `metadata` …
    #[serde(default, deserialize_with = "or_default")]
    pub file_type: String,
    /// Bytes.
    #[serde(default, deserialize_with = "or_default")]
    pub size: u64,
}

/// A job that stands for another pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its state.
    #[serde(default)]
    pub status: Status,
    /// The server's word for why it failed.
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// The other pipeline, where it was made.
    #[serde(default)]
    pub downstream_pipeline: Option<Pipeline>,
}

/// What is `null` or of another kind counts as absent: a server of another version must not be fatal.
fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned + Default,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_or_absent_is_never_fatal() {
        let job: Job = serde_json::from_str(
            r#"{"id": 1, "name": "a", "status": "dreaming", "stage": null, "artifacts": null,
                "failure_reason": "moon_phase", "allow_failure": "no", "new": {}}"#,
        )
        .unwrap();
        assert_eq!(job.status, Status::Other("dreaming".to_owned()));
        assert_eq!(job.status.to_string(), "dreaming");
        assert!(!job.status.is_final() && !job.has_archive());
        assert_eq!(job.failure_reason.as_deref(), Some("moon_phase"));
    }
}
