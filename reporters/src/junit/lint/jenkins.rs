//! Jenkins: the junit plugin.

use std::collections::HashSet;

use super::{Loss, Traps, suite_name};
use crate::junit::read::{Case, Document};

/// Characters of output that are kept of a suite in which all passed, and of one in which something failed.
const STDIO: (u64, u64) = (1_000, 100_000);

pub(super) fn look(document: &Document, traps: &mut Traps) {
    let mut suites = HashSet::new();
    for suite in &document.suites {
        let name = suite.attribute("name").unwrap_or_default();
        let stamp = suite.attribute("timestamp").or(suite.attribute("time")).unwrap_or_default();
        let id = suite.attribute("id").unwrap_or_default();
        if suite.cases > 0 && !suites.insert((name, id, stamp)) {
            let says = "name and time of an earlier suite: Jenkins takes it for the same file read twice, and drops it";
            let advice = "make the cell part of the suite's name";
            traps.at("same-suite", Loss::Dropped, says, advice, suite.line, name);
        }
        let (limit, kind) = if suite.bad > 0 { (STDIO.1, "100,000") } else { (STDIO.0, "1,000") };
        if suite.stdio > limit {
            let says =
                format!("more output of a suite than Jenkins keeps ({kind} characters, half at each end)");
            traps.at(
                "long-output",
                Loss::Dropped,
                &says,
                "`keepLongStdio`, or put it into `failure`",
                suite.line,
                name,
            );
        }
    }
    for case in &document.cases {
        look_at_case(document, case, traps);
    }
}

fn look_at_case(document: &Document, case: &Case, traps: &mut Traps) {
    let class = case.attribute("classname").unwrap_or_default();
    if case.attribute("name").is_none_or(str::is_empty) {
        let says = "a case without `name`: Jenkins refuses the file";
        traps.case("no-name", Loss::Refused, says, "write `name`", case);
    }
    if class.is_empty() {
        let (says, loss) = match suite_name(document, case) {
            "" => (
                "a case without `classname` in a suite without `name`: Jenkins refuses the file",
                Loss::Refused,
            ),
            _ => ("a case without `classname`: Jenkins takes the name of its suite", Loss::Distorted),
        };
        traps.case("no-class", loss, says, "write `classname`", case);
    } else if let Some((package, last)) = class.rsplit_once('.') {
        if last.starts_with(|c: char| c.is_ascii_digit()) || last.is_empty() {
            let says = "a class is split at its last dot, here within a version: packages fall apart";
            traps.case("split-version", Loss::Distorted, says, "put `_` for dots that part no package", case);
        } else if package.is_empty() {
            let says = "a class that begins with its only dot: its package has no name";
            traps.case("no-package", Loss::Distorted, says, "write `package.class`", case);
        }
    } else {
        let says = "a class without a dot: Jenkins files it under `(root)`";
        traps.case("root-package", Loss::Note, says, "write `package.class`", case);
    }
    let limit = if case.is_bad() { STDIO.1 } else { STDIO.0 };
    for child in &case.children {
        match child.name.as_str() {
            "flakyError" | "rerunError" => {
                let says = "an earlier attempt as *Error: Jenkins reads the *Failure elements only";
                let advice = "`flakyFailure` and `rerunFailure`, also for time-outs and crashes";
                traps.case("error-attempt", Loss::Dropped, says, advice, case);
            }
            "system-out" | "system-err" if child.text > limit => {
                let says = "more output than Jenkins keeps (1,000 characters of what passed, 100,000 of what failed)";
                traps.case(
                    "long-output",
                    Loss::Dropped,
                    says,
                    "`keepLongStdio`, or put it into `failure`",
                    case,
                );
            }
            _ => {}
        }
    }
}
