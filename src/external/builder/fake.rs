//! A builder for tests: it "compiles" by writing a unit's name, and is stricter than a toolchain.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::{BuildRequest, Builder, Unit, matches};
use crate::external::{Class, Error, Result};

/// Knows a fixed set of units.
#[derive(Debug, Default)]
pub struct FakeBuilder {
    units: Vec<Unit>,
    broken: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
    takes: BTreeMap<String, Duration>,
    compiled: Mutex<Vec<String>>,
}

impl FakeBuilder {
    /// Knows `units`.
    pub fn new(units: Vec<Unit>) -> FakeBuilder {
        FakeBuilder { units, ..FakeBuilder::default() }
    }

    /// The unit `name` does not compile, for the compiler's `words`.
    #[must_use]
    pub fn broken(mut self, name: &str, words: &str) -> FakeBuilder {
        self.broken.insert(name.to_owned(), words.to_owned());
        self
    }

    /// The unit `name` becomes a file with this text, instead of its name.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> FakeBuilder {
        self.texts.insert(name.to_owned(), text.to_owned());
        self
    }

    /// The compilation of the unit `name` takes so long.
    #[must_use]
    pub fn takes(mut self, name: &str, time: Duration) -> FakeBuilder {
        self.takes.insert(name.to_owned(), time);
        self
    }

    /// Names of the units compiled so far.
    pub fn compiled(&self) -> Vec<String> {
        self.compiled.lock().map(|names| names.clone()).unwrap_or_default()
    }
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn list(&self, request: &BuildRequest) -> Result<Vec<Unit>> {
        if !request.root.is_dir() {
            let root = request.root.display().to_string();
            return Err(Error::new("fake builder", "list", root, Class::NotFound, "no such folder"));
        }
        for pattern in &request.packages {
            if !self.units.iter().any(|unit| matches(pattern, &unit.name)) {
                return Err(Error::new(
                    "fake builder",
                    "list",
                    pattern,
                    Class::NotFound,
                    "matched no packages",
                ));
            }
        }
        Ok(self.units.iter().filter(|unit| request.wants(&unit.name)).cloned().collect())
    }

    async fn compile(&self, _request: &BuildRequest, unit: &Unit, into: &Path) -> Result<()> {
        let refuse =
            |class, words: &str| Err(Error::new("fake builder", "compile", &unit.name, class, words));
        if !self.units.iter().any(|known| known.name == unit.name) {
            return refuse(Class::NotFound, "unknown unit");
        }
        if let Some(time) = self.takes.get(&unit.name) {
            tokio::time::sleep(*time).await;
        }
        if into.exists() {
            return refuse(Class::Rejected, "the target exists");
        }
        if let Some(words) = self.broken.get(&unit.name) {
            return refuse(Class::Rejected, words);
        }
        if let Ok(mut names) = self.compiled.lock() {
            names.push(unit.name.clone());
        }
        let path = into.display().to_string();
        let text = self.texts.get(&unit.name).unwrap_or(&unit.name);
        std::fs::write(into, text).map_err(|error| Error::io("fake builder", "write", path, &error))
    }
}
