//! JUnit of any tool: which tests failed, passed, or passed in a later attempt.

use std::collections::BTreeMap;
use std::path::Path;

use kmt_reporters::event::CellId;
use kmt_reporters::explain::Mark;
use kmt_reporters::junit::read::{self, Case, Child, Document};

use super::archive;
use crate::known::MARK;

/// Longest message that is kept, bytes.
const MESSAGE: usize = 300;

/// What became of the tests of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// By package and test; the empty test is the package itself.
    pub tests: BTreeMap<(String, String), Outcome>,
    /// Files that were read.
    pub files: usize,
    /// What could not be read, each in a line.
    pub trouble: Vec<String>,
}

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Over all its attempts.
    pub mark: Mark,
    /// The line that tells why it failed, if one does.
    pub message: String,
}

impl Results {
    /// Tests that failed and are to blame: not those of which a subtest failed.
    pub fn failed(&self) -> impl Iterator<Item = (&(String, String), &Outcome)> {
        self.tests.iter().filter(|(name, outcome)| outcome.mark == Mark::Fail && !self.blames_subtest(name))
    }

    /// Tests that passed in a later attempt, or are known to fail now and then.
    pub fn flaky(&self) -> impl Iterator<Item = (&(String, String), &Outcome)> {
        self.tests.iter().filter(|(name, outcome)| outcome.mark == Mark::Flaky && !self.blames_subtest(name))
    }

    /// Whether a test below it failed, or was flaky.
    fn blames_subtest(&self, (package, test): &(String, String)) -> bool {
        let below = format!("{test}/");
        let from = (package.clone(), below.clone());
        let own = self.tests.get(&(package.clone(), test.clone())).map(|outcome| outcome.mark);
        self.tests
            .range(from..)
            .take_while(|((other, name), _)| {
                other == package && (test.is_empty() || name.starts_with(&below))
            })
            .any(|(_, outcome)| Some(outcome.mark) == own)
    }

    /// Reads what lies at `path`: a `.xml`, or a `.tar.gz` of them.
    pub fn read(path: &Path) -> Results {
        let mut results = Results::default();
        let name = path.to_string_lossy();
        if name.ends_with(".xml") {
            match archive::whole(path) {
                Ok(bytes) => results.add(&name, &bytes),
                Err(error) => results.trouble.push(format!("the JUnit file {error}")),
            }
        } else {
            let wanted = |name: &str| name.ends_with(".xml");
            let trouble = archive::each_file(path, wanted, |name, bytes| results.add(name, &bytes));
            results.trouble.extend(trouble.map(|trouble| format!("the JUnit archive {trouble}")));
        }
        results
    }

    /// Takes in one file.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        let file = name.rsplit('/').next().unwrap_or(name);
        let document = match read::read(bytes) {
            Ok(document) => document,
            Err(error) => {
                self.trouble.push(format!("`{file}` is no JUnit: {error}"));
                return;
            }
        };
        self.files += 1;
        document.cases.iter().for_each(|case| self.case(&document, case));
    }

    /// Takes in one case.
    fn case(&mut self, document: &Document, case: &Case) {
        let suite = case.suite.map(|at| &document.suites[at]);
        let suite = suite.and_then(|suite| suite.attribute("name")).unwrap_or_default();
        let package = package_of(suite, case.attribute("classname").unwrap_or_default());
        let test = case.attribute("name").unwrap_or_default().to_owned();
        // What Go tools write for a package that ended without a result of a test.
        let test = if matches!(test.as_str(), "TestMain" | "(package)") { String::new() } else { test };
        self.note((package, test), outcome_of(case));
    }

    fn note(&mut self, name: (String, String), new: Outcome) {
        let Some(known) = self.tests.get_mut(&name) else {
            self.tests.insert(name, new);
            return;
        };
        known.mark = match (known.mark, new.mark) {
            (Mark::Skip, other) | (other, Mark::Skip) => other,
            (a, b) if a == b => a,
            // Failed and passed, in whichever order the file has them.
            _ => Mark::Flaky,
        };
        if known.message.is_empty() {
            known.message = new.message;
        }
    }
}

