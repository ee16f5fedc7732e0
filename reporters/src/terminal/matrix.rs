//! The picture: tests down, cells across, one mark each, and only rows that are not all green.

use std::collections::{BTreeSet, HashSet};

use unicode_width::UnicodeWidthStr;

use super::Style;
use super::lines::PACKAGE_ENTRY;
use super::paint::{Paint, Role};
use crate::event::TestResult;
use crate::model::{CellReport, PackageReport, RESULTS, Report, TestReport, is_good};
use crate::text::{escape, plural};

/// Rows shown; the rest is counted.
const ROWS: usize = 40;

/// Cells side by side; more go below.
const COLUMNS: usize = 16;

/// Columns of the indent, and the least and most a name gets.
const INDENT: usize = 4;
const NAME: (usize, usize) = (20, 72);

/// The mark of a result and the words of the legend.
fn mark(result: TestResult, unicode: bool) -> (&'static str, Role, &'static str) {
    match result {
        TestResult::Pass => (if unicode { "✓" } else { "." }, Role::Good, "passed"),
        TestResult::Fail => (if unicode { "✗" } else { "x" }, Role::Bad, "failed"),
        TestResult::Skip => ("-", Role::Dim, "skipped"),
        TestResult::Flaky => ("~", Role::Odd, "flaky"),
        TestResult::TimedOut => ("T", Role::Bad, "timed out"),
        TestResult::Crashed => ("C", Role::Bad, "crashed"),
        TestResult::Lost => ("L", Role::Bad, "lost"),
        TestResult::Unfinished => ("U", Role::Bad, "unfinished"),
        TestResult::NotRun => ("N", Role::Bad, "not run"),
        TestResult::Missing => ("M", Role::Bad, "missing"),
    }
}

/// Marks of a row: one a cell, none where the cell does not have the test.
type Marks = Vec<Option<TestResult>>;

/// The picture of a report.
pub(super) fn picture(report: &Report<'_>, paint: &Paint, style: Style) -> String {
    let cells: Vec<&CellReport<'_>> = report.cells.iter().filter(|cell| !cell.packages.is_empty()).collect();
    if cells.is_empty() {
        return String::new();
    }
    let bad = telling(&cells);
    if bad.is_empty() {
        let tests = different(&cells);
        if tests == 0 || report.counts.bad() > 0 {
            return String::new();
        }
        let text = format!("all {} green on {}", plural(tests, "test"), plural(cells.len() as u64, "cell"));
        return format!("{:13}{}\n", "", paint.role(Role::Good, &text));
    }
    let mut text = String::new();
    for (at, block) in cells.chunks(COLUMNS).enumerate() {
        text.push_str(&columns(at * COLUMNS, block, &bad, paint, style));
    }
    if bad.len() > ROWS {
        text.push_str(&format!("{:INDENT$}and {}\n", "", plural((bad.len() - ROWS) as u64, "more row")));
    }
    text.push_str(&legend(&bad, paint, style));
    text
}

/// The tests that say more than those below them: with their marks, by package and name.
fn telling<'r>(cells: &[&CellReport<'r>]) -> Vec<Row<'r>> {
    let fine = |package: &PackageReport<'_>| package.odd.iter().all(|test| is_good(test.result));
    let fine: Vec<Vec<bool>> = cells.iter().map(|cell| cell.packages.iter().map(fine).collect()).collect();
    let odd = cells.iter().flat_map(|cell| &cell.packages);
    let odd = odd.flat_map(|package| package.odd.iter().map(move |test| (package.name, test)));
    let own = |(_, test): &(&str, &TestReport<'_>)| {
        !is_good(test.result) && !test.blames_subtest || test.result == TestResult::Flaky
    };
    let names: BTreeSet<(&str, &str)> = odd.filter(own).map(|(package, test)| (package, test.name)).collect();
    let row = |(package, test): (&'r str, &'r str)| {
        let mark = |(cell, fine): (&&CellReport<'_>, &Vec<bool>)| {
            let at = cell.packages.binary_search_by(|other| other.name.cmp(package)).ok()?;
            // A package that failed as a whole says it for tests that other cells know; one that is fine says so.
            let known = cell.packages[at].test(test).or_else(|| cell.packages[at].test(""));
            known.map(|test| test.result).or(fine[at].then_some(TestResult::Pass))
        };
        ((package, test), cells.iter().zip(&fine).map(mark).collect())
    };
    names.into_iter().map(row).collect()
}

