//! The Test Anything Protocol, and what the kernel's selftests make of it.
//!
//! A result is one line, so what a test says stands before its name is known: lines are kept for the result that
//! follows, but comments after a failure are its own. Results of subtests (indented, or behind `# `) stand before
//! their parent's and are kept for it too. Of the planned tests without a result the first one has started and not
//! ended, unless the program bailed out; the others never began.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{KSFT_SKIP, Lines, output};
use crate::run::gotest::{Item, Verdict};

/// Lines that are kept for a result which has not come.
const KEPT: usize = 10_000;
/// Planned tests without a result that are told one by one.
const MISSING_SHOWN: u64 = 1000;

/// A result, with all that belongs to it.
#[derive(Debug, Default)]
struct Done {
    name: String,
    result: Option<Verdict>,
    elapsed: Duration,
    lines: Vec<String>,
    children: Vec<Done>,
}

/// Reads it.
#[derive(Debug, Default)]
pub struct Tap {
    /// Lines for the next result.
    pending: Vec<String>,
    /// Results of subtests, by depth, for a parent that has not come.
    nested: Vec<Vec<Done>>,
    /// The last result: words about it may follow.
    open: Option<(String, Verdict, Duration)>,
    /// The test that said it runs.
    running: Option<String>,
    /// How often a name came.
    names: HashMap<String, u32>,
    numbers: BTreeSet<u64>,
    plan: Option<u64>,
    yaml: bool,
    bailed: bool,
    failed: bool,
    skipped: bool,
}

