//! A made pipeline with everything that goes wrong: both components, both architectures, several test sets.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde_json::{Value, json};

use super::server::Project;

/// Number of the pipeline, and of its child.
pub(crate) const PIPELINE: u64 = 70_000_001;
const CHILD: u64 = 70_000_002;

const X64: [&str; 21] = [
    "ubuntu_16.04",
    "ubuntu_18.04",
    "ubuntu_20.04",
    "ubuntu_22.04",
    "ubuntu_24.04",
    "ubuntu_25.10",
    "amazon_4.14",
    "amazon_5.4",
    "amazon_5.10",
    "amazon_2023",
    "fedora_37",
    "fedora_38",
    "debian_9",
    "debian_10",
    "debian_11",
    "debian_12",
    "debian_13",
    "centos_7.9",
    "centos_8",
    "rocky_9.4",
    "rocky_8.4",
];
const ARM: [&str; 17] = [
    "ubuntu_18.04",
    "ubuntu_20.04",
    "ubuntu_22.04",
    "ubuntu_24.04",
    "ubuntu_25.10",
    "amazon_4.14",
    "amazon_5.4",
    "amazon_5.10",
    "amazon_2023",
    "fedora_37",
    "fedora_38",
    "debian_10",
    "debian_11",
    "debian_12",
    "centos_7.9",
    "centos_8",
    "rocky_9.4",
];

/// The end of a job in which tests failed.
const EXIT_42: &str = "DONE 12 tests, 1 failure\nERROR: Job failed: exit code 42\n";
/// Machines that come up.
const UP: &str = "[    0.0] Linux version 5.14.0\n[  OK  ] Started Journal Service.\n\
                  [  OK  ] Finished setup-ddvm.service - Setup ddvm.\n\nddvm login: ";
/// One that does not find its disk.
const PANIC: &str = "[    0.000000] Linux version 3.10.0-1160.el7.x86_64\n\
    [    1.512345] VFS: Cannot open root device \"vda1\" or unknown-block(0,0): error -6\n\
    [    1.523456] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n\
    [    1.534567] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 3.10.0-1160.el7.x86_64 #1\n";

struct Made {
    project: Project,
    next: u64,
}

/// What a job comes to.
struct Outcome<'a> {
    status: &'a str,
    reason: Option<&'a str>,
    trace: &'a str,
    files: Vec<(String, Vec<u8>)>,
}

fn passed() -> Outcome<'static> {
    Outcome { status: "success", reason: None, trace: "", files: Vec::new() }
}

fn failed(trace: &str) -> Outcome<'_> {
    Outcome { status: "failed", reason: Some("script_failure"), trace, files: Vec::new() }
}

impl Made {
    fn job(&mut self, pipeline: u64, stage: &str, name: &str, outcome: Outcome<'_>) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut artifacts = vec![json!({"file_type": "trace", "size": outcome.trace.len()})];
        if !outcome.files.is_empty() {
            artifacts.push(json!({"file_type": "archive", "size": 1200, "filename": "artifacts.zip"}));
        }
        self.project.jobs.entry(pipeline).or_default().push(json!({
            "id": id, "name": name, "stage": stage, "status": outcome.status, "failure_reason": outcome.reason,
            "allow_failure": name.contains("cws_docker") || name == "docs", "duration": 12.5, "artifacts": artifacts,
            "web_url": format!("https://gitlab.example/Group/agent/-/jobs/{id}"), "runner": null, "new_field": {"x": 1},
        }));
        self.project.files.insert((id, "trace".to_owned()), outcome.trace.as_bytes().to_vec());
        for (path, bytes) in outcome.files {
            self.project.files.insert((id, path), bytes);
        }
        id
    }

