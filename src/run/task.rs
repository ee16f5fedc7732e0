//! The unit of work of a lane, and what follows from how its execution went: what goes on, what is tried again.
//!
//! Pure but for the clock of a pause. Three causes are told apart: what a test did (it failed, hung, or took its binary
//! with it), what the kernel did below it, and what the infrastructure did. Each has its own number of retries. Tests
//! that only happened to share an execution with such a test are never blamed and never counted: they go on without it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::tracker::Tally;
use crate::settings::profile::Retries;

/// Longest list of names that one binary is told, bytes: a kernel takes 128 KiB in one argument.
const NAMES: usize = 64 << 10;
/// How many executions in a row may end with their machine before any of their tests began.
const BARREN: u32 = 2;

/// Tests of one package that run in one execution of its binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The package.
    pub package: String,
    /// Its top-level tests; all of them where none are named.
    pub tests: Option<BTreeSet<String>>,
    /// How long it took before, where that is known.
    pub expected: Option<Duration>,
    /// How much of the package's time earlier executions used up, of which this one is the rest.
    pub spent: Duration,
    /// How many executions of it ended with their machine before a test began.
    pub barren: u32,
    /// It waits until then.
    pub not_before: Option<Instant>,
}

impl Task {
    /// A whole package.
    pub fn whole(package: &str, expected: Option<Duration>) -> Task {
        Task {
            package: package.to_owned(),
            tests: None,
            expected,
            spent: Duration::ZERO,
            barren: 0,
            not_before: None,
        }
    }

    /// Some tests of a package, as many tasks as their names need.
    pub fn parts(package: &str, tests: impl IntoIterator<Item = String>) -> Vec<Task> {
        let mut parts: Vec<(usize, BTreeSet<String>)> = Vec::new();
        for test in tests {
            let length = test.len() + 1;
            match parts.last_mut() {
                Some((size, part)) if *size + length <= NAMES => {
                    *size += length;
                    part.insert(test);
                }
                _ => parts.push((length, BTreeSet::from([test]))),
            }
        }
        let task = |(_, tests)| Task { tests: Some(tests), ..Task::whole(package, None) };
        parts.into_iter().map(task).collect()
    }
}

/// Why a top-level test that ran at the end of an execution did not end by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It did not get on.
    Stuck,
    /// It ran beside one that is to blame.
    Bystander,
    /// It took its binary with it.
    Binary,
    /// It took the kernel with it.
    Kernel,
    /// Its machine went away without kernel evidence.
    Machine,
}

/// How an execution went.
#[derive(Debug)]
pub struct Executed<'a> {
    /// Top-level tests it was to run; `None` where its binary did not say.
    pub chosen: Option<&'a BTreeSet<String>>,
    /// How each test that ended has fared.
    pub tallies: &'a BTreeMap<String, Tally>,
    /// Tests that ran at its end.
    pub cut: BTreeMap<String, Cut>,
    /// Whether what it left undone can go on: its end was not asked for, and says nothing of the tests that had not begun.
    pub goes_on: bool,
    /// Whether its machine ended with it.
    pub machine_lost: bool,
    /// How long it took.
    pub took: Duration,
    /// How many times each test was to run.
    pub count: u32,
}

/// How many times each test of a cell was tried again, by cause.
#[derive(Debug, Clone, Default)]
pub struct Tries {
    of: BTreeMap<(String, String), [u32; 3]>,
}

/// Ordered by how dangerous another attempt is for what comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Assertion,
    Infrastructure,
    Crash,
}

impl Cause {
    fn most(self, rules: &Retries) -> u32 {
        match self {
            Cause::Assertion => rules.assertion,
            Cause::Crash => rules.crash,
            Cause::Infrastructure => rules.infrastructure,
        }
    }
}

impl Tries {
    fn used(&self, package: &str, test: &str, cause: Cause) -> u32 {
        self.of.get(&(package.to_owned(), test.to_owned())).map_or(0, |used| used[cause as usize])
    }

    /// Whether a test that fails now by its own word has another attempt.
    pub fn has_another(&self, package: &str, test: &str, raced: bool, rules: &Retries) -> bool {
        (rules.data_race || !raced) && self.used(package, test, Cause::Assertion) < rules.assertion
    }

    fn take(&mut self, package: &str, test: &str, cause: Cause, rules: &Retries) -> Option<u32> {
        let used = self.of.entry((package.to_owned(), test.to_owned())).or_default();
        let number = &mut used[cause as usize];
        (*number < cause.most(rules)).then(|| {
            *number += 1;
            *number
        })
    }
}

/// What follows from an execution.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// What it left undone, and why: it has no say in that any more.
    pub rest: Vec<(Task, String)>,
    /// What is tried again, and why.
    pub again: Vec<(Task, String)>,
    /// Tests that were cut and get no other attempt.
    pub given_up: u32,
}

