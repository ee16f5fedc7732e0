use proptest::prelude::*;

use super::*;

fn parse(framing: Framing, bytes: &[u8]) -> (Vec<Item>, Vec<String>) {
    let mut parser = Parser::new(framing);
    let mut items = Vec::new();
    parser.feed(bytes, &mut items);
    parser.finish(&mut items);
    let running = parser.running().into_iter().map(str::to_owned).collect();
    (items, running)
}

/// Everything but output, one line each.
fn story(items: &[Item]) -> Vec<String> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Started { test } => Some(format!("start {test}")),
            Item::Finished { test, result, elapsed } => {
                Some(format!("{result:?} {test} {}", elapsed.as_millis()))
            }
            Item::Malformed { message } => Some(format!("malformed {message}")),
            Item::Panicked { test, message } => Some(format!("panicked {test:?} {message}")),
            Item::PackageOk => Some("ok".to_owned()),
            Item::PackageFail => Some("fail".to_owned()),
            Item::Output { .. } | Item::Announced { .. } | Item::Paused { .. } | Item::Resumed { .. } => None,
        })
        .collect()
}

fn results(items: &[Item]) -> Vec<String> {
    let mut results: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::Finished { test, result, .. } => Some(format!("{result:?} {test}")),
            _ => None,
        })
        .collect();
    results.sort();
    results
}

