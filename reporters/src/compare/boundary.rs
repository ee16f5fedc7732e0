//! The smallest statement over distribution, kernel, architecture and test set that parts the cells in which a test fails
//! from those in which it passes.
//!
//! A statement holds for every cell that fails and for none that passes, or it is not made. Where several of one size do,
//! the others are named too: one cell of each kind proves little.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::event::{Arch, CellId, Location, TestResult};
use crate::model::{Report, TestReport};

/// Alternatives that are named.
const ALTERNATIVES: usize = 2;

/// One statement, and the tests it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Boundary {
    /// Where they fail: `on kernel < 5.8`, `on all arm64`, `in every cell`.
    pub fails: String,
    /// Statements of the same size that fit as well.
    pub or: Vec<String>,
    /// Package and full name of each test.
    pub tests: Vec<(String, String)>,
    /// Cells in which they fail.
    pub bad: usize,
    /// Cells in which they pass.
    pub good: usize,
}

impl fmt::Display for Boundary {
    /// `TestRingBuffer fails on kernel < 5.8`, as text that may hold anything a test's name may.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |(package, test): &(String, String)| match test.is_empty() {
            true => package.clone(),
            false => test.clone(),
        };
        let names: Vec<String> = self.tests.iter().take(3).map(name).collect();
        let more = self.tests.len().saturating_sub(names.len());
        let verb = if self.tests.len() == 1 { "fails" } else { "fail" };
        write!(f, "{}", names.join(", "))?;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        write!(f, " {verb} {}", self.fails)?;
        if !self.or.is_empty() {
            write!(f, " (or: {})", self.or.join("; "))?;
        }
        Ok(())
    }
}

/// A cell as statements see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coordinate {
    pub(crate) distro: String,
    pub(crate) version: String,
    pub(crate) kernel: String,
    pub(crate) arch: Arch,
    pub(crate) set: Option<String>,
    pub(crate) location: Location,
}

impl Coordinate {
    fn of(id: &CellId, distro: &str, version: &str) -> Coordinate {
        Coordinate {
            distro: if distro.is_empty() { id.platform.clone() } else { distro.to_owned() },
            version: version.to_owned(),
            kernel: id.kernel.clone(),
            arch: id.arch,
            set: id.set.clone(),
            location: id.location,
        }
    }
}

/// Compares kernel versions number by number: `4.5` is before `5.4`, `5.15.0-91` after `5.15`.
pub(crate) fn by_version(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        let parts = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().unwrap_or(u64::MAX)).collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

/// What may be said of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim {
    Every,
    Arch(Arch),
    Below(String),
    From(String),
    Between(String, String),
    Distro(String),
    Platform(String, String),
    Set(Option<String>),
    Location(Location),
    Not(Box<Claim>),
    Both(Box<Claim>, Box<Claim>),
}

impl Claim {
    fn holds(&self, cell: &Coordinate) -> bool {
        match self {
            Claim::Every => true,
            Claim::Arch(arch) => cell.arch == *arch,
            Claim::Below(bound) => by_version(&cell.kernel, bound) == Ordering::Less,
            Claim::From(bound) => by_version(&cell.kernel, bound) != Ordering::Less,
            Claim::Between(from, to) => {
                by_version(&cell.kernel, from) != Ordering::Less
                    && by_version(&cell.kernel, to) == Ordering::Less
            }
            Claim::Distro(distro) => cell.distro == *distro,
            Claim::Platform(distro, version) => cell.distro == *distro && cell.version == *version,
            Claim::Set(set) => cell.set == *set,
            Claim::Location(location) => cell.location == *location,
            Claim::Not(claim) => !claim.holds(cell),
            Claim::Both(a, b) => a.holds(cell) && b.holds(cell),
        }
    }

    /// How much it takes to say it.
    fn size(&self) -> u32 {
        match self {
            Claim::Every => 0,
            Claim::Arch(_) | Claim::Below(_) | Claim::From(_) | Claim::Distro(_) | Claim::Set(_) => 2,
            Claim::Location(_) => 2,
            Claim::Between(..) | Claim::Platform(..) => 3,
            Claim::Not(claim) => claim.size() + 2,
            Claim::Both(a, b) => a.size() + b.size() + 1,
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::Every => f.write_str("in every cell"),
            Claim::Arch(arch) => write!(f, "on all {arch}"),
            Claim::Below(bound) => write!(f, "on kernel < {bound}"),
            Claim::From(bound) => write!(f, "on kernel >= {bound}"),
            Claim::Between(from, to) => write!(f, "on kernel >= {from}, < {to}"),
            Claim::Distro(distro) => write!(f, "on all {distro}"),
            Claim::Platform(distro, version) => write!(f, "on {distro} {version}"),
            Claim::Set(Some(set)) => write!(f, "with test set {set}"),
            Claim::Set(None) => f.write_str("without a test set"),
            Claim::Location(Location::Remote) => f.write_str("on remote machines"),
            Claim::Location(Location::Local) => f.write_str("on local machines"),
            Claim::Not(claim) => write!(f, "everywhere but {claim}"),
            Claim::Both(a, b) => {
                let (a, b) = (a.to_string(), b.to_string());
                write!(f, "{a} and {}", b.trim_start_matches("on all ").trim_start_matches("on "))
            }
        }
    }
}

