//! What kind of failure a job is, by evidence: never by the size of an archive. Pure.

use kmt_reporters::explain::{Cause, Reason};
use kmt_reporters::triage::Finding;

use super::junit::Results;
use super::logs::{self, Hit};
use crate::external::ci::Job;

/// What was found of a job that failed.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What became of its tests, where it left any.
    pub results: Option<Results>,
    /// Why JUnit that should be there could not be had.
    pub lost: Option<String>,
    /// The setup job it stands on failed: its explanation.
    pub setup: Option<Told>,
    /// An upload it stands on failed: its explanation.
    pub upload: Option<Told>,
    /// Whether the unit that sets its machine up is active.
    pub unit: Option<bool>,
    /// Whether its machine showed a login prompt.
    pub login: Option<bool>,
    /// What its machine's console says.
    pub finding: Option<Finding>,
    /// Its log, clean; empty where there is none.
    pub log: String,
}

/// The explanation of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What kind of failure.
    pub reason: Reason,
    /// A word for it.
    pub id: String,
    /// One line.
    pub says: String,
    /// What to do.
    pub advice: String,
    /// Lines that show it.
    pub evidence: Vec<String>,
    /// Equal where the cause is.
    pub signature: String,
}

impl Told {
    /// A failure of that kind.
    pub fn new(reason: Reason, id: &str, says: impl Into<String>) -> Told {
        let says = says.into();
        let signature = format!("{id} {}", kmt_reporters::triage::normalise(&says));
        Told { reason, id: id.to_owned(), signature, says, advice: String::new(), evidence: Vec::new() }
    }

    fn advice(mut self, advice: &str) -> Told {
        advice.clone_into(&mut self.advice);
        self
    }

    /// The same with the lines that show it.
    #[must_use]
    pub fn evidence(mut self, evidence: Vec<String>) -> Told {
        self.evidence = evidence;
        self
    }

    fn of_hit(hit: &Hit) -> Told {
        let message = hit.message;
        Told {
            // One cause whatever host or file the line names.
            signature: message.id.to_owned(),
            ..Told::new(message.reason.clone(), message.id, message.says)
                .advice(message.advice)
                .evidence(hit.evidence.clone())
        }
    }

    /// What a console says.
    pub fn of_finding(finding: &Finding) -> Told {
        Told {
            reason: Reason::Boot,
            id: finding.cause.to_owned(),
            says: finding.says.clone(),
            advice: finding.advice.to_owned(),
            evidence: finding.evidence.iter().map(|line| line.text.clone()).collect(),
            signature: finding.signature.clone(),
        }
    }

    /// As a cause, in that place.
    pub fn cause(&self, place: String) -> Cause {
        Cause {
            reason: self.reason.clone(),
            id: self.id.clone(),
            says: self.says.clone(),
            advice: self.advice.clone(),
            evidence: self.evidence.clone(),
            places: vec![place],
            signature: self.signature.clone(),
        }
    }
}

/// The word of the server, where it is more than that the script failed.
fn server_reason(job: &Job) -> Option<&str> {
    let reason = job.failure_reason.as_deref()?;
    (!matches!(reason, "" | "script_failure" | "unknown_failure" | "job_execution_timeout")).then_some(reason)
}