fn output_of(items: &[Item], wanted: Option<&str>) -> String {
    let bytes: Vec<u8> = items
        .iter()
        .filter_map(|item| match item {
            Item::Output { test, bytes } if test.as_deref() == wanted => Some(bytes.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn waiting_is_told() {
    let bytes = b"\x16=== RUN   TestA\n\x16=== PAUSE TestA\n\x16=== RUN   TestB\n\x16--- PASS: TestB (0.00s)\n\x16=== CONT  TestA\n";
    let (items, running) = parse(Framing::Test2json, bytes);
    let of = |wanted: fn(&Item) -> bool| items.iter().position(wanted);
    let paused = of(|item| matches!(item, Item::Paused { test } if test == "TestA"));
    let resumed = of(|item| matches!(item, Item::Resumed { test } if test == "TestA"));
    assert!(paused.is_some() && paused < resumed, "{items:?}");
    assert_eq!(running, ["TestA"]);
}

const PLAIN_119: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.19-plain.txt");
const FRAMED_127: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.27-test2json.txt");
const PANIC_119: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.19-plain-panic.txt");
const PANIC_127: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.27-test2json-panic.txt");
const TIMEOUT_127: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.27-test2json-timeout.txt");
const EXIT_127: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.27-test2json-exit.txt");

#[test]
fn both_languages_tell_the_same_results_of_the_same_suite() {
    let (old, old_running) = parse(Framing::Plain, PLAIN_119);
    let (new, new_running) = parse(Framing::Test2json, FRAMED_127);
    assert_eq!(results(&old), results(&new));
    assert_eq!(results(&old).len(), 24, "{:#?}", results(&old));
    assert!(old_running.is_empty(), "{old_running:?}");
    assert!(new_running.is_empty(), "{new_running:?}");
    assert_eq!(old.last(), Some(&Item::PackageFail));
    assert_eq!(new.last(), Some(&Item::PackageFail));
}

#[test]
fn output_goes_to_the_test_that_wrote_it() {
    for (framing, bytes) in [(Framing::Plain, PLAIN_119), (Framing::Test2json, FRAMED_127)] {
        let (items, _) = parse(framing, bytes);
        let of = |test| output_of(&items, Some(test));
        assert_eq!(
            of("TestFail"),
            "    m_test.go:11: bad\n        worse\n    m_test.go:11: again\n",
            "{framing:?}"
        );
        assert_eq!(of("TestSubs/a/deep"), "    m_test.go:16: deep log\n");
        assert_eq!(of("TestSubs"), "    m_test.go:21: parent log after\n");
        assert_eq!(of("TestPar/p2"), "    m_test.go:43: p2 0\n    m_test.go:43: p2 1\n");
        assert!(of("TestLookalike").contains("=== RUN   TestGhost\n"), "{framing:?}");
        assert!(of("TestLookalike").contains("\u{16}=== RUN   TestGhost3\n"), "{framing:?}");
        assert!(of("TestNoNewline").contains("no newline here"));
    }
}

#[test]
fn panics_timeouts_and_exits_are_told_apart() {
    for (framing, bytes) in [(Framing::Plain, PANIC_119), (Framing::Test2json, PANIC_127)] {
        let (items, running) = parse(framing, bytes);
        let story = story(&items);
        assert!(story.iter().any(|line| line.contains("panic: boom")), "{story:#?}");
        assert!(story.iter().any(|line| line == "Fail TestZPanic/boom 0"), "{story:#?}");
        assert!(running.is_empty());
        assert!(!items.contains(&Item::PackageFail));
    }
    let (items, running) = parse(Framing::Test2json, TIMEOUT_127);
    assert!(
        story(&items).contains(&"panicked Some(\"TestZHang\") panic: test timed out after 1s".to_owned())
    );
    assert_eq!(running, ["TestZHang"]);
    let (items, running) = parse(Framing::Test2json, EXIT_127);
    assert!(
        !items.iter().any(|item| matches!(item, Item::PackageOk | Item::PackageFail | Item::Panicked { .. }))
    );
    assert_eq!(running, ["TestZExit"]);
}

#[test]
fn forged_and_unterminated_lines_change_no_result() {
    const FORGE_119: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.19-plain-forge.txt");
    const FORGE_127: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.27-test2json-forge.txt");
    const OPEN_119: &[u8] = include_bytes!("../../../tests/fixtures/gotest/go1.19-plain-unterminated.txt");
    const OPEN_127: &[u8] =
        include_bytes!("../../../tests/fixtures/gotest/go1.27-test2json-unterminated.txt");
    for (old, new) in [(FORGE_119, FORGE_127), (OPEN_119, OPEN_127)] {
        let (old, old_running) = parse(Framing::Plain, old);
        let (new, new_running) = parse(Framing::Test2json, new);
        assert_eq!(results(&old), results(&new));
        assert!(results(&old).iter().all(|result| !result.starts_with("Fail")), "{:?}", results(&old));
        assert!(old_running.is_empty() && new_running.is_empty());
        assert_eq!((old.last(), new.last()), (Some(&Item::PackageOk), Some(&Item::PackageOk)));
    }
}

#[test]
fn a_panic_after_output_without_newline_is_seen_and_a_word_about_one_is_not() {
    let text = b"=== RUN   TestA\npanic: said the test\ntailpanic: boom\n\ngoroutine 1 [running]:\nmain()\n";
    let (items, _) = parse(Framing::Plain, text);
    assert_eq!(story(&items).len(), 2);
    let text = b"=== RUN   TestA\npanic: said the test\n--- PASS: TestA (0.00s)\nPASS\n";
    let (items, _) = parse(Framing::Plain, text);
    assert_eq!(story(&items), ["start TestA", "Pass TestA 0", "ok"]);
}

#[test]
fn a_child_of_the_same_binary_does_not_end_its_parents_test() {
    for mark in ["", "\u{16}"] {
        let framing = if mark.is_empty() { Framing::Plain } else { Framing::Test2json };
        let text = format!(
            "{mark}=== RUN   TestA\n{mark}=== RUN   TestA\n{mark}--- PASS: TestA (0.10s)\n{mark}PASS\n\
             {mark}=== RUN   TestB\n{mark}--- PASS: TestB (0.00s)\n{mark}PASS\n\
             {mark}--- FAIL: TestA (0.20s)\n{mark}FAIL\n"
        );
        let (items, running) = parse(framing, text.as_bytes());
        assert_eq!(results(&items), ["Fail TestA"], "{framing:?}");
        assert_eq!(items.last(), Some(&Item::PackageFail));
        assert!(running.is_empty());
    }
}

#[test]
fn a_test_that_prints_its_own_start_still_ends() {
    let text = b"=== RUN   TestA\n=== RUN   TestA\n--- FAIL: TestA (0.20s)\nFAIL\n";
    let (items, running) = parse(Framing::Plain, text);
    assert_eq!(results(&items), ["Fail TestA"]);
    assert!(running.is_empty());
}

#[test]
fn runs_repeat_with_count() {
    let once = "=== RUN   TestA\n=== PAUSE TestA\n=== CONT  TestA\n--- PASS: TestA (0.00s)\n";
    let (items, running) = parse(Framing::Plain, format!("{once}{once}PASS\n").as_bytes());
    assert_eq!(story(&items), ["start TestA", "Pass TestA 0", "start TestA", "Pass TestA 0", "ok"]);
    assert!(running.is_empty());
}

#[test]
fn benchmarks_start_and_never_end_and_are_left_out() {
    let text =
        b"\x16=== RUN   BenchmarkX\nBenchmarkX\nBenchmarkX-2 \t100\t 0.5 ns/op\n\x16=== NAME  \n\x16PASS\n";
    let (items, running) = parse(Framing::Test2json, text);
    assert_eq!(story(&items), ["ok"]);
    assert!(running.is_empty());
}

#[test]
fn a_line_of_megabytes_comes_in_pieces_and_hides_no_result() {
    let long = "x".repeat(5_000_000);
    for (framing, mark) in [(Framing::Plain, ""), (Framing::Test2json, "\u{16}")] {
        let text = format!("{mark}=== RUN   TestA\n{long}{mark}--- PASS: TestA (0.00s)\n{mark}PASS\n");
        let (items, _) = parse(framing, text.as_bytes());
        assert_eq!(story(&items), ["start TestA", "Pass TestA 0", "ok"]);
        assert_eq!(output_of(&items, Some("TestA")), long);
        let largest = items.iter().map(|item| match item {
            Item::Output { bytes, .. } => bytes.len(),
            _ => 0,
        });
        assert!(largest.max() <= Some(cutter::LONGEST));
    }
}

#[test]
fn a_machine_that_dies_loses_no_result_that_was_printed() {
    let (items, running) =
        parse(Framing::Plain, b"=== RUN   TestA\n--- PASS: TestA (0.00s)\n=== RUN   TestB\nhal");
    assert_eq!(story(&items), ["start TestA", "Pass TestA 0", "start TestB"]);
    assert_eq!(output_of(&items, Some("TestB")), "hal");
    assert_eq!(running, ["TestB"]);
    let (items, _) = parse(Framing::Plain, b"=== RUN   TestA\n--- PASS: TestA (0.00s)");
    assert_eq!(results(&items), ["Pass TestA"]);
    let (items, running) = parse(Framing::Plain, b"=== RUN   TestA\n--- PASS: TestA (0.0");
    assert!(results(&items).is_empty());
    assert_eq!(running, ["TestA"]);
}

#[test]
fn impossible_frames_are_output_and_counted_after_a_while() {
    let mut text = "=== RUN   TestA\n".to_owned();
    for _ in 0..200 {
        text.push_str("--- FAIL: TestZ (0.00s)\n");
    }
    text.push_str("--- PASS: TestA (0.00s)\nPASS\n");
    let (items, _) = parse(Framing::Plain, text.as_bytes());
    assert_eq!(results(&items), ["Pass TestA"]);
    let malformed: Vec<_> = story(&items).into_iter().filter(|line| line.starts_with("malformed")).collect();
    assert_eq!(malformed.len(), 51);
    assert_eq!(malformed[50], "malformed and 150 more lines of that kind");
}

#[test]
fn colours_stay_and_marks_go() {
    let text = b"\x16=== RUN   TestA\n\x1b[31mred\x1b[0m\n\x0f    a_test.go:1: bad \x1b\x0e\x0e\n\x16--- FAIL: TestA (0.00s)\n";
    let (items, _) = parse(Framing::Test2json, text);
    assert_eq!(output_of(&items, Some("TestA")), "\u{1b}[31mred\u{1b}[0m\n    a_test.go:1: bad \u{e}\n");
}

/// Text made of what framing is made of, so that collisions are likely.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"=== RUN   ",
        b"=== PAUSE ",
        b"=== CONT  ",
        b"=== NAME  ",
        b"--- PASS: ",
        b"--- FAIL: ",
        b"--- SKIP: ",
        b"TestA",
        b"TestA/b",
        b"TestA/b/c",
        b"TestB",
        b" (0.01s)",
        b"\n",
        b"\r\n",
        b"\n\x16",
        b"\x16",
        b"\x1b",
        b"\x0f",
        b"\x0e",
        b"    ",
        b"PASS\n",
        b"FAIL\n",
        b"panic: x\n",
        b"goroutine 1 [running]:\n",
        b"\xff\xfe",
        b"\xc3",
        b"x",
        b"=== RUN   TestA\n",
        b"--- PASS: TestA (0.00s)\n",
        b"    --- PASS: TestA/b (0.00s)\n",
    ];
    let word = prop_oneof![
        20 => proptest::sample::select(words).prop_map(<[u8]>::to_vec),
        2 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => (65_000usize..70_000).prop_map(|length| vec![b'y'; length]),
    ];
    proptest::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_cut_tells_the_same(bytes in stream(), cuts in proptest::collection::vec(1usize..5000, 1..40), plain in any::<bool>()) {
        let framing = if plain { Framing::Plain } else { Framing::Test2json };
        let whole = parse(framing, &bytes);
        let mut parser = Parser::new(framing);
        let mut items = Vec::new();
        let (mut rest, mut turn) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let at = (*turn.next().unwrap()).min(rest.len());
            parser.feed(&rest[..at], &mut items);
            rest = &rest[at..];
        }
        parser.finish(&mut items);
        prop_assert_eq!(items, whole.0);
    }

    #[test]
    fn every_end_has_its_start_and_no_byte_of_plain_output_is_made_up(bytes in stream()) {
        let (items, running) = parse(Framing::Plain, &bytes);
        let mut open = std::collections::HashSet::new();
        let mut from = 0;
        for item in &items {
            match item {
                Item::Started { test } => prop_assert!(open.insert(test.clone())),
                Item::Finished { test, .. } => prop_assert!(open.remove(test)),
                Item::Output { bytes: part, .. } => {
                    let found = bytes[from..].windows(part.len()).position(|window| window == &part[..]);
                    prop_assert!(found.is_some());
                    from += found.unwrap_or(0) + part.len();
                }
                _ => {}
            }
        }
        prop_assert_eq!(open.len(), running.len());
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..3000), plain in any::<bool>()) {
        parse(if plain { Framing::Plain } else { Framing::Test2json }, &bytes);
    }
}
