//! `[gitlab]` of `kmt.toml`: where pipelines are, and what their jobs and artifacts are called.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The section. Without patterns those of the agent's pipelines hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GitlabSection {
    /// Address of the server.
    pub url: Option<String>,
    /// Path of the project.
    pub project: Option<String>,
    /// Variable of the environment that holds the token.
    pub token_env: Option<String>,
    /// File that holds the token, relative to `kmt.toml`.
    pub token_file: Option<String>,
    /// File of certificates (PEM) that are trusted besides the system's, relative to `kmt.toml`.
    pub ca_file: Option<String>,
    /// What jobs are, by name: the first pattern that matches.
    #[serde(rename = "job")]
    pub jobs: Vec<JobPattern>,
    /// Components by the word that names of jobs have for them.
    pub components: BTreeMap<String, String>,
    /// Where artifacts lie.
    pub artifacts: Option<Artifacts>,
}

/// What a job with such a name is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct JobPattern {
    /// What it does.
    pub role: Role,
    /// Regular expression for its name; groups `component`, `arch`, `platform` and `set` say what for.
    pub name: String,
    /// Regular expression for its stage.
    pub stage: Option<String>,
    /// Names that are not meant, though `name` matches.
    pub not: Option<String>,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Brings up the machines of a component and architecture.
    Setup,
    /// Uploads what the machines need.
    Upload,
    /// Tests one platform, on a machine that a setup job brought up.
    Test,
    /// Tests by itself: it is a `kmt-run`, and leaves its event log.
    Run,
    /// Takes the machines down.
    Cleanup,
}

/// Paths within artifacts; `{arch}`, `{platform}`, `{set}`, `{component}`, `{pipeline}`, `{job}`, `{vm}`, `{project}` and
/// `{n}` stand for what they say. Of several the first that is there is taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Artifacts {
    /// JUnit of a test job: XML, or a `.tar.gz` of them.
    pub junit: Vec<String>,
    /// Journal of the unit that sets a machine up.
    pub unit_status: Vec<String>,
    /// Machines of a setup job.
    pub stack_output: Vec<String>,
    /// What the machines are.
    pub vmconfig: Vec<String>,
    /// Console of a machine.
    pub console: Vec<String>,
    /// Leases, for `{n}` from 0 until one is missing.
    pub leases: Vec<String>,
    /// Event log of a job that is a `kmt-run`.
    pub events: Vec<String>,
    /// Its JUnit: why its tests failed.
    pub run_junit: Vec<String>,
    /// What `{project}` stands for.
    pub project: String,
}

impl Default for Artifacts {
    fn default() -> Artifacts {
        let one = |text: &str| vec![text.to_owned()];
        Artifacts {
            junit: vec![
                "test/new-e2e/tests/junit-{arch}-{platform}-{set}.tar.gz".to_owned(),
                "test/kitchen/junit-{arch}-{platform}-{set}.tar.gz".to_owned(),
            ],
            unit_status: one("logs/setup-ddvm.status"),
            stack_output: one("stack.output"),
            vmconfig: one("vmconfig-{pipeline}-{arch}.json"),
            console: one(
                "libvirt/log/ddvm-ci-{job}-{project}-kernel-matrix-testing-{component}-{arch-dashed}-{pipeline}-{vm}.log",
            ),
            leases: one("libvirt/dnsmasq/virbr{n}.status"),
            events: one("kmt-out/events.jsonl"),
            run_junit: one("kmt-out/junit.xml"),
            project: "4670".to_owned(),
        }
    }
}

impl GitlabSection {
    /// Patterns of jobs: those of the file, else the agent's.
    pub fn patterns(&self) -> Vec<JobPattern> {
        if !self.jobs.is_empty() {
            return self.jobs.clone();
        }
        let pattern = |role, name: &str, stage: Option<&str>, not: Option<&str>| JobPattern {
            role,
            name: name.to_owned(),
            stage: stage.map(str::to_owned),
            not: not.map(str::to_owned),
        };
        vec![
            pattern(Role::Setup, "^kmt_setup_env_(?<component>[a-z]+)_(?<arch>x64|arm64)", None, None),
            pattern(
                Role::Test,
                r"^kmt_run_(?<component>[a-z]+)_tests_(?<arch>x64|arm64)\w*: \[(?<platform>[^,\]]+)(?:, *(?<set>[^,\]]+))?\]",
                None,
                None,
            ),
            pattern(Role::Cleanup, "^kmt_.*cleanup", None, Some("manual")),
            pattern(Role::Upload, "upload", Some("^kernel_matrix_testing_prepare$"), None),
            pattern(Role::Run, r"^kmt-(?:run|build)\b", None, None),
        ]
    }

    /// The component that a word in the name of a job means.
    pub fn component(&self, word: &str) -> String {
        if let Some(name) = self.components.get(word) {
            return name.clone();
        }
        match word {
            "sysprobe" => "system-probe".to_owned(),
            "secagent" => "security-agent".to_owned(),
            other => other.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_companys_names_are_configuration() {
        let section: GitlabSection = toml::from_str(
            "project = 'a/b'\n[[job]]\nrole = 'test'\nname = '^e2e (?<platform>.*)$'\n[components]\nx = 'y'\n\
             [artifacts]\njunit = ['out/{platform}.xml']\n",
        )
        .unwrap();
        assert_eq!((section.patterns().len(), section.component("x").as_str()), (1, "y"));
        assert_eq!(section.artifacts.unwrap().events, ["kmt-out/events.jsonl"]);
        assert!(toml::from_str::<GitlabSection>("token = 'glpat-x'").is_err(), "a token by value");
    }
}
