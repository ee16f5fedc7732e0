//! One verdict for each test: the rules of the room's table.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::facts::{Attempt, Build, Cell, Known, Package, Shard};
use super::outcome::{Counts, is_good};
use super::report::{AttemptReport, CellReport, OutputScope, PackageReport, Report, TestReport, Trouble};
use super::{Run, ending, known};
use crate::event::{CellId, TestResult};
use ending::Ending;

impl Run {
    /// Every verdict, were the log to end here.
    pub fn report(&self) -> Report<'_> {
        let cells: Vec<CellReport<'_>> = self.cells.iter().map(|cell| cell_report(self, cell)).collect();
        let mut counts = Counts::default();
        cells.iter().flat_map(|cell| &cell.packages).for_each(|package| counts.add_all(package));
        Report { run: self, cells, counts }
    }

    /// The verdict of one test in one cell, that of its subtests left out.
    pub fn test_report<'r>(&'r self, cell: &CellId, package: &str, test: &str) -> Option<TestReport<'r>> {
        let cell = self.cell(cell)?;
        let (package_name, package) = cell.packages.get_key_value(package)?;
        let known = self.known.get(package_name);
        if let Some(passed) = package.tests.passed(test) {
            return Some(TestReport::passed(&passed, 0, known::owners(known, passed.name)));
        }
        let (name, attempts) = package.tests.odd().get_key_value(test)?;
        Judge { run: self, cell, package, known }.test(name, attempts)
    }

    /// The verdicts of one package in one cell.
    pub fn package_report<'r>(&'r self, cell: &CellId, package: &str) -> Option<PackageReport<'r>> {
        let cell = self.cell(cell)?;
        let (name, package) = cell.packages.get_key_value(package)?;
        Some(package_report(self, cell, trouble(self, cell).as_ref(), name, package))
    }
}

fn cell_report<'r>(run: &'r Run, cell: &'r Cell) -> CellReport<'r> {
    let trouble = trouble(run, cell);
    let packages: Vec<PackageReport<'r>> = cell
        .packages
        .iter()
        .map(|(name, package)| package_report(run, cell, trouble.as_ref(), name, package))
        .collect();
    let mut counts = Counts::default();
    packages.iter().for_each(|package| counts.add_all(package));
    CellReport { cell, trouble, packages, counts }
}

/// Why a cell never ran; an explicit failure counts even if something ran.
fn trouble<'r>(run: &'r Run, cell: &'r Cell) -> Option<Trouble<'r>> {
    let boot = cell.boot_failures.last();
    let plain = |stage, message| Trouble { stage, phase: None, message, excerpt: &[] };
    if let Some(failure) = &cell.failed {
        let boot = boot.filter(|_| failure.stage == "boot");
        return Some(Trouble {
            phase: boot.and_then(|boot| boot.phase),
            excerpt: boot.map_or(&[], |boot| &boot.excerpt),
            ..plain(&failure.stage, &failure.message)
        });
    }
    if cell.skipped.is_some() || cell.started() {
        return None;
    }
    if let Some(Build::Failed { message, .. }) = run.builds.get(&cell.id.arch) {
        return Some(plain("build", message));
    }
    if let Some((_, message)) = cell.ship_failures.last() {
        return Some(plain("ship", message));
    }
    if let Some(boot) = boot {
        return Some(Trouble { phase: boot.phase, excerpt: &boot.excerpt, ..plain("boot", &boot.message) });
    }
    let idle = cell.selected && cell.packages.is_empty() && !run.cancelled();
    if idle && (run.ended.is_none() || run.cells.iter().any(|other| !other.packages.is_empty())) {
        let message =
            if run.planned { "nothing was planned for it" } else { "the log ends before a plan was made" };
        return Some(plain("plan", message));
    }
    None
}

