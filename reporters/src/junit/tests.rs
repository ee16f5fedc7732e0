//! The file, parsed back.

use std::collections::BTreeMap;
use std::io;

use quick_xml::Reader;
use quick_xml::events::Event as Xml;

use super::*;
use crate::event::{Event, OutputRef, TestResult};
use crate::model::script::{PKG, Script, bookworm, runs};
use crate::output::NoOutput;

/// The same bytes for every file.
pub(crate) struct Fixed(pub(crate) &'static [u8]);

impl OutputSource for Fixed {
    fn read(&self, _: &OutputRef) -> io::Result<Vec<u8>> {
        Ok(self.0.to_vec())
    }
}

/// A case as a consumer reads it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Case {
    pub(crate) suite: String,
    pub(crate) class: String,
    pub(crate) name: String,
    pub(crate) elements: Vec<String>,
    pub(crate) text: String,
}

pub(crate) fn parse(text: &str) -> Vec<Case> {
    let mut reader = Reader::from_str(text);
    let (mut cases, mut suite, mut open) = (Vec::new(), String::new(), None::<Case>);
    let attributes = |tag: &quick_xml::events::BytesStart<'_>| -> BTreeMap<String, String> {
        tag.attributes()
            .map(|a| a.unwrap())
            .map(|a| {
                let key = String::from_utf8(a.key.as_ref().to_vec()).unwrap();
                (
                    key,
                    quick_xml::escape::unescape(std::str::from_utf8(&a.value).unwrap()).unwrap().into_owned(),
                )
            })
            .collect()
    };
    loop {
        let event = reader.read_event().unwrap();
        match &event {
            Xml::Start(tag) | Xml::Empty(tag) => {
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                let has = attributes(tag);
                match name.as_str() {
                    "testsuite" => suite.clone_from(&has["name"]),
                    "testcase" => {
                        let case = Case {
                            suite: suite.clone(),
                            class: has["classname"].clone(),
                            name: has["name"].clone(),
                            ..Case::default()
                        };
                        match event {
                            Xml::Empty(_) => cases.push(case),
                            _ => open = Some(case),
                        }
                    }
                    _ => {
                        if let Some(case) = &mut open {
                            case.elements.push(name);
                        }
                    }
                }
            }
            Xml::Text(text) => {
                if let Some(case) = &mut open {
                    case.text.push_str(&String::from_utf8_lossy(text));
                }
            }
            Xml::End(tag) if tag.name().as_ref() == b"testcase" => {
                let mut case = open.take().unwrap();
                case.text = case.text.trim().to_owned();
                cases.push(case)
            }
            Xml::Eof => return cases,
            _ => {}
        }
    }
}

fn text(script: &Script, flavour: Flavour, source: &dyn OutputSource) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/junit.xml");
    let written = write(&script.run(), flavour, source, &Masks::new(["hunter22"]), &path).unwrap();
    assert_eq!(written, std::slice::from_ref(&path));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    fs::read_to_string(path).unwrap()
}

/// A folder to look at with other tools: `KMT_JUNIT_OUT=/tmp/x cargo test -p kmt-reporters junit`.
fn keep(name: &str, flavour: Flavour, text: &str) {
    if let Ok(folder) = std::env::var("KMT_JUNIT_OUT") {
        fs::create_dir_all(&folder).unwrap();
        fs::write(format!("{folder}/{name}-{flavour}.xml"), text).unwrap();
    }
}

