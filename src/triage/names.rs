//! What names of jobs and paths of artifacts mean, by the patterns of `kmt.toml`.

use kmt_reporters::event::Arch;
use regex::Regex;

use crate::error::{Failure, Result};
use crate::matrix::spec::arch_named;
use crate::settings::gitlab::{Artifacts, GitlabSection, Role};

/// Patterns, ready to match.
#[derive(Debug)]
pub struct Names {
    patterns: Vec<Pattern>,
    section: GitlabSection,
    /// Where artifacts lie.
    pub artifacts: Artifacts,
}

#[derive(Debug)]
struct Pattern {
    role: Role,
    name: Regex,
    stage: Option<Regex>,
    not: Option<Regex>,
}

/// What a job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it does.
    pub role: Role,
    /// Component.
    pub component: String,
    /// Architecture, where its name says one.
    pub arch: Option<Arch>,
    /// Platform; empty where it is for all.
    pub platform: String,
    /// Test set; empty where it has none.
    pub set: String,
}

impl Named {
    /// The architecture; x86_64 where nothing says.
    pub fn arch(&self) -> Arch {
        self.arch.unwrap_or(Arch::X86_64)
    }
}

impl Names {
    /// From the section of `kmt.toml`.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn new(section: &GitlabSection) -> Result<Names> {
        let regex = |text: &str| {
            Regex::new(text).map_err(|error| {
                Failure::usage(format!("`{text}` in `[[gitlab.job]]` is no regular expression"))
                    .caused_by(error)
            })
        };
        let optional = |text: &Option<String>| text.as_deref().map(regex).transpose();
        let compiled = section.patterns().into_iter().map(|pattern| {
            Ok(Pattern {
                role: pattern.role,
                name: regex(&pattern.name)?,
                stage: optional(&pattern.stage)?,
                not: optional(&pattern.not)?,
            })
        });
        Ok(Names {
            patterns: compiled.collect::<Result<_>>()?,
            section: section.clone(),
            artifacts: section.artifacts.clone().unwrap_or_default(),
        })
    }

    /// What the job of that name and stage is; `None` where it is nothing of ours.
    pub fn job(&self, name: &str, stage: &str) -> Option<Named> {
        self.patterns.iter().find_map(|pattern| {
            let matched = pattern.name.captures(name)?;
            let elsewhere = pattern.stage.as_ref().is_some_and(|wanted| !wanted.is_match(stage));
            if elsewhere || pattern.not.as_ref().is_some_and(|not| not.is_match(name)) {
                return None;
            }
            let group = |key: &str| matched.name(key).map(|found| found.as_str().trim().to_owned());
            let component = match group("component") {
                Some(word) => self.section.component(&word),
                None => self.component_within(name).unwrap_or_default(),
            };
            let arch = match group("arch") {
                Some(word) => arch_named(&word),
                None => arch_within(name),
            };
            Some(Named {
                role: pattern.role,
                component,
                arch,
                platform: group("platform").unwrap_or_default(),
                set: group("set").unwrap_or_default(),
            })
        })
    }

    fn component_within(&self, name: &str) -> Option<String> {
        let known = self.section.components.keys().map(String::as_str);
        known
            .chain(["sysprobe", "secagent"])
            .find(|word| name.contains(word))
            .map(|word| self.section.component(word))
    }

    /// The paths that patterns of artifacts mean, where each `{word}` stands for what `words` says.
    pub fn paths(&self, patterns: &[String], words: &[(&str, &str)]) -> Vec<String> {
        let project = self.artifacts.project.as_str();
        let own = [("project", project)];
        let fill = |pattern: &String| {
            let all = words.iter().chain(&own);
            all.fold(pattern.clone(), |text, (key, value)| text.replace(&format!("{{{key}}}"), value))
        };
        patterns.iter().map(fill).filter(|path| is_tame(path)).collect()
    }

    /// What a path within artifacts says by such patterns: the words it stands for.
    pub fn words_of(&self, patterns: &[String], path: &str) -> Option<Vec<(String, String)>> {
        patterns.iter().find_map(|pattern| {
            // The folder may be another: what was downloaded lies anywhere.
            let file = pattern.rsplit('/').next().unwrap_or(pattern);
            let regex = format!("(?:^|/){}$", regex::escape(file).replace(r"\{", "{").replace(r"\}", "}"));
            let mut keys = Vec::new();
            let regex = PLACEHOLDER.replace_all(&regex, |found: &regex::Captures<'_>| {
                keys.push(found[1].to_owned());
                match &found[1] {
                    "arch" => "(x86_64|arm64)",
                    "n" | "job" | "pipeline" => "([0-9]+)",
                    "set" => "([A-Za-z0-9_]+)",
                    _ => "([A-Za-z0-9_.\\-]+?)",
                }
                .to_owned()
            });
            let found = Regex::new(&regex).ok()?.captures(path)?;
            let values = keys.iter().enumerate().map(|(at, key)| (key.clone(), found[at + 1].to_owned()));
            Some(values.collect())
        })
    }
}

