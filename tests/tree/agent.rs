//! The template for the agent's tree, tried on a tree of that shape.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::forest::write;

/// Packages with tests, one below each pattern of the template; the last one is the second component's.
const PACKAGES: [&str; 12] = [
    "pkg/ebpf/maps",
    "pkg/network/tracer",
    "pkg/collector/corechecks/ebpf/probe",
    "pkg/discovery/module",
    "pkg/process/monitor",
    "pkg/dyninst/loader",
    "pkg/gpu",
    "pkg/logs/launchers/file",
    "pkg/privileged-logs/test",
    "pkg/system-probe/config",
    "comp/metadata/inventoryagent/impl",
    "pkg/security/tests",
];
const PROGRAMS: [&str; 5] = [
    "cmd/system-probe",
    "pkg/network/usm/testutil/gotls_client",
    "pkg/network/protocols/http/testutil/gotls_server",
    "pkg/network/usm/testutil/grpc/grpc_external_server",
    "pkg/network/protocols/tls/gotls/testutil/external_unix_proxy_server",
];
/// Stands in for the tree's own tasks.
const DDA: &str = r#"#!/bin/sh
[ "$1 $2 $3" = "inv -e system-probe.object-files" ] || exit 2
case $4 in --arch=amd64) arch=x86_64 ;; --arch=arm64) arch=arm64 ;; *) exit 2 ;; esac
build=pkg/ebpf/bytecode/build
mkdir -p $build/$arch/co-re $build/runtime
for object in tracer co-re/tracer runtime-security; do
  cat pkg/ebpf/c/tracer.c >$build/$arch/$object.o || exit
done
cp pkg/ebpf/c/tracer.c $build/runtime/tracer.c
"#;

fn plant(root: &Path) {
    write(root, "go.mod", "module github.com/DataDog/datadog-agent\n\ngo 1.18\n");
    write(root, "pkg/ebpf/c/tracer.c", "int tracer(void *context) { return 0; }\n");
    write(root, "pkg/util/log/log.go", "package log\n\nfunc Level() int { return 1 }\n");
    for package in PACKAGES {
        let name = package.rsplit('/').next().unwrap();
        let tag = if package.starts_with("pkg/security") { "functionaltests" } else { "linux_bpf" };
        let own = if name == "tracer" { "// static int one() { return 1; }\nimport \"C\"\n\n" } else { "" };
        let used = if own.is_empty() { "1" } else { "int(C.one())" };
        let source = format!("package {name}\n\n{own}func Level() int {{ return {used} }}\n");
        write(root, &format!("{package}/{name}.go"), &source);
        let test = format!(
            "//go:build {tag}\n\npackage {name}\n\nimport (\n\t\"testing\"\n\n\t\"github.com/DataDog/datadog-agent/pkg/util/log\"\n)\n\n\
             func TestLevel(t *testing.T) {{\n\tif log.Level() != Level() {{\n\t\tt.Fatal(\"differs\")\n\t}}\n}}\n"
        );
        write(root, &format!("{package}/{name}_test.go"), &test);
    }
    for program in PROGRAMS {
        write(root, &format!("{program}/main.go"), "package main\n\nfunc main() {}\n");
    }
    write(root, "tools/dda", DDA);
    fs::set_permissions(root.join("tools/dda"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the program under test is a process")]
fn kmt_run(root: &Path, home: &Path, args: &[&str]) -> Output {
    let path = std::env::var("PATH").unwrap();
    Command::new(env!("CARGO_BIN_EXE_kmt-run"))
        .arg("-C")
        .arg(root)
        .args(args)
        .env("KMT_HOME", home)
        .env("PATH", format!("{}:{path}", root.join("tools").display()))
        .env_remove("CI")
        .output()
        .unwrap()
}

/// What it said, when it went well.
fn said(root: &Path, home: &Path, args: &[&str]) -> String {
    let output = kmt_run(root, home, args);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{args:?} ended with {}\n{out}{err}", output.status);
    out + &err
}

#[test]
fn the_agents_template_loads_plans_and_builds() {
    let [tree, home] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (root, home) = (tree.path(), home.path());
    plant(root);
    said(root, home, &["config", "init", "--template", "datadog-agent"]);

    let plan = said(root, home, &["plan", "--vms", "debian_12-local-distro", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan[..=plan.rfind('}').unwrap()]).unwrap();
    for package in &PACKAGES[..11] {
        assert!(plan.to_string().contains(&format!("\"{package}\"")), "{package} is not in {plan:#}");
    }

    // 11 packages, 5 programs, the objects.
    let built = said(root, home, &["build", "--compile-only"]);
    assert!(built.contains(": 17 compiled, 0 from the cache"), "{built}");
    let built = said(root, home, &["build", "--compile-only"]);
    assert!(built.contains(": 0 compiled, 17 from the cache"), "{built}");
    // With the race detector it takes its time, so it is only planned.
    let plan =
        ["plan", "--vms", "debian_12-local-distro", "--component", "security-agent", "--format", "json"];
    assert!(said(root, home, &plan).contains("\"pkg/security/tests\""));

    fs::write(root.join("pkg/ebpf/c/tracer.c"), "int tracer(void *context) { return 1; }\n").unwrap();
    let built = said(root, home, &["build", "--compile-only"]);
    assert!(built.contains(": 1 compiled, 16 from the cache"), "{built}");
}
