//! Every trap, in a file made to have it; and our own files, which have none.

use super::*;
use crate::junit::tests::Fixed;
use crate::junit::texts;
use crate::mask::Masks;
use crate::model::script::runs;

/// A suite with these cases, tagged as Datadog likes it.
fn suite(cases: &str) -> String {
    format!(
        "<testsuites><testsuite name=\"pkg/a\"><properties>\
         <property name=\"dd_tags[os.version]\" value=\"6.1\"/><property name=\"dd_tags[os.architecture]\" value=\"x86_64\"/>\
         </properties>{cases}</testsuite></testsuites>"
    )
}

fn case(class: &str, name: &str, body: &str) -> String {
    format!(
        "<testcase classname=\"{class}\" name=\"{name}\" time=\"0.1\" file=\"a_test.go\">{body}</testcase>"
    )
}

fn found(text: &str, consumer: Flavour) -> Vec<(&'static str, Loss)> {
    let verdict = lint(text.as_bytes(), "junit.xml", consumer);
    verdict.findings.iter().map(|finding| (finding.rule, finding.loss)).collect()
}

#[track_caller]
fn traps(text: &str, consumer: Flavour, rule: &'static str, loss: Loss) {
    let found = found(text, consumer);
    assert!(found.contains(&(rule, loss)), "{consumer}: {rule} is not in {found:?}");
}

#[test]
fn a_clean_file_has_none() {
    let text = suite(&case("cell.pkg/a", "TestA", "<failure message=\"m\">m</failure>"));
    for consumer in Flavour::ALL {
        let verdict = lint(text.as_bytes(), "junit.xml", consumer);
        assert!(!verdict.loses(), "{consumer}: {:?}", verdict.findings);
    }
}

#[test]
fn our_own_flavours_lose_nothing_where_they_belong() {
    for (name, script) in runs::all() {
        let run = script.run();
        for consumer in Flavour::ALL {
            for text in texts(&run, consumer, &Fixed(b"out\n"), &Masks::default()).unwrap() {
                let verdict = lint(text.as_bytes(), "junit.xml", consumer);
                assert!(!verdict.loses(), "{name} {consumer}: {:?}", verdict.findings);
            }
        }
    }
}

#[test]
fn common_traps() {
    for consumer in Flavour::ALL {
        let all = |text: &str, rule, loss| traps(text, consumer, rule, loss);
        all("{}", "unreadable", Loss::Refused);
        all(&suite(&case("c", "T&#x1b;", "")), "invalid-character", Loss::Refused);
        all(&suite(&case("c", "T", "<failure>&nbsp;</failure>")), "undefined-entity", Loss::Refused);
        all("<testsuites/>", "empty", Loss::Dropped);
        all(&format!("<testsuites>{}</testsuites>", case("c", "T", "")), "outside-suite", Loss::Dropped);
        all(&suite("<testcase classname=\"c\" name=\"T\"/>"), "no-time", Loss::Note);
        all(&suite("<testcase classname=\"c\" name=\"T\" time=\"1,204.5\"/>"), "odd-time", Loss::Distorted);
        all(&suite(&case("c", "T", "<failure>x</failure><skipped/>")), "several-verdicts", Loss::Distorted);
        let counted =
            "<testsuite name=\"a\" tests=\"7\"><testcase classname=\"c\" name=\"T\" time=\"0\"/></testsuite>";
        all(counted, "wrong-count", Loss::Note);
        // As gotestsum writes reruns.
        let rerun = case("c", "T", "<failure>x</failure>") + &case("c", "T", "");
        all(&suite(&rerun), "rerun-as-case", Loss::Distorted);
    }
}

#[test]
fn traps_of_gitlab() {
    let gitlab_has = |text: &str, rule, loss| traps(text, Flavour::Gitlab, rule, loss);
    let large = Document { bytes: 31_000_000, cases: vec![Case::default(); 500_001], ..Document::default() };
    let mut caught = Traps::default();
    gitlab::look(&large, &mut caught);
    assert_eq!([caught.found[0].rule, caught.found[1].rule], ["too-large", "too-many-cases"]);
    gitlab_has(&suite(&(case("c", "T", "") + &case("c", "T", ""))), "same-key", Loss::Dropped);
    gitlab_has(&suite(&case("c", "", "")), "no-name", Loss::Merged);
    gitlab_has(&suite(&case("", "T", "")), "no-class", Loss::Distorted);
    gitlab_has(&suite(&case("c", "T", "<failure message=\"why\"/>")), "message-in-attribute", Loss::Dropped);
    gitlab_has(
        &suite(&case("c", "T", "<skipped message=\"why\"></skipped>")),
        "message-in-attribute",
        Loss::Dropped,
    );
    gitlab_has(&suite(&case("c", "T", "<flakyFailure>x</flakyFailure>")), "attempts-unread", Loss::Note);
    let picture = "<system-out>[[ATTACHMENT|a.png]]</system-out>";
    gitlab_has(&suite(&case("c", "T", picture)), "attachment", Loss::Dropped);
    gitlab_has(&suite(&(case("c", "T", "") + "<system-out>x</system-out>")), "suite-output", Loss::Dropped);
    gitlab_has(&suite(&case("c", "T", "")), "properties", Loss::Note);
    gitlab_has(&suite("<testcase classname=\"c\" name=\"T\" time=\"0\"/>"), "no-file", Loss::Note);
    // The same name in another suite is another case.
    let two = format!(
        "<testsuites>{0}</testsuites>",
        ["a", "b"]
            .map(|name| { format!("<testsuite name=\"{name}\">{}</testsuite>", case("c", "T", "")) })
            .concat()
    );
    assert!(!found(&two, Flavour::Gitlab).iter().any(|(rule, _)| *rule == "same-key"));
}

