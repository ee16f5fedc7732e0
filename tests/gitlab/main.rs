//! `kmt-run` against a GitLab: a made pipeline with everything that goes wrong, told in every form.
//!
//! `GITLAB=overwrite cargo nextest run --test gitlab` writes what is expected; read it before it is committed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ci;
mod made;
mod net;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use made::PIPELINE;
use serde_json::Value;
use server::{Mood, Project, Request, Server, TOKEN};
use tempfile::TempDir;

/// A home and a repository.
struct Desk {
    temp: TempDir,
    url: String,
}

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Desk {
    fn new(server: &Server) -> Desk {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("repo")).unwrap();
        let components = "default-component = \"system-probe\"\n[component.system-probe]\nbuilder = \"go\"\n\
                          [component.security-agent]\nbuilder = \"go\"\n[gitlab]\nproject = \"Group/agent\"\n";
        fs::write(temp.path().join("repo/kmt.toml"), components).unwrap();
        Desk { temp, url: server.url.clone() }
    }

    #[expect(clippy::disallowed_methods, reason = "the program under test is a process")]
    fn call(&self, args: &[&str], env: &[(&str, &str)]) -> Said {
        let began = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_kmt-run"))
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.temp.path())
            .env("KMT_HOME", self.temp.path().join("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("KMT_LOG", "trace")
            .env("KMT_GITLAB_URL", &self.url)
            .env("KMT_GITLAB_TOKEN", TOKEN)
            .envs(env.iter().copied())
            .current_dir(self.temp.path().join("repo"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let watching = std::thread::spawn({
            let ended = Arc::clone(&ended);
            move || no_process_is_told_the_token(&ended)
        });
        let output = child.wait_with_output().unwrap();
        ended.store(true, Ordering::Relaxed);
        watching.join().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        Said { code: output.status.code().unwrap(), stdout, stderr, took: began.elapsed() }
    }

    /// The token is in nothing that was said and in no file that was left.
    fn no_token(&self, said: &Said) {
        assert!(!said.stdout.contains(TOKEN), "the output has the token");
        assert!(!said.stderr.contains(TOKEN), "the log has the token:\n{}", said.stderr);
        let mut folders = vec![self.temp.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                assert!(!path.to_string_lossy().contains(TOKEN), "{} has the token", path.display());
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
                    assert!(!found, "{} has the token", path.display());
                }
            }
        }
    }
}

/// Looks at the arguments of all processes of this machine until the end.
fn no_process_is_told_the_token(ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let told = line.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
            assert!(!told, "a process has the token: {}", String::from_utf8_lossy(&line));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn expected(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gitlab/expected").join(name)
}

/// Compares with what is expected; the cost is asserted elsewhere.
fn compare(name: &str, text: &str) {
    let path = expected(name);
    if std::env::var("GITLAB").is_ok_and(|word| word == "overwrite") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    let line = wanted.lines().zip(text.lines()).position(|(a, b)| a != b);
    assert!(wanted == text, "{} differs in line {line:?}:\n{text}", path.display());
}

fn without_cost(text: &str) -> String {
    // Which machines are near depends on the one the test runs on.
    let kept = text.lines().filter(|line| !line.contains(" fetched, ") && !line.contains("kmt-run run --"));
    kept.fold(String::new(), |all, line| all + line + "\n")
}

fn good(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| matches!(request.status, 200 | 302 | 404)).collect()
}

fn id() -> String {
    PIPELINE.to_string()
}