#[test]
fn every_test_is_one_case_in_every_flavour() {
    for (name, script) in runs::all() {
        let run = script.run();
        for flavour in Flavour::ALL {
            let text = text(
                &script,
                flavour,
                &Fixed(b"=== RUN x\n  a_test.go:1: bad \x1b[31m<&>\x1b[0m \xff ]]> hunter22\n"),
            );
            keep(name, flavour, &text);
            assert!(!text.contains("hunter22") && !text.contains('\x1b'));
            let infrastructure = |case: &&Case| case.class.ends_with("kmt");
            let (infra, tests): (Vec<_>, Vec<_>) =
                parse(&text).into_iter().partition(|case| infrastructure(&case));
            assert!(!infra.is_empty());
            let mut keys: Vec<_> = tests.iter().map(|case| (&case.suite, &case.class, &case.name)).collect();
            assert_eq!(keys.len() as u64, run.report().counts.total(), "{name} {flavour}");
            keys.sort_unstable();
            keys.dedup();
            if flavour != Flavour::Datadog {
                assert_eq!(keys.len(), tests.len(), "{name} {flavour}: GitLab and Jenkins drop equal ones");
            }
        }
    }
}

#[test]
fn the_result_is_in_the_element() {
    let elements = |script: &Script, name: &str| {
        let cases = parse(&text(script, Flavour::Gitlab, &Fixed(b"out")));
        cases.into_iter().find(|case| case.name == name).unwrap().elements
    };
    assert!(elements(&runs::failing(), "TestTCP").is_empty());
    assert_eq!(elements(&runs::failing(), "TestDNS/udp/v6"), ["failure"]);
    assert_eq!(elements(&runs::failing(), "TestRingBuffer"), ["skipped"]);
    assert_eq!(elements(&runs::flaky(), "TestTCP"), ["flakyFailure", "stackTrace"]);
    assert_eq!(elements(&runs::early_exit(3), "TestDNS"), ["failure"]);
    assert_eq!(elements(&runs::early_exit(3), "TestTCP"), ["error"]);
    assert_eq!(elements(&runs::build_failure(), "build x86_64"), ["error"]);
    assert_eq!(elements(&runs::boot_failure(), "(package)"), ["error"]);
}

