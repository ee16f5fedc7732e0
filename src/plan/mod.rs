//! What a run will do: which package runs in which cell, in which order, for how long.
//!
//! Owns the order of work and its prediction. Pure: cells, packages and recorded durations in, a [`Plan`] out.
//! `run` works through it and `plan` shows it, so the two cannot disagree.

mod again;
pub mod child;
pub mod cost;
mod order;
mod partition;
mod split;

use std::collections::HashMap;
use std::time::Duration;

use kmt_reporters::event::CellId;

use crate::matrix::select::Expression;
use crate::matrix::{Cell, TestSets};
pub use again::Again;
pub use order::{Load, Space, order};
pub use partition::Partition;
pub use split::{Part, split};

/// How long packages took before, by cell and package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    known: HashMap<CellId, HashMap<String, Duration>>,
    tests: HashMap<CellId, HashMap<String, HashMap<String, Duration>>>,
    boot: Option<Duration>,
}

impl Durations {
    /// Notes a package's duration; a later note wins.
    pub fn note(&mut self, cell: CellId, package: String, took: Duration) {
        self.known.entry(cell).or_default().insert(package, took);
    }

    /// Notes a test's duration: what was known fades, a half each time.
    pub fn note_test(&mut self, cell: CellId, package: &str, test: String, took: Duration) {
        let of_cell = self.tests.entry(cell).or_default();
        if !of_cell.contains_key(package) {
            of_cell.insert(package.to_owned(), HashMap::new());
        }
        if let Some(of_package) = of_cell.get_mut(package) {
            of_package.entry(test).and_modify(|known| *known = (*known + took) / 2).or_insert(took);
        }
    }

    /// How long a top-level test took in a cell.
    pub fn of_test(&self, cell: &CellId, package: &str, test: &str) -> Option<Duration> {
        self.tests.get(cell)?.get(package)?.get(test).copied()
    }

    /// Notes how long a machine took to boot; a later note wins.
    pub fn note_boot(&mut self, took: Duration) {
        self.boot = Some(took);
    }

    /// How long a package took in a cell.
    pub fn of(&self, cell: &CellId, package: &str) -> Option<Duration> {
        self.known.get(cell)?.get(package).copied()
    }

    /// How long the last boot took.
    pub fn boot(&self) -> Option<Duration> {
        self.boot
    }
}

/// The unit of work: a package in a cell, and how long it took before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Index into [`Plan::packages`].
    pub package: usize,
    /// How long it took the last time.
    pub expected: Option<Duration>,
}

/// The shards of every cell, in the order they run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Packages by name.
    pub packages: Vec<String>,
    /// Cells, each with its shards.
    pub cells: Vec<(CellId, Vec<Shard>)>,
}

/// Plans the packages that the test set of each cell and `wanted` leave in it: in a cell those that nobody has timed
/// first, then the longest first.
pub fn make<'c>(
    cells: impl IntoIterator<Item = &'c Cell>,
    packages: Vec<String>,
    durations: &Durations,
    wanted: &Expression,
    sets: &TestSets,
) -> Plan {
    // What a set leaves of the packages is decided once.
    let mut left: HashMap<Option<String>, Vec<bool>> = HashMap::new();
    let mut shards = |cell: &Cell| {
        let left: &[bool] = left.entry(cell.id.set.clone()).or_insert_with(|| {
            let set = sets.of(&cell.id);
            packages.iter().map(|name| set.is_none_or(|set| set.rule_of(name).is_some())).collect()
        });
        let wanted = wanted.in_cell(cell);
        let wants = |name: &str| wanted.as_ref().is_some_and(|left| left.in_package(name).is_some());
        let cell = &cell.id;
        let known = durations.known.get(cell);
        let mut shards: Vec<Shard> = packages
            .iter()
            .enumerate()
            .filter(|(number, name)| left[*number] && wants(name))
            .map(|(package, name)| Shard { package, expected: known.and_then(|k| k.get(name)).copied() })
            .collect();
        // Stable: what differs by less than a second stays in the order of the names.
        shards.sort_by_key(|shard| std::cmp::Reverse(shard.expected.map_or(u64::MAX, |took| took.as_secs())));
        shards
    };
    let cells = cells.into_iter().map(|cell| (cell.id.clone(), shards(cell))).collect();
    Plan { packages, cells }
}

