//! The screens: as snapshots, and by rules that hold for all of them.

use std::sync::{Arc, Mutex};

use super::*;
use crate::event::{BootPhase, Event, OutputRef, TestResult};
use crate::model::script::{PKG, Script, bookworm, runs};
use crate::redact::redact;

/// A stream that can be read back.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

struct Output;

impl OutputSource for Output {
    fn read(&self, _: &OutputRef) -> io::Result<Vec<u8>> {
        Ok(b"=== RUN   TestX\n    x_test.go:42: \x1b[31mgot 3\x1b[0m,\twant 4 \xff hunter22\n--- FAIL: TestX\x08\n".to_vec())
    }
}

fn told(script: &Script, style: Style, verbosity: Verbosity) -> String {
    let screen = Screen::default();
    let mut terminal = Terminal::new(Box::new(screen.clone()), style, verbosity)
        .with_output(Box::new(Output))
        .with_masks(Masks::new(["hunter22"]));
    let mut run = Run::new();
    for envelope in &script.log {
        run.fold(envelope);
        terminal.event(envelope, &run).unwrap();
    }
    terminal.finish(&run, &["kmt-run rerun".to_owned()]).unwrap();
    screen.text()
}

#[test]
fn screens() {
    for (name, script) in runs::all() {
        insta::assert_snapshot!(name, redact(&told(&script, Style::default(), Verbosity::Normal)));
    }
}

#[test]
fn more_and_less() {
    insta::assert_snapshot!("verbose", redact(&told(&runs::failing(), Style::default(), Verbosity::Verbose)));
    insta::assert_snapshot!("quiet", redact(&told(&runs::failing(), Style::default(), Verbosity::Quiet)));
    let ascii = Style { unicode: false, ..Style::default() };
    let text = told(&runs::failing(), ascii, Verbosity::Normal);
    assert!(text.is_ascii() || text.chars().all(|c| c.is_ascii() || c == '\u{fffd}'), "{text}");
}

#[test]
fn the_last_line_is_the_next_command() {
    for (name, script) in runs::all() {
        let text = told(&script, Style::default(), Verbosity::Normal);
        assert_eq!(text.lines().last(), Some("       next: kmt-run rerun"), "{name}");
        assert!(!text.contains("hunter22"), "{name}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{name}");
    }
}

#[test]
fn colour_is_the_only_difference_colour_makes() {
    for (name, script) in runs::all() {
        let color = Style { color: true, ..Style::default() };
        let coloured = told(&script, color, Verbosity::Verbose);
        assert!(coloured.contains("\x1b["));
        assert_eq!(
            crate::text::strip_ansi(&coloured),
            told(&script, Style::default(), Verbosity::Verbose),
            "{name}"
        );
    }
}

#[test]
fn hostile_names_are_shown_and_not_obeyed() {
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &["pkg/\x1b]0;x\x07"]).up(&cell);
    script.tests(&cell, "pkg/\x1b]0;x\x07", &[("Test\x1b[2J\n\u{202e}", TestResult::Fail)]).done();
    let text = told(&script, Style::default(), Verbosity::Verbose);
    assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'));
    assert!(text.contains("Test\\x1b[2J\\n\\u{202e}"), "{text}");
}

#[test]
fn many_rows_and_cells_stay_a_picture() {
    let mut script = Script::new();
    let cells: Vec<_> = (0..20)
        .map(|n| crate::event::CellId::local(format!("debian_{n}"), "6.1", crate::event::Arch::X86_64))
        .collect();
    script.plan(&cells, &[PKG]);
    let names: Vec<String> = (0..60).map(|n| format!("Test{n:02}/{}", "long_name_".repeat(12))).collect();
    let results: Vec<_> = names.iter().map(|name| (name.as_str(), TestResult::Fail)).collect();
    for cell in &cells {
        script.tests(cell, PKG, &results);
    }
    script.done();
    let run = script.run();
    let style = Style { width: 80, ..Style::default() };
    let picture = matrix::picture(&run.report(), &Paint::new(style), style);
    let widest = picture.lines().map(unicode_width::UnicodeWidthStr::width).max().unwrap();
    assert!(widest <= 80, "{widest}\n{picture}");
    assert!(picture.contains("and 20 more rows"));
}

#[test]
fn a_board_shows_machines_and_leaves_nothing() {
    let screen = indicatif::InMemoryTerm::new(20, 100);
    let style = Style::default();
    let target = indicatif::ProgressDrawTarget::term_like(Box::new(screen.clone()));
    let board = LiveBoard::new(target, style);
    let lines = Screen::default();
    let mut terminal = Terminal::new(Box::new(lines.clone()), style, Verbosity::Normal).with_board(board);
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[PKG]);
    script.push(Event::MachineDefined { machine: "m1".into(), cell: cell.clone() });
    script.push(Event::MachinePhase { machine: "m1".into(), phase: BootPhase::Kernel });
    script.push(Event::Progress { subject: "image debian_12".into(), done: 50, total: Some(100) });
    for step in ["building", "download"] {
        script.push(Event::Progress { subject: format!("image kernel-1: {step}"), done: 0, total: None });
    }
    let mut run = Run::new();
    let mut feed = |terminal: &mut Terminal, script: &Script, from: usize| {
        for envelope in &script.log[from..] {
            run.fold(envelope);
            terminal.event(envelope, &run).unwrap();
        }
        script.log.len()
    };
    let seen = feed(&mut terminal, &script, 0);
    // The board draws on its own threads.
    let shown = |text: &str| {
        ["debian_12/6.1/x86_64 boot: kernel", "image debian_12", "50%", "0 of 1 package run: 0 passed"]
            .iter()
            .all(|part| text.contains(part))
            && text.contains("image kernel-1 download")
            && !text.contains("building")
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !shown(&screen.contents()) {
        assert!(std::time::Instant::now() < deadline, "{}", screen.contents());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    script.green(&cell, PKG, &["TestDNS"]).done();
    feed(&mut terminal, &script, seen);
    assert_eq!(screen.contents(), "");
    assert!(lines.text().contains("PASS"));
}

#[test]
fn what_goes_on_is_told_while_it_does() {
    let screen = Screen::default();
    let mut terminal = Terminal::new(Box::new(screen.clone()), Style::default(), Verbosity::Quiet)
        .with_masks(Masks::new(["hunter22"]));
    let mut script = Script::new();
    let cell = bookworm();
    script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["TestSuite"]);
    script.start(&cell, PKG, "TestSuite").start(&cell, PKG, "TestSuite/slow");
    let run = script.run();
    let tail = |_: &crate::event::CellId, _: &str, _: u32| "1\n2\n3\n\n\x1b[31m4 hunter22\n5\n6\n".to_owned();
    let at = run.elapsed_ms + 2_500;
    terminal.now(&run, at, Ask::Brief, &tail).unwrap();
    let brief = screen.text();
    assert!(brief.contains("0 package runs ended, 1 running"), "{brief}");
    assert!(brief.contains("TestSuite/slow") && !brief.contains("TestSuite,"), "{brief}");
    terminal.now(&run, at, Ask::Tests, &tail).unwrap();
    let told = screen.text();
    assert!(
        told.contains("                          2\n") && !told.contains("                          1\n"),
        "{told}"
    );
    assert!(!told.contains("hunter22") && !told.contains('\x1b'), "{told}");
}
