//! What the shipped matrices promise.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kmt_reporters::event::{Arch, CellId, Location};
use kmt_run::matrix::version::Version;
use kmt_run::matrix::{Catalogue, MatrixFile};

fn matrix(name: &str) -> MatrixFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("matrices").join(name);
    MatrixFile::load(&path, &|path| Ok(std::fs::read_to_string(path).unwrap())).unwrap()
}

fn cells(name: &str) -> Vec<CellId> {
    let cells = matrix(name).expand(&Catalogue::embedded().unwrap(), Arch::X86_64).unwrap();
    cells.into_iter().map(|resolved| resolved.cell.id).collect()
}

/// How many cells of each architecture and test set there are.
fn counts(name: &str) -> BTreeMap<(Arch, String), usize> {
    let mut counts = BTreeMap::new();
    for cell in cells(name) {
        assert_eq!((cell.location, cell.size), (Location::Remote, Some((4, 12288))), "{cell}");
        *counts.entry((cell.arch, cell.set.unwrap())).or_default() += 1;
    }
    counts
}

fn table(rows: &[(&str, usize, usize)]) -> BTreeMap<(Arch, String), usize> {
    let row = |&(set, x86, arm): &(&str, usize, usize)| {
        [(Arch::X86_64, x86), (Arch::Arm64, arm)].map(|(arch, count)| ((arch, set.to_owned()), count))
    };
    rows.iter().flat_map(row).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn the_matrices_of_ci_have_every_platform_and_set() {
    assert_eq!(counts("system-probe.toml"), table(&[("only_usm", 20, 17), ("no_usm", 20, 17)]));
    let security = [
        ("cws_host", 23, 16),
        ("cws_peds", 23, 16),
        ("cws_docker", 20, 15),
        ("cws_req", 1, 0),
        ("cws_ad", 1, 1),
        ("cws_el", 1, 1),
        ("cws_el_ns", 1, 1),
    ];
    assert_eq!(counts("security-agent.toml"), table(&security));
}

#[test]
fn the_sets_of_ci_part_the_suite() {
    let probe = matrix("system-probe.toml").sets;
    let runs = |set: &str, package: &str| probe.named()[set].rule_of(package).is_some();
    for (package, usm) in [
        ("pkg/network/usm", true),
        ("pkg/network/usm/tests", true),
        ("pkg/network", false),
        ("pkg/ebpf", false),
    ] {
        assert_eq!((runs("only_usm", package), runs("no_usm", package)), (usm, !usm), "{package}");
    }
    let security = matrix("security-agent.toml").sets;
    let tests = |set: &str| security.named()[set].rule_of("pkg/security/tests").unwrap().tests().run;
    assert_eq!(tests("cws_peds").as_deref(), Some("TestEventMonitor"));
    assert_eq!(tests("cws_ad").as_deref(), Some("TestActivityDump|TestSecurityProfile"));
    assert_eq!(security.named()["cws_ad"].env["DEDICATED_ACTIVITY_DUMP_NODE"], "1");
    assert_eq!(security.named()["cws_el_ns"].args, ["-trace", "-disable-seccomp"]);
    assert!(security.named()["cws_docker"].container.is_some());
}

/// Every kernel that is built from packages, without where it runs.
fn built(arch: Arch) -> BTreeSet<(String, String)> {
    let catalogue = Catalogue::embedded().unwrap();
    let platforms = catalogue.platforms().iter().filter_map(|row| {
        let variant = row.variants.get(&arch)?;
        variant
            .sources
            .iter()
            .any(|source| source.debian().is_some())
            .then(|| (row.id.clone(), variant.kernel.clone()))
    });
    let customs = catalogue.customs().iter().filter(|row| {
        row.variants.get(&arch).is_some_and(|sources| sources.iter().any(|source| source.debian().is_some()))
    });
    platforms.chain(customs.map(|row| ("custom".to_owned(), row.version.clone()))).collect()
}

fn of(cells: &[CellId], arch: Arch) -> BTreeSet<(String, String)> {
    let cells = cells.iter().filter(|cell| cell.arch == arch && cell.location == Location::Local);
    cells.map(|cell| (cell.platform.clone(), cell.kernel.clone())).collect()
}

#[test]
fn debian_is_all_that_can_be_built_here() {
    let cells = cells("debian.toml");
    for arch in Arch::ALL {
        assert_eq!(of(&cells, arch), built(arch), "{arch}");
    }
}

#[test]
fn smoke_is_the_oldest_and_the_newest_that_can_be_built_here() {
    let cells = cells("smoke.toml");
    for arch in Arch::ALL {
        let kernels = |of: &BTreeSet<(String, String)>| -> Vec<Version> {
            of.iter().map(|(_, kernel)| Version::of(kernel).unwrap()).collect()
        };
        let (all, smoke) = (kernels(&built(arch)), kernels(&of(&cells, arch)));
        assert_eq!(smoke.len(), 2, "{arch}");
        assert_eq!((smoke.iter().min(), smoke.iter().max()), (all.iter().min(), all.iter().max()), "{arch}");
    }
}
