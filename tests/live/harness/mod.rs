//! What the stories share: a home, calls of the program, and what a run told.

mod call;
mod home;
mod junit;
mod lab;
mod moto;
mod namespace;
mod told;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) use call::Call;
pub(crate) use call::{Ended, Running};
pub(crate) use home::{Home, qemu_of};
pub(crate) use lab::Lab;
pub(crate) use moto::{Moto, REGION, SECRET};
pub(crate) use namespace::Namespace;
pub(crate) use told::Told;

/// The architecture as cell ids spell it.
pub(crate) const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };

/// The repository with the fixture and the matrices.
pub(crate) fn repository() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_kmt-run")
        .map_or_else(|| env!("CARGO_BIN_EXE_kmt-run").into(), PathBuf::from)
}

/// The Go module whose tests the stories run.
pub(crate) fn fixture() -> String {
    text(repository().join("tests/fixtures/agent"))
}

/// A path as an argument.
pub(crate) fn text(path: impl Into<PathBuf>) -> String {
    path.into().into_os_string().into_string().unwrap()
}

/// The id of a local cell: `debian_12/6.1` is `debian_12/6.1/x86_64` here.
pub(crate) fn cell(platform_and_kernel: &str) -> String {
    format!("{platform_and_kernel}/{ARCH}")
}

/// Whether binaries of the Go that is here tell a subtest's end at once. Before 1.20 they tell it at the end of
/// its top-level test, and never if they die before: nobody can know then that it passed.
pub(crate) fn subtests_end_at_once() -> bool {
    let output = Command::new("go").args(["env", "GOVERSION"]).output().expect("apt-get install golang-go");
    let version = String::from_utf8(output.stdout).unwrap();
    let minor = version.trim().split('.').nth(1).unwrap().trim_end_matches(|c: char| !c.is_ascii_digit());
    minor.parse::<u32>().unwrap() >= 20
}

/// Names the next step of a story in its output, with the time since the first one.
pub(crate) fn step(name: &str) {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    println!("[{:>6.1} s] {name}", BEGUN.get_or_init(Instant::now).elapsed().as_secs_f64());
}

/// Asks again and again until there is an answer; panics when `limit` has passed.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(Instant::now() < deadline, "no {what} within {} s", limit.as_secs_f64());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}
