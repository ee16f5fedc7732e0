//! Why a pipeline, a run or a folder of artifacts is red: the facts of the explanation, and its forms.
//!
//! Owns [`Explanation`] (its serialisation is the JSON form, schema 1), the grouping of equal causes, and the forms for
//! a terminal, a merge request and a browser. Owns no fetching and no deciding: `triage` of `kmt-run` fills it. To add a form:
//! a file with a function from an [`Explanation`] to text, in which everything from outside is made harmless.

mod group;
pub mod html;
pub mod markdown;
pub mod terminal;

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::event::Arch;

pub use group::{boundary, grouped};

/// The whole explanation.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Explanation {
    /// Number of the schema: 1.
    pub schema: u32,
    /// What is explained.
    pub subject: Subject,
    /// Jobs and tests, by component and test set; only those with something to tell.
    pub groups: Vec<Group>,
    /// Machines that did not do their work.
    pub machines: Vec<Machine>,
    /// What went wrong, the same thing once.
    pub causes: Vec<Cause>,
    /// Failed jobs that are nothing of ours, as the server tells them.
    pub others: Vec<Other>,
    /// What could not be read, and what was assumed.
    pub notices: Vec<String>,
    /// Commands that run what failed.
    pub reproduce: Vec<String>,
    /// What it cost to find out.
    pub cost: Option<Cost>,
}

/// What is explained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// `pipeline`, `run` or `artifacts`.
    pub kind: &'static str,
    /// Its number or folder.
    pub name: String,
    /// Its state, in its own words.
    pub status: String,
    /// Branch.
    pub branch: String,
    /// Commit.
    pub commit: String,
    /// Where people look at it.
    pub url: String,
    /// Jobs, or cells, that are ours.
    pub total: usize,
    /// Of them those that failed for good.
    pub failed: usize,
    /// Of them those that are not done.
    pub unfinished: usize,
}

/// A platform on an architecture.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Its id, such as `ubuntu_22.04`; a kernel's cell where that is not the distribution's.
    pub platform: String,
    /// Architecture.
    pub arch: Arch,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.platform, self.arch)
    }
}

/// Jobs and tests of a component and test set.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Group {
    /// Component.
    pub component: String,
    /// Test set; empty where there is none.
    pub set: String,
    /// Jobs of it.
    pub total: usize,
    /// Jobs that passed at first.
    pub passed: usize,
    /// Jobs that are not done.
    pub unfinished: usize,
    /// Jobs that passed when they were retried.
    pub recovered: Vec<Place>,
    /// Jobs that failed for good.
    pub jobs: Vec<FailedJob>,
    /// Tests that failed, or passed in a later attempt.
    pub tests: Vec<TestRow>,
    /// The smallest statement that separates where tests fail from where they pass.
    pub boundary: Option<String>,
}

impl Group {
    /// Places that its tests have marks of, each once, in order.
    pub fn places(&self) -> Vec<&Place> {
        let marks = self.tests.iter().flat_map(|row| &row.marks);
        let places: std::collections::BTreeSet<&Place> = marks.map(|(at, _)| at).collect();
        places.into_iter().collect()
    }
}

/// A job that failed for good; its earlier attempts are part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedJob {
    /// Where it ran.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// What kind of failure it is, by evidence.
    pub reason: Reason,
    /// One line on why.
    pub says: String,
    /// How often it ran.
    pub attempts: usize,
    /// Whether its failure counts for the pipeline.
    pub allowed: bool,
    /// Where people look at it.
    pub url: String,
}

/// What kind of failure it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Machines, network or server.
    Infra,
    /// The machine did not come up.
    Boot,
    /// What is tested could not be built or shipped.
    Build,
    /// Tests failed.
    Test,
    /// Its time was over.
    Timeout,
    /// The server's own word, as it is.
    Server(String),
    /// The evidence does not say.
    Unknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Infra => "infra",
            Reason::Boot => "boot",
            Reason::Build => "build",
            Reason::Test => "test",
            Reason::Timeout => "timeout",
            Reason::Server(word) => word,
            Reason::Unknown => "unknown",
        })
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What became of a test in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// It passed.
    Pass,
    /// It was skipped.
    Skip,
    /// It passed in a later attempt.
    Flaky,
    /// It failed.
    Fail,
}

/// A test, and what became of it where its jobs failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestRow {
    /// Package.
    pub package: String,
    /// Test; empty for the package itself.
    pub test: String,
    /// By place.
    pub marks: Vec<(Place, Mark)>,
}

impl TestRow {
    /// What became of it there.
    pub fn mark(&self, place: &Place) -> Option<Mark> {
        self.marks.iter().find(|(at, _)| at == place).map(|(_, mark)| *mark)
    }

    /// Whether it failed anywhere.
    pub fn failed(&self) -> bool {
        self.marks.iter().any(|(_, mark)| *mark == Mark::Fail)
    }
}

/// A machine that did not do its work: the boot table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Component that it was for.
    pub component: String,
    /// Test set that it was for.
    pub set: String,
    /// Where.
    pub place: Place,
    /// Whether its console shows a login prompt; `None` where there is no console.
    pub login: Option<bool>,
    /// Whether the unit that sets it up was done; `None` where nothing tells.
    pub unit: Option<bool>,
    /// Whether it got its address; `None` where nothing tells.
    pub address: Option<bool>,
    /// The furthest phase its console shows, in a word.
    pub phase: Option<String>,
    /// One line on why it failed.
    pub says: String,
}

/// Something that went wrong, in one or more places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What kind of failure it is.
    pub reason: Reason,
    /// A word for it, such as `no-root-device`.
    pub id: String,
    /// One line.
    pub says: String,
    /// What to do; may be empty.
    pub advice: String,
    /// The lines that show it.
    pub evidence: Vec<String>,
    /// Where: jobs or machines.
    pub places: Vec<String>,
    /// Equal for what is one cause.
    pub signature: String,
}

/// A failed job that is nothing of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// The server's word.
    pub reason: String,
    /// Whether its failure counts.
    pub allowed: bool,
}

/// What it cost to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Cost {
    /// Requests.
    pub requests: u64,
    /// Of them repetitions.
    pub repeated: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Files that were here already.
    pub cached: u64,
}
