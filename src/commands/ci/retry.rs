//! `ci retry`: what failed in a pipeline, again, in the right order.

use serde_json::json;

use super::super::explain::{newest, pipeline_number, store};
use super::super::{print_json, say};
use crate::cli::{Format, Retry};
use crate::error::{Failure, Kind, Result};
use crate::external::Class;
use crate::external::ci::Ci;
use crate::settings::{Settings, Wishes};
use crate::triage::again::{self, Step};
use crate::triage::names::Names;
use crate::triage::pipeline::Reader;

/// Retries. A job that the server does not retry is told, and the others go on.
///
/// # Errors
/// The pipeline is not to be had, the token may not retry, or not one job could be.
pub(super) async fn retry(args: &Retry, wishes: &Wishes) -> Result<u8> {
    let settings = Settings::load(wishes)?;
    let names = Names::new(&settings.config.gitlab)?;
    let store = store(&settings).await?;
    let id = match args.pipeline.as_deref() {
        Some(word) => pipeline_number(word).ok_or_else(|| {
            Failure::usage(format!("`{word}` is no pipeline")).hint("a pipeline is a number or its address")
        })?,
        None => newest(&store, &settings).await?,
    };
    let (_, mut jobs) = Reader::new(&store, &names).jobs(id, &mut Vec::new()).await?;
    if let Some(component) = &args.component {
        jobs.ours.retain(|job| job.named.component == *component);
    }
    let steps = again::steps(&jobs);
    let mut rows = Vec::new();
    let mut done = 0;
    for step in &steps {
        let (word, job, name) = match step {
            Step::Cancel(job, name) => ("cancel", *job, name),
            Step::Retry(job, name) => ("retry", *job, name),
        };
        let result = if args.dry_run { Ok("not done".to_owned()) } else { act(store.ci(), step).await? };
        done += usize::from(result.is_ok());
        let result = result.unwrap_or_else(|refused| format!("refused: {refused}"));
        if args.format == Format::Human {
            let line = format!(
                "{word:>12} {} ({job}): {}",
                kmt_reporters::escape(name),
                kmt_reporters::escape(&result)
            );
            say(&line);
        }
        rows.push(json!({"do": word, "job": job, "name": name, "result": result}));
    }
    if args.format == Format::Json {
        print_json(&json!({"schema": 1, "pipeline": id, "steps": rows}))?;
    } else if steps.is_empty() {
        say(&format!("{:>12} of pipeline {id} is left to run again", "Nothing"));
    }
    if done == 0 && !steps.is_empty() {
        return Err(Failure::new(Kind::Ci, format!("no job of pipeline {id} was retried"))
            .hint("the token needs scope `api`, and its owner must be allowed to run jobs"));
    }
    Ok(0)
}

/// One step; the inner error is a job that is in no state for it, which is passed over.
async fn act(ci: &dyn Ci, step: &Step) -> Result<std::result::Result<String, String>> {
    let result = match step {
        Step::Cancel(job, _) => ci.cancel(*job).await,
        Step::Retry(job, _) => ci.retry(*job).await,
    };
    match result {
        Ok(job) => Ok(Ok(format!("job {} is {}", job.id, job.status))),
        Err(error)
            if matches!(error.class, Class::Rejected | Class::NotFound)
                || error.detail.contains("not retryable")
                || error.detail.contains("not cancelable") =>
        {
            Ok(Err(error.detail))
        }
        Err(error) => Err(Failure::outside(Kind::Ci, &error)),
    }
}
