//! What a CI job says of itself, for profile `ci`: where artifacts go, which part of the work is its own, how large
//! machines are.

use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};

/// The folder of artifacts, in the job's project.
const OUT: &str = "kmt-out";

/// A CI job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Job {
    /// Where artifacts go: there `explain` looks for them.
    pub out: PathBuf,
    /// Number of this job among those of its `parallel`, from 1, and how many there are.
    pub node: Option<(u32, u32)>,
    /// Processors of machines (`KMT_VCPU`).
    pub vcpu: Option<u32>,
    /// Memory of machines in MiB (`KMT_MEMORY`).
    pub memory_mib: Option<u32>,
    /// Where people look at the job.
    pub url: Option<String>,
    /// Whether its log folds sections, as GitLab's does.
    pub sections: bool,
}

impl Job {
    /// The job, where profile `ci` is in force; `root` is the project where nothing says so.
    ///
    /// # Errors
    /// A variable that is no number, or one out of its range.
    pub fn of(profile: &str, root: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Job>> {
        if profile != "ci" {
            return Ok(None);
        }
        let number = |name: &str, least: u32| match env(name) {
            None => Ok(None),
            Some(text) => match text.trim().parse::<u32>() {
                Ok(number) if number >= least => Ok(Some(number)),
                _ => Err(Failure::usage(format!("{name} is `{text}`, no number of {least} or more"))),
            },
        };
        let node = match (number("CI_NODE_INDEX", 1)?, number("CI_NODE_TOTAL", 1)?) {
            (Some(index), Some(total)) if total > 1 && index <= total => Some((index, total)),
            (Some(index), Some(total)) if index > total => {
                return Err(Failure::usage(format!("CI_NODE_INDEX is {index}, of {total}")));
            }
            _ => None,
        };
        Ok(Some(Job {
            out: env("CI_PROJECT_DIR").map_or_else(|| root.to_path_buf(), PathBuf::from).join(OUT),
            node,
            vcpu: number("KMT_VCPU", 1)?,
            memory_mib: number("KMT_MEMORY", 64)?,
            url: env("CI_JOB_URL"),
            sections: env("GITLAB_CI").is_some(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(profile: &str, env: &[(&str, &str)]) -> Result<Option<Job>> {
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Job::of(profile, Path::new("/repo"), &env)
    }

    #[test]
    fn only_profile_ci_listens_to_the_job() {
        let env = [
            ("CI_NODE_INDEX", "2"),
            ("CI_NODE_TOTAL", "5"),
            ("CI_PROJECT_DIR", "/builds/x"),
            ("KMT_VCPU", "4"),
        ];
        assert_eq!(job("default", &env).unwrap(), None);
        let found = job("ci", &env).unwrap().unwrap();
        assert_eq!((found.node, found.vcpu, found.memory_mib), (Some((2, 5)), Some(4), None));
        assert_eq!(found.out, Path::new("/builds/x/kmt-out"));
        let alone = job("ci", &[("CI_NODE_TOTAL", "1")]).unwrap().unwrap();
        assert_eq!((alone.node, alone.out.as_path()), (None, Path::new("/repo/kmt-out")));
        assert!(job("ci", &[("CI_NODE_INDEX", "6"), ("CI_NODE_TOTAL", "5")]).is_err());
        assert!(job("ci", &[("KMT_MEMORY", "much")]).is_err());
    }
}
