//! `explain`: why a pipeline, a run or a folder of artifacts is red.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kmt_reporters::event::Arch;
use kmt_reporters::explain::terminal::Look;
use kmt_reporters::explain::{Explanation, Mark, Place, html, markdown, terminal};

use super::print;
use crate::cli::{self, ExplainFormat};
use crate::error::{Failure, Kind, Result};
use crate::external::ci::Id;
use crate::external::process::Child;
use crate::machine::copy::shell_quoted;
use crate::matrix::pipeline::{Tests, coalesced};
use crate::settings::{Settings, Wishes, ci};
use crate::triage::entries::Entry;
use crate::triage::names::Names;
use crate::triage::pipeline::Reader;
use crate::triage::store::Store;
use crate::triage::{folder, run};
use crate::world;

/// Explains what was named.
///
/// # Errors
/// It does not exist, or the server does not give it.
pub(super) async fn explain(args: &cli::Explain, wishes: &Wishes) -> Result<u8> {
    let settings = Settings::load(wishes)?;
    let names = Names::new(&settings.config.gitlab)?;
    let told = match subject(args.subject.as_deref().or(args.pipeline.as_deref()), &settings)? {
        Subject::Run(folder) => of_run(&folder)?,
        Subject::Folder(folder) => folder::read(&folder, &names)?.told,
        Subject::Pipeline(id) => of_pipeline(id, &settings, &names).await?,
    };
    tell(&told, args)
}

/// What is explained.
enum Subject {
    Pipeline(Option<Id>),
    Run(PathBuf),
    Folder(PathBuf),
}

fn subject(word: Option<&str>, settings: &Settings) -> Result<Subject> {
    let Some(word) = word else { return Ok(Subject::Pipeline(None)) };
    let path = Path::new(word);
    if path.exists() && !word.chars().all(|c| c.is_ascii_digit()) {
        let is_run = path.join("events.jsonl").is_file();
        return Ok(if is_run {
            Subject::Run(path.to_path_buf())
        } else {
            Subject::Folder(path.to_path_buf())
        });
    }
    if let Some(id) = pipeline_number(word) {
        return Ok(Subject::Pipeline(Some(id)));
    }
    let run = settings.home.runs().join(word);
    let one_name = path.components().count() == 1;
    if one_name && run.join("events.jsonl").is_file() {
        return Ok(Subject::Run(run));
    }
    Err(Failure::usage(format!("`{word}` is no pipeline, run or folder"))
        .hint("a pipeline is a number or its address; `latest` is the newest run"))
}

/// The number in `123`, `#123` or `https://host/project/-/pipelines/123`.
pub(super) fn pipeline_number(word: &str) -> Option<Id> {
    let number = match word.split_once("/pipelines/") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next()?,
        None => word.trim_start_matches('#'),
    };
    number.parse().ok()
}

fn of_run(folder: &Path) -> Result<Explanation> {
    let log = folder.join("events.jsonl");
    let recorded = run::read(&log).map_err(|error| Failure::usage(format!("`{}` {error}", log.display())))?;
    let output = kmt_reporters::RunDirectory(folder.to_path_buf());
    Ok(run::explained(&recorded, &output).1)
}

async fn of_pipeline(id: Option<Id>, settings: &Settings, names: &Names) -> Result<Explanation> {
    let store = store(settings).await?;
    let id = match id {
        Some(id) => id,
        None => newest(&store, settings).await?,
    };
    let read = Reader::new(&store, names).read(id).await?;
    let reproduce = reproduce(&read.entries);
    Ok(read.explanation(&store, reproduce))
}

/// The store of the project's pipelines.
///
/// # Errors
/// Nothing says which project it is.
pub(super) async fn store(settings: &Settings) -> Result<Store> {
    let root = &settings.root.value;
    let around = ci::Surroundings::look(root).await;
    let access = ci::resolve(&settings.config.gitlab, root, &ci::variable, &around)?;
    let ci = world::ci(&access).map_err(|error| Failure::outside(Kind::Ci, &error))?;
    Ok(Store::new(ci, settings.home.cache()))
}

