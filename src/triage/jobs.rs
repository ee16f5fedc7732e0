//! The jobs of a pipeline: attempts of one job together, tests with the jobs they stand on. Pure.

use std::collections::BTreeMap;

use super::names::{Named, Names};
use crate::external::ci::{Id, Job, Status};
use crate::settings::gitlab::Role;

/// All runs of one job.
#[derive(Debug, Clone)]
pub struct Attempts {
    /// What it is for.
    pub named: Named,
    /// The pipeline it is of.
    pub pipeline: Id,
    pipeline_text: String,
    /// Its runs, oldest first; never empty.
    runs: Vec<Job>,
}

impl Attempts {
    /// The number of its pipeline, as paths have it.
    pub fn pipeline_text(&self) -> &str {
        &self.pipeline_text
    }

    /// The run that counts.
    pub fn latest(&self) -> &Job {
        &self.runs[self.runs.len() - 1]
    }

    /// Earlier runs, oldest first.
    pub fn earlier(&self) -> &[Job] {
        &self.runs[..self.runs.len() - 1]
    }

    /// How often it ran.
    pub fn count(&self) -> usize {
        self.runs.len()
    }

    /// Whether it failed for good.
    pub fn failed(&self) -> bool {
        self.latest().status == Status::Failed
    }

    /// Whether it passed, and not at first.
    pub fn recovered(&self) -> bool {
        self.latest().status == Status::Success
            && self.earlier().iter().any(|job| job.status == Status::Failed)
    }
}

/// The jobs of a pipeline that are ours, and those others that failed.
#[derive(Debug, Clone, Default)]
pub struct Jobs {
    /// In the order of their names.
    pub ours: Vec<Attempts>,
    /// The last run of others, where it failed.
    pub others: Vec<Job>,
}

impl Jobs {
    /// Sorts the jobs of pipelines: those of one name in one pipeline are attempts.
    pub fn of(pipelines: Vec<(Id, Vec<Job>)>, names: &Names) -> Jobs {
        let mut by_name: BTreeMap<(String, Id), Vec<Job>> = BTreeMap::new();
        for (pipeline, jobs) in pipelines {
            for job in jobs {
                by_name.entry((job.name.clone(), pipeline)).or_default().push(job);
            }
        }
        let mut sorted = Jobs::default();
        for ((name, pipeline), mut runs) in by_name {
            runs.sort_by_key(|job| job.id);
            runs.dedup_by_key(|job| job.id);
            let Some(latest) = runs.last() else { continue };
            match names.job(&name, &latest.stage) {
                Some(named) => {
                    sorted.ours.push(Attempts { named, pipeline, pipeline_text: pipeline.to_string(), runs })
                }
                None if latest.status == Status::Failed => sorted.others.push(latest.clone()),
                None => {}
            }
        }
        sorted
    }

    /// Those that do this.
    pub fn that(&self, role: Role) -> impl Iterator<Item = &Attempts> {
        self.ours.iter().filter(move |job| job.named.role == role)
    }

    /// Those that do this for the component, architecture and pipeline of a test.
    pub fn for_place<'a>(&'a self, role: Role, test: &'a Attempts) -> impl Iterator<Item = &'a Attempts> {
        let (pipeline, component, arch) = (test.pipeline, &test.named.component, test.named.arch());
        self.that(role).filter(move |job| {
            job.pipeline == pipeline
                && (job.named.component == *component || job.named.component.is_empty())
                && job.named.arch.is_none_or(|own| own == arch)
        })
    }

    /// The setup job that a test job stands on: the newest.
    pub fn setup_of<'a>(&'a self, test: &'a Attempts) -> Option<&'a Attempts> {
        self.for_place(Role::Setup, test).max_by_key(|job| job.latest().id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::gitlab::GitlabSection;

    fn job(id: Id, name: &str, status: Status) -> Job {
        Job { id, name: name.to_owned(), status, ..Job::default() }
    }

    #[test]
    fn a_job_that_was_retried_counts_once_and_by_its_newest_run() {
        let names = Names::new(&GitlabSection::default()).unwrap();
        let test = "kmt_run_sysprobe_tests_x64: [debian_12, no_usm]";
        let other = "kmt_run_sysprobe_tests_x64: [debian_11, no_usm]";
        let jobs = vec![
            job(9, test, Status::Success),
            job(3, test, Status::Failed),
            job(4, other, Status::Failed),
            job(1, "kmt_setup_env_sysprobe_x64", Status::Success),
            job(2, "kmt_setup_env_sysprobe_arm64", Status::Failed),
            job(5, "lint", Status::Failed),
            job(6, "lint", Status::Success),
            job(7, "docs", Status::Failed),
        ];
        let jobs = Jobs::of(vec![(1, jobs)], &names);
        let tests: Vec<_> = jobs.that(Role::Test).collect();
        assert_eq!(tests.len(), 2);
        let retried = tests.iter().find(|test| test.count() == 2).unwrap();
        assert!(retried.recovered() && !retried.failed() && retried.latest().id == 9);
        assert_eq!(jobs.setup_of(retried).unwrap().latest().id, 1);
        assert_eq!(jobs.others.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["docs"]);
    }
}
