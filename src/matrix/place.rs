//! Where something is wrong in a text: line, column, and the line itself with a mark under the word.

use std::ops::Range;

use super::Complaint;

/// A complaint about bytes `at` of the `text` of the file `name`.
pub(super) fn complain(name: &str, text: &str, at: Range<usize>, what: &str) -> Complaint {
    let before = &text[..text.floor_char_boundary(at.start.min(text.len()))];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = text[start..before.len()].chars().count();
    let whole = text[start..].lines().next().unwrap_or_default();
    let end = text.floor_char_boundary(at.end.min(start + whole.len())).max(before.len());
    let marks = "^".repeat(text[before.len()..end].chars().count().max(1));
    let margin = " ".repeat(line.to_string().len());
    Complaint::new(format!(
        "`{name}` line {line}, column {}: {what}\n{margin} |\n{line} | {}\n{margin} | {}{marks}",
        column + 1,
        kmt_reporters::escape(whole),
        " ".repeat(column),
    ))
}
