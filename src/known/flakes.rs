//! `flakes.yaml`: packages, and the tests of each that are known to be flaky.
//!
//! ```yaml
//! pkg/network/tracer:
//!   - TestTracerSuite/prebuilt      # with all below it
//!   - test: TestDNS                 # only where its output has one of these
//!     on-log: ["i/o timeout"]
//! on-log: ["no space left on device"]   # any test
//! ```

use std::collections::BTreeMap;

use regex::bytes::Regex;
use serde::Deserialize;

/// What a test says of itself.
pub const MARK: &str = "flakytest: this is a known flaky test";

/// The key of patterns that hold for every test.
const ON_LOG: &str = "on-log";

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    Name(String),
    Test(Test),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    test: String,
    #[serde(default, rename = "on-log")]
    on_log: Option<Patterns>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Patterns {
    One(String),
    More(Vec<String>),
}

/// Tests that are known to be flaky, by package.
#[derive(Debug, Clone, Default)]
pub struct Flakes {
    tests: BTreeMap<String, Vec<String>>,
    /// By which words tests show that they are.
    pub(super) marks: Marks,
}

/// By which words in its output a test is known to be flaky.
#[derive(Debug, Clone, Default)]
pub struct Marks(Vec<Mark>);

#[derive(Debug, Clone)]
struct Mark {
    /// Package and test; all of them where none is named.
    of: Option<(String, String)>,
    words: Regex,
}

impl Flakes {
    /// Reads the file; an empty one lists nothing.
    pub(super) fn read(text: &str) -> Result<Flakes, String> {
        type File = Option<BTreeMap<String, Option<Vec<Entry>>>>;
        let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let mut flakes = Flakes::default();
        for (package, entries) in file.unwrap_or_default() {
            let package = package.trim_start_matches("./").trim_end_matches('/').to_owned();
            for entry in entries.unwrap_or_default() {
                flakes.add(&package, entry)?;
            }
        }
        Ok(flakes)
    }

    fn add(&mut self, package: &str, entry: Entry) -> Result<(), String> {
        let (test, patterns) = match entry {
            Entry::Name(pattern) if package == ON_LOG => return self.marks.add(None, &pattern),
            Entry::Name(test) => (test, None),
            Entry::Test(Test { test, on_log }) => (test, on_log),
        };
        let of = (package.to_owned(), test);
        match patterns {
            None => self.tests.entry(of.0).or_default().push(of.1),
            Some(Patterns::One(pattern)) => self.marks.add(Some(of), &pattern)?,
            Some(Patterns::More(patterns)) => {
                for pattern in patterns {
                    self.marks.add(Some(of.clone()), &pattern)?;
                }
            }
        }
        Ok(())
    }

    /// The tests of a package.
    pub(super) fn of(&self, package: &str) -> impl Iterator<Item = &str> {
        self.tests.get(package).into_iter().flatten().map(String::as_str)
    }
}

impl Marks {
    fn add(&mut self, of: Option<(String, String)>, pattern: &str) -> Result<(), String> {
        let words =
            Regex::new(pattern).map_err(|error| format!("`{pattern}` is no regular expression: {error}"))?;
        self.0.push(Mark { of, words });
        Ok(())
    }

    /// Whether some output of a test says that it is flaky.
    pub fn say(&self, package: &str, test: &str, output: &[u8]) -> bool {
        let meant = |mark: &&Mark| match &mark.of {
            None => true,
            Some((of, name)) => {
                let rest = test.strip_prefix(name.as_str());
                of == package && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        };
        memchr::memmem::find(output, MARK.as_bytes()).is_some()
            || self.0.iter().filter(meant).any(|mark| mark.words.is_match(output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tables_are_read() {
        let text = "# comment\n\"pkg/a\":\n  - TestX/sub{^a:b$}\n  - test: TestY\n    on-log: time(d )?out\n\
                    ./pkg/b/:\npkg/c:\n  - test: TestZ\non-log:\n  - 'no space left'\n";
        let flakes = Flakes::read(text).unwrap();
        assert_eq!(flakes.of("pkg/a").collect::<Vec<_>>(), ["TestX/sub{^a:b$}"]);
        assert_eq!(flakes.of("pkg/b").count() + flakes.of("pkg/y").count(), 0);
        assert_eq!(flakes.of("pkg/c").collect::<Vec<_>>(), ["TestZ"]);
        let marks = &flakes.marks;
        assert!(marks.say("pkg/a", "TestY", b"    y_test.go:7: timed out\n"));
        assert!(marks.say("pkg/a", "TestY/deep", b"timeout"));
        assert!(!marks.say("pkg/a", "TestYes", b"timeout") && !marks.say("pkg/c", "TestY", b"timeout"));
        assert!(marks.say("pkg/q", "TestQ", b"write: no space left on device\n"));
    }

    #[test]
    fn a_test_says_so_itself() {
        let marks = Marks::default();
        assert!(marks.say("pkg", "T", b"    a_test.go:1: flakytest: this is a known flaky test\n"));
        assert!(!marks.say("pkg", "T", b"flakytest: skip known flaky test\n"));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert!(Flakes::read("").unwrap().tests.is_empty());
        for bad in
            ["- TestX\n", "pkg: TestX\n", "pkg:\n  - test: T\n    on-lgo: x\n", "on-log: ['(']\n", "a: [\n"]
        {
            assert!(Flakes::read(bad).is_err(), "{bad}");
        }
    }
}
