//! `ci emit`: the child pipeline of a matrix, as YAML.

use super::super::reproduce::quoted;
use super::super::{Open, from_ci, print, source};
use crate::cli::{Emit, Selection};
use crate::error::{Failure, Result};
use crate::plan::child::{BuildJob, Child, Split};
use crate::settings::Wishes;

/// Prints the pipeline. The same matrix gives the same bytes.
///
/// # Errors
/// A matrix that is none; nothing selected.
pub(super) async fn emit(mut args: Emit, wishes: Wishes, open: Open<'_>) -> Result<u8> {
    from_ci::fill(&mut args.selection, &wishes, open).await?;
    let folder = wishes.folder.clone();
    let places = source::resolve_places(&args.selection, wishes).await?;
    if places.cells.is_empty() {
        return Err(source::nothing_selected(&args.selection, &places.stack));
    }
    let cells = places.cells.iter().map(|(cell, _)| (cell.id.clone(), quoted(&cell.id.to_string())));
    let split = match args.parallel {
        Some(count) => Split::Parts(count),
        None => Split::Cells(cells.collect()),
    };
    let program = match folder {
        Some(folder) => format!("{} -C {}", args.program, quoted(&folder.to_string_lossy())),
        None => args.program.clone(),
    };
    let child = Child {
        program,
        source: words(&args.selection)?,
        split,
        build: if args.no_build_job { BuildJob::Each } else { BuildJob::Once },
        tags: args.tags.clone(),
        image: args.image.clone(),
        minutes: args.job_timeout.as_secs().div_ceil(60).max(1),
        expire: args.expire.clone(),
    };
    let text = child.yaml();
    match &args.output {
        Some(path) if std::fs::read_to_string(path).is_ok_and(|there| there == text) => Ok(0),
        Some(path) => {
            std::fs::write(path, text).map_err(|error| Failure::file("write", path, &error))?;
            Ok(0)
        }
        None => print(text.as_bytes()),
    }
}

/// What names the matrix in the jobs: the words that were typed, as a shell takes them.
fn words(selection: &Selection) -> Result<String> {
    let mut words: Vec<String> = Vec::new();
    if let Some(path) = &selection.matrix {
        words.push(quoted(&path.to_string_lossy()));
    }
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), quoted(&value)]);
    if let Some(path) = &selection.vmsets {
        option("vmsets", path.to_string_lossy().into_owned());
    }
    if let Some(pipeline) = &selection.pipeline.from_ci_pipeline {
        return Err(Failure::usage(format!(
            "a child pipeline of what failed in `{pipeline}` cannot be written"
        ))
        .hint("`kmt-run ci retry` runs again what failed in a pipeline"));
    }
    for (name, list) in
        [("vms", &selection.vms), ("distro", &selection.distro), ("packages", &selection.packages)]
    {
        if !list.is_empty() {
            option(name, list.join(","));
        }
    }
    if let Some(kernel) = &selection.kernel {
        option("kernel", kernel.clone());
    }
    if !selection.arch.is_empty() {
        let names: Vec<&str> = selection.arch.iter().map(|arch| arch.as_str()).collect();
        option("arch", names.join(","));
    }
    for expression in &selection.filter_expr {
        option("filter-expr", expression.clone());
    }
    if let Some(component) = &selection.component {
        option("component", component.clone());
    }
    if let Some(path) = &selection.packages_run_config {
        option("packages-run-config", path.to_string_lossy().into_owned());
    }
    Ok(words.join(" "))
}