fn package_report<'r>(
    run: &'r Run,
    cell: &'r Cell,
    trouble: Option<&Trouble<'r>>,
    name: &'r str,
    package: &'r Package,
) -> PackageReport<'r> {
    let judge = Judge { run, cell, package, known: run.known.get(name) };
    let mut tests: BTreeMap<&'r str, TestReport<'r>> = package
        .tests
        .odd()
        .iter()
        .filter_map(|(name, attempts)| Some((name.as_str(), judge.test(name, attempts)?)))
        .collect();
    let started = !package.shards.is_empty() || !package.tests.is_empty();
    for listed in package.listed.iter().flatten().filter(|name| package.tests.passed(name).is_none()) {
        tests.entry(listed).or_insert_with(|| match started {
            true => judge.never_started(listed),
            false => judge.absent(listed, trouble),
        });
    }
    bind_parents(&mut tests, package);
    let none = tests.is_empty() && package.tests.is_empty();
    let entry = match started {
        true => judge.package_entry(&tests),
        false if none => Some(judge.absent("", trouble)),
        false => None,
    };
    let nothing_listed = package.listed.as_ref().is_some_and(BTreeSet::is_empty);
    let entry = entry.filter(|_| started || !nothing_listed);
    let note = (none && entry.is_none()).then_some("no tests");
    let odd = entry.into_iter().chain(tests.into_values()).collect();
    PackageReport { name, package, odd, note, known: judge.known }
}

/// Counts subtests, marks parents that only carry a subtest's fault, and lets an unfinished parent share it.
fn bind_parents(tests: &mut BTreeMap<&str, TestReport<'_>>, package: &Package) {
    let mut below: HashMap<&str, (usize, Option<TestResult>)> = HashMap::new();
    for (name, test) in tests.iter() {
        for (at, _) in name.match_indices('/') {
            let (count, worst) = below.entry(&name[..at]).or_default();
            *count += 1;
            if !is_good(test.result) && worst.is_none_or(|known| severity(test.result) > severity(known)) {
                *worst = Some(test.result);
            }
        }
    }
    for (name, test) in tests.iter_mut() {
        test.subtests = package.tests.plain_below(name);
        let Some((count, worst)) = below.get(name) else {
            continue;
        };
        test.subtests += count;
        test.blames_subtest = worst.is_some() && !is_good(test.result);
        let open = package
            .tests
            .odd()
            .get(*name)
            .and_then(|runs| runs.last())
            .is_some_and(|run| run.ended.is_none());
        let shares = |result: &TestResult| !matches!(result, TestResult::Fail);
        if let (true, TestResult::Unfinished, Some(worst)) = (open, test.result, worst.filter(shares)) {
            test.result = worst;
        }
    }
}

/// Counts attempts from 1, whichever executions they were part of; gives the number of the last.
fn ordinals(earlier: &mut [AttemptReport<'_>], last: u32) -> u32 {
    let (mut number, mut execution) = (0, None);
    for attempt in earlier {
        if execution != Some(attempt.number) {
            (number, execution) = (number + 1, Some(attempt.number));
        }
        attempt.number = number;
    }
    if execution == Some(last) { number } else { number + 1 }
}

/// How bad a result is, to choose among several runs of one test.
fn severity(result: TestResult) -> u8 {
    match result {
        TestResult::Skip => 0,
        TestResult::Pass => 1,
        TestResult::Flaky => 2,
        TestResult::NotRun => 3,
        TestResult::Missing => 4,
        TestResult::Unfinished => 5,
        TestResult::Lost => 6,
        TestResult::Fail => 7,
        TestResult::TimedOut => 8,
        TestResult::Crashed => 9,
    }
}

/// The rules, for one package in one cell.
pub(super) struct Judge<'r> {
    pub(super) run: &'r Run,
    pub(super) cell: &'r Cell,
    pub(super) package: &'r Package,
    /// What the repository says of its tests.
    pub(super) known: Option<&'r Known>,
}

