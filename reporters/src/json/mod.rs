//! `summary.json` (schema 1): a run for machines that want no log.
//!
//! Owns the shape of that file, and nothing else: every value is one of `model`. The order of everything in it is that of
//! the run for cells, and by name for packages and tests, so that equal runs give equal files. Fields may be added; a
//! changed meaning needs a new schema number. To add a field: add it to the struct that mirrors its place in the file.

mod stream;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;

use stream::Whole;

use crate::compare::{Boundary, boundaries};
use crate::event::{CellId, OutputRef, PreparedStep};
use crate::junit::Replacing;
use crate::mask::Masks;
use crate::model::{Build, CellReport, Counts, PackageReport, RESULTS, Report, Run, TestReport, result_name};

/// The schema number in the file.
pub const SCHEMA: u32 = 1;

/// The file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the summary `{path}`", path = .path.display())]
pub struct SummaryError {
    path: std::path::PathBuf,
    source: io::Error,
}

/// Writes the summary to `path`, whole or not at all.
pub fn write(run: &Run, masks: &Masks, path: &Path) -> Result<(), SummaryError> {
    let failed = |source| SummaryError { path: path.to_owned(), source };
    let mut file = Replacing::new(path).map_err(failed)?;
    write_to(run, masks, &mut file).map_err(failed)?;
    file.done().map_err(failed)
}

/// Writes the summary to a stream, bit by bit.
pub fn write_to(run: &Run, masks: &Masks, mut out: impl io::Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, &Whole { report: &run.report(), masks })?;
    out.write_all(b"\n")
}

/// The summary as text.
pub fn text(run: &Run, masks: &Masks) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&Whole { report: &run.report(), masks })?;
    text.push('\n');
    Ok(text)
}

#[derive(Debug, Serialize)]
struct Summary<'r> {
    schema: u32,
    run: &'r str,
    version: &'r str,
    command: &'r [String],
    component: &'r str,
    stack: &'r str,
    started: Option<DateTime<Utc>>,
    outcome: &'static str,
    exit_code: u8,
    /// Whether the log has its last event.
    complete: bool,
    cancelled_by: Option<&'r str>,
    wall_ms: u64,
    /// Milliseconds in which at least one test binary ran.
    in_tests_ms: u64,
    counts: BTreeMap<&'static str, u64>,
    package_counts: BTreeMap<&'static str, u64>,
    /// Of the tests that failed or timed out, those that are known to be flaky.
    known_flaky: u64,
    builds: BTreeMap<String, BuildSummary<'r>>,
    warnings: Vec<Warning<'r>>,
    /// Where tests fail and where not.
    boundaries: Vec<Boundary>,
    /// Made while it is written.
    cells: [(); 0],
}

#[derive(Debug, Serialize)]
struct Warning<'r> {
    subject: &'r str,
    message: &'r str,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum BuildSummary<'r> {
    Running,
    Done { compiled: u32, cached: u32, duration_ms: u64 },
    Failed { subject: &'r str, message: &'r str },
}

#[derive(Debug, Serialize)]
struct CellSummary<'r> {
    cell: &'r CellId,
    distro: &'r str,
    distro_version: &'r str,
    skipped: Option<&'r str>,
    trouble: Option<TroubleSummary<'r>>,
    machine: Option<&'r str>,
    kernel_release: Option<&'r str>,
    machine_arch: Option<&'r str>,
    os_name: Option<&'r str>,
    reused: Option<bool>,
    boot_ms: Option<u64>,
    ship_bytes: Option<u64>,
    ship_files: Option<u32>,
    ship_ms: Option<u64>,
    /// What the guest was made to be, in order; the last one failed where the trouble says so.
    prepare_steps: Option<&'r [PreparedStep]>,
    in_tests_ms: u64,
    console: Option<&'r str>,
    splats: Vec<&'r str>,
    counts: BTreeMap<&'static str, u64>,
    /// Made while it is written.
    packages: [(); 0],
}

#[derive(Debug, Serialize)]
struct TroubleSummary<'r> {
    stage: &'r str,
    phase: Option<&'static str>,
    message: &'r str,
    excerpt: &'r [String],
}

#[derive(Debug, Serialize)]
struct PackageSummary<'r> {
    package: &'r str,
    note: Option<&'static str>,
    attempts: usize,
    duration_ms: u64,
    /// Made while it is written.
    tests: [(); 0],
}

#[derive(Debug, Serialize)]
struct TestSummary<'r> {
    /// Empty for the package itself.
    test: &'r str,
    result: &'static str,
    duration_ms: u64,
    attempt: u32,
    message: Option<&'r str>,
    output: Option<&'r OutputRef>,
    earlier: Vec<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    known_flaky: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    owners: &'r [String],
}

