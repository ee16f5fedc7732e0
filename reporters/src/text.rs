//! Words and figures as people read them, and hostile text made harmless.

use std::borrow::Cow;
use std::fmt::Write;

/// Text from a guest, a console or a test name, safe on a terminal: control characters and those that turn or hide
/// text are shown escaped (`\x1b`), never raw. Tabs and newlines count as control characters.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if !is_unsafe(c) => safe.push(c),
            // Writing to a string cannot fail.
            c if c < '\u{100}' => _ = write!(safe, "\\x{:02x}", u32::from(c)),
            c => _ = write!(safe, "\\u{{{:x}}}", u32::from(c)),
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal could do something else with it than show it.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        || matches!(c, '\u{61c}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of output or of a console: colours are gone, tabs are four spaces, the rest is [`escape`]d.
pub fn escape_line(line: &str) -> String {
    escape(strip_ansi(line).trim_end_matches('\r')).into_owned()
}

/// Takes out the escape sequences of a terminal; tabs become four spaces.
pub fn strip_ansi(text: &str) -> Cow<'_, str> {
    if !text.contains(['\x1b', '\t', '\u{9b}']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('\t', "    ");
    if text.contains(['\x1b', '\u{9b}']) {
        // A line at a time: a sequence that is never closed must not swallow the next line.
        let lines: Vec<String> = text.split('\n').map(strip_ansi_escapes::strip_str).collect();
        return Cow::Owned(lines.join("\n"));
    }
    Cow::Owned(text)
}

/// `1 test`, `2 tests`; a noun that ends in a sibilant gets `es`, one in a consonant and `y` gets `ies`.
pub fn plural(count: u64, noun: &str) -> String {
    if count == 1 {
        return format!("1 {noun}");
    }
    let after_consonant = |stem: &str| !stem.ends_with(['a', 'e', 'i', 'o', 'u']);
    match noun.strip_suffix('y') {
        Some(stem) if after_consonant(stem) => format!("{count} {stem}ies"),
        _ if noun.ends_with('s') || noun.ends_with('x') || noun.ends_with("ch") => {
            format!("{count} {noun}es")
        }
        _ => format!("{count} {noun}s"),
    }
}

/// Milliseconds as seconds, `0.123s`.
pub fn seconds(ms: u64) -> String {
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}

/// Milliseconds, roughly: `850ms`, `12s`, `3m 20s`, `1h 05m`.
pub fn roughly(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms}ms"),
        s @ 1..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        s => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
    }
}

/// `0 B`, `12.3 KiB`, `50.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Characters that XML 1.0 does not have are taken out; line ends are `\n`.
pub(crate) fn xml_text(text: &str) -> String {
    let allowed = |c: char| {
        matches!(c, '\n' | '\t' | ' '..='\u{7e}' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
            || c > '\u{ffff}'
    };
    strip_ansi(text).replace("\r\n", "\n").chars().filter(|c| allowed(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_raw_reaches_a_terminal() {
        assert_eq!(escape("TestDNS/valid_domain"), "TestDNS/valid_domain");
        assert_eq!(escape("a\x1b[31mb\x07\n\r\t\u{9b}"), "a\\x1b[31mb\\x07\\n\\r\\t\\x9b");
        assert_eq!(escape("abc\u{202e}cba"), "abc\\u{202e}cba");
        assert_eq!(escape_line("\x1b[1;31mred\x1b[0m\tx\r"), "red    x");
        assert_eq!(escape("naïve 日本"), "naïve 日本");
    }

    #[test]
    fn an_open_sequence_ends_with_its_line() {
        assert_eq!(strip_ansi("a\x1b]0;title\nb"), "a\nb");
    }

    #[test]
    fn plurals() {
        for (count, noun, text) in [
            (1, "test", "1 test"),
            (0, "test", "0 tests"),
            (2, "box", "2 boxes"),
            (3, "family", "3 families"),
            (2, "day", "2 days"),
            (2, "pass", "2 passes"),
        ] {
            assert_eq!(plural(count, noun), text);
        }
    }

    #[test]
    fn figures() {
        assert_eq!(seconds(41_203), "41.203s");
        assert_eq!(
            [roughly(5), roughly(59_999), roughly(61_000), roughly(3_900_000)],
            ["5ms", "59s", "1m 01s", "1h 05m"]
        );
        assert_eq!(
            [bytes(0), bytes(1023), bytes(52_428_800), bytes(u64::MAX)],
            ["0 B", "1023 B", "50.0 MiB", "16777216.0 TiB"]
        );
    }

    #[test]
    fn xml_has_no_control_characters() {
        assert_eq!(xml_text("a\0b\u{fffe}\x1b[1mc\r\nd\u{80}\u{10ffff}"), "abc\nd\u{10ffff}");
    }
}