/// Single claims that hold for all of `side`; of several about kernels only the tightest.
fn claims(side: &[&Coordinate], all: &[&Coordinate]) -> Vec<Claim> {
    let mut claims = Vec::new();
    let Some(first) = side.first() else { return claims };
    let mut kernels: Vec<&String> = all.iter().map(|cell| &cell.kernel).collect();
    kernels.sort_by(|a, b| by_version(a, b));
    kernels.dedup();
    let place =
        |cell: &&&Coordinate| kernels.iter().position(|kernel| **kernel == cell.kernel).unwrap_or_default();
    let lowest = side.iter().map(|cell| place(&cell)).min().unwrap_or_default();
    let above = side.iter().map(|cell| place(&cell)).max().unwrap_or_default() + 1;
    let (from, to) = (kernels[lowest], kernels.get(above));
    claims.push(Claim::Arch(first.arch));
    claims.extend(to.map(|to| Claim::Below((*to).clone())));
    if lowest > 0 {
        claims.push(Claim::From(from.clone()));
    }
    claims.push(Claim::Distro(first.distro.clone()));
    claims.push(Claim::Set(first.set.clone()));
    claims.push(Claim::Location(first.location));
    if let (true, Some(to)) = (lowest > 0, to) {
        claims.push(Claim::Between(from.clone(), (*to).clone()));
    }
    claims.push(Claim::Platform(first.distro.clone(), first.version.clone()));
    claims.retain(|claim| side.iter().all(|cell| claim.holds(cell)));
    claims
}

/// The smallest claims that hold for all of `bad` and for none of `good`; empty where there is none.
fn smallest(bad: &[&Coordinate], good: &[&Coordinate]) -> Vec<Claim> {
    if bad.is_empty() {
        return Vec::new();
    }
    if good.is_empty() {
        return if bad.len() > 1 { vec![Claim::Every] } else { Vec::new() };
    }
    let spares = |claim: &Claim, side: &[&Coordinate]| !side.iter().any(|cell| claim.holds(cell));
    let all: Vec<&Coordinate> = bad.iter().chain(good).copied().collect();
    let single = claims(bad, &all);
    let mut fit: Vec<Claim> = single.iter().filter(|claim| spares(claim, good)).cloned().collect();
    let exceptions = claims(good, &all).into_iter().filter(|claim| {
        let short = matches!(claim, Claim::Below(_) | Claim::From(_) | Claim::Location(_));
        !short && spares(claim, bad)
    });
    fit.extend(exceptions.map(|claim| Claim::Not(Box::new(claim))));
    if fit.is_empty() {
        for (at, a) in single.iter().enumerate() {
            let both = single[at + 1..].iter().map(|b| Claim::Both(Box::new(a.clone()), Box::new(b.clone())));
            fit.extend(both.filter(|both| spares(both, good)));
        }
    }
    let least = fit.iter().map(Claim::size).min().unwrap_or_default();
    fit.retain(|claim| claim.size() == least);
    fit
}

/// Indices of the cells in which a test fails, and of those in which it passes.
type Sides = (Vec<usize>, Vec<usize>);

/// Whether it went wrong by its own doing, and no test below it is to blame.
fn fails(test: &TestReport<'_>) -> bool {
    use TestResult::{Crashed, Fail, TimedOut, Unfinished};
    matches!(test.result, Fail | TimedOut | Crashed | Unfinished) && !test.blames_subtest
}

