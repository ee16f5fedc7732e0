//! Traps that are everybody's.

use std::collections::HashMap;

use super::{Loss, Traps};
use crate::junit::read::{Case, Document};

pub(super) fn look(document: &Document, traps: &mut Traps) {
    for line in &document.invalid_characters {
        let says = "a character that XML 1.0 does not have: a strict parser refuses the whole file";
        let advice = "strip control characters and colours before writing";
        traps.at("invalid-character", Loss::Refused, says, advice, *line, "");
    }
    for line in &document.undefined_entities {
        let says = "an entity that nothing defines: a strict parser refuses the whole file";
        traps.at("undefined-entity", Loss::Refused, says, "escape `&` as `&amp;`", *line, "");
    }
    if document.cases.is_empty() {
        let advice = "write a case that says why nothing ran";
        traps.whole("empty", Loss::Dropped, "there is no case in it: it looks as if all were well", advice);
    }
    for case in &document.cases {
        if case.suite.is_none() {
            let says = "a case outside any suite: most consumers look only into suites";
            traps.case("outside-suite", Loss::Dropped, says, "put it into a `testsuite`", case);
        }
        times(case, traps);
        let verdicts = ["failure", "error", "skipped"].iter().filter(|name| case.has(name)).count();
        if verdicts > 1 {
            let says =
                "a case that is several of failure, error and skipped: each consumer takes another one";
            traps.case("several-verdicts", Loss::Distorted, says, "give a case one verdict", case);
        }
    }
    counts(document, traps);
    reruns(document, traps);
}

fn times(case: &Case, traps: &mut Traps) {
    let Some(time) = case.attribute("time") else {
        let says = "a case without `time`: it takes 0 s in every statistic";
        return traps.case("no-time", Loss::Note, says, "write `time` in seconds", case);
    };
    if time.trim().parse::<f64>().is_ok_and(|time| time.is_finite() && time >= 0.0) {
        return;
    }
    let says =
        "`time` is no number of seconds such as 0.123: it is read as 0, or up to the first odd character";
    traps.case(
        "odd-time",
        Loss::Distorted,
        says,
        "seconds, with a point, without thousands separators",
        case,
    );
}

/// Consumers that show the attributes show other figures than those that count.
fn counts(document: &Document, traps: &mut Traps) {
    let mut nested = vec![false; document.suites.len()];
    // A suite without cases of its own may count those of suites in it.
    document.suites.iter().enumerate().for_each(|(at, suite)| nested[at] = suite.cases == 0);
    for (suite, nested) in document.suites.iter().zip(nested) {
        let told = suite.attribute("tests").and_then(|text| text.parse::<u64>().ok());
        if told.is_some_and(|told| told != suite.cases) && !nested {
            let says = "`tests` of a suite is not the number of its cases";
            let what = suite.attribute("name").unwrap_or_default();
            traps.at("wrong-count", Loss::Note, says, "count when all cases are known", suite.line, what);
        }
    }
}

/// The same case more than once where one went wrong and another did not: gotestsum writes reruns so.
fn reruns(document: &Document, traps: &mut Traps) {
    let mut seen: HashMap<(Option<usize>, &str, &str), bool> = HashMap::new();
    for case in &document.cases {
        let class = case.attribute("classname").unwrap_or_default();
        let key = (case.suite, class, case.attribute("name").unwrap_or_default());
        match seen.get(&key) {
            Some(bad) if *bad != case.is_bad() => {
                let says =
                    "a rerun is a case of its own: one failed and one passed, and nobody knows which counts";
                let advice = "merge attempts into one case; earlier ones as `flakyFailure` or `rerunFailure`";
                traps.case("rerun-as-case", Loss::Distorted, says, advice, case);
            }
            Some(_) => {}
            None => _ = seen.insert(key, case.is_bad()),
        }
    }
}