/// What one line is.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Result { ok: bool, number: Option<u64>, name: &'a str, directive: &'a str },
    Plan { count: u64, reason: &'a str },
    Running(&'a str),
    Comment,
    Other,
}

impl Lines for Tap {
    fn line(&mut self, line: &str, out: &mut Vec<Item>) {
        let (depth, text) = unwrapped(line.trim_end());
        if self.in_yaml(line, out) {
            return;
        }
        match (parse(text), depth) {
            (Line::Result { ok, number, name, directive }, depth) => {
                let done = self.done(depth, line, (ok, number), name, directive);
                if depth > 0 {
                    let at = depth - 1;
                    self.nested.resize_with(self.nested.len().max(depth), Vec::new);
                    self.nested[at].push(done);
                    return;
                }
                self.close(out);
                self.numbers.extend(number);
                self.emit(done, "", out);
            }
            (Line::Plan { count: 0, reason }, 0) if self.numbers.is_empty() => {
                let skip = (true, None);
                let done = self.done(0, line, skip, "all", &format!("SKIP {reason}"));
                self.emit(done, "", out);
            }
            (Line::Plan { count, .. }, 0) => {
                self.plan = Some(count);
                self.keep(line, out);
            }
            (Line::Running(test), 0 | 1) => {
                self.close(out);
                let test = self.unique(test);
                out.push(Item::Started { test: test.clone() });
                out.push(output(Some(&test), line));
                self.running = Some(test);
            }
            (Line::Comment, _)
                if self.open.as_ref().is_some_and(|(_, result, _)| *result == Verdict::Fail) =>
            {
                out.push(output(self.open.as_ref().map(|(test, ..)| test.as_str()), line));
            }
            _ => {
                self.bailed |= line.starts_with("Bail out!");
                self.keep(line, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<Item>) {
        self.close(out);
        let orphans: Vec<Done> = self.nested.drain(..).flatten().collect();
        if !orphans.is_empty() {
            // Their parent never told its name: it has not ended.
            let name = "unfinished".to_owned();
            self.emit(Done { name, children: orphans, ..Done::default() }, "", out);
        }
        for line in std::mem::take(&mut self.pending) {
            out.push(output(self.running.as_deref(), &line));
        }
        let count = self.missing(out);
        if self.plan.is_some() {
            out.push(if self.failed || count > 0 { Item::PackageFail } else { Item::PackageOk });
        }
    }

    fn status(&self, status: i32) -> i32 {
        if status == KSFT_SKIP && self.skipped && !self.failed { 0 } else { status }
    }
}

impl Tap {
    /// Tells what the plan has and no result came for; how many there are.
    fn missing(&self, out: &mut Vec<Item>) -> u64 {
        let plan = self.plan.unwrap_or(0);
        let there = self.numbers.iter().filter(|number| (1..=plan).contains(*number)).count() as u64;
        let missing = (1..=plan).filter(|number| !self.numbers.contains(number));
        // The one that said it runs is told already.
        let told = usize::from(self.running.is_some());
        for (index, number) in missing.skip(told).take(MISSING_SHOWN as usize).enumerate() {
            let test = format!("test {number}");
            let began = index + told == 0 && !self.bailed;
            out.push(if began { Item::Started { test } } else { Item::Announced { test } });
        }
        if plan - there > MISSING_SHOWN + told as u64 {
            let message =
                format!("the plan has {} tests without a result, and not all are told", plan - there);
            out.push(Item::Malformed { message });
        }
        plan - there
    }

    fn keep(&mut self, line: &str, out: &mut Vec<Item>) {
        self.close(out);
        if let Some(test) = &self.running {
            out.push(output(Some(test), line));
        } else if self.pending.len() < KEPT {
            self.pending.push(line.to_owned());
        } else {
            out.push(output(None, line));
        }
    }

    /// A block `---` to `...` below a result is about it.
    fn in_yaml(&mut self, line: &str, out: &mut Vec<Item>) -> bool {
        let text = line.trim();
        let Some((test, _, elapsed)) = &mut self.open else { return false };
        let begins = text == "---" && line.starts_with(' ');
        if !(self.yaml || begins) {
            return false;
        }
        self.yaml = text != "...";
        if let Some(number) =
            text.strip_prefix("duration_ms:").and_then(|text| text.trim().parse::<f64>().ok())
        {
            *elapsed = Duration::try_from_secs_f64(number / 1000.0).unwrap_or_default();
        }
        out.push(output(Some(test), line));
        true
    }

    fn done(
        &mut self,
        depth: usize,
        line: &str,
        said: (bool, Option<u64>),
        name: &str,
        directive: &str,
    ) -> Done {
        let (ok, number) = said;
        let word = directive.split([' ', ':']).next().unwrap_or_default().to_ascii_lowercase();
        let (result, time) = match (ok, word.as_str()) {
            (_, "skip" | "skipped" | "xfail") | (false, "todo") => (Verdict::Skip, None),
            (true, _) => (Verdict::Pass, directive.strip_prefix("time=")),
            (false, _) => (Verdict::Fail, directive.strip_prefix("time=")),
        };
        let elapsed = time.and_then(|time| time.strip_suffix("ms")?.parse::<f64>().ok());
        // The kernel's harness names a skipped test only where it says that it runs.
        let running = self.running.as_deref().filter(|_| depth == 0 && name.is_empty());
        let name = running.unwrap_or(name);
        let name = match (name, number) {
            // The kernel's own helpers put the name behind the directive.
            ("", _) if !word.is_empty() => directive[word.len()..].trim_start_matches([' ', ':']),
            (name, _) => name,
        };
        let name = match (name, number) {
            ("", Some(number)) => format!("test {number}"),
            ("", None) => "test".to_owned(),
            (name, _) => name.to_owned(),
        };
        let mut lines = std::mem::take(&mut self.pending);
        lines.push(line.to_owned());
        let children =
            if self.nested.len() > depth { self.nested.split_off(depth).remove(0) } else { Vec::new() };
        Done {
            name,
            result: Some(result),
            elapsed: elapsed.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()).unwrap_or_default(),
            lines,
            children,
        }
    }

    /// Says a result and those below it. One without a verdict has only started.
    fn emit(&mut self, done: Done, above: &str, out: &mut Vec<Item>) {
        let whole = format!("{above}{}", done.name);
        let test = match self.running.take_if(|running| above.is_empty() && *running == whole) {
            Some(test) => test,
            None => {
                let test = self.unique(&whole);
                out.push(Item::Started { test: test.clone() });
                test
            }
        };
        for child in done.children {
            self.emit(child, &format!("{test}/"), out);
        }
        out.extend(done.lines.iter().map(|line| output(Some(&test), line)));
        let Some(result) = done.result else { return };
        self.failed |= result == Verdict::Fail;
        self.skipped |= result == Verdict::Skip;
        if above.is_empty() {
            self.open = Some((test, result, done.elapsed));
        } else {
            out.push(Item::Finished { test, result, elapsed: done.elapsed });
        }
    }

    fn close(&mut self, out: &mut Vec<Item>) {
        self.yaml = false;
        if let Some((test, result, elapsed)) = self.open.take() {
            out.push(Item::Finished { test, result, elapsed });
        }
    }

    /// The name, marked where it came before: the protocol does not forbid that.
    fn unique(&mut self, name: &str) -> String {
        let count = self.names.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}#{:02}", *count - 1) }
    }
}

/// How deep a result or plan stands, and what it says there. Four blanks, or `# ` before a result, is one deeper.
fn unwrapped(line: &str) -> (usize, &str) {
    let (mut depth, mut text) = (0, line);
    loop {
        let inner =
            text.strip_prefix("    ").or_else(|| text.strip_prefix("  ")).or_else(|| text.strip_prefix("# "));
        match inner {
            Some(inner) if nests(inner) => (depth, text) = (depth + 1, inner),
            _ => return (depth, text),
        }
    }
}

/// Whether a line that stands deeper is a line of the protocol.
fn nests(text: &str) -> bool {
    let bare = text.trim_start_matches(['#', ' ']);
    matches!(parse(bare), Line::Result { number: Some(_), .. } | Line::Plan { .. })
}

fn parse(text: &str) -> Line<'_> {
    if let Some(test) = text.strip_prefix("#  RUN ") {
        let test = test.trim().trim_end_matches("...").trim();
        return Line::Running(test);
    }
    if text.starts_with('#') {
        return Line::Comment;
    }
    if let Some(rest) = text.strip_prefix("1..") {
        let (count, reason) = rest.split_once('#').unwrap_or((rest, ""));
        let reason = reason.trim().trim_start_matches("SKIP").trim();
        return count.trim().parse().map_or(Line::Other, |count| Line::Plan { count, reason });
    }
    let (ok, rest) = match (text.strip_prefix("ok"), text.strip_prefix("not ok")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Line::Other,
    };
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return Line::Other;
    }
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, rest) = match rest[..digits].parse() {
        Ok(number) if rest[digits..].is_empty() || rest[digits..].starts_with(' ') => {
            (Some(number), &rest[digits..])
        }
        _ => (None, rest),
    };
    let rest = rest.trim_start();
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = match rest.find("# ").filter(|at| *at == 0 || !rest[..*at].ends_with('\\')) {
        Some(at) => (&rest[..at], &rest[at + 2..]),
        None => (rest, ""),
    };
    Line::Result { ok, number, name: name.trim(), directive: directive.trim() }
}

