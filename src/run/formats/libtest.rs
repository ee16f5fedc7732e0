//! What Rust's test harness prints: results as they come, the words of those that failed at the end.

use std::time::Duration;

use super::{Lines, output};
use crate::run::gotest::{Item, Verdict};

/// Reads it.
#[derive(Debug, Default)]
pub struct Libtest {
    /// The test whose beginning was seen on a line that goes on.
    begun: Option<String>,
    /// Tests that failed, whose words come later.
    failed: Vec<(String, Duration)>,
    /// The failed test whose words come now.
    speaking: Option<String>,
    ended: Option<bool>,
}

impl Lines for Libtest {
    fn line(&mut self, line: &str, out: &mut Vec<Item>) {
        self.beginning(line, out);
        let text = line.trim_end_matches(['\r', '\n']);
        if let Some(test) = self.begun.clone() {
            // A test that prints without being captured does so between its name and its result.
            let rest = name(text).filter(|name| *name == test).map_or(text, |_| &text[start(text)..]);
            match verdict(rest) {
                Some((at, result, elapsed)) => {
                    let before = text.len() - rest.len() + at;
                    out.push(output(Some(&test), &line[..before]));
                    out.push(output(Some(&test), &line[before..]));
                    self.begun = None;
                    match result {
                        Verdict::Fail => self.failed.push((test, elapsed)),
                        result => out.push(Item::Finished { test, result, elapsed }),
                    }
                }
                None => out.push(output(Some(&test), line)),
            }
            return;
        }
        let block = text.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(test) = block.filter(|test| self.failed.iter().any(|(failed, _)| failed == test)) {
            self.speaking = Some(test.to_owned());
        } else if text == "failures:" {
            self.speaking = None;
        } else if let Some(rest) = text.strip_prefix("test result: ") {
            self.speaking = None;
            self.ended = Some(rest.starts_with("ok"));
        }
        out.push(output(self.speaking.as_deref(), line));
    }

    fn beginning(&mut self, part: &str, out: &mut Vec<Item>) {
        if self.begun.is_none()
            && self.ended.is_none()
            && let Some(test) = name(part)
        {
            self.begun = Some(test.to_owned());
            out.push(Item::Started { test: test.to_owned() });
        }
    }

    fn finish(&mut self, out: &mut Vec<Item>) {
        for (test, elapsed) in self.failed.drain(..) {
            out.push(Item::Finished { test, result: Verdict::Fail, elapsed });
        }
        match self.ended {
            Some(true) => out.push(Item::PackageOk),
            Some(false) => out.push(Item::PackageFail),
            None => {}
        }
    }
}

const SEPARATOR: &str = " ... ";

/// The test of `test NAME ... `, once all of that is there.
fn name(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("test ")?.split_once(SEPARATOR)?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    let documented = name.contains(" - ") && name.contains("(line ");
    (!name.is_empty() && (documented || !name.contains(' '))).then_some(name)
}

/// Where the result of `test NAME ... RESULT` begins.
fn start(text: &str) -> usize {
    text.find(SEPARATOR).map_or(0, |at| at + SEPARATOR.len())
}

/// Where a result stands at the end of a text, which it is, and the time it tells.
fn verdict(text: &str) -> Option<(usize, Verdict, Duration)> {
    let (words, elapsed) = match text.rsplit_once(" <") {
        Some((words, time)) => {
            let seconds = time.strip_suffix("s>")?.parse::<f64>().ok()?;
            (words, Duration::try_from_secs_f64(seconds).ok()?)
        }
        None => (text, Duration::ZERO),
    };
    if words == "ignored" || words.starts_with("ignored, ") || words.starts_with("bench: ") {
        let result = if words.starts_with("bench") { Verdict::Pass } else { Verdict::Skip };
        return Some((0, result, elapsed));
    }
    let failed = words.strip_suffix("FAILED").map(|before| (before.len(), Verdict::Fail));
    let end = failed.or_else(|| words.strip_suffix("ok").map(|before| (before.len(), Verdict::Pass)));
    // A word that only ends like a result is none.
    let (at, result) = end.filter(|(at, _)| !words[..*at].ends_with(char::is_alphanumeric))?;
    Some((at, result, elapsed))
}

#[cfg(test)]
mod tests {
    use super::super::Speech;
    use super::super::samples::{read, results};

    /// What `rustc --test` made print, with one thread.
    const SAMPLE: &str = include_str!("samples/libtest.txt");

    #[test]
    fn each_test_has_its_end_and_a_failed_one_its_words() {
        let expected = [
            "run map::grows",
            "Pass map::grows 0",
            "run map::shrinks",
            "run ring::never_full",
            "run ring::old",
            "Skip ring::old 0",
            "run ring::panics",
            "Pass ring::panics 0",
            "run ring::says",
            "Fail map::shrinks 0",
            "Fail ring::never_full 0",
            "Fail ring::says 0",
            "PackageFail",
        ];
        assert_eq!(results(Speech::Libtest, SAMPLE), expected);
        let all = read(Speech::Libtest, SAMPLE);
        for words in [
            "map::shrinks: assertion `left == right` failed: sizes differ",
            "ring::never_full: note: test did not panic as expected at lib.rs:8:51",
            "ring::says: Error: \"no device\"",
        ] {
            assert!(all.contains(&format!("  {words}")), "{all:#?}");
        }
    }

    /// The same, not captured.
    #[test]
    fn what_a_test_prints_itself_is_its_own() {
        let text = include_str!("samples/libtest-nocapture.txt");
        assert_eq!(results(Speech::Libtest, text), results(Speech::Libtest, SAMPLE));
        let all = read(Speech::Libtest, text);
        for words in
            ["map::shrinks: test map::shrinks ... about to shrink", "ring::says: Error: \"no device\""]
        {
            assert!(all.contains(&format!("  {words}")), "{all:#?}");
        }
        let text = "test a ... hello\nworld book\nok\ntest b ... bye ok\n";
        let expected = ["run a", "Pass a 0", "run b", "Pass b 0"];
        assert_eq!(results(Speech::Libtest, text), expected);
        assert!(read(Speech::Libtest, text).contains(&"  a: world book".to_owned()));
    }

    #[test]
    fn doctests_and_times() {
        let text = "test src/lib.rs - Ring (line 12) ... ok <0.250s>\n";
        let expected = ["run src/lib.rs - Ring (line 12)", "Pass src/lib.rs - Ring (line 12) 250"];
        assert_eq!(results(Speech::Libtest, text), expected);
    }

    #[test]
    fn a_test_that_dies_is_known_by_its_beginning() {
        let text = include_str!("samples/libtest-dies.txt");
        assert_eq!(results(Speech::Libtest, text), ["run a_good", "Pass a_good 0", "run b_dies"]);
        assert_eq!(results(Speech::Libtest, "test result of mine ... ok\n"), Vec::<String>::new());
    }
}
