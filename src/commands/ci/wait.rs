//! `ci wait`: until the setup jobs of a pipeline are done.

use std::time::Instant;

use super::super::explain::{pipeline_number, store};
use super::super::say;
use crate::cli::Wait;
use crate::error::{Failure, Kind, Result};
use crate::external::ci::Status;
use crate::settings::gitlab::Role;
use crate::settings::{Settings, Wishes, ci};
use crate::triage::jobs::{Attempts, Jobs};
use crate::triage::names::Names;
use crate::triage::pipeline::Reader;

/// Waits. A line tells what changed since the last look.
///
/// # Errors
/// A job failed (102); it takes too long, or there is no such job (103).
pub(super) async fn wait(args: &Wait, wishes: &Wishes) -> Result<u8> {
    let settings = Settings::load(wishes)?;
    let names = Names::new(&settings.config.gitlab)?;
    let word = args.pipeline.clone().or_else(|| ci::variable("CI_PIPELINE_ID"));
    let id = word.as_deref().and_then(pipeline_number).ok_or_else(|| {
        Failure::usage("which pipeline?").hint("`--pipeline ID`; in a job CI_PIPELINE_ID says it")
    })?;
    let store = store(&settings).await?;
    let reader = Reader::new(&store, &names);
    let (begun, mut told) = (Instant::now(), String::new());
    loop {
        let (_, jobs) = reader.jobs(id, &mut Vec::new()).await?;
        let meant = meant(&jobs, args);
        if meant.is_empty() {
            let what = if args.jobs.is_empty() { "setup job".to_owned() } else { args.jobs.join(", ") };
            return Err(Failure::new(Kind::Ci, format!("pipeline {id} has no such job: {what}")).hint(
                "`--component` and `--arch` narrow it; `[[gitlab.job]]` of kmt.toml says which jobs set up",
            ));
        }
        let state: Vec<String> =
            meant.iter().map(|job| format!("{} is {}", job.latest().name, job.latest().status)).collect();
        if told != state.join(", ") {
            told = state.join(", ");
            say(&format!("{:>12} {}", "Waiting", kmt_reporters::escape(&told)));
        }
        if let Some(bad) = meant.iter().find(|job| is_lost(&job.latest().status)) {
            let job = bad.latest();
            let reason = job.failure_reason.clone().unwrap_or_else(|| job.status.to_string());
            return Err(Failure::new(
                Kind::Infrastructure,
                format!("`{}` will not be ready: {reason}", job.name),
            )
            .hint(format!("kmt-run explain {id}; kmt-run ci retry {id}")));
        }
        if meant.iter().all(|job| job.latest().status == Status::Success) {
            return Ok(0);
        }
        if begun.elapsed() + args.interval > args.timeout {
            let minutes = args.timeout.as_secs() / 60;
            return Err(Failure::new(Kind::Ci, format!("not ready after {minutes} minutes: {told}"))
                .hint("`--timeout` waits longer"));
        }
        tokio::time::sleep(args.interval).await;
    }
}

fn is_lost(status: &Status) -> bool {
    status.is_final() && *status != Status::Success
}

fn meant<'j>(jobs: &'j Jobs, args: &Wait) -> Vec<&'j Attempts> {
    let chosen = jobs.ours.iter().filter(|job| {
        let name = &job.latest().name;
        let named = args.jobs.iter().any(|part| name.contains(part.as_str()));
        if args.jobs.is_empty() { job.named.role == Role::Setup } else { named }
    });
    chosen
        .filter(|job| args.component.as_ref().is_none_or(|name| job.named.component == *name))
        .filter(|job| args.arch.is_none_or(|arch| job.named.arch.is_none_or(|own| own == arch)))
        .collect()
}
