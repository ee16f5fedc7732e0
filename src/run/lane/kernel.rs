//! The kernel below the tests: what it complains of while they run, and what is left of it at the end.

use std::sync::PoisonError;
use std::time::Duration;

use kmt_reporters::event::{Event, EventSink as _};
use regex::Regex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Aftermath, Lane};
use crate::run::kmsg::{Complaint, FOLLOW, Follower, counts, is_harmless, is_out_of_memory};

/// After so long without a record a complaint is complete.
const QUIET: Duration = Duration::from_millis(700);

/// A complaint that `kmt.toml` allows.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// What its title, signature or a line of it is like.
    pub pattern: Regex,
    /// Why.
    pub reason: String,
    /// Where more is said.
    pub link: Option<String>,
    /// Its last day, once that is over: it allows nothing any more.
    pub expired: Option<String>,
}

impl Lane<'_> {
    /// Follows the kernel's log until `done` says what the work has left of the machine.
    pub async fn watch_kernel(&self, mut done: watch::Receiver<Option<Aftermath>>) {
        let connection = self.guest.connection.as_ref();
        let log = format!("{}/dev/kmsg", connection.prefix());
        let question = ["test", "-r", log.as_str()];
        let readable = tokio::select! {
            readable = connection.run(&question, Vec::new()) => readable.is_ok_and(|output| output.status == Some(0)),
            _ = done.wait_for(Option::is_some) => return,
        };
        let pidfile = format!("{}/run/kmt/{}.pid", connection.prefix(), uuid::Uuid::new_v4().simple());
        if !readable {
            return;
        }
        let Ok(mut stream) = connection.stream(&["sh", "-c", FOLLOW, "sh", &pidfile, &log], Vec::new()).await
        else {
            return;
        };
        let mut follower = Follower::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut ending = false;
        loop {
            let patience = if ending { self.deadlines.signal } else { QUIET };
            let read = tokio::select! {
                read = timeout(patience, stream.read(&mut buffer)) => read,
                left = done.wait_for(Option::is_some), if !ending => {
                    ending = true;
                    if left.is_ok_and(|left| *left == Some(Aftermath::Lost)) {
                        break;
                    }
                    // What the kernel said at the very end is still on its way.
                    tokio::time::sleep(QUIET / 7).await;
                    self.signal("KILL", &pidfile).await;
                    continue;
                }
            };
            let complaints = match read {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(count)) => {
                    let now = Instant::now();
                    let mut complaints = follower.feed(&buffer[..count], now);
                    complaints.extend(follower.is_quiet(QUIET, now).then(|| follower.quiet(now)).flatten());
                    complaints
                }
                Err(_) if ending => break,
                Err(_) => follower.quiet(Instant::now()).into_iter().collect(),
            };
            complaints.into_iter().for_each(|complaint| self.complain(complaint));
        }
        follower.quiet(Instant::now()).into_iter().for_each(|complaint| self.complain(complaint));
    }

    /// What the kernel said when it ended a program for want of memory, since then. It may still be on its way.
    pub(super) async fn out_of_memory(&self, since: Instant) -> Option<String> {
        let patience = Instant::now() + 2 * QUIET;
        loop {
            let said = self.starved.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some((_, title)) = said.filter(|(at, _)| *at >= since) {
                return Some(title);
            }
            if Instant::now() > patience {
                return None;
            }
            tokio::time::sleep(QUIET / 7).await;
        }
    }

    /// Tells of a complaint, and of the test that ran then.
    fn complain(&self, complaint: Complaint) {
        let Complaint { at, splat } = complaint;
        if is_out_of_memory(splat.kind) {
            *self.starved.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, splat.title));
            return;
        }
        if !counts(splat.kind) {
            return;
        }
        let (machine, cell) = (self.guest.machine.clone(), self.guest.cell.clone());
        let like = |allowed: &&Allowed| {
            let texts = [&splat.title, &splat.signature].into_iter().chain(&splat.lines);
            texts.into_iter().any(|text| allowed.pattern.is_match(text))
        };
        let allowed = self.allowed.iter().find(like);
        if let Some(Allowed { reason, link, expired: None, .. }) = allowed {
            let (reason, link) = (reason.clone(), link.clone());
            self.record.emit(Event::SplatAllowed { machine, cell, signature: splat.title, reason, link });
            return;
        }
        if let Some(Allowed { reason, expired: Some(day), .. }) = allowed {
            let message = format!("{}: it was allowed until {day} ({reason})", splat.title);
            self.record.emit(Event::Warning { subject: machine.clone(), message });
        }
        let test_running = self.timeline().at(at).map(str::to_owned);
        if !is_harmless(splat.kind) {
            self.tainted.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        self.record.emit(Event::SplatSeen {
            machine,
            cell,
            signature: splat.title,
            excerpt: splat.lines,
            test_running,
        });
    }
}
