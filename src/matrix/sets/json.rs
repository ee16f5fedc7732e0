//! Run configs and test-set files of the former tool (`-packages-run-config`), as test sets.
//!
//! A package's own entry decides, else that of `*`; what has neither does not run. Without any entry everything runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::super::{Complaint, place};
use super::{Rule, TestSet};
use crate::error::nearest;

/// Largest file, bytes.
const LARGEST: usize = 1 << 20;

/// The file. Whatever is `null` is as if it were not there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunConfig {
    #[serde(default, deserialize_with = "or_nothing")]
    filters: BTreeMap<String, PackageFilter>,
    testcontainer: Option<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    additional_test_args: Vec<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    additional_env_vars: Vec<String>,
}

/// What it says of a package.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PackageFilter {
    #[serde(default, deserialize_with = "or_nothing")]
    run_only: Vec<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    skip: Vec<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    exclude: bool,
}

fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads the text of a run config called `name`.
///
/// # Errors
/// Line and column of what is wrong: no JSON, an unknown key, a filter that Go refuses, a variable without a value.
pub fn parse(name: &str, text: &str) -> Result<TestSet, Complaint> {
    if text.len() > LARGEST {
        let what = format!("`{name}` is no run config: it has {} MiB, and 1 is the most", text.len() >> 20);
        return Err(Complaint::new(what).hint(SHAPE));
    }
    let config: RunConfig = serde_json::from_str(text).map_err(|error| refused(name, text, &error))?;
    let mut rules = Vec::new();
    for (package, filter) in config.filters {
        for patterns in [&filter.run_only, &filter.skip] {
            if let Some((number, why)) = super::refused(patterns.iter().map(String::as_str)) {
                let at = literal(text, &patterns[number]);
                let complaint = place::complain(name, text, at, &format!("not a test filter: {why}"));
                return Err(complaint.hint("each is a regular expression of Go, as for `-test.run`"));
            }
        }
        let PackageFilter { run_only, skip, exclude } = filter;
        rules.push(Rule { run_only, skip, exclude, ..Rule::all_of(&package) });
    }
    let mut set = TestSet::of_rules(rules);
    set.args = config.additional_test_args;
    set.container = config.testcontainer.filter(|image| !image.is_empty());
    for word in config.additional_env_vars {
        let Some((variable, value)) = word.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            let what = format!("`{word}` is not NAME=VALUE");
            return Err(place::complain(name, text, literal(text, &word), &what)
                .hint("`\"additional_env_vars\": [\"NAME=VALUE\"]`"));
        };
        set.env.insert(variable.to_owned(), value.to_owned());
    }
    Ok(set)
}

/// What a run config looks like.
const SHAPE: &str = "a run config is JSON: `{\"filters\": {\"pkg/ebpf\": {\"run-only\": [\"TestA\"]}}}`";

/// Where a string stands in the text, with its quotes.
fn literal(text: &str, value: &str) -> std::ops::Range<usize> {
    let quoted = serde_json::Value::from(value).to_string();
    text.find(&quoted).map_or(0..0, |at| at..at + quoted.len())
}

fn refused(name: &str, text: &str, error: &serde_json::Error) -> Complaint {
    let words = error.to_string();
    let what = words.split(" at line ").next().unwrap_or_default();
    let line: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let end = line + error.column();
    // What is wrong ends there; a string is marked whole.
    let before = &text[..text.floor_char_boundary(end.min(text.len()))];
    let start = match before.strip_suffix('"').and_then(|rest| rest.rfind('"')) {
        Some(quote) if quote >= line => quote,
        _ => end.saturating_sub(1),
    };
    let complaint = place::complain(name, text, start..end, what);
    let mut keys = what.split('`').skip(1).step_by(2);
    let near = keys.next().filter(|_| what.starts_with("unknown field")).and_then(|key| nearest(key, keys));
    complaint.hint(near.map_or_else(|| SHAPE.to_owned(), |near| format!("did you mean `{near}`?")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = r#"{
        "filters": {
            "pkg/security": {"run-only": ["TestActivityDump", "TestSecurityProfile"], "skip": null},
            "pkg/network/usm": {"exclude": true},
            "*": {}
        },
        "testcontainer": "registry.example/apps:main",
        "additional_test_args": ["--env", "docker"],
        "additional_env_vars": ["DEDICATED_ACTIVITY_DUMP_NODE=1", "EMPTY="]
    }"#;

    #[test]
    fn a_run_config_is_a_test_set() {
        let set = parse("s.json", WHOLE).unwrap();
        let tests = set.rule_of("pkg/security").unwrap().tests();
        assert_eq!(tests.run.as_deref(), Some("TestActivityDump|TestSecurityProfile"));
        assert!(set.rule_of("pkg/network/usm").is_none());
        assert_eq!(set.rule_of("pkg/security/tests").unwrap().packages, "*");
        assert_eq!(set.args, ["--env", "docker"]);
        assert_eq!(set.env["DEDICATED_ACTIVITY_DUMP_NODE"], "1");
        assert_eq!(set.container.as_deref(), Some("registry.example/apps:main"));
    }

    #[test]
    fn an_entry_less_file_runs_everything_and_others_only_what_they_name() {
        for everything in ["{}", r#"{"filters": {}}"#, r#"{"filters": {"*": {"exclude": false}}}"#] {
            assert!(parse("s.json", everything).unwrap().rule_of("pkg/a").is_some(), "{everything}");
        }
        let one = parse("s.json", r#"{"filters": {"pkg/a": {}}}"#).unwrap();
        assert!(one.rule_of("pkg/a").is_some() && one.rule_of("pkg/b").is_none());
    }

    fn wrong(text: &str) -> String {
        let complaint = parse("s.json", text).unwrap_err();
        assert!(!complaint.hints.is_empty(), "{complaint:?}");
        format!("{}\nhint: {}", complaint.message, complaint.hints[0])
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_stands() {
        let key = wrong("{\"filters\": {\n  \"pkg/a\": {\"run-onyl\": []}}}");
        assert!(key.starts_with("`s.json` line 2, column 13: unknown field `run-onyl`"), "{key}");
        assert!(
            key.contains("\n  |             ^^^^^^^^^^\n") && key.ends_with("did you mean `run-only`?"),
            "{key}"
        );
        let filter = wrong("{\"filters\":\n {\"*\": {\"skip\": [\"Test(\"]}}}");
        assert!(filter.starts_with("`s.json` line 2, column 18: not a test filter"), "{filter}");
        let variable = wrong("{\"additional_env_vars\": [\"X\"]}");
        assert!(variable.starts_with("`s.json` line 1, column 26: `X` is not NAME=VALUE"), "{variable}");
        assert!(wrong("{\"filters\": []}").contains("line 1, column 12: invalid type: sequence"));
        assert!(wrong("").contains("line 1, column 1: EOF"), "{}", wrong(""));
        assert!(wrong(&"[".repeat(2 << 20)).contains("2 MiB"));
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".{0,80}", at in 0..500usize, with in "[\\[\\]\"{},:a-zü\\n]{0,3}") {
            let _ = parse("s.json", &text);
            let mut changed = WHOLE.to_owned();
            changed.insert_str(at.min(WHOLE.len()), &with);
            let _ = parse("s.json", &changed);
        }
    }
}
