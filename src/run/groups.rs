//! Packages that must not run at the same time as others: `[[group]]` of `kmt.toml`, over all cells of a run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::matrix::select::PackagePattern;
use crate::settings::file::Group;

/// Who may run now.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    rules: Arc<Vec<Rule>>,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug)]
struct Rule {
    patterns: Vec<PackagePattern>,
    most: u32,
    alone: bool,
}

#[derive(Debug, Default)]
struct Inside {
    by_rule: Vec<u32>,
    all: u32,
    alone: bool,
}

/// A package that runs; when dropped, it does not any more.
#[derive(Debug)]
pub struct Entry {
    groups: Groups,
    rules: Vec<usize>,
    alone: bool,
}

impl Groups {
    /// The groups of `kmt.toml`.
    pub fn new(groups: &[Group]) -> Groups {
        let rule = |group: &Group| Rule {
            patterns: group.packages.iter().map(|pattern| PackagePattern::of_go(pattern)).collect(),
            most: group.max_concurrent.unwrap_or(u32::MAX),
            alone: group.exclusive,
        };
        let inside = Inside { by_rule: vec![0; groups.len()], ..Inside::default() };
        Groups { rules: Arc::new(groups.iter().map(rule).collect()), inside: Arc::new(Mutex::new(inside)) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, package: &str) -> Vec<usize> {
        let means = |rule: &Rule| rule.patterns.iter().any(|pattern| pattern.matches(package));
        (0..self.rules.len()).filter(|index| means(&self.rules[*index])).collect()
    }

    /// Whether a package wants to be alone.
    pub fn is_exclusive(&self, package: &str) -> bool {
        self.of(package).into_iter().any(|index| self.rules[index].alone)
    }

    /// Lets a package in, if it may run now.
    pub fn enter(&self, package: &str) -> Option<Entry> {
        let rules = self.of(package);
        let alone = rules.iter().any(|index| self.rules[*index].alone);
        let mut inside = self.inside();
        let full = rules.iter().any(|index| inside.by_rule[*index] >= self.rules[*index].most);
        if full || inside.alone || (alone && inside.all > 0) {
            return None;
        }
        rules.iter().for_each(|index| inside.by_rule[*index] += 1);
        inside.all += 1;
        inside.alone = alone;
        drop(inside);
        Some(Entry { groups: self.clone(), rules, alone })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inside = self.groups.inside();
        self.rules.iter().for_each(|index| inside.by_rule[*index] -= 1);
        inside.all -= 1;
        inside.alone &= !self.alone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_room_for_so_many_and_the_exclusive_are_alone() {
        let group = |packages: &str, max_concurrent, exclusive| Group {
            packages: vec![packages.to_owned()],
            max_concurrent,
            exclusive,
        };
        let groups = Groups::new(&[group("./a/...", Some(1), false), group("./alone", None, true)]);
        let one = groups.enter("a/x").unwrap();
        assert!(groups.enter("a/y").is_none());
        let other = groups.enter("b").unwrap();
        assert!(groups.enter("alone").is_none());
        drop((one, other));
        let alone = groups.enter("alone").unwrap();
        assert!(groups.enter("b").is_none() && groups.is_exclusive("alone"));
        drop(alone);
        assert!(groups.enter("a/y").is_some());
    }
}
