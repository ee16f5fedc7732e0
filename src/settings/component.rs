//! `[component.NAME]` of `kmt.toml`: how one thing under test is built, where it lies in a guest, what it needs there.
//!
//! In paths, patterns, arguments and values of a build `{arch}` is `x86_64` or `arm64`, `{goarch}` is `amd64` or
//! `arm64`, `{machine}` is `x86_64` or `aarch64`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kmt_reporters::event::Arch;
use schemars::JsonSchema;
use serde::Deserialize;

use super::file::{duration, durations, longest_match};
use crate::error::{Failure, Result};

/// Where the agent's tests look for their eBPF objects, relative to the layout's root.
pub const BPF_FOLDER: &str = "pkg/ebpf/bytecode/build/{arch}";

/// What is tested together: how it is built, where it lies in the guest, how long it may take.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Component {
    /// Who builds it.
    pub builder: BuilderKind,
    /// Folder of the Go module, or of finished test binaries (a tar archive, perhaps compressed by gzip, will do);
    /// relative to `kmt.toml`.
    pub folder: Option<String>,
    /// Patterns of packages with tests.
    #[serde(default = "every_package")]
    pub packages: Vec<String>,
    /// Patterns of packages to leave out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Programs to build and ship to `{root}/bin` (builder `go`).
    #[serde(default)]
    pub binaries: Vec<String>,
    /// Programs that tests call: built without cgo and shipped to `{root}/<folder>/<last part>` (builder `go`).
    #[serde(default)]
    pub helpers: Vec<String>,
    /// Build tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whether C is compiled too. For a foreign architecture the compiler is `<machine>-linux-gnu-gcc`, unless
    /// `build-env` has `CC`.
    #[serde(default)]
    pub cgo: bool,
    /// Whether the race detector is built in; needs cgo.
    #[serde(default)]
    pub race: bool,
    /// Arguments of the linker, as `go build -ldflags` takes them.
    pub ldflags: Option<String>,
    /// More arguments of every compilation.
    #[serde(default)]
    pub build_args: Vec<String>,
    /// Environment of the build.
    #[serde(default)]
    pub build_env: BTreeMap<String, String>,
    /// Patterns of files the build reads and its tool does not tell of, such as C headers elsewhere.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// Commands that run before all else is built, in this order; each only when its inputs have changed.
    #[serde(default)]
    pub command: Vec<BuildCommand>,
    /// Names of packages, and the test binary of each as the commands make it (builder `command`).
    #[serde(default)]
    pub tests: BTreeMap<String, String>,
    /// What the test binaries say their results in.
    #[serde(default)]
    pub format: Format,
    /// More files to ship, git-ignored or not.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// Where things lie in the guest: `neutral`, `agent`, or a folder.
    #[serde(default)]
    pub layout: Layout,
    /// What a guest must be before it is tested.
    #[serde(default)]
    pub prepare: Preparation,
    /// The container in the guest that tests run in where a test set has one (`container`, `testcontainer`).
    #[serde(default)]
    pub test_container: TestContainer,
    /// Environment of the tests; `{root}` is the folder in the guest.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Arguments of every test binary.
    #[serde(default)]
    pub test_args: Vec<String>,
    /// Longest time a package may take.
    #[serde(default = "ten_minutes", deserialize_with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// The same for packages by pattern; the longest pattern that matches wins.
    #[serde(default, deserialize_with = "durations")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub timeouts: BTreeMap<String, Duration>,
}

/// Who builds a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BuilderKind {
    /// The Go toolchain.
    Go,
    /// The component's own commands.
    Command,
    /// Nobody: a folder of test binaries.
    Prebuilt,
}

/// What test binaries say their results in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Go's `testing`.
    #[default]
    Gotest,
    /// GoogleTest.
    Gtest,
    /// Rust's `libtest`.
    Libtest,
    /// The Test Anything Protocol, as kselftest writes it too.
    #[serde(alias = "kselftest")]
    Tap,
}

impl Format {
    /// How a run's record calls it; Go's own is not named.
    pub fn recorded(self) -> &'static str {
        match self {
            Format::Gotest => "",
            Format::Gtest => "gtest",
            Format::Libtest => "libtest",
            Format::Tap => "tap",
        }
    }
}

