//! `cargo xtask test`: the gate, in groups.
//!
//! A group that fails does not hide the next ones. Each has a limit of its own, all of them share [`LIMIT`];
//! a group that runs past either is ended with everything it started, and counts as failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::packages::Need;
use crate::process::{command, line, on_path, output, succeeds, within, words};
use crate::{host, live, setup, tasks};

/// What the whole gate should take at most; more is said.
const BUDGET: Duration = Duration::from_mins(45);
/// When it is ended: a machine that does other work besides is slower, and no less right.
const LIMIT: Duration = Duration::from_mins(80);

/// How the images of the live tests are built; goes to `kmt-run`.
const IMAGES: &[&str] = &["images", "build", "--matrix", "matrices/demo.toml"];

/// The Go module the product is tried on, and the architectures it must compile for.
const FIXTURE: &str = "tests/fixtures/agent";
const FIXTURE_ARCHES: [&str; 2] = ["amd64", "arm64"];

/// One part of the gate.
pub(crate) struct Group {
    /// What one types.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) about: &'static str,
    /// How long it may take.
    pub(crate) minutes: u64,
    /// What the machine must have for it.
    pub(crate) need: Need,
    /// Does it.
    pub(crate) run: fn(&Clock) -> Result<(), String>,
}

const fn group(
    name: &'static str,
    minutes: u64,
    need: Need,
    run: fn(&Clock) -> Result<(), String>,
    about: &'static str,
) -> Group {
    Group { name, about, minutes, need, run }
}

/// The gate, in its order.
#[rustfmt::skip]
const GATE: &[Group] = &[
    group("fmt", 1, Need::Build, fmt, "cargo fmt --check"),
    group("clippy", 15, Need::Build, clippy, "clippy on every target and feature, no warning"),
    group("doc", 10, Need::Build, doc, "rustdoc, no warning"),
    group("build", 20, Need::Build, build, "the workspace compiles"),
    group("unit", 20, Need::Test, unit, "every test that needs no machine, and doctests"),
    group("fixture", 5, Need::Run, fixture, "the Go module: gofmt, vet, compiles for amd64 and arm64"),
    group("images", 20, Need::Run, images, "the images of the live tests are there"),
    group("live", 35, Need::Test, live, "real machines, as whoever calls this"),
    group(USER, 35, Need::Test, live::as_ordinary_user, "the same live tests as an ordinary user made for it (root only)"),
];

/// The group that is root's alone: who is no root is the ordinary user already, in `live`.
const USER: &str = "user";

/// The moment a group must have ended.
pub(crate) struct Clock {
    deadline: Instant,
}

impl Clock {
    /// Runs a child on our terminal until it ends, or the group's time does.
    pub(crate) fn check(&self, child: &mut Command) -> Result<(), String> {
        println!("$ {}", line(child).trim_matches('`'));
        within(child, self.deadline.saturating_duration_since(Instant::now()))
    }
}

/// The task `test`, with its exit code.
pub(crate) fn task(names: &[String], list: bool) -> Result<u8, String> {
    if list {
        println!("{}", contents());
        return Ok(0);
    }
    let chosen = choose(names, host::is_root())?;
    let need = chosen.iter().map(|group| group.need).max().unwrap_or(Need::Build);
    setup::ready(need)?;
    if names.is_empty() && !host::is_root() {
        println!("note: {} is no root, so the gate's half as root is not run", host::user_name());
    }
    Ok(run(&chosen, LIMIT))
}

fn contents() -> String {
    let rows =
        GATE.iter().map(|group| format!("{:<8} {:>2} min  {}\n", group.name, group.minutes, group.about));
    format!("{}all      {:>2} min", rows.collect::<String>(), BUDGET.as_secs() / 60)
}

fn choose(names: &[String], root: bool) -> Result<Vec<&'static Group>, String> {
    if let Some(unknown) = names.iter().find(|name| GATE.iter().all(|group| group.name != **name)) {
        let known = GATE.iter().map(|group| group.name).collect::<Vec<_>>().join(", ");
        return Err(format!("there is no group `{unknown}`\nhint: {known}"));
    }
    let wanted = |group: &&Group| {
        if names.is_empty() {
            root || group.name != USER
        } else {
            names.iter().any(|name| name == group.name)
        }
    };
    Ok(GATE.iter().filter(wanted).collect())
}

