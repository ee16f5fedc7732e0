//! Every row of the rule table, and what holds for any sequence of events.

use super::script::{EBPF, PKG, Script, bookworm, bullseye_arm, runs, trixie};
use super::*;
use crate::event::LossEvidence::{Panic, QemuGone, Silent};
use crate::event::TestResult::{self, *};
use crate::event::{Event, ShardEnd};

/// `cell package test result`, one a line.
fn verdicts(script: &Script) -> Vec<String> {
    let run = script.run();
    let report = run.report();
    report
        .tests()
        .map(|(cell, package, test)| {
            let platform = &cell.cell.id.platform;
            format!("{platform} {} {} {}", package.name, test.name, result_name(test.result))
        })
        .collect()
}

/// Results in one cell and package, as `name result`.
fn in_package(script: &Script) -> Vec<(String, TestResult)> {
    let run = script.run();
    let report = run.report();
    report.tests().map(|(_, _, test)| (test.name.to_owned(), test.result)).collect()
}

fn one(end: ShardEnd, status: Option<i32>) -> Script {
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["A", "B", "C"]);
    script.tests(&cell, PKG, &[("A", Pass)]).start(&cell, PKG, "B").start(&cell, PKG, "B/x");
    script.end(&cell, PKG, end, status).done();
    script
}

fn expect(script: &Script, results: &[(&str, TestResult)], outcome: Outcome) {
    let expected: Vec<_> = results.iter().map(|(name, result)| ((*name).to_owned(), *result)).collect();
    assert_eq!(in_package(script), expected);
    assert_eq!(script.run().outcome(), outcome);
}

#[test]
fn a_running_test_shares_the_end_of_its_binary() {
    let rows = [
        (ShardEnd::Exited, Some(0), Unfinished, Missing, Outcome::TestsFailed),
        (ShardEnd::Exited, Some(3), Crashed, Missing, Outcome::TestsFailed),
        (ShardEnd::Exited, None, Crashed, Missing, Outcome::TestsFailed),
        (ShardEnd::Signalled, Some(11), Crashed, Missing, Outcome::TestsFailed),
        (ShardEnd::TimedOut, None, TimedOut, Missing, Outcome::TestsFailed),
        (ShardEnd::MachineLost, None, Lost, Lost, Outcome::CellsFailed),
        (ShardEnd::NotStarted, None, NotRun, NotRun, Outcome::CellsFailed),
    ];
    for (end, status, running, never, outcome) in rows {
        expect(&one(end, status), &[("A", Pass), ("B", running), ("B/x", running), ("C", never)], outcome);
    }
}

#[test]
fn a_lost_machine_tells_by_its_evidence() {
    for (seen, running, never, outcome) in [
        (Panic, Crashed, Missing, Outcome::TestsFailed),
        (QemuGone, Lost, Lost, Outcome::CellsFailed),
        (Silent, Lost, Lost, Outcome::CellsFailed),
    ] {
        let script = runs::lost(seen);
        let lines = verdicts(&script);
        let name = |result| result_name(result);
        assert_eq!(
            lines[..5],
            [
                format!("debian_12 {EBPF}  {}", name(never)),
                format!("debian_12 {PKG} TestDNS pass"),
                format!("debian_12 {PKG} TestTCP {}", name(running)),
                format!("debian_12 {PKG} TestTCP/v4 {}", name(running)),
                format!("debian_12 {PKG} TestUDP {}", name(never)),
            ]
        );
        assert_eq!(script.run().outcome(), outcome);
        // The same when the log was cut before the shard's end.
        let mut cut = script.clone();
        cut.log.truncate(cut.log.len() - 2);
        assert_eq!(verdicts(&cut), lines);
    }
}

#[test]
fn a_package_that_nothing_explains_has_an_entry() {
    let rows = [
        (ShardEnd::Exited, Some(0), None),
        (ShardEnd::Exited, Some(1), Some(Fail)),
        (ShardEnd::Signalled, Some(9), Some(Crashed)),
        (ShardEnd::TimedOut, None, Some(TimedOut)),
        (ShardEnd::MachineLost, None, Some(Lost)),
        (ShardEnd::NotStarted, None, Some(NotRun)),
    ];
    for (end, status, entry) in rows {
        let mut script = Script::new();
        let cell = bookworm();
        script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["A"]);
        script.tests(&cell, PKG, &[("A", Pass)]).end(&cell, PKG, end, status).done();
        let expected: Vec<_> =
            entry.map(|result| (String::new(), result)).into_iter().chain([("A".to_owned(), Pass)]).collect();
        assert_eq!(in_package(&script), expected, "{end:?}");
    }
    // A failing test explains status 1, but no deadline.
    for (end, results) in
        [(ShardEnd::Exited, vec![("A", Fail)]), (ShardEnd::TimedOut, vec![("", TimedOut), ("A", Fail)])]
    {
        let mut script = Script::new();
        let cell = bookworm();
        script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["A"]);
        script.tests(&cell, PKG, &[("A", Fail)]).end(&cell, PKG, end, Some(1)).done();
        expect(&script, &results, Outcome::TestsFailed);
    }
}

