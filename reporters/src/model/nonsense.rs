//! What holds for any sequence of events, however little sense it makes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::script::{EBPF, PKG, Script, bookworm, trixie};
use super::*;
use crate::event::{BootPhase, Event, LossEvidence, OutputRef, PlannedShard, ShardEnd, TestResult};
use crate::junit::{self, Flavour};
use crate::mask::Masks;
use crate::output::NoOutput;

fn cell() -> impl Strategy<Value = CellId> {
    prop_oneof![Just(bookworm()), Just(trixie())]
}

fn package() -> impl Strategy<Value = String> {
    prop_oneof![Just(PKG.to_owned()), Just(EBPF.to_owned())]
}

fn name() -> impl Strategy<Value = String> {
    let usual = prop::sample::select(vec![
        "A",
        "A/x",
        "A/x/y",
        "A/z",
        "B",
        "B/é",
        "C",
        "",
        "C\x1b[1m\0&<\"'\n]]>",
        "/",
        "A/",
    ]);
    prop_oneof![9 => usual.prop_map(str::to_owned), 1 => any::<String>()]
}

fn machine() -> impl Strategy<Value = String> {
    prop_oneof![Just(bookworm().slug()), Just(trixie().slug()), Just("m".to_owned())]
}

fn end() -> impl Strategy<Value = ShardEnd> {
    use ShardEnd::{Cancelled, Exited, MachineLost, NotStarted, Signalled, TimedOut};
    prop::sample::select(vec![Exited, Signalled, TimedOut, MachineLost, Cancelled, NotStarted])
}

fn output() -> impl Strategy<Value = Option<OutputRef>> {
    let any =
        (0..3_u64, any::<u64>()).prop_map(|(n, length)| OutputRef { file: "o".into(), offset: n, length });
    prop::option::of(any)
}

fn of_tests() -> impl Strategy<Value = Event> {
    prop_oneof![
        (cell(), package(), name(), 0..3_u32).prop_map(|(cell, package, test, attempt)| Event::TestStarted {
            cell,
            package,
            test,
            attempt
        }),
        (cell(), package(), name(), 0..3_u32, prop::sample::select(RESULTS.to_vec()), output()).prop_map(
            |(cell, package, test, attempt, result, output)| Event::TestFinished {
                cell,
                package,
                test,
                attempt,
                result,
                duration_ms: u64::MAX / 2,
                output,
                message: None
            }
        ),
        (cell(), package(), machine(), 0..3_u32).prop_map(|(cell, package, machine, attempt)| {
            Event::ShardStarted { cell, package, machine, attempt }
        }),
        (cell(), package(), prop::collection::vec(name(), 0..4))
            .prop_map(|(cell, package, tests)| Event::TestsListed { cell, package, tests }),
        (cell(), package(), 0..3_u32, end(), prop::option::of(0..3_i32), output()).prop_map(
            |(cell, package, attempt, end, status, output)| Event::ShardFinished {
                cell,
                package,
                attempt,
                end,
                status,
                duration_ms: 5,
                leaked: true,
                output
            }
        ),
    ]
}

fn of_machines() -> impl Strategy<Value = Event> {
    let seen = prop::sample::select(vec![LossEvidence::Panic, LossEvidence::QemuGone, LossEvidence::Silent]);
    let lines = || prop::collection::vec(any::<String>(), 0..3);
    prop_oneof![
        cell().prop_map(|cell| Event::CellSelected { cell, distro: "d".into(), distro_version: "1".into() }),
        cell().prop_map(|cell| Event::CellSkipped { cell, reason: "r".into() }),
        cell().prop_map(|cell| Event::CellFailed { cell, stage: "host".into(), message: String::new() }),
        prop::collection::vec((cell(), package()), 0..4).prop_map(|shards| Event::PlanMade {
            shards: shards.into_iter().map(|(cell, package)| PlannedShard { cell, package }).collect()
        }),
        (cell(), machine(), seen, lines()).prop_map(|(cell, machine, seen, excerpt)| Event::MachineLost {
            machine,
            cell,
            seen,
            excerpt
        }),
        (cell(), machine(), lines()).prop_map(|(cell, machine, excerpt)| Event::BootFailed {
            machine,
            cell,
            phase: Some(BootPhase::Init),
            message: "m".into(),
            excerpt,
            duration_ms: 1,
            idle_ms: None,
        }),
        (cell(), machine(), prop::option::of(name())).prop_map(|(cell, machine, test_running)| {
            Event::SplatSeen { machine, cell, signature: "BUG".into(), excerpt: vec![], test_running }
        }),
    ]
}

