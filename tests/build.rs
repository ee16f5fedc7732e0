//! Builds with the real Go toolchain, in modules made for the test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use kmt_reporters::event::{Arch, Event, EventSink};
use kmt_run::artifact::{self, ArtifactSet, BuildFailure, Log};
use kmt_run::external::Class;
use kmt_run::external::builder::fake::FakeBuilder;
use kmt_run::external::builder::go::Go;
use kmt_run::external::builder::prebuilt::Prebuilt;
use kmt_run::external::builder::{BuildRequest, Builder, Unit, UnitKind};
use kmt_run::run::formats::Speech;
use kmt_run::run::gotest::Framing;

/// Lists, then builds, as the commands do.
async fn build(
    request: &BuildRequest,
    builder: &dyn Builder,
    cache: &Path,
    sink: &dyn EventSink,
) -> Result<ArtifactSet, BuildFailure> {
    let units = builder
        .list(request)
        .await
        .map_err(|error| BuildFailure { failures: vec![("list".to_owned(), error)] })?;
    artifact::build(request, &units, builder, cache, sink, &Log::nowhere()).await
}

#[derive(Default)]
struct Facts(Mutex<Vec<Event>>);

impl EventSink for Facts {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Facts {
    /// Compiled and cached, by the last event.
    fn counts(&self) -> (u32, u32) {
        match self.0.lock().unwrap().last() {
            Some(Event::BuildFinished { compiled, cached, .. }) => (*compiled, *cached),
            other => panic!("not finished: {other:?}"),
        }
    }
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Six packages: `base` is used by `a` and `b`; `c` stands alone and embeds a file; `d` has no tests.
fn module() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "go.mod", "module example.com/m\n\ngo 1.18\n");
    write(root, "pkg/base/base.go", "package base\n\nfunc One() int { return 1 }\n");
    write(root, "pkg/d/d.go", "package d\n");
    for name in ["a", "b"] {
        let text = format!(
            "package {name}\n\nimport (\n\t\"testing\"\n\t\"example.com/m/pkg/base\"\n)\n\nfunc TestOne(t *testing.T) {{ if base.One() != 1 {{ t.Fail() }} }}\n"
        );
        write(root, &format!("pkg/{name}/{name}_test.go"), &text);
    }
    let text = "package c\n\nimport (\n\t_ \"embed\"\n\t\"testing\"\n)\n\n//go:embed words.txt\nvar words string\n\nfunc TestC(t *testing.T) {}\n";
    write(root, "pkg/c/c_test.go", text);
    write(root, "pkg/c/words.txt", "one");
    write(root, "pkg/c/testdata/deep/file", "data");
    write(root, "pkg/c/testdata/tool.sh", "#!/bin/sh\n");
    std::os::unix::fs::symlink("deep/file", root.join("pkg/c/testdata/link")).unwrap();
    write(root, "pkg/testdata/shared", "shared");
    write(root, ".gitignore", "testdata\n");
    write(root, "cmd/system-probe/main.go", "package main\n\nfunc main() { println(\"hi\") }\n");
    folder
}

fn request(root: &Path) -> BuildRequest {
    let mut request = BuildRequest::new(root, Arch::host());
    request.packages = vec!["./pkg/...".to_owned()];
    request.binaries = vec!["./cmd/system-probe".to_owned()];
    request
}

async fn go(request: &BuildRequest, cache: &Path) -> (Result<ArtifactSet, BuildFailure>, Facts) {
    let facts = Facts::default();
    let result = build(request, &Go::default(), cache, &facts).await;
    (result, facts)
}

