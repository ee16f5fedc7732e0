//! Planning: the shipped matrices, and made ones of up to 10,000 cells of 100 packages. It must be quick, and grow
//! as the number of cells does.
//!
//! `cargo xtask bench plan`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use kmt_reporters::event::{Arch, CellId};
use kmt_run::matrix::select::Expression;
use kmt_run::matrix::{Catalogue, Cell, MatrixFile, TestSets};
use kmt_run::plan::{Durations, make};

const PACKAGES: usize = 100;
const MOST_CELLS: usize = 10_000;
/// Limit of a shipped matrix.
const SHIPPED: Duration = Duration::from_millis(50);
/// Limit of the largest made one.
const LARGEST: Duration = Duration::from_secs(1);
/// How much more time a cell may take in the largest than in the smallest made one.
const GROWTH: f64 = 3.0;

const FILTER: &str = "kernel(>=5.4) & !distro(amazon) & (package(./pkg/...) | test(/DNS/))";

fn main() {
    shipped();
    grows("timed before", &made);
    grows("from a matrix file", &generated);
}

/// Shards of a plan of so many cells, and the time it took.
type Planned<'a> = &'a dyn Fn(usize) -> (usize, Duration);

fn grows(what: &str, planned: Planned<'_>) {
    let mut a_cell = Vec::new();
    println!("{what}\n{:>8} {:>10} {:>12}", "cells", "shards", "time");
    for cells in [1000, 2000, 5000, MOST_CELLS] {
        let (shards, taken) = (0..3).map(|_| planned(cells)).min_by_key(|(_, taken)| *taken).unwrap();
        println!("{cells:>8} {shards:>10} {:>9.1} ms", taken.as_secs_f64() * 1000.0);
        assert_eq!(shards, cells * PACKAGES);
        assert!(cells < MOST_CELLS || !optimized() || taken < LARGEST, "more than {LARGEST:?}");
        a_cell.push(taken.as_secs_f64() / cells as f64);
    }
    let growth = a_cell[a_cell.len() - 1] / a_cell[0];
    println!("a cell of the largest takes {growth:.2} of one of the smallest, limit {GROWTH}");
    assert!(growth <= GROWTH, "planning does not grow as the number of cells does");
}

fn optimized() -> bool {
    !cfg!(debug_assertions)
}

fn shipped() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/matrices")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let begun = Instant::now();
        let catalogue = Catalogue::embedded().unwrap();
        let matrix = MatrixFile::load(&path, &|path| Ok(std::fs::read_to_string(path).unwrap())).unwrap();
        let cells = matrix.expand(&catalogue, Arch::host()).unwrap();
        let cells: Vec<Cell> = cells.into_iter().map(|resolved| resolved.cell).collect();
        let plan = make(&cells, packages(), &Durations::default(), &Expression::all(), &matrix.sets);
        let taken = begun.elapsed();
        println!("{name:<24} {:>6} shards {:>9.1} ms", plan.shards(), taken.as_secs_f64() * 1000.0);
        assert!(!optimized() || taken < SHIPPED, "more than {SHIPPED:?}");
    }
}

fn packages() -> Vec<String> {
    (0..PACKAGES).map(|number| format!("pkg/network/p{number}")).collect()
}

/// The same from the text of a matrix: ten machines, in each of two test sets, in so many sizes.
fn generated(count: usize) -> (usize, Duration) {
    let sizes: Vec<String> = (0..count / 20).map(|number| (1024 + number).to_string()).collect();
    let text = format!(
        "memory = [{}]\n[axes]\nkernel = [\">=5.10, <5.20\"]\ndistro = [\"custom\"]\n\
         [test-sets.a]\n[test-sets.b.packages.\"./pkg/...\"]\nskip = [\"TestSlow\"]\n",
        sizes.join(", ")
    );
    let begun = Instant::now();
    let catalogue = Catalogue::embedded().unwrap();
    let matrix = MatrixFile::parse("generated.toml", &text).unwrap();
    let cells = matrix.expand(&catalogue, Arch::host()).unwrap();
    let cells: Vec<Cell> = cells.into_iter().map(|resolved| resolved.cell).collect();
    assert_eq!(cells.len(), count);
    let plan = make(&cells, packages(), &Durations::default(), &Expression::all(), &matrix.sets);
    (plan.shards(), begun.elapsed())
}

/// Shards and time of a plan of so many cells, all of them timed before.
fn made(count: usize) -> (usize, Duration) {
    let catalogue = Catalogue::embedded().unwrap();
    let userland = catalogue.platform("ubuntu_22.04").unwrap();
    let packages = packages();
    let mut durations = Durations::default();
    let cells: Vec<Cell> = (0..count)
        .map(|number| {
            let id = CellId::local("ubuntu_22.04", format!("5.15.{number}"), Arch::X86_64);
            for (index, package) in packages.iter().enumerate() {
                let took = Duration::from_secs(((number + index) % 17) as u64);
                durations.note(id.clone(), package.clone(), took);
            }
            Cell::on(userland, id)
        })
        .collect();
    let begun = Instant::now();
    let wanted = Expression::parse(FILTER, &catalogue).unwrap();
    let plan = make(&cells, packages, &durations, &wanted, &TestSets::default());
    black_box(plan.predicted(8, Some(Duration::from_secs(10)), |_| true));
    (plan.shards(), begun.elapsed())
}
