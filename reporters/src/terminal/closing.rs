//! What is left on the screen: failures with their output, cells that never ran, the picture, the summary, the next
//! command.

use super::Style;
use super::lines::{View, indented};
use super::matrix;
use super::paint::{Paint, Role, Verb};
use super::setup::UNSURE;
use crate::compare::{boundaries, groups};
use crate::event::{OutputRef, TestResult};
use crate::mask::Masks;
use crate::model::{Build, CellReport, OutputScope, PackageReport, RESULTS, Report, TestReport, is_good};
use crate::output::{OutputSource, head_and_tail};
use crate::text::{bytes, escape, escape_line, plural, seconds};
use crate::triage::{Finding, boot_cause};

/// Bytes of output a failure gets, and how many failures get any.
const OUTPUT_CAP: u64 = 6 * 1024;
const WITH_OUTPUT: usize = 20;

/// Lines of a console or a compiler, and names in a list.
const EXCERPT: usize = 12;
const NAMES: usize = 3;

/// Causes and boundaries that are told.
const CAUSES: usize = 10;

pub(super) struct Closing<'r> {
    pub(super) report: &'r Report<'r>,
    pub(super) paint: &'r Paint,
    pub(super) style: Style,
    pub(super) source: &'r dyn OutputSource,
    pub(super) masks: &'r Masks,
    pub(super) cell_width: usize,
}

