//! Which tests of a package run in a cell, with which words: flags, test sets and filter expressions together.

use std::collections::BTreeMap;

use kmt_reporters::event::CellId;

use super::preflight::variable;
use super::source::Source;
use crate::cli;
use crate::error::{Failure, Result};
use crate::matrix::select::TestChoice;
use crate::plan::Plan;
use crate::run::conduct::Tests;
use crate::run::container;
use crate::run::filter::{Filter, Filters};
use crate::run::words::Words;

/// Arguments and environment of test binaries: what the component, the matrix, a test set and flags say, the later
/// over the earlier.
///
/// # Errors
/// A variable that is not set, a value no guest can be given.
pub(super) fn words(args: &cli::Run, source: &Source, of_set: Option<SetWords>) -> Result<Words> {
    let (set_args, set_env) = of_set.unwrap_or_default();
    let mut env: BTreeMap<String, String> = source.component.test_env();
    env.extend(source.matrix.env.clone());
    env.extend(set_env);
    for word in &args.test_env {
        let (name, value) = variable(word)?;
        env.insert(name, value);
    }
    if let Some((name, _)) = env.iter().find(|(_, value)| value.contains('\0')) {
        return Err(Failure::usage(format!("the value of `{name}` contains a zero byte")));
    }
    let args = source.component.test_args.iter().chain(&set_args).chain(&args.test_arg).cloned().collect();
    Ok(Words { args, env: env.into_iter().collect() })
}

/// Arguments and environment that a test set has for a package.
pub(super) type SetWords = (Vec<String>, BTreeMap<String, String>);

/// Where test sets or a filter expression say more than the flags: which tests of a package run in a cell, and how.
///
/// # Errors
/// What `go test` cannot be told; two that both choose tests of a package, whose patterns are never glued; an
/// image no guest can be told.
pub(super) fn narrow(tests: &mut Tests, args: &cli::Run, source: &Source, plan: &Plan) -> Result<()> {
    for ((cell, _), (id, shards)) in source.cells.iter().zip(&plan.cells) {
        let set = source.matrix.sets.of(id);
        let left = source.choice.in_cell(cell);
        if let Some(image) = set.and_then(|set| set.container.as_ref()) {
            let step = container::step(&source.component, image).map_err(Failure::usage)?;
            tests.containers.engine = source.component.test_container.engine;
            tests.containers.steps.insert(id.clone(), step);
        }
        for package in plan.names(shards) {
            let Some(left) = left.as_ref().and_then(|left| left.in_package(package)) else { continue };
            let mut choice = Narrowed::new(package, &tests.filters.usual);
            if let Some((set, rule)) = set.and_then(|set| Some((set, set.rule_of(package)?))) {
                let name = match &id.set {
                    Some(name) => format!("test set `{name}`"),
                    None => "the run config".to_owned(),
                };
                choice.by(rule.tests(), &name)?;
                let of_set = set.words_for(rule);
                if !(of_set.0.is_empty() && of_set.1.is_empty()) {
                    let words = words(args, source, Some(of_set))?;
                    tests.words.special.insert((id.clone(), package.to_owned()), words);
                }
            }
            let of_expression = left.tests().map_err(|_| {
                Failure::usage(format!(
                    "the filter chooses tests of `{package}` in a way `go test` has no words for"
                ))
                .hint("at most one group of `test(…) | test(…)`, and any `& !test(…)`")
            })?;
            choice.by(of_expression, "`test()`")?;
            if choice.narrowed {
                tests.filters.special.insert((id.clone(), package.to_owned()), choice.filters);
            }
        }
    }
    narrow_again(tests, args, plan)
}

/// Where an earlier run is run again: only the tests of it that did not pass.
fn narrow_again(tests: &mut Tests, args: &cli::Run, plan: &Plan) -> Result<()> {
    let Some(again) = &args.selection.again else { return Ok(()) };
    for (cell, shards) in &plan.cells {
        for package in plan.names(shards) {
            if let Some(pattern) = again.pattern(cell, package) {
                by_pattern(tests, cell, package, pattern)?;
            }
            let Some(names) = again.tests(cell, package) else { continue };
            let mut filters = tests.filters.of(cell, package).clone();
            let only = filters.run.only(names.iter().map(String::as_str));
            filters.run = Filter::parse(&only).map_err(|error| Failure::usage(error.to_string()))?;
            tests.filters.special.insert((cell.clone(), package.to_owned()), filters);
        }
    }
    Ok(())
}

/// Where CI says which tests run: they do, and nobody else says it.
fn by_pattern(tests: &mut Tests, cell: &CellId, package: &str, pattern: &str) -> Result<()> {
    let mut filters = tests.filters.of(cell, package).clone();
    if !filters.run.as_str().is_empty() {
        return Err(Failure::usage(format!(
            "`--run` and what failed in CI both choose tests of `{package}`"
        ))
        .hint("`--test REGEXP` chooses among the tests that failed"));
    }
    filters.run = Filter::parse(pattern).map_err(|error| Failure::usage(error.to_string()))?;
    tests.filters.special.insert((cell.clone(), package.to_owned()), filters);
    Ok(())
}

/// The tests of a package, and who chose them.
struct Narrowed<'a> {
    package: &'a str,
    filters: Filters,
    /// Who said which tests run.
    run_by: String,
    narrowed: bool,
}

impl<'a> Narrowed<'a> {
    fn new(package: &'a str, usual: &Filters) -> Narrowed<'a> {
        Narrowed { package, filters: usual.clone(), run_by: "`--run`".to_owned(), narrowed: false }
    }

    /// One more chooses. What somebody skips is skipped; that two say what runs, one pattern of Go cannot tell.
    fn by(&mut self, choice: TestChoice, who: &str) -> Result<()> {
        let parsed = |text: &str| Filter::parse(text).map_err(|error| Failure::usage(error.to_string()));
        if let Some(run) = choice.run {
            if !self.filters.run.as_str().is_empty() {
                let what = format!("{} and {who} both choose tests of `{}`", self.run_by, self.package);
                return Err(Failure::usage(what).hint(
                    "say it in one of them; `-E '!set(NAME)'` leaves a test set out, `-E 'set(NAME)'` leaves only it",
                ));
            }
            self.filters.run = parsed(&run)?;
            who.clone_into(&mut self.run_by);
            self.narrowed = true;
        }
        if let Some(skip) = choice.skip {
            let known = self.filters.skip.as_ref().map(Filter::as_str);
            // Alternatives at the top stay alternatives for Go.
            self.filters.skip = Some(parsed(&known.map_or(skip.clone(), |known| format!("{known}|{skip}")))?);
            self.narrowed = true;
        }
        Ok(())
    }
}

/// Refuses a test set that leaves nothing of the packages, which would be green by absence.
///
/// # Errors
/// The set, and what there is.
pub(super) fn no_empty_set(source: &Source, packages: &[String]) -> Result<()> {
    for (name, set) in source.matrix.sets.named() {
        let used = source.cells.iter().any(|(cell, _)| cell.id.set.as_ref() == Some(name));
        if used && !packages.iter().any(|package| set.rule_of(package).is_some()) {
            let what = format!(
                "test set `{name}` leaves nothing of component `{}`, which has {} packages",
                source.component_name,
                packages.len()
            );
            let few: Vec<&str> = packages.iter().take(8).map(String::as_str).collect();
            return Err(Failure::usage(what).hint(format!("there are {}", few.join(", "))));
        }
    }
    Ok(())
}