#[cfg(test)]
mod tests {
    use super::super::Speech;
    use super::super::samples::{read, results};
    use super::MISSING_SHOWN;

    #[test]
    fn plain_results_with_their_words() {
        let text = "TAP version 13\n1..4\nhello\nok 1 - opens # time=2.5ms\nnot ok 2 - reads\n# expected 1\n# got 2\n\
                    ok 3 - old # SKIP needs 5.8\nnot ok 4 later # todo not yet\n";
        let expected = [
            "run opens",
            "Pass opens 2",
            "run reads",
            "Fail reads 0",
            "run old",
            "Skip old 0",
            "run later",
            "Skip later 0",
            "PackageFail",
        ];
        assert_eq!(results(Speech::Tap, text), expected);
        let all = read(Speech::Tap, text);
        assert!(all.contains(&"  opens: hello".to_owned()), "{all:#?}");
        assert!(all.contains(&"  reads: # got 2".to_owned()), "{all:#?}");
    }

    /// What a suite printed that was made with `kselftest_harness.h` of Linux 6.1.
    #[test]
    fn the_kernels_harness() {
        let text = include_str!("samples/kselftest-harness.txt");
        let expected = [
            "run global.opens",
            "Pass global.opens 0",
            "run global.old",
            "Skip global.old 0",
            "run global.dies_as_it_should",
            "Pass global.dies_as_it_should 0",
            "run global.dies",
            "Fail global.dies 0",
            "run ring.small.wraps",
            "Pass ring.small.wraps 0",
            "run ring.large.wraps",
            "Fail ring.large.wraps 0",
            "PackageFail",
        ];
        assert_eq!(results(Speech::Tap, text), expected);
        let all = read(Speech::Tap, text);
        for words in [
            "global.opens: # sk.c:13:opens:it opens",
            "global.old: #      SKIP      needs 5.8",
            "ring.large.wraps: # sk.c:12:wraps:Expected variant->size (1048576) < 1000 (1000)",
        ] {
            assert!(all.contains(&format!("  {words}")), "{all:#?}");
        }
    }

