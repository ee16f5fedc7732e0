//! What a guest must be before it is tested: one script, one step after another, each with its time.

use std::time::Duration;

use kmt_reporters::event::{Arch, PreparedStep};

use crate::external::transport::Connection;
use crate::external::{Class, Error, Result};
use crate::settings::component::{BPF_FOLDER, Component, Layout, for_arch};

const SCRIPT: &str = include_str!("prepare.sh");
const SYSTEM: &str = "the guest";
/// Where a guest may keep BTF of its kernel.
const BTF: &str = "/opt/btf";

/// One step: what it is called, and its words for the script. Paths are those of the guest, without prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name in reports.
    pub name: String,
    kind: &'static str,
    words: [String; 4],
}

impl Step {
    pub(super) fn new(name: String, kind: &'static str, words: [&str; 4]) -> Step {
        Step { name, kind, words: words.map(str::to_owned) }
    }

    /// Each value must fit in one line.
    pub(super) fn checked(self) -> std::result::Result<Step, String> {
        if self.words.iter().any(|word| word.contains(['\n', '\0'])) {
            return Err(format!("`{}` has a value of more than one line", self.name.escape_debug()));
        }
        Ok(self)
    }
}

/// What became of a preparation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prepared {
    /// The steps that were done, the failed one last.
    pub steps: Vec<PreparedStep>,
    /// Why the last one failed.
    pub failed: Option<String>,
    /// What scripts want in the environment of the tests.
    pub env: Vec<(String, String)>,
}

/// The steps of a component, in the order in which they are done.
///
/// # Errors
/// A value no guest can be given: it has a line end.
pub fn steps(component: &Component) -> std::result::Result<Vec<Step>, String> {
    let prepare = &component.prepare;
    let mut steps = Vec::new();
    let mut add =
        |name: String, kind: &'static str, words: [&str; 4]| steps.push(Step::new(name, kind, words));
    for name in &prepare.commands {
        add(format!("program {name}"), "program", [name, "", "", ""]);
    }
    for name in &prepare.packages {
        add(format!("package {name}"), "package", [name, "", "", ""]);
    }
    for name in &prepare.modules {
        add(format!("module {name}"), "module", [name, &name.replace('-', "_"), "", ""]);
    }
    for mount in &prepare.mounts {
        let (source, options) =
            (mount.source.as_ref().unwrap_or(&mount.kind), mount.options.as_deref().unwrap_or_default());
        let name = format!("mount {} at {}", mount.kind, mount.target);
        add(name, "mount_at", [&mount.kind, source, &mount.target, options]);
    }
    for (name, value) in &prepare.sysctls {
        let value = value.to_string();
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        add(format!("sysctl {name}={value}"), "write", [&path, &value, "", ""]);
    }
    for (path, value) in &prepare.files {
        let value = value.to_string();
        add(format!("{path}={value}"), "write", [path, &value, "", ""]);
    }
    for pattern in &prepare.docker_images {
        add(format!("images {pattern}"), "images", [pattern, "", "", ""]);
    }
    for script in &prepare.scripts {
        add(format!("script {script}"), "script", [script, "", "", ""]);
    }
    if component.layout == Layout::Agent {
        add("BTF archive".to_owned(), "btf", [BPF_FOLDER, BTF, "", ""]);
    }
    steps.into_iter().map(Step::checked).collect()
}

/// Carries the steps out in a guest whose component lies in `root` (with prefix).
///
/// # Errors
/// The guest does not answer, or says what nobody understands.
pub async fn prepare(steps: &[Step], arch: Arch, guest: &dyn Connection, root: &str) -> Result<Prepared> {
    if steps.is_empty() {
        return Ok(Prepared::default());
    }
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let mut input = format!("{nonce}\n{root}\n{root}/.kmt-env-{nonce}\n");
    for step in steps {
        input.push_str(step.kind);
        for (index, word) in step.words.iter().enumerate() {
            // Paths of the guest lie behind its prefix: the first word of `write`, the third of `mount_at`.
            let path = matches!((step.kind, index), ("write", 0) | ("mount_at", 2));
            let prefix = if path { guest.prefix() } else { "" };
            let word = if step.kind == "container" { &word.replace("{root}", root) } else { word };
            input.push_str(&format!("\n{prefix}{}", for_arch(word, arch)));
        }
        input.push('\n');
    }
    let output = guest.run(&["sh", "-c", SCRIPT, "kmt-prepare"], input.into_bytes()).await?;
    let strange = |what: &str| {
        let words = String::from_utf8_lossy(&output.stderr);
        let detail = format!("{what}\n{}", words.trim());
        Err(Error::new(SYSTEM, "prepare itself for", root, Class::Unintelligible, detail.trim_end()))
    };
    let text = output.text();
    let mut said = text.lines().filter_map(|line| saying(line, &nonce));
    let Some((mut before, ..)) = said.next() else { return strange("it never began") };
    let mut prepared = Prepared::default();
    for step in steps {
        let Some((now, verdict, words)) = said.next() else {
            return strange(&format!("it ended while `{}` was done", step.name));
        };
        let duration_ms = u64::try_from(now.saturating_sub(before).as_millis()).unwrap_or(u64::MAX);
        before = now;
        prepared.steps.push(PreparedStep { name: step.name.clone(), duration_ms });
        if verdict != "ok" {
            prepared.failed = Some(words.to_owned());
            return Ok(prepared);
        }
    }
    for (.., line) in said {
        match line.split_once('=').filter(|(name, _)| is_variable(name)) {
            Some((name, value)) => prepared.env.push((name.to_owned(), value.to_owned())),
            None => prepared.failed = Some(format!("`{line}` in KMT_ENV is not NAME=VALUE")),
        }
    }
    Ok(prepared)
}

