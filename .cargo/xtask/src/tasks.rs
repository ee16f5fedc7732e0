//! The tasks that are a few calls: `demo`, `soak`, `bench`, `triage-score`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::groups::{self, Group};
use crate::packages::Need;
use crate::process::{check, command, words};
use crate::setup;

/// Benchmarks: bench target, its package, and what it measures.
const BENCHES: &[(&str, &str, &str)] = &[
    (
        "boot",
        "kmt-run",
        "cold and warm start of one cell against virtme-ng, and against booting the same image by hand",
    ),
    (
        "balance",
        "kmt-run",
        "the fixture's suite on two machines against the best time; a run with nothing to do",
    ),
    ("build", "kmt-run", "60 packages against `go test -c` one by one, and against `go vet` with `go test`"),
    ("ship", "kmt-run", "100,000 small files, and the same again: not a byte, in less than two seconds"),
    ("scp", "kmt-run", "shipping a changed binary of 30 MB to a real guest, against `scp` and `rsync`"),
    (
        "explain",
        "kmt-run",
        "a pipeline with 2 GB of results against `curl --parallel`, and again: less than a second",
    ),
    ("unpack", "kmt-run", "unpacking an image against `xz -T0` and `zstd -T0`: at least 0.9 of their speed"),
    ("plan", "kmt-run", "planning the shipped matrices, and up to 10,000 cells of 100 packages"),
    ("events", "kmt-reporters", "two million events of tests to every report: at most 200 MB of memory"),
    ("triage", "kmt-reporters", "the cause of a gigabyte of console, on one core"),
];

/// Images that stay out of the gate: one past its support, one that changes daily, one of another architecture.
const SOAK_IMAGES: &[&str] = &["images", "build", "debian_11", "debian_sid", "debian_12-arm64-distro"];

/// How the kernel calls programs of arm64, for its table of formats. `F`: the emulator is opened now, so that it is there in
/// a file system without it.
const ARM64_PROGRAMS: &str = r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F";

/// Where the repository lies.
pub(crate) fn repository() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.ancestors().nth(2).map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// From a bare machine to a matrix of real kernels. Becomes `kmt-run`, so its terminal, signals and exit code
/// are its own.
pub(crate) fn demo(extra: &[String]) -> Result<u8, String> {
    setup::ready(Need::Run)?;
    check(&mut words(&["cargo", "build", "--release", "--package", "kmt-run"]))?;
    let mut child = command(groups::target().join("release/kmt-run"));
    let error = child.args(["run", "matrices/demo.toml"]).args(extra).exec();
    Err(format!("cannot start kmt-run: {error}"))
}

/// What takes too long for the gate.
pub(crate) fn soak() -> Result<u8, String> {
    setup::ready(Need::Soak)?;
    arm64_programs()?;
    let images = Group {
        name: "images",
        about: "the images that stay out of the gate",
        minutes: 60,
        need: Need::Run,
        run: |clock| {
            clock.check(words(&["cargo", "test", "--no-run"]).args(groups::WHOLE))?;
            clock.check(command(groups::target().join("debug/kmt-run")).args(SOAK_IMAGES))
        },
    };
    let tests = Group {
        name: "soak",
        about: "kill loops and the whole of Debian, on real machines",
        minutes: 180,
        need: Need::Soak,
        run: |clock| clock.check(&mut groups::live_tests(groups::Stories::Soak)),
    };
    let fuzz = Group {
        name: "fuzz",
        about: "a million inputs or four minutes for each parser, by libFuzzer",
        minutes: 60,
        need: Need::Soak,
        run: fuzz,
    };
    Ok(groups::run(&[&fuzz, &images, &tests], Duration::from_hours(4)))
}

/// Has this machine run programs of arm64: without systemd nobody tells the kernel how.
fn arm64_programs() -> Result<(), String> {
    let folder = std::path::Path::new("/proc/sys/fs/binfmt_misc");
    if folder.join("qemu-aarch64").exists() || cfg!(target_arch = "aarch64") {
        return Ok(());
    }
    if !folder.join("register").exists() {
        check(&mut words(&["mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"]))?;
    }
    std::fs::write(folder.join("register"), ARM64_PROGRAMS)
        .map_err(|error| format!("cannot tell the kernel of programs of arm64: {error}\nhint: as root"))
}

/// The targets of `tests/fuzz`.
const FUZZ: &[&str] =
    &["matrix", "short_form", "filter", "vmsets", "run_config", "console", "junit", "events", "test2json"];

/// What is found goes to `target/fuzz/found`; what breaks a target is named by libFuzzer.
fn fuzz(clock: &groups::Clock) -> Result<(), String> {
    let folder = repository().join("tests/fuzz");
    let found = repository().join("target/fuzz/found");
    clock.check(words(&["cargo", "build", "--release"]).current_dir(&folder))?;
    for target in FUZZ {
        let new = found.join(target);
        std::fs::create_dir_all(&new).map_err(|error| format!("cannot make {}: {error}", new.display()))?;
        let mut child = words(&["cargo", "run", "--release", "--bin", target, "--"]);
        child.args(["-runs=1000000", "-max_total_time=240", "-print_final_stats=1"]);
        child.arg(format!("-artifact_prefix={}/broken-{target}-", found.display()));
        clock.check(child.arg(new).arg(format!("corpus/{target}")).current_dir(&folder))?;
    }
    Ok(())
}

/// Runs a benchmark, or lists them.
pub(crate) fn bench(name: Option<&str>) -> Result<u8, String> {
    let Some(name) = name else {
        for (name, _, about) in BENCHES {
            println!("{name:<8} {about}");
        }
        return Ok(0);
    };
    let Some((_, package, _)) = BENCHES.iter().find(|(known, ..)| *known == name) else {
        let known = BENCHES.iter().map(|(known, ..)| *known).collect::<Vec<_>>().join(", ");
        return Err(format!("there is no benchmark `{name}`\nhint: {known}"));
    };
    setup::ready(Need::Test)?;
    let features: &[&str] = if *package == "kmt-run" { &["--features", "live"] } else { &[] };
    check(words(&["cargo", "bench", "--package", package, "--bench", name]).args(features))?;
    Ok(0)
}

/// The table of scores of triage, over the consoles of the repository or of another folder.
pub(crate) fn triage_score(folder: Option<&str>) -> Result<u8, String> {
    let mut child = words(&["cargo", "test", "--quiet", "--package", "kmt-reporters", "--test", "consoles"]);
    if let Some(folder) = folder {
        let folder =
            std::fs::canonicalize(folder).map_err(|error| format!("cannot enter `{folder}`: {error}"))?;
        child.env("KMT_CONSOLES", folder);
    }
    check(child.args(["score_is_good_enough", "--", "--nocapture"]))?;
    Ok(0)
}
