//! One scenario on its stage: folders of its own, calls of `kmt-run` as processes of their own.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kmt_run::external::scripted::{KILL_AT, Script, Stage};
use tempfile::TempDir;

use crate::{check, expected};

/// Where the stage is; makes this program a `kmt-run`.
pub(crate) const STAGE: &str = "KMT_SCRIPTED_STAGE";
/// Where its script is.
pub(crate) const SCRIPT: &str = "KMT_SCRIPTED_SCRIPT";
/// Longest time of one call.
const PATIENCE: Duration = Duration::from_secs(90);

const KMT_TOML: &str = "[component.suite]\nbuilder = \"go\"\npackages = [\"./...\"]\n";

/// Where the scenarios are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// A stage, a repository and a home, gone when dropped.
pub(crate) struct Scene {
    pub(crate) temp: TempDir,
    script: PathBuf,
}

/// What a call came to.
pub(crate) struct Said {
    /// Exit code, or `killed`.
    pub(crate) code: String,
    /// Standard error, then standard output.
    pub(crate) text: String,
    /// Folder of the run it recorded, if it did.
    pub(crate) run: Option<PathBuf>,
}

/// Images as built once; every scene gets a copy.
fn images() -> &'static Path {
    static IMAGES: OnceLock<TempDir> = OnceLock::new();
    let temp = IMAGES.get_or_init(|| {
        let scene = Scene::bare("");
        let said = scene.call(&["images", "build", "debian_12", "debian_13", "custom-6.12"], &[]);
        assert_eq!(said.code, "0", "{}", said.text);
        scene.temp
    });
    temp.path()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Scene {
    fn bare(world: &str) -> Scene {
        let temp = tempfile::Builder::new().prefix("kmt-scene-").tempdir().unwrap();
        let script = temp.path().join("world.toml");
        fs::write(&script, world).unwrap();
        fs::create_dir(temp.path().join("repo")).unwrap();
        fs::write(temp.path().join("repo/kmt.toml"), KMT_TOML).unwrap();
        Scene { temp, script }
    }

    /// With images.
    pub(crate) fn new(world: &str) -> Scene {
        let scene = Scene::bare(world);
        copy(&images().join("home/images"), &scene.home().join("images"));
        scene
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.temp.path().join("home")
    }

    pub(crate) fn stage(&self) -> Stage {
        let script = Script::parse(&fs::read_to_string(&self.script).unwrap()).unwrap();
        Stage::open(script, &self.temp.path().join("stage"))
    }

    fn runs(&self) -> Vec<PathBuf> {
        let listed = fs::read_dir(self.home().join("runs"));
        let folders = listed.into_iter().flatten().flatten().map(|entry| entry.path());
        folders.filter(|path| path.is_dir() && !path.is_symlink()).collect()
    }

    /// Calls `kmt-run`, which kills itself at that step of its dealings with the world.
    pub(crate) fn killed_at(&self, step: u32, args: &[&str]) -> Said {
        self.call(args, &[(KILL_AT, &step.to_string())])
    }

    /// Calls `kmt-run`.
    #[expect(clippy::disallowed_methods, reason = "the program under test is a process")]
    pub(crate) fn call(&self, args: &[&str], env: &[(&str, &str)]) -> Said {
        let before = self.runs();
        let at = |name: &str| self.temp.path().join(name);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.temp.path())
            .env("KMT_HOME", self.home())
            .env("COLUMNS", "100")
            .env("LC_ALL", "C.UTF-8")
            .env(STAGE, at("stage"))
            .env(SCRIPT, &self.script)
            .envs(env.iter().copied())
            .current_dir(at("repo"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(at("stdout")).unwrap())
            .stderr(fs::File::create(at("stderr")).unwrap())
            .spawn()
            .unwrap();
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > until => {
                    child.kill().unwrap();
                    panic!("`{}` hangs:\n{}", args.join(" "), fs::read_to_string(at("stderr")).unwrap());
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let code = match (status.code(), status.signal()) {
            (Some(code), _) => code.to_string(),
            (None, Some(9)) => "killed".to_owned(),
            (None, other) => format!("signal {other:?}"),
        };
        let text = ["stderr", "stdout"].map(|name| fs::read_to_string(at(name)).unwrap()).concat();
        let run = self.runs().into_iter().find(|run| !before.contains(run));
        Said { code, text, run }
    }

    /// Removes everything, and looks that nothing is left.
    pub(crate) fn strike(&self) {
        let said = self.call(&["stack", "destroy", "--all", "--yes"], &[]);
        assert_eq!(said.code, "0", "destroy: {}", said.text);
        check::nothing_left(self);
    }
}

/// Words of a line; single quotes hold blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Plays the scenario in the folder of that name.
pub(crate) fn play(name: &str) {
    let folder = folder().join(name);
    let world = fs::read_to_string(folder.join("world.toml")).expect("each folder has a world.toml");
    let invocation = fs::read_to_string(folder.join("invocation")).expect("each folder has an invocation");
    let scene = if invocation.contains("# no images") { Scene::bare(&world) } else { Scene::new(&world) };
    for file in ["kmt.toml", "matrix.toml"] {
        if folder.join(file).exists() {
            fs::copy(folder.join(file), scene.temp.path().join("repo").join(file)).unwrap();
        }
    }
    let (mut terminal, mut results, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for line in invocation.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let words = words(line);
        let (promised, words) = words.split_first().unwrap();
        let (env, args): (Vec<&str>, Vec<&str>) = {
            let at = words.iter().position(|word| !word.contains('=')).unwrap_or(words.len());
            let (env, args) = words.split_at(at);
            (env.iter().map(String::as_str).collect(), args.iter().map(String::as_str).collect())
        };
        let env: Vec<(&str, &str)> = env.iter().filter_map(|word| word.split_once('=')).collect();
        let calls = scene.stage().calls().len();
        let said = scene.call(&args, &env);
        let shown = expected::redact(&said.text, scene.temp.path());
        assert_eq!(&said.code, promised, "exit code of `{line}`:\n{shown}");
        terminal.push(format!("$ kmt-run {}\n{shown}", args.join(" ")));
        results.push(format!(
            "$ kmt-run {}\n{}",
            args.join(" "),
            said.run.as_ref().map_or(String::new(), |run| {
                expected::redact(&expected::results(run), scene.temp.path())
            })
        ));
        counts.push(format!(
            "$ kmt-run {}\n{}",
            args.join(" "),
            expected::counts(&scene.stage().calls()[calls..])
        ));
        if said.code == "killed" {
            check::journal(&scene);
            continue;
        }
        if let Some(run) = &said.run {
            check::record(run, &said.code);
        }
        check::order(&scene);
    }
    if !invocation.contains("# leaves machines") {
        scene.strike();
    }
    expected::compare(&folder.join("expected/terminal"), &terminal);
    expected::compare(&folder.join("expected/results"), &results);
    expected::compare(&folder.join("expected/world"), &counts);
}