static PLACEHOLDER: std::sync::LazyLock<Regex> = std::sync::LazyLock::new(|| {
    Regex::new(r"\{([a-z\\\-]+)\}").unwrap_or_else(|_| unreachable!("a constant"))
});

/// Whether a path stays below its folder: names of jobs fill it, and those are anybody's.
fn is_tame(path: &str) -> bool {
    !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn arch_within(name: &str) -> Option<Arch> {
    let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match (any(&["x64", "x86_64", "amd64"]), any(&["arm64", "aarch64"])) {
        (true, false) => Some(Arch::X86_64),
        (false, true) => Some(Arch::Arm64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(&GitlabSection::default()).unwrap()
    }

    #[test]
    fn the_agents_jobs_are_known_by_name() {
        let named = names().job("kmt_run_sysprobe_tests_x64: [ubuntu_22.04, no_usm]", "x").unwrap();
        assert_eq!(
            (named.role, named.component.as_str(), named.arch()),
            (Role::Test, "system-probe", Arch::X86_64)
        );
        assert_eq!((named.platform.as_str(), named.set.as_str()), ("ubuntu_22.04", "no_usm"));
        let named = names().job("kmt_run_secagent_tests_arm64_docker: [debian_12, cws_docker]", "x").unwrap();
        assert_eq!(
            (named.component.as_str(), named.arch(), named.set.as_str()),
            ("security-agent", Arch::Arm64, "cws_docker")
        );
        let role = |name: &str, stage: &str| names().job(name, stage).map(|named| named.role);
        assert_eq!(role("kmt_setup_env_secagent_arm64", ""), Some(Role::Setup));
        assert_eq!(role("kmt_sysprobe_cleanup_arm64", ""), Some(Role::Cleanup));
        assert_eq!(role("kmt_sysprobe_cleanup_arm64_manual", ""), None);
        assert_eq!(role("upload_sysprobe_tests_x64", "kernel_matrix_testing_prepare"), Some(Role::Upload));
        assert_eq!(role("upload_something", "deploy"), None);
        assert_eq!(role("lint", "test"), None);
    }

    #[test]
    fn a_job_cannot_name_a_path_outside() {
        let names = names();
        let words = [("arch", "x86_64"), ("platform", "../../x"), ("set", "s")];
        assert!(names.paths(&names.artifacts.junit, &words).is_empty());
        let words = [("arch", "x86_64"), ("platform", "debian_12"), ("set", "s")];
        assert_eq!(
            names.paths(&names.artifacts.junit, &words)[0],
            "test/new-e2e/tests/junit-x86_64-debian_12-s.tar.gz"
        );
    }

    #[test]
    fn a_downloaded_file_says_where_it_comes_from() {
        let names = names();
        let words =
            names.words_of(&names.artifacts.junit, "a/b/junit-arm64-ubuntu_22.04-no_usm.tar.gz").unwrap();
        let value = |key: &str| words.iter().find(|(k, _)| k == key).unwrap().1.as_str();
        assert_eq!((value("arch"), value("platform"), value("set")), ("arm64", "ubuntu_22.04", "no_usm"));
        assert!(names.words_of(&names.artifacts.junit, "junit.xml").is_none());
    }
}
