//! Machines as people reach them: plain OpenSSH through the generated configuration, `ssh`, `exec`, `cp`, `console`,
//! `status`, and tmux looked at with `capture-pane`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Home, cell, fixture, program, step, text, wait_for};

/// How long a shell in an emulated machine may take to answer.
const PROMPT: Duration = Duration::from_secs(60);
const STACK: &str = "reach.1";

fn booted(home: &Home) {
    let matrix = home.folder.join("two.toml");
    let vms =
        "vms = [\"debian_12-local-distro\", \"custom-6.12-local\"]\npackages = [\"./pkg/util/kernel\"]\n";
    fs::write(&matrix, format!("root = {:?}\n{vms}", fixture())).unwrap();
    home.call(["run", &text(matrix), "--stack", STACK]).limit(300).end().expect(0);
}

/// `kmt-run stack …` in the stack; its standard output.
fn stack(home: &Home, words: &[&str], code: i32) -> String {
    let (verb, rest) = words.split_first().unwrap();
    let args = ["stack", verb, "--stack", STACK].into_iter().chain(rest.iter().copied());
    home.call(args).limit(180).end().expect(code).stdout
}

/// A user's OpenSSH configuration that includes the generated one and is careless about everything else.
fn user_config(home: &Home) -> PathBuf {
    let folder = home.folder.join("a user's .ssh");
    fs::create_dir_all(&folder).unwrap();
    let generated = home.call(["ssh-config"]).end().expect(0);
    assert_eq!(generated.stderr, "", "something else was said");
    fs::write(folder.join("kmt_ssh_config"), generated.stdout).unwrap();
    let config = folder.join("config");
    let careless = "Host *\n  User nobody\n  Port 1\n  StrictHostKeyChecking no\n  ProxyCommand false\n";
    fs::write(&config, format!("Include \"{}\"\n{careless}", text(folder.join("kmt_ssh_config")))).unwrap();
    config
}

fn ssh(config: &Path, options: &[&str], host: &str, words: &[&str]) -> Output {
    let mut command = Command::new("ssh");
    command.arg("-v").arg("-F").arg(config).args(options).arg("-n").arg(host).args(words);
    command.current_dir("/usr").output().unwrap()
}

