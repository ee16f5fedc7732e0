//! The causes of a recorded run.

use super::Finding;
use super::boot::{Classifier, Ended, Facts};
use crate::event::{BootPhase, CellId, LossEvidence, OutputRef};
use crate::model::{BootFailure, Cell, Loss, Run};
use crate::output::OutputSource;

/// Bytes of a console that are read at once.
const PIECE: u64 = 1 << 20;

/// A machine that failed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The cell it was for.
    pub cell: CellId,
    /// Machine id.
    pub machine: String,
    /// The cause.
    pub finding: Finding,
}

/// Why each machine of a run failed that did not come up or was lost, in the order of the cells.
pub fn explain(run: &Run, output: &dyn OutputSource) -> Vec<Explained> {
    run.cells.iter().flat_map(|cell| explain_cell(run, cell, output)).collect()
}

/// The same of one cell: first the machines that did not come up, then those that were lost. The whole console is read
/// where the run directory has it, else the lines that the events carry.
pub fn explain_cell(run: &Run, cell: &Cell, output: &dyn OutputSource) -> Vec<Explained> {
    let failed = cell.boot_failures.iter().map(|it| (&it.machine, &it.excerpt, facts_of_boot(it)));
    let lost = cell.losses.iter().map(|it| (&it.machine, &it.excerpt, facts_of_loss(it)));
    let mut explained = Vec::new();
    for (machine, excerpt, mut facts) in failed.chain(lost) {
        facts.accelerator = run.accelerators.values().next().cloned();
        let finding = console(machine, excerpt, output).finding(&facts);
        explained.extend(finding.map(|finding| Explained {
            cell: cell.id.clone(),
            machine: machine.clone(),
            finding,
        }));
    }
    explained
}

/// Why the machine did not come up for want of which a cell did not run.
pub(crate) fn boot_cause(run: &Run, cell: &Cell, output: &dyn OutputSource) -> Option<Finding> {
    let failure = cell.boot_failures.last()?;
    let explained = explain_cell(run, cell, output);
    explained.into_iter().find(|it| it.machine == failure.machine).map(|it| it.finding)
}

fn facts_of_boot(failure: &BootFailure) -> Facts {
    let message = failure.message.clone();
    let mut facts = Facts {
        phase: failure.phase,
        elapsed_ms: Some(failure.duration_ms),
        idle_ms: failure.idle_ms,
        ended: Ended::Deadline,
        ..Facts::default()
    };
    if failure.phase <= Some(BootPhase::Defined) {
        facts.ended = Ended::Refused;
        facts.hypervisor = Some(message);
    } else if message.starts_with("QEMU ended") || message.starts_with("the kernel panicked") {
        facts.ended = Ended::QemuGone;
    } else if !message.starts_with("no progress for ") {
        facts.contact = Some(message);
    }
    facts
}

fn facts_of_loss(loss: &Loss) -> Facts {
    let ended = match loss.seen {
        LossEvidence::QemuGone => Ended::QemuGone,
        LossEvidence::Panic | LossEvidence::Silent => Ended::Lost,
    };
    Facts { ended, phase: Some(BootPhase::Ready), ..Facts::default() }
}

fn from_lines(lines: &[String]) -> Classifier {
    let mut classifier = Classifier::new();
    for line in lines {
        classifier.push(line.as_bytes());
        classifier.push(b"\n");
    }
    classifier
}

/// The console in the run directory, or the lines that are known.
fn console(machine: &str, excerpt: &[String], output: &dyn OutputSource) -> Classifier {
    let file = format!("machines/{machine}/console.log");
    let mut classifier = Classifier::new();
    let mut offset = 0;
    while let Ok(piece) = output.read(&OutputRef { file: file.clone(), offset, length: PIECE }) {
        classifier.push(&piece);
        offset += piece.len() as u64;
        if (piece.len() as u64) < PIECE {
            break;
        }
    }
    if offset == 0 { from_lines(excerpt) } else { classifier }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_that_still_grew_is_slow_and_one_that_did_not_hangs_whatever_the_kernels_clock_says() {
        let cause = |idle_ms: Option<u64>, clock: &str| {
            let lines = ["[    0.000000] Linux version 6.1.0".to_owned(), format!("[  {clock}] sda: sda1")];
            let facts = facts_of_boot(&BootFailure {
                machine: "m".to_owned(),
                phase: Some(BootPhase::Kernel),
                message: "no progress for 120 s after phase `kernel`".to_owned(),
                excerpt: Vec::new(),
                duration_ms: 130_000,
                idle_ms,
            });
            from_lines(&lines).finding(&facts).unwrap().cause
        };
        assert_eq!(cause(Some(300), "  3.000000"), "slow");
        assert_eq!(cause(Some(90_000), "129.000000"), "hang");
        assert_eq!((cause(None, "129.000000"), cause(None, "  3.000000")), ("slow", "hang"));
    }
}
