//! A whole tree, built for two architectures and shipped: what changed is made and sent again, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod forest;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use forest::{PACKAGES, SHARED, folder, plant, write};
use kmt_reporters::event::{Arch, Event, EventSink};
use kmt_run::artifact::{self, ArtifactSet, Log, Store, elf, ship};
use kmt_run::external::builder::go::Go;
use kmt_run::external::builder::{BuildRequest, Builder, Cgo};
use kmt_run::external::process::Child;
use kmt_run::external::transport::local::Local;
use kmt_run::settings::component::{Artifact, Component, for_arch};
use kmt_run::settings::file;

#[derive(Default)]
struct Counts(Mutex<(u32, u32)>);

impl EventSink for Counts {
    fn emit(&self, event: Event) {
        if let Event::BuildFinished { compiled, cached, .. } = event {
            *self.0.lock().unwrap() = (compiled, cached);
        }
    }
}

/// What `kmt.toml` asks for, for one architecture.
fn request(root: &Path, component: &Component, arch: Arch) -> BuildRequest {
    let mut request = BuildRequest::new(root, arch);
    request.packages.clone_from(&component.packages);
    request.exclude.clone_from(&component.exclude);
    request.binaries.clone_from(&component.binaries);
    request.helpers.clone_from(&component.helpers);
    request.tags.clone_from(&component.tags);
    request.cgo = if component.cgo { Cgo::On } else { Cgo::Off };
    for artifact in component.artifacts.clone() {
        request.artifacts.push(match artifact {
            Artifact::Same(from) => Artifact::Same(for_arch(&from, arch)),
            Artifact::Moved(mut moved) => {
                (moved.from, moved.to) = (for_arch(&moved.from, arch), for_arch(&moved.to, arch));
                Artifact::Moved(moved)
            }
        });
    }
    for mut command in component.command.clone() {
        for text in command.argv.iter_mut().chain(&mut command.outputs) {
            *text = for_arch(text, arch);
        }
        request.commands.push(command);
    }
    request
}

struct Yard {
    tree: tempfile::TempDir,
    cache: tempfile::TempDir,
    guest: tempfile::TempDir,
}

impl Yard {
    fn new() -> Yard {
        let [tree, cache, guest] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        plant(tree.path());
        Yard { tree, cache, guest }
    }

    fn component(&self, name: &str) -> Component {
        file::read(&self.tree.path().join("kmt.toml")).unwrap().component[name].clone()
    }

    /// The set, and how many files were made and how many were there.
    async fn build(&self, component: &str, arch: Arch) -> (ArtifactSet, (u32, u32)) {
        let request = request(self.tree.path(), &self.component(component), arch);
        let (builder, counts) = (Go::default(), Counts::default());
        let units = builder.list(&request).await.unwrap();
        let set = artifact::build(&request, &units, &builder, self.cache.path(), &counts, &Log::nowhere())
            .await
            .unwrap_or_else(|failure| panic!("{failure}"));
        let counts = *counts.0.lock().unwrap();
        (set, counts)
    }

    /// Ships to a guest that is a folder here; how many files travelled, and how many bytes.
    async fn ship(&self, set: &ArtifactSet) -> (u32, u64) {
        let at = |name: &str| self.guest.path().join(name).display().to_string();
        let store = Store::below(&at("var"), &at("opt/tests"));
        let report = ship(set, &Local::new("/"), &store).await.unwrap();
        (report.files, report.bytes)
    }
}

impl Yard {
    /// Runs each test binary where it was shipped to: it finds its testdata there.
    async fn run_all(&self, set: &ArtifactSet) {
        for package in &set.packages {
            let folder = self.guest.path().join("opt/tests").join(&package.workdir);
            let binary = self.guest.path().join("opt/tests").join(&package.binary);
            let output =
                Child::new(binary.display().to_string()).arg("-test.v").folder(&folder).output().await;
            let said = output.unwrap().text();
            assert!(
                said.contains("--- PASS: TestWords") && said.ends_with("PASS\n"),
                "{}: {said}",
                package.name
            );
        }
    }
}

fn digests(set: &ArtifactSet) -> BTreeMap<String, String> {
    set.files.iter().map(|file| (file.dest.clone(), file.digest.clone())).collect()
}

/// Destinations whose content differs.
fn changed(before: &ArtifactSet, after: &ArtifactSet) -> BTreeSet<String> {
    let (before, after) = (digests(before), digests(after));
    after
        .into_iter()
        .filter(|(dest, digest)| before.get(dest) != Some(digest))
        .map(|(dest, _)| dest)
        .collect()
}

fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

