//! One scenario on its stage: folders of its own, calls of `kmt-run` as processes of their own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kmt_run::external::scripted::{KILL_AT, Power, Script, Stage};
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
    calls: AtomicU32,
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
static IMAGES: OnceLock<TempDir> = OnceLock::new();

/// Removes what outlives a scene.
pub(crate) fn clear() {
    if let Some(images) = IMAGES.get() {
        fs::remove_dir_all(images.path()).unwrap();
    }
}

fn images() -> &'static Path {
    let temp = IMAGES.get_or_init(|| Scene::with_images("", &["debian_12", "debian_13", "custom-6.12"]).temp);
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
        Scene { temp, script, calls: AtomicU32::new(0) }
    }

    /// With these images, built by a world without a script.
    fn with_images(world: &str, names: &[&str]) -> Scene {
        let scene = Scene::bare("");
        if !names.is_empty() {
            let said = scene.call(&[&["images", "build"], names].concat(), &[]);
            assert_eq!(said.code, "0", "{}", said.text);
        }
        fs::write(&scene.script, world).unwrap();
        scene
    }

    /// With images.
    pub(crate) fn new(world: &str) -> Scene {
        let scene = Scene::bare(world);
        copy(&images().join("home/images"), &scene.home().join("images"));
        scene
    }

    /// Says more in `kmt.toml`.
    pub(crate) fn configure(&self, more: &str) {
        fs::write(self.temp.path().join("repo/kmt.toml"), format!("{KMT_TOML}{more}")).unwrap();
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
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (stdout, stderr) = (at(&format!("stdout.{number}")), at(&format!("stderr.{number}")));
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
            .stdout(fs::File::create(&stdout).unwrap())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > until => {
                    child.kill().unwrap();
                    panic!("`{}` hangs:\n{}", args.join(" "), fs::read_to_string(&stderr).unwrap());
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let code = match (status.code(), status.signal()) {
            (Some(code), _) => code.to_string(),
            (None, Some(9)) => "killed".to_owned(),
            (None, other) => format!("signal {other:?}"),
        };
        let text = [stderr, stdout].map(|file| fs::read_to_string(file).unwrap()).concat();
        let run = self.runs().into_iter().find(|run| !before.contains(run));
        Said { code, text, run }
    }

    /// Removes everything in a world without faults, and looks that nothing is left.
    pub(crate) fn strike(&self) {
        fs::write(&self.script, "").unwrap();
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

/// One byte of each image is another.
fn spoil(folder: &Path) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            spoil(&path);
        } else if path.extension().is_some_and(|ending| ending == "ext4") {
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }
}

/// What happens to files, images, or all machines, while no `kmt-run` looks.
fn meanwhile(scene: &Scene, what: &str) {
    match what {
        // What is refused stands at the end of a script.
        "nothing-is-refused" => {
            let script = fs::read_to_string(&scene.script).unwrap();
            let kept = script.split("[[refusal]]").next().unwrap_or_default();
            return fs::write(&scene.script, kept).unwrap();
        }
        "images-spoiled" => return spoil(&scene.home().join("images")),
        "garbage" => {
            let bytes: Vec<u8> =
                (0..10_u32 << 20).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
            return fs::write(scene.temp.path().join("repo/garbage.toml"), bytes).unwrap();
        }
        _ => {}
    }
    let stage = scene.stage();
    if let Some((what @ ("host-dies" | "host-comes"), host)) = what.split_once(' ') {
        return stage.strike_host(host, what);
    }
    for domain in stage.domains() {
        match what {
            "off" => stage.change(&domain.name, |domain| domain.power = Power::Off),
            "silent" => stage.change(&domain.name, |domain| domain.power = Power::Silent),
            "forgotten" => stage.forget(&domain.name),
            other => panic!("`! {other}` is nothing a world does"),
        }
    }
}

/// One line of `invocation`: what is promised, variables, words.
struct Line {
    promised: String,
    orderly: bool,
    env: Vec<(String, String)>,
    args: Vec<String>,
}