/// A command of the build.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuildCommand {
    /// Program and arguments; no shell reads them.
    pub argv: Vec<String>,
    /// Folder it runs in, relative to `kmt.toml`.
    #[serde(default)]
    pub dir: String,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Patterns of files it reads, relative to `kmt.toml`.
    pub inputs: Vec<String>,
    /// Patterns of files it makes, relative to `kmt.toml`; each must match something afterwards.
    pub outputs: Vec<String>,
    /// Container it runs in, as the user who calls `kmt-run`.
    pub container: Option<Container>,
}

/// A container of the build; the repository is mounted where it lies on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Container {
    /// Image.
    pub image: String,
    /// Who runs it.
    #[serde(default)]
    pub engine: Engine,
    /// More arguments of `run`, such as `--volume=/cache:/cache`.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Who runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Docker.
    #[default]
    Docker,
    /// Podman.
    Podman,
}

impl Engine {
    /// The program.
    pub fn program(self) -> &'static str {
        match self {
            Engine::Docker => "docker",
            Engine::Podman => "podman",
        }
    }
}

/// How a container of the tests is started. Its image is for a test set to say, and must be in the guest
/// (`prepare.docker-images`) or within reach of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TestContainer {
    /// Who runs it.
    pub engine: Engine,
    /// More arguments of `run`, such as `--volume=/srv:/srv`; `{root}` is the folder of the component.
    pub args: Vec<String>,
}

/// Files to ship.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a pattern of files, or { from = \"PATTERN\", to = \"FOLDER\" }")]
pub enum Artifact {
    /// A pattern of files and folders, relative to `kmt.toml`; they keep their paths below `{root}`.
    Same(String),
    /// The same, moved.
    Moved(Moved),
}

/// Files to ship elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// A pattern of files and folders, relative to `kmt.toml`.
    pub from: String,
    /// Folder below `{root}` that gets what matches, by its last name.
    pub to: String,
}

/// Where things lie in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Layout {
    /// `/opt/<component>-tests`.
    #[default]
    Neutral,
    /// The same, as the Datadog agent's tests expect it: they find their eBPF objects by `DD_SYSTEM_PROBE_BPF_DIR`, and
    /// where the kernel has no BTF of its own an archive of those in `/opt/btf`.
    Agent,
    /// This folder.
    Folder(String),
}

impl TryFrom<String> for Layout {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Layout, String> {
        match text.as_str() {
            "neutral" => Ok(Layout::Neutral),
            "agent" => Ok(Layout::Agent),
            folder if folder.starts_with('/') && folder.trim_end_matches('/').len() > 1 => {
                Ok(Layout::Folder(folder.trim_end_matches('/').to_owned()))
            }
            other => {
                Err(format!("`{other}` is no layout: `neutral`, `agent`, or a folder such as `/opt/tests`"))
            }
        }
    }
}

impl JsonSchema for Layout {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Layout".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Where things lie in a guest: `neutral`, `agent`, or an absolute folder.",
            "type": "string",
            "anyOf": [{ "enum": ["neutral", "agent"] }, { "pattern": "^/." }],
        })
    }
}

/// What a guest must be before it is tested. Done in this order, each step recorded with its time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Preparation {
    /// Programs that must be there.
    pub commands: Vec<String>,
    /// Packages of the distribution that must be installed; `a|b` takes either name.
    pub packages: Vec<String>,
    /// Kernel modules to load; one that is built in is there.
    pub modules: Vec<String>,
    /// Disks that its machines have besides their own; they are there before all else. A machine without them is not
    /// reused.
    pub disks: Vec<Disk>,
    /// File systems to mount, unless one is mounted there.
    pub mounts: Vec<Mount>,
    /// Settings of the kernel by name, such as `net.core.somaxconn`.
    pub sysctls: BTreeMap<String, Text>,
    /// Files to write, such as `/sys/kernel/rcu_expedited`.
    pub files: BTreeMap<String, Text>,
    /// Archives of container images to load into the guest's docker, relative to `{root}`; patterns of `sh` will do.
    pub docker_images: Vec<String>,
    /// Scripts of the repository that run in the guest after all else, in `{root}`. Lines `NAME=VALUE` that one writes to the
    /// file named by `KMT_ENV` are in the environment of the tests, over what is said here.
    pub scripts: Vec<String>,
}

