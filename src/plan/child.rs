//! A matrix as a child pipeline of GitLab: which job runs what, in an order and with words that stay the same.

use std::fmt::Write as _;

use kmt_reporters::event::CellId;

/// What is run again by the server: a cell that never ran, data or hosts that were not to be had. Failing tests are not.
const AGAIN: [u8; 3] = [102, 103, 104];

/// A child pipeline to be.
#[derive(Debug, Clone)]
pub struct Child {
    /// The command up to its subcommand, as a shell takes it: `kmt-run`, or `./kmt-run -C tree`.
    pub program: String,
    /// Words of `run` and `build` that name the matrix and what of it, as a shell takes them.
    pub source: String,
    /// What a job is.
    pub split: Split,
    /// Whether a job of its own compiles before the others.
    pub build: BuildJob,
    /// Tags of runners.
    pub tags: Vec<String>,
    /// Image of the jobs' containers.
    pub image: Option<String>,
    /// Longest time of a job, minutes.
    pub minutes: u64,
    /// How long artifacts are kept.
    pub expire: String,
}

/// What a job is.
#[derive(Debug, Clone)]
pub enum Split {
    /// A cell, with its `--cell` as a shell takes it.
    Cells(Vec<(CellId, String)>),
    /// One of so many parts of the tests.
    Parts(u32),
}

/// Who compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildJob {
    /// One job for all.
    Once,
    /// Each job for itself.
    Each,
}

impl Child {
    /// The YAML. Names and words are quoted as JSON is, which is YAML too.
    pub fn yaml(&self) -> String {
        let mut out = String::from(
            "# A matrix as a child pipeline, written by `kmt-run ci emit`: write it again instead of changing it.\n",
        );
        let stages = match self.build {
            BuildJob::Once => "\nstages: [kmt-build, kmt-test]\n",
            BuildJob::Each => "\nstages: [kmt-test]\n",
        };
        out.push_str(stages);
        self.common(&mut out);
        if self.build == BuildJob::Once {
            let script = format!("{} build --compile-only {}", self.program, self.source);
            let _ = writeln!(out, "\nkmt-build:\n  extends: .kmt-run\n  stage: kmt-build");
            let _ = writeln!(out, "  script:\n    - {}", quoted(script.trim_end()));
            let _ = writeln!(out, "  artifacts:\n    when: on_success\n    expire_in: 1 day");
            let _ = writeln!(out, "    paths: [kmt-home/cache/build/]");
        }
        match &self.split {
            Split::Cells(cells) => {
                for (cell, word) in cells {
                    self.job(&mut out, &name_of(cell), &format!(" --cell {word}"), None);
                }
            }
            Split::Parts(count) => {
                let part = " --partition \"slice:$CI_NODE_INDEX/$CI_NODE_TOTAL\"";
                self.job(&mut out, "kmt-run", part, Some(*count));
            }
        }
        out
    }

    /// What all jobs have in common.
    fn common(&self, out: &mut String) {
        let _ = writeln!(out, "\n.kmt-run:\n  stage: kmt-test");
        if let Some(image) = &self.image {
            let _ = writeln!(out, "  image: {}", quoted(image));
        }
        if !self.tags.is_empty() {
            let tags: Vec<String> = self.tags.iter().map(|tag| quoted(tag)).collect();
            let _ = writeln!(out, "  tags: [{}]", tags.join(", "));
        }
        let _ = writeln!(out, "  timeout: {} minutes", self.minutes);
        let _ = writeln!(out, "  variables:\n    KMT_HOME: $CI_PROJECT_DIR/kmt-home");
        let _ = writeln!(out, "  cache:\n    key: kmt-images\n    paths: [kmt-home/images/]");
        let codes: Vec<String> = AGAIN.iter().map(u8::to_string).collect();
        let _ = writeln!(out, "  retry:\n    max: 2\n    when:");
        for reason in ["runner_system_failure", "api_failure", "scheduler_failure"] {
            let _ = writeln!(out, "      - {reason}");
        }
        let _ = writeln!(out, "    exit_codes: [{}]", codes.join(", "));
        let _ = writeln!(out, "  artifacts:\n    when: always\n    expire_in: {}", quoted(&self.expire));
        let _ = writeln!(out, "    paths: [kmt-out/]\n    reports:\n      junit: kmt-out/junit.xml");
        let _ = writeln!(out, "      annotations: kmt-out/annotations.json");
    }

    fn job(&self, out: &mut String, name: &str, what: &str, parallel: Option<u32>) {
        let script = format!("{} run --profile ci {}{what}", self.program, self.source);
        let _ = writeln!(out, "\n{}:\n  extends: .kmt-run", quoted(name));
        if self.build == BuildJob::Once {
            let _ = writeln!(out, "  needs: [kmt-build]");
        }
        if let Some(count) = parallel {
            let _ = writeln!(out, "  parallel: {count}");
        }
        let _ = writeln!(out, "  script:\n    - {}", quoted(&script));
    }
}

/// The name of a cell's job: as those of a matrix of GitLab's own.
fn name_of(cell: &CellId) -> String {
    format!("kmt-run: [{cell}]")
}

/// As JSON has it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::*;

    #[test]
    fn jobs_are_cells_or_parts_and_all_wait_for_one_build() {
        let cell = CellId::local("debian_12", "6.1", Arch::X86_64);
        let child = Child {
            program: "kmt-run".to_owned(),
            source: "m.toml".to_owned(),
            split: Split::Cells(vec![(cell, "'debian_12/6.1/x86_64'".to_owned())]),
            build: BuildJob::Once,
            tags: vec!["kvm".to_owned()],
            image: None,
            minutes: 90,
            expire: "2 weeks".to_owned(),
        };
        let text = child.yaml();
        let job = "\"kmt-run: [debian_12/6.1/x86_64]\":\n  extends: .kmt-run\n  needs: [kmt-build]\n  script:\n    \
                   - \"kmt-run run --profile ci m.toml --cell 'debian_12/6.1/x86_64'\"\n";
        assert!(text.ends_with(job), "{text}");
        assert!(text.contains("  tags: [\"kvm\"]\n  timeout: 90 minutes\n"), "{text}");
        let text = Child { split: Split::Parts(3), build: BuildJob::Each, ..child }.yaml();
        assert!(text.contains("  parallel: 3\n") && !text.contains("kmt-build"), "{text}");
    }
}