impl<'r> Judge<'r> {
    fn ending(&self, shard: Option<&'r Shard>) -> Ending<'r> {
        ending::of(self.run, self.cell, shard)
    }

    /// The verdict of a test that said something.
    fn test(&self, name: &'r str, attempts: &'r [Attempt]) -> Option<TestReport<'r>> {
        let last = attempts.last()?;
        let key = (last.shard, last.number);
        let (deciding, earlier): (Vec<_>, Vec<_>) = attempts
            .iter()
            .map(|attempt| (attempt, self.attempt(attempt)))
            .partition(|(attempt, _)| (attempt.shard, attempt.number) == key);
        let (attempt, mut verdict) =
            deciding.into_iter().max_by_key(|(_, verdict)| severity(verdict.result))?;
        let failed_before = |(_, earlier): &(_, AttemptReport<'_>)| {
            matches!(
                earlier.result,
                TestResult::Fail | TestResult::TimedOut | TestResult::Crashed | TestResult::Unfinished
            )
        };
        if verdict.result == TestResult::Pass && earlier.iter().any(failed_before) {
            verdict.result = TestResult::Flaky;
        }
        let whole = || self.shard(attempt).and_then(|shard| shard.ended.as_ref()?.output.as_ref());
        let output = match verdict.output {
            Some(own) => Some((Cow::Borrowed(own), OutputScope::Test)),
            None if is_good(verdict.result) => None,
            None => whole().map(|output| (Cow::Borrowed(output), OutputScope::Package)),
        };
        let mut earlier: Vec<AttemptReport<'_>> = earlier.into_iter().map(|(_, verdict)| verdict).collect();
        let number = ordinals(&mut earlier, verdict.number);
        Some(TestReport {
            name,
            result: verdict.result,
            message: verdict.message,
            duration_ms: verdict.duration_ms,
            output,
            evidence: verdict.evidence,
            earlier,
            attempt: number,
            subtests: 0,
            blames_subtest: false,
            known_flaky: self.known_flaky(name, verdict.result),
            owners: self.owners(name),
            cancelled: verdict.result == TestResult::NotRun
                && (self.run.cancelled()
                    || self.run.halted.is_some()
                    || matches!(self.ending(self.shard(attempt)), Ending::Cancelled(_))),
        })
    }

