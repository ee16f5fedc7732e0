//! What is done with a pipeline besides explaining it: what failed runs here, jobs run again, jobs are waited for; and the
//! pipeline of a matrix, judged by linters of others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::made;
use super::server::{Mood, Project, Server, TOKEN};
use super::{Desk, compare, id};

/// The linters, from PyPI.
const LINTERS: [&str; 2] = ["check-jsonschema==0.39.0", "gitlab-ci-verify==2.11.12"];

fn fixture() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/agent").to_str().unwrap().to_owned()
}

/// A pipeline of these jobs: name and state.
fn pipeline(jobs: &[(u64, &str, &str)]) -> Project {
    let mut project = Project::default();
    project.pipelines.insert(5, json!({"id": 5, "status": "failed", "ref": "main"}));
    let job = |(id, name, status): &(u64, &str, &str)| json!({"id": id, "name": name, "status": status, "stage": "kernel_matrix_testing_prepare"});
    project.jobs.insert(5, jobs.iter().map(job).collect());
    project
}

#[test]
fn what_failed_becomes_cells_with_their_tests_and_the_size_of_ci() {
    let server = Server::start(made::project(), Mood::Well);
    let desk = Desk::new(&server);
    let env = [("KMT_GITLAB_PROJECT", "Group/agent"), ("KMT_LOG", "error")];
    let fixture = fixture();
    let id = id();
    let common = ["-C", fixture.as_str(), "plan", "--from-ci-pipeline", id.as_str(), "--format", "json"];
    let plan = |more: &[&str]| -> (Value, String) {
        let said = desk.call(&[&common, more].concat(), &env);
        assert_eq!(said.code, 0, "{}", said.stderr);
        desk.no_token(&said);
        (serde_json::from_str(&said.stdout).unwrap(), said.stderr)
    };
    let cells = |plan: &Value| -> BTreeMap<String, Vec<String>> {
        let rows = plan["cells"].as_array().unwrap().iter();
        let words = |list: &Value| {
            list.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        rows.map(|row| (row["id"].as_str().unwrap().to_owned(), words(&row["packages"]))).collect()
    };
    let (told, notices) = plan(&["--job", "*tests_x64*no_usm]"]);
    let tracer = vec!["pkg/network/tracer".to_owned()];
    let wanted = [
        ("debian_10/4.19.0-27/x86_64@remote+no_usm#4x12288", tracer.clone()),
        ("debian_12/6.1/x86_64@remote+no_usm#4x12288", tracer.clone()),
        ("debian_13/6.12/x86_64@remote+no_usm#4x12288", vec!["pkg/faults".to_owned()]),
        ("ubuntu_22.04/5.15.0-91-generic/x86_64@remote+no_usm#4x12288", tracer),
    ];
    let wanted: BTreeMap<String, Vec<String>> =
        wanted.into_iter().map(|(cell, packages)| (cell.to_owned(), packages)).collect();
    assert_eq!(cells(&told), wanted);
    assert!(notices.contains("pipeline 70000001"), "{notices}");

    // With flaky ones: a test of a job that passed when it was retried, in a package that did not fail elsewhere.
    let (told, _) = plan(&["--job", "x64: [fedora_38, no_usm]", "--include-flaky"]);
    assert_eq!(cells(&told).into_values().collect::<Vec<_>>(), [["pkg/ebpf"]]);

    let failed = ["--job", "centos_8", "--test", "TestNoSuch"];
    let said = desk.call(&[&common, failed.as_slice()].concat(), &env);
    assert_eq!(said.code, 4, "{}", said.stderr);
    let said = desk.call(&["-C", &fixture, "plan", "--from-ci-pipeline", "5"], &env);
    assert_eq!(said.code, 103, "{}", said.stderr);
}

#[test]
fn jobs_run_again_in_their_order() {
    let test = "kmt_run_sysprobe_tests_x64: [debian_12, no_usm]";
    let jobs = [
        (11, "kmt_setup_env_sysprobe_x64", "success"),
        (12, "kmt_sysprobe_cleanup_x64", "success"),
        (13, test, "failed"),
        (14, "kmt_run_sysprobe_tests_x64: [debian_11, no_usm]", "success"),
        (15, "lint", "failed"),
    ];
    let server = Server::start(pipeline(&jobs), Mood::Well);
    let desk = Desk::new(&server);
    let said = desk.call(&["ci", "retry", "5", "--dry-run"], &[("KMT_LOG", "error")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let posts = |server: &Server| -> Vec<String> {
        let all = server.requests().into_iter().map(|request| request.line);
        all.filter_map(|line| line.strip_prefix("POST /api/v4/projects/Group%2Fagent/").map(str::to_owned))
            .collect()
    };
    assert!(posts(&server).is_empty());
    let said = desk.call(&["ci", "retry", "5", "--format", "json"], &[("KMT_LOG", "error")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(posts(&server), ["jobs/11/retry", "jobs/12/retry", "jobs/13/retry"]);
    let told: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(told["steps"][2]["result"], "job 5000013 is pending");
}

#[test]
fn a_setup_job_is_waited_for_as_long_as_was_said() {
    let jobs = [
        (11, "kmt_setup_env_sysprobe_x64", "success"),
        (12, "kmt_setup_env_sysprobe_arm64", "failed"),
        (13, "kmt_setup_env_secagent_x64", "running"),
    ];
    let server = Server::start(pipeline(&jobs), Mood::Well);
    let desk = Desk::new(&server);
    let wait = |more: &[&str]| {
        let base = ["ci", "wait", "--timeout", "1s", "--interval", "300ms"];
        desk.call(&[&base, more].concat(), &[("CI_PIPELINE_ID", "5"), ("KMT_LOG", "error")])
    };
    let x64 = ["--component", "system-probe", "--arch", "x86_64"];
    assert_eq!(wait(&x64).code, 0);
    let failed = wait(&["--component", "system-probe"]);
    assert!(failed.code == 102 && failed.stderr.contains("kmt-run ci retry 5"), "{}", failed.stderr);
    let late = wait(&["secagent"]);
    assert!(late.code == 103 && late.stderr.contains("is running"), "{}", late.stderr);
    assert_eq!(wait(&["no-such-job"]).code, 103);
}

#[expect(clippy::disallowed_methods, reason = "linters are processes")]
fn run(program: &Path, args: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).env_remove("GITLAB_TOKEN");
    command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// The folder of the linters' programs; they are installed at first.
fn linters() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ci-linters");
    let done = home.join(LINTERS.join("+"));
    if !done.is_file() {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let made = run(Path::new("python3"), &["-m", "venv", "ci-linters"], tmp);
        assert!(made.status.success(), "python3 -m venv: apt-get install python3-venv\n{made:?}");
        let pip = [&["install", "--quiet", "--disable-pip-version-check"], LINTERS.as_slice()].concat();
        let installed = run(&home.join("bin/pip"), &pip, tmp);
        assert!(installed.status.success(), "pip install: {}", String::from_utf8_lossy(&installed.stderr));
        fs::write(done, "").unwrap();
    }
    home.join("bin")
}

/// Panics where a linter finds anything in the text.
fn lint(bin: &Path, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".gitlab-ci.yml"), text).unwrap();
    run(Path::new("git"), &["init", "--quiet", "."], folder.path());
    let schema = ["--builtin-schema", "vendor.gitlab-ci", ".gitlab-ci.yml"];
    for (program, args) in [("check-jsonschema", schema.as_slice()), ("gitlab-ci-verify", &["--no-lint-api"])]
    {
        let output = run(&bin.join(program), args, folder.path());
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{program}: {}\n{text}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn the_pipeline_of_a_matrix_is_stable_and_linters_find_nothing() {
    let desk = Desk::new(&Server::start(Project::default(), Mood::Well));
    let emit = |args: &[&str]| {
        let said = desk.call(&[&["ci", "emit"], args].concat(), &[("KMT_LOG", "error")]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""));
        said.stdout
    };
    let vms = [
        "--vms",
        "debian_12-local-distro,custom-6.12-local",
        "--tag",
        "kvm,large",
        "--packages",
        "./pkg/a b",
    ];
    let cells = emit(&vms);
    assert_eq!(cells, emit(&vms), "the same matrix gives the same bytes");
    let arch = kmt_reporters::event::Arch::host().as_str();
    compare("child-cells.yml", &cells.replace(arch, "<arch>"));
    let parts = emit(&[
        "--vms",
        "debian_12-local-distro",
        "--parallel",
        "3",
        "--no-build-job",
        "--image",
        "debian:12",
    ]);
    compare("child-parts.yml", &parts);
    let bin = linters();
    lint(&bin, &cells);
    lint(&bin, &parts);
    for matrix in ["system-probe.toml", "security-agent.toml", "smoke.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("matrices").join(matrix);
        lint(&bin, &emit(&[path.to_str().unwrap()]));
    }
    // What jobs have in common is judged as a job: a schema does not look into hidden ones.
    let shown = cells.replace("\n.kmt-run:\n", "\ncommon:\n  script: [\"true\"]\n");
    let shown = shown.replace("extends: .kmt-run", "extends: common");
    lint(&bin, &shown);
    // The linters do find what is wrong.
    let wrong = shown.replace("max: 2", "max: 9");
    assert!(std::panic::catch_unwind(|| lint(&bin, &wrong)).is_err());
}

/// The pipeline of jobs that are a `kmt-run`: one left its event log, one was killed before it had any.
#[test]
fn jobs_that_are_a_kmt_run_are_explained_by_their_event_log() {
    let mut project = pipeline(&[
        (21, "kmt-run: [debian_12/6.1/x86_64]", "failed"),
        (22, "kmt-run: [debian_13/6.12/x86_64]", "failed"),
    ]);
    project.files.insert((21, "kmt-out/events.jsonl".to_owned()), events());
    project
        .files
        .insert((22, "trace".to_owned()), b"ERROR: Job failed (system failure): pod gone\n".to_vec());
    let server = Server::start(project, Mood::Well);
    let desk = Desk::new(&server);
    let said = desk.call(&["explain", "5"], &[("KMT_LOG", "error")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("TestB"), "{}", said.stdout);
    assert!(said.stdout.contains("the runner failed"), "{}", said.stdout);
    desk.no_token(&said);
    assert!(server.requests().iter().all(|request| !request.storage || !request.headers.contains(TOKEN)));
}

/// The log of a run in which a test failed.
fn events() -> Vec<u8> {
    let cell = "debian_12/6.1/x86_64";
    let rows = [
        json!({"event": "run-started", "run": "r", "version": "0", "command": ["kmt-run"], "component": "system-probe",
            "stack": "s", "test_failure_exit_code": 100, "root": "/x"}),
        json!({"event": "cell-selected", "cell": cell, "distro": "debian", "distro_version": "12"}),
        json!({"event": "plan-made", "shards": [{"cell": cell, "package": "pkg/a"}]}),
        json!({"event": "machine-ready", "machine": "m", "cell": cell, "kernel_release": "6.1.0", "machine_arch": "x86_64",
            "os_name": "debian-12", "duration_ms": 1}),
        json!({"event": "shard-started", "machine": "m", "cell": cell, "package": "pkg/a", "attempt": 1}),
        json!({"event": "test-started", "machine": "m", "cell": cell, "package": "pkg/a", "test": "TestB", "attempt": 1}),
        json!({"event": "test-finished", "machine": "m", "cell": cell, "package": "pkg/a", "test": "TestB", "attempt": 1,
            "result": "fail", "duration_ms": 3, "message": "want 42"}),
        json!({"event": "run-finished", "why": "completed"}),
    ];
    let mut text = String::new();
    for (seq, mut row) in rows.into_iter().enumerate() {
        let head = json!({"schema": 1, "seq": seq, "time": "2026-01-01T00:00:00Z", "elapsed_ms": seq});
        row.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
        text += &format!("{row}\n");
    }
    text.into_bytes()
}
