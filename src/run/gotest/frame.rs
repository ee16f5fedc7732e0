//! What one line says, by its form alone.

use std::time::Duration;

use super::Verdict;

/// A framing line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Frame<'a> {
    /// `=== RUN`: a test begins.
    Run(&'a str),
    /// `=== PAUSE`: a test waits for its turn to run in parallel.
    Pause(&'a str),
    /// `=== CONT`: a test goes on, or (before Go 1.20) the next output is its.
    Cont(&'a str),
    /// `=== NAME`: the next output is this test's; nobody's where empty.
    Name(&'a str),
    /// `=== ATTR`, `=== ARTIFACTS`: something a test says of itself; kept as output.
    Note(&'a str),
    /// `--- PASS: Name (0.00s)`.
    Report { indent: usize, result: Verdict, name: &'a str, elapsed: Duration },
    /// The last line: `PASS` (true) or `FAIL`.
    End(bool),
    /// It begins like a frame and goes on wrongly.
    Broken(&'static str),
}

const UPDATES: [&str; 6] =
    ["=== RUN   ", "=== PAUSE ", "=== CONT  ", "=== NAME  ", "=== ATTR  ", "=== ARTIFACTS "];
const REPORTS: [(&str, Verdict); 3] =
    [("--- PASS: ", Verdict::Pass), ("--- FAIL: ", Verdict::Fail), ("--- SKIP: ", Verdict::Skip)];

/// Reads a line (without newline) that is a frame from its beginning.
pub(super) fn whole(line: &[u8]) -> Option<Frame<'_>> {
    match line {
        b"PASS" => return Some(Frame::End(true)),
        b"FAIL" => return Some(Frame::End(false)),
        b"=== NAME" => return Some(Frame::Name("")),
        _ => {}
    }
    if line.starts_with(b"=== ") {
        return update(line);
    }
    let indent = indent(line);
    let line = &line[4 * indent..];
    if line.starts_with(b"--- ") { report(line, indent) } else { None }
}

/// Finds a frame at the end of a line that begins with something else: output without a newline.
pub(super) fn tail(line: &[u8]) -> Option<(usize, Frame<'_>)> {
    if is_log_line(line) {
        return None;
    }
    let starts = |at: &usize| line[*at..].starts_with(b"=== ") || line[*at..].starts_with(b"--- ");
    let at = (1..line.len().saturating_sub(3)).rev().find(starts)?;
    if line[..at].iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    match whole(&line[at..])? {
        Frame::Broken(_) | Frame::Note(_) | Frame::End(_) => None,
        frame => Some((at, frame)),
    }
}

fn update(line: &[u8]) -> Option<Frame<'_>> {
    let prefix = UPDATES.iter().position(|prefix| line.starts_with(prefix.as_bytes()))?;
    let Ok(rest) = std::str::from_utf8(&line[UPDATES[prefix].len()..]) else {
        return Some(Frame::Broken("its name is not UTF-8"));
    };
    let name = rest.trim();
    if prefix == 3 && name.is_empty() {
        return Some(Frame::Name(""));
    }
    if prefix > 3 {
        return Some(Frame::Note(name.split(' ').next().unwrap_or_default()));
    }
    if !is_name(name) {
        return Some(Frame::Broken("its name is none"));
    }
    Some(match prefix {
        0 => Frame::Run(name),
        1 => Frame::Pause(name),
        2 => Frame::Cont(name),
        _ => Frame::Name(name),
    })
}

fn report(line: &[u8], indent: usize) -> Option<Frame<'_>> {
    let (prefix, result) = REPORTS.iter().find(|(prefix, _)| line.starts_with(prefix.as_bytes()))?;
    let Ok(rest) = std::str::from_utf8(&line[prefix.len()..]) else {
        return Some(Frame::Broken("its name is not UTF-8"));
    };
    let parts = rest.trim_end().strip_suffix("s)").and_then(|rest| rest.rsplit_once(" ("));
    let Some((name, seconds)) = parts else {
        return Some(Frame::Broken("it has no duration"));
    };
    let number = seconds.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let elapsed = seconds.parse::<f64>().ok().filter(|_| number);
    let Some(elapsed) = elapsed.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        return Some(Frame::Broken("its duration is none"));
    };
    if !is_name(name) {
        return Some(Frame::Broken("its name is none"));
    }
    Some(Frame::Report { indent, result: *result, name, elapsed })
}

/// Go writes no white space into names.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Whether the name is a benchmark's: those start and never report an end.
pub(super) fn is_benchmark(name: &str) -> bool {
    name.strip_prefix("Benchmark").is_some_and(|rest| !rest.starts_with(char::is_lowercase))
}

/// How many steps of four spaces a line is indented.
pub(super) fn indent(line: &[u8]) -> usize {
    line.iter().take_while(|byte| **byte == b' ').count() / 4
}

/// Whether the line is one that `t.Log` wrote: it ends with its newline, so no frame can follow in it.
fn is_log_line(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"    ") else {
        return false;
    };
    let Some(at) = rest.windows(4).position(|four| four == b".go:") else {
        return false;
    };
    let place = &rest[..at];
    let after = &rest[at + 4..];
    let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    !place.contains(&b' ') && digits > 0 && after[digits..].starts_with(b": ")
}

/// The first line of the runtime's last words, if this is it, and whether its form alone is convincing.
pub(super) fn last_words(bytes: &[u8], starts: bool) -> Option<(&[u8], bool)> {
    const WORDS: [&[u8]; 3] = [b"panic: ", b"fatal error: ", b"unexpected fault address "];
    if starts && WORDS.iter().any(|words| bytes.starts_with(words)) {
        return Some((bytes, true));
    }
    if starts && let Some(rest) = bytes.strip_prefix(b"SIG") {
        let name = rest.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        return (name > 0 && rest[name..].starts_with(b": ")).then_some((bytes, true));
    }
    let at = bytes.windows(7).position(|words| words == b"panic: ")?;
    (!bytes[..at].ends_with(b"\t")).then_some((&bytes[at..], false))
}
