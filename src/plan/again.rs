//! What is to be run again of an earlier run: some packages in some cells, whole or some of their tests.

use std::collections::{BTreeMap, BTreeSet};

use kmt_reporters::event::CellId;

/// What is to be run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Again {
    of: BTreeMap<(CellId, String), Which>,
}

/// Which tests of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    All,
    Some(BTreeSet<String>),
}

impl Again {
    /// Adds a test by its full name: its top-level test runs again. An empty name stands for the whole package.
    pub fn add(&mut self, cell: &CellId, package: &str, test: &str) {
        let which = self.of.entry((cell.clone(), package.to_owned())).or_insert(Which::Some(BTreeSet::new()));
        match which {
            _ if test.is_empty() => *which = Which::All,
            Which::All => {}
            Which::Some(tests) => {
                tests.insert(test.split('/').next().unwrap_or(test).to_owned());
            }
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Whether any of a package is meant.
    pub fn wants(&self, cell: &CellId, package: &str) -> bool {
        self.of.contains_key(&(cell.clone(), package.to_owned()))
    }

    /// The top-level tests of a package that are meant; `None` where all are.
    pub fn tests(&self, cell: &CellId, package: &str) -> Option<&BTreeSet<String>> {
        match self.of.get(&(cell.clone(), package.to_owned())) {
            Some(Which::Some(tests)) => Some(tests),
            _ => None,
        }
    }

    /// Leaves out what `other` has done well: `has` says of a test (or a package, by the empty name) that it has.
    pub fn without(mut self, has: impl Fn(&CellId, &str, &str) -> bool) -> Again {
        self.of.retain(|(cell, package), which| match which {
            Which::All => !has(cell, package, ""),
            Which::Some(tests) => {
                tests.retain(|test| !has(cell, package, test));
                !tests.is_empty()
            }
        });
        self
    }

    /// Parts what lies in the cells that `within` chooses from the rest.
    pub fn part(self, within: impl Fn(&CellId) -> bool) -> (Again, Again) {
        let (inside, outside) = self.of.into_iter().partition(|((cell, _), _)| within(cell));
        (Again { of: inside }, Again { of: outside })
    }

    /// Adds all of another.
    pub fn and(mut self, other: &Again) -> Again {
        for ((cell, package), which) in &other.of {
            match which {
                Which::All => self.add(cell, package, ""),
                Which::Some(tests) => tests.iter().for_each(|test| self.add(cell, package, test)),
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::*;

    #[test]
    fn what_is_done_well_is_left_out_and_the_rest_stays() {
        let cell = |platform: &str| CellId::local(platform, "6.1", Arch::X86_64);
        let mut again = Again::default();
        for (platform, test) in [("a", "TestA/x"), ("a", "TestB"), ("b", "")] {
            again.add(&cell(platform), "pkg", test);
        }
        let again = again.without(|_, _, test| test == "TestB");
        assert_eq!(again.tests(&cell("a"), "pkg").unwrap().iter().collect::<Vec<_>>(), ["TestA"]);
        assert!(again.wants(&cell("b"), "pkg") && again.tests(&cell("b"), "pkg").is_none());
        let (inside, outside) = again.clone().part(|id| *id == cell("a"));
        assert!(inside.wants(&cell("a"), "pkg") && !inside.wants(&cell("b"), "pkg"));
        assert_eq!(inside.and(&outside), again);
    }
}