#[test]
fn a_package_without_tests_is_fine_and_a_run_without_any_is_not() {
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[EBPF, PKG]).up(&cell).green(&cell, EBPF, &[]);
    let mut with_another = script.clone();
    with_another.green(&cell, PKG, &["A"]).done();
    expect(&with_another, &[("A", Pass)], Outcome::Passed);
    assert_eq!(with_another.run().report().cells[0].packages[0].note, Some("no tests"));
    script.green(&cell, PKG, &[]).done();
    expect(&script, &[], Outcome::NothingSelected);
    expect(Script::new().done(), &[], Outcome::NothingSelected);
    assert_eq!(Run::new().exit_code(), 4);
}

#[test]
fn cells_that_never_ran_are_not_run() {
    let script = runs::boot_failure();
    assert_eq!(
        verdicts(&script),
        [
            format!("debian_12 {EBPF} TestMap pass"),
            format!("debian_12 {PKG} TestDNS pass"),
            format!("debian_11 {EBPF}  not-run"),
            format!("debian_11 {PKG}  not-run"),
        ]
    );
    assert_eq!(script.run().exit_code(), 102);
    let run = script.run();
    let report = run.report();
    let trouble = report.cells[1].trouble.as_ref().unwrap();
    assert_eq!((trouble.stage, trouble.excerpt.len()), ("boot", 2));

    expect(&runs::build_failure(), &[("", NotRun)], Outcome::BuildFailed);
    assert_eq!(runs::build_failure().run().exit_code(), 101);

    let mut ship = Script::new();
    ship.plan(&[bookworm()], &[PKG]);
    ship.push(Event::ShipFailed { machine: "m".into(), cell: bookworm(), message: "no space".into() }).done();
    expect(&ship, &[("", NotRun)], Outcome::CellsFailed);
}

#[test]
fn failures_that_were_made_good_do_not_count() {
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[PKG]);
    script.push(Event::BootFailed {
        machine: "m1".into(),
        cell: cell.clone(),
        phase: None,
        message: "QEMU refused".into(),
        excerpt: vec![],
        duration_ms: 1,
        idle_ms: None,
    });
    script.up(&cell).begin(&cell, PKG, &["A", "B"]).start(&cell, PKG, "A").lost(&cell, QemuGone);
    script.end(&cell, PKG, ShardEnd::MachineLost, None);
    script.push(Event::ShardRequeued {
        cell: cell.clone(),
        package: PKG.into(),
        reason: "machine lost".into(),
        attempt: 1,
    });
    script.begin_attempt(&cell, PKG, 2, &["A", "B"]);
    for test in ["A", "B"] {
        script.start_attempt(&cell, PKG, 2, test).finish_attempt(&cell, PKG, 2, test, Pass);
    }
    script.end_attempt(&cell, PKG, 2, ShardEnd::Exited, Some(0)).done();
    expect(&script, &[("A", Pass), ("B", Pass)], Outcome::Passed);
    let run = script.run();
    assert_eq!(run.report().cells[0].packages[0].odd[0].earlier[0].result, Lost);
}

#[test]
fn the_last_attempt_decides_and_remembers() {
    let script = runs::flaky();
    expect(&script, &[("TestDNS", Pass), ("TestTCP", Flaky)], Outcome::Passed);
    // A panic on the first attempt, a pass on a fresh machine.
    let mut script = Script::new();
    let cell = bookworm();
    script
        .plan(std::slice::from_ref(&cell), &[PKG])
        .up(&cell)
        .begin(&cell, PKG, &["A"])
        .start(&cell, PKG, "A");
    script.lost(&cell, Panic).end(&cell, PKG, ShardEnd::MachineLost, None).begin_attempt(
        &cell,
        PKG,
        2,
        &["A"],
    );
    script.start_attempt(&cell, PKG, 2, "A").finish_attempt(&cell, PKG, 2, "A", Pass);
    script.end_attempt(&cell, PKG, 2, ShardEnd::Exited, Some(0)).done();
    expect(&script, &[("A", Flaky)], Outcome::Passed);
}

