//! What is to be run again of an earlier run: some packages in some cells, whole or some of their tests.

use std::collections::{BTreeMap, BTreeSet};

use kmt_reporters::event::CellId;

/// What is to be run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Again {
    of: BTreeMap<(CellId, String), Which>,
    /// Cells of which all packages are meant.
    whole: BTreeSet<CellId>,
}

/// Which tests of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    All,
    Some(BTreeSet<String>),
    /// What a pattern selects.
    Pattern(String),
}

impl Again {
    /// Adds a test by its full name: its top-level test runs again. An empty name stands for the whole package.
    pub fn add(&mut self, cell: &CellId, package: &str, test: &str) {
        let which = self.of.entry((cell.clone(), package.to_owned())).or_insert(Which::Some(BTreeSet::new()));
        match which {
            _ if test.is_empty() => *which = Which::All,
            Which::All | Which::Pattern(_) => {}
            Which::Some(tests) => {
                tests.insert(test.split('/').next().unwrap_or(test).to_owned());
            }
        }
    }

    /// Adds what a pattern (the argument of `-test.run`) selects of a package; an empty one stands for all of it. Two
    /// patterns are alternatives.
    pub fn add_pattern(&mut self, cell: &CellId, package: &str, pattern: &str) {
        let which = self.of.entry((cell.clone(), package.to_owned()));
        let which = which.or_insert_with(|| Which::Pattern(pattern.to_owned()));
        *which = match which {
            _ if pattern.is_empty() => Which::All,
            Which::All => Which::All,
            Which::Pattern(known) if known.as_str() != pattern => {
                Which::Pattern(format!("{known}|{pattern}"))
            }
            Which::Pattern(_) | Which::Some(_) => Which::Pattern(pattern.to_owned()),
        };
    }

    /// Adds all packages of a cell.
    pub fn add_whole(&mut self, cell: &CellId) {
        self.whole.insert(cell.clone());
    }

    /// The packages that are meant anywhere; `None` where a cell wants all there are.
    pub fn packages(&self) -> Option<BTreeSet<&str>> {
        self.whole.is_empty().then(|| self.of.keys().map(|(_, package)| package.as_str()).collect())
    }

    /// The cells in which something is meant.
    pub fn cells(&self) -> BTreeSet<&CellId> {
        self.of.keys().map(|(cell, _)| cell).chain(&self.whole).collect()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty() && self.whole.is_empty()
    }

    /// Whether any of a package is meant.
    pub fn wants(&self, cell: &CellId, package: &str) -> bool {
        self.whole.contains(cell) || self.of.contains_key(&(cell.clone(), package.to_owned()))
    }

    /// The top-level tests of a package that are meant; `None` where all are.
    pub fn tests(&self, cell: &CellId, package: &str) -> Option<&BTreeSet<String>> {
        match self.of.get(&(cell.clone(), package.to_owned())) {
            Some(Which::Some(tests)) if !self.whole.contains(cell) => Some(tests),
            _ => None,
        }
    }

    /// The pattern that selects what of a package is meant, where one does.
    pub fn pattern(&self, cell: &CellId, package: &str) -> Option<&str> {
        match self.of.get(&(cell.clone(), package.to_owned())) {
            Some(Which::Pattern(pattern)) if !self.whole.contains(cell) => Some(pattern),
            _ => None,
        }
    }

    /// Leaves out what `other` has done well: `has` says of a test (or a package, by the empty name) that it has.
    pub fn without(mut self, has: impl Fn(&CellId, &str, &str) -> bool) -> Again {
        self.of.retain(|(cell, package), which| match which {
            Which::All | Which::Pattern(_) => !has(cell, package, ""),
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
        let (here, there) = self.whole.into_iter().partition(|cell| within(cell));
        (Again { of: inside, whole: here }, Again { of: outside, whole: there })
    }

    /// Adds all of another.
    pub fn and(mut self, other: &Again) -> Again {
        for ((cell, package), which) in &other.of {
            match which {
                Which::All => self.add(cell, package, ""),
                Which::Pattern(pattern) => self.add_pattern(cell, package, pattern),
                Which::Some(tests) => tests.iter().for_each(|test| self.add(cell, package, test)),
            }
        }
        self.whole.extend(other.whole.iter().cloned());
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

    #[test]
    fn patterns_are_alternatives_and_a_whole_cell_outranks_them() {
        let (a, b) = (CellId::local("a", "6.1", Arch::X86_64), CellId::local("b", "6.1", Arch::X86_64));
        let mut again = Again::default();
        again.add_pattern(&a, "pkg", "^TestA$/^x$");
        again.add_pattern(&a, "pkg", "^TestB$");
        assert_eq!(again.pattern(&a, "pkg"), Some("^TestA$/^x$|^TestB$"));
        assert_eq!(again.packages().unwrap().into_iter().collect::<Vec<_>>(), ["pkg"]);
        again.add_pattern(&a, "pkg", "");
        assert!(again.pattern(&a, "pkg").is_none() && again.wants(&a, "pkg"));
        again.add_whole(&b);
        assert!(again.wants(&b, "other") && again.packages().is_none() && again.cells().len() == 2);
    }
}