#[test]
fn people_reach_machines() {
    let home = Home::new("reach");
    booted(&home);

    step("plain OpenSSH from another folder, whatever the user's own configuration says");
    let config = user_config(&home);
    for (host, release) in [
        ("kmt-reach.1-local-debian_12", "6.1."),
        ("kmt-reach.1-distro-debian_12", "6.1."),
        ("kmt-reach.1-local-6.12", "6.12."),
    ] {
        let output = ssh(&config, &[], host, &["uname", "-r"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(release), "{host}: {output:?}");
        assert!(said.contains("is known and matches the ED25519 host key"), "{said}");
    }

    step("a host key that is not known is refused");
    let output = ssh(&config, &["-o", "UserKnownHostsFile=/dev/null"], "kmt-reach.1-local-6.12", &["true"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Host key verification failed"), "{output:?}");

    step("ssh and exec: words arrive as they were typed, statuses come back");
    assert_eq!(stack(&home, &["ssh", "debian_12", "--", "printf", "%s|", "a b", "$c", "'"], 0), "a b|$c|'|");
    stack(&home, &["ssh", "custom", "--", "exit 4"], 4);
    let said = stack(&home, &["exec", "--", "uname -r"], 0);
    for (name, release) in [("custom/6.12", "6.12."), ("debian_12/6.1", "6.1.")] {
        let label = cell(name);
        let line = said.lines().find(|line| line.starts_with(&label)).unwrap();
        assert!(line.split_once("| ").unwrap().1.starts_with(release), "{said}");
    }
    assert_eq!(said.lines().count(), 2, "{said}");
    stack(&home, &["exec", "--", "sh", "-c", "case $(uname -r) in 6.12*) exit 5;; *) exit 3;; esac"], 5);

    copies(&home);

    step("the console is there, and the record in the former schema");
    assert!(stack(&home, &["console", "debian_12"], 0).contains("Linux version 6.1."));
    let output: Value =
        serde_json::from_slice(&fs::read(home.stack().join("stack.output")).unwrap()).unwrap();
    assert_eq!(output["local"]["microvms"].as_array().unwrap().len(), 2, "{output}");

    panes(&home);
    status_while_a_test_runs(&home);
    keys(&home);
    home.destroy();
}

fn copies(home: &Home) {
    step("cp: a folder there and back");
    let here = home.folder.join("copied");
    fs::create_dir_all(here.join("below it")).unwrap();
    let bytes: Vec<u8> =
        (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(here.join("below it/big"), &bytes).unwrap();
    fs::write(here.join("$small"), "small").unwrap();
    stack(home, &["cp", &text(&here), "debian_12:/root/deep/there"], 0);
    assert_eq!(stack(home, &["ssh", "debian_12", "--", "cat '/root/deep/there/$small'"], 0), "small");
    let back = home.folder.join("back");
    stack(home, &["cp", "debian_12:/root/deep/there", &text(&back)], 0);
    assert!(fs::read(back.join("below it/big")).unwrap() == bytes, "it came back changed");
    stack(home, &["cp", "debian_12:/root/none", &text(&back)], 102);
}

/// Sockets of the story's own tmux.
fn sockets(home: &Home) -> PathBuf {
    let sockets = home.folder.join("tmux");
    fs::create_dir_all(&sockets).unwrap();
    sockets
}

fn tmux(sockets: &Path, args: &[&str]) -> String {
    let mut command = Command::new("tmux");
    let command =
        command.env("TMUX_TMPDIR", sockets).env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("CI");
    let output = command.args(args).output().expect("apt-get install tmux");
    assert!(output.status.success(), "tmux {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn keys(home: &Home) {
    step("keys: what runs with its last lines, a console, and an end in order");
    let sockets = sockets(home);
    let tmux = |args: &[&str]| tmux(&sockets, args);
    let run = format!(
        "KMT_HOME={} {} -C {} run --stack {STACK} --vms debian_12-local-distro --packages ./pkg/faults \
         --test-env FIXTURE_FAULT=slow; echo EXIT=$?; stty -a; sleep 600",
        home.folder.display(),
        program().display(),
        fixture()
    );
    tmux(&["new-session", "-d", "-s", "keys", "-x", "150", "-y", "50", &run]);
    let shown = |word: &str| {
        let capture = || tmux(&["capture-pane", "-p", "-t", "keys"]);
        wait_for(word, PROMPT, || Some(capture()).filter(|shown| shown.contains(word)))
    };
    shown("pkg/faults TestSlow");
    tmux(&["send-keys", "-t", "keys", "t"]);
    shown("RUNNING [");
    tmux(&["send-keys", "-t", "keys", "c"]);
    println!("{}", shown("Console custom-6.12").trim_end());
    tmux(&["send-keys", "-t", "keys", "q"]);
    shown("EXIT=130");
    let terminal = shown("icanon");
    assert!(
        !terminal.contains("-icanon") && !terminal.contains("-echo "),
        "it is not given back: {terminal}"
    );
    tmux(&["kill-server"]);
}

fn panes(home: &Home) {
    step("tmux: one window, a pane a machine, each in its own");
    let sockets = sockets(home);
    let tmux = |args: &[&str]| tmux(&sockets, args);
    // The second session replaces the first.
    for _ in 0..2 {
        let made = home.call(["tmux", "--stack", STACK, "--detach"]);
        let made = made.env("TMUX_TMPDIR", &text(&sockets)).env("TMUX", "").end().expect(0);
        assert!(made.stderr.contains("tmux attach-session -t =kmt-reach_1"), "{}", made.stderr);
    }
    assert_eq!(tmux(&["list-windows", "-a", "-F", "#{session_name} #{window_name}"]), "kmt-reach_1 local\n");
    let listed = tmux(&["list-panes", "-a", "-F", "#{pane_id} #{@machine}"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    for line in listed.lines() {
        let (pane, machine) = line.split_once(' ').unwrap();
        let capture = || tmux(&["capture-pane", "-p", "-t", pane]);
        wait_for("prompt", PROMPT, || capture().contains('#').then_some(()));
        tmux(&["send-keys", "-t", pane, "echo kernel=$(uname -r)", "Enter"]);
        let wanted = if machine.starts_with("custom") { "kernel=6.12." } else { "kernel=6.1." };
        let shown =
            wait_for("answer in a pane", PROMPT, || Some(capture()).filter(|shown| shown.contains(wanted)));
        println!("{}", shown.trim_end());
    }
    tmux(&["kill-server"]);
}

fn status_while_a_test_runs(home: &Home) {
    step("status says which test runs in which machine");
    let fixture = fixture();
    let args = ["-C", &fixture, "run", "--stack", STACK, "--vms", "debian_12-local-distro"];
    let slow = ["--packages", "./pkg/faults", "--test-env", "FIXTURE_FAULT=slow"];
    let mut running = home.call(args.into_iter().chain(slow)).limit(240).start();
    running.wait_for_event("start of TestSlow", |event| {
        event["event"] == "test-started" && event["test"] == "TestSlow"
    });
    let status: Value = serde_json::from_str(&stack(home, &["status", "--format", "json"], 0)).unwrap();
    let machines = status["stacks"][0]["machines"].as_array().unwrap();
    let uses =
        |name: &str| machines.iter().find(|machine| machine["cell"] == cell(name)).unwrap()["uses"].clone();
    assert_eq!(uses("debian_12/6.1")["test"], "TestSlow", "{status}");
    assert_eq!(uses("custom/6.12"), Value::Null, "{status}");
    running.signal(rustix::process::Signal::INT);
    running.end().expect(130);
}