#[test]
fn repetitions_within_an_attempt_are_the_worst_of_them() {
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["A"]);
    script.tests(&cell, PKG, &[("A", Pass), ("A", Fail), ("A", Pass)]);
    script.end(&cell, PKG, ShardEnd::Exited, Some(1)).done();
    expect(&script, &[("A", Fail)], Outcome::TestsFailed);
}

#[test]
fn an_open_parent_shares_the_fate_of_its_subtest() {
    let mut script = Script::new();
    let cell = bookworm();
    script
        .plan(std::slice::from_ref(&cell), &[PKG])
        .up(&cell)
        .begin(&cell, PKG, &["A"])
        .start(&cell, PKG, "A");
    script.start(&cell, PKG, "A/x").finish(&cell, PKG, "A/x", Crashed);
    script.end(&cell, PKG, ShardEnd::Exited, Some(0)).done();
    expect(&script, &[("A", Crashed), ("A/x", Crashed)], Outcome::TestsFailed);
    let run = script.run();
    let report = run.report();
    let tests: Vec<_> = report.cells[0].packages[0].tests().collect();
    assert!(tests[0].blames_subtest && !tests[1].blames_subtest);
    assert_eq!((tests[0].subtests, tests[1].subtests), (1, 0));
}

#[test]
fn a_kernel_complaint_is_never_green() {
    let mut script = Script::new();
    let cell = bookworm();
    let splat = |test: Option<&str>| Event::SplatSeen {
        machine: bookworm().slug(),
        cell: bookworm(),
        signature: "WARNING: kernel/bpf/verifier.c".into(),
        excerpt: vec!["[ 1.0] WARNING".into()],
        test_running: test.map(str::to_owned),
    };
    script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["A", "B"]);
    let mut outside = script.clone();
    script.start(&cell, PKG, "A").push(splat(Some("A"))).finish(&cell, PKG, "A", Pass);
    script.tests(&cell, PKG, &[("B", Pass)]).end(&cell, PKG, ShardEnd::Exited, Some(0)).done();
    expect(&script, &[("A", Crashed), ("B", Pass)], Outcome::TestsFailed);
    outside.tests(&cell, PKG, &[("A", Pass), ("B", Pass)]).end(&cell, PKG, ShardEnd::Exited, Some(0));
    outside.push(splat(None)).done();
    expect(&outside, &[("A", Pass), ("B", Pass)], Outcome::TestsFailed);
    assert!(!outside.run().cells[0].splats[0].attributed);
}

#[test]
fn a_cancelled_run_is_interrupted_and_nothing_of_it_green() {
    let script = runs::cancelled();
    assert_eq!(
        verdicts(&script),
        [
            format!("debian_12 {EBPF}  not-run"),
            format!("debian_12 {PKG} TestDNS pass"),
            format!("debian_12 {PKG} TestTCP not-run"),
            format!("debian_12 {PKG} TestUDP not-run"),
            format!("debian_13 {EBPF}  not-run"),
            format!("debian_13 {PKG}  not-run"),
        ]
    );
    assert_eq!(script.run().exit_code(), 130);
    let mut killed = script.clone();
    killed.log.truncate(killed.log.len() - 2);
    assert_eq!(verdicts(&killed), verdicts(&script));
    assert_eq!(killed.run().exit_code(), 130);
}

#[test]
fn what_fail_fast_left_out_does_not_outrank_the_failure() {
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["A", "B", "C"]);
    script.tests(&cell, PKG, &[("A", Fail)]).start(&cell, PKG, "B");
    script.end(&cell, PKG, ShardEnd::Cancelled, None).done();
    expect(&script, &[("A", Fail), ("B", NotRun), ("C", NotRun)], Outcome::TestsFailed);
}

#[test]
fn a_rule_of_the_run_leaves_not_run_behind_and_no_success() {
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[EBPF, PKG]).up(&cell).begin(&cell, PKG, &["A", "B", "C"]);
    script.tests(&cell, PKG, &[("A", Pass)]).start(&cell, PKG, "B");
    script.push(Event::RunHalted { reason: "its time is over".into() });
    script.end(&cell, PKG, ShardEnd::TimedOut, None).done();
    let results = [("", NotRun), ("A", Pass), ("B", TimedOut), ("C", NotRun)];
    expect(&script, &results, Outcome::TestsFailed);
}

#[test]
fn a_flaky_test_fails_a_run_that_says_so() {
    let mut script = runs::flaky();
    script.push(Event::RulesGiven { flaky_fails: true, known_flaky_fails: false });
    assert_eq!(script.run().outcome(), Outcome::TestsFailed);
}