#[tokio::test]
async fn what_did_not_change_is_not_compiled_again() {
    let (module, cache) = (module(), tempfile::tempdir().unwrap());
    let request = request(module.path());
    let (set, facts) = go(&request, cache.path()).await;
    let set = set.unwrap();
    assert_eq!(facts.counts(), (4, 0));
    let names: Vec<_> = set.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["pkg/a", "pkg/b", "pkg/c"]);
    let dests: Vec<_> = set.files.iter().map(|file| file.dest.as_str()).collect();
    assert_eq!(
        dests,
        [
            "bin/system-probe",
            "pkg/a/testsuite",
            "pkg/b/testsuite",
            "pkg/c/testdata/deep/file",
            "pkg/c/testdata/tool.sh",
            "pkg/c/testsuite",
            "pkg/testdata/shared"
        ]
    );
    assert_eq!(
        (set.links[0].dest.as_str(), set.links[0].target.as_str()),
        ("pkg/c/testdata/link", "deep/file")
    );

    let began = Instant::now();
    let (again, facts) = go(&request, cache.path()).await;
    let took = began.elapsed();
    assert_eq!(facts.counts(), (0, 4));
    assert_eq!(again.unwrap(), set);
    println!("nothing changed: {took:?}");
    assert!(took.as_secs() < 5, "{took:?}");

    write(module.path(), "pkg/base/base.go", "package base\n\nfunc One() int { return 2 - 1 }\n");
    assert_eq!(go(&request, cache.path()).await.1.counts(), (2, 2));
    write(module.path(), "pkg/c/words.txt", "two");
    assert_eq!(go(&request, cache.path()).await.1.counts(), (1, 3));
    write(module.path(), "pkg/c/testdata/deep/file", "other");
    assert_eq!(go(&request, cache.path()).await.1.counts(), (0, 4));
    let mut tagged = request.clone();
    tagged.tags = vec!["linux_bpf".to_owned()];
    assert_eq!(go(&tagged, cache.path()).await.1.counts(), (4, 0));
    assert_eq!(go(&request, cache.path()).await.1.counts(), (0, 4));
}

