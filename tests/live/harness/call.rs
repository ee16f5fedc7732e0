//! One call of the program: started, watched, signalled, ended within a hard limit.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::told::{self, Told};
use super::{Home, Namespace, program};

/// How long a call may take unless it says otherwise.
const LIMIT: Duration = Duration::from_secs(120);

/// A call to be.
pub(crate) struct Call<'h> {
    home: &'h Home,
    command: Command,
    line: String,
    limit: Duration,
}

impl<'h> Call<'h> {
    pub(super) fn new<'a>(home: &'h Home, args: impl IntoIterator<Item = &'a str>) -> Call<'h> {
        let args: Vec<&str> = args.into_iter().collect();
        let mut command = Command::new(program());
        command.args(&args).current_dir("/").stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["KMT_", "CI", "FIXTURE_", "XDG_CACHE", "XDG_DATA"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(&*name);
            }
        }
        command.env("KMT_HOME", &home.folder).env("COLUMNS", "200").env("LC_ALL", "C.UTF-8");
        // Stories boot; the one of warm starts asks for them.
        command.env("KMT_WARM", "off");
        Call { home, command, line: format!("kmt-run {}", args.join(" ")), limit: LIMIT }
    }

    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has it run in a namespace.
    pub(crate) fn inside(mut self, namespace: &Namespace) -> Self {
        let mut outer = namespace.enter();
        outer.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer.current_dir("/").stdin(Stdio::null());
        self.command = outer;
        self
    }

    /// Sets how many seconds it may take.
    pub(crate) fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Starts it.
    pub(crate) fn start(mut self) -> Running<'h> {
        println!("           $ {}", self.line);
        let said = self.home.folder.join("said");
        fs::create_dir_all(&said).unwrap();
        let number = fs::read_dir(&said).unwrap().count();
        let (out, err) = (said.join(format!("{number}.out")), said.join(format!("{number}.err")));
        let runs = self.home.runs();
        let begun = Instant::now();
        let child = self
            .command
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program().display()));
        Running {
            home: self.home,
            child,
            line: self.line,
            begun,
            limit: self.limit,
            out,
            err,
            runs,
            ended: None,
        }
    }

    /// Starts it and waits for its end.
    pub(crate) fn end(self) -> Ended {
        self.start().end()
    }
}

/// A call that was started. Dropped before its end, it is killed.
pub(crate) struct Running<'h> {
    home: &'h Home,
    child: Child,
    line: String,
    begun: Instant,
    limit: Duration,
    out: PathBuf,
    err: PathBuf,
    runs: BTreeSet<PathBuf>,
    ended: Option<(ExitStatus, Duration)>,
}

impl Running<'_> {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has said on standard error.
    fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    /// The run directory, once it is there.
    pub(crate) fn run_folder(&self) -> Option<PathBuf> {
        self.home.runs().difference(&self.runs).next().cloned()
    }

    /// Whether it has ended; takes note of its stacks meanwhile.
    fn poll(&mut self) -> Option<(ExitStatus, Duration)> {
        self.home.remember();
        if self.ended.is_none() {
            let took = self.begun.elapsed();
            self.ended = self.child.try_wait().unwrap().map(|status| (status, took));
        }
        self.ended
    }

    /// Waits until it has written an event.
    pub(crate) fn wait_for_event(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let line = self.line.clone();
        loop {
            let events = self.run_folder().map(|folder| told::events(&folder)).unwrap_or_default();
            if let Some(event) = events.into_iter().find(&is_it) {
                return event;
            }
            let over = self.poll().is_some() || self.begun.elapsed() > self.limit;
            assert!(!over, "`{line}` tells no {what}:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it is gone, whatever it came to.
    pub(crate) fn gone(mut self) {
        self.child.wait().map(|_| self.ended = Some((ExitStatus::default(), self.begun.elapsed()))).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let (status, wall) = loop {
            if let Some(ended) = self.poll() {
                break ended;
            }
            assert!(
                self.begun.elapsed() < self.limit,
                "`{}` takes longer than {} s:\n{}",
                self.line,
                self.limit.as_secs(),
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        Ended {
            line: self.line.clone(),
            code: status.code(),
            signal: status.signal(),
            stdout: String::from_utf8_lossy(&fs::read(&self.out).unwrap()).into_owned(),
            stderr: self.stderr(),
            wall,
            run: self.run_folder(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    line: String,
    /// Exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// The run directory it made, if it made one.
    pub(crate) run: Option<PathBuf>,
}

impl Ended {
    /// Panics unless it ended with this code and said nothing like a crash. What it recorded must agree.
    pub(crate) fn expect(self, code: i32) -> Ended {
        println!("           = {:?} after {:.1} s", self.code, self.wall.as_secs_f64());
        assert_eq!(self.code, Some(code), "exit code of `{}`:\n{}\n{}", self.line, self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked at"), "{}", self.stderr);
        if let Some(folder) = &self.run {
            Told::read(folder).agree();
        }
        self
    }

    /// What the run told.
    pub(crate) fn told(&self) -> Told {
        Told::read(self.run.as_deref().unwrap_or_else(|| panic!("`{}` recorded nothing", self.line)))
    }

    /// Panics unless it was refused with this code before a run began, saying all of `words`, with a hint.
    pub(crate) fn refused(self, code: i32, words: &[&str]) -> Ended {
        let ended = self.expect(code);
        for word in words.iter().chain(&["error: ", "hint: "]) {
            assert!(ended.stderr.contains(word), "`{}` does not say `{word}`:\n{}", ended.line, ended.stderr);
        }
        assert_eq!(ended.run, None, "`{}` began a run", ended.line);
        ended
    }
}