#[test]
fn what_is_known_to_be_flaky_is_counted_apart() {
    let mut script = runs::known_flaky();
    let results = [("TestSuite", Fail), ("TestSuite/dns", Fail), ("TestTCP", Fail)];
    expect(&script, &results, Outcome::Passed);
    let run = script.run();
    let report = run.report();
    assert_eq!((report.counts.tests(Fail), report.counts.known_failures()), (3, 3));
    let owners: Vec<_> = report.tests().map(|(_, _, test)| test.owners.join(" ")).collect();
    assert_eq!(owners, ["@net", "@net", "@tcp @net"]);
    // A run may say otherwise.
    script.push(Event::RulesGiven { flaky_fails: false, known_flaky_fails: true });
    assert_eq!(script.run().outcome(), Outcome::TestsFailed);
}

#[test]
fn a_parent_is_known_only_by_all_that_failed_below_it() {
    let mut script = runs::known_flaky();
    let cell = bookworm();
    script.tests(&cell, PKG, &[("TestSuite/usm", Fail)]);
    let run = script.run();
    let known: Vec<_> = run
        .report()
        .tests()
        .filter(|(_, _, test)| test.known_flaky)
        .map(|(_, _, test)| test.name.to_owned())
        .collect();
    assert_eq!(known, ["TestSuite/dns", "TestTCP"]);
    assert_eq!(run.outcome(), Outcome::TestsFailed);
}

#[test]
fn a_crash_is_no_flake() {
    let mut script = runs::known_flaky();
    let cell = bookworm();
    script.start(&cell, PKG, "TestSuite/dns/deep").finish(&cell, PKG, "TestSuite/dns/deep", Crashed);
    assert_eq!(script.run().outcome(), Outcome::TestsFailed);
}

#[test]
fn parts_of_a_package_do_not_hide_each_other() {
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["A", "B"]);
    script.begin_attempt(&cell, PKG, 2, &["A", "B"]);
    script.start_attempt(&cell, PKG, 2, "B").start_attempt(&cell, PKG, 1, "A");
    script.finish_attempt(&cell, PKG, 1, "A", Pass).finish_attempt(&cell, PKG, 2, "B", Pass);
    script.end_attempt(&cell, PKG, 1, ShardEnd::Exited, Some(3));
    script.end_attempt(&cell, PKG, 2, ShardEnd::Exited, Some(0)).done();
    expect(&script, &[("", Fail), ("A", Pass), ("B", Pass)], Outcome::TestsFailed);
    // Once its work went on elsewhere it has no say.
    script.push(Event::ShardRequeued {
        cell: cell.clone(),
        package: PKG.into(),
        reason: "again".into(),
        attempt: 1,
    });
    expect(&script, &[("A", Pass), ("B", Pass)], Outcome::Passed);
}

#[test]
fn what_was_planned_and_never_started_is_missing() {
    let mut script = Script::new();
    script.plan(&[bookworm()], &[EBPF, PKG]).up(&bookworm()).green(&bookworm(), EBPF, &["A"]);
    expect(&script, &[("A", Pass), ("", Missing)], Outcome::TestsFailed);
    script.done();
    expect(&script, &[("A", Pass), ("", Missing)], Outcome::TestsFailed);
}

#[test]
fn a_selected_cell_without_a_plan_never_ran() {
    let mut script = Script::new();
    script.plan(&[bookworm()], &[PKG]).plan(&[trixie()], &[]).up(&bookworm());
    script.green(&bookworm(), PKG, &["A"]).done();
    expect(&script, &[("A", Pass)], Outcome::CellsFailed);
}

#[test]
fn ranks_and_the_mapped_code() {
    assert!(Outcome::Interrupted > Outcome::BuildFailed);
    assert!(Outcome::BuildFailed > Outcome::CellsFailed);
    assert!(Outcome::CellsFailed > Outcome::TestsFailed);
    assert_eq!(Outcome::TestsFailed.exit_code(42), 42);
    assert_eq!(Outcome::CellsFailed.exit_code(42), 102);
    let mut mixed = runs::failing();
    mixed.log.pop();
    mixed.plan(&[bullseye_arm()], &[PKG]).boot_failed(&bullseye_arm()).done();
    assert_eq!(mixed.run().exit_code(), 102);
}

#[test]
fn time_inside_tests_is_a_union() {
    assert_eq!(union_ms(vec![(0, 10), (5, 15), (20, 30), (22, 25)]), 25);
    assert_eq!(union_ms(vec![]), 0);
}

#[test]
fn a_log_of_text_folds_as_its_events_do() {
    for (name, script) in runs::all() {
        let mut text = Vec::new();
        let mut writer = crate::event::LogWriter::new(&mut text);
        script.log.iter().for_each(|envelope| writer.append(envelope).unwrap());
        let run = Run::from_log(text.as_slice()).unwrap();
        assert_eq!(run.cells, script.run().cells, "{name}");
    }
}
