//! Test sets as a matrix file writes them, and the cells that have them.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::super::catalogue::Catalogue;
use super::super::select::Expression;
use super::super::sets::{self, Rule, TestSet, refused};
use super::super::spec::Resolved;
use super::super::{Cell, Complaint};
use super::Read;
use super::layer::Layer;
use crate::error::nearest;

/// A named part of the suite, for the cells that it says.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WrittenSet {
    /// Cells of the matrix that have it, as a filter expression such as `platform(ubuntu_22.04)`; all without it.
    #[schemars(with = "Option<String>")]
    pub(super) cells: Option<Spanned<String>>,
    /// Run config of the former tool (JSON), relative to this file, that says the rest.
    #[schemars(with = "Option<String>")]
    pub(super) import: Option<Spanned<String>>,
    /// What of which packages, by pattern: the longest that matches decides, and what none matches does not run.
    /// Without any, all of every package.
    #[serde(default)]
    pub(super) packages: BTreeMap<String, WrittenRule>,
    /// Arguments of every test binary.
    #[serde(default)]
    pub(super) args: Vec<String>,
    /// Environment of the tests, over the matrix's.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Image of a container in the guest that the tests run in.
    pub(super) container: Option<String>,
}

/// What of the packages that a pattern means.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WrittenRule {
    /// Only tests that one of these matches, as for `-test.run`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    run_only: Vec<Spanned<String>>,
    /// Without tests that one of these matches, as for `-test.skip`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    skip: Vec<Spanned<String>>,
    /// Not at all.
    #[serde(default)]
    exclude: bool,
    /// Arguments of their binaries, after those of the set.
    #[serde(default)]
    args: Vec<String>,
    /// Their environment, over the set's.
    #[serde(default)]
    env: BTreeMap<String, String>,
}

impl Layer {
    /// The test sets of the file; `folder` is where it lies.
    pub(super) fn test_sets(
        &self,
        folder: &Path,
        read: Read<'_>,
    ) -> Result<Vec<(String, TestSet)>, Complaint> {
        let one = |(name, written): (&String, &Spanned<WrittenSet>)| {
            if !sets::is_name(name) {
                let complaint =
                    self.complain(written.span(), &format!("`{name}` cannot be the name of a test set"));
                return Err(complaint.hint("letters, digits, `_`, `-` and `.`: it is part of cell ids"));
            }
            self.test_set(written, folder, read).map(|set| (name.clone(), set))
        };
        self.file.test_sets.iter().map(one).collect()
    }

    fn test_set(
        &self,
        at: &Spanned<WrittenSet>,
        folder: &Path,
        read: Read<'_>,
    ) -> Result<TestSet, Complaint> {
        let written = at.get_ref();
        let mut set = match &written.import {
            Some(name) if written.packages.is_empty() => {
                let path = super::plain(&folder.join(name.get_ref()));
                let text = read(&path).map_err(|unread| self.pass_on(name, unread).hint(super::RELATIVE))?;
                sets::json::parse(&path.display().to_string(), &text)?
            }
            Some(name) => {
                let complaint = self.complain(name.span(), "`import` and `packages` both say what runs");
                return Err(complaint.hint("`args`, `env` and `cells` may stand beside `import`"));
            }
            None => TestSet::of_rules(
                written
                    .packages
                    .iter()
                    .map(|(name, rule)| self.rule(name, rule))
                    .collect::<Result<_, _>>()?,
            ),
        };
        set.args.extend(written.args.iter().cloned());
        set.env.extend(written.env.clone());
        if written.container.is_some() {
            set.container.clone_from(&written.container);
        }
        Ok(set)
    }