#[tokio::test]
async fn one_changed_file_rebuilds_and_sends_exactly_what_depends_on_it() {
    if !has("clang") {
        println!("clang is not installed");
        return;
    }
    let yard = Yard::new();
    let root = yard.tree.path();
    let (first, counts) = yard.build("system-probe", Arch::host()).await;
    // 50 tests, one program, two helpers, one command.
    assert_eq!(counts, (54, 0));
    assert_eq!(first.packages.len(), 50);
    let there = digests(&first);
    for dest in [
        "bin/system-probe",
        "pkg/network/testutil/client/client",
        "pkg/network/p00/testdata/deep/old.log",
        &format!("pkg/ebpf/bytecode/build/{}/tracer.o", Arch::host()),
    ] {
        assert!(there.contains_key(dest), "{dest}");
    }
    let (files, _) = yard.ship(&first).await;
    assert!(files > 60, "{files}");
    yard.run_all(&first).await;

    let (again, counts) = yard.build("system-probe", Arch::host()).await;
    assert_eq!((counts, &again), ((0, 54), &first));
    assert_eq!(yard.ship(&again).await, (0, 0));

    // A shared package: those that use it, and nobody else.
    let source = root.join("internal/s3/s.go");
    let text = fs::read_to_string(&source).unwrap();
    fs::write(&source, text.replace("x += i * x % 7", "x += i * x % 11")).unwrap();
    let (second, counts) = yard.build("system-probe", Arch::host()).await;
    let dependents: BTreeSet<String> = (0..50)
        .filter(|number| number % SHARED == 3)
        .map(|number| format!("{}/testsuite", folder(number)))
        .collect();
    assert_eq!(
        counts,
        (u32::try_from(dependents.len()).unwrap(), 54 - u32::try_from(dependents.len()).unwrap())
    );
    assert_eq!(changed(&first, &second), dependents);
    assert_eq!(yard.ship(&second).await.0, u32::try_from(dependents.len()).unwrap());

    // Test data is sent, and nothing is compiled.
    write(root, "pkg/network/p09/testdata/words.txt", "other words");
    let (third, counts) = yard.build("system-probe", Arch::host()).await;
    assert_eq!((counts, yard.ship(&third).await.0), ((0, 54), 1));

    // A header: the command runs again, Go does not.
    write(root, "ebpf/usm.c", &fs::read_to_string(root.join("ebpf/usm.c")).unwrap().replace("!= 0", "== 0"));
    let (fourth, counts) = yard.build("system-probe", Arch::host()).await;
    assert_eq!(counts, (1, 53));
    let object = format!("pkg/ebpf/bytecode/build/{}/usm.o", Arch::host());
    assert_eq!(changed(&third, &fourth), BTreeSet::from([object.clone()]));

    // An object that somebody removed is made again.
    fs::remove_file(root.join(format!("build/{}/usm.o", Arch::host()))).unwrap();
    let (fifth, counts) = yard.build("system-probe", Arch::host()).await;
    assert_eq!((counts, digests(&fifth)[&object].clone()), ((1, 53), digests(&fourth)[&object].clone()));
}

#[tokio::test]
async fn the_second_component_and_the_other_architecture_are_their_own() {
    let yard = Yard::new();
    let other = if Arch::host() == Arch::X86_64 { Arch::Arm64 } else { Arch::X86_64 };
    let (set, counts) = yard.build("security-agent", other).await;
    assert_eq!((set.packages.len(), counts), (PACKAGES - 50, (10, 0)));
    let binaries = set.files.iter().filter(|file| file.dest.ends_with("testsuite"));
    let wrong: Vec<&PathBuf> =
        binaries.map(|file| &file.source).filter(|file| elf::architecture(file) != Some(other)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let (_, counts) = yard.build("security-agent", Arch::host()).await;
    assert_eq!(counts, (10, 0), "nothing of one architecture is the other's");
}

#[tokio::test]
async fn a_tree_with_c_is_built_for_the_other_architecture_too() {
    let other = if Arch::host() == Arch::X86_64 { Arch::Arm64 } else { Arch::X86_64 };
    if !has(&for_arch("{machine}-linux-gnu-gcc", other)) || !has("clang") {
        println!("no compilers for {other}");
        return;
    }
    let yard = Yard::new();
    let (set, counts) = yard.build("system-probe", other).await;
    assert_eq!((set.packages.len(), counts), (50, (54, 0)));
    let binaries = set.files.iter().filter(|file| elf::is_elf(&file.source) && !file.dest.ends_with(".o"));
    let binaries: Vec<_> = binaries.map(|file| elf::architecture(&file.source)).collect();
    assert_eq!(binaries, [Some(other); 53], "tests, a program, helpers");
}