#[test]
fn a_red_pipeline_is_explained_in_every_form() {
    let server = Server::start(made::project(), Mood::Unreliable);
    let desk = Desk::new(&server);
    let said = desk.call(&["explain", &id()], &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    desk.no_token(&said);
    compare("terminal", &without_cost(&said.stdout));
    let first = server.requests();
    for request in &first {
        let shown = request.headers.contains(TOKEN);
        assert_eq!(shown, !request.storage, "{request:?}");
        assert_ne!(request.status, 400, "{request:?}");
        assert!(!request.line.contains(TOKEN));
    }
    // Nothing is asked for twice but what failed.
    let mut right: Vec<&str> =
        first.iter().filter(|r| r.status == 404 || r.status == 302).map(|r| r.line.as_str()).collect();
    right.sort_unstable();
    let again = right.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let cut = first.iter().filter(|request| request.storage).count();
    eprintln!("{} requests, {} to the storage, {again} again, {:?}", first.len(), cut, said.took);
    assert!(first.len() < 230, "{} requests", first.len());

    // The second time only the state is asked for: pipelines, pages of jobs, bridges.
    let said = desk.call(&["explain", &id(), "--format", "markdown"], &[]);
    compare("markdown", &without_cost(&said.stdout));
    let second = server.requests();
    let state = good(&second);
    assert!(state.iter().all(|request| request.line.contains("/pipelines/")), "{state:#?}");
    eprintln!("the second time: {} requests, {:?}", second.len(), said.took);

    let said = desk.call(&["explain", &id(), "--format", "html"], &[]);
    desk.no_token(&said);
    compare("html", &without_cost(&said.stdout));
    let _ = server.requests();
    let said = desk.call(&["explain", &id(), "--format", "json"], &[]);
    desk.no_token(&said);
    let mut value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(value["schema"], 1);
    let third = server.requests().len() as u64;
    assert_eq!(value["cost"]["requests"].as_u64().unwrap(), third, "what is printed is what was asked");
    assert!(value["cost"]["cached"].as_u64().unwrap() > 20);
    let commands = value["reproduce"].as_array().unwrap();
    assert!(commands.iter().any(|it| {
        let it = it.as_str().unwrap();
        it.contains("--component system-probe")
            && it.ends_with("--run '^TestTracerSuite$/^prebuilt$/^TestDNSStats$'")
    }));
    value.as_object_mut().unwrap().remove("cost");
    value.as_object_mut().unwrap().remove("reproduce");
    compare("json", &format!("{value:#}\n"));
}

#[test]
fn the_newest_pipeline_of_the_branch_is_meant_where_none_is_named() {
    let server = Server::start(made::project(), Mood::Well);
    let desk = Desk::new(&server);
    let said = desk.call(&["explain", "--format", "json"], &[("CI_COMMIT_REF_NAME", "main")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(value["subject"]["name"], id());
    let said = desk.call(&["explain"], &[("CI_COMMIT_REF_NAME", "other")]);
    assert_eq!(said.code, 103);
    assert!(said.stderr.contains("has no pipeline"), "{}", said.stderr);
}

#[test]
fn refusals_say_what_to_do() {
    let server = Server::start(Project::default(), Mood::Well);
    let desk = Desk::new(&server);
    let quiet = ("KMT_LOG", "error");
    for (args, env, words) in [
        (
            ["explain", "5"],
            [quiet, ("KMT_GITLAB_TOKEN", "glpat-wrong")],
            "hint: make a token with scope `read_api`",
        ),
        (["explain", "5"], [quiet, ("KMT_GITLAB_TOKEN", "")], "caused by: no token was given"),
        (["explain", "5"], [quiet, ("X", "")], "hint: the project (KMT_GITLAB_PROJECT"),
        (["explain", "5"], [quiet, ("KMT_GITLAB_URL", "nonsense://")], "caused by: it is no URL"),
    ] {
        let said = desk.call(&args, &env);
        assert_eq!(said.code, 103, "{}", said.stderr);
        assert!(said.stderr.contains(words), "{words}:\n{}", said.stderr);
        assert!(!said.stderr.contains("glpat"), "{}", said.stderr);
    }
    let job = [
        quiet,
        ("KMT_GITLAB_TOKEN", ""),
        ("KMT_GITLAB_URL", ""),
        ("CI_SERVER_URL", server.url.as_str()),
        ("CI_JOB_TOKEN", "jobtoken"),
    ];
    let said = desk.call(&["explain", "5"], &job);
    assert!(said.code == 103 && said.stderr.contains("a job token cannot do this"), "{}", said.stderr);
    let proxy = Server::start(Project::default(), Mood::Proxy);
    let said = Desk::new(&proxy).call(&["explain", "5"], &[quiet]);
    assert_eq!(said.code, 103);
    assert!(said.stderr.contains("a page `Please sign in to the corporate proxy`"), "{}", said.stderr);
}

#[test]
fn nothing_failed_is_said_too() {
    let mut project = Project::default();
    project.pipelines.insert(5, serde_json::json!({"id": 5, "status": "success", "ref": "main"}));
    project.jobs.insert(5, vec![serde_json::json!({"id": 1, "name": "lint", "status": "success"})]);
    let server = Server::start(project, Mood::Well);
    let said = Desk::new(&server).call(&["explain", "5"], &[("KMT_LOG", "error")]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    assert!(said.stdout.starts_with("pipeline 5 of main: success\n0 jobs, none failed\n"), "{}", said.stdout);
}