#[tokio::test]
async fn a_spoiled_entry_of_the_cache_is_made_again() {
    let (module, cache) = (module(), tempfile::tempdir().unwrap());
    let mut request = request(module.path());
    request.packages = vec!["./pkg/a".to_owned()];
    request.binaries.clear();
    let (set, _) = go(&request, cache.path()).await;
    let file = set.unwrap().files[0].source.clone();
    fs::remove_file(&file).unwrap();
    fs::write(&file, "rubbish").unwrap();
    let (set, facts) = go(&request, cache.path()).await;
    assert_eq!(facts.counts(), (1, 0));
    assert_ne!(set.unwrap().files[0].size, 7);
    let left: Vec<_> = fs::read_dir(cache.path().join("build")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn the_compilers_own_words_come_out() {
    let (module, cache) = (module(), tempfile::tempdir().unwrap());
    let request = request(module.path());
    write(module.path(), "pkg/base/base.go", "package base\n\nfunc One() int { return undefinedName }\n");
    let (result, facts) = go(&request, cache.path()).await;
    let failure = result.unwrap_err();
    let subjects: Vec<_> = failure.failures.iter().map(|(subject, _)| subject.as_str()).collect();
    assert_eq!(subjects, ["pkg/a", "pkg/b"]);
    assert!(failure.to_string().contains("undefinedName"), "{failure}");
    assert_eq!(failure.failures[0].1.class, Class::Rejected);
    let facts = facts.0.into_inner().unwrap();
    assert!(
        matches!(facts.last(), Some(Event::BuildFailed { message, .. }) if message.contains("base.go:3:"))
    );
}

#[tokio::test]
async fn an_unknown_package_is_named_with_the_nearest() {
    let (module, cache) = (module(), tempfile::tempdir().unwrap());
    for (pattern, near) in
        [("./pkg/bse", Some("./pkg/base")), ("./pkgs/c", Some("./pkg/c")), ("./zzzzzzzzz/...", None)]
    {
        let mut request = request(module.path());
        request.packages = vec!["./pkg/a".to_owned(), pattern.to_owned()];
        let failure = go(&request, cache.path()).await.0.unwrap_err();
        let error = &failure.failures[0].1;
        assert_eq!((error.class, error.subject.as_str()), (Class::NotFound, pattern), "{failure}");
        assert_eq!(
            error.hint.as_deref(),
            near.map(|near| format!("did you mean `{near}`?")).as_deref(),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn a_folder_without_its_dot_is_explained() {
    let (module, cache) = (module(), tempfile::tempdir().unwrap());
    let mut request = request(module.path());
    request.packages = vec!["pkg/a".to_owned()];
    let failure = go(&request, cache.path()).await.0.unwrap_err();
    assert_eq!(failure.failures[0].1.hint.as_deref(), Some("folders begin with `./`: `./pkg/a`"));
    request.packages = vec!["./pkg/d".to_owned()];
    request.binaries.clear();
    let set = go(&request, cache.path()).await.0.unwrap();
    assert!(set.packages.is_empty(), "a package without tests is no test package");
}

#[tokio::test]
async fn foreign_architectures_and_gopath_trees_build() {
    let (module, cache) = (module(), tempfile::tempdir().unwrap());
    let mut request = request(module.path());
    request.packages = vec!["./pkg/c".to_owned()];
    request.arch = if Arch::host() == Arch::X86_64 { Arch::Arm64 } else { Arch::X86_64 };
    let set = go(&request, cache.path()).await.0.unwrap();
    let binary = set.files.iter().find(|file| file.dest == "bin/system-probe").unwrap();
    assert_eq!(kmt_run::artifact::elf::architecture(&binary.source), Some(request.arch));

    let gopath = tempfile::tempdir().unwrap();
    let root = gopath.path().join("src/example.com/old");
    write(&root, "old_test.go", "package old\n\nimport \"testing\"\n\nfunc TestOld(t *testing.T) {}\n");
    let mut request = BuildRequest::new(&root, Arch::host());
    request.packages = vec!["./...".to_owned()];
    request.env =
        vec![("GO111MODULE".into(), "off".into()), ("GOPATH".into(), gopath.path().display().to_string())];
    let set = go(&request, cache.path()).await.0.unwrap();
    assert_eq!((set.packages[0].name.as_str(), set.packages[0].binary.as_str()), (".", "testsuite"));
}

#[tokio::test]
async fn finished_binaries_are_taken_as_they_are() {
    let (module, cache) = (module(), tempfile::tempdir().unwrap());
    let set = go(&request(module.path()), cache.path()).await.0.unwrap();
    let built = |dest: &str| set.files.iter().find(|file| file.dest == dest).unwrap().source.clone();
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [("pkg/a/testsuite", "x/y/testsuite"), ("pkg/b/testsuite", "x/z.test")] {
        write(folder.path(), to, "");
        fs::remove_file(folder.path().join(to)).unwrap();
        fs::copy(built(from), folder.path().join(to)).unwrap();
    }
    write(folder.path(), "x/testdata/file", "x");
    write(folder.path(), "x/script.test", "#!/bin/sh\n");
    let facts = Facts::default();
    let mut request = BuildRequest::new(folder.path(), Arch::host());
    let set = build(&request, &Prebuilt, cache.path(), &facts).await.unwrap();
    assert_eq!(facts.counts(), (0, 2));
    let dests: Vec<_> = set.files.iter().map(|file| file.dest.as_str()).collect();
    assert_eq!(dests, ["x/testdata/file", "x/y/testsuite", "x/z/testdata/file", "x/z/testsuite"]);
    let expected = kmt_run::artifact::elf::go_version(&built("pkg/a/testsuite")).unwrap().unwrap();
    assert_eq!(set.packages[0].speech, Speech::Go(kmt_run::artifact::elf::framing_of(&expected)));
    if expected.starts_with("go1.19") {
        assert_eq!(set.packages[0].speech, Speech::Go(Framing::Plain));
    }
    request.packages = vec!["x/q".to_owned()];
    let failure = build(&request, &Prebuilt, cache.path(), &facts).await.unwrap_err();
    assert_eq!(failure.failures[0].1.class, Class::NotFound);
    request.packages.clear();
    request.arch = if Arch::host() == Arch::X86_64 { Arch::Arm64 } else { Arch::X86_64 };
    assert!(build(&request, &Prebuilt, cache.path(), &facts).await.is_err());
}

#[tokio::test]
async fn one_broken_unit_does_not_stop_its_neighbours_and_leaves_nothing_half_made() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let unit = |name: &str| Unit {
        kind: UnitKind::Test,
        name: name.to_owned(),
        import_path: name.to_owned(),
        dir: PathBuf::from("/nowhere"),
        inputs: Vec::new(),
        facts: Vec::new(),
        made: None,
    };
    let builder = FakeBuilder::new(vec![unit("a"), unit("b"), unit("c")]).broken("b", "b.go:1: no");
    let request = BuildRequest::new(source.path(), Arch::host());
    let facts = Facts::default();
    let failure = build(&request, &builder, cache.path(), &facts).await.unwrap_err();
    assert_eq!(failure.failures.len(), 1);
    assert_eq!(builder.compiled(), ["a", "c"]);
    assert_eq!(fs::read_dir(cache.path().join("build")).unwrap().count(), 2);
    assert!(builder.list(&BuildRequest::new("/no/such", Arch::host())).await.is_err());
}