/// How many tests there are, one that several cells have once.
fn different(cells: &[&CellReport<'_>]) -> u64 {
    let mut names: HashSet<(&str, &str)> = HashSet::new();
    for package in cells.iter().flat_map(|cell| &cell.packages) {
        names.extend(package.odd.iter().map(|test| (package.name, test.name)));
        names.extend(package.plain().map(|(test, _)| (package.name, test)));
    }
    names.iter().filter(|(_, test)| !test.is_empty()).count() as u64
}

type Row<'r> = ((&'r str, &'r str), Marks);

fn columns(from: usize, cells: &[&CellReport<'_>], rows: &[Row<'_>], paint: &Paint, style: Style) -> String {
    let (corner, bar) = if style.unicode { ("┌", "│") } else { ("+", "|") };
    let names: Vec<String> =
        cells.iter().map(|cell| escape(&cell.cell.id.to_string()).into_owned()).collect();
    let longest = rows.iter().take(ROWS).map(|((_, test), _)| label(test).width() + 2).max().unwrap_or(0);
    let label_room = names.iter().enumerate().map(|(at, name)| 2 * at + 2 + name.width()).max().unwrap_or(0);
    let room = style.width.saturating_sub(INDENT + label_room.max(2 * cells.len()) + 1);
    let width = longest.clamp(NAME.0, NAME.1).min(room.max(NAME.0));
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        let bars = format!("{bar} ").repeat(at);
        let stem = paint.role(Role::Dim, &format!("{bars}{corner}"));
        text.push_str(&format!("{:1$}{stem} {2}\n", "", INDENT + width + 1, paint.role(Role::Cell, name)));
    }
    let mut last = None;
    for ((package, test), marks) in rows.iter().take(ROWS) {
        if last != Some(package) {
            text.push_str(&format!("{:INDENT$}{}\n", "", paint.role(Role::Package, &escape(package))));
            last = Some(package);
        }
        let name = fitted(&format!("  {}", label(test)), width, style);
        let padding = " ".repeat(width.saturating_sub(name.width()) + 1);
        let marks: Vec<String> = marks[from..from + cells.len()]
            .iter()
            .map(|result| match result {
                Some(result) => {
                    let (mark, role, _) = mark(*result, style.unicode);
                    paint.role(role, mark)
                }
                None => " ".to_owned(),
            })
            .collect();
        let line = format!("{:INDENT$}{name}{padding}{}", "", marks.join(" "));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn label(test: &str) -> String {
    if test.is_empty() { PACKAGE_ENTRY.to_owned() } else { escape(test).into_owned() }
}

/// The name in at most `width` columns, cut at its front, since the end tells subtests apart.
fn fitted(name: &str, width: usize, style: Style) -> String {
    if name.width() <= width {
        return name.to_owned();
    }
    let dots = if style.unicode { "…" } else { "..." };
    let room = width.saturating_sub(dots.width() + 2);
    let mut kept: Vec<char> = Vec::new();
    for c in name.chars().rev() {
        kept.push(c);
        if kept.iter().collect::<String>().width() > room {
            kept.pop();
            break;
        }
    }
    format!("  {dots}{}", kept.iter().rev().collect::<String>())
}

fn legend(rows: &[Row<'_>], paint: &Paint, style: Style) -> String {
    let used: BTreeSet<TestResult> =
        rows.iter().take(ROWS).flat_map(|(_, marks)| marks.iter().flatten().copied()).collect();
    let entries: Vec<String> = RESULTS
        .iter()
        .filter(|result| used.contains(result))
        .map(|result| {
            let (mark, role, words) = mark(*result, style.unicode);
            format!("{} {}", paint.role(role, mark), paint.role(Role::Dim, words))
        })
        .collect();
    format!("\n{:INDENT$}{}\n", "", entries.join("  "))
}
