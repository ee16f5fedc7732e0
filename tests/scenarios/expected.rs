//! What is compared with the files of `expected/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What differs from run to run, and what stands for it.
static VARIES: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let rules = [
        (r"\d{8}T\d{6}Z-[0-9a-f]{6}", "<run>"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uuid>"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>"),
        (r"section_(start|end):\d+", "section_$1:<time>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "<time>"),
        (r"kmt_flare_\d{8}-\d{6}", "kmt_flare_<time>"),
        (r"192\.168\.\d+\.", "192.168.<n>."),
        // As wide as the longest address.
        (r"ADDRESS +SIZE", "ADDRESS  SIZE"),
        (r"Port \d{3,}", "Port <port>"),
        (r"kmt-template-[0-9a-f]{16}", "kmt-template-<key>"),
        (r"\b[0-9a-f]{16}\.making", "<key>.making"),
        (r"kmt-[0-9a-f]{8}\b", "kmt-<stack>"),
        (r"default-[0-9a-f]{8}", "default-<hash>"),
        (r"/stacks/([\w.-]+)-[0-9a-f]{8}\b", "/stacks/$1-<hash>"),
        (r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "<digest>"),
        (r"\b\d+(\.\d+)? (KiB|B)\b", "<size>"),
        (r"\b[1-9]\d* bytes", "<size>"),
        (r"(after|for) \d+ s\b", "$1 <n> s"),
        // How long a rented host lived, and how long one may.
        (r"\bafter \d+m?s\b", "after <n> s"),
        (r"it ends in \d+[dhms \d]*\d?[hms]", "it ends in <n> h"),
        // Whether a machine is slow shows nowhere.
        (r"\[ *x+\.xxxs\]", "[   x.xxxs]"),
        (r"\bx+\.xxxs", "x.xxxs"),
        // Said only where it took a second or more.
        (r"(?m)^ +IMAGE \[.*\n", ""),
        (r"[ \t]+\n", "\n"),
    ];
    rules.map(|(rule, text)| (Regex::new(rule).unwrap(), text)).into()
});

/// A text without what differs from run to run.
pub(crate) fn redact(text: &str, temp: &Path) -> String {
    let text = text.replace(&temp.display().to_string(), "<tmp>");
    let text = kmt_reporters::redact::redact(&text);
    VARIES.iter().fold(text, |text, (rule, with)| rule.replace_all(&text, *with).into_owned())
}

/// What the summary of a run says of cells and tests.
pub(crate) fn results(run: &Path) -> String {
    let summary: Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap_or_default())
        .unwrap_or(Value::Null);
    let mut text = format!("outcome {}\n", summary["outcome"].as_str().unwrap_or("none"));
    for (arch, build) in summary["builds"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "build {arch} {}", build["state"].as_str().unwrap());
    }
    for warning in summary["warnings"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "warning {}", warning["message"].as_str().unwrap());
    }
    for cell in summary["cells"].as_array().into_iter().flatten() {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let reused = if cell["reused"] == true { " reused" } else { "" };
        let _ = writeln!(text, "{} kernel {}{reused}", word(&cell["cell"]), word(&cell["kernel_release"]));
        if let Some(shipped) = cell["ship_files"].as_u64() {
            let bytes = if cell["ship_bytes"] == 0 { "0 bytes" } else { "some bytes" };
            let _ = writeln!(text, "  shipped {shipped} files, {bytes}");
        }
        let trouble = &cell["trouble"];
        if !trouble.is_null() {
            let (stage, phase) = (word(&trouble["stage"]), word(&trouble["phase"]));
            let _ = writeln!(text, "  {stage} failed at {phase}: {}", word(&trouble["message"]));
            let lines = trouble["excerpt"].as_array().unwrap().iter().rev().take(2).rev();
            lines.for_each(|line| text.push_str(&format!("    | {}\n", word(line))));
        }
        for package in cell["packages"].as_array().unwrap() {
            for test in package["tests"].as_array().unwrap() {
                let name = test["test"].as_str().filter(|name| !name.is_empty()).unwrap_or("(package)");
                let why = test["message"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
                let (package, result) = (word(&package["package"]), word(&test["result"]));
                let _ = writeln!(text, "  {package} {name} {result}{why}");
            }
        }
    }
    text
}

/// How often the world was changed in which way.
pub(crate) fn counts(calls: &[String]) -> String {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    // Cells that come up together may make keys twice and ask once more.
    for call in calls.iter().filter(|call| !call.starts_with("make-key") && !call.starts_with("run")) {
        *counts.entry(call.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    counts.into_iter().fold(String::new(), |text, (call, count)| text + &format!("{call} {count}\n"))
}

/// Compares the steps of a command with the list in the file, or writes it: numbered as they came, compared whatever
/// machine was faster and however often it was asked.
pub(crate) fn steps(file: &Path, steps: &[String]) {
    let steps: Vec<String> =
        steps.iter().map(|step| redact(step, Path::new("/nowhere")).trim_end().to_owned()).collect();
    let of_file = fs::read_to_string(file).unwrap_or_default();
    let listed = of_file.lines().filter_map(|line| Some(line.trim().split_once(' ')?.1.to_owned()));
    let (listed, came): (BTreeSet<String>, BTreeSet<String>) =
        (listed.collect(), steps.iter().cloned().collect());
    if std::env::var_os("SCENARIOS").is_some_and(|value| value == "overwrite") {
        if listed != came {
            let lines = steps.iter().zip(1..).map(|(step, number)| format!("{number:>3} {step}\n"));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, lines.collect::<String>()).unwrap();
        }
        return;
    }
    assert_eq!(came, listed, "the steps of {}", file.display());
}

/// Compares each call's text with the file, or writes the file where that is asked for.
pub(crate) fn compare(file: &Path, texts: &[String]) {
    let text = texts.join("\n");
    if std::env::var_os("SCENARIOS").is_some_and(|value| value == "overwrite") {
        let same = fs::read_to_string(file).is_ok_and(|old| order(&old) == order(&text));
        if !same {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, &text).unwrap();
        }
        return;
    }
    let wanted = fs::read_to_string(file).unwrap_or_default();
    let (wanted, got) = (order(&wanted), order(&text));
    if wanted != got {
        let missing = wanted.iter().filter(|line| !got.contains(line)).map(|line| format!("- {line}\n"));
        let new = got.iter().filter(|line| !wanted.contains(line)).map(|line| format!("+ {line}\n"));
        let changes: String = missing.chain(new).collect();
        panic!("{} differs:\n{changes}\nwhat came out:\n{text}", file.display());
    }
}

/// Lines in an order that does not depend on which machine was faster: sorted up to the rule of the closing part.
fn order(text: &str) -> Vec<String> {
    let mut ordered = Vec::new();
    for call in text.split("$ kmt-run ") {
        let (live, closing) = match call.find("────") {
            Some(at) => call.split_at(at),
            None => (call, ""),
        };
        let mut lines: Vec<String> = live.lines().map(str::to_owned).collect();
        lines.sort();
        lines.retain(|line| !line.is_empty());
        ordered.extend(lines);
        ordered.extend(closing.lines().filter(|line| !line.is_empty()).map(str::to_owned));
    }
    ordered
}
