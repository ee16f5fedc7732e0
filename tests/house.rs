//! The rules of the house, carried out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kmt_reporters::event::Arch;
use kmt_run::matrix::{Catalogue, MatrixFile};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder` that is no test of its own, relative to the root of the repository, with its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && !path.to_string_lossy().ends_with("tests.rs")
            {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// A text without its comments and without what follows the first `#[cfg(test)] mod`.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").filter(|at| text[*at..].contains("mod tests {"));
    let lines = text[..end.unwrap_or(text.len())].lines();
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Whether `word` stands in `text` on its own.
fn names(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

#[test]
fn only_the_world_names_an_adapter() {
    let adapters = [
        "Libvirt",
        "Ssh",
        "Local",
        "DebianHost",
        "Go",
        "Prebuilt",
        "Commands",
        "ThisHost",
        "FakeHost",
        "FakeHypervisor",
        "SshGate",
        "FakeGate",
        "FakeTransport",
        "FakeDebian",
        "FakeStore",
        "FakeBuilder",
        "Gitlab",
        "FakeCi",
        "Ec2",
        "FakeCloud",
    ];
    for (name, text) in sources("src") {
        if name == "src/world.rs" || name.starts_with("src/external/") {
            continue;
        }
        // `BuilderKind::Go` and `Location::Local` are no adapters.
        let text = code(&text).replace("BuilderKind::", "BuilderKind").replace("Location::", "Location");
        let imported = |adapter: &&&str| {
            text.lines().any(|line| line.contains("external::") && names(line, adapter))
                || text.contains(&format!("{adapter}::new("))
                || text.contains(&format!("Arc::new({adapter}"))
        };
        let named: Vec<_> = adapters.iter().filter(imported).collect();
        assert!(named.is_empty(), "{name} names {named:?}");
    }
}

#[test]
fn only_one_file_spawns_children() {
    for folder in ["src", "reporters/src"] {
        for (name, text) in sources(folder) {
            let text = code(&text);
            let spawns = ["process::Command", "Command::new("].iter().any(|word| text.contains(word));
            assert!(!spawns || name == "src/external/process.rs", "{name} builds a command");
        }
    }
}

#[test]
fn deciding_is_pure() {
    for (name, text) in sources("src/matrix").into_iter().chain(sources("src/plan")) {
        let text = code(&text);
        for word in
            ["async ", ".await", "std::fs", "std::process", "tokio", "Instant", "SystemTime", "std::env"]
        {
            assert!(!text.contains(word), "{name} says `{word}`");
        }
        for door in ["Hypervisor", "Transport", "Connection", "DebianTools", "Builder", "Ci"] {
            assert!(!names(&text, door), "{name} names the door {door}");
        }
    }
}

#[test]
fn arrows_point_one_way() {
    for (name, text) in sources("src") {
        let text = code(&text);
        let outer = ["src/main.rs", "src/lib.rs", "src/world.rs"].contains(&name.as_str());
        if !outer && !name.starts_with("src/commands/") {
            assert!(!text.contains("crate::commands"), "{name} calls a command");
        }
        if name.starts_with("src/external/") {
            for room in ["stack", "run", "record", "image", "world", "cli"] {
                // The builders tell what a binary speaks, which is the parser's to define.
                let text = text.replace("crate::run::gotest", "");
                assert!(!text.contains(&format!("crate::{room}::")), "{name} reaches into {room}");
            }
        }
    }
    let manifest = fs::read_to_string(root().join("reporters/Cargo.toml")).unwrap();
    let dependencies = &manifest[manifest.find("[dependencies]").unwrap()..];
    assert!(!dependencies.contains("path ="), "kmt-reporters depends on something of ours");
    for (name, text) in sources("reporters/src/event") {
        let siblings = ["model", "terminal", "junit", "json", "output", "mask", "text", "redact"];
        for room in siblings {
            assert!(!code(&text).contains(&format!("crate::{room}")), "{name} imports its sibling {room}");
        }
    }
}

#[test]
fn every_room_says_what_it_owns() {
    for folder in ["src", "reporters/src", ".cargo/xtask/src"] {
        for (name, text) in sources(folder) {
            assert!(
                text.starts_with("//! ") || text.starts_with("//!\n"),
                "{name} does not begin with `//!`"
            );
            let room = name.ends_with("/mod.rs");
            assert!(!room || text.lines().take_while(|line| line.starts_with("//!")).count() >= 3, "{name}");
        }
    }
}

#[test]
fn a_file_is_read_in_a_sitting() {
    for folder in ["src", "reporters/src", ".cargo/xtask/src", "tests"] {
        for (name, text) in sources(folder) {
            let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
            let lines = text[..end].lines().count();
            // A list of events or flags is read as a list.
            let list = ["reporters/src/event/mod.rs", "src/cli/mod.rs"].contains(&name.as_str());
            assert!(list || lines <= 500, "{name} has {lines} lines");
        }
    }
}

#[test]
fn nothing_is_left_for_later_and_nothing_has_an_empty_name() {
    let later = ["TODO", "FIXME", "XXX", "dbg!(", "todo!(", "unimplemented!("];
    for folder in ["src", "reporters/src", "tests", ".cargo/xtask/src"] {
        for (name, text) in sources(folder).into_iter().filter(|(name, _)| name != "tests/house.rs") {
            for word in later {
                assert!(!text.contains(word), "{name} says `{word}`");
            }
            for empty in ["Manager", "Helper", "Util", "Utils", "Context", "Data", "Info"] {
                for kind in ["struct ", "enum ", "trait ", "type "] {
                    let declared = text.match_indices(kind).map(|(at, _)| &text[at + kind.len()..]);
                    let mut declared = declared.map(|rest| {
                        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
                    });
                    assert!(!declared.any(|it| it.ends_with(empty)), "{name} declares a {kind}…{empty}");
                }
            }
        }
    }
}

#[test]
fn every_matrix_can_be_run() {
    let catalogue = Catalogue::embedded().unwrap();
    let mut count = 0;
    for path in fs::read_dir(root().join("matrices")).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let matrix = MatrixFile::load(&path, &|path| Ok(fs::read_to_string(path).unwrap())).unwrap();
        for arch in [Arch::X86_64, Arch::Arm64] {
            assert!(
                !matrix.expand(&catalogue, arch).unwrap().is_empty(),
                "{} selects nothing",
                path.display()
            );
        }
        let folder = matrix.root.unwrap_or_else(|| root().to_path_buf());
        assert!(folder.join("kmt.toml").is_file(), "{}: no kmt.toml at its root", path.display());
        count += 1;
    }
    assert!(count >= 3, "{count} matrices");
}

