//! The consoles of machines that failed, and which of their lines are guilty.

use serde::Serialize;

use crate::event::OutputRef;
use crate::model::Report;
use crate::output::OutputSource;
use crate::text::strip_ansi;
use crate::triage::{Finding, explain};

/// Bytes of a console that are read from its end, lines of it that are shown, bytes of a line, and bytes of all.
const TAIL: u64 = 64 * 1024;
const LINES: usize = 160;
const LINE: usize = 400;
const ALL: usize = 900_000;

/// One console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Console<'r> {
    /// Index of the cell.
    pub(super) cell: usize,
    pub(super) machine: String,
    /// What happened to the machine.
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    /// Indices of the lines that show it.
    pub(super) guilty: Vec<usize>,
    /// Why, where that is known: words and advice.
    pub(super) cause: Option<(String, &'static str)>,
    /// What the events quoted, to tell which tests it ended.
    #[serde(skip)]
    pub(super) quoted: &'r [String],
}

/// Consoles of machines that did not come up, were lost, or whose kernel complained.
pub(super) fn consoles<'r>(report: &Report<'r>, output: &dyn OutputSource) -> Vec<Console<'r>> {
    let mut found: Vec<Console<'r>> = Vec::new();
    let mut held = 0;
    let explained = explain(report.run, output);
    for (index, cell) in report.cells.iter().enumerate() {
        let of = cell.cell;
        let boots = of.boot_failures.iter().map(|boot| {
            let phase = boot.phase.map_or("no phase", |phase| phase.as_str());
            (&boot.machine, format!("did not come up (it reached {phase}): {}", boot.message), &boot.excerpt)
        });
        let losses = of.losses.iter().map(|loss| {
            let how = match loss.seen {
                crate::event::LossEvidence::Panic => "its kernel panicked",
                crate::event::LossEvidence::QemuGone => "QEMU is gone",
                crate::event::LossEvidence::Silent => "it stopped answering",
            };
            (&loss.machine, format!("lost: {how}"), &loss.excerpt)
        });
        let splats = of.splats.iter().map(|splat| {
            (&splat.machine, format!("the kernel complained: {}", splat.signature), &splat.excerpt)
        });
        for (machine, title, excerpt) in boots.chain(losses).chain(splats) {
            let mut lines = if held < ALL { tail(machine, output) } else { Vec::new() };
            if lines.is_empty() {
                lines = excerpt.iter().map(|line| clean(line)).collect();
            }
            held += lines.iter().map(String::len).sum::<usize>();
            let why = explained.iter().find(|it| it.cell == of.id && it.machine == *machine);
            let finding = why.map(|why| &why.finding);
            let guilty = guilty(&lines, excerpt, finding);
            let cause = finding.map(|finding| (finding.says.clone(), finding.advice));
            let quoted = excerpt.as_slice();
            found.push(Console {
                cell: index,
                machine: machine.clone(),
                title,
                lines,
                guilty,
                cause,
                quoted,
            });
        }
    }
    found
}

/// The last lines of the console that was kept of a machine.
fn tail(machine: &str, output: &dyn OutputSource) -> Vec<String> {
    let file = format!("machines/{machine}/console.log");
    let Ok(size) = output.size(&file) else { return Vec::new() };
    let length = size.min(TAIL);
    let Ok(bytes) = output.read(&OutputRef { file, offset: size - length, length }) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let from = lines.len().saturating_sub(LINES).max(usize::from(size > length));
    let lines = lines[from.min(lines.len())..].iter().map(|line| clean(line));
    let mut lines: Vec<String> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// What of a line a person sees: the last of several that a carriage return wrote over each other, no control characters.
fn clean(line: &str) -> String {
    let line = strip_ansi(line);
    let last = line.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default();
    last.chars().filter(|c| !c.is_control()).take(LINE).collect()
}

/// Words that a line shows its guilt by.
const GUILTY: [&str; 22] = [
    "Kernel panic",
    "BUG:",
    "Oops:",
    "WARNING:",
    "general protection fault",
    "Unable to mount",
    "Cannot open root device",
    "unable to handle",
    "RIP:",
    "pc :",
    "soft lockup",
    "hard LOCKUP",
    "rcu_sched self-detected",
    "blocked for more than",
    "Out of memory",
    "KASAN:",
    "UBSAN:",
    "[FAILED]",
    "Failed to start",
    "emergency mode",
    "No bootable device",
    "I/O error",
];

/// The lines that show the cause; without a cause those that are loud; without one of those what was said last.
fn guilty(lines: &[String], excerpt: &[String], finding: Option<&Finding>) -> Vec<usize> {
    let shown = |line: &String| {
        let evidence = finding.map_or(&[][..], |finding| &finding.evidence);
        evidence.iter().any(|it| !it.text.trim().is_empty() && line.contains(it.text.trim()))
    };
    let by_cause: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| shown(line)).map(|(index, _)| index).collect();
    if !by_cause.is_empty() {
        return by_cause;
    }
    let by_word = |line: &String| GUILTY.iter().any(|word| line.contains(word));
    let mut found: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| by_word(line)).map(|(index, _)| index).collect();
    if found.is_empty() {
        let last = excerpt.iter().rev().map(|line| clean(line)).find(|line| !line.trim().is_empty());
        found.extend(last.and_then(|last| lines.iter().rposition(|line| *line == last)));
    }
    found
}