    /// The setup job of a component and architecture with all that it leaves; `consoles` that are not [`UP`].
    fn setup(
        &mut self,
        pipeline: u64,
        component: &str,
        arch: &str,
        machines: &[(&str, &str)],
        consoles: &[(&str, &str)],
    ) {
        let (word, dashed) = if arch == "x64" { ("x86_64", "x86-64") } else { ("arm64", "arm64") };
        let name = if component == "system-probe" { "sysprobe" } else { "secagent" };
        let id = self.next;
        let (mut vms, mut leases, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (platform, set)) in machines.iter().enumerate() {
            let vm = format!("{word}-{platform}-distro_{word}-{set}-ddvm-4-12288");
            let ip = format!("100.1.{}.{}", number / 200, number % 200 + 2);
            let console = consoles
                .iter()
                .find(|(of, _)| *of == format!("{platform} {set}"))
                .map_or(UP, |(_, text)| text);
            if console == UP {
                leases.push(json!({"ip-address": ip, "mac-address": "52:54:00:00:00:01"}));
            }
            vms.push(
                json!({"id": vm, "ip": ip, "tag": platform, "vmset-tags": [format!("distro_{word}"), set]}),
            );
            let log = format!(
                "libvirt/log/ddvm-ci-{id}-4670-kernel-matrix-testing-{component}-{dashed}-{pipeline}-{vm}.log"
            );
            files.push((log, console.as_bytes().to_vec()));
        }
        let output = json!({word: {"ip": "10.1.2.3", "microvms": vms}});
        files.push(("stack.output".to_owned(), output.to_string().into_bytes()));
        files.push(("libvirt/dnsmasq/virbr0.status".to_owned(), json!(leases).to_string().into_bytes()));
        let sets: BTreeSet<&str> = machines.iter().map(|(_, set)| *set).collect();
        let sets = sets.into_iter().map(|set| {
            let own = machines.iter().filter(|(_, of)| *of == set);
            let kernels: Vec<Value> =
                own.map(|(tag, _)| json!({"tag": tag, "dir": format!("{tag}.qcow2")})).collect();
            json!({"tags": [format!("distro_{word}"), set], "recipe": format!("distro-{word}"), "arch": word,
                "kernels": kernels, "vcpu": [4], "memory": [12288]})
        });
        let vmconfig = json!({"vmsets": sets.collect::<Vec<_>>()});
        files.push((format!("vmconfig-{pipeline}-{word}.json"), vmconfig.to_string().into_bytes()));
        let outcome = Outcome { files, ..passed() };
        self.job(pipeline, "kernel_matrix_testing_prepare", &format!("kmt_setup_env_{name}_{arch}"), outcome);
    }
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        // A path as an attacker writes it: the crate would refuse.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// JUnit as gotestsum writes it: a rerun is one more case.
fn junit(package: &str, cases: &[(&str, &str)]) -> String {
    let mut text = format!("<testsuites><testsuite name=\"github.com/DataDog/datadog-agent/{package}\">");
    for (name, output) in cases {
        text += &format!("<testcase classname=\"{package}\" name=\"{name}\" time=\"0.1\">");
        if !output.is_empty() {
            text += &format!("<failure message=\"Failed\" type=\"\">{output}</failure>");
        }
        text += "</testcase>";
    }
    text + "</testsuite></testsuites>"
}

fn with_junit<'a>(
    mut outcome: Outcome<'a>,
    arch: &str,
    platform: &str,
    set: &str,
    bytes: Vec<u8>,
) -> Outcome<'a> {
    outcome.files.push((format!("test/new-e2e/tests/junit-{arch}-{platform}-{set}.tar.gz"), bytes));
    outcome
}

fn dns() -> Vec<u8> {
    let dns = junit(
        "pkg/network/tracer",
        &[
            ("TestTracerSuite", "--- FAIL"),
            ("TestTracerSuite/prebuilt/TestDNSStats", "tracer_test.go:120: got 0 stats, want 3"),
            ("TestTracerSuite/prebuilt/TestTCPStats", ""),
            ("TestConntrack", "conn_test.go:9: timeout"),
            ("TestConntrack", ""),
            ("TestOther", ""),
        ],
    );
    archive(&[("pkg-network-tracer.xml", &dns), ("pkg-ebpf.xml", &junit("pkg/ebpf", &[("TestMap", "")]))])
}

fn faults() -> Vec<u8> {
    let cases = [
        ("TestFail", ""),
        ("TestTable", "--- FAIL"),
        ("TestTable/plain", ""),
        ("TestTable/with_space", "faults_test.go:83: FIXTURE_FAULT=subfail"),
    ];
    archive(&[("pkg-faults.xml", &junit("pkg/faults", &cases))])
}

