//! What goes on at this moment: the answer to a key or a signal.

use super::lines::PACKAGE_ENTRY;
use super::paint::{Paint, Role, Verb};
use crate::event::CellId;
use crate::model::{Cell, Package, Run, is_good};
use crate::text::{escape, escape_line, plural};

/// Lines of output below a test that runs.
const LINES: usize = 5;
/// The end of what a package printed so far, by cell, package and attempt.
pub type Tail<'r> = &'r dyn Fn(&CellId, &str, u32) -> String;

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A line a machine.
    Brief,
    /// Also the last lines of what runs there.
    Tests,
}

/// A run at one moment.
pub(super) struct Now<'r> {
    pub(super) run: &'r Run,
    pub(super) paint: &'r Paint,
    /// The end of what a package printed in a cell and attempt.
    pub(super) tail: Tail<'r>,
    /// Since the run began.
    pub(super) elapsed_ms: u64,
}

impl Now<'_> {
    pub(super) fn text(&self, ask: Ask) -> String {
        let (mut lines, mut running) = (String::new(), 0);
        for cell in &self.run.cells {
            for (name, package) in &cell.packages {
                // In turn on several machines it is one line each.
                for (index, shard) in package.shards.iter().enumerate().filter(|(_, it)| it.ended.is_none()) {
                    running += 1;
                    let tests = running_in(package, index);
                    let since = tests.iter().map(|(_, since)| *since).max().unwrap_or(shard.started_ms);
                    let named = match tests.is_empty() {
                        true => PACKAGE_ENTRY.to_owned(),
                        false => tests.iter().map(|(test, _)| escape(test)).collect::<Vec<_>>().join(", "),
                    };
                    let text = format!(
                        "{} {}",
                        self.paint.role(Role::Package, &escape(name)),
                        self.paint.role(Role::Test, &named)
                    );
                    let ran = self.elapsed_ms.saturating_sub(since);
                    lines +=
                        &self.paint.line(Verb::plain("RUNNING"), ran, &escape(&cell.id.to_string()), &text);
                    if ask == Ask::Tests {
                        lines += &self.last_words(&cell.id, name, shard.attempt);
                    }
                }
            }
        }
        let waiting = self.run.cells.iter().filter(|cell| waits(cell)).count() as u64;
        let mut text = format!("{} ended, {running} running", plural(self.ended() as u64, "package run"));
        if waiting > 0 {
            text += &format!(", {} not up yet", plural(waiting, "cell"));
        }
        let (ended, bad) = self.results();
        text += &format!("; {} ended, {bad} not well", plural(ended, "test"));
        format!("{}{lines}", self.paint.line(Verb::plain("NOW"), self.elapsed_ms, "", &text))
    }

    fn packages(&self) -> impl Iterator<Item = &Package> {
        self.run.cells.iter().flat_map(|cell| cell.packages.values())
    }

    fn ended(&self) -> usize {
        self.packages().flat_map(|package| &package.shards).filter(|shard| shard.ended.is_some()).count()
    }

    /// Tests that have a result, and those of them whose last one is bad.
    fn results(&self) -> (u64, u64) {
        let plain: usize = self.packages().map(|package| package.tests.plain_count()).sum();
        let attempts = self.packages().flat_map(|package| package.tests.odd().values());
        let last = attempts.filter_map(|all| all.iter().rev().find_map(|attempt| attempt.ended.as_ref()));
        last.fold((plain as u64, 0), |(all, bad), ended| (all + 1, bad + u64::from(!is_good(ended.result))))
    }

    /// The end of what a package printed so far.
    fn last_words(&self, cell: &CellId, package: &str, attempt: u32) -> String {
        let text = (self.tail)(cell, package, attempt);
        let all: Vec<String> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
        let last = all.iter().rev().take(LINES).rev();
        last.fold(String::new(), |text, line| {
            text + &format!("{:26}{}\n", "", self.paint.role(Role::Dim, line))
        })
    }
}

/// A line of a test binary without the frame that Go 1.20 gives it.
fn plain(line: &str) -> String {
    escape_line(line.trim_start_matches('\x16'))
}

/// The innermost tests that run in a shard, and since when.
fn running_in(package: &Package, shard: usize) -> Vec<(&str, u64)> {
    let open = |name: &str| {
        let attempt =
            package.tests.odd().get(name)?.iter().rev().find(|attempt| attempt.shard == Some(shard))?;
        attempt.ended.is_none().then_some(attempt.started_ms)
    };
    let running: Vec<(&str, u64)> =
        package.tests.odd().keys().filter_map(|name| Some((name.as_str(), open(name)?))).collect();
    let below = |name: &str| {
        running.iter().any(|(other, _)| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
    };
    running.iter().filter(|(name, _)| !below(name)).copied().collect()
}

/// Whether nothing has run in a cell yet, and may.
fn waits(cell: &Cell) -> bool {
    cell.failed.is_none() && cell.skipped.is_none() && !cell.started()
}