    fn shard(&self, attempt: &Attempt) -> Option<&'r Shard> {
        attempt.shard.and_then(|index| self.package.shards.get(index))
    }

    fn attempt(&self, attempt: &'r Attempt) -> AttemptReport<'r> {
        let splat = attempt.splats.last().and_then(|index| self.cell.splats.get(*index));
        let number = attempt.number;
        let Some(ended) = &attempt.ended else {
            let ending = self.ending(self.shard(attempt));
            let until = match self.shard(attempt).and_then(|shard| shard.ended.as_ref()) {
                Some(ended) => ended.ended_ms,
                None => self.run.elapsed_ms,
            };
            return AttemptReport {
                number,
                result: ending.running(),
                message: Some(ending.while_running()),
                duration_ms: until.saturating_sub(attempt.started_ms),
                output: None,
                evidence: splat.map_or(ending.evidence(), |splat| &splat.excerpt),
            };
        };
        let complained = splat.filter(|_| is_good(ended.result));
        AttemptReport {
            number,
            result: complained.map_or(ended.result, |_| TestResult::Crashed),
            message: match complained {
                Some(splat) => Some(format!("the kernel complained while it ran: {}", splat.signature)),
                None => ended.message.clone(),
            },
            duration_ms: ended.duration_ms,
            output: ended.output.as_ref(),
            evidence: match (splat, ended.result) {
                (Some(splat), _) => &splat.excerpt,
                (None, TestResult::Crashed | TestResult::Lost) => self.ending(self.shard(attempt)).evidence(),
                _ => &[],
            },
        }
    }

    /// The execution that speaks for the package: of those whose work did not go on in another one, the last that did
    /// not end well.
    fn speaking(&self) -> Option<&'r Shard> {
        let final_ones = || {
            self.package.shards.iter().rev().filter(|shard| !self.package.superseded.contains(&shard.attempt))
        };
        let ill = final_ones().find(|shard| self.ending(Some(shard)).package().is_some());
        ill.or_else(|| final_ones().next()).or(self.package.shards.last())
    }

    /// A listed test of a package that ran, which never started.
    fn never_started(&self, name: &'r str) -> TestReport<'r> {
        let ending = self.ending(self.speaking());
        if matches!(ending, Ending::TimedOut | Ending::Cancelled(_) | Ending::Open)
            && let Some(halted) = self.halted(name)
        {
            return halted;
        }
        self.without_attempt(name, ending.never_started(), ending.before_it(), ending.evidence(), &ending)
    }

    /// The package's own entry, where its end is bad and no test explains it.
    fn package_entry(&self, tests: &BTreeMap<&str, TestReport<'_>>) -> Option<TestReport<'r>> {
        let shard = self.speaking()?;
        let ending = self.ending(Some(shard));
        let result = ending.package()?;
        let index = self.package.shards.iter().position(|other| std::ptr::eq(other, shard));
        // A failing test explains a status, but no other end.
        let explains = |result: TestResult| match ending {
            Ending::Exited(_) => !is_good(result),
            _ => !is_good(result) && result != TestResult::Fail,
        };
        let attempts = self.package.tests.odd().values().flatten().filter(|attempt| attempt.shard == index);
        let explained = tests.values().any(|test| explains(test.result))
            || attempts.map(|attempt| self.attempt(attempt).result).any(explains);
        if explained {
            return None;
        }
        let mut entry = self.without_attempt("", result, ending.outside(), ending.evidence(), &ending);
        entry.attempt = 1;
        if let Some(ended) = &shard.ended {
            entry.duration_ms = ended.duration_ms;
            entry.output = ended.output.as_ref().map(|output| (Cow::Borrowed(output), OutputScope::Package));
        }
        Some(entry)
    }

    /// What never started because the run stopped by a rule of its own, if it did.
    fn halted(&self, name: &'r str) -> Option<TestReport<'r>> {
        let reason = self.run.halted.as_ref()?;
        let message = format!("the run stopped before it started: {reason}");
        let report = self.without_attempt(name, TestResult::NotRun, message, &[], &Ending::NotStarted);
        Some(TestReport { cancelled: true, ..report })
    }

    /// A package, or its listed test, that never started.
    fn absent(&self, name: &'r str, trouble: Option<&Trouble<'r>>) -> TestReport<'r> {
        if self.run.cancelled() {
            let message = Ending::Cancelled(self.run.cancelled_by.as_deref()).before_it();
            return self.without_attempt(name, TestResult::NotRun, message, &[], &Ending::Cancelled(None));
        }
        if let Some(halted) = self.halted(name) {
            return halted;
        }
        if let Some(loss) = self.cell.losses.last() {
            let ending = Ending::Lost(Some(loss));
            return self.without_attempt(
                name,
                ending.never_started(),
                ending.before_it(),
                &loss.excerpt,
                &ending,
            );
        }
        match trouble {
            Some(trouble) => {
                let first = trouble.message.lines().next().unwrap_or_default();
                let message = format!("{} failed: {first}", trouble.stage);
                self.without_attempt(name, TestResult::NotRun, message, trouble.excerpt, &Ending::NotStarted)
            }
            None => {
                let message = match self.run.ended {
                    Some(_) => "it was planned and never started",
                    None => "the log ends before it started",
                };
                self.without_attempt(name, TestResult::Missing, message.to_owned(), &[], &Ending::Open)
            }
        }
    }

    fn without_attempt(
        &self,
        name: &'r str,
        result: TestResult,
        message: String,
        evidence: &'r [String],
        ending: &Ending<'_>,
    ) -> TestReport<'r> {
        TestReport {
            name,
            result,
            message: Some(message),
            duration_ms: 0,
            output: None,
            evidence,
            earlier: Vec::new(),
            attempt: 0,
            subtests: 0,
            blames_subtest: false,
            cancelled: matches!(ending, Ending::Cancelled(_)),
            known_flaky: false,
            owners: self.owners(name),
        }
    }
}