/// A disk: empty and of a size, or what an image holds. What is written to it goes with the machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Folder where the guest has it; where docker is, a disk at `/mnt/docker` is where it keeps its images.
    pub target: String,
    /// Size of an empty one, such as `512M` or `2G`; it lies in memory.
    pub size: Option<String>,
    /// File of an image (qcow2) with a file system, relative to `kmt.toml`.
    pub image: Option<String>,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mount {
    /// Its type, such as `debugfs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is mounted; by default the type's name.
    pub source: Option<String>,
    /// Where; made if it is not there.
    pub target: String,
    /// Options, with commas.
    pub options: Option<String>,
}

/// A text, also written as a number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text or a whole number")]
pub enum Text {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Text(text) => f.write_str(text),
            Text::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A text with what stands for the architecture put in.
pub fn for_arch(text: &str, arch: Arch) -> String {
    let machine = match arch {
        Arch::X86_64 => "x86_64",
        Arch::Arm64 => "aarch64",
    };
    text.replace("{arch}", arch.as_str()).replace("{goarch}", arch.deb()).replace("{machine}", machine)
}

impl Component {
    /// What is wrong with the component called `name`, beyond the meaning of single keys.
    ///
    /// # Errors
    /// Keys that do not go together, and which to change.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let wrong =
            |what: &str, hint: &str| Err(Failure::usage(format!("component `{name}` {what}")).hint(hint));
        let go = self.builder == BuilderKind::Go;
        if self.race && !self.cgo {
            return wrong("wants the race detector, which needs cgo", "`cgo = true` beside `race = true`");
        }
        if self.builder == BuilderKind::Prebuilt && self.folder.is_none() {
            return wrong("is prebuilt and names no folder", "`folder = \"DIR\"` in its section of kmt.toml");
        }
        if self.builder == BuilderKind::Command && (self.command.is_empty() || self.tests.is_empty()) {
            let hint = "`[[component.NAME.command]]` says how, `[component.NAME.tests]` names each package and its file";
            return wrong("is built by commands and has none, or no tests", hint);
        }
        if self.builder != BuilderKind::Command && !self.tests.is_empty() {
            return wrong("has `tests`, which only the builder `command` makes", "`builder = \"command\"`");
        }
        if go && self.format != Format::Gotest {
            return wrong("is built by Go, whose tests say their results as `gotest`", "leave `format` out");
        }
        let programs = self.binaries.len() + self.helpers.len();
        if !go && programs > 0 {
            return wrong(
                "has `binaries` or `helpers`, which only the builder `go` makes",
                "`artifacts` ships files",
            );
        }
        if self.prepare.disks.iter().any(|disk| disk.size.is_some() == disk.image.is_some()) {
            return wrong(
                "has a disk that is neither of a size nor of an image, or both",
                "`size = \"512M\"` is an empty one, `image = \"FILE\"` holds something",
            );
        }
        if self.command.iter().any(|command| command.argv.is_empty()) {
            return wrong("has a command of no words", "`argv = [\"make\", \"tests\"]`");
        }
        Ok(())
    }

    /// Folder of the component in a guest.
    pub fn layout_of(&self, name: &str) -> String {
        match &self.layout {
            Layout::Neutral | Layout::Agent => format!("/opt/{name}-tests"),
            Layout::Folder(folder) => folder.clone(),
        }
    }

    /// Environment of the tests: what the layout says, then the component's own. `{root}` and the architecture's
    /// names are not yet replaced.
    pub fn test_env(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        if self.layout == Layout::Agent {
            env.insert("DD_SYSTEM_PROBE_BPF_DIR".to_owned(), format!("{{root}}/{BPF_FOLDER}"));
        }
        env.extend(self.env.clone());
        env
    }

    /// The longest time `package` may take: the longest pattern that matches it, else the component's.
    pub fn timeout_of(&self, package: &str) -> Duration {
        longest_match(&self.timeouts, package).unwrap_or(self.timeout)
    }
}

fn every_package() -> Vec<String> {
    vec!["./...".to_owned()]
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}