impl<'r> Summary<'r> {
    fn new(report: &'r Report<'r>) -> Summary<'r> {
        let run = report.run;
        let outcome = report.outcome();
        Summary {
            schema: SCHEMA,
            run: &run.id,
            version: &run.version,
            command: &run.command,
            component: &run.component,
            stack: &run.stack,
            started: run.started,
            outcome: outcome.as_str(),
            exit_code: outcome.exit_code(run.test_failure_exit_code),
            complete: run.ended.is_some(),
            cancelled_by: run.cancelled_by.as_deref(),
            wall_ms: run.elapsed_ms,
            in_tests_ms: run.in_tests_ms(),
            counts: by_result(&report.counts, Counts::tests),
            package_counts: by_result(&report.counts, Counts::packages),
            known_flaky: report.counts.known_failures(),
            builds: run.builds.iter().map(|(arch, build)| (arch.to_string(), build_summary(build))).collect(),
            warnings: run.warnings.iter().map(|(subject, message)| Warning { subject, message }).collect(),
            boundaries: boundaries(report),
            cells: [],
        }
    }
}

/// All results, also those that nothing has.
fn by_result(
    counts: &Counts,
    of: fn(&Counts, crate::event::TestResult) -> u64,
) -> BTreeMap<&'static str, u64> {
    RESULTS.iter().map(|result| (result_name(*result), of(counts, *result))).collect()
}

fn build_summary(build: &Build) -> BuildSummary<'_> {
    match build {
        Build::Running => BuildSummary::Running,
        Build::Done { compiled, cached, duration_ms } => {
            BuildSummary::Done { compiled: *compiled, cached: *cached, duration_ms: *duration_ms }
        }
        Build::Failed { subject, message } => BuildSummary::Failed { subject, message },
    }
}

impl<'r> CellSummary<'r> {
    fn new(run: &'r Run, report: &'r CellReport<'r>) -> CellSummary<'r> {
        let cell = report.cell;
        let facts = cell.facts.as_ref();
        CellSummary {
            cell: &cell.id,
            distro: &cell.distro,
            distro_version: &cell.distro_version,
            skipped: cell.skipped.as_deref(),
            trouble: report.trouble.as_ref().map(|trouble| TroubleSummary {
                stage: trouble.stage,
                phase: trouble.phase.map(|phase| phase.as_str()),
                message: trouble.message,
                excerpt: trouble.excerpt,
            }),
            machine: facts.map(|facts| facts.machine.as_str()),
            kernel_release: facts.map(|facts| facts.kernel_release.as_str()),
            machine_arch: facts.map(|facts| facts.machine_arch.as_str()),
            os_name: facts.map(|facts| facts.os_name.as_str()),
            reused: facts.map(|facts| facts.reused),
            boot_ms: facts.map(|facts| facts.boot_ms),
            ship_bytes: cell.shipped.map(|shipped| shipped.bytes),
            ship_files: cell.shipped.map(|shipped| shipped.files),
            ship_ms: cell.shipped.map(|shipped| shipped.duration_ms),
            prepare_steps: cell.prepared.as_deref(),
            in_tests_ms: run.cell_in_tests_ms(cell),
            console: facts.and_then(|facts| facts.console.as_deref()),
            splats: cell.splats.iter().map(|splat| splat.signature.as_str()).collect(),
            counts: by_result(&report.counts, Counts::of),
            packages: [],
        }
    }
}

fn package_summary<'r>(report: &'r PackageReport<'r>) -> PackageSummary<'r> {
    let shards = &report.package.shards;
    PackageSummary {
        package: report.name,
        note: report.note,
        attempts: shards.len(),
        duration_ms: shards
            .iter()
            .filter_map(|shard| shard.ended.as_ref())
            .map(|ended| ended.duration_ms)
            .fold(0, u64::saturating_add),
        tests: [],
    }
}

fn test_summary<'r>(test: &'r TestReport<'_>) -> TestSummary<'r> {
    TestSummary {
        test: test.name,
        result: result_name(test.result),
        duration_ms: test.duration_ms,
        attempt: test.attempt,
        message: test.message.as_deref(),
        output: test.output.as_ref().map(|(output, _)| &**output),
        earlier: test.earlier.iter().map(|attempt| result_name(attempt.result)).collect(),
        known_flaky: test.known_flaky,
        owners: test.owners,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::script::runs;

    #[test]
    fn the_summary_of_a_panic() {
        let text = text(&runs::lost(crate::event::LossEvidence::Panic).run(), &Masks::default()).unwrap();
        insta::assert_snapshot!(crate::redact::redact(&text));
    }

    #[test]
    fn counts_add_up_and_secrets_do_not_show() {
        for (name, script) in runs::all() {
            let run = script.run();
            let text = text(&run, &Masks::new(["system-probe"])).unwrap();
            assert!(!text.contains("system-probe"), "{name}");
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let sum = |counts: &serde_json::Value| {
                counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>()
            };
            let of_cells: u64 =
                value["cells"].as_array().unwrap().iter().map(|cell| sum(&cell["counts"])).sum();
            assert_eq!(sum(&value["counts"]) + sum(&value["package_counts"]), of_cells, "{name}");
            assert_eq!(value["exit_code"], run.exit_code(), "{name}");
            assert_eq!(text.len(), super::text(&script.run(), &Masks::new(["system-probe"])).unwrap().len());
        }
    }

    #[test]
    fn an_unwritable_path_is_a_clear_error() {
        let error = write(&Run::new(), &Masks::default(), Path::new("/proc/nope/summary.json")).unwrap_err();
        assert_eq!(error.to_string(), "cannot write the summary `/proc/nope/summary.json`");
    }
}
