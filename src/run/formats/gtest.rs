//! What GoogleTest prints.

use std::time::Duration;

use super::{Lines, output};
use crate::run::gotest::{Item, Verdict};

const RUN: &str = "[ RUN      ] ";
const ENDS: [(&str, Verdict); 3] =
    [("[       OK ] ", Verdict::Pass), ("[  FAILED  ] ", Verdict::Fail), ("[  SKIPPED ] ", Verdict::Skip)];

/// Reads it.
#[derive(Debug, Default)]
pub struct Gtest {
    running: Option<String>,
    failed: bool,
    ended: bool,
}

impl Lines for Gtest {
    fn line(&mut self, line: &str, out: &mut Vec<Item>) {
        let text = line.trim_end_matches(['\r', '\n']);
        if let Some(test) = text.strip_prefix(RUN) {
            self.running = Some(test.to_owned());
            out.push(Item::Started { test: test.to_owned() });
            out.push(output(Some(test), line));
            return;
        }
        let running = self.running.clone();
        if let Some(test) = &running
            && let Some((at, result, elapsed)) = end(text, test)
        {
            // What a test prints without a newline stands before its end.
            if at > 0 {
                out.push(output(Some(test), &text[..at]));
            }
            out.push(output(Some(test), &line[at..]));
            out.push(Item::Finished { test: test.clone(), result, elapsed });
            self.failed |= result == Verdict::Fail;
            self.running = None;
            return;
        }
        self.ended |= running.is_none() && text.starts_with("[  PASSED  ] ");
        out.push(output(running.as_deref(), line));
    }

    fn finish(&mut self, out: &mut Vec<Item>) {
        if self.ended {
            out.push(if self.failed { Item::PackageFail } else { Item::PackageOk });
        }
    }
}

/// Where in `line` the running test ends, how, and after how long.
fn end(line: &str, test: &str) -> Option<(usize, Verdict, Duration)> {
    ENDS.iter().find_map(|(mark, result)| {
        let at = line.find(&format!("{mark}{test}"))?;
        let rest = &line[at + mark.len() + test.len()..];
        // `, where GetParam() = 3` may stand between name and time.
        let known = rest.is_empty() || rest.starts_with(" (") || rest.starts_with(", where ");
        let time = rest.strip_suffix(" ms)").and_then(|rest| rest.rsplit_once('('));
        let elapsed = time.and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
        known.then_some((at, *result, Duration::from_millis(elapsed)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Speech;
    use super::super::samples::{read, results};

    /// What GoogleTest 1.12 printed.
    const SAMPLE: &str = include_str!("samples/gtest.txt");

    #[test]
    fn each_test_has_its_end_and_its_words() {
        let expected = [
            "run Ring.Wraps",
            "Pass Ring.Wraps 0",
            "run Ring.Drops",
            "Fail Ring.Drops 0",
            "run Ring.Old",
            "Skip Ring.Old 0",
            "run Typed/0.IsSmall",
            "Fail Typed/0.IsSmall 0",
            "run Sizes/Map.Grows/0",
            "Pass Sizes/Map.Grows/0 0",
            "run Sizes/Map.Grows/1",
            "Fail Sizes/Map.Grows/1 0",
            "PackageFail",
        ];
        assert_eq!(results(Speech::Gtest, SAMPLE), expected);
        let all = read(Speech::Gtest, SAMPLE);
        assert!(all.contains(&"  Ring.Drops: no newlinering_test.cc:4: Failure".to_owned()), "{all:#?}");
        assert!(all.contains(&"  Ring.Old: needs 5.8".to_owned()), "{all:#?}");
        assert!(all.contains(&"  -: [  FAILED  ] Ring.Drops".to_owned()), "{all:#?}");
    }

    #[test]
    fn times_and_ends_on_a_line_that_was_begun() {
        let text = "[ RUN      ] A.b\nno newline[  FAILED  ] A.b (12 ms)\n";
        assert_eq!(results(Speech::Gtest, text), ["run A.b", "Fail A.b 12"]);
        assert!(read(Speech::Gtest, text).contains(&"  A.b: no newline".to_owned()));
    }

    #[test]
    fn a_test_that_dies_has_no_end() {
        let text = "[ RUN      ] Ring.Wraps\nabout to die\n";
        assert_eq!(results(Speech::Gtest, text), ["run Ring.Wraps"]);
        let other = "[ RUN      ] Ring.Wraps\n[       OK ] Ring.WrapsTwice (1 ms)\n";
        assert_eq!(results(Speech::Gtest, other), ["run Ring.Wraps"]);
    }
}
