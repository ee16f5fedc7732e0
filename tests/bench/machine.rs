//! What benchmarks of real machines share: a module that needs one, and kmt-run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Go module with one test that does nothing.
pub(crate) fn trivial_module(folder: &Path) -> PathBuf {
    let module = folder.join("module");
    fs::create_dir_all(module.join("trivial")).unwrap();
    fs::write(module.join("go.mod"), "module example.org/trivial\n\ngo 1.19\n").unwrap();
    fs::write(module.join("kmt.toml"), "[component.trivial]\nbuilder = \"go\"\n").unwrap();
    fs::write(
        module.join("trivial/trivial_test.go"),
        "package trivial\n\nimport \"testing\"\n\nfunc TestNothing(t *testing.T) {}\n",
    )
    .unwrap();
    module
}

/// kmt-run in a module.
pub(crate) fn kmt_run(module: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kmt-run"));
    command.arg("-C").arg(module);
    command
}

/// Runs it to its end, which is to be a good one.
pub(crate) fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Takes away the stack of a benchmark, `bench`.
pub(crate) fn destroy(module: &Path) {
    run(kmt_run(module).args(["stack", "destroy", "--stack", "bench", "--yes"]).stderr(Stdio::null()));
}

/// The number of rounds that was asked for.
pub(crate) fn rounds(otherwise: u8) -> u8 {
    std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(otherwise)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
