//! Which files go where below a guest's layout root.
//!
//! `<pkg>/testsuite` and `<pkg>/testdata/…` for tests, `bin/<name>` for programs, `<pkg>/<name>` for what tests call,
//! artifacts where they are in the repository or where they are moved to; git is not asked. `testdata` of the folders
//! above a package goes along, for tests reach for it by `../testdata`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cache::{self, Entry};
use super::{ArtifactSet, ShipFile, ShipLink, TestPackage};
use crate::external::builder::{BuildRequest, Unit, UnitKind, pattern};
use crate::run::formats::Speech;
use crate::settings::component::Artifact;

/// The layout of `units`, built as `entries`.
pub(super) fn lay_out(request: &BuildRequest, units: &[Unit], entries: &[Entry]) -> io::Result<ArtifactSet> {
    let mut layout =
        Layout { root: &request.root, files: BTreeMap::new(), links: BTreeMap::new(), seen: BTreeSet::new() };
    let mut packages = Vec::new();
    for (unit, entry) in units.iter().zip(entries) {
        let dest = match unit.kind {
            UnitKind::Test => join(&unit.name, "testsuite"),
            UnitKind::Binary => join("bin", last_part(unit)),
            UnitKind::Helper => join(&unit.name, last_part(unit)),
        };
        layout.add(ShipFile {
            dest: dest.clone(),
            source: entry.file.clone(),
            digest: entry.digest.clone(),
            mode: 0o755,
            size: entry.size,
        })?;
        if unit.kind == UnitKind::Test {
            layout.testdata(unit)?;
            let name = unit.name.clone();
            let speech = Speech::of(request.format, entry.framing);
            packages.push(TestPackage { workdir: name.clone(), name, binary: dest, speech });
        }
    }
    for artifact in &request.artifacts {
        layout.artifact(&request.repository, artifact)?;
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ArtifactSet {
        arch: request.arch,
        files: layout.files.into_values().collect(),
        links: layout.links.into_values().collect(),
        packages,
    })
}

fn last_part(unit: &Unit) -> &str {
    let name = if unit.name == "." { &unit.import_path } else { &unit.name };
    name.rsplit('/').next().unwrap_or(name)
}

fn join(folder: &str, name: &str) -> String {
    if folder == "." { name.to_owned() } else { format!("{folder}/{name}") }
}

fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().filter(|text| !text.contains('\n'));
    text.map(str::to_owned)
        .ok_or_else(|| io::Error::other(format!("the name `{}` cannot be shipped", path.display())))
}

struct Layout<'a> {
    root: &'a Path,
    files: BTreeMap<String, ShipFile>,
    links: BTreeMap<String, ShipLink>,
    seen: BTreeSet<String>,
}

impl Layout<'_> {
    fn add(&mut self, file: ShipFile) -> io::Result<()> {
        match self.files.get(&file.dest) {
            Some(other) if other.digest != file.digest => {
                Err(io::Error::other(format!("two files would be shipped as `{}`", file.dest)))
            }
            _ => {
                self.files.insert(file.dest.clone(), file);
                Ok(())
            }
        }
    }

    /// Files of the repository by a pattern. A pattern that matches nothing is an error: what is not shipped is missed
    /// much later.
    fn artifact(&mut self, repository: &Path, artifact: &Artifact) -> io::Result<()> {
        let (from, to) = match artifact {
            Artifact::Same(from) => (from, None),
            Artifact::Moved(moved) => (&moved.from, Some(moved.to.trim_matches('/'))),
        };
        let found = pattern::matching(repository, from).map_err(io::Error::other)?;
        if found.is_empty() {
            return Err(io::Error::other(format!(
                "no artifact matches `{from}` in `{}`",
                repository.display()
            )));
        }
        for path in found {
            let relative = text(path.strip_prefix(repository).unwrap_or(&path))?;
            let last = text(Path::new(path.file_name().unwrap_or_default()))?;
            let dest = match to {
                None => relative,
                Some("" | ".") => last,
                Some(folder) => join(folder, &last),
            };
            self.tree(&path, &dest)?;
        }
        Ok(())
    }

    /// The `testdata` of a package and of the folders above it.
    fn testdata(&mut self, unit: &Unit) -> io::Result<()> {
        self.folder(&unit.dir.join("testdata"), &join(&unit.name, "testdata"))?;
        let mut above = Path::new(&unit.name).parent();
        while let Some(folder) = above.filter(|_| unit.name != ".") {
            let name = if folder.as_os_str().is_empty() { ".".to_owned() } else { text(folder)? };
            self.folder(&self.root.join(folder).join("testdata"), &join(&name, "testdata"))?;
            above = folder.parent();
        }
        Ok(())
    }

    fn folder(&mut self, source: &Path, dest: &str) -> io::Result<()> {
        if source.is_dir() && self.seen.insert(dest.to_owned()) { self.tree(source, dest) } else { Ok(()) }
    }

    fn tree(&mut self, source: &Path, dest: &str) -> io::Result<()> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot read `{}`: {error}", source.display()))
        };
        let meta = fs::symlink_metadata(source).map_err(named)?;
        if meta.is_symlink() {
            let target = text(&fs::read_link(source).map_err(named)?)?;
            self.links.insert(dest.to_owned(), ShipLink { dest: dest.to_owned(), target });
        } else if meta.is_dir() {
            let mut entries: Vec<PathBuf> = fs::read_dir(source)
                .map_err(named)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<_>>()
                .map_err(named)?;
            entries.sort();
            for entry in entries {
                let name = text(Path::new(entry.file_name().unwrap_or_default()))?;
                self.tree(&entry, &join(dest, &name))?;
            }
        } else if meta.is_file() {
            let (digest, size) = cache::digest(source).map_err(named)?;
            let mode = meta.permissions().mode() & 0o777;
            self.add(ShipFile { dest: dest.to_owned(), source: source.to_owned(), digest, mode, size })?;
        }
        Ok(())
    }
}
