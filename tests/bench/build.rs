//! Building 60 packages cold, against one `go test -c` after another and against `go vet` with `go test -run ^$`: each
//! with caches of its own, ratios in one run.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

#[path = "../tree/forest.rs"]
mod forest;

use std::path::Path;
use std::time::{Duration, Instant};

use forest::{PACKAGES, folder, plant};
use kmt_reporters::event::{Arch, Event, EventSink};
use kmt_run::artifact::{self, Log};
use kmt_run::external::builder::go::Go;
use kmt_run::external::builder::{BuildRequest, Builder, Cgo};
use kmt_run::external::process::Child;

struct Nobody;

impl EventSink for Nobody {
    fn emit(&self, _: Event) {}
}

fn go(root: &Path, cache: &Path) -> Child {
    Child::new("go").folder(root).env("GOCACHE", cache).env("CGO_ENABLED", "1").env("GOFLAGS", "-mod=mod")
}

/// How long it takes where the toolchain's cache holds the standard library, and nothing of the tree.
async fn cold<F: Future<Output = ()>>(root: &Path, work: impl FnOnce(std::path::PathBuf) -> F) -> Duration {
    let cache = tempfile::tempdir().unwrap();
    let std = go(root, cache.path()).args(["build", "testing", "os"]);
    std.success().await.unwrap();
    let begun = Instant::now();
    work(cache.path().to_owned()).await;
    begun.elapsed()
}

async fn ours(root: &Path) -> Duration {
    let built = tempfile::tempdir().unwrap();
    cold(root, async |cache| {
        let mut request = BuildRequest::new(root, Arch::host());
        request.packages = vec!["./pkg/...".to_owned()];
        request.exclude = vec!["./pkg/network/testutil/...".to_owned()];
        request.cgo = Cgo::On;
        request.env =
            vec![("GOCACHE".into(), cache.display().to_string()), ("GOFLAGS".into(), "-mod=mod".into())];
        let builder = Go::default();
        let units = builder.list(&request).await.unwrap();
        let log = Log::nowhere();
        let set = artifact::build(&request, &units, &builder, built.path(), &Nobody, &log).await.unwrap();
        assert_eq!(set.packages.len(), PACKAGES);
    })
    .await
}

async fn one_after_another(root: &Path) -> Duration {
    let out = tempfile::tempdir().unwrap();
    cold(root, async |cache| {
        for number in 0..PACKAGES {
            let package = format!("./{}", folder(number));
            let child = go(root, &cache).args(["test", "-c", "-o"]).arg(out.path().join("binary"));
            child.arg(package).success().await.unwrap();
        }
    })
    .await
}

async fn vet_and_test(root: &Path) -> Duration {
    cold(root, async |cache| {
        go(root, &cache).args(["vet", "./..."]).success().await.unwrap();
        go(root, &cache).args(["test", "-run", "^$", "./..."]).success().await.unwrap();
    })
    .await
}

#[tokio::main]
async fn main() {
    let tree = tempfile::tempdir().unwrap();
    plant(tree.path());
    let (ours, single, vet) =
        (ours(tree.path()).await, one_after_another(tree.path()).await, vet_and_test(tree.path()).await);
    let ratio = |other: Duration| other.as_secs_f64() / ours.as_secs_f64();
    println!("{PACKAGES} packages, cold: {:.1} s", ours.as_secs_f64());
    println!(
        "one `go test -c` after another: {:.1} s, {:.2} times as long (at least 1.5)",
        single.as_secs_f64(),
        ratio(single)
    );
    println!(
        "`go vet` and `go test -run ^$`: {:.1} s; ours takes {:.2} of it (at most 1.2)",
        vet.as_secs_f64(),
        1.0 / ratio(vet)
    );
    assert!(ratio(single) >= 1.5, "not 1.5 times as quick as one after another");
    assert!(1.0 / ratio(vet) <= 1.2, "more than 1.2 of vet and test");
}