/// A failed test job.
pub fn test_job(job: &Job, evidence: &Evidence) -> Told {
    let failed = evidence.results.as_ref().map_or(0, |results| results.failed().count());
    let tests = kmt_reporters::plural(failed as u64, "test");
    if job.failure_reason.as_deref() == Some("job_execution_timeout") {
        let also = if failed > 0 { format!("; {tests} had failed") } else { String::new() };
        let told =
            Told::new(Reason::Timeout, "job-timeout", format!("the job took longer than it may{also}"));
        return told.evidence(logs::last_lines(&evidence.log, 3)).advice("see which package ran last");
    }
    if failed > 0 {
        return Told::new(Reason::Test, "tests", format!("{tests} failed"));
    }
    if let Some(setup) = &evidence.setup {
        return Told { says: format!("its setup job failed: {}", setup.says), ..setup.clone() };
    }
    if let Some(upload) = &evidence.upload {
        return Told { says: format!("what it needs was not uploaded: {}", upload.says), ..upload.clone() };
    }
    if let Some(reason) = server_reason(job) {
        return Told::new(Reason::Server(reason.to_owned()), reason, server_says(reason));
    }
    if let Some(finding) = evidence.finding.as_ref().filter(|_| evidence.login != Some(true)) {
        return Told::of_finding(finding);
    }
    if evidence.unit == Some(false) {
        return Told::new(
            Reason::Boot,
            "setup-unit-failed",
            "the unit that sets the machine up is not active",
        )
        .advice("its journal is in the job's artifacts: logs/setup-ddvm.log")
        .evidence(logs::last_lines(&evidence.log, 3));
    }
    if let Some(hit) = logs::of_job(&evidence.log) {
        return Told::of_hit(&hit);
    }
    if evidence.login == Some(false) {
        return Told::new(Reason::Boot, "no-login", "the machine never showed a login prompt")
            .advice("its console is in the artifacts of the setup job");
    }
    if let Some(finding) = &evidence.finding {
        return Told::of_finding(finding);
    }
    without_evidence(evidence)
}

fn without_evidence(evidence: &Evidence) -> Told {
    let last = logs::last_lines(&evidence.log, 4);
    let trouble =
        evidence.results.iter().flat_map(|results| results.trouble.iter()).chain(&evidence.lost).next();
    let files = evidence.results.as_ref().map_or(0, |results| results.files);
    // Whoever ran the tests says by this code that some failed.
    let failed = logs::exit_code(&evidence.log).is_some_and(|code| matches!(code, 42 | 100));
    let told = match (trouble, files) {
        (Some(trouble), _) if failed => Told::new(
            Reason::Test,
            "results-unreadable",
            format!("tests failed, by its exit code; which ones cannot be read: {trouble}"),
        ),
        (None, 0) if failed => Told::new(
            Reason::Test,
            "no-results",
            "tests failed, by its exit code; it left no results that say which",
        ),
        (Some(trouble), _) => {
            Told::new(Reason::Unknown, "results-unreadable", format!("its results cannot be read: {trouble}"))
        }
        (None, 0) => Told::new(
            Reason::Unknown,
            "no-results",
            "it left no results, and its log says nothing that is known",
        ),
        (None, _) => Told::new(Reason::Unknown, "no-test-failed", "no test of it failed, and the job did"),
    };
    told.evidence(last)
}

/// A failed setup job.
pub fn setup_job(job: &Job, log: &str) -> Told {
    if let Some(hit) = logs::of_setup(log) {
        return Told::of_hit(&hit);
    }
    if let Some(reason) = server_reason(job) {
        return Told::new(Reason::Server(reason.to_owned()), reason, server_says(reason));
    }
    if job.failure_reason.as_deref() == Some("job_execution_timeout") {
        return Told::new(Reason::Timeout, "job-timeout", "the job took longer than it may")
            .evidence(logs::last_lines(log, 3));
    }
    let mut told = Told::new(Reason::Infra, "setup-failed", "the machines could not be set up")
        .advice("retry the setup job, then the jobs that stand on it");
    if let Some((command, message)) = diagnostics(log) {
        told.says = format!("`{command}` failed while machines were set up");
        told.signature = format!("setup {}", kmt_reporters::triage::normalise(&message));
        told.evidence = vec![message];
        return told;
    }
    told.evidence(logs::last_lines(log, 4))
}

/// The first remote command that failed, and what it said: the `Diagnostics:` of Pulumi.
fn diagnostics(log: &str) -> Option<(String, String)> {
    let (_, rest) = log.split_once("Diagnostics:")?;
    let mut lines = rest.lines().map(str::trim);
    let name =
        lines.find_map(|line| line.strip_prefix("command:remote:Command (")?.split_once(')'))?.0.to_owned();
    let message = lines.find(|line| !line.is_empty())?;
    Some((name, message.chars().take(300).collect()))
}