/// How a group went.
struct Outcome {
    name: &'static str,
    took: Duration,
    result: Result<(), String>,
}

/// Runs groups one after the other and tells how each went; 1 when one failed.
pub(crate) fn run(groups: &[&Group], budget: Duration) -> u8 {
    let begun = Instant::now();
    let mut outcomes: Vec<Outcome> = Vec::new();
    for group in groups {
        let start = Instant::now();
        let deadline = (start + Duration::from_mins(group.minutes)).min(begun + budget);
        println!("\n== {}: {} (at most {} s)", group.name, group.about, (deadline - start).as_secs());
        let result = (group.run)(&Clock { deadline });
        if let Err(error) = &result {
            println!("FAILED {}: {error}", group.name);
        }
        outcomes.push(Outcome { name: group.name, took: start.elapsed(), result });
    }
    println!("\n{}", summary(&outcomes, BUDGET));
    u8::from(outcomes.iter().any(|outcome| outcome.result.is_err()))
}

/// The table at the end, and the line with the counts.
fn summary(outcomes: &[Outcome], budget: Duration) -> String {
    let mut text = String::new();
    let mut total = Duration::ZERO;
    for Outcome { name, took, result } in outcomes {
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        let cause =
            result.as_ref().err().map(|error| format!("  {}", error.lines().next().unwrap_or_default()));
        text += &format!("{name:<8} {word:<6} {:>7.1} s{}\n", took.as_secs_f64(), cause.unwrap_or_default());
        total += *took;
    }
    let over = if total > budget { ", over the budget" } else { "" };
    text += &format!("{:<15} {:>7.1} s of {} s{over}\n", "total", total.as_secs_f64(), budget.as_secs());
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    text + &format!("{} passed, {failed} failed", outcomes.len() - failed)
}

fn fmt(clock: &Clock) -> Result<(), String> {
    clock.check(&mut words(&["cargo", "fmt", "--all", "--check"]))
}

