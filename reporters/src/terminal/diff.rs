//! Two runs beside each other, cell by cell.

use super::Style;
use super::paint::{Paint, Role};
use crate::compare::{Change, Diff, Presence};
use crate::model::result_name;
use crate::text::{escape, plural, seconds};

/// Changes of one kind that a cell shows; the rest is counted.
const SHOWN: usize = 20;

/// How two runs differ, for people.
pub fn difference(diff: &Diff, style: Style) -> String {
    let paint = Paint::new(style);
    let mut text = format!(
        "run {} compared with {}\n",
        paint.role(Role::Strong, &escape(&diff.after)),
        escape(&diff.before)
    );
    if diff.is_empty() {
        text.push_str("no test differs\n");
        return text;
    }
    for cell in &diff.cells {
        let id = paint.role(Role::Cell, &escape(&cell.cell.to_string()));
        match cell.presence {
            Presence::OnlyBefore => text.push_str(&format!("\n{id} is not in this run\n")),
            Presence::OnlyAfter => text.push_str(&format!("\n{id} was not in the other run\n")),
            Presence::Both if cell.is_empty() => {}
            Presence::Both => {
                text.push_str(&format!("\n{id}\n"));
                for (name, changes) in cell.sections() {
                    text.push_str(&section(&paint, name, changes));
                }
                if cell.still_failing > 0 {
                    let said = format!("  {} failing as before\n", plural(cell.still_failing, "test"));
                    text.push_str(&paint.role(Role::Dim, &said));
                }
                for package in &cell.other_packages {
                    let said = format!("  {} is in one of the runs only\n", escape(package));
                    text.push_str(&paint.role(Role::Dim, &said));
                }
            }
        }
    }
    text
}

fn section(paint: &Paint, name: &str, changes: &[Change]) -> String {
    let role = match name {
        "newly failing" | "missing" => Role::Bad,
        "flaky" | "slower" => Role::Odd,
        _ => Role::Good,
    };
    let mut text = String::new();
    for change in changes.iter().take(SHOWN) {
        let test = if change.test.is_empty() { "(package)".into() } else { escape(&change.test) };
        let was = |result: Option<_>| result.map_or("absent", result_name);
        let how = match name {
            "slower" => format!("{} -> {}", seconds(change.before_ms), seconds(change.after_ms)),
            _ => format!("{} -> {}", was(change.before), was(change.after)),
        };
        text.push_str(&format!(
            "  {} {} {} {}\n",
            paint.role(role, &format!("{name:>13}")),
            paint.role(Role::Package, &escape(&change.package)),
            paint.role(Role::Test, &test),
            paint.role(Role::Dim, &format!("({how})")),
        ));
    }
    if changes.len() > SHOWN {
        text.push_str(&format!("  {:>13} and {} more\n", name, changes.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::diff;
    use crate::model::script::runs;

    #[test]
    fn a_difference_is_told_cell_by_cell() {
        let (before, after) = (runs::failing().run(), runs::lost(crate::event::LossEvidence::Panic).run());
        let diff = diff(&before.report(), &after.report());
        insta::assert_snapshot!(difference(&diff, Style::default()));
    }
}