#[test]
fn what_is_known_to_be_flaky_stays_a_failure_and_says_so() {
    let plain = text(&runs::known_flaky(), Flavour::Gitlab, &NoOutput);
    let case = parse(&plain).into_iter().find(|case| case.name == "TestTCP").unwrap();
    assert_eq!(case.elements, ["failure"]);
    assert!(case.text.starts_with("known flaky: failed\nowner: @tcp @net"), "{}", case.text);
    let datadog = text(&runs::known_flaky(), Flavour::Datadog, &NoOutput);
    assert!(datadog.contains(r#"<property name="dd_tags[kmt.known_flaky]" value="true"/>"#));
    assert!(datadog.contains(r#"name="dd_tags[test.codeowners]" value="[&quot;@net&quot;]""#), "{datadog}");
}

#[test]
fn an_unbooted_cell_is_an_error_with_its_console() {
    let text = text(&runs::boot_failure(), Flavour::Gitlab, &NoOutput);
    let boots: Vec<_> = parse(&text).into_iter().filter(|case| case.name == "boot").collect();
    assert_eq!(boots[0].elements, Vec::<String>::new());
    assert_eq!((boots[1].suite.as_str(), boots[1].elements[0].as_str()), ("debian_11/5.10/arm64", "error"));
    assert!(boots[1].text.starts_with("boot failed: no progress for 60 s"), "{}", boots[1].text);
    assert!(boots[1].text.contains("Unable to mount root fs"));
    assert!(text.contains("type=\"no-root-device\""));
    assert!(
        boots[1].text.contains("\ncause: the kernel cannot mount the root file system: "),
        "{}",
        boots[1].text
    );
}

#[test]
fn the_kernel_is_a_property_and_the_cell_part_of_the_class() {
    let gitlab = text(&runs::green(), Flavour::Gitlab, &NoOutput);
    assert!(gitlab.contains(r#"<property name="dd_tags[os.version]" value="6.1.0-28-amd64"/>"#), "{gitlab}");
    assert!(gitlab.contains(r#"<property name="dd_tags[os.architecture]" value="x86_64"/>"#));
    assert!(gitlab.contains(r#"classname="debian_12-6.1-x86_64.pkg/network/tracer""#));
    assert!(!gitlab.lines().nth(1).unwrap().contains("skipped"));
    let datadog = text(&runs::green(), Flavour::Datadog, &NoOutput);
    assert!(datadog.contains(r#"<testsuite name="pkg/network/tracer""#));
    assert!(datadog.contains(r#"classname="pkg/network/tracer""#));
    let jenkins = text(&runs::green(), Flavour::Jenkins, &NoOutput);
    assert!(jenkins.contains(r#"<testsuite name="debian_12/6.1/x86_64 pkg/network/tracer""#));
}

#[test]
fn a_skip_says_why_in_its_content() {
    let out: &[u8] =
        b"=== RUN   TestRingBuffer\n    ring_test.go:9: kernel is older than 5.8\n--- SKIP: TestRingBuffer\n";
    let cases = parse(&text(&runs::failing(), Flavour::Gitlab, &Fixed(out)));
    let skip = cases.into_iter().find(|case| case.name == "TestRingBuffer").unwrap();
    assert_eq!(skip.text.trim(), "ring_test.go:9: kernel is older than 5.8");
}

#[test]
fn output_that_is_gone_is_said_and_fails_nothing() {
    let cases = parse(&text(&runs::failing(), Flavour::Gitlab, &NoOutput));
    let failed = cases.into_iter().find(|case| case.name == "TestDNS/udp/v6").unwrap();
    assert!(failed.text.contains("cannot be read"), "{}", failed.text);
}

#[test]
fn buildkite_gets_5000_cases_a_file() {
    let mut script = Script::new();
    let names: Vec<String> = (0..12_000).map(|n| format!("Test{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    script.plan(&[bookworm()], &[PKG]).up(&bookworm()).green(&bookworm(), PKG, &names).done();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("junit.xml");
    let files = write(&script.run(), Flavour::Buildkite, &NoOutput, &Masks::default(), &path).unwrap();
    let counts: Vec<_> = files.iter().map(|file| parse(&fs::read_to_string(file).unwrap()).len()).collect();
    assert_eq!(counts, [5000, 5000, 2002]);
    assert_eq!(files[2], folder.path().join("junit-3.xml"));
}

#[test]
fn a_large_run_fits_gitlab() {
    let mut script = Script::new();
    let names: Vec<String> = (0..2_000).map(|n| format!("Test{n:05}")).collect();
    let results: Vec<_> = names.iter().map(|name| (name.as_str(), TestResult::Fail)).collect();
    script.plan(&[bookworm()], &[PKG]).up(&bookworm()).tests(&bookworm(), PKG, &results).done();
    for envelope in &mut script.log {
        if let Event::TestFinished { output: Some(output), .. } = &mut envelope.event {
            output.length = 60_000;
        }
    }
    struct Angles;
    impl OutputSource for Angles {
        fn read(&self, _: &OutputRef) -> io::Result<Vec<u8>> {
            Ok(vec![b'<'; 60_000])
        }
    }
    let text = text(&script, Flavour::Gitlab, &Angles);
    assert!(text.len() < 30_000_000, "{}", text.len());
    assert!(text.contains("left out, since the report is large"));
}

#[test]
fn an_unwritable_path_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file/junit.xml");
    fs::write(folder.path().join("file"), "").unwrap();
    let error =
        write(&runs::green().run(), Flavour::Gitlab, &NoOutput, &Masks::default(), &path).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot write the JUnit report `{}`", path.display()));
    assert!(std::error::Error::source(&error).is_some());
    let error = write(&runs::green().run(), Flavour::Gitlab, &NoOutput, &Masks::default(), folder.path())
        .unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(
        fs::read_dir(folder.path().parent().unwrap())
            .unwrap()
            .filter(|f| f
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains(&*folder.path().file_name().unwrap().to_string_lossy()))
            .count(),
        1
    );
}

#[test]
fn flavours_have_names() {
    assert_eq!("datadog".parse(), Ok(Flavour::Datadog));
    let error = "gitlub".parse::<Flavour>().unwrap_err();
    assert_eq!(error.to_string(), "`gitlub` is not a JUnit flavour: gitlab, datadog, jenkins, buildkite");
}