/// What a file says of one cell.
#[derive(Debug, Clone, Default)]
pub struct OfCell {
    /// Its tests.
    pub results: Results,
    /// Why it never ran.
    pub trouble: Option<String>,
}

/// Reads one file by the cells that its suites name as their hosts, as files of ours do; what names none is under `None`.
pub fn by_cell(path: &Path) -> BTreeMap<Option<CellId>, OfCell> {
    let mut cells: BTreeMap<Option<CellId>, OfCell> = BTreeMap::new();
    let document =
        archive::whole(path).and_then(|bytes| read::read(&bytes).map_err(|e| format!("is no JUnit: {e}")));
    let document = match document {
        Ok(document) => document,
        Err(error) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            cells.entry(None).or_default().results.trouble.push(format!("`{file}` {error}"));
            return cells;
        }
    };
    for case in &document.cases {
        let suite = case.suite.map(|at| &document.suites[at]);
        let host = suite.and_then(|suite| suite.attribute("hostname")).unwrap_or_default();
        let cell: Option<CellId> = host.parse().ok();
        // A suite that is called as its cell tells of the machine, one called `build` of what was built.
        let own = suite.and_then(|suite| suite.attribute("name"));
        let of_machine = cell.is_some() && own == Some(host);
        if own == Some("build") && case.attribute("classname") == Some("kmt") {
            continue;
        }
        let told = cells.entry(cell).or_default();
        told.results.files = 1;
        if !of_machine {
            told.results.case(&document, case);
        } else if case.is_bad() {
            let why = case.children.first().map(|child| child.message.clone());
            told.trouble = why.or_else(|| Some("its machine did not come up".to_owned()));
        }
    }
    cells
}

fn outcome_of(case: &Case) -> Outcome {
    let bad: Vec<&Child> =
        case.children.iter().filter(|child| matches!(child.name.as_str(), "failure" | "error")).collect();
    let flaky = case.has("flakyFailure") || case.has("flakyError");
    let known = case.children.iter().any(|child| child.excerpt.contains(MARK));
    let mark = match (bad.is_empty(), flaky, case.has("skipped")) {
        (false, _, _) if known => Mark::Flaky,
        (false, _, _) => Mark::Fail,
        (true, true, _) => Mark::Flaky,
        (true, false, true) => Mark::Skip,
        (true, false, false) => Mark::Pass,
    };
    let told =
        bad.first().copied().or_else(|| case.children.iter().find(|child| child.name.starts_with("flaky")));
    Outcome { mark, message: told.map(message_of).unwrap_or_default() }
}

fn message_of(child: &Child) -> String {
    telling(&child.excerpt, &child.message)
}

