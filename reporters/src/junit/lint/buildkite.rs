//! Buildkite: Test Engine.

use std::collections::HashSet;

use super::{Loss, Traps};
use crate::junit::read::Document;

/// Results an upload may have.
const CASES: usize = 5_000;

pub(super) fn look(document: &Document, traps: &mut Traps) {
    if document.cases.len() > CASES {
        let says = format!("{} cases: an upload of more than 5,000 fails as a whole", document.cases.len());
        traps.whole("too-many-cases", Loss::Refused, &says, "one file a cell, with the same `run_env[key]`");
    }
    let mut seen = HashSet::new();
    for case in &document.cases {
        let class = case.attribute("classname").unwrap_or_default();
        let name = case.attribute("name").unwrap_or_default();
        if class.is_empty() || name.is_empty() {
            let says =
                "a case without `classname` or `name`: it is skipped, and the upload says 202 all the same";
            traps.case("incomplete-case", Loss::Dropped, says, "write both", case);
        } else if !seen.insert((class, name)) {
            let says = "class and name of an earlier case: each is counted, as two runs of one test";
            traps.case(
                "same-key",
                Loss::Merged,
                says,
                "make the cell part of `classname`; merge attempts",
                case,
            );
        }
        for child in &case.children {
            if matches!(child.name.as_str(), "flakyFailure" | "rerunFailure" | "flakyError" | "rerunError") {
                let says = "earlier attempts: that Buildkite reads them is not documented";
                traps.case("attempts-unread", Loss::Note, says, "do not rely on them", case);
            }
        }
    }
}
