//! What failed in a pipeline runs here: the failed tests and nothing else, in machines of Debian; the exit code is theirs.

use std::fs;
use std::path::Path;

use super::made::{self, PIPELINE};
use super::server::{Mood, Server, TOKEN};
use crate::harness::{Home, cell, fixture, step};

#[test]
fn failed_tests_of_a_pipeline_run_here() {
    let home = Home::new("ci");
    own_cache(&home.folder.join("cache"));
    let server = Server::start(made::project(), Mood::Unreliable);
    let (id, tree) = (PIPELINE.to_string(), fixture());
    let from = ["-C", &tree, "run", "--from-ci-pipeline", &id, "--use-local-if-possible"];
    let call = |more: &[&'static str]| {
        let args: Vec<&str> = from.iter().copied().chain(more.iter().copied()).collect();
        home.call(args)
            .env("KMT_GITLAB_URL", &server.url)
            .env("KMT_GITLAB_PROJECT", "Group/agent")
            .env("KMT_GITLAB_TOKEN", TOKEN)
            .limit(300)
    };
    step("what failed in the job of Debian 12 passes here");
    let ended = call(&["--job", "x64: [debian_12, no_usm]"]).end().expect(0);
    let told = ended.told();
    let cells = told.cells();
    assert!(cells.len() == 1 && cells[0].starts_with(&cell("debian_12/6.1")), "{cells:?}\n{}", ended.stderr);
    assert!(ended.stderr.contains("its image is here"), "{}", ended.stderr);
    let results = told.results(cells[0], "pkg/network/tracer");
    let below = "TestTracerSuite/prebuilt/TestDNSStats";
    assert_eq!(results.get(below).map(String::as_str), Some("pass"), "{results:?}");
    let other = results.keys().find(|name| !below.starts_with(name.as_str()) && !name.starts_with(below));
    assert_eq!(other, None, "only what failed runs: {results:?}");

    step("what fails here too makes the exit code");
    let ended =
        call(&["--job", "x64: [debian_13, no_usm]", "--test-env", "FIXTURE_FAULT=subfail"]).end().expect(100);
    let told = ended.told();
    let results = told.results(told.cells()[0], "pkg/faults");
    assert_eq!(results.get("TestTable/with_space").map(String::as_str), Some("fail"), "{results:?}");
    assert!(!results.contains_key("TestTable/plain") && !results.contains_key("TestFail"), "{results:?}");

    step("what cannot run here is refused before anything boots, or recorded as not run");
    call(&["--job", "arm64: [debian_12, no_usm]"]).end().refused(104, &["remote"]);

    step("the token is in nothing that is left");
    holds_no_token(&home.folder);
    let shown = server.requests().into_iter().filter(|request| request.storage);
    assert!(shown.into_iter().all(|request| !request.headers.contains(TOKEN)));
    home.destroy();
}

/// A cache of this story's own, but for what was built.
fn own_cache(cache: &Path) {
    let borrowed = fs::read_link(cache).unwrap();
    fs::remove_file(cache).unwrap();
    fs::create_dir(cache).unwrap();
    fs::create_dir_all(borrowed.join("build")).unwrap();
    std::os::unix::fs::symlink(borrowed.join("build"), cache.join("build")).unwrap();
}

/// Panics where a file below holds the token; images and build outputs are not of this story.
fn holds_no_token(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holds_no_token(&entry.path());
        } else if kind.is_file() && entry.metadata().unwrap().len() < 64 << 20 {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
            assert!(!found, "{} has the token", entry.path().display());
        }
    }
}