/// The boundary of every test that fails somewhere, tests with one boundary together, the widest first.
pub fn boundaries(report: &Report<'_>) -> Vec<Boundary> {
    let cells: Vec<Coordinate> = report
        .cells
        .iter()
        .map(|cell| Coordinate::of(&cell.cell.id, &cell.cell.distro, &cell.cell.distro_version))
        .collect();
    let failing = report.odd().filter(|(_, _, test)| fails(test));
    let failing: BTreeSet<(&str, &str)> =
        failing.map(|(_, package, test)| (package.name, test.name)).collect();
    let mut known: BTreeMap<Sides, Vec<(String, String)>> = BTreeMap::new();
    for (package, test) in failing {
        let mut sides = Sides::default();
        for (at, cell) in report.cells.iter().enumerate() {
            match cell.test(package, test) {
                Some(test) if matches!(test.result, TestResult::Pass | TestResult::Flaky) => sides.1.push(at),
                Some(test) if fails(&test) => sides.0.push(at),
                _ => {}
            }
        }
        known.entry(sides).or_default().push((package.to_owned(), test.to_owned()));
    }
    let mut boundaries = Vec::new();
    for ((bad, good), tests) in known {
        let of = |at: &[usize]| at.iter().map(|at| &cells[*at]).collect::<Vec<_>>();
        let mut claims = smallest(&of(&bad), &of(&good)).into_iter().map(|claim| claim.to_string());
        let Some(fails) = claims.next() else { continue };
        let or = claims.take(ALTERNATIVES).collect();
        boundaries.push(Boundary { fails, or, tests, bad: bad.len(), good: good.len() });
    }
    boundaries.sort_by(|a, b| b.bad.cmp(&a.bad).then_with(|| a.tests.cmp(&b.tests)));
    boundaries
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::script::{PKG, Script, runs};

    fn cell(text: &str) -> Coordinate {
        let id: CellId = text.parse().unwrap();
        let (distro, version) = id.platform.split_once('_').unwrap();
        Coordinate::of(&id, distro, version)
    }

    #[track_caller]
    fn says(bad: &[&str], good: &[&str], wanted: &[&str]) {
        let (bad, good): (Vec<_>, Vec<_>) =
            (bad.iter().map(|text| cell(text)).collect(), good.iter().map(|text| cell(text)).collect());
        let claims = smallest(&bad.iter().collect::<Vec<_>>(), &good.iter().collect::<Vec<_>>());
        assert_eq!(claims.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn the_smallest_statement_is_made() {
        let all = [
            "ubuntu_18.04/4.15/x86_64",
            "ubuntu_20.04/5.4/x86_64",
            "debian_11/5.10/x86_64",
            "debian_12/6.1/x86_64",
        ];
        says(&all[..2], &all[2..], &["on kernel < 5.10", "on all ubuntu"]);
        says(&all[..1], &all[1..], &["on kernel < 5.4"]);
        says(&all[3..], &all[..3], &["on kernel >= 6.1"]);
        says(&all[1..3], &[all[0], all[3]], &["on kernel >= 5.4, < 6.1"]);
        says(&all, &[], &["in every cell"]);
        says(&all[..1], &[], &[]);
        let arm = ["debian_11/5.10/arm64", "debian_12/6.1/arm64"];
        says(&arm, &all, &["on all arm64"]);
        says(&arm[..1], &[&all[..], &arm[1..]].concat(), &["on all arm64 and kernel < 6.1"]);
        says(
            &[all[0], all[2], all[3]],
            &all[1..2],
            &["everywhere but on kernel >= 5.4, < 5.10", "everywhere but on ubuntu 20.04"],
        );
        says(&[all[0], arm[1]], &[all[1], all[3], arm[0]], &[]);
        says(&["debian_12/6.1/x86_64+cws"], &["debian_12/6.1/x86_64"], &["with test set cws"]);
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(by_version("4.5", "5.4"), Ordering::Less);
        assert_eq!(by_version("5.15.0-91-generic", "5.15"), Ordering::Greater);
        assert_eq!(by_version("5.4", "5.10"), Ordering::Less);
    }

    #[test]
    fn a_run_has_its_boundaries() {
        let run = runs::failing().run();
        let told: Vec<String> = boundaries(&run.report()).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["TestDNS/udp/v6 fails on kernel < 6.12"]);
        assert!(boundaries(&runs::green().run().report()).is_empty());
    }

    #[test]
    fn tests_with_one_boundary_are_told_together() {
        let cells: Vec<CellId> =
            ["custom/5.4/x86_64", "custom/5.15/x86_64"].map(|id| id.parse().unwrap()).into();
        let mut script = Script::new();
        script.plan(&cells, &[PKG]);
        for (cell, result) in cells.iter().zip([TestResult::Fail, TestResult::Pass]) {
            let tests = ["A", "B", "C", "D"].map(|test| (test, result));
            script.up(cell).begin(cell, PKG, &[]).tests(cell, PKG, &tests);
            script.end(cell, PKG, crate::event::ShardEnd::Exited, Some(1));
        }
        let run = script.run();
        let found = boundaries(&run.report());
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("A, B, C and 1 more fail on kernel < 5.15"), "{}", found[0]);
    }

    proptest! {
        #[test]
        fn a_statement_always_parts(marks in proptest::collection::vec(any::<bool>(), 12)) {
            let mut cells = Vec::new();
            for platform in ["debian_11", "debian_12", "ubuntu_22.04"] {
                for kernel in ["5.4", "6.1"] {
                    for arch in ["x86_64", "arm64"] {
                        cells.push(cell(&format!("{platform}/{kernel}/{arch}")));
                    }
                }
            }
            let side = |wanted: bool| cells.iter().zip(&marks).filter(|(_, mark)| **mark == wanted).map(|(cell, _)| cell).collect::<Vec<_>>();
            let (bad, good) = (side(true), side(false));
            for claim in smallest(&bad, &good) {
                prop_assert!(bad.iter().all(|cell| claim.holds(cell)));
                prop_assert!(!good.iter().any(|cell| claim.holds(cell)));
            }
        }
    }
}