/// A failed job that uploads what machines need: it builds.
pub fn upload_job(job: &Job, log: &str) -> Told {
    if let Some(hit) = logs::of_job(log) {
        return Told::of_hit(&hit);
    }
    if let Some(reason) = server_reason(job) {
        return Told::new(Reason::Server(reason.to_owned()), reason, server_says(reason));
    }
    Told::new(Reason::Build, "upload-failed", format!("`{}` failed", job.name))
        .evidence(logs::last_lines(log, 4))
}

/// What is known of the words of GitLab.
fn server_says(reason: &str) -> String {
    match reason {
        "stuck_or_timeout_failure" => "GitLab: no runner took it, or it said nothing for too long",
        "runner_system_failure" => "GitLab: the runner failed",
        "missing_dependency_failure" => "GitLab: artifacts of a job it needs are gone",
        "runner_unsupported" => "GitLab: the runner is too old for it",
        "scheduler_failure" => "GitLab: it could not be handed to a runner",
        "data_integrity_failure" => "GitLab: its record is damaged",
        "upstream_bridge_project_not_found" | "insufficient_bridge_permissions" => {
            "GitLab: the child pipeline could not be made"
        }
        "archived_failure" => "GitLab: the job is too old to run",
        other => return format!("GitLab: {other}"),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(reason: &str) -> Job {
        Job { failure_reason: Some(reason.to_owned()), ..Job::default() }
    }

    fn results(xml: &str) -> Results {
        let mut results = Results::default();
        results.add("a.xml", format!("<testsuite name='p/a'>{xml}</testsuite>").as_bytes());
        results
    }

    #[test]
    fn evidence_decides_in_order() {
        let failing = || Some(results("<testcase name='T'><failure/></testcase>"));
        let green = || Some(results("<testcase name='T'/>"));
        let setup = || Some(setup_job(&job("script_failure"), "failed to dial libvirt"));
        let say = |job: Job, evidence: Evidence| test_job(&job, &evidence).reason;
        let script = || job("script_failure");
        let none = Evidence::default;
        assert_eq!(say(script(), Evidence { results: failing(), setup: setup(), ..none() }), Reason::Test);
        assert_eq!(say(script(), Evidence { setup: setup(), ..none() }), Reason::Infra);
        let stuck = Reason::Server("stuck_or_timeout_failure".to_owned());
        assert_eq!(say(job("stuck_or_timeout_failure"), none()), stuck);
        assert_eq!(say(job("a_new_one"), none()), Reason::Server("a_new_one".to_owned()));
        assert_eq!(
            say(job("job_execution_timeout"), Evidence { results: failing(), ..none() }),
            Reason::Timeout
        );
        assert_eq!(say(script(), Evidence { unit: Some(false), ..none() }), Reason::Boot);
        assert_eq!(say(script(), Evidence { login: Some(false), ..none() }), Reason::Boot);
        let log = "panic: test timed out after 10m0s".to_owned();
        assert_eq!(say(script(), Evidence { results: green(), log, ..none() }), Reason::Timeout);
        assert_eq!(say(script(), Evidence { results: green(), ..none() }), Reason::Unknown);
        let told = test_job(&script(), &Evidence { results: Some(results("<oops>")), ..none() });
        assert_eq!((told.reason, told.id.as_str()), (Reason::Unknown, "results-unreadable"));
    }

    #[test]
    fn the_first_remote_command_that_failed_is_named() {
        let log = "Diagnostics:\n  command:remote:Command (remote-aws-x-cmd-wait-cloud-init):\n    error: exit status 1\n";
        let told = setup_job(&job("script_failure"), log);
        assert_eq!(told.says, "`remote-aws-x-cmd-wait-cloud-init` failed while machines were set up");
        assert_eq!(told.evidence, ["error: exit status 1"]);
    }
}
