//! For a merge request: Markdown in which nothing from outside is markup.

use std::fmt::Write as _;

use super::{Cause, Explanation, Group, Mark};
use crate::{escape, plural};

/// Tests that are shown of a group.
const TESTS: usize = 100;
/// Bytes of all of it; GitLab cuts notes at a million characters.
const LONGEST: usize = 900_000;

/// The explanation as Markdown.
pub fn render(told: &Explanation) -> String {
    let subject = &told.subject;
    let mut out = String::new();
    let name = format!("{} {}", subject.kind, subject.name);
    let name = match link(&subject.url) {
        Some(url) => format!("[{}]({url})", text(&name)),
        None => text(&name),
    };
    let status =
        if subject.status.is_empty() { String::new() } else { format!(": {}", text(&subject.status)) };
    let _ = writeln!(out, "## {name}{status}\n");
    let noun = if subject.kind == "run" { "cell" } else { "job" };
    let _ = writeln!(out, "{} of {} failed.\n", subject.failed, plural(subject.total as u64, noun));
    for notice in &told.notices {
        let _ = writeln!(out, "> {}\n", text(notice));
    }
    if !told.causes.is_empty() {
        let _ = writeln!(out, "### Why\n");
        told.causes.iter().for_each(|cause| one_cause(&mut out, cause));
    }
    told.groups.iter().for_each(|group| one_group(&mut out, group));
    machines(&mut out, told);
    if !told.others.is_empty() {
        let _ = writeln!(out, "### Other failed jobs\n");
        for other in &told.others {
            let _ = writeln!(out, "- {}: {}", text(&other.name), text(&other.reason));
        }
        out.push('\n');
    }
    if !told.reproduce.is_empty() {
        let _ = writeln!(out, "### Run what failed here\n");
        out.push_str(&fenced(&told.reproduce.join("\n")));
    }
    if out.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(end);
        out.push_str("\n\n(cut)\n");
    }
    out
}

fn one_cause(out: &mut String, cause: &Cause) {
    let places = plural(cause.places.len() as u64, "place");
    let _ = writeln!(out, "- **{}** {} ({places})", text(&cause.reason.to_string()), text(&cause.says));
    if !cause.advice.is_empty() {
        let _ = writeln!(out, "  - {}", text(&cause.advice));
    }
    let _ = writeln!(out, "\n  <details><summary>evidence</summary>\n");
    let named: Vec<String> = cause.places.iter().map(|place| text(place)).collect();
    let _ = writeln!(out, "  {}\n", named.join(", "));
    if !cause.evidence.is_empty() {
        for line in fenced(&cause.evidence.join("\n")).lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    let _ = writeln!(out, "\n  </details>\n");
}

fn one_group(out: &mut String, group: &Group) {
    let set = if group.set.is_empty() { String::new() } else { format!(" {}", text(&group.set)) };
    let _ = writeln!(out, "### {}{set}\n", text(&group.component));
    if !group.jobs.is_empty() {
        let _ = writeln!(out, "{} of {} failed.\n", group.jobs.len(), plural(group.total as u64, "job"));
        let _ = writeln!(out, "| platform | architecture | reason | why |\n|---|---|---|---|");
    }
    for job in &group.jobs {
        let platform = match link(&job.url) {
            Some(url) => format!("[{}]({url})", text(&job.place.platform)),
            None => text(&job.place.platform),
        };
        let reason = text(&job.reason.to_string());
        let allowed = if job.allowed { " (allowed to fail)" } else { "" };
        let _ =
            writeln!(out, "| {platform} | {} | {reason}{allowed} | {} |", job.place.arch, text(&job.says));
    }
    if !group.jobs.is_empty() {
        out.push('\n');
    }
    tests(out, group);
}

fn tests(out: &mut String, group: &Group) {
    if group.tests.is_empty() {
        return;
    }
    if let Some(boundary) = &group.boundary {
        let _ = writeln!(out, "**{}**\n", text(boundary));
    }
    let places = group.places();
    let head: Vec<String> = places.iter().map(|place| text(&place.to_string())).collect();
    let _ = writeln!(out, "| test | {} |\n|---|{}", head.join(" | "), ":-:|".repeat(places.len()));
    for row in group.tests.iter().take(TESTS) {
        let marks: Vec<&str> = places
            .iter()
            .map(|place| match row.mark(place) {
                Some(Mark::Fail) => "❌",
                Some(Mark::Flaky) => "⚠️",
                Some(Mark::Pass) => "✅",
                Some(Mark::Skip) => "⏭",
                None => "",
            })
            .collect();
        let name = if row.test.is_empty() { "(package)" } else { &row.test };
        let _ = writeln!(out, "| {} {} | {} |", text(&row.package), text(name), marks.join(" | "));
    }
    if group.tests.len() > TESTS {
        let _ = writeln!(out, "\n…and {} more.", group.tests.len() - TESTS);
    }
    out.push('\n');
}

fn machines(out: &mut String, told: &Explanation) {
    if told.machines.is_empty() {
        return;
    }
    let yes = |seen: Option<bool>| match seen {
        Some(true) => "✅",
        Some(false) => "❌",
        None => "?",
    };
    let _ = writeln!(out, "### Machines that did not come up\n");
    let _ = writeln!(out, "| machine | login | unit | address | phase | why |\n|---|:-:|:-:|:-:|---|---|");
    for machine in &told.machines {
        let name = format!("{} {} {}", machine.component, machine.place, machine.set);
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            text(name.trim_end()),
            yes(machine.login),
            yes(machine.unit),
            yes(machine.address),
            text(machine.phase.as_deref().unwrap_or("?")),
            text(&machine.says)
        );
    }
    out.push('\n');
}

/// Text in which nothing is markup: what Markdown or HTML would take for something else is escaped.
fn text(outside: &str) -> String {
    let mut safe = String::new();
    for c in escape(outside).chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            // `@` and the rest would mention people, issues and merge requests.
            '@' | '#' | '!' | '$' | '%' => _ = write!(safe, "&#{};", u32::from(c)),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '+' | '|' | '~' | ':' | '-'
            | '=' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}

/// An address that may be followed.
fn link(url: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_graphic() && !"()<>[]\"'`\\".contains(c);
    let web = url.starts_with("https://") || url.starts_with("http://");
    (web && url.chars().all(plain)).then_some(url)
}

/// A block of code whose fence is longer than any in the text.
fn fenced(code: &str) -> String {
    let code: Vec<String> = code.lines().map(|line| escape(line).into_owned()).collect();
    let longest = code.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{}\n{fence}\n\n", code.join("\n"))
}