fn visible(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn seven_entries_are_seen_first() {
    let mut seen = visible(root());
    // Where cargo builds unless it is told otherwise; git does not know it.
    seen.remove("target");
    let wanted = ["Cargo.lock", "Cargo.toml", "README.md", "matrices", "reporters", "src", "tests"];
    assert_eq!(seen, BTreeSet::from(wanted.map(str::to_owned)));
}

/// Paths in the map of the README, the first fenced block of `text` that shows `src/`.
fn map() -> BTreeSet<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = readme.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.lines().any(|line| line.starts_with("src/"))).unwrap();
    let (mut paths, mut above) = (BTreeSet::new(), String::new());
    for line in block.lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        if line.starts_with(' ') {
            paths.insert(format!("{above}{name}"));
        } else {
            above = name.to_owned();
            paths.insert(name.to_owned());
        }
    }
    paths
}

#[test]
fn the_map_in_the_readme_is_the_tree() {
    let map = map();
    for path in &map {
        assert!(root().join(path).exists(), "the map shows `{path}`, which is not there");
    }
    let rooms = |folder: &str| -> BTreeSet<String> {
        let names = visible(&root().join(folder)).into_iter().map(|name| format!("{folder}{name}/"));
        names.filter(|path| Path::new(&root().join(path)).is_dir()).collect()
    };
    let missing: Vec<PathBuf> = rooms("src/").difference(&map).map(PathBuf::from).collect();
    assert!(missing.is_empty(), "the map does not show {missing:?}");
    for entry in ["matrices/", "src/", "reporters/", "tests/"] {
        assert!(map.contains(entry), "the map does not show `{entry}`");
    }
}