/// The whole project.
pub(crate) fn project() -> Project {
    let mut made = Made { project: Project::default(), next: 900_000_000 };
    for (id, status) in [(PIPELINE, "failed"), (CHILD, "failed")] {
        let pipeline = json!({"id": id, "status": status, "ref": "main", "sha": "0123456789abcdef", "source": "push",
            "web_url": format!("https://gitlab.example/Group/agent/-/pipelines/{id}")});
        made.project.pipelines.insert(id, pipeline);
    }
    let child = made.project.pipelines.remove(&CHILD).unwrap();
    let bridges: Vec<Value> = vec![
        json!({"id": 1, "name": "security-agent", "status": "failed", "downstream_pipeline": child}),
        json!({"id": 2, "name": "docs-site", "status": "success", "downstream_pipeline": null}),
    ];
    made.project.pipelines.insert(PIPELINE, made.project.pipelines[&PIPELINE].clone());
    made.project.bridges.insert(PIPELINE, bridges);
    made.job(PIPELINE, "lint", "lint", failed("lint failed"));
    made.job(PIPELINE, "docs", "docs", failed("docs failed"));
    made.job(PIPELINE, "unit", "unit_tests", passed());
    system_probe(&mut made);
    security_agent(&mut made);
    made.project
}

fn system_probe(made: &mut Made) {
    let all = |platforms: &[&'static str]| -> Vec<(&'static str, &'static str)> {
        ["no_usm", "only_usm"]
            .iter()
            .flat_map(|set| platforms.iter().map(|it| (*it, *set)).collect::<Vec<_>>())
            .collect()
    };
    made.setup(PIPELINE, "system-probe", "x64", &all(&X64), &[]);
    made.setup(PIPELINE, "system-probe", "arm64", &all(&ARM), &[]);
    let stage = "kernel_matrix_testing_prepare";
    made.job(PIPELINE, stage, "upload_sysprobe_tests_x64", passed());
    let broken = "section_start:1:build\r\x1b[0K\x1b[32mgo test -c\x1b[0m\npkg/network/usm/monitor.go:31:7: undefined: newMonitor\n";
    made.job(PIPELINE, stage, "upload_sysprobe_tests_arm64", failed(broken));
    for (platform, set) in all(&X64) {
        let name = format!("kmt_run_sysprobe_tests_x64: [{platform}, {set}]");
        let outcome = match (platform, set) {
            ("ubuntu_22.04" | "debian_10" | "debian_12", "no_usm") => {
                with_junit(failed(EXIT_42), "x86_64", platform, set, dns())
            }
            ("debian_13", "no_usm") => with_junit(failed(EXIT_42), "x86_64", platform, set, faults()),
            ("centos_8", "only_usm") => {
                let green = archive(&[("a.xml", &junit("pkg/network/usm", &[("TestHTTP", "")]))]);
                let trace = "=== RUN TestHTTP2\npanic: test timed out after 20m0s\nrunning tests:\n\tTestHTTP2 (19m58s)\n";
                with_junit(failed(trace), "x86_64", platform, set, green)
            }
            ("fedora_38", "no_usm") => {
                // It failed twice before, for reasons that do not matter any more.
                made.job(PIPELINE, "t", &name, failed("No space left on device"));
                let before =
                    archive(&[("a.xml", &junit("pkg/ebpf", &[("TestMaps", "map_test.go:9: lost")]))]);
                made.job(PIPELINE, "t", &name, with_junit(failed(EXIT_42), "x86_64", platform, set, before));
                passed()
            }
            _ => passed(),
        };
        made.job(PIPELINE, "kernel_matrix_testing_system_probe", &name, outcome);
    }
    for (platform, set) in all(&ARM) {
        let name = format!("kmt_run_sysprobe_tests_arm64: [{platform}, {set}]");
        let outcome = if set == "no_usm" {
            let cases = [("TestUprobe/arm", "Error Trace: x\nError:      \tSIGILL <b>at 0x4000</b> | @root")];
            let cases = cases.map(|(name, text)| (name, text.replace('<', "&lt;")));
            let text = junit("pkg/ebpf/uprobes", &[(cases[0].0, cases[0].1.as_str())]);
            with_junit(failed(EXIT_42), "arm64", platform, set, archive(&[("a.xml", &text)]))
        } else {
            Outcome { status: "skipped", ..passed() }
        };
        made.job(PIPELINE, "kernel_matrix_testing_system_probe", &name, outcome);
    }
}

