//! For a terminal: causes first, then jobs, tests and machines.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{Cause, Explanation, FailedJob, Group, Machine, Mark, Place};
use crate::{bytes, escape, plural};

/// Tests that are shown of a group.
const TESTS: usize = 60;
/// Places that are named on a line.
const PLACES: usize = 4;
/// From so many jobs on that failed alike, one row stands for all.
const ALIKE: usize = 4;

/// How to show it.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Escape sequences are understood and wanted.
    pub color: bool,
    /// Other marks than ASCII are understood.
    pub unicode: bool,
}

impl Look {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn head(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn mark(self, mark: Option<Mark>) -> String {
        let (code, rich, plain) = match mark {
            Some(Mark::Fail) => ("31", "✗", "x"),
            Some(Mark::Flaky) => ("33", "~", "~"),
            Some(Mark::Pass) => ("32", "✓", "."),
            Some(Mark::Skip) => ("2", "-", "-"),
            None => ("2", " ", " "),
        };
        self.paint(code, if self.unicode { rich } else { plain })
    }

    fn yes(self, seen: Option<bool>) -> &'static str {
        match (seen, self.unicode) {
            (Some(true), true) => "✓",
            (Some(true), false) => "yes",
            (Some(false), true) => "✗",
            (Some(false), false) => "no",
            (None, _) => "?",
        }
    }
}

/// The explanation as lines.
pub fn render(told: &Explanation, look: Look) -> String {
    let mut out = String::new();
    subject(&mut out, told, look);
    for notice in &told.notices {
        let _ = writeln!(out, "{} {}", look.paint("33", "notice:"), escape(notice));
    }
    if !told.causes.is_empty() {
        let _ =
            writeln!(out, "\n{}", look.head(&format!("Why: {}", plural(told.causes.len() as u64, "cause"))));
        told.causes.iter().for_each(|cause| one_cause(&mut out, cause, look));
    }
    told.groups.iter().for_each(|group| one_group(&mut out, group, look));
    machines(&mut out, &told.machines, look);
    if !told.others.is_empty() {
        let _ = writeln!(out, "\n{}", look.head("Other failed jobs"));
        for other in &told.others {
            let allowed = if other.allowed { ", allowed to" } else { "" };
            let _ = writeln!(out, "  {} ({}{allowed})", escape(&other.name), escape(&other.reason));
        }
    }
    if !told.reproduce.is_empty() {
        let _ = writeln!(out, "\n{}", look.head("Run what failed here"));
        told.reproduce.iter().for_each(|line| _ = writeln!(out, "  {}", escape(line)));
    }
    if let Some(cost) = told.cost {
        let again =
            if cost.repeated > 0 { format!(", {} of them again", cost.repeated) } else { String::new() };
        let _ = writeln!(
            out,
            "\n{}{again}, {} fetched, {} from the cache",
            plural(cost.requests, "request"),
            bytes(cost.bytes),
            plural(cost.cached, "file")
        );
    }
    out
}

fn subject(out: &mut String, told: &Explanation, look: Look) {
    let subject = &told.subject;
    let mut line = format!("{} {}", subject.kind, escape(&subject.name));
    if !subject.branch.is_empty() {
        let _ = write!(line, " of {}", escape(&subject.branch));
    }
    if !subject.commit.is_empty() {
        let _ = write!(line, " at {}", escape(subject.commit.get(..8).unwrap_or(&subject.commit)));
    }
    if !subject.status.is_empty() {
        let _ = write!(line, ": {}", escape(&subject.status));
    }
    let _ = writeln!(out, "{}", look.head(&line));
    if !subject.url.is_empty() {
        let _ = writeln!(out, "{}", escape(&subject.url));
    }
    let noun = if subject.kind == "run" { "cell" } else { "job" };
    let unfinished =
        if subject.unfinished > 0 { format!(", {} not done", subject.unfinished) } else { String::new() };
    let counted = plural(subject.total as u64, noun);
    let _ = match subject.failed {
        0 if subject.unfinished == 0 => writeln!(out, "{counted}, none failed"),
        failed => writeln!(out, "{failed} of {counted} failed{unfinished}"),
    };
}

