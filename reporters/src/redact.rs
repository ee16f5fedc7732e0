//! Placeholders of fixed width for snapshots: what differs from run to run goes, and the alignment stays tested.

/// Puts `x` for the digits of durations (`[   0.123s]`, `2.5s`), and `<time>` for timestamps.
pub fn redact(text: &str) -> String {
    text.lines().map(|line| redact_line(line) + "\n").collect()
}

/// Puts a placeholder of the same width, if it can, for a path.
pub fn redact_path(text: &str, path: &str) -> String {
    const NAME: &str = "<path>";
    let fill = "-".repeat(path.len().saturating_sub(NAME.len()));
    text.replace(path, &format!("{NAME}{fill}"))
}

fn redact_line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let within_word =
            rest[..start].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'));
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ':' | '-' | 'T'))
            .unwrap_or(rest.len());
        let (figure, after) = rest.split_at(end);
        let unit = after.starts_with('s') && !after[1..].starts_with(|c: char| c.is_alphanumeric());
        if !within_word && unit && figure.contains('.') {
            out.extend(figure.chars().map(|c| if c.is_ascii_digit() { 'x' } else { c }));
        } else if figure.len() >= 19 && figure.contains('T') && after.starts_with('Z') {
            out.push_str("<time>");
            rest = &after[1..];
            continue;
        } else {
            out.push_str(figure);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_their_width() {
        assert_eq!(
            redact("PASS [   0.123s] 6.1/x86_64 Test2 [ 1.5] a\n"),
            "PASS [   x.xxxs] 6.1/x86_64 Test2 [ 1.5] a\n"
        );
        assert_eq!(redact("2.800s inside tests, 3 cells"), "x.xxxs inside tests, 3 cells\n");
        assert_eq!(redact("at 2026-11-22T17:05:01.100Z"), "at <time>\n");
    }

    #[test]
    fn paths_keep_theirs() {
        assert_eq!(redact_path("in /tmp/abc/run.", "/tmp/abc/run"), "in <path>------.");
    }
}
