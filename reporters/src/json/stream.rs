//! The long lists of the file are made while it is written, so that no more of it than a test is held.

use std::borrow::Cow;

use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::{CellSummary, Summary, package_summary, test_summary};
use crate::mask::Masks;
use crate::model::{CellReport, PackageReport, Report, Run, TestReport};

/// All of the file.
pub(super) struct Whole<'r> {
    pub(super) report: &'r Report<'r>,
    pub(super) masks: &'r Masks,
}

struct Cell<'r>(&'r Run, &'r CellReport<'r>, &'r Masks);
struct Package<'r>(&'r PackageReport<'r>, &'r Masks);
struct Test<'r, 's>(Cow<'s, TestReport<'r>>, &'s Masks);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (run, masks) = (self.report.run, self.masks);
        let cells = List(|| self.report.cells.iter().map(move |cell| Cell(run, cell, masks)));
        with(serializer, masks, &Summary::new(self.report), "cells", &cells)
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Cell(run, cell, masks) = self;
        let packages = List(|| cell.packages.iter().map(|package| Package(package, masks)));
        with(serializer, masks, &CellSummary::new(run, cell), "packages", &packages)
    }
}

impl Serialize for Package<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Package(package, masks) = self;
        let tests = List(|| package.tests().map(|test| Test(test, masks)));
        with(serializer, masks, &package_summary(package), "tests", &tests)
    }
}

impl Serialize for Test<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = serde_json::to_value(test_summary(&self.0)).map_err(S::Error::custom)?;
        self.1.mask_json(value, &[]).serialize(serializer)
    }
}

/// What an iterator gives, one after the other.
struct List<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for List<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// The fields of `value`, masked; in the place of the one of that name stands `list`.
fn with<S: Serializer>(
    serializer: S,
    masks: &Masks,
    value: &impl Serialize,
    name: &str,
    list: &impl Serialize,
) -> Result<S::Ok, S::Error> {
    let value = serde_json::to_value(value).map_err(S::Error::custom)?;
    let fields = match masks.mask_json(value, &[]) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let name = masks.mask(name);
    let mut map = serializer.serialize_map(Some(fields.len()))?;
    for (key, value) in &fields {
        match *key == name {
            true => map.serialize_entry(key, list)?,
            false => map.serialize_entry(key, value)?,
        }
    }
    map.end()
}