fn line(text: &str) -> Line {
    let mut words = words(text);
    let promised = words.remove(0);
    let at = words.iter().position(|word| !word.contains('=')).unwrap_or(words.len());
    let args = words.split_off(at);
    let env = words.iter().filter_map(|word| word.split_once('='));
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let orderly = !promised.starts_with('~') && promised != "killed";
    Line { promised: promised.trim_start_matches('~').to_owned(), orderly, env, args }
}

fn set(name: &str, folder: &Path, invocation: &str) -> Scene {
    let world = fs::read_to_string(folder.join("world.toml"));
    let world = world.unwrap_or_else(|error| panic!("{name}/world.toml: {error}"));
    let scene = match invocation.lines().find_map(|line| line.strip_prefix("# images")) {
        Some(names) => Scene::with_images(&world, &names.split_whitespace().collect::<Vec<_>>()),
        None => Scene::new(&world),
    };
    // Every other file of the scenario is one of the repository.
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let file = entry.file_name();
        if file == "user.toml" {
            // The user's own file.
            let folder = scene.temp.path().join(".config/kmt-run");
            fs::create_dir_all(&folder).unwrap();
            fs::copy(entry.path(), folder.join("config.toml")).unwrap();
            continue;
        }
        if entry.file_type().unwrap().is_file() && file != "world.toml" && file != "invocation" {
            fs::copy(entry.path(), scene.temp.path().join("repo").join(file)).unwrap();
        }
    }
    scene
}

/// Values that tests are given: by the environment, or typed.
fn values(env: &[(&str, &str)], args: &[&str]) -> Vec<String> {
    let passed = env.iter().filter(|(name, _)| !name.starts_with("KMT_")).map(|(_, value)| *value);
    let typed =
        args.windows(2).filter(|pair| pair[0] == "--test-env").filter_map(|pair| pair[1].split_once('='));
    passed.chain(typed.map(|(_, value)| value)).map(str::to_owned).collect()
}

/// Plays the scenario in the folder of that name.
pub(crate) fn play(name: &str) {
    let folder = folder().join(name);
    let invocation = fs::read_to_string(folder.join("invocation")).expect("each folder has an invocation");
    let scene = set(name, &folder, &invocation);
    let (mut terminal, mut results, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    let mut given = BTreeSet::new();
    for text in invocation.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        if let Some(what) = text.strip_prefix("! ") {
            meanwhile(&scene, what);
            continue;
        }
        let line = line(text);
        let args: Vec<&str> = line.args.iter().map(String::as_str).collect();
        let env: Vec<(&str, &str)> =
            line.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let calls = scene.stage().calls().len();
        let said = scene.call(&args, &env);
        let redact = |text: &str| expected::redact(text, scene.temp.path());
        assert_eq!(said.code, line.promised, "exit code of `{text}`:\n{}", redact(&said.text));
        let prompt = format!("$ kmt-run {}\n", args.join(" "));
        terminal.push(format!("{prompt}{}", redact(&said.text)));
        let told = said.run.as_deref().map(expected::results).unwrap_or_default();
        results.push(format!("{prompt}{}", redact(&told)));
        counts.push(format!("{prompt}{}", expected::counts(&scene.stage().calls()[calls..])));
        check::tame(&said.text);
        check::journal(&scene);
        if let Some(run) = said.run.as_ref().filter(|_| said.code != "killed") {
            check::record(&scene, run, &said.code);
            check::replay(&scene, run, &args, &said.text);
            check::junit(&scene, &args);
            check::secrets(run, &said.text, &env);
        }
        given.extend(values(&env, &args));
        check::flares(&scene, &given);
        if line.orderly {
            check::order(&scene);
        }
    }
    if !invocation.contains("# nothing is removed") {
        scene.strike();
    }
    expected::compare(&folder.join("expected/terminal"), &terminal);
    expected::compare(&folder.join("expected/results"), &results);
    expected::compare(&folder.join("expected/world"), &counts);
}
