//! GitLab: unit test reports of merge requests and pipelines.

use std::collections::HashSet;

use super::{Loss, Traps, suite_name};
use crate::junit::read::{Case, Document};

/// Bytes a file may have, and cases a report.
const BYTES: u64 = 30_000_000;
const CASES: usize = 500_000;

pub(super) fn look(document: &Document, traps: &mut Traps) {
    if document.bytes > BYTES {
        let says = format!("{} MB: GitLab takes 30 MB a file", document.bytes / 1_000_000);
        traps.whole("too-large", Loss::Refused, &says, "cap the output of a case, or write several files");
    }
    if document.cases.len() > CASES {
        let says = format!("{} cases: gitlab.com takes 500,000 a report", document.cases.len());
        traps.whole("too-many-cases", Loss::Refused, &says, "report top-level tests only, or split the job");
    }
    let mut seen = HashSet::new();
    for case in &document.cases {
        let class = case.attribute("classname").unwrap_or_default();
        let name = case.attribute("name").unwrap_or_default();
        if !seen.insert((suite_name(document, case), class, name)) {
            let says = "suite, class and name of an earlier case: GitLab keeps the first and drops this one";
            traps.case(
                "same-key",
                Loss::Dropped,
                says,
                "make the cell or the attempt part of `classname`",
                case,
            );
        }
        if name.is_empty() {
            let says = "a case without `name`: all such of a class are one to GitLab";
            traps.case("no-name", Loss::Merged, says, "write `name`", case);
        }
        if class.is_empty() {
            let says = "a case without `classname`: GitLab shows no suite for it";
            traps.case(
                "no-class",
                Loss::Distorted,
                says,
                "write `classname`; GitLab shows it as the suite",
                case,
            );
        }
        children(case, traps);
    }
    for suite in document.suites.iter().filter(|suite| suite.stdio > 0) {
        let says = "`system-out` of a suite: GitLab reads that of cases only";
        let what = suite.attribute("name").unwrap_or_default();
        traps.at("suite-output", Loss::Dropped, says, "move it into a case", suite.line, what);
    }
    for suite in document.suites.iter().filter(|suite| !suite.properties.is_empty()) {
        let says = "properties: GitLab does not read them";
        let what = suite.attribute("name").unwrap_or_default();
        traps.at(
            "properties",
            Loss::Note,
            says,
            "what must be seen belongs into `classname`",
            suite.line,
            what,
        );
    }
    if !document.cases.is_empty() && document.cases.iter().all(|case| case.attribute("file").is_none()) {
        let says = "no case has `file`: GitLab offers no \"copy failed tests\"";
        traps.whole("no-file", Loss::Note, says, "write `file` where the source file is known");
    }
}

fn children(case: &Case, traps: &mut Traps) {
    for child in &case.children {
        match child.name.as_str() {
            "failure" | "error" | "skipped" if child.text == 0 && !child.message.is_empty() => {
                let says = "a message in the attribute only: GitLab shows the content of the element, which is empty";
                traps.case(
                    "message-in-attribute",
                    Loss::Dropped,
                    says,
                    "repeat the message in the body",
                    case,
                );
            }
            "flakyFailure" | "rerunFailure" | "flakyError" | "rerunError" => {
                let says = "earlier attempts: GitLab does not read them, a flaky test is one that passed";
                let advice = "nothing to do for a merge request; count flaky tests elsewhere";
                traps.case("attempts-unread", Loss::Note, says, advice, case);
            }
            "system-out" if child.attachment && !case.has("failure") => {
                let says = "an attachment of a case that did not fail: GitLab shows those of failures only";
                traps.case("attachment", Loss::Dropped, says, "attach it to a `failure`", case);
            }
            _ => {}
        }
    }
}