/// The first places, and how many more there are.
fn some(places: &[String]) -> String {
    let shown: Vec<String> = places.iter().take(PLACES).map(|place| escape(place).into_owned()).collect();
    let more = places.len().saturating_sub(PLACES);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn one_cause(out: &mut String, cause: &Cause, look: Look) {
    let places = plural(cause.places.len() as u64, "place");
    let reason = look.paint("1;31", &format!("{:>8}", escape(&cause.reason.to_string())));
    let _ = writeln!(out, "{reason}  {} ({places})", escape(&cause.says));
    let _ = writeln!(out, "          in {}", some(&cause.places));
    for line in &cause.evidence {
        let _ = writeln!(out, "          {} {}", look.paint("2", ">"), escape(line));
    }
    if !cause.advice.is_empty() {
        let _ = writeln!(out, "          {} {}", look.paint("36", "hint:"), escape(&cause.advice));
    }
}

fn one_group(out: &mut String, group: &Group, look: Look) {
    let set = if group.set.is_empty() { String::new() } else { format!(" {}", escape(&group.set)) };
    let head = format!("{}{set}", escape(&group.component));
    let _ = writeln!(out, "\n{}", look.head(&head));
    let mut counts = vec![format!("{} of {} failed", group.jobs.len(), plural(group.total as u64, "job"))];
    if group.unfinished > 0 {
        counts.push(format!("{} not done", group.unfinished));
    }
    if !group.recovered.is_empty() {
        let places: Vec<String> = group.recovered.iter().map(Place::to_string).collect();
        counts.push(format!("{} passed when retried: {}", group.recovered.len(), some(&places)));
    }
    let _ = writeln!(out, "  {}", counts.join("; "));
    let width = group.jobs.iter().map(|job| job.place.to_string().chars().count()).max().unwrap_or(0);
    for jobs in alike(&group.jobs) {
        if jobs.len() < ALIKE {
            jobs.iter().for_each(|job| one_job(out, &job.place.to_string(), job, width, look));
            continue;
        }
        one_job(out, &format!("{} on {}", jobs.len(), jobs[0].place.arch), jobs[0], width, look);
        let platforms: Vec<Cow<'_, str>> = jobs.iter().map(|job| escape(&job.place.platform)).collect();
        let _ = writeln!(out, "  {:width$}  {}", "", look.paint("2", &platforms.join(", ")));
    }
    tests(out, group, look);
}

/// Jobs of one architecture that failed alike, each kind where its first one stands.
fn alike(jobs: &[FailedJob]) -> Vec<Vec<&FailedJob>> {
    let same = |a: &FailedJob, b: &FailedJob| {
        (a.place.arch, &a.reason, &a.says, a.attempts, a.allowed)
            == (b.place.arch, &b.reason, &b.says, b.attempts, b.allowed)
    };
    let mut kinds: Vec<Vec<&FailedJob>> = Vec::new();
    for job in jobs {
        match kinds.iter_mut().find(|known| same(known[0], job)) {
            Some(known) => known.push(job),
            None => kinds.push(vec![job]),
        }
    }
    kinds
}

fn one_job(out: &mut String, place: &str, job: &FailedJob, width: usize, look: Look) {
    let mut notes = String::new();
    if job.attempts > 1 {
        let _ = write!(notes, " ({} attempts)", job.attempts);
    }
    if job.allowed {
        notes.push_str(" (allowed to fail)");
    }
    let reason = look.paint("31", &format!("{:<8}", escape(&job.reason.to_string())));
    let _ = writeln!(out, "  {:<width$}  {reason} {}{notes}", escape(place), escape(&job.says));
}

/// Tests down, places across, each place a letter.
fn tests(out: &mut String, group: &Group, look: Look) {
    if group.tests.is_empty() {
        return;
    }
    let places = group.places();
    if let Some(boundary) = &group.boundary {
        let _ = writeln!(out, "  {}", look.paint("1;35", &escape(boundary)));
    }
    // Each place has a column; its name hangs over it.
    let (bar, corner) = if look.unicode { ("│", "┌") } else { ("|", "+") };
    for (number, place) in places.iter().enumerate() {
        let bars = format!(" {bar}").repeat(number);
        let _ = writeln!(out, "  {bars} {corner} {}", escape(&place.to_string()));
    }
    for row in group.tests.iter().take(TESTS) {
        let marks: Vec<String> = places.iter().map(|place| look.mark(row.mark(place))).collect();
        let name = if row.test.is_empty() { "(package)" } else { &row.test };
        let _ = writeln!(out, "   {}  {} {}", marks.join(" "), escape(&row.package), escape(name));
    }
    if group.tests.len() > TESTS {
        let _ = writeln!(out, "  and {} more; `--format json` has them all", group.tests.len() - TESTS);
    }
}

fn machines(out: &mut String, machines: &[Machine], look: Look) {
    if machines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", look.head("Machines that did not come up"));
    let name = |machine: &Machine| format!("{} {} {}", machine.component, machine.place, machine.set);
    let width = machines.iter().map(|machine| name(machine).trim_end().chars().count()).max().unwrap_or(0);
    let _ = writeln!(out, "  {:<width$}  login  unit  address  phase", "");
    for machine in machines {
        let name = name(machine);
        let _ = writeln!(
            out,
            "  {:<width$}  {:<5}  {:<4}  {:<7}  {:<8} {}",
            escape(name.trim_end()),
            look.yes(machine.login),
            look.yes(machine.unit),
            look.yes(machine.address),
            escape(machine.phase.as_deref().unwrap_or("?")),
            escape(&machine.says)
        );
    }
}
