//! Failures with one signature are one finding: "1 cause, 14 cells" before 14 rows.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{CellId, OutputRef, TestResult};
use crate::mask::Masks;
use crate::model::{Report, TestReport, is_good, result_name};
use crate::output::{OutputSource, head_and_tail};
use crate::text::strip_ansi;
use crate::triage::{Explained, explain};

/// Bytes of output in which the telling line is looked for, and failures that are read.
const READ: u64 = 64 * 1024;
const FAILURES: usize = 4_000;

/// Bytes of a telling line.
const LINE: usize = 300;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What all of it shares: numbers and addresses taken out.
    pub signature: String,
    /// How it looked the first time.
    pub example: String,
    /// `boot`, `ship`, `splat` …, or the result of its tests.
    pub kind: String,
    /// Cells, in the order of the run.
    pub cells: Vec<CellId>,
    /// Package and test of each failure, without repeats; empty where it is about cells.
    pub tests: Vec<(String, String)>,
    /// How many failures there are.
    pub failures: u64,
}

/// The failures of a run by signature, the widest first.
pub fn groups(report: &Report<'_>, source: &dyn OutputSource, masks: &Masks) -> Vec<Group> {
    let mut found = Found { explained: explain(report.run, source), ..Found::default() };
    for cell in &report.cells {
        let id = &cell.cell.id;
        if let Some(trouble) = &cell.trouble {
            let first = trouble.message.lines().next().unwrap_or_default();
            match found.why(id).filter(|_| trouble.stage == "boot") {
                Some((signature, says)) => found.add_as(trouble.stage, "", signature, &says, id, None),
                None => found.add(trouble.stage, "", first, id, None),
            }
        }
        for splat in cell.cell.splats.iter().filter(|splat| !splat.attributed) {
            found.add("splat", "", &splat.signature, id, None);
        }
        for package in &cell.packages {
            for test in package.odd.iter().filter(|test| !is_good(test.result) && !test.blames_subtest) {
                // Said once, as the cell's trouble.
                let of_cell = cell.trouble.is_some() && test.result == TestResult::NotRun;
                if of_cell || test.cancelled || found.failures >= FAILURES {
                    continue;
                }
                found.failures += 1;
                found.test(test, package.name, id, source, masks);
            }
        }
    }
    let mut groups: Vec<Group> = found.groups.into_values().collect();
    for group in &mut groups {
        group.tests.sort();
        group.tests.dedup();
    }
    groups.sort_by(|a, b| {
        b.cells
            .len()
            .cmp(&a.cells.len())
            .then(b.failures.cmp(&a.failures))
            .then_with(|| a.signature.cmp(&b.signature))
    });
    groups
}

#[derive(Default)]
struct Found {
    groups: BTreeMap<(String, String, String), Group>,
    failures: usize,
    explained: Vec<Explained>,
}

impl Found {
    fn test(
        &mut self,
        test: &TestReport<'_>,
        package: &str,
        cell: &CellId,
        source: &dyn OutputSource,
        masks: &Masks,
    ) {
        let kind = result_name(test.result);
        let by_machine = matches!(test.result, TestResult::Crashed | TestResult::Lost | TestResult::Missing);
        if let (true, Some((signature, says))) = (by_machine && !test.evidence.is_empty(), self.why(cell)) {
            return self.add_as(kind, "(machine)", signature, &says, cell, Some((package, test.name)));
        }
        if let (true, Some(line)) = (by_machine, telling(test.evidence.iter().map(String::as_str))) {
            return self.add(kind, "(machine)", line, cell, Some((package, test.name)));
        }
        let output = test.output.as_ref().map(|(output, _)| told(output, source, masks)).unwrap_or_default();
        match (line_of(&output, test.name), &test.message) {
            (Some(line), _) => self.add(kind, package, line, cell, Some((package, test.name))),
            (None, Some(message)) if by_machine => {
                self.add(kind, "", message, cell, Some((package, test.name)))
            }
            (None, message) => {
                let scope = format!("{package} {}", test.name);
                let line = message.as_deref().unwrap_or(kind);
                self.add(kind, &scope, line, cell, Some((package, test.name)));
            }
        }
    }

    /// Why a machine of the cell failed: signature and words.
    fn why(&self, cell: &CellId) -> Option<(String, String)> {
        let last = self.explained.iter().rfind(|explained| explained.cell == *cell)?;
        Some((last.finding.signature.clone(), last.finding.says.clone()))
    }

    fn add(&mut self, kind: &str, scope: &str, line: &str, cell: &CellId, test: Option<(&str, &str)>) {
        let line: String = without_time(&strip_ansi(line)).chars().take(LINE).collect();
        self.add_as(kind, scope, normalised(&line), &line, cell, test);
    }

    fn add_as(
        &mut self,
        kind: &str,
        scope: &str,
        signature: String,
        line: &str,
        cell: &CellId,
        test: Option<(&str, &str)>,
    ) {
        // What ended with a machine is one finding, whatever it was doing then.
        let of_kind = if scope == "(machine)" { "" } else { kind };
        let key = (of_kind.to_owned(), scope.to_owned(), signature.clone());
        let group = self.groups.entry(key).or_insert_with(|| Group {
            signature,
            example: line.to_owned(),
            kind: kind.to_owned(),
            cells: Vec::new(),
            tests: Vec::new(),
            failures: 0,
        });
        group.failures += 1;
        if kind == result_name(TestResult::Crashed) {
            kind.clone_into(&mut group.kind);
        }
        if group.cells.last() != Some(cell) && !group.cells.contains(cell) {
            group.cells.push(cell.clone());
        }
        if let Some((package, test)) = test {
            group.tests.push((package.to_owned(), test.to_owned()));
        }
    }
}