impl Plan {
    /// Names of the packages of a cell, in the order they run.
    pub fn order<'p>(&'p self, cell: &CellId) -> impl Iterator<Item = &'p str> {
        let shards = self.cells.iter().find(|(id, _)| id == cell).map(|(_, shards)| shards.as_slice());
        self.names(shards.unwrap_or_default())
    }

    /// Leaves out what is not wanted.
    pub fn keep(&mut self, wanted: impl Fn(&CellId, &str) -> bool) {
        let Plan { packages, cells } = self;
        for (cell, shards) in cells {
            shards.retain(|shard| wanted(cell, &packages[shard.package]));
        }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.cells.iter().map(|(_, shards)| shards.len()).sum()
    }

    /// Names of the packages of shards.
    pub fn names<'p>(&'p self, shards: &'p [Shard]) -> impl Iterator<Item = &'p str> {
        shards.iter().map(|shard| self.packages[shard.package].as_str())
    }

    /// How long the shards of a cell take together; `None` where one of them was never timed.
    pub fn expected(shards: &[Shard]) -> Option<Duration> {
        shards.iter().map(|shard| shard.expected).sum()
    }

    /// How long all of it takes where so many cells work at once: no cell is split, and none waits for another
    /// while there is room. `boot` is what a cell pays that `boots` says of. `None` where a duration is unknown.
    pub fn predicted(
        &self,
        places: usize,
        boot: Option<Duration>,
        boots: impl Fn(&CellId) -> bool,
    ) -> Option<Duration> {
        let mut works = Vec::with_capacity(self.cells.len());
        for (cell, shards) in &self.cells {
            let start = if boots(cell) { boot? } else { Duration::ZERO };
            works.push(Plan::expected(shards)? + start);
        }
        let mut busy = vec![Duration::ZERO; places.max(1)];
        for work in works {
            // The place that is free first.
            if let Some(place) = busy.iter_mut().min() {
                *place += work;
            }
        }
        busy.into_iter().max()
    }
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::Arch;

    use super::{CellId, Duration, Durations, Plan};
    use crate::matrix::select::Expression;
    use crate::matrix::sets::Rule;
    use crate::matrix::{Catalogue, Cell, TestSet, TestSets};

    fn cell(platform: &str) -> CellId {
        CellId::local(platform, "6.1", Arch::X86_64)
    }

    fn make(cells: &[CellId], packages: Vec<String>, durations: &Durations) -> Plan {
        let catalogue = Catalogue::embedded().unwrap();
        let userland = catalogue.platform("debian_12").unwrap();
        let cells: Vec<Cell> = cells.iter().map(|id| Cell::on(userland, id.clone())).collect();
        super::make(&cells, packages, durations, &Expression::all(), &TestSets::default())
    }

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_unknown_comes_first_then_the_longest() {
        let mut durations = Durations::default();
        durations.note(cell("a"), "short".to_owned(), seconds(9));
        durations.note(cell("a"), "short".to_owned(), seconds(1));
        durations.note(cell("a"), "long".to_owned(), seconds(5));
        let cells = [cell("a"), cell("b")];
        let plan = make(&cells, names(&["long", "new", "short"]), &durations);
        assert_eq!(plan.order(&cell("a")).collect::<Vec<_>>(), ["new", "long", "short"]);
        assert_eq!(plan.order(&cell("b")).collect::<Vec<_>>(), ["long", "new", "short"]);
        assert_eq!(plan.order(&cell("c")).count(), 0);
        assert_eq!(plan.cells[0].1[2].expected, Some(seconds(1)));
    }

    #[test]
    fn what_is_not_wanted_in_a_cell_is_no_shard_of_it() {
        let catalogue = Catalogue::embedded().unwrap();
        let userland = catalogue.platform("debian_12").unwrap();
        let cells = ["debian_12", "custom"].map(|name| Cell::on(userland, cell(name)));
        let wanted = Expression::parse("recipe(custom) | package(a)", &catalogue).unwrap();
        let plan =
            super::make(&cells, names(&["a", "b"]), &Durations::default(), &wanted, &TestSets::default());
        assert_eq!(plan.order(&cells[0].id).collect::<Vec<_>>(), ["a"]);
        assert_eq!(plan.order(&cells[1].id).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_cell_with_a_test_set_has_only_its_packages() {
        let catalogue = Catalogue::embedded().unwrap();
        let userland = catalogue.platform("debian_12").unwrap();
        let mut sets = TestSets::default();
        sets.insert("one", TestSet::of_rules(vec![Rule::all_of("./a/...")]));
        let cells = [Some("one"), Some("unknown"), None]
            .map(|set| Cell::on(userland, CellId { set: set.map(str::to_owned), ..cell("debian_12") }));
        let plan = |sets: &TestSets| {
            let (nothing, all) = (Durations::default(), Expression::all());
            let plan = super::make(&cells, names(&["a", "a/b", "c"]), &nothing, &all, sets);
            cells.clone().map(|cell| plan.order(&cell.id).map(str::to_owned).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(plan(&sets), ["a a/b", "a a/b c", "a a/b c"]);
        sets.set_usual(TestSet::of_rules(vec![Rule::all_of("c")]));
        assert_eq!(plan(&sets), ["a a/b", "c", "c"]);
    }

    #[test]
    fn a_prediction_needs_every_duration_and_fills_places() {
        let mut durations = Durations::default();
        for (name, took) in [("a", 4), ("b", 3), ("c", 2)] {
            durations.note(cell(name), "p".to_owned(), seconds(took));
        }
        let cells = ["a", "b", "c"].map(cell);
        let plan = make(&cells, names(&["p"]), &durations);
        let none = |_: &CellId| false;
        assert_eq!(plan.predicted(3, None, none), Some(seconds(4)));
        assert_eq!(plan.predicted(2, None, none), Some(seconds(5)));
        assert_eq!(plan.predicted(0, None, none), Some(seconds(9)));
        assert_eq!(plan.predicted(3, None, |_| true), None);
        assert_eq!(plan.predicted(3, Some(seconds(10)), |id| *id == cell("b")), Some(seconds(13)));
        let more = make(&cells, names(&["p", "q"]), &durations);
        assert_eq!(more.predicted(3, None, none), None);
    }
}
