//! Datadog: `datadog-ci junit upload`.

use std::collections::{HashMap, HashSet};

use super::{Loss, Traps, suite_name};
use crate::junit::read::{Document, Suite};

/// Bytes a report may have.
const BYTES: u64 = 250 << 20;

/// The tags by which Datadog tells configurations apart.
const CONFIGURATION: [&str; 2] = ["dd_tags[os.version]", "dd_tags[os.architecture]"];

pub(super) fn look(document: &Document, name: &str, traps: &mut Traps) {
    if document.bytes > BYTES {
        let says = format!("{} MiB: Datadog takes 250 MiB a report", document.bytes >> 20);
        traps.whole("too-large", Loss::Refused, &says, "one file a cell");
    }
    let found_by_itself = ["junit", "test", "TEST-"].iter().any(|part| name.contains(part));
    if !name.is_empty() && !found_by_itself {
        let says = "the name of the file: auto-discovery takes `*junit*`, `*test*` and `*TEST-*` only";
        traps.whole("undiscovered", Loss::Dropped, says, "rename it, or name it when uploading");
    }
    for suite in &document.suites {
        look_at_suite(suite, traps);
    }
    let mut classes: HashMap<(&str, &str), &str> = HashMap::new();
    let mut seen = HashSet::new();
    for case in &document.cases {
        let test = case.attribute("name").unwrap_or_default();
        let class = case.attribute("classname").unwrap_or_default();
        let suite = suite_name(document, case);
        if test.is_empty() {
            let says = "a case without `name`: it becomes no test, or all such become one";
            traps.case("no-name", Loss::Dropped, says, "write `name`", case);
        }
        if *classes.entry((suite, test)).or_insert(class) != class {
            let says = "equal suite and name, and another class: Datadog does not read `classname`, they are one test";
            let advice = "use the class as suite name, or `--xpath-tag test.suite=/testcase/@classname`";
            traps.case("class-unread", Loss::Merged, says, advice, case);
        } else if !seen.insert((case.suite, test)) {
            let says = "suite and name of an earlier case: each is a run of one test, the worse does not win";
            traps.case(
                "same-name",
                Loss::Merged,
                says,
                "merge attempts, or tag them `dd_tags[attempt]`",
                case,
            );
        }
        for (key, value) in &case.properties {
            tag(key, value, case.line, traps);
        }
        for child in &case.children {
            match child.name.as_str() {
                "flakyFailure" | "rerunFailure" | "flakyError" | "rerunError" => {
                    let says = "earlier attempts as elements: what Datadog makes of them is not documented";
                    traps.case("attempts-unread", Loss::Note, says, "say it in `dd_tags[attempt]`", case);
                }
                "system-out" | "system-err" => {
                    let says = "output: Datadog reads it with `--logs` only, and bills it";
                    traps.case(
                        "output-as-logs",
                        Loss::Note,
                        says,
                        "what matters belongs into `failure`",
                        case,
                    );
                }
                _ => {}
            }
        }
    }
}

fn look_at_suite(suite: &Suite, traps: &mut Traps) {
    let name = suite.attribute("name").unwrap_or_default();
    if name.is_empty() && suite.cases > 0 {
        let says = "a suite without `name`, which is `test.suite`";
        traps.at("no-suite-name", Loss::Merged, says, "name it after the package", suite.line, "");
    }
    for (key, value) in &suite.properties {
        tag(key, value, suite.line, traps);
    }
    let has = |tag: &str| suite.properties.iter().any(|(key, _)| key == tag);
    if suite.cases > 0 && !CONFIGURATION.iter().all(|tag| has(tag)) {
        let says = "no `dd_tags[os.version]` and `dd_tags[os.architecture]`: all cells are one configuration, and a test \
                    that fails in one of them looks flaky";
        traps.at(
            "one-configuration",
            Loss::Merged,
            says,
            "one suite a cell, with these properties",
            suite.line,
            name,
        );
    }
}

fn tag(key: &str, value: &str, line: u64, traps: &mut Traps) {
    if !(key.starts_with("dd_tags[") && key.ends_with(']')) {
        let says = "a property that is not `dd_tags[…]`: Datadog drops it";
        traps.at(
            "untagged-property",
            Loss::Dropped,
            says,
            "call it `dd_tags[name]`, or use `--xpath-tag`",
            line,
            key,
        );
    } else if value.parse::<f64>().is_ok() && !key.contains("version") {
        let says = "a number as a tag becomes text: it cannot be compared";
        traps.at(
            "number-as-tag",
            Loss::Note,
            says,
            "upload it with `--measures` where it is a figure",
            line,
            key,
        );
    }
}
