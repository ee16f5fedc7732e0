//! What failed in a pipeline, in the words of `go test`.

use std::collections::BTreeSet;

/// Tests of a package in a job.
#[derive(Debug, Clone, Default)]
pub struct Tests {
    /// Full names of those that failed; the empty name is the package.
    pub failed: BTreeSet<String>,
    /// Full names of those that passed.
    pub passed: BTreeSet<String>,
}

/// The patterns that run what failed, each with the meaning of `-test.run`: a test whose subtests all failed stands for
/// them; else those of them that failed do. Empty where the package itself failed: then all of it runs.
pub fn coalesced(tests: &Tests) -> Vec<String> {
    if tests.failed.contains("") {
        return Vec::new();
    }
    let below = |names: &BTreeSet<String>, name: &str| {
        let prefix = format!("{name}/");
        names.range(prefix.clone()..).next().is_some_and(|next| next.starts_with(&prefix))
    };
    let mut chosen: Vec<&str> = Vec::new();
    for name in &tests.failed {
        let covered = chosen.iter().any(|by| name.strip_prefix(by).is_some_and(|rest| rest.starts_with('/')));
        let of_its_subtests = below(&tests.failed, name) && below(&tests.passed, name);
        if !covered && !of_its_subtests {
            chosen.push(name);
        }
    }
    chosen.into_iter().map(exactly).collect()
}

/// The pattern of one test: each element from end to end.
fn exactly(name: &str) -> String {
    let parts: Vec<String> =
        name.split('/').map(|part| format!("^{}$", regex_syntax::escape(part))).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests(failed: &[&str], passed: &[&str]) -> Tests {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Tests { failed: set(failed), passed: set(passed) }
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        assert_eq!(coalesced(&tests(&["TestFoo", "TestFooBar"], &[])), ["^TestFoo$", "^TestFooBar$"]);
        assert_eq!(coalesced(&tests(&["TestA", "TestA/x", "TestA/x/y"], &["TestAB/z"])), ["^TestA$"]);
        assert_eq!(
            coalesced(&tests(&["TestA", "TestA/x", "TestA/x/1", "TestA/y(2)"], &["TestA/z"])),
            ["^TestA$/^x$", r"^TestA$/^y\(2\)$"]
        );
        assert!(coalesced(&tests(&["", "TestA"], &[])).is_empty());
    }
}