/// Whether it may be the name of a variable.
pub fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Time, verdict and words of a line of the script.
fn saying<'l>(line: &'l str, nonce: &str) -> Option<(Duration, &'l str, &'l str)> {
    let rest = line.strip_prefix("\x1ekmt ")?.strip_prefix(nonce)?.strip_prefix(' ')?;
    let mut words = rest.splitn(3, ' ');
    let time = words.next()?.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())?;
    Some((time, words.next()?, words.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::transport::local::Local;

    fn component(text: &str) -> Component {
        toml::from_str(&format!("builder = \"go\"\n{text}")).unwrap()
    }

    async fn done(text: &str) -> Prepared {
        let steps = steps(&component(text)).unwrap();
        prepare(&steps, Arch::X86_64, &Local::new("/"), "/tmp").await.unwrap()
    }

    #[tokio::test]
    async fn files_are_written_and_programs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x86_64");
        std::fs::write(&file, "0").unwrap();
        let text = format!(
            "[prepare]\ncommands = [\"sh\"]\n[prepare.files]\n\"{}/{{arch}}\" = 1\n",
            folder.path().display()
        );
        let prepared = done(&text).await;
        assert_eq!(prepared.failed, None);
        assert_eq!(prepared.steps.len(), 2);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "1\n");
        assert_eq!(done("").await, Prepared::default());
    }

    #[tokio::test]
    async fn what_is_missing_is_said_and_ends_it() {
        let text = "[prepare]\ncommands = [\"no-such-program\"]\nmodules = [\"never-reached\"]\n";
        let prepared = done(text).await;
        assert_eq!(prepared.failed.as_deref(), Some("there is no program `no-such-program`"));
        assert_eq!(prepared.steps.len(), 1);
        let prepared = done("[prepare]\npackages = [\"no-such|package\"]\n").await;
        assert_eq!(prepared.failed.as_deref(), Some("package `no-such|package` is not installed"));
        let prepared = done("[prepare.sysctls]\n\"no.such\" = 1\n").await;
        assert_eq!(prepared.failed.as_deref(), Some("there is no `/proc/sys/no/such` here"));
        assert_eq!(prepared.steps[0].name, "sysctl no.such=1");
    }

    #[tokio::test]
    async fn what_is_mounted_already_is_left_alone() {
        let text = "[prepare]\nmounts = [{ type = \"proc\", target = \"/proc\" }]\n";
        assert_eq!(done(text).await.failed, None);
    }

    #[tokio::test]
    async fn a_script_runs_in_the_folder_and_what_it_exports_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let run = async |script: &str| {
            std::fs::write(root.join("setup.sh"), script).unwrap();
            let steps = steps(&component("prepare.scripts = [\"setup.sh\"]\n")).unwrap();
            prepare(&steps, Arch::X86_64, &Local::new("/"), root.to_str().unwrap()).await.unwrap()
        };
        let prepared =
            run("pwd >where\necho \"FOLDER=$(pwd) x=y\" >>\"$KMT_ENV\"\necho B= >>\"$KMT_ENV\"\n").await;
        assert_eq!((prepared.failed, prepared.steps[0].name.as_str()), (None, "script setup.sh"));
        let value = format!("{} x=y", root.display());
        assert_eq!(prepared.env, [("FOLDER".to_owned(), value), ("B".to_owned(), String::new())]);
        let mut left: Vec<_> =
            std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["setup.sh", "where"]);

        let prepared = run("echo no such device >&2\nexit 3\n").await;
        assert_eq!(prepared.failed.as_deref(), Some("no such device"));
        let prepared = run("echo 1X=2 >\"$KMT_ENV\"\n").await;
        assert_eq!(prepared.failed.as_deref(), Some("`1X=2` in KMT_ENV is not NAME=VALUE"));
        std::fs::remove_file(root.join("setup.sh")).unwrap();
        let steps = steps(&component("prepare.scripts = [\"setup.sh\"]\n")).unwrap();
        let gone = prepare(&steps, Arch::X86_64, &Local::new("/"), root.to_str().unwrap()).await.unwrap();
        assert!(gone.failed.unwrap().starts_with("there is no `setup.sh` in "));
    }

    #[test]
    fn a_value_of_two_lines_is_refused() {
        let error = steps(&component("[prepare.files]\n\"/x\" = \"a\\nb\"\n")).unwrap_err();
        assert!(error.contains("more than one line"), "{error}");
        let agent = steps(&component("layout = \"agent\"\n")).unwrap();
        assert_eq!(agent[0].name, "BTF archive");
    }
}
