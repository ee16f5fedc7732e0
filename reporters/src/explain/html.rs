//! For a browser: one page without a script, which loads nothing and in which nothing from outside is markup.

use std::fmt::Write as _;

use super::{Cause, Explanation, Group, Mark, Place};
use crate::html::{escaped, hash};
use crate::{escape, plural};

const STYLE: &str = include_str!("page.css");
/// Tests that are shown of a group.
const TESTS: usize = 300;

/// The explanation as a page.
pub fn render(told: &Explanation) -> String {
    let subject = &told.subject;
    let name = text(&format!("{} {}", subject.kind, subject.name));
    let policy =
        format!("default-src 'none'; style-src '{}'; base-uri 'none'; form-action 'none'", hash(STYLE));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    );
    let status =
        if subject.status.is_empty() { String::new() } else { format!(": {}", text(&subject.status)) };
    let _ = writeln!(out, "<h1>{}{status}</h1>", linked(&name, &subject.url));
    let noun = if subject.kind == "run" { "cell" } else { "job" };
    let mut counted = format!("{} of {} failed", subject.failed, plural(subject.total as u64, noun));
    if subject.unfinished > 0 {
        let _ = write!(counted, ", {} not done", subject.unfinished);
    }
    if !subject.branch.is_empty() {
        let _ = write!(counted, "; branch {}", subject.branch);
    }
    if !subject.commit.is_empty() {
        let _ = write!(counted, " at {}", subject.commit.get(..8).unwrap_or(&subject.commit));
    }
    let _ = writeln!(out, "<p>{}</p>", text(&counted));
    told.notices.iter().for_each(|notice| _ = writeln!(out, "<p class=\"note\">{}</p>", text(notice)));
    if !told.causes.is_empty() {
        let _ = writeln!(out, "<h2>Why</h2>");
        told.causes.iter().for_each(|cause| one_cause(&mut out, cause));
    }
    told.groups.iter().for_each(|group| one_group(&mut out, group));
    machines(&mut out, told);
    rest(&mut out, told);
    out.push_str("</body>\n</html>\n");
    out
}

fn one_cause(out: &mut String, cause: &Cause) {
    let places = plural(cause.places.len() as u64, "place");
    let _ = writeln!(
        out,
        "<div class=\"cause\"><p><span class=\"why\">{}</span> {} ({places})</p>",
        text(&cause.reason.to_string()),
        text(&cause.says)
    );
    if !cause.evidence.is_empty() {
        let _ = writeln!(out, "<pre>{}</pre>", lines(&cause.evidence));
    }
    if !cause.advice.is_empty() {
        let _ = writeln!(out, "<p class=\"advice\">{}</p>", text(&cause.advice));
    }
    let named: Vec<String> = cause.places.iter().map(|place| text(place)).collect();
    let _ = writeln!(out, "<details><summary>where</summary><p>{}</p></details></div>", named.join(", "));
}

fn one_group(out: &mut String, group: &Group) {
    let set = if group.set.is_empty() { String::new() } else { format!(" {}", text(&group.set)) };
    let _ = writeln!(out, "<h2>{}{set}</h2>", text(&group.component));
    let mut counts = format!("{} of {} failed", group.jobs.len(), plural(group.total as u64, "job"));
    if !group.recovered.is_empty() {
        let places: Vec<String> = group.recovered.iter().map(Place::to_string).collect();
        let _ = write!(counts, "; passed when retried: {}", places.join(", "));
    }
    let _ = writeln!(out, "<p>{}</p>", text(&counts));
    if !group.jobs.is_empty() {
        let _ = writeln!(
            out,
            "<div class=\"scroll\"><table><thead><tr><th>platform</th><th>architecture</th><th>reason</th>\
             <th>why</th></tr></thead><tbody>"
        );
        for job in &group.jobs {
            let mut notes = String::new();
            if job.attempts > 1 {
                let _ = write!(notes, " ({} attempts)", job.attempts);
            }
            if job.allowed {
                notes.push_str(" (allowed to fail)");
            }
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td class=\"why\">{}</td><td>{}{notes}</td></tr>",
                linked(&text(&job.place.platform), &job.url),
                job.place.arch,
                text(&job.reason.to_string()),
                text(&job.says)
            );
        }
        out.push_str("</tbody></table></div>\n");
    }
    tests(out, group);
}