    /// What suites printed that were made with `kselftest.h` of Linux 6.1, and with Perl's `Test::More`.
    #[test]
    fn the_kernels_own_words_and_perls() {
        let expected = [
            "run opens",
            "Pass opens 0",
            "run reads",
            "Fail reads 0",
            "run needs 5.8",
            "Skip needs 5.8 0",
            "run later",
            "Skip later 0",
            "run odd",
            "Fail odd 0",
            "PackageFail",
        ];
        assert_eq!(results(Speech::Tap, include_str!("samples/kselftest.txt")), expected);
        let expected = [
            "run opens",
            "Pass opens 0",
            "run sizes",
            "run sizes/small",
            "Pass sizes/small 0",
            "run sizes/large",
            "Fail sizes/large 0",
            "Fail sizes 0",
            "run needs 5.8",
            "Skip needs 5.8 0",
            "PackageFail",
        ];
        assert_eq!(results(Speech::Tap, include_str!("samples/test-more.txt")), expected);
    }

    #[test]
    fn subtests_belong_to_the_parent_that_follows() {
        let text = "1..2\n    1..2\n    ok 1 - small\n    not ok 2 - large\nnot ok 1 - sizes\n\
                    # TAP version 13\n# 1..1\n# ok 1 deep\nok 2 selftests: net: bind\n";
        let expected = [
            "run sizes",
            "run sizes/small",
            "Pass sizes/small 0",
            "run sizes/large",
            "Fail sizes/large 0",
            "Fail sizes 0",
            "run selftests: net: bind",
            "run selftests: net: bind/deep",
            "Pass selftests: net: bind/deep 0",
            "Pass selftests: net: bind 0",
            "PackageFail",
        ];
        assert_eq!(results(Speech::Tap, text), expected);
    }

    #[test]
    fn what_was_planned_and_did_not_come_has_not_ended() {
        let text = "1..3\nok 1 - opens\nBail out! no device\n";
        assert_eq!(
            results(Speech::Tap, text),
            ["run opens", "Pass opens 0", "announced test 2", "announced test 3", "PackageFail"]
        );
        let text = "1..3\nok 1 - opens\nSegmentation fault\n";
        assert_eq!(
            results(Speech::Tap, text),
            ["run opens", "Pass opens 0", "run test 2", "announced test 3", "PackageFail"]
        );
        let text = "1..2\n#  RUN           a.b ...\n";
        assert_eq!(results(Speech::Tap, text), ["run a.b", "announced test 2", "PackageFail"]);
        let told = results(Speech::Tap, "ok 1\n1..18446744073709551615\n");
        assert_eq!(told.len(), 2 + MISSING_SHOWN as usize + 2);
        let text = "    ok 1 - small\n";
        let expected = ["run unfinished", "run unfinished/small", "Pass unfinished/small 0"];
        assert_eq!(results(Speech::Tap, text), expected);
    }

    #[test]
    fn a_suite_that_skips_itself_is_no_failure() {
        let text = "TAP version 13\n1..0 # SKIP run as root\n";
        assert_eq!(results(Speech::Tap, text), ["run all", "Skip all 0"]);
        let mut reader = Speech::Tap.reader();
        reader.feed(text.as_bytes(), &mut Vec::new());
        assert_eq!((reader.status(4), reader.status(1)), (0, 1));
        let mut reader = Speech::Tap.reader();
        reader.feed(b"1..1\nnot ok 1 a\n", &mut Vec::new());
        assert_eq!(reader.status(4), 4);
    }

    #[test]
    fn names_that_come_twice_and_blocks_of_yaml() {
        let text =
            "ok 1 - a\n  ---\n  duration_ms: 12.5\n  ...\nok 2 - a\nok\nokay this is no result\n1..3\n";
        assert_eq!(
            results(Speech::Tap, text),
            [
                "run a",
                "Pass a 12",
                "run a#01",
                "Pass a#01 0",
                "run test",
                "Pass test 0",
                "run test 3",
                "PackageFail"
            ]
        );
    }
}