    fn rule(&self, packages: &str, written: &WrittenRule) -> Result<Rule, Complaint> {
        let checked = |patterns: &[Spanned<String>]| match refused(
            patterns.iter().map(|pattern| pattern.get_ref().as_str()),
        ) {
            None => Ok(patterns.iter().map(|pattern| pattern.get_ref().clone()).collect()),
            Some((number, why)) => {
                let what = format!("not a test filter: {why}");
                let complaint = self.complain(patterns[number].span(), &what);
                Err(complaint.hint("each is a regular expression of Go, as for `-test.run`"))
            }
        };
        let mut rule = Rule::all_of(packages);
        rule.run_only = checked(&written.run_only)?;
        rule.skip = checked(&written.skip)?;
        rule.exclude = written.exclude;
        rule.args.clone_from(&written.args);
        rule.env.clone_from(&written.env);
        Ok(rule)
    }
}

/// A test set, and the cells that have it.
pub(super) struct SetOfCells<'a> {
    name: &'a str,
    layer: &'a Layer,
    /// As it is written, and as it is read.
    cells: Option<(&'a Spanned<String>, Expression)>,
}

impl<'a> SetOfCells<'a> {
    /// Reads which cells have the set.
    ///
    /// # Errors
    /// No filter expression, or one about more than cells.
    pub(super) fn new(
        name: &'a str,
        layer: &'a Layer,
        cells: Option<&'a Spanned<String>>,
        catalogue: &Catalogue,
    ) -> Result<SetOfCells<'a>, Complaint> {
        let read = |text: &'a Spanned<String>| {
            let read =
                Expression::parse(text.get_ref(), catalogue).map_err(|wrong| layer.pass_on(text, wrong))?;
            if read.is_about_tests() {
                let complaint = layer.complain(text.span(), "`cells` cannot speak of packages and tests");
                return Err(complaint.hint(
                    "`packages` of the set does: `packages.\"./pkg/...\" = { run-only = [\"TestA\"] }`",
                ));
            }
            Ok((text, read))
        };
        Ok(SetOfCells { name, layer, cells: cells.map(read).transpose()? })
    }

    fn has(&self, cell: &Cell) -> bool {
        self.cells.as_ref().is_none_or(|(_, wanted)| wanted.in_cell(cell).is_some())
    }
}

/// Every cell once with each set that has it; the cells themselves where there are no sets.
///
/// # Errors
/// A cell without a set, a set without a cell.
pub(super) fn times(cells: Vec<Resolved>, sets: &[SetOfCells<'_>]) -> Result<Vec<Resolved>, Complaint> {
    if sets.is_empty() {
        return Ok(cells);
    }
    for set in sets {
        if let Some((text, _)) = &set.cells
            && !cells.iter().any(|resolved| set.has(&resolved.cell))
        {
            let what = format!("no cell of the matrix has test set `{}`", set.name);
            return Err(set
                .layer
                .complain(text.span(), &what)
                .hint("a set that is needed no longer is better gone"));
        }
    }
    let mut all = Vec::with_capacity(cells.len() * sets.len());
    for resolved in cells {
        let before = all.len();
        for set in sets.iter().filter(|set| set.has(&resolved.cell)) {
            let mut with = resolved.clone();
            with.cell.id.set = Some(set.name.to_owned());
            if all.len() > before {
                // Said once.
                with.notices.clear();
            }
            all.push(with);
        }
        if all.len() == before
            && let Some((set, (text, _))) = sets.iter().find_map(|set| Some((set, set.cells.as_ref()?)))
        {
            let what = format!("cell `{}` has no test set", resolved.cell.id);
            let complaint = set.layer.complain(text.span(), &what);
            return Err(complaint.hint("widen `cells` of a set, or leave the cell out with `[[exclude]]`"));
        }
    }
    Ok(all)
}

/// The set of that name.
pub(super) fn set_named<'s>(
    layer: &Layer,
    name: &Spanned<String>,
    sets: &'s [SetOfCells<'_>],
) -> Result<&'s str, Complaint> {
    if let Some(set) = sets.iter().find(|set| set.name == name.get_ref()) {
        return Ok(set.name);
    }
    let complaint = layer.complain(name.span(), &format!("no test set `{}`", name.get_ref()));
    Err(match nearest(name.get_ref(), sets.iter().map(|set| set.name)) {
        Some(near) => complaint.hint(format!("did you mean `{near}`?")),
        None => complaint.hint("`[test-sets.NAME]` makes one"),
    })
}
