//! The order in which the jobs of a red pipeline are run again. Pure: jobs in, steps out.
//!
//! Setup, uploads, cleanup, tests; in each part of a pipeline (a component on an architecture) for itself. While the
//! cleanup has not begun the machines are alive: then only what failed runs again, and the cleanup is left alone. Once
//! it has, the machines are gone: setup, uploads and cleanup run again, and with them every test that failed.

use std::collections::BTreeMap;

use super::jobs::{Attempts, Jobs};
use crate::external::ci::{Id, Status};
use crate::settings::gitlab::Role;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stops a job that is at work.
    Cancel(Id, String),
    /// Runs a job again.
    Retry(Id, String),
}

/// Steps for all parts of a pipeline, in their order.
pub fn steps(jobs: &Jobs) -> Vec<Step> {
    let mut parts: BTreeMap<(Id, &str, &str), Vec<&Attempts>> = BTreeMap::new();
    for job in &jobs.ours {
        let arch = job.named.arch.map_or("", |arch| arch.as_str());
        parts.entry((job.pipeline, &job.named.component, arch)).or_default().push(job);
    }
    parts.into_values().flat_map(|part| of_part(&part)).collect()
}

fn of_part(part: &[&Attempts]) -> Vec<Step> {
    let that = |role: Role| part.iter().filter(move |job| job.named.role == role).copied();
    let bad = |job: &&Attempts| matches!(job.latest().status, Status::Failed | Status::Canceled);
    let tests: Vec<&Attempts> = that(Role::Test).chain(that(Role::Run)).filter(bad).collect();
    let before: Vec<&Attempts> = that(Role::Setup).chain(that(Role::Upload)).filter(bad).collect();
    if tests.is_empty() && before.is_empty() {
        return Vec::new();
    }
    let cleanup: Vec<&Attempts> = that(Role::Cleanup).collect();
    // Without a cleanup job nothing says that the machines are gone.
    let alive = cleanup.iter().all(|job| matches!(job.latest().status, Status::Created | Status::Manual));
    let mut steps = Vec::new();
    let mut retry = |job: &Attempts| steps.push(Step::Retry(job.latest().id, job.latest().name.clone()));
    if alive {
        before.into_iter().chain(tests).for_each(retry);
        return steps;
    }
    // Uploads went to hosts that are no more.
    let done = |job: &&Attempts| job.latest().status.is_final();
    that(Role::Setup).chain(that(Role::Upload)).filter(done).for_each(&mut retry);
    for job in &cleanup {
        let latest = job.latest();
        if matches!(latest.status, Status::Running | Status::Pending) {
            steps.push(Step::Cancel(latest.id, latest.name.clone()));
        }
        if latest.status != Status::Created {
            steps.push(Step::Retry(latest.id, latest.name.clone()));
        }
    }
    steps.extend(tests.iter().map(|job| Step::Retry(job.latest().id, job.latest().name.clone())));
    steps
}

#[cfg(test)]
mod tests {
    use super::super::names::Names;
    use super::*;
    use crate::external::ci::Job;
    use crate::settings::gitlab::GitlabSection;

    const TEST: &str = "kmt_run_sysprobe_tests_x64: [debian_12, no_usm]";
    const SETUP: &str = "kmt_setup_env_sysprobe_x64";
    const CLEANUP: &str = "kmt_sysprobe_cleanup_x64";

    fn of(rows: &[(Id, &str, Status)]) -> Vec<String> {
        let names = Names::new(&GitlabSection::default()).unwrap();
        let job = |(id, name, status): &(Id, &str, Status)| Job {
            id: *id,
            name: (*name).to_owned(),
            stage: "kernel_matrix_testing_prepare".to_owned(),
            status: status.clone(),
            ..Job::default()
        };
        let jobs = Jobs::of(vec![(1, rows.iter().map(job).collect())], &names);
        let word = |step: Step| match step {
            Step::Cancel(id, _) => format!("cancel {id}"),
            Step::Retry(id, _) => format!("retry {id}"),
        };
        steps(&jobs).into_iter().map(word).collect()
    }

    #[test]
    fn living_machines_are_used_and_dead_ones_made_again() {
        use Status::{Created, Failed, Running, Success};
        let upload = "upload_sysprobe_tests_x64";
        let other = "kmt_run_sysprobe_tests_x64: [debian_11, no_usm]";
        let rows = |cleanup: Status| {
            vec![
                (1, SETUP, Success),
                (2, upload, Failed),
                (3, CLEANUP, cleanup),
                (4, TEST, Failed),
                (5, other, Success),
            ]
        };
        assert_eq!(of(&rows(Created)), ["retry 2", "retry 4"]);
        assert_eq!(of(&rows(Success)), ["retry 1", "retry 2", "retry 3", "retry 4"]);
        assert_eq!(of(&rows(Running)), ["retry 1", "retry 2", "cancel 3", "retry 3", "retry 4"]);
    }

    #[test]
    fn what_was_retried_already_is_left_alone() {
        use Status::{Created, Failed, Running, Success};
        assert!(
            of(&[(1, SETUP, Success), (4, TEST, Failed), (9, TEST, Success), (3, CLEANUP, Created)])
                .is_empty()
        );
        assert!(of(&[(4, TEST, Failed), (9, TEST, Running)]).is_empty());
        assert_eq!(of(&[(1, SETUP, Failed), (3, CLEANUP, Created)]), ["retry 1"]);
    }
}
