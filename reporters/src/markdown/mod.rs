//! A run as Markdown, for a comment on a merge request: what it came to, the failures, the picture.
//!
//! Owns the words and the layout; every text from outside stands in code spans, where Markdown and HTML mean nothing.
//! Owns no verdict and no count. To tell more: a section in [`text`].

use crate::compare::boundaries;
use crate::event::TestResult;
use crate::mask::Masks;
use crate::model::{Build, RESULTS, Report, Run, TestReport, is_good, result_name};
use crate::text::{escape, plural, seconds};

/// Failures listed, and cells that fit a table.
const LISTED: usize = 50;
const COLUMNS: usize = 12;

/// The report as text.
pub fn text(run: &Run, masks: &Masks) -> String {
    let report = run.report();
    let mut text = head(&report);
    text.push_str(&infrastructure(&report));
    text.push_str(&wheres(&report));
    text.push_str(&failures(&report));
    text.push_str(&picture(&report));
    masks.mask(&text).into_owned()
}

/// Text from outside: between as many backticks as it takes, on one line, safe in a table.
fn code(text: &str) -> String {
    let text = escape(text).replace('|', "\\|");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') || text.is_empty() { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

fn head(report: &Report<'_>) -> String {
    let run = report.run;
    let outcome = report.outcome();
    let counts: Vec<String> = RESULTS
        .iter()
        .filter(|result| report.counts.of(**result) > 0)
        .map(|result| format!("{} {}", report.counts.of(*result), result_name(*result)))
        .collect();
    let mut counts = if counts.is_empty() { "no test".to_owned() } else { counts.join(", ") };
    if report.counts.known_failures() > 0 {
        counts.push_str(&format!(" ({} known flaky)", report.counts.known_failures()));
    }
    format!(
        "## kmt-run: {}\n\nRun {} of {}: {counts} on {} in {}.\n",
        outcome.as_str().replace('-', " "),
        code(&run.id),
        code(&run.component),
        plural(report.cells.len() as u64, "cell"),
        seconds(run.elapsed_ms),
    )
}

fn infrastructure(report: &Report<'_>) -> String {
    let mut lines = Vec::new();
    for (arch, build) in &report.run.builds {
        if let Build::Failed { subject, message } = build {
            let first = message.lines().next().unwrap_or_default();
            lines.push(format!("- the build of {} for {arch} failed: {}", code(subject), code(first)));
        }
    }
    for cell in &report.cells {
        if let Some(trouble) = &cell.trouble {
            let first = trouble.message.lines().next().unwrap_or_default();
            let id = code(&cell.cell.id.to_string());
            lines.push(format!("- {id} never ran: {} failed: {}", trouble.stage, code(first)));
        }
        for splat in cell.cell.splats.iter().filter(|splat| !splat.attributed) {
            lines.push(format!(
                "- {}: the kernel complained: {}",
                code(&cell.cell.id.to_string()),
                code(&splat.signature)
            ));
        }
    }
    section("Cells", lines)
}

/// The statements that part pass from fail.
fn wheres(report: &Report<'_>) -> String {
    if report.cells.len() < 2 {
        return String::new();
    }
    let lines =
        boundaries(report).iter().take(LISTED).map(|line| format!("- {}", code(&line.to_string()))).collect();
    section("Where it fails", lines)
}

fn section(title: &str, lines: Vec<String>) -> String {
    if lines.is_empty() { String::new() } else { format!("\n### {title}\n\n{}\n", lines.join("\n")) }
}

fn told(test: &TestReport<'_>) -> bool {
    test.result == TestResult::Flaky || (!is_good(test.result) && !test.blames_subtest)
}

fn failures(report: &Report<'_>) -> String {
    let mut lines: Vec<String> = report
        .odd()
        .filter(|(cell, _, test)| told(test) && (cell.trouble.is_none() || !test.name.is_empty()))
        .map(|(cell, package, test)| {
            let name = if test.name.is_empty() { "(package)" } else { test.name };
            let why = test.message.as_deref().map(|why| format!(": {}", code(why))).unwrap_or_default();
            let (id, package) = (code(&cell.cell.id.to_string()), code(package.name));
            let known = if test.is_known_failure() { ", known flaky" } else { "" };
            let owners = match test.owners {
                [] => String::new(),
                // In a code span, so that a comment notifies nobody.
                owners => format!(" ({})", code(&owners.join(" "))),
            };
            format!("- **{}{known}** {id} {package} {}{owners}{why}", result_name(test.result), code(name))
        })
        .collect();
    let more = lines.len().saturating_sub(LISTED);
    lines.truncate(LISTED);
    if more > 0 {
        lines.push(format!("- and {more} more"));
    }
    section("Tests", lines)
}

/// Tests down, cells across, only rows that are not all green; left out where it would be too wide.
fn picture(report: &Report<'_>) -> String {
    let cells: Vec<_> = report.cells.iter().filter(|cell| !cell.packages.is_empty()).collect();
    let mut rows: Vec<(&str, &str)> = report
        .odd()
        .filter(|(_, _, test)| told(test))
        .map(|(_, package, test)| (package.name, test.name))
        .collect();
    rows.sort_unstable();
    rows.dedup();
    if rows.is_empty() || cells.len() < 2 || cells.len() > COLUMNS {
        return String::new();
    }
    let heads: Vec<String> = cells.iter().map(|cell| code(&cell.cell.id.to_string())).collect();
    let mut lines =
        vec![format!("| test | {} |", heads.join(" | ")), format!("|---|{}", "---|".repeat(cells.len()))];
    for (package, name) in rows.iter().take(LISTED) {
        let marks = cells.iter().map(|cell| {
            let of = cell.packages.iter().find(|p| p.name == *package);
            of.and_then(|p| p.test(name)).map_or("", |test| result_name(test.result))
        });
        let name = if name.is_empty() { "(package)" } else { name };
        lines.push(format!(
            "| {} {} | {} |",
            code(package),
            code(name),
            marks.collect::<Vec<_>>().join(" | ")
        ));
    }
    section("Tests by cell", lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::script::runs;

    #[test]
    fn the_comment_on_a_failure() {
        insta::assert_snapshot!(text(&runs::failing().run(), &Masks::default()));
    }

    #[test]
    fn hostile_text_stays_in_its_span() {
        assert_eq!(code("a|b"), "`a\\|b`");
        assert_eq!(code("``x`"), "``` ``x` ```");
        assert_eq!(code("<img onerror=x>\n# no"), "`<img onerror=x>\\n# no`");
        for (name, script) in runs::all() {
            let text = text(&script.run(), &Masks::new(["system-probe"]));
            assert!(text.starts_with("## kmt-run: ") && !text.contains("system-probe"), "{name}");
        }
    }
}