/// Tests down, places across.
fn tests(out: &mut String, group: &Group) {
    if group.tests.is_empty() {
        return;
    }
    if let Some(boundary) = &group.boundary {
        let _ = writeln!(out, "<p><strong>{}</strong></p>", text(boundary));
    }
    let places = group.places();
    let _ = write!(out, "<div class=\"scroll\"><table><thead><tr><th>test</th>");
    for place in &places {
        let _ = write!(out, "<th class=\"turned\">{}</th>", text(&place.to_string()));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in group.tests.iter().take(TESTS) {
        let name = if row.test.is_empty() { "(package)" } else { &row.test };
        let _ = write!(out, "<tr><td>{} {}</td>", text(&row.package), text(name));
        for place in &places {
            let (class, mark, word) = match row.mark(place) {
                Some(Mark::Fail) => ("fail", "✗", "failed"),
                Some(Mark::Flaky) => ("flaky", "~", "flaky"),
                Some(Mark::Pass) => ("pass", "✓", "passed"),
                Some(Mark::Skip) => ("skip", "–", "skipped"),
                None => ("skip", "", "did not run"),
            };
            let _ = write!(out, "<td class=\"m {class}\" title=\"{word}\">{mark}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if group.tests.len() > TESTS {
        let _ = writeln!(out, "<p>…and {} more; JSON has them all</p>", group.tests.len() - TESTS);
    }
}

fn machines(out: &mut String, told: &Explanation) {
    if told.machines.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "<h2>Machines that did not come up</h2>\n<div class=\"scroll\"><table><thead><tr><th>machine</th>\
         <th>login</th><th>unit</th><th>address</th><th>phase</th><th>why</th></tr></thead><tbody>"
    );
    let cell = |seen: Option<bool>| match seen {
        Some(true) => "<td class=\"m pass\">✓</td>",
        Some(false) => "<td class=\"m fail\">✗</td>",
        None => "<td class=\"m skip\">?</td>",
    };
    for machine in &told.machines {
        let name = format!("{} {} {}", machine.component, machine.place, machine.set);
        let _ = writeln!(
            out,
            "<tr><td>{}</td>{}{}{}<td>{}</td><td>{}</td></tr>",
            text(name.trim_end()),
            cell(machine.login),
            cell(machine.unit),
            cell(machine.address),
            text(machine.phase.as_deref().unwrap_or("?")),
            text(&machine.says)
        );
    }
    out.push_str("</tbody></table></div>\n");
}

/// Jobs of others, and what to type.
fn rest(out: &mut String, told: &Explanation) {
    if !told.others.is_empty() {
        let _ = writeln!(out, "<h2>Other failed jobs</h2>\n<ul>");
        for other in &told.others {
            let allowed = if other.allowed { ", allowed to" } else { "" };
            let _ = writeln!(out, "<li>{} ({}{allowed})</li>", text(&other.name), text(&other.reason));
        }
        out.push_str("</ul>\n");
    }
    if !told.reproduce.is_empty() {
        let _ = writeln!(out, "<h2>Run what failed here</h2>\n<pre>{}</pre>", lines(&told.reproduce));
    }
}

/// Text in which nothing is markup and no character controls anything.
fn text(outside: &str) -> String {
    escaped(&escape(outside))
}

fn lines(outside: &[String]) -> String {
    outside.iter().map(|line| text(line)).collect::<Vec<_>>().join("\n")
}

/// A link, where the address is one to follow.
fn linked(inner: &str, url: &str) -> String {
    let web = url.starts_with("https://") || url.starts_with("http://");
    let plain = url.chars().all(|c| c.is_ascii_graphic() && !"\"'<>`".contains(c));
    match web && plain {
        true => format!("<a href=\"{}\" rel=\"noreferrer\">{inner}</a>", escaped(url)),
        false => inner.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Other, Subject};
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        let told = Explanation {
            subject: Subject {
                kind: "pipeline",
                name: "<script>alert(1)</script>".to_owned(),
                url: "javascript:alert(1)".to_owned(),
                ..Subject::default()
            },
            notices: vec!["\x1b[31m<img src=x onerror=y>".to_owned()],
            others: vec![Other {
                name: "a\"b".to_owned(),
                stage: String::new(),
                reason: "<b>".to_owned(),
                allowed: false,
            }],
            ..Explanation::default()
        };
        let page = render(&told);
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<b>"), "{page}");
        assert!(!page.contains("javascript:") && !page.contains('\x1b'), "{page}");
        assert!(page.contains("default-src 'none'"));
    }
}