fn clippy(clock: &Clock) -> Result<(), String> {
    let line = ["cargo", "clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    clock.check(&mut words(&line))
}

fn doc(clock: &Clock) -> Result<(), String> {
    let mut child = words(&["cargo", "doc", "--no-deps", "--document-private-items"]);
    // There are no examples: with them dependencies have the features that they have for tests.
    child.args(WHOLE).args(["--lib", "--examples"]);
    clock.check(child.env("RUSTDOCFLAGS", "-Dwarnings"))?;
    let mut own = words(&["cargo", "doc", "--no-deps", "--document-private-items", "--package", "xtask"]);
    clock.check(own.env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// What all groups compile, with what they share: another choice of packages or features compiles all dependencies
/// anew, and one of them alone takes minutes.
pub(crate) const WHOLE: [&str; 2] = ["--workspace", "--all-features"];

fn build(clock: &Clock) -> Result<(), String> {
    clock.check(words(&["cargo", "test", "--no-run"]).args(WHOLE))
}

fn unit(clock: &Clock) -> Result<(), String> {
    if has_nextest() {
        // nextest does not run doctests.
        let tests = clock.check(
            words(&["cargo", "nextest", "run", "--no-fail-fast"])
                .args(WHOLE)
                .args(["-E", "not binary(live)"]),
        );
        tests.and(clock.check(words(&["cargo", "test", "--doc"]).args(WHOLE)))
    } else {
        clock.check(&mut words(&["cargo", "test", "--workspace"]))
    }
}

/// Whether `cargo nextest` can be called.
pub(crate) fn has_nextest() -> bool {
    on_path("cargo-nextest") && succeeds(&mut words(&["cargo", "nextest", "--version"]))
}

fn fixture(clock: &Clock) -> Result<(), String> {
    if !Path::new(FIXTURE).join("go.mod").is_file() {
        return Err(format!("there is no {FIXTURE}/go.mod"));
    }
    let unformatted = output(&mut words(&["gofmt", "-l", FIXTURE])).ok_or("gofmt cannot be run")?;
    if !unformatted.trim().is_empty() {
        return Err(format!(
            "gofmt would change {}",
            unformatted.split_whitespace().collect::<Vec<_>>().join(", ")
        ));
    }
    for arch in FIXTURE_ARCHES {
        let go = |line: &[&str]| {
            let mut child = words(line);
            child.current_dir(FIXTURE).env("GOARCH", arch).env("CGO_ENABLED", "0");
            child
        };
        clock.check(&mut go(&["go", "vet", "./..."]))?;
        clock.check(&mut go(&["go", "build", "-o", "/dev/null", "./..."]))?;
        // Links each package's tests; `true` stands in for running them, which guests do. The words `ok` that
        // this prints are not shown, since nothing was tested; what does not compile is told on stderr.
        clock.check(go(&["go", "test", "-exec", "true", "./..."]).stdout(Stdio::null()))?;
    }
    Ok(())
}

fn images(clock: &Clock) -> Result<(), String> {
    // `kmt-run` comes with the tests.
    build(clock)?;
    clock.check(command(target().join("debug/kmt-run")).args(IMAGES))
}

fn live(clock: &Clock) -> Result<(), String> {
    clock.check(&mut live_tests(Stories::Gate))
}

/// Which stories of the live tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stories {
    /// Those of the gate.
    Gate,
    /// The long ones, below `soak`.
    Soak,
}

/// The call of the tests that boot machines: one after the other, since each may take all of the host.
pub(crate) fn live_tests(stories: Stories) -> Command {
    if has_nextest() {
        let mut child = words(&["cargo", "nextest", "run", "--no-fail-fast", "--test-threads", "1"]);
        let chosen = match stories {
            Stories::Gate => "binary(live) & not test(/^soak::/)",
            Stories::Soak => "binary(live) & test(/^soak::/)",
        };
        child.args(WHOLE).args(["--test", "live", "-E", chosen]);
        return child;
    }
    let mut child = words(&["cargo", "test"]);
    child.args(WHOLE).args(["--test", "live", "--", "--test-threads=1"]);
    child.args(match stories {
        Stories::Gate => ["--skip", "soak::"].as_slice(),
        Stories::Soak => &["soak::"],
    });
    child
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
    tasks::repository().join(set.map_or_else(|| PathBuf::from("target"), PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(groups: &[&Group]) -> Vec<&'static str> {
        groups.iter().map(|group| group.name).collect()
    }

    #[test]
    fn root_runs_all_groups_and_others_all_but_the_one_for_root() {
        assert_eq!(names(&choose(&[], true).expect("all")).len(), GATE.len());
        let others = names(&choose(&[], false).expect("all but one"));
        assert_eq!(others.len(), GATE.len() - 1);
        assert!(!others.contains(&USER));
    }

    #[test]
    fn chosen_groups_come_in_the_gates_order_and_unknown_ones_are_named() {
        let chosen = choose(&["unit".to_owned(), "fmt".to_owned()], true).expect("both exist");
        assert_eq!(names(&chosen), ["fmt", "unit"]);
        let error = choose(&["unti".to_owned()], true).err().expect("unknown");
        assert!(error.contains("`unti`") && error.contains("unit, fixture"), "{error}");
    }

    #[test]
    fn a_failure_does_not_hide_the_next_group() {
        let bad = group("bad", 1, Need::Build, |_| Err("no luck\nmore".to_owned()), "");
        let good = group("good", 1, Need::Build, |_| Ok(()), "");
        assert_eq!(run(&[&bad, &good], LIMIT), 1);
        assert_eq!(run(&[&good], LIMIT), 0);
    }

    #[test]
    fn a_group_past_the_budget_is_ended_and_fails() {
        let slow = group("slow", 1, Need::Build, |clock| clock.check(&mut words(&["sleep", "30"])), "");
        let begun = Instant::now();
        assert_eq!(run(&[&slow], Duration::from_millis(100)), 1);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_last_line_is_the_counts_alone() {
        let outcome = |name, result| Outcome { name, took: Duration::from_millis(1500), result };
        let text =
            summary(&[outcome("fmt", Ok(())), outcome("unit", Err("2 tests\nmore".to_owned()))], BUDGET);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "fmt      ok         1.5 s");
        assert_eq!(lines[1], "unit     FAILED     1.5 s  2 tests");
        assert_eq!(lines[2], "total               3.0 s of 2700 s");
        assert_eq!(lines[3..], ["1 passed, 1 failed"]);
    }
}
