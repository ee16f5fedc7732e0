//! One event, no line or a few.

use super::Verbosity;
use super::paint::{Paint, Role, Verb};
use crate::event::{CellId, Envelope, Event, TestResult};
use crate::model::{Attempt, PackageReport, Run, TestReport, is_good};
use crate::text::{escape, escape_line, plural};

/// The name of a package's own entry.
pub(super) const PACKAGE_ENTRY: &str = "(package)";

/// A run, as one event is shown.
pub(super) struct View<'r> {
    pub(super) run: &'r Run,
    pub(super) paint: &'r Paint,
    pub(super) verbosity: Verbosity,
    pub(super) cell_width: usize,
}

impl View<'_> {
    /// The lines of an event.
    pub(super) fn event(&self, envelope: &Envelope) -> String {
        match &envelope.event {
            Event::TestStarted { .. } | Event::TestsListed { .. } => String::new(),
            Event::TestFinished { .. } => self.test(&envelope.event),
            Event::TestSlow { cell, package, test, ran_ms, .. } => {
                self.named(Verb::odd("SLOW"), Some(*ran_ms), cell, package, test, "")
            }
            Event::ShardStarted { .. }
            | Event::ShardFinished { .. }
            | Event::ShardRequeued { .. }
            | Event::TestOutputMalformed { .. } => self.shard(&envelope.event),
            Event::BuildStarted { .. }
            | Event::BuildFinished { .. }
            | Event::ArtifactsUploaded { .. }
            | Event::ShipFinished { .. }
            | Event::GuestPrepared { .. }
            | Event::ImageReady { .. } => self.preparation(&envelope.event),
            Event::MachineDefined { .. }
            | Event::MachineReused { .. }
            | Event::MachinePhase { .. }
            | Event::MachineWarm { .. }
            | Event::MachineCold { .. }
            | Event::TemplateMade { .. }
            | Event::MachineReady { .. } => self.machine(&envelope.event, envelope.elapsed_ms),
            Event::RunHalted { .. }
            | Event::SplatAllowed { .. }
            | Event::CellFailed { .. }
            | Event::HostRented { .. }
            | Event::HostEnded { .. }
            | Event::HostFailed { .. }
            | Event::CancelRequested { .. }
            | Event::MachineLost { .. }
            | Event::BootFailed { .. }
            | Event::SplatSeen { .. }
            | Event::BuildFailed { .. }
            | Event::ShipFailed { .. } => self.fault(&envelope.event),
            event => self.run(event),
        }
    }

    pub(super) fn cell(&self, id: &CellId) -> String {
        format!("{:<width$}", escape(&id.to_string()), width = self.cell_width)
    }

    pub(super) fn at_least(&self, verbosity: Verbosity, line: impl FnOnce() -> String) -> String {
        if self.verbosity >= verbosity { line() } else { String::new() }
    }

    fn run(&self, event: &Event) -> String {
        let normal = |line: &dyn Fn() -> String| self.at_least(Verbosity::Normal, line);
        match event {
            Event::RunStarted { run, component, stack, .. } => normal(&|| {
                let text = format!("run {} of {} on stack {}", escape(run), escape(component), escape(stack));
                self.paint.note(Verb::good("Starting"), &text)
            }),
            Event::CellSkipped { cell, reason } => {
                normal(&|| self.paint.line(Verb::odd("SKIP"), None, &self.cell(cell), &escape(reason)))
            }
            Event::PlanMade { shards } => normal(&|| {
                let mut cells: Vec<_> = shards.iter().map(|shard| &shard.cell).collect();
                cells.sort();
                cells.dedup();
                let packages = plural(shards.len() as u64, "package run");
                self.paint.note(
                    Verb::good("Planned"),
                    &format!("{packages} in {}", plural(cells.len() as u64, "cell")),
                )
            }),
            Event::HostReady { host, accelerator, notice } => {
                let text = format!("{} with {}", escape(host), escape(accelerator));
                match notice {
                    Some(notice) => {
                        normal(&|| self.paint.note(Verb::odd("Host"), &format!("{text}: {}", escape(notice))))
                    }
                    None => self.at_least(Verbosity::Verbose, || self.paint.note(Verb::good("Host"), &text)),
                }
            }
            Event::Warning { subject, message } => {
                self.paint.note(Verb::odd("WARNING"), &format!("{}: {}", escape(subject), escape(message)))
            }
            _ => String::new(),
        }
    }

    fn shard(&self, event: &Event) -> String {
        match event {
            Event::ShardStarted { cell, package, machine, attempt } => {
                self.at_least(Verbosity::Verbose, || {
                    let text = format!("{} on {}, attempt {attempt}", escape(package), escape(machine));
                    self.paint.line(Verb::plain("START"), None, &self.cell(cell), &text)
                })
            }
            Event::ShardRequeued { cell, package, reason, attempt } => {
                let text = format!("{}: {}", escape(package), escape(reason));
                let verb = if *attempt == 0 { "RETRY" } else { "REQUEUE" };
                self.paint.line(Verb::odd(verb), None, &self.cell(cell), &text)
            }
            Event::TestOutputMalformed { cell, package, message } => {
                self.at_least(Verbosity::Verbose, || {
                    let text = format!("{}: {}", escape(package), escape(message));
                    self.paint.line(Verb::odd("MALFORMED"), None, &self.cell(cell), &text)
                })
            }
            Event::ShardFinished { cell, package, leaked, attempt, .. } => {
                let mut text = match self.run.package_report(cell, package) {
                    // What goes on in another execution is not over.
                    Some(report) if report.package.superseded.contains(attempt) => String::new(),
                    Some(report) => self.package(cell, &report, *attempt),
                    None => String::new(),
                };
                if *leaked {
                    let said = format!("{}: it left processes behind", escape(package));
                    text.push_str(&self.paint.line(Verb::odd("LEAK"), None, &self.cell(cell), &said));
                }
                text
            }
            _ => String::new(),
        }
    }

    /// What the end of a package decides: tests that have no end of their own, and the package itself.
    fn package(&self, cell: &CellId, report: &PackageReport<'_>, execution: u32) -> String {
        let mut text = String::new();
        if let Some(note) = report.note {
            text.push_str(&self.at_least(Verbosity::Normal, || {
                let said = format!("{} {note}", self.paint.role(Role::Package, &escape(report.name)));
                self.paint.line(Verb::odd("EMPTY"), None, &self.cell(cell), &said)
            }));
        }
        // What another execution runs at the same time is not over.
        let open = |runs: &Vec<Attempt>| {
            runs.last().is_some_and(|attempt| attempt.ended.is_none() && attempt.number == execution)
        };
        for test in &report.odd {
            if test.name.is_empty() || report.package.tests.odd().get(test.name).is_some_and(open) {
                text.push_str(&self.verdict(cell, report.name, test));
            }
        }
        text
    }

    fn test(&self, event: &Event) -> String {
        let Event::TestFinished { cell, package, test, result, duration_ms, attempt, message, .. } = event
        else {
            return String::new();
        };
        let report = self.run.test_report(cell, package, test);
        let known = report.as_ref().filter(|report| report.is_known_failure()).map(Verb::told);
        let (verdict, attempt) = report.map_or((*result, *attempt), |report| (report.result, report.attempt));
        // A retry of what failed before is shown as what it comes to.
        let result = if verdict == TestResult::Flaky { &verdict } else { result };
        let (below, failed) = self.below(cell, package, test);
        let level = match result {
            TestResult::Pass | TestResult::Skip if test.contains('/') => Verbosity::Verbose,
            TestResult::Pass | TestResult::Skip | TestResult::Flaky => Verbosity::Normal,
            _ if failed > 0 && test.contains('/') => Verbosity::Verbose,
            _ => Verbosity::Quiet,
        };
        self.at_least(level, || {
            let mut tail = Vec::new();
            if failed > 0 {
                tail.push(format!("{failed} of {} failed", plural(below, "subtest")));
            } else if below > 0 {
                tail.push(plural(below, "subtest"));
            }
            if attempt > 1 {
                tail.push(format!("attempt {attempt}"));
            }
            tail.extend(message.as_ref().map(|message| escape(message).into_owned()));
            let tail = if tail.is_empty() { String::new() } else { format!(" ({})", tail.join(", ")) };
            let verb = known.unwrap_or(Verb::of(*result));
            self.named(verb, Some(*duration_ms), cell, package, test, &tail)
        })
    }

    /// Number of subtests, and of those that went wrong by their own word.
    fn below(&self, cell: &CellId, package: &str, test: &str) -> (u64, u64) {
        let prefix = format!("{test}/");
        let Some(package) = self.run.cell(cell).and_then(|cell| cell.packages.get(package)) else {
            return (0, 0);
        };
        let odd = package.tests.odd().range(prefix.clone()..);
        let below = odd.take_while(|(name, _)| name.starts_with(&prefix));
        below.fold((package.tests.plain_below(test) as u64, 0), |(all, failed), (_, attempts)| {
            let ended = attempts.last().and_then(|attempt| attempt.ended.as_ref());
            (all + 1, failed + u64::from(ended.is_some_and(|ended| !is_good(ended.result))))
        })
    }

    /// The line of a verdict.
    pub(super) fn verdict(&self, cell: &CellId, package: &str, test: &TestReport<'_>) -> String {
        let ms = (test.attempt > 0).then_some(test.duration_ms);
        let mut tail =
            test.message.as_deref().map(|message| format!(": {}", escape(message))).unwrap_or_default();
        if !test.owners.is_empty() && (!is_good(test.result) || test.result == TestResult::Flaky) {
            tail.push_str(&format!(" [owner: {}]", escape(&test.owners.join(" "))));
        }
        self.named(Verb::told(test), ms, cell, package, test.name, &tail)
    }

    fn named(
        &self,
        verb: Verb,
        ms: Option<u64>,
        cell: &CellId,
        package: &str,
        test: &str,
        tail: &str,
    ) -> String {
        let test = if test.is_empty() { PACKAGE_ENTRY } else { test };
        let mut text = format!(
            "{} {}",
            self.paint.role(Role::Package, &escape(package)),
            self.paint.role(Role::Test, &escape(test))
        );
        if !tail.is_empty() {
            text.push_str(&self.paint.role(Role::Dim, tail));
        }
        self.paint.line(verb, ms, &self.cell(cell), &text)
    }

    pub(super) fn indented<L: AsRef<str>>(&self, lines: impl Iterator<Item = L>) -> String {
        indented(self.paint, lines)
    }
}

/// Lines from outside, escaped, under the text of a line.
pub(super) fn indented<L: AsRef<str>>(paint: &Paint, lines: impl Iterator<Item = L>) -> String {
    lines.map(|line| format!("{:25}{}\n", "", paint.role(Role::Dim, &escape_line(line.as_ref())))).collect()
}
