//! The work of one cell: tasks that wait, tasks that are done now, and who may have the next one.
//!
//! Shared by the lanes of the cell: an idle lane takes what comes next, whoever it was meant for. A lane that finds
//! nothing waits as long as another one works, since what that one leaves undone may be for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::task::{Executed, Next, Task, Tries, next};
use crate::settings::profile::Retries;

/// Work of one cell.
#[derive(Debug)]
pub struct Work {
    rules: Retries,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Task>,
    working: u32,
    executions: BTreeMap<String, u32>,
    tries: Tries,
}

impl Work {
    /// Tasks in the order in which they are to begin.
    pub fn new(tasks: Vec<Task>, rules: Retries) -> Work {
        Work {
            rules,
            inner: Mutex::new(Inner { waiting: tasks, ..Inner::default() }),
            changed: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing waits and nobody works.
    pub fn is_over(&self) -> bool {
        let inner = self.inner();
        inner.waiting.is_empty() && inner.working == 0
    }

    /// The next task and which execution of its package it is, from 1; `None` when all is over. Whoever takes one says
    /// so by [`Work::done`].
    pub async fn next(&self) -> Option<(Task, u32)> {
        loop {
            let changed = self.changed.notified();
            let pause = {
                let mut inner = self.inner();
                let now = Instant::now();
                let ready = inner.waiting.iter().position(|task| task.not_before.is_none_or(|at| at <= now));
                if let Some(at) = ready {
                    let task = inner.waiting.remove(at);
                    inner.working += 1;
                    let number = inner.executions.entry(task.package.clone()).or_default();
                    *number += 1;
                    return Some((task, *number));
                }
                if inner.waiting.is_empty() && inner.working == 0 {
                    self.changed.notify_waiters();
                    return None;
                }
                inner.waiting.iter().filter_map(|task| task.not_before).min()
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
