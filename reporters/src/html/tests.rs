//! The page as text: whole, closed, within its bounds.

use std::io;

use super::*;
use crate::event::{Arch, OutputRef, TestResult};
use crate::junit::tests::Fixed;
use crate::model::script::{PKG, Script, runs};

fn page(run: &Run, output: &dyn OutputSource) -> String {
    let masks = Masks::new(["hunter22"]);
    let spelling = |cell: &CellId| Some(format!("{}-local-distro", cell.platform));
    text(run, &Sources { output, masks: &masks, spelling: &spelling }).unwrap()
}

fn data(page: &str) -> serde_json::Value {
    let from = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
    let to = from + page[from..].find("</script>").unwrap();
    serde_json::from_str(&page[from..to]).unwrap()
}

#[test]
fn every_result_is_on_the_page() {
    for (name, script) in runs::all() {
        let run = script.run();
        let data = data(&page(&run, &Fixed(b"out\n")));
        let letters = data["letters"].as_object().unwrap();
        let rows: Vec<&str> =
            data["results"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
        for (letter, result) in letters {
            let count =
                rows.iter().flat_map(|row| row.chars()).filter(|c| c.to_string() == *letter).count() as u64;
            assert_eq!(data["counts"][result.as_str().unwrap()], count, "{name}: {result}");
        }
        assert_eq!(data["cells"].as_array().unwrap().len(), run.cells.len(), "{name}");
    }
}

#[test]
fn hostile_text_closes_nothing() {
    let mut script = runs::failing();
    for envelope in &mut script.log {
        if let crate::event::Event::TestFinished { message, .. } = &mut envelope.event {
            *message = Some("</script><script>alert(1)</script><!-- hunter22".to_owned());
        }
    }
    let page =
        page(&script.run(), &Fixed(b"</script><img src=http://x onerror=alert(1)> hunter22 \x1b[31m\n"));
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains("<img") && !page.contains("hunter22") && !page.contains('\x1b'));
    assert_eq!(data(&page)["details"][0]["why"], "</script><script>alert(1)</script><!-- [masked]");
}

#[test]
fn nothing_is_fetched_and_only_our_own_style_and_script_run() {
    let page = page(&runs::green().run(), &Fixed(b""));
    assert!(page.contains("default-src 'none'; style-src 'sha256-"));
    for word in ["http://", "https://", "url(", "@import", "src=", "innerHTML", "eval(", "style=\""] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn guilty_lines_of_a_console_are_marked() {
    let data = data(&page(&runs::lost(crate::event::LossEvidence::Panic).run(), &crate::output::NoOutput));
    let console = &data["consoles"][0];
    let marked = console["guilty"][0].as_u64().unwrap() as usize;
    assert!(console["lines"][marked].as_str().unwrap().contains("Kernel panic"));
    let crashed = data["details"].as_array().unwrap().iter().find(|detail| detail["console"] == 0);
    assert!(crashed.is_some());
}

/// A run of so many cells and tests; one in twenty fails, and its output is long.
pub(crate) fn large(cells: usize, tests: usize) -> Script {
    let ids: Vec<CellId> = (0..cells)
        .map(|n| CellId::local(format!("ubuntu_{n:02}.04"), format!("5.{n}"), Arch::X86_64))
        .collect();
    let names: Vec<String> =
        (0..tests).map(|n| format!("TestTracerSuite/prebuilt/TestProtocol{:03}/case_{n}", n / 20)).collect();
    let mut script = Script::new();
    script.plan(&ids, &[PKG]);
    for (c, id) in ids.iter().enumerate() {
        script.up(id).begin(id, PKG, &[]);
        for (t, name) in names.iter().enumerate() {
            let result = if (t * 7 + c) % 20 == 0 { TestResult::Fail } else { TestResult::Pass };
            script.start(id, PKG, name).finish(id, PKG, name, result);
        }
        script.end(id, PKG, crate::event::ShardEnd::Exited, Some(1));
    }
    script.done();
    script
}

/// Long output, another for each file.
pub(crate) struct Long;

impl OutputSource for Long {
    fn read(&self, output: &OutputRef) -> io::Result<Vec<u8>> {
        let line = format!("    tracer_test.go:{}: <want> \"1\" of {}\n", output.file.len() * 7, output.file);
        Ok(line.repeat(output.length as usize / line.len() + 1).into_bytes())
    }
}

#[test]
fn a_large_run_stays_below_five_megabytes() {
    let run = large(60, 3_000).run();
    let page = page(&run, &Long);
    assert!(page.len() < 5_000_000, "{}", page.len());
    assert_eq!(data(&page)["tests"].as_array().unwrap().len(), 3_000);
    if let Ok(folder) = std::env::var("KMT_HTML_OUT") {
        std::fs::write(format!("{folder}/large.html"), &page).unwrap();
        for (name, script) in runs::all() {
            std::fs::write(format!("{folder}/{name}.html"), self::page(&script.run(), &Long)).unwrap();
        }
    }
}
