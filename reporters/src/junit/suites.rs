//! Suites and cases of a run.

use std::time::Duration;

use chrono::{DateTime, FixedOffset};
use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestRerun, TestSuite};

use super::Flavour;
use super::body::{Bodies, kind, sentence};
use crate::event::{Arch, TestResult};
use crate::mask::Masks;
use crate::model::{Build, CellReport, PackageReport, Run, Splat, TestReport};
use crate::output::OutputSource;
use crate::triage::boot_cause;

/// The class of cases that are no test: boot, ship, build.
const INFRASTRUCTURE: &str = "kmt";

/// The name of a package's own case.
const PACKAGE_CASE: &str = "(package)";

/// Hands every suite to `take`, in order.
pub(super) fn each<E>(
    run: &Run,
    flavour: Flavour,
    source: &dyn OutputSource,
    masks: &Masks,
    take: &mut dyn FnMut(TestSuite) -> Result<(), E>,
) -> Result<(), E> {
    let report = run.report();
    let mut writer =
        Writer { run, flavour, bodies: Bodies { source, masks, budget: flavour.output_budget() } };
    if let Some(builds) = writer.builds() {
        take(builds)?;
    }
    for cell in &report.cells {
        take(writer.cell(cell))?;
        for package in &cell.packages {
            take(writer.package(cell, package))?;
        }
    }
    Ok(())
}

struct Writer<'r> {
    run: &'r Run,
    flavour: Flavour,
    bodies: Bodies<'r>,
}

