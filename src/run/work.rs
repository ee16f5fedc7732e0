//! The work of one cell: tasks that wait, tasks that are done now, and who may have the next one.
//!
//! Shared by the lanes of the cell: an idle lane takes what comes next, whoever it was meant for. A lane that finds
//! nothing waits as long as another one works, since what that one leaves undone may be for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, sleep_until};

use super::groups::{Entry, Groups};
use super::task::{Executed, Next, Task, Tries, next};
use crate::settings::profile::Retries;

/// How soon a package that its group holds back asks again.
const HELD_BACK: Duration = Duration::from_millis(50);

/// How many machines may fail to say which tests there are.
const UNSPLIT: u32 = 3;

/// Work of one cell.
#[derive(Debug)]
pub struct Work {
    rules: Retries,
    groups: Groups,
    /// Until when what passed is done again.
    stress: Option<Instant>,
    inner: Mutex<Inner>,
    changed: Notify,
    /// Set once the tasks are split, where they are to be.
    split: OnceCell<()>,
}

/// A task to be executed now.
#[derive(Debug)]
pub struct Taken {
    /// The task.
    pub task: Task,
    /// Which execution of its package this is, from 1.
    pub number: u32,
    _entry: Entry,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Task>,
    working: u32,
    executions: BTreeMap<String, u32>,
    unsplit: u32,
    tries: Tries,
}

impl Work {
    /// Tasks in the order in which they are to begin; those that want to be alone come last. Where `stress` says until
    /// when, what passed is done again.
    pub fn new(tasks: Vec<Task>, rules: Retries, groups: Groups, stress: Option<Instant>) -> Work {
        let mut waiting = tasks;
        waiting.sort_by_key(|task| groups.is_exclusive(&task.package));
        let inner = Mutex::new(Inner { waiting, ..Inner::default() });
        Work { rules, groups, stress, inner, changed: Notify::new(), split: OnceCell::new() }
    }

    /// Splits the tasks, once, whoever comes first: `by` gets whole packages and gives what is to be done instead.
    ///
    /// # Errors
    /// What `by` says; the next one tries again.
    pub async fn split<E>(
        &self,
        by: impl AsyncFnOnce(Vec<Task>) -> std::result::Result<Vec<Task>, E>,
    ) -> std::result::Result<(), E> {
        let done = self.split.get_or_try_init(|| async {
            let whole = self.inner().waiting.clone();
            let mut parts = by(whole).await?;
            parts.sort_by_key(|task| self.groups.is_exclusive(&task.package));
            self.inner().waiting = parts;
            Ok(())
        });
        let done = done.await.copied();
        if done.is_err() {
            let mut inner = self.inner();
            inner.unsplit += 1;
            // Several machines that do not answer are no accident: what was planned is told as missing.
            if inner.unsplit >= UNSPLIT {
                inner.waiting.clear();
            }
        }
        self.changed.notify_waiters();
        done
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing waits and nobody works.
    pub fn is_over(&self) -> bool {
        let inner = self.inner();
        inner.waiting.is_empty() && inner.working == 0
    }

    /// The next task; `None` when all is over. Whoever takes one says so by [`Work::done`].
    pub async fn next(&self) -> Option<Taken> {
        loop {
            let changed = self.changed.notified();
            let pause = {
                let mut inner = self.inner();
                let now = Instant::now();
                let ready = |task: &Task| task.not_before.is_none_or(|at| at <= now);
                let mut held_back = false;
                let free = inner.waiting.iter().enumerate().filter(|(_, task)| ready(task)).find_map(
                    |(at, task)| {
                        let entry = self.groups.enter(&task.package);
                        held_back |= entry.is_none();
                        entry.map(|entry| (at, entry))
                    },
                );
                if let Some((at, entry)) = free {
                    let task = inner.waiting.remove(at);
                    inner.working += 1;
                    let number = inner.executions.entry(task.package.clone()).or_default();
                    *number += 1;
                    return Some(Taken { number: *number, task, _entry: entry });
                }
                if inner.waiting.is_empty() && inner.working == 0 {
                    self.changed.notify_waiters();
                    return None;
                }
                // Groups are let in again by other cells, which do not tell.
                let again = held_back.then(|| now + HELD_BACK);
                inner
                    .waiting
                    .iter()
                    .filter_map(|task| task.not_before)
                    .filter(|at| *at > now)
                    .chain(again)
                    .min()
            };
            match pause {
                Some(pause) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(pause) => {}
                },
                None => changed.await,
            }
        }
    }

    /// A task was executed: decides what follows, and takes it in. What goes on comes first, what is tried again last.
    pub fn done(&self, task: &Task, executed: &Executed<'_>) -> Next {
        let mut inner = self.inner();
        let next = next(task, executed, &self.rules, &mut inner.tries);
        inner.working = inner.working.saturating_sub(1);
        let well = executed.cut.is_empty() && executed.tallies.values().all(|tally| !tally.failed);
        if well && next.rest.is_empty() && self.stress.is_some_and(|until| Instant::now() < until) {
            inner.waiting.push(Task { spent: Duration::ZERO, ..task.clone() });
        }
        inner.waiting.splice(0..0, next.rest.iter().map(|(task, _)| task.clone()));
        inner.waiting.extend(next.again.iter().map(|(task, _)| task.clone()));
        drop(inner);
        self.changed.notify_waiters();
        next
    }

    /// A task was taken and cannot be executed.
    pub fn dropped(&self) {
        let mut inner = self.inner();
        inner.working = inner.working.saturating_sub(1);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Whether a test that fails now by its own word has another attempt.
    pub fn has_another(&self, package: &str, test: &str, raced: bool) -> bool {
        self.inner().tries.has_another(package, test, raced, &self.rules)
    }
}