impl Closing<'_> {
    pub(super) fn text(&self, hints: &[String]) -> String {
        let mut sections = vec![self.failures(), self.infrastructure(), self.causes(), self.boundaries()];
        sections.push(matrix::picture(self.report, self.paint, self.style));
        sections.retain(|section| !section.is_empty());
        let rule = if self.style.unicode { "─" } else { "-" };
        let mut text = format!("{}\n", self.paint.role(Role::Dim, &rule.repeat(self.style.width.min(80))));
        for section in sections {
            text.push_str(&section);
            text.push('\n');
        }
        text.push_str(&self.summary());
        for hint in hints {
            text.push_str(&self.paint.note(Verb::plain("next:"), &escape(hint)));
        }
        text
    }

    fn view(&self) -> View<'_> {
        let verbosity = super::Verbosity::Verbose;
        View { run: self.report.run, paint: self.paint, verbosity, cell_width: self.cell_width }
    }

    /// Every test that went wrong and is the place to look; those that never started one line a package.
    fn failures(&self) -> String {
        let mut text = String::new();
        let mut shown = 0;
        let mut console: Option<&[String]> = None;
        for cell in &self.report.cells {
            for package in &cell.packages {
                for test in package.odd.iter().filter(|test| is_shown(test)) {
                    text.push_str(&self.view().verdict(&cell.cell.id, package.name, test));
                    // One console speaks for all tests that it ended.
                    let again = console.is_some_and(|known| std::ptr::eq(known, test.evidence));
                    if !test.evidence.is_empty() && !again {
                        console = Some(test.evidence);
                        let last = test.evidence.len().saturating_sub(EXCERPT);
                        text.push_str(&indented(self.paint, test.evidence[last..].iter()));
                    }
                    if test.result == TestResult::Flaky {
                        text.push_str(&self.earlier(test));
                        continue;
                    }
                    if let (Some((output, scope)), true) = (&test.output, shown < WITH_OUTPUT) {
                        shown += 1;
                        text.push_str(&self.output(output, *scope));
                    }
                }
                text.push_str(&self.absent(cell, package));
            }
        }
        text
    }

    /// Failures of several cells that have one cause.
    fn causes(&self) -> String {
        let mut text = String::new();
        let groups = groups(self.report, self.source, self.masks);
        for group in groups.iter().filter(|group| group.cells.len() > 1).take(CAUSES) {
            let width = plural(group.cells.len() as u64, "cell");
            let tests = match group.tests.len() {
                0 => String::new(),
                count => format!(", {}", plural(count as u64, "test")),
            };
            let said = format!("{}: {}", group.kind, escape(&group.example));
            let width = self.paint.role(Role::Strong, &format!("{width}{tests}"));
            text.push_str(&self.paint.note(Verb::bad("1 cause"), &format!("{width}: {said}")));
        }
        text
    }

    /// The smallest statements over cells that part pass from fail.
    fn boundaries(&self) -> String {
        if self.report.cells.len() < 2 {
            return String::new();
        }
        let found = boundaries(self.report);
        let more = found.len().saturating_sub(CAUSES);
        let mut text: String = found
            .iter()
            .take(CAUSES)
            .map(|line| self.paint.note(Verb::bad("BOUNDARY"), &escape(&line.to_string())))
            .collect();
        if more > 0 {
            text.push_str(&self.paint.note(Verb::plain(""), &format!("and {more} more")));
        }
        text
    }

    /// What went wrong before a test passed.
    fn earlier(&self, test: &TestReport<'_>) -> String {
        let mut text = String::new();
        for attempt in test.earlier.iter().filter(|attempt| !is_good(attempt.result)) {
            let message = attempt.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            let said = format!("attempt {} {}{message}", attempt.number, past(attempt.result));
            text.push_str(&indented(self.paint, std::iter::once(said)));
            if let Some(output) = attempt.output {
                text.push_str(&self.output(output, OutputScope::Test));
            }
        }
        text
    }

    fn output(&self, output: &OutputRef, scope: OutputScope) -> String {
        let text = head_and_tail(self.source, output, OUTPUT_CAP, self.masks);
        if text.trim().is_empty() {
            return String::new();
        }
        let mut said = String::new();
        if scope == OutputScope::Package {
            said.push_str(&indented(self.paint, ["output of the whole package:"].iter()));
        }
        said.push_str(&indented(self.paint, text.trim_end().lines()));
        said
    }

    fn absent(&self, cell: &CellReport<'_>, package: &PackageReport<'_>) -> String {
        let mut text = String::new();
        for result in [TestResult::Missing, TestResult::Lost, TestResult::NotRun] {
            let tests: Vec<&TestReport<'_>> = package
                .odd
                .iter()
                .filter(|test| test.result == result && test.attempt == 0 && !test.name.is_empty())
                .collect();
            let Some(first) = tests.first() else { continue };
            let names: Vec<_> = tests.iter().take(NAMES).map(|test| escape(test.name)).collect();
            let more = tests.len().saturating_sub(NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let said = format!(
                "{} {}: {}{more}{}",
                self.paint.role(Role::Package, &escape(package.name)),
                plural(tests.len() as u64, "test"),
                self.paint.role(Role::Test, &names.join(", ")),
                self.paint
                    .role(Role::Dim, &format!(": {}", escape(first.message.as_deref().unwrap_or_default()))),
            );
            let id = format!("{:<width$}", escape(&cell.cell.id.to_string()), width = self.cell_width);
            text.push_str(&self.paint.line(Verb::of(result), None, &id, &said));
        }
        text
    }

    /// Cells that never ran, builds that failed, kernels that complained outside any test.
    fn infrastructure(&self) -> String {
        let run = self.report.run;
        let mut text = String::new();
        for (arch, build) in &run.builds {
            if let Build::Failed { subject, message } = build {
                let said = format!("{arch}: {}", escape(subject));
                text.push_str(&self.paint.line(Verb::bad("BUILD FAIL"), None, "", &said));
                text.push_str(&indented(self.paint, message.lines().take(EXCERPT)));
            }
        }
        for (host, message) in &run.failed_hosts {
            text.push_str(
                &self.paint.note(Verb::bad("HOST FAIL"), &format!("{}: {}", escape(host), escape(message))),
            );
        }
        for cell in &self.report.cells {
            text.push_str(&self.cell(cell));
        }
        text
    }

    fn cell(&self, cell: &CellReport<'_>) -> String {
        let id = format!("{:<width$}", escape(&cell.cell.id.to_string()), width = self.cell_width);
        let mut text = String::new();
        // A build says it itself, once for all its cells.
        let build = self.report.run.builds.get(&cell.cell.id.arch);
        let told = |stage: &str| stage == "build" && matches!(build, Some(Build::Failed { .. }));
        if let Some(trouble) = cell.trouble.as_ref().filter(|trouble| !told(trouble.stage)) {
            let verb = match trouble.stage {
                "boot" => Verb::bad("BOOT FAIL"),
                "ship" => Verb::bad("SHIP FAIL"),
                _ => Verb::bad("NOT-RUN"),
            };
            let phase =
                trouble.phase.map(|phase| format!(" (it reached {})", phase.as_str())).unwrap_or_default();
            let first = trouble.message.lines().next().unwrap_or_default();
            let stage = match trouble.stage {
                "boot" | "ship" => String::new(),
                stage => format!("{}: ", escape(stage)),
            };
            text.push_str(&self.paint.line(verb, None, &id, &format!("{stage}{}{phase}", escape(first))));
            if let Some(finding) = self.boot_cause(cell) {
                text.push_str(&self.why(&finding));
            }
            let last = trouble.excerpt.len().saturating_sub(EXCERPT);
            text.push_str(&indented(self.paint, trouble.excerpt[last..].iter()));
        }
        for splat in cell.cell.splats.iter().filter(|splat| !splat.attributed) {
            text.push_str(&self.paint.line(Verb::bad("SPLAT"), None, &id, &escape(&splat.signature)));
            text.push_str(&indented(self.paint, splat.excerpt.iter().take(EXCERPT)));
        }
        text
    }

    fn boot_cause(&self, cell: &CellReport<'_>) -> Option<Finding> {
        let boot = cell.trouble.as_ref().is_some_and(|trouble| trouble.stage == "boot");
        let finding = boot.then(|| boot_cause(self.report.run, cell.cell, self.source)).flatten();
        finding.filter(|finding| !UNSURE.contains(&finding.cause))
    }

    /// A cause and what to do about it.
    fn why(&self, finding: &Finding) -> String {
        let cause = self.paint.role(Role::Strong, &format!("cause: {}", escape_line(&finding.says)));
        let advice = self.paint.role(Role::Dim, &format!("advice: {}", escape_line(finding.advice)));
        format!("{:25}{cause}\n{:25}{advice}\n", "", "")
    }

    fn summary(&self) -> String {
        let (report, run) = (self.report, self.report.run);
        let counts = &report.counts;
        let part = |count: u64, words: &str, role| {
            (count > 0).then(|| self.paint.role(role, &format!("{count} {words}")))
        };
        let told = |result: &TestResult| {
            // A flaky test that passed in the end stands once, as that.
            let apart = if *result == TestResult::Flaky { 0 } else { counts.known_flaky(*result) };
            part(counts.tests(*result) - apart, past(*result), role(*result))
        };
        let mut ran: Vec<String> = RESULTS[..7].iter().filter_map(told).collect();
        ran.extend(part(counts.known_failures(), "failed as known flaky", Role::Odd));
        let selected = report.cells.iter().filter(|cell| cell.cell.skipped.is_none()).count() as u64;
        let started = report.cells.iter().filter(|cell| cell.cell.started()).count() as u64;
        let cells = match selected == started {
            true => plural(started, "cell"),
            false => format!("{started} of {}", plural(selected, "cell")),
        };
        let results = if ran.is_empty() { String::new() } else { format!(": {}", ran.join(", ")) };
        let took = format!("[{:>9}]", seconds(run.elapsed_ms));
        let tests = self.paint.role(Role::Strong, &format!("{} run", plural(counts.tests_run(), "test")));
        let verb = match report.outcome() {
            crate::model::Outcome::Passed => Verb::good("Summary"),
            _ => Verb::bad("Summary"),
        };
        let mut text = self.paint.note(verb, &format!("{took} {tests}{results} across {cells}"));
        let mut without: Vec<String> = RESULTS[7..].iter().filter_map(told).collect();
        for result in RESULTS.iter().filter(|result| counts.packages(**result) > 0) {
            let packages = plural(counts.packages(*result), "package");
            without.push(self.paint.role(role(*result), &format!("{packages} {}", past(*result))));
        }
        if !without.is_empty() {
            text.push_str(&format!("{:25}and {}\n", "", without.join(", ")));
        }
        text.push_str(&self.timing());
        if let Some(by) = &run.cancelled_by {
            text.push_str(&self.paint.note(Verb::odd("Cancelled"), &format!("by {}", escape(by))));
        } else if run.ended.is_none() {
            text.push_str(&self.paint.note(Verb::odd("WARNING"), "the event log ends before the run did"));
        }
        text
    }

    /// Where the time went, and what it took to get there.
    fn timing(&self) -> String {
        let run = self.report.run;
        let inside = run.in_tests_ms();
        let facts = || run.cells.iter().filter_map(|cell| cell.facts.as_ref());
        let booted = facts().filter(|facts| !facts.reused && !facts.warm).count() as u64;
        let warm = match facts().filter(|facts| facts.warm && !facts.reused).count() {
            0 => String::new(),
            warm => format!(", {warm} started warm"),
        };
        let reused = facts().filter(|facts| facts.reused).count() as u64;
        let sent: u64 = run.cells.iter().filter_map(|cell| cell.shipped).map(|shipped| shipped.bytes).sum();
        let text = format!(
            "{} inside tests, {} outside; {} booted{warm}, {reused} reused, {} shipped",
            seconds(inside),
            seconds(run.elapsed_ms.saturating_sub(inside)),
            plural(booted, "machine"),
            bytes(sent),
        );
        let mut text = format!("{:25}{}\n", "", self.paint.role(Role::Dim, &text));
        for (cell, balance) in run.cells.iter().filter_map(|cell| Some((cell, cell.balance()?))) {
            let said = format!(
                "{}: {} on {}, {} at best",
                escape(&cell.id.to_string()),
                seconds(balance.reached_ms),
                plural(balance.machines, "machine"),
                seconds(balance.ideal_ms),
            );
            text.push_str(&format!("{:25}{}\n", "", self.paint.role(Role::Dim, &said)));
        }
        text
    }
}

/// Tests with a line of their own: the place to look, not a parent of it, and not one of many that never started.
fn is_shown(test: &TestReport<'_>) -> bool {
    let own = !is_good(test.result) && !test.blames_subtest;
    let absent = test.attempt == 0 && !test.name.is_empty();
    // A whole package that never ran is its cell's trouble, told there.
    let of_cell = test.name.is_empty() && test.result == TestResult::NotRun;
    (own && !absent && !of_cell) || test.result == TestResult::Flaky
}

/// The result as a summary says it.
fn past(result: TestResult) -> &'static str {
    match result {
        TestResult::Pass => "passed",
        TestResult::Fail => "failed",
        TestResult::Skip => "skipped",
        TestResult::Flaky => "flaky",
        TestResult::TimedOut => "timed out",
        TestResult::Crashed => "crashed",
        TestResult::Lost => "lost",
        TestResult::Unfinished => "unfinished",
        TestResult::NotRun => "not run",
        TestResult::Missing => "missing",
    }
}

fn role(result: TestResult) -> Role {
    match result {
        TestResult::Pass => Role::Good,
        TestResult::Skip | TestResult::Flaky => Role::Odd,
        _ => Role::Bad,
    }
}