fn of_runs() -> impl Strategy<Value = Event> {
    prop_oneof![
        (cell(), machine()).prop_map(|(cell, machine)| Event::ShipFailed {
            machine,
            cell,
            message: "m".into()
        }),
        Just(Event::BuildFailed { arch: Arch::X86_64, subject: "s".into(), message: "m".into() }),
        Just(Event::CancelRequested { by: "SIGINT".into() }),
        prop::sample::select(vec![RunEnd::Completed, RunEnd::Cancelled])
            .prop_map(|why| Event::RunFinished { why }),
        Just(Event::Unknown),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let event = prop_oneof![8 => of_tests(), 2 => of_machines(), 1 => of_runs()];
    prop::collection::vec(event, 0..40).prop_map(|events| {
        let mut script = Script::new();
        events.into_iter().for_each(|event| _ = script.push(event));
        script
    })
}

/// More cases on request: `KMT_CASES=10000 cargo test --release -p kmt-reporters nonsense`.
fn config() -> ProptestConfig {
    let asked = std::env::var("KMT_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(128), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_test_has_one_result_and_counts_add_up(script in script()) {
        let run = script.run();
        let report = run.report();
        let mut seen = BTreeSet::new();
        for (cell, package, test) in report.tests() {
            prop_assert!(seen.insert((cell.cell.id.clone(), package.name, test.name)), "{} twice", test.name);
        }
        for cell in &run.cells {
            for (path, package) in &cell.packages {
                for test in package.listed.iter().flatten().map(String::as_str).chain(package.tests.iter().map(|(test, _)| test)) {
                    prop_assert!(seen.contains(&(cell.id.clone(), path.as_str(), test)), "{test} has none");
                }
            }
        }
        prop_assert_eq!(report.counts.total(), seen.len() as u64);
        let sum: u64 = RESULTS.iter().map(|result| report.counts.of(*result)).sum();
        prop_assert_eq!(sum, report.counts.total());
        // Nothing is green by absence.
        if report.outcome() == Outcome::Passed {
            prop_assert!(report.counts.bad() == 0 && report.counts.total() > 0);
        }
        for (_, _, test) in report.tests() {
            if test.attempt == 0 && test.earlier.is_empty() {
                let said = [TestResult::Pass, TestResult::Skip, TestResult::Flaky].contains(&test.result);
                prop_assert!(!said || report.run.cells.iter().any(|cell| cell.started()));
            }
        }
    }

    #[test]
    fn nothing_depends_on_when_passed_tests_are_put_away(script in script()) {
        let (mut early, mut late) = (Run::new(), Run::new());
        for envelope in &script.log {
            early.fold(envelope);
            late.fold(envelope);
            let packages = early.cells.iter_mut().flat_map(|cell| cell.packages.values_mut());
            packages.for_each(|package| package.tests.press());
            let packages = late.cells.iter_mut().flat_map(|cell| cell.packages.values_mut());
            packages.for_each(|package| package.tests.unpress());
        }
        let told = |run: &Run| {
            let tests = run.report().tests().map(|(_, _, test)| format!("{test:?}")).collect::<Vec<_>>();
            (tests, run.report().counts, run.outcome(), crate::json::text(run, &Masks::default()).unwrap())
        };
        prop_assert_eq!(told(&early), told(&late));
        for flavour in Flavour::ALL {
            let texts = |run| junit::texts(run, flavour, &NoOutput, &Masks::default()).unwrap();
            prop_assert_eq!(texts(&early), texts(&late));
        }
    }

    #[test]
    fn every_report_can_be_told(script in script()) {
        let run = script.run();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("junit.xml");
        for flavour in Flavour::ALL {
            junit::write(&run, flavour, &NoOutput, &Masks::default(), &path).unwrap();
            let cases = junit::tests::parse(&std::fs::read_to_string(&path).unwrap());
            let tests = cases.iter().filter(|case| !case.class.ends_with("kmt")).count() as u64;
            prop_assert_eq!(tests, run.report().counts.total());
        }
        crate::json::text(&run, &Masks::default()).unwrap();
        let mut terminal = crate::terminal::Terminal::new(
            Box::new(std::io::sink()),
            crate::terminal::Style::default(),
            crate::terminal::Verbosity::Verbose,
        );
        let mut run = Run::new();
        for envelope in &script.log {
            run.fold(envelope);
            terminal.event(envelope, &run).unwrap();
        }
        terminal.finish(&run, &[]).unwrap();
    }

    #[test]
    fn a_log_that_is_cut_anywhere_is_never_green_where_the_whole_is_not_done(cut in 0..30_usize) {
        let mut script = super::script::runs::green();
        let whole = script.log.len();
        let keep = whole - 2 - cut.min(whole - 2);
        script.log.truncate(keep);
        prop_assert!(script.run().outcome() != Outcome::Passed);
    }
}