impl Writer<'_> {
    fn builds(&mut self) -> Option<TestSuite> {
        if self.run.builds.is_empty() {
            return None;
        }
        let mut suite = TestSuite::new("build");
        self.place(&mut suite, "localhost", 0, None);
        // A configuration of its own: no kernel is tested here.
        let archs: Vec<&str> = self.run.builds.keys().map(|arch| arch.as_str()).collect();
        for (name, value) in
            [("os.platform", "linux"), ("os.version", "none"), ("os.architecture", &archs.join(","))]
        {
            suite.add_property(Property::new(format!("dd_tags[{name}]"), value));
        }
        for (arch, build) in &self.run.builds {
            let (status, ms) = match build {
                Build::Done { duration_ms, .. } => (TestCaseStatus::success(), *duration_ms),
                Build::Running => {
                    (self.error("unfinished", "the event log ends before the build did", &[]), 0)
                }
                Build::Failed { subject, message } => {
                    let sentence = format!("build of {subject} for {arch} failed");
                    let body = format!("{sentence}\n\n{message}");
                    (self.non_success(NonSuccessKind::Error, "build-failed", &sentence, body), 0)
                }
            };
            suite.add_test_case(self.case(&build_case(*arch), INFRASTRUCTURE.to_owned(), status, ms));
        }
        Some(suite)
    }

    /// Boot, ship, preparation and kernel of a cell.
    fn cell(&mut self, report: &CellReport<'_>) -> TestSuite {
        let cell = report.cell;
        let mut suite = TestSuite::new(self.bodies.text(&cell.id.to_string()));
        let boot_ms = cell.facts.as_ref().map_or(0, |facts| facts.boot_ms);
        self.place(&mut suite, &cell.id.to_string(), boot_ms, None);
        suite.add_properties(self.properties(report, None));
        let class = self.flavour.classname(Some(&cell.id), INFRASTRUCTURE);
        let trouble = report.trouble.as_ref();
        let boot = if let Some(reason) = &cell.skipped {
            let mut status = TestCaseStatus::skipped();
            let reason = self.bodies.text(reason);
            status.set_message(self.bodies.line(&reason)).set_description(reason);
            status
        } else if let Some(trouble) = trouble.filter(|trouble| !["ship", "prepare"].contains(&trouble.stage))
        {
            let phase = trouble.phase.map(|phase| format!(" (it reached the phase {})", phase.as_str()));
            let mut said =
                format!("{} failed: {}{}", trouble.stage, trouble.message, phase.unwrap_or_default());
            let mut ty = format!("{}-failed", trouble.stage);
            if trouble.stage == "boot"
                && let Some(finding) = boot_cause(self.run, cell, self.bodies.source)
            {
                finding.cause.clone_into(&mut ty);
                said.push_str(&format!("\ncause: {}\nadvice: {}", finding.says, finding.advice));
            }
            self.error(&ty, &said, trouble.excerpt)
        } else if cell.facts.is_some() || cell.started() {
            TestCaseStatus::success()
        } else if self.run.cancelled() {
            self.error("not-run", "the run was cancelled before the machine was ready", &[])
        } else {
            self.error("not-run", "the event log ends before the machine was ready", &[])
        };
        suite.add_test_case(self.case("boot", class.clone(), boot, boot_ms));
        self.served(&mut suite, report, &class);
        for splat in cell.splats.iter().filter(|splat| !splat.attributed) {
            let status = self.splat(splat);
            suite.add_test_case(self.case("kernel", class.clone(), status, 0));
        }
        suite
    }

    /// What was sent to the guest, and what was done to it: each step with its time is a property.
    fn served(&mut self, suite: &mut TestSuite, report: &CellReport<'_>, class: &str) {
        let steps = report.cell.prepared.as_deref();
        for step in steps.unwrap_or_default().iter().filter(|_| self.flavour.plain_properties()) {
            let name = self.bodies.line(&format!("kmt.prepare.{}", step.name));
            suite.add_property(Property::new(name, format!("{} ms", step.duration_ms)));
        }
        let prepared_ms = steps.map(|steps| steps.iter().map(|step| step.duration_ms).sum());
        let shipped_ms = report.cell.shipped.map(|shipped| shipped.duration_ms);
        for (stage, took) in [("ship", shipped_ms), ("prepare", prepared_ms)] {
            let status = match report.trouble.as_ref().filter(|trouble| trouble.stage == stage) {
                Some(trouble) => {
                    let said = format!("{stage} failed: {}", trouble.message);
                    self.error(&format!("{stage}-failed"), &said, &[])
                }
                None if took.is_some() => TestCaseStatus::success(),
                None => continue,
            };
            suite.add_test_case(self.case(stage, class.to_owned(), status, took.unwrap_or(0)));
        }
    }

    fn splat(&mut self, splat: &Splat) -> TestCaseStatus {
        let said = format!("the kernel complained: {}", splat.signature);
        let body = self.bodies.case(&said, &splat.excerpt, None);
        self.non_success(NonSuccessKind::Failure, "splat", &said, body)
    }

    fn package(&mut self, cell: &CellReport<'_>, package: &PackageReport<'_>) -> TestSuite {
        let mut suite = TestSuite::new(self.bodies.text(&self.flavour.suite(&cell.cell.id, package.name)));
        let shards = &package.package.shards;
        let ms = shards
            .iter()
            .filter_map(|shard| shard.ended.as_ref())
            .map(|ended| ended.duration_ms)
            .fold(0, u64::saturating_add);
        let began = shards.first().map(|shard| shard.started_ms);
        self.place(&mut suite, &cell.cell.id.to_string(), ms, began);
        suite.add_properties(self.properties(cell, Some(package)));
        let class = self.flavour.classname(Some(&cell.cell.id), package.name);
        for test in package.tests() {
            let case = self.test(&class, &test);
            suite.add_test_case(case);
        }
        suite
    }

    fn test(&mut self, class: &str, test: &TestReport<'_>) -> TestCase {
        let message = test.message.as_deref();
        let said = sentence(test.result, message);
        let mut status = match test.result {
            TestResult::Pass | TestResult::Flaky => TestCaseStatus::success(),
            TestResult::Skip => {
                let reason =
                    self.bodies.skip_reason(message, test.output.as_ref().map(|(output, _)| &**output));
                let mut status = TestCaseStatus::skipped();
                status.set_message(self.bodies.line(&reason)).set_description(reason);
                status
            }
            result => {
                let said = match test.blames_subtest {
                    true => format!("{said} (see its subtests)"),
                    false => said,
                };
                let (evidence, output) = match test.blames_subtest {
                    true => (&[][..], None),
                    false => (test.evidence, test.output.as_ref().map(|(output, scope)| (&**output, *scope))),
                };
                let said = if test.is_known_failure() { format!("known flaky: {said}") } else { said };
                let owners = match test.owners {
                    [] => String::new(),
                    owners => format!("\nowner: {}", owners.join(" ")),
                };
                let body = self.bodies.case(&format!("{said}{owners}"), evidence, output);
                self.non_success(element(result), kind(result), &said, body)
            }
        };
        if !matches!(test.result, TestResult::Pass | TestResult::Skip) {
            for attempt in &test.earlier {
                let said = format!(
                    "attempt {} {}",
                    attempt.number,
                    sentence(attempt.result, attempt.message.as_deref())
                );
                // Always the `Failure` elements: Jenkins does not read the `Error` ones.
                let mut rerun = TestRerun::new(NonSuccessKind::Failure);
                rerun.set_type(kind(attempt.result)).set_message(self.bodies.line(&said));
                rerun.set_stack_trace(self.bodies.attempt(&said, attempt.output));
                status.add_rerun(rerun);
            }
        }
        let name = if test.name.is_empty() { PACKAGE_CASE } else { test.name };
        let mut case = self.case(name, class.to_owned(), status, test.duration_ms);
        let plain = matches!(test.result, TestResult::Pass | TestResult::Fail | TestResult::Skip)
            && test.attempt <= 1;
        if self.flavour.case_properties() && !plain {
            case.add_property(Property::new("dd_tags[kmt.result]", kind(test.result)));
            case.add_property(Property::new("dd_tags[attempt]", test.attempt.to_string()));
        }
        if self.flavour.case_properties() {
            self.known(&mut case, test);
        }
        case
    }

    /// What was known of a test before it ran; owners under the name that Datadog's own libraries give them.
    fn known(&self, case: &mut TestCase, test: &TestReport<'_>) {
        if test.known_flaky {
            case.add_property(Property::new("dd_tags[kmt.known_flaky]", "true"));
        }
        if !test.owners.is_empty() {
            let owners = serde_json::Value::from(test.owners).to_string();
            case.add_property(Property::new("dd_tags[test.codeowners]", self.bodies.line(&owners)));
        }
    }

    fn case(&self, name: &str, class: String, status: TestCaseStatus, ms: u64) -> TestCase {
        let mut case = TestCase::new(self.bodies.text(name).replace('\n', "\\n"), status);
        case.set_classname(self.bodies.text(&class).replace('\n', "\\n"));
        case.set_time(Duration::from_millis(ms));
        case
    }

    fn error(&mut self, ty: &str, said: &str, excerpt: &[String]) -> TestCaseStatus {
        let body = self.bodies.case(said, excerpt, None);
        self.non_success(NonSuccessKind::Error, ty, said, body)
    }

    fn non_success(&mut self, kind: NonSuccessKind, ty: &str, said: &str, body: String) -> TestCaseStatus {
        let mut status = TestCaseStatus::non_success(kind);
        let body = self.bodies.text(&body);
        status.set_type(self.bodies.text(ty)).set_message(self.bodies.line(said)).set_description(body);
        status
    }

    /// Host, duration and time of a suite.
    fn place(&self, suite: &mut TestSuite, host: &str, ms: u64, began_ms: Option<u64>) {
        suite.extra.insert("hostname".into(), self.bodies.text(host).as_str().into());
        suite.set_time(Duration::from_millis(ms));
        let began = chrono::Duration::milliseconds(began_ms.unwrap_or_default().min(1 << 40) as i64);
        if let Some(time) = self.run.started.and_then(|started| started.checked_add_signed(began)) {
            suite.set_timestamp(DateTime::<FixedOffset>::from(time));
        }
    }

    fn properties(&self, report: &CellReport<'_>, package: Option<&PackageReport<'_>>) -> Vec<Property> {
        let cell = report.cell;
        let mut properties = Vec::new();
        let mut tag = |name: &str, value: &str| {
            if !value.is_empty() {
                properties.push(Property::new(format!("dd_tags[{name}]"), self.bodies.line(value)));
            }
        };
        tag("os.platform", "linux");
        match &cell.facts {
            Some(facts) => {
                tag("os.name", &facts.os_name);
                tag("os.version", &facts.kernel_release);
                tag("os.architecture", &facts.machine_arch);
            }
            None => {
                if !cell.distro.is_empty() {
                    tag("os.name", &format!("{}-{}", cell.distro, cell.distro_version));
                }
                // Without it all cells that never came up would be one configuration.
                tag("os.version", &cell.id.kernel);
                tag("os.architecture", if cell.id.arch == Arch::Arm64 { "aarch64" } else { "x86_64" });
            }
        }
        tag("kmt.cell", &cell.id.to_string());
        tag("kmt.component", &self.run.component);
        if let Some(package) = package {
            let attempts = package.package.shards.iter().map(|shard| shard.attempt).max();
            tag("attempt", &attempts.unwrap_or(1).to_string());
        }
        properties
    }
}

fn build_case(arch: Arch) -> String {
    format!("build {arch}")
}

/// What a test did wrong is a failure; what kept it from saying so is an error.
fn element(result: TestResult) -> NonSuccessKind {
    match result {
        TestResult::Lost | TestResult::NotRun | TestResult::Missing => NonSuccessKind::Error,
        _ => NonSuccessKind::Failure,
    }
}