#[test]
fn traps_of_datadog() {
    let datadog_has = |text: &str, rule, loss| traps(text, Flavour::Datadog, rule, loss);
    let large = Document { bytes: 251 << 20, ..Document::default() };
    let mut caught = Traps::default();
    datadog::look(&large, "junit.xml", &mut caught);
    assert_eq!(caught.found[0].rule, "too-large");
    let verdict = lint(suite(&case("c", "T", "")).as_bytes(), "results.xml", Flavour::Datadog);
    assert_eq!(verdict.findings[0].rule, "undiscovered");
    let unnamed = format!("<testsuite>{}</testsuite>", case("c", "T", ""));
    datadog_has(&unnamed, "no-suite-name", Loss::Merged);
    datadog_has(&unnamed, "one-configuration", Loss::Merged);
    datadog_has(&suite(&case("c", "", "")), "no-name", Loss::Dropped);
    datadog_has(&suite(&(case("c", "T", "") + &case("d", "T", ""))), "class-unread", Loss::Merged);
    datadog_has(&suite(&(case("c", "T", "") + &case("c", "T", ""))), "same-name", Loss::Merged);
    let property = |name: &str, value: &str| {
        suite(&case(
            "c",
            "T",
            &format!("<properties><property name=\"{name}\" value=\"{value}\"/></properties>"),
        ))
    };
    datadog_has(&property("kernel", "6.1"), "untagged-property", Loss::Dropped);
    datadog_has(&property("dd_tags[bytes]", "4096"), "number-as-tag", Loss::Note);
    datadog_has(&suite(&case("c", "T", "<rerunFailure>x</rerunFailure>")), "attempts-unread", Loss::Note);
    datadog_has(&suite(&case("c", "T", "<system-out>x</system-out>")), "output-as-logs", Loss::Note);
}

#[test]
fn traps_of_jenkins() {
    let jenkins = |text: &str, rule, loss| traps(text, Flavour::Jenkins, rule, loss);
    let one = format!("<testsuite name=\"a\" time=\"1.0\">{}</testsuite>", case("p.c", "T", ""));
    jenkins(&format!("<testsuites>{one}{one}</testsuites>"), "same-suite", Loss::Dropped);
    jenkins(&suite(&case("p.c", "", "")), "no-name", Loss::Refused);
    jenkins(&suite(&case("", "T", "")), "no-class", Loss::Distorted);
    jenkins(&format!("<testsuite>{}</testsuite>", case("", "T", "")), "no-class", Loss::Refused);
    jenkins(&suite(&case("debian_12-6.1", "T", "")), "split-version", Loss::Distorted);
    jenkins(&suite(&case(".c", "T", "")), "no-package", Loss::Distorted);
    jenkins(&suite(&case("c", "T", "")), "root-package", Loss::Note);
    jenkins(&suite(&case("p.c", "T", "<flakyError>x</flakyError>")), "error-attempt", Loss::Dropped);
    let long = format!("<system-out>{}</system-out>", "x".repeat(2_000));
    jenkins(&suite(&case("p.c", "T", &long)), "long-output", Loss::Dropped);
    jenkins(&suite(&(case("p.c", "T", "") + &long)), "long-output", Loss::Dropped);
    let failed = case("p.c", "T", &format!("<failure>x</failure>{long}"));
    assert!(!found(&suite(&failed), Flavour::Jenkins).iter().any(|(rule, _)| *rule == "long-output"));
}

#[test]
fn traps_of_buildkite() {
    let buildkite = |text: &str, rule, loss| traps(text, Flavour::Buildkite, rule, loss);
    buildkite(&suite(&"<testcase/>".repeat(5_001)), "too-many-cases", Loss::Refused);
    buildkite(&suite(&case("", "T", "")), "incomplete-case", Loss::Dropped);
    buildkite(&suite(&(case("c", "T", "") + &case("c", "T", ""))), "same-key", Loss::Merged);
    buildkite(&suite(&case("c", "T", "<rerunError>x</rerunError>")), "attempts-unread", Loss::Note);
}

#[test]
fn a_verdict_for_people() {
    let cases =
        (0..5).map(|_| case("pkg/a", "TestA\u{202e}", "<failure message=\"why\"/>")).collect::<String>();
    let verdict = lint(suite(&cases).as_bytes(), "junit.xml", Flavour::Gitlab);
    insta::assert_snapshot!(told(&verdict, "junit.xml"));
}
