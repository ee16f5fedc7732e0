//! The check of a host of the user's own: whether it can be used, and as what.

use super::{LITTLE, TOO_LITTLE, fine, note, wrong};
use crate::doctor::{OwnHost, Verdict};
use crate::error::Failure;
use crate::external::hypervisor::Accelerator;

const CHECK: &str = "host";

/// What one host shows: why it cannot be used, or what it is with what is worth knowing.
pub(super) fn host(own: &OwnHost) -> Verdict {
    let who = format!("{} ({})", own.name, own.place);
    let (facts, free) = match &own.seen {
        Ok(seen) => seen,
        Err(failure) => {
            let mend = failure.hints.first().cloned().unwrap_or_else(|| format!("ssh {}", own.place));
            let why = Failure { hints: Vec::new(), ..failure.clone() }.one_line();
            return wrong(CHECK, format!("{who}: {why}"), mend);
        }
    };
    let folder = own.folder.display();
    let is = format!("{who}: {}, {} processors, {} MiB free", facts.arch, facts.cores, facts.memory_mib);
    match free {
        Some(free) if *free < TOO_LITTLE => {
            let mend = format!("ssh {} du -sh {folder}; or `folder = …` of its `[[host]]`", own.place);
            return wrong(CHECK, format!("{who}: {free} MiB free at {folder}"), mend);
        }
        Some(free) if *free < LITTLE => {
            return note(CHECK, format!("{who}: only {free} MiB free at {folder}"), None);
        }
        _ => {}
    }
    match (&facts.acceleration.notice, facts.acceleration.accelerator) {
        (Some(notice), _) => note(CHECK, format!("{is}; {notice}"), None),
        (None, Accelerator::Tcg) => note(CHECK, format!("{is}; guests are emulated (TCG)"), None),
        (None, accelerator) => fine(CHECK, format!("{is}; {} ran a guest", accelerator.as_str())),
    }
}