fn told(output: &OutputRef, source: &dyn OutputSource, masks: &Masks) -> String {
    head_and_tail(source, output, READ, masks)
}

/// The console line that says most.
fn telling<'l>(lines: impl Iterator<Item = &'l str>) -> Option<&'l str> {
    let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    let loud =
        ["Kernel panic", "BUG:", "Oops", "general protection fault", "WARNING:", "Unable to", "unable to"];
    let first = loud.iter().find_map(|word| lines.iter().find(|line| line.contains(word)));
    first.or(lines.last()).copied()
}

/// The line of output in which a test says what is wrong: `a_test.go:12: want 1`, `Error:`, `panic:`.
fn line_of<'o>(output: &'o str, test: &str) -> Option<&'o str> {
    // Of the whole package's output only what follows the test's own beginning is its own.
    let from = output.find(&format!("=== RUN   {test}\n")).unwrap_or_default();
    let lines = || output[from..].lines().map(str::trim);
    let located = |line: &&str| {
        line.split_once(".go:").is_some_and(|(_, rest)| {
            let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            after.len() < rest.len() && after.starts_with(':') && after.len() > 2
        })
    };
    let panic = lines().find(|line| line.starts_with("panic: ") || line.starts_with("fatal error: "));
    let error = lines().find(|line| line.starts_with("Error:") && line.len() > "Error:".len() + 1);
    panic.or(error).or_else(|| lines().find(located))
}

/// A line without what differs from machine to machine: addresses, numbers of several digits, times, temporary names.
pub(crate) fn normalised(line: &str) -> String {
    let line = without_time(line);
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    while let Some(at) = rest.find(part) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(|c: char| !part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        text.push_str(&word_without_figures(word, text.ends_with(".go:")));
        rest = after;
    }
    text.push_str(rest);
    text
}

fn word_without_figures(word: &str, line_number: bool) -> String {
    let hex = word.strip_prefix("0x").unwrap_or(word);
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if line_number && digits == word.len() {
        return word.to_owned();
    }
    if digits == word.len() || (is_hex && digits > 0 && (hex.len() < word.len() || hex.len() >= 6)) {
        return "#".to_owned();
    }
    // A unit stays: `12ms`, `4KiB`.
    let figures = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if figures > 0 { format!("#{}", &word[figures..]) } else { word.to_owned() }
}

/// A line of the kernel log without the seconds it begins with.
fn without_time(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((time, rest))
            if time.bytes().all(|byte| byte == b' ' || byte == b'.' || byte.is_ascii_digit()) =>
        {
            rest
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LossEvidence;
    use crate::junit::tests::Fixed;
    use crate::model::script::{PKG, Script, bookworm, runs, trixie};
    use crate::output::NoOutput;

    #[test]
    fn one_cause_on_many_cells_is_one_finding() {
        let mut script = Script::new();
        let cells = [bookworm(), trixie()];
        script.plan(&cells, &[PKG]);
        for cell in &cells {
            script.up(cell).begin(cell, PKG, &[]).tests(
                cell,
                PKG,
                &[("A", TestResult::Fail), ("B", TestResult::Fail)],
            );
            script.end(cell, PKG, crate::event::ShardEnd::Exited, Some(1));
        }
        script.done();
        let run = script.run();
        let out = Fixed(
            b"=== RUN   A\n    dns_test.go:42: got 17 answers in 12ms from 0xffff8881, want 3\n--- FAIL\n",
        );
        let groups = groups(&run.report(), &out, &Masks::default());
        assert_eq!(groups.len(), 1, "{groups:?}");
        assert_eq!(groups[0].signature, "dns_test.go:42: got # answers in #ms from #, want #");
        assert_eq!((groups[0].cells.len(), groups[0].tests.len(), groups[0].failures), (2, 2, 4));
    }

    #[test]
    fn a_panic_speaks_for_all_tests_that_it_ended() {
        let run = runs::lost(LossEvidence::Panic).run();
        let groups = groups(&run.report(), &NoOutput, &Masks::default());
        assert_eq!(
            (groups.len(), groups[0].kind.as_str(), groups[0].failures),
            (1, "crashed", 3),
            "{groups:?}"
        );
        assert!(groups[0].example.contains("sysrq triggered crash"), "{groups:?}");
    }

    #[test]
    fn cells_that_never_ran_are_a_finding() {
        let run = runs::boot_failure().run();
        let groups = groups(&run.report(), &NoOutput, &Masks::default());
        assert_eq!((groups[0].kind.as_str(), groups[0].cells.len(), groups[0].tests.len()), ("boot", 1, 0));
    }

    #[test]
    fn figures_go_and_places_stay() {
        for (line, wanted) in [
            ("[   12.345678] BUG: at 0xffffffff81234567 pid 4711", "BUG: at # pid #"),
            ("a_test.go:17: timeout after 1500ms", "a_test.go:17: timeout after #ms"),
            ("uuid 3f2b9c1d-aaaa beef cafe", "uuid #-aaaa beef cafe"),
            ("ipv4 tcp6 x86_64", "ipv4 tcp6 x86_64"),
        ] {
            assert_eq!(normalised(line), wanted);
        }
    }
}
