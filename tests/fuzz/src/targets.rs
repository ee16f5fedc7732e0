//! What is fuzzed, by name. The ordinary tests replay the corpus through the same functions.

use std::path::Path;
use std::sync::OnceLock;

use kmt_reporters::event::Arch;
use kmt_reporters::junit::read::read;
use kmt_reporters::junit::{Flavour, lint, texts};
use kmt_reporters::model::Run;
use kmt_reporters::triage::boot::{Classifier, Ended, Facts};
use kmt_reporters::{Masks, NoOutput, html, json, markdown, trace};
use kmt_run::matrix::select::Expression;
use kmt_run::matrix::vmsets::VmSets;
use kmt_run::matrix::{Catalogue, Complaint, MatrixFile, sets, spec};
use kmt_run::run::filter::Filter;
use kmt_run::run::gotest::{Framing, Parser};

/// A function that any bytes may be given to.
pub type Target = fn(&[u8]);

/// Every target.
pub const ALL: [(&str, Target); 9] = [
    ("matrix", matrix),
    ("short_form", short_form),
    ("filter", filter),
    ("vmsets", vmsets),
    ("run_config", run_config),
    ("console", console),
    ("junit", junit),
    ("events", events),
    ("test2json", test2json),
];

fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| Catalogue::embedded().expect("the catalogue is sound"))
}

/// A matrix file that may extend itself.
pub fn matrix(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = |path: &Path| match path == Path::new("m.toml") {
        true => Ok(text.to_owned()),
        false => Err(Complaint::new("there is no other file")),
    };
    if let Ok(matrix) = MatrixFile::load(Path::new("m.toml"), &read) {
        let _ = matrix.expand(catalogue(), Arch::X86_64);
    }
}

/// A machine; what is read is spelled as it is read.
pub fn short_form(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(resolved) = spec::resolve(text, catalogue(), Arch::X86_64) {
        let spelled = spec::spelling(&resolved.cell.id, Arch::X86_64).expect("the short form said it");
        let again = spec::resolve(&spelled, catalogue(), Arch::X86_64).expect("what is spelled is read");
        assert_eq!(again.cell, resolved.cell);
    }
}

/// A filter expression, decided for a cell, a package and its tests.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let cell = spec::resolve("jammy-local-distro", catalogue(), Arch::X86_64).expect("it exists").cell;
    if let Ok(expression) = Expression::parse(text, catalogue())
        && let Some(left) = expression.in_cell(&cell).and_then(|left| left.in_package("pkg/a"))
    {
        let _ = left.tests();
    }
}

/// A vmsets file; its cells come back from the file they are written to.
pub fn vmsets(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(sets) = VmSets::parse("v.json", text) else { return };
    let Ok(cells) = sets.expand(catalogue(), Arch::X86_64) else { return };
    let cells: Vec<_> = cells.into_iter().map(|resolved| resolved.cell).collect();
    VmSets::of(&cells, catalogue(), Arch::X86_64).expect("what was read can be written");
}

/// A run config of the former tool; what it chooses of a package, Go can be told.
pub fn run_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(set) = sets::json::parse("r.json", text) else { return };
    if let Some(rule) = set.rule_of("pkg/a") {
        let chosen = rule.tests();
        for pattern in chosen.run.iter().chain(&chosen.skip) {
            Filter::parse(pattern).expect("each part was read alone");
        }
    }
}

/// A console, whole and in pieces; the first byte says how large they are.
pub fn console(data: &[u8]) {
    let Some((piece, console)) = data.split_first() else { return };
    let (mut whole, mut parts) = (Classifier::new(), Classifier::new());
    whole.push(console);
    console.chunks(usize::from(*piece).max(1)).for_each(|part| parts.push(part));
    for ended in [Ended::Unknown, Ended::Ready, Ended::Deadline, Ended::QemuGone, Ended::Lost] {
        let facts = Facts { ended, ..Facts::default() };
        assert_eq!(whole.finding(&facts), parts.finding(&facts));
    }
    assert_eq!(whole.splats(), parts.splats());
}

/// A JUnit file, and what each consumer loses of it.
pub fn junit(data: &[u8]) {
    for consumer in Flavour::ALL {
        let verdict = lint::lint(data, "junit.xml", consumer);
        let _ = lint::told(&verdict, "junit.xml");
    }
}

/// An event log, folded, and told in every form.
pub fn events(data: &[u8]) {
    let Ok(run) = Run::from_log(data) else { return };
    let none = Masks::default();
    for flavour in Flavour::ALL {
        let told = texts(&run, flavour, &NoOutput, &none).expect("any run can be told");
        told.iter().for_each(|text| _ = read(text.as_bytes()).expect("what is written can be read"));
    }
    let sources = html::Sources { output: &NoOutput, masks: &none, spelling: &|_| None };
    html::text(&run, &sources).expect("any run has a page");
    json::text(&run, &none).expect("any run has a summary");
    trace::text(&run, &none).expect("any run has a trace");
    markdown::text(&run, &none);
    let _ = run.exit_code();
}

/// The output of a test binary, cut anywhere: what is read does not depend on the cuts.
pub fn test2json(data: &[u8]) {
    let (cut, data) = data.split_first().map_or((1, data), |(cut, rest)| (usize::from(*cut).max(1), rest));
    for framing in [Framing::Test2json, Framing::Plain] {
        let read = |size: usize| {
            let (mut parser, mut items) = (Parser::new(framing), Vec::new());
            data.chunks(size).for_each(|chunk| parser.feed(chunk, &mut items));
            parser.finish(&mut items);
            items
        };
        assert_eq!(read(cut), read(data.len().max(1)));
    }
}