/// Decides what follows from an execution of `task`.
pub fn next(task: &Task, executed: &Executed<'_>, rules: &Retries, tries: &mut Tries) -> Next {
    let mut next = Next::default();
    go_on(task, executed, &mut next);
    let failed = executed.tallies.iter().filter(|(_, tally)| tally.failed);
    let failed = failed.filter(|(_, tally)| rules.data_race || !tally.raced).map(|(test, _)| test);
    let mut again: BTreeMap<(Cause, u32), Vec<String>> = BTreeMap::new();
    for test in failed.filter(|test| !executed.cut.contains_key(*test)) {
        if let Some(number) = tries.take(&task.package, test, Cause::Assertion, rules) {
            again.entry((Cause::Assertion, number)).or_default().push(test.clone());
        }
    }
    for (test, cut) in &executed.cut {
        let cause = match cut {
            Cut::Bystander => continue,
            Cut::Stuck | Cut::Binary => Cause::Assertion,
            Cut::Kernel => Cause::Crash,
            Cut::Machine => Cause::Infrastructure,
        };
        match tries.take(&task.package, test, cause, rules) {
            Some(number) => again.entry((cause, number)).or_default().push(test.clone()),
            None => next.given_up += 1,
        }
    }
    for ((cause, number), tests) in again {
        let reason = match cause {
            Cause::Assertion => format!("retry {number} of {}: {}", rules.assertion, some(&tests)),
            Cause::Crash => format!("{} again on a fresh machine", some(&tests)),
            Cause::Infrastructure => format!("{} again on another machine", some(&tests)),
        };
        let not_before = (cause == Cause::Assertion).then(|| pause(rules, number)).flatten();
        for part in Task::parts(&task.package, tests) {
            next.again.push((Task { not_before, ..part }, reason.clone()));
        }
    }
    next
}

/// What had not begun, or was cut without being to blame, goes on.
fn go_on(task: &Task, executed: &Executed<'_>, next: &mut Next) {
    if !executed.goes_on {
        return;
    }
    let begun = !executed.tallies.is_empty() || !executed.cut.is_empty();
    let barren = if begun { 0 } else { task.barren + 1 };
    if barren >= BARREN || (barren > 0 && !executed.machine_lost) {
        return;
    }
    let Some(chosen) = task.tests.as_ref().or(executed.chosen) else {
        // It was never said which tests there are: nothing began, or nothing can be told apart.
        if !begun {
            let whole = Task { barren, ..task.clone() };
            next.rest.push((whole, "its machine was lost before a test began".to_owned()));
        }
        return;
    };
    let done = |test: &String| executed.tallies.get(test).is_some_and(|tally| tally.ended >= executed.count);
    let to_blame = |test: &String| executed.cut.get(test).is_some_and(|cut| *cut != Cut::Bystander);
    let left: Vec<String> = chosen.iter().filter(|test| !done(test) && !to_blame(test)).cloned().collect();
    if left.is_empty() {
        return;
    }
    let blamed: Vec<String> = executed.cut.keys().filter(|test| to_blame(test)).cloned().collect();
    let reason = match blamed.is_empty() {
        true => format!("{} after the end of its execution", goes(left.len())),
        false => format!("{} without {}", goes(left.len()), some(&blamed)),
    };
    // Time that a machine took with it is not the package's.
    let took = if executed.machine_lost { Duration::ZERO } else { executed.took };
    for part in Task::parts(&task.package, left) {
        let rest = Task { barren, spent: task.spent + took, ..part };
        next.rest.push((rest, reason.clone()));
    }
}

fn goes(count: usize) -> String {
    if count == 1 { "1 test goes on".to_owned() } else { format!("{count} tests go on") }
}