/// The newest pipeline of the branch that is checked out.
pub(super) async fn newest(store: &Store, settings: &Settings) -> Result<Id> {
    let git = Child::new("git").arg("-C").arg(&settings.root.value);
    let branch = match ci::variable("CI_COMMIT_REF_NAME") {
        Some(branch) => branch,
        None => match git.args(["symbolic-ref", "--quiet", "--short", "HEAD"]).success().await {
            Ok(output) => output.text().trim().to_owned(),
            Err(_) => {
                return Err(Failure::usage("there is no branch whose pipeline could be meant")
                    .hint("name a pipeline"));
            }
        },
    };
    let id = store.ci().newest(&branch).await.map_err(|error| Failure::outside(Kind::Ci, &error))?;
    id.ok_or_else(|| {
        Failure::new(Kind::Ci, format!("branch `{branch}` has no pipeline in {}", store.ci().place()))
            .hint("push it, or name a pipeline")
    })
}

/// Machines that a command names.
const MACHINES: usize = 3;

/// The commands that run what failed: one a package, on machines as near as can be.
fn reproduce(entries: &[Entry]) -> Vec<String> {
    let mut failed: BTreeMap<(&str, &str), (Tests, BTreeSet<&Place>)> = BTreeMap::new();
    for entry in entries {
        let results = entry.results.iter().flat_map(|results| &results.tests);
        for ((package, test), _) in results.filter(|(_, outcome)| outcome.mark == Mark::Fail) {
            let (tests, places) = failed.entry((&entry.component, package)).or_default();
            tests.failed.insert(test.clone());
            places.insert(&entry.place);
        }
    }
    for entry in entries {
        for ((package, test), outcome) in entry.results.iter().flat_map(|results| &results.tests) {
            if let Some((tests, _)) = failed.get_mut(&(entry.component.as_str(), package.as_str()))
                && outcome.mark == Mark::Pass
            {
                tests.passed.insert(test.clone());
            }
        }
    }
    let commands = failed.into_iter().map(|((component, package), (tests, places))| {
        let patterns = coalesced(&tests).join("|");
        let run =
            if patterns.is_empty() { String::new() } else { format!(" --run {}", shell_quoted(&patterns)) };
        let package = shell_quoted(&format!("./{package}"));
        let component = shell_quoted(component);
        let machines = shell_quoted(&machines(places));
        format!("kmt-run run --component {component} --vms {machines} --packages {package}{run}")
    });
    commands.collect()
}

/// Machines in the short form: those of this machine's architecture first.
fn machines(places: BTreeSet<&Place>) -> String {
    let mut places: Vec<&Place> = places.into_iter().collect();
    places.sort_by_key(|place| place.arch != Arch::host());
    let near = places.first().map(|place| place.arch);
    let named = places.into_iter().filter(|place| Some(place.arch) == near).take(MACHINES).map(|place| {
        let arch = if place.arch == Arch::host() { "local" } else { place.arch.as_str() };
        format!("{}-{arch}-distro", place.platform)
    });
    named.collect::<Vec<_>>().join(",")
}

fn tell(told: &Explanation, args: &cli::Explain) -> Result<u8> {
    let text = match args.format {
        ExplainFormat::Human => {
            let style = super::reports::style(args.output.is_none());
            terminal::render(told, Look { color: style.color, unicode: style.unicode })
        }
        ExplainFormat::Markdown => markdown::render(told),
        ExplainFormat::Html => html::render(told),
        ExplainFormat::Json => {
            let value = serde_json::to_value(told);
            let value =
                value.map_err(|error| Failure::new(Kind::Internal, "cannot write JSON").caused_by(error))?;
            format!("{value:#}\n")
        }
    };
    match &args.output {
        Some(path) => {
            std::fs::write(path, text).map_err(|error| Failure::file("write", path, &error))?;
            Ok(0)
        }
        None => print(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_a_number_or_an_address() {
        assert_eq!(pipeline_number("#12"), Some(12));
        assert_eq!(pipeline_number("https://git/x/y/-/pipelines/77/builds"), Some(77));
        assert_eq!(pipeline_number("latest"), None);
    }
}
