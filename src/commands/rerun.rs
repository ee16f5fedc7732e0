//! `rerun`: what did not pass, run again; nothing else.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use kmt_reporters::event::{CellId, TestResult};
use kmt_reporters::model::{Report, Run};

use super::{Open, run, say, source};
use crate::cli::{self, Cli, Command, Written};
use crate::error::{Failure, Kind, Result};
use crate::matrix::{DEFAULT_MEMORY_MIB, DEFAULT_VCPU, Extras};
use crate::plan::Again;
use crate::settings::{Home, Wishes};

/// File in a run directory: the run that it ran again.
const OF: &str = "rerun-of";
/// Runs of runs that are followed back.
const DEEPEST: u32 = 64;

/// What the run before came to, and how it was asked for.
struct Before {
    cli: Cli,
    again: Again,
}

/// Runs again what did not pass in a run. The result is that of the run; 5 where it passed and others still have not,
/// because they were left out.
///
/// # Errors
/// There is no such run, its log cannot be read, or it was no run of a matrix.
pub(super) async fn rerun(args: &cli::Rerun, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    let home = Home::find()?;
    let folder = folder_of(&home, args.run.as_deref())?;
    let Before { cli, again } = before(&home, &folder, DEEPEST)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let globs: Vec<String> = args.cell.clone();
    let (again, outstanding) = again.part(|cell| globs.is_empty() || globs.iter().any(|glob| is(cell, glob)));
    if again.is_empty() {
        say(&format!("{:>12} of run {name} is left to run again", "Nothing"));
        return Ok(if outstanding.is_empty() { 0 } else { 5 });
    }
    let Command::Run(mut old) = cli.command else {
        return Err(Failure::usage(format!("run `{name}` was not made by `kmt-run run`")));
    };
    // Where cells came from CI, they are those that were recorded: nothing is asked for again.
    if old.selection.pipeline.from_ci_pipeline.is_some() {
        old.selection.written = Some(written(&again)?);
    }
    old.rules = args.rules.clone();
    old.selection.again = Some(again);
    old.selection.again_of = Some(folder);
    old.fresh = args.fresh;
    let wishes =
        Wishes { folder: wishes.folder.or(cli.folder), profile: wishes.profile.or(cli.profile), ..wishes };
    let code = run::run(&old, wishes, open).await?;
    Ok(if code == 0 && !outstanding.is_empty() { 5 } else { code })
}

/// The cells in which something runs again.
fn written(again: &Again) -> Result<Written> {
    let catalogue = source::catalogue()?;
    let cell = |id: &CellId| {
        let size = id.size.unwrap_or((DEFAULT_VCPU, DEFAULT_MEMORY_MIB));
        source::cell_of(&catalogue, id, size, &Extras::default())
    };
    let cells = again.cells().into_iter().filter_map(cell).collect();
    Ok(Written { cells, ..Written::default() })
}

/// Whether a cell is meant by its id, or a glob for it.
fn is(cell: &CellId, glob: &str) -> bool {
    let pattern = regex::escape(glob).replace(r"\*", ".*").replace(r"\?", ".");
    regex::Regex::new(&format!("^{pattern}$")).is_ok_and(|pattern| pattern.is_match(&cell.to_string()))
}

/// The folder of a run: by id, by path, or the newest.
fn folder_of(home: &Home, run: Option<&Path>) -> Result<PathBuf> {
    let name = run.unwrap_or(Path::new("latest"));
    let found = [home.runs().join(name), name.to_path_buf()];
    let found = found.iter().find(|folder| folder.join("events.jsonl").is_file());
    let folder = found.ok_or_else(|| {
        Failure::usage(format!("no run `{}`", name.display()))
            .hint(format!("a run is a folder below `{}`, by its name or its path", home.runs().display()))
    })?;
    folder.canonicalize().map_err(|error| Failure::file("read", folder, &error))
}

/// How a run was asked for and what of it did not pass, the runs before it that it ran again included.
fn before(home: &Home, folder: &Path, depth: u32) -> Result<Before> {
    let path = folder.join("events.jsonl");
    let file = File::open(&path).map_err(|error| Failure::file("read", &path, &error))?;
    let model = Run::from_log(BufReader::new(file)).map_err(|error| {
        Failure::new(Kind::Usage, format!("`{}` is no event log", path.display())).caused_by(error)
    })?;
    let report = model.report();
    let bad = undone(&report);
    if let Ok(of) = std::fs::read_to_string(folder.join(OF))
        && depth > 0
    {
        let earlier = before(home, &folder_of(home, Some(Path::new(of.trim())))?, depth - 1)?;
        let well = |cell: &CellId, package: &str, test: &str| passed(&model, cell, package, test);
        return Ok(Before { cli: earlier.cli, again: earlier.again.without(well).and(&bad) });
    }
    let cli = Cli::try_parse_from(&model.command).map_err(|error| {
        Failure::usage(format!("how run `{}` was asked for is not understood", model.id)).caused_by(error)
    })?;
    Ok(Before { cli, again: bad })
}

fn is_good(result: TestResult) -> bool {
    matches!(result, TestResult::Pass | TestResult::Flaky | TestResult::Skip)
}

/// Every test that is neither pass, flaky nor skip.
fn undone(report: &Report<'_>) -> Again {
    let mut again = Again::default();
    for (cell, package, test) in report.odd().filter(|(_, _, test)| !is_good(test.result)) {
        again.add(&cell.cell.id, package.name, test.name);
    }
    again
}

/// Whether a run has a test, or a package, and it went well there.
fn passed(run: &Run, cell: &CellId, package: &str, test: &str) -> bool {
    let Some(report) = run.package_report(cell, package) else { return false };
    match test {
        "" => report.tests().next().is_some() && report.odd.iter().all(|test| is_good(test.result)),
        name => report.test(name).is_some_and(|test| is_good(test.result)),
    }
}

/// Notes in a run directory which run it runs again.
pub(super) fn note(folder: &Path, selection: &cli::Selection) {
    if let Some(of) = &selection.again_of {
        // Without it a later `rerun` knows this run only.
        let _ = std::fs::write(folder.join(OF), format!("{}\n", of.display()));
    }
}