/// A few names, to be told.
fn some(tests: &[String]) -> String {
    match tests {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// The pause before attempt `number`.
fn pause(rules: &Retries, number: u32) -> Option<Instant> {
    if rules.backoff.is_zero() {
        return None;
    }
    let whole = rules.backoff.saturating_mul(1 << (number - 1).min(10));
    let drawn = match rules.jitter {
        true => {
            whole / 2
                + whole.mul_f64(f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX) / 2.0)
        }
        false => whole,
    };
    Some(Instant::now() + drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESK: Retries = Retries {
        assertion: 0,
        backoff: Duration::ZERO,
        jitter: false,
        crash: 0,
        infrastructure: 1,
        data_race: false,
    };
    const CI: Retries = Retries { assertion: 2, crash: 1, ..DESK };

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    fn tallies(passed: &[&str], failed: &[&str]) -> BTreeMap<String, Tally> {
        let of = |all: &[&str], failed| {
            let tally = Tally { ended: 1, failed, raced: false };
            all.iter().map(|name| ((*name).to_owned(), tally)).collect::<Vec<_>>()
        };
        of(passed, false).into_iter().chain(of(failed, true)).collect()
    }

    /// Tests of each task that follows.
    fn follows(next: &Next) -> Vec<Vec<&str>> {
        let tasks = next.rest.iter().chain(&next.again).map(|(task, _)| task);
        tasks.map(|task| task.tests.iter().flatten().map(String::as_str).collect()).collect()
    }

    struct Case {
        chosen: BTreeSet<String>,
        tallies: BTreeMap<String, Tally>,
        cut: Vec<(&'static str, Cut)>,
        goes_on: bool,
        machine_lost: bool,
    }

    impl Case {
        fn next(&self, rules: &Retries, tries: &mut Tries) -> Next {
            let executed = Executed {
                chosen: Some(&self.chosen),
                tallies: &self.tallies,
                cut: self.cut.iter().map(|(test, cut)| ((*test).to_owned(), *cut)).collect(),
                goes_on: self.goes_on,
                machine_lost: self.machine_lost,
                took: Duration::from_secs(1),
                count: 1,
            };
            next(&Task::whole("pkg", None), &executed, rules, tries)
        }
    }

    #[test]
    fn the_others_go_on_and_the_culprit_only_where_it_may() {
        let hang = Case {
            chosen: names(&["A", "B", "C", "D"]),
            tallies: tallies(&["A"], &[]),
            cut: vec![("B", Cut::Stuck), ("C", Cut::Bystander)],
            goes_on: true,
            machine_lost: false,
        };
        let desk = hang.next(&DESK, &mut Tries::default());
        assert_eq!(follows(&desk), [vec!["C", "D"]]);
        assert_eq!((desk.rest.len(), desk.given_up), (1, 1));
        assert_eq!(desk.rest[0].0.spent, Duration::from_secs(1));
        let ci = hang.next(&CI, &mut Tries::default());
        assert_eq!(follows(&ci), [vec!["C", "D"], vec!["B"]]);
        assert_eq!(ci.given_up, 0);
    }

    #[test]
    fn each_cause_has_its_own_number() {
        let mut tries = Tries::default();
        let panic = Case {
            chosen: names(&["A", "B"]),
            tallies: tallies(&[], &["A"]),
            cut: vec![("B", Cut::Kernel)],
            goes_on: true,
            machine_lost: true,
        };
        assert_eq!(follows(&panic.next(&CI, &mut tries)), [vec!["A"], vec!["B"]]);
        assert_eq!(follows(&panic.next(&CI, &mut tries)), [vec!["A"]]);
        assert_eq!(follows(&panic.next(&CI, &mut tries)).len(), 0);
        let lost = Case { cut: vec![("B", Cut::Machine)], ..panic };
        let next = lost.next(&DESK, &mut tries);
        assert_eq!(follows(&next), [vec!["B"]]);
        assert!(next.rest.is_empty(), "the execution is explained by what it blames");
        assert_eq!(lost.next(&DESK, &mut tries).given_up, 1);
    }

    #[test]
    fn races_are_not_tried_again_unless_asked() {
        let mut case = Case {
            chosen: names(&["A"]),
            tallies: tallies(&[], &["A"]),
            cut: vec![],
            goes_on: false,
            machine_lost: false,
        };
        case.tallies.entry("A".to_owned()).and_modify(|tally| tally.raced = true);
        assert_eq!(case.next(&CI, &mut Tries::default()).again, []);
        let next = case.next(&Retries { data_race: true, ..CI }, &mut Tries::default());
        assert_eq!(follows(&next), [vec!["A"]]);
    }

    #[test]
    fn a_machine_that_dies_before_anything_began_is_not_tried_for_ever() {
        let lost = |chosen: Option<&BTreeSet<String>>, task: &Task| {
            let tallies = BTreeMap::new();
            let executed = Executed {
                chosen,
                tallies: &tallies,
                cut: BTreeMap::new(),
                goes_on: true,
                machine_lost: true,
                took: Duration::ZERO,
                count: 1,
            };
            next(task, &executed, &DESK, &mut Tries::default())
        };
        let first = lost(None, &Task::whole("pkg", None));
        assert!(first.rest[0].0.tests.is_none());
        assert_eq!(lost(None, &first.rest[0].0).rest, []);
        let listed = names(&["A"]);
        assert_eq!(follows(&lost(Some(&listed), &Task::whole("pkg", None))), [vec!["A"]]);
    }

    #[test]
    fn many_names_are_parted() {
        let tests = (0..5000).map(|number| format!("TestWithARatherLongNameThatSaysAll{number}"));
        let parts = Task::parts("pkg", tests);
        assert_eq!(parts.iter().flat_map(|part| part.tests.iter().flatten()).count(), 5000);
        let longest =
            parts.iter().map(|part| part.tests.iter().flatten().map(|t| t.len() + 1).sum::<usize>());
        assert!(parts.len() > 1 && longest.max().unwrap() <= NAMES);
    }
}