/// The line of a failed test's output that tells most: an assertion's error, a panic, what Go's `t.Fatal` said; else
/// its message.
pub fn telling(output: &str, message: &str) -> String {
    let text = kmt_reporters::strip_ansi(output).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let after = |word: &str| lines.iter().find_map(|line| line.strip_prefix(word)).map(str::trim);
    let place = |line: &&&str| {
        line.split_once(".go:").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let said = lines.iter().find(place).and_then(|line| line.split_once(": ")).map(|(_, said)| said.trim());
    let general = ["", "Failed", "failed"];
    let message = message.lines().next().unwrap_or_default().trim();
    let best = after("Error:")
        .or_else(|| lines.iter().find(|line| line.starts_with("panic: ")).copied())
        .or(said.filter(|said| !said.is_empty()))
        .or((!general.contains(&message)).then_some(message));
    let best = best.unwrap_or_default();
    let end = (0..=MESSAGE.min(best.len())).rev().find(|at| best.is_char_boundary(*at)).unwrap_or(0);
    best[..end].to_owned()
}

/// The package: the suite's name or the class, without the cell and the module.
fn package_of(suite: &str, class: &str) -> String {
    // `debian_12/6.1/x86_64 pkg/a`, as our own files have it.
    let suite = suite.rsplit(' ').next().unwrap_or(suite);
    let name = if suite.contains('/') || class.is_empty() { suite } else { class };
    let name = name.trim_start_matches("./");
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        // `github.com/owner/repository/pkg/a`
        [host, _, _, rest @ ..] if host.contains('.') && !rest.is_empty() => rest.join("/"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(files: &[&str]) -> Results {
        let mut results = Results::default();
        files.iter().for_each(|file| results.add("a.xml", file.as_bytes()));
        results
    }

    fn mark(results: &Results, test: &str) -> Mark {
        results.tests[&("pkg/a".to_owned(), test.to_owned())].mark
    }

    #[test]
    fn a_rerun_that_passed_is_flaky_and_parents_are_not_to_blame() {
        let text = r#"<testsuites><testsuite name="github.com/o/r/pkg/a">
            <testcase name="TestA"><failure message="Failed">=== RUN
              a_test.go:12: got 1, want 2</failure></testcase>
            <testcase name="TestA/sub"><failure message="Failed"></failure></testcase>
            <testcase name="TestAB"/><testcase name="TestB"><failure/></testcase><testcase name="TestB"/>
            <testcase name="TestC"><skipped/></testcase>
            <testcase name="TestD"><failure>flakytest: this is a known flaky test</failure></testcase>
            <testcase name="TestE"><flakyFailure message="x"/></testcase>
            </testsuite></testsuites>"#;
        let found = results(&[text]);
        assert_eq!(mark(&found, "TestB"), Mark::Flaky);
        assert_eq!((mark(&found, "TestC"), mark(&found, "TestD")), (Mark::Skip, Mark::Flaky));
        assert_eq!((mark(&found, "TestE"), mark(&found, "TestAB")), (Mark::Flaky, Mark::Pass));
        let failed: Vec<_> = found.failed().map(|((_, test), _)| test.as_str()).collect();
        assert_eq!(failed, ["TestA/sub"]);
        assert_eq!(found.tests[&("pkg/a".to_owned(), "TestA".to_owned())].message, "got 1, want 2");
    }

    #[test]
    fn our_own_files_name_their_cells() {
        let text = r#"<testsuites><testsuite name="debian_12/6.1/x86_64 pkg/a" hostname="debian_12/6.1/x86_64">
            <testcase name="TestA"><failure message="bad"/></testcase></testsuite>
            <testsuite name="debian_13/6.12/x86_64" hostname="debian_13/6.12/x86_64">
            <testcase name="boot" classname="x.kmt"><error message="boot failed"/></testcase></testsuite>
            <testsuite name="pkg/b"><testcase name="TestB"/></testsuite></testsuites>"#;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let found = by_cell(file.path());
        let told: Vec<String> = found
            .iter()
            .map(|(cell, of)| {
                let cell = cell.as_ref().map(ToString::to_string).unwrap_or_default();
                let tests: Vec<_> = of.results.tests.keys().map(|(p, t)| format!("{p} {t}")).collect();
                format!("{cell}: {} {:?}", tests.join(","), of.trouble.as_deref())
            })
            .collect();
        let wanted = [
            ": pkg/b TestB None",
            "debian_12/6.1/x86_64: pkg/a TestA None",
            "debian_13/6.12/x86_64:  Some(\"boot failed\")",
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn suites_do_not_mix_and_what_is_no_junit_is_said() {
        let two = r#"<testsuites><testsuite name="x/pkg/a"><testcase name="T"><error message="boom"/></testcase></testsuite>
            <testsuite name="x/pkg/b"><testcase name="T"/></testsuite></testsuites>"#;
        let found = results(&[two, "<html>"]);
        let names: Vec<_> =
            found.tests.iter().map(|((p, _), o)| (p.as_str(), o.mark, o.message.as_str())).collect();
        assert_eq!(names, [("x/pkg/a", Mark::Fail, "boom"), ("x/pkg/b", Mark::Pass, "")]);
        assert_eq!((found.files, found.trouble.len()), (1, 1));
        assert_eq!(package_of("debian_12/6.1/x86_64 pkg/a", "debian.pkg/a"), "pkg/a");
    }
}