fn security_agent(made: &mut Made) {
    let sets = ["cws_host", "cws_peds", "cws_docker"];
    let machines: Vec<(&str, &str)> =
        sets.iter().flat_map(|set| X64[1..].iter().map(|it| (*it, *set)).collect::<Vec<_>>()).collect();
    let consoles =
        [("centos_7.9 cws_host", PANIC), ("rocky_8.4 cws_host", PANIC), ("debian_11 cws_host", "")];
    made.setup(CHILD, "security-agent", "x64", &machines, &consoles);
    let capacity = "Diagnostics:\n  aws:ec2:Instance (x):\n    error: creating EC2 Instance: operation error EC2: RunInstances, \
                    api error InsufficientInstanceCapacity: We currently do not have sufficient m6g.metal capacity\n";
    let setup = "kmt_setup_env_secagent_arm64";
    made.job(CHILD, "kernel_matrix_testing_prepare", setup, failed("i/o timeout"));
    made.job(CHILD, "kernel_matrix_testing_prepare", setup, failed(capacity));
    for (platform, set) in machines {
        let name = format!("kmt_run_secagent_tests_x64_{}: [{platform}, {set}]", &set[4..]);
        let outcome = outcome_of(platform, set);
        made.job(CHILD, "kernel_matrix_testing_security_agent", &name, outcome);
    }
    for (set, platform) in sets.iter().flat_map(|set| ARM.map(|it| (*set, it))) {
        let name = format!("kmt_run_secagent_tests_arm64_{}: [{platform}, {set}]", &set[4..]);
        made.job(
            CHILD,
            "kernel_matrix_testing_security_agent",
            &name,
            Outcome { status: "skipped", ..passed() },
        );
    }
    made.job(CHILD, "kernel_matrix_testing_cleanup", "kmt_secagent_cleanup_x64", passed());
    let strange = Outcome { status: "dreaming", ..passed() };
    made.job(CHILD, "kernel_matrix_testing_cleanup", "kmt_secagent_cleanup_arm64", strange);
}

/// How the job of a platform and a test set of the security agent ended.
fn outcome_of(platform: &str, set: &str) -> Outcome<'static> {
    let no_ssh = "ssh: connect to host 100.1.0.9 port 22: Connection timed out\n";
    let with = |bytes: Vec<u8>| with_junit(failed(EXIT_42), "x86_64", platform, set, bytes);
    match (platform, set) {
        ("centos_7.9" | "rocky_8.4" | "debian_11", "cws_host") => failed(no_ssh),
        ("amazon_2023", "cws_host") => {
            let status = b"x setup-ddvm.service - Setup ddvm\n   Active: inactive (dead)\n".to_vec();
            Outcome {
                files: vec![("logs/setup-ddvm.status".to_owned(), status)],
                ..failed("waiting for setup-ddvm\n")
            }
        }
        ("ubuntu_24.04", "cws_host") => Outcome { reason: Some("stuck_or_timeout_failure"), ..failed("") },
        ("ubuntu_25.10", "cws_host") => Outcome { reason: Some("moon_phase"), ..failed("") },
        ("fedora_37", "cws_peds") => {
            let partial = junit(
                "pkg/security/tests",
                &[("TestEventMonitor", "e_test.go:5: no event"), ("TestOpen", "")],
            );
            let outcome = Outcome {
                reason: Some("job_execution_timeout"),
                ..failed("last package: pkg/security/tests\n")
            };
            with_junit(outcome, "x86_64", platform, set, archive(&[("a.xml", &partial)]))
        }
        ("debian_12", "cws_peds") => {
            let whole = dns();
            with(whole[..whole.len() / 2].to_vec())
        }
        ("rocky_9.4", "cws_peds") => with(bomb()),
        ("amazon_5.4", "cws_docker") => with(b"<html><title>404</title></html>".to_vec()),
        ("amazon_5.10", "cws_docker") => {
            let bad = "<testsuite name='pkg/security/tests'><testcase name='TestX'>";
            let good = junit("pkg/security/tests", &[("TestChmod", "c_test.go:77: mode is 0644, want 0600")]);
            with(archive(&[("bad.xml", bad), ("../../../good.xml.not", "x"), ("good.xml", &good)]))
        }
        _ => passed(),
    }
}

/// A small archive of a file of 40 MB.
fn bomb() -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    let size = 40_u64 << 20;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "huge.xml", std::io::repeat(b' ').take(size)).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}
