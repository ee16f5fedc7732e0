//! What `go list -deps -test -json` said, as units with all that they depend on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::{BuildRequest, Unit, UnitKind};

/// One package as Go tells it. Every other field is a list of files, by the kind of file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Package {
    import_path: String,
    #[serde(default)]
    dir: PathBuf,
    #[serde(default)]
    name: String,
    #[serde(default)]
    for_test: String,
    #[serde(default)]
    standard: bool,
    #[serde(default)]
    dep_only: bool,
    #[serde(default)]
    deps: Vec<String>,
    module: Option<Module>,
    #[serde(flatten)]
    files: BTreeMap<String, Vec<PathBuf>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Module {
    path: String,
    #[serde(default)]
    version: String,
    go_mod: Option<PathBuf>,
    replace: Option<Box<Module>>,
}

impl Module {
    /// `path@version` where the module cache holds it, which never changes.
    fn fixed(&self) -> Option<String> {
        match &self.replace {
            Some(other) => other.fixed(),
            None if self.version.is_empty() => None,
            None => Some(format!("{}@{}", self.path, self.version)),
        }
    }

    /// Its `go.mod`.
    fn file(&self) -> Option<&PathBuf> {
        self.replace.as_ref().and_then(|other| other.file()).or(self.go_mod.as_ref())
    }
}

/// The folder of a package relative to the root, `.` for the root itself; none outside of it.
pub(super) fn folder(root: &Path, package: &Package) -> Option<String> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let dir = package.dir.canonicalize().ok()?;
    let relative = dir.strip_prefix(root).ok()?.to_str()?;
    Some(if relative.is_empty() { ".".to_owned() } else { relative.to_owned() })
}

/// Whether a relative pattern matches one of the folders. Patterns of import paths are taken to match.
pub(super) fn any_matches(root: &Path, pattern: &str, known: &[String]) -> bool {
    if !pattern.starts_with('.') {
        return !root.join(pattern.trim_end_matches("...")).exists()
            || known.iter().any(|name| name == pattern);
    }
    let stem = pattern.trim_start_matches("./").trim_end_matches('/');
    match stem.strip_suffix("...") {
        Some(stem) => known.iter().any(|name| stem.is_empty() || format!("{name}/").starts_with(stem)),
        None => known.iter().any(|name| name == stem || (stem.is_empty() && name == ".")),
    }
}

/// The known folder that differs least from what was typed, if any is near.
pub(super) fn nearest<'a>(pattern: &str, known: &'a [String]) -> Option<&'a str> {
    let typed = pattern.trim_start_matches("./").trim_end_matches("...").trim_matches('/');
    let scored = known.iter().map(|name| (distance(typed, name), name.as_str()));
    let (score, name) = scored.min()?;
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let same_end = known.iter().find(|name| last(name) == last(typed));
    match same_end {
        Some(name) if score > 3 => Some(name),
        _ => (score <= 2 + typed.len() / 3).then_some(name),
    }
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let best = (corner + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

/// All that was listed.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    request: &'a BuildRequest,
    facts: Vec<String>,
    files: Vec<PathBuf>,
    packages: HashMap<String, Package>,
}

impl<'a> Listing<'a> {
    pub(super) fn new(
        request: &'a BuildRequest,
        environment: &Map<String, Value>,
        compiler: Option<String>,
        all: Vec<Package>,
    ) -> Self {
        let value = |key: &str| environment.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut facts: Vec<String> =
            super::VARIABLES.iter().map(|key| format!("{key}={}", value(key))).collect();
        facts.push(format!("arch={} cgo={:?}", request.arch, request.cgo));
        facts.push(format!("tags={:?} ldflags={:?} dwarf=no", request.tags, request.ldflags));
        facts.push(format!("race={:?} args={:?}", request.race, request.args));
        facts.extend(compiler);
        facts.extend(request.env.iter().map(|(key, value)| format!("env {key}={value}")));
        let mut files = Vec::new();
        for key in ["GOMOD", "GOWORK"] {
            let file = PathBuf::from(value(key));
            if file.is_absolute() && file.is_file() {
                let sum = file.with_extension(if key == "GOMOD" { "sum" } else { "work.sum" });
                files.extend([file, sum].into_iter().filter(|file| file.is_file()));
            }
        }
        // The other modules of a workspace, and those that stand in for published ones.
        let modules = all.iter().filter_map(|package| package.module.as_ref());
        let local = modules.filter(|module| module.fixed().is_none()).filter_map(Module::file);
        for file in local.collect::<BTreeSet<_>>() {
            let sum = file.with_extension("sum");
            files.extend([file.clone(), sum].into_iter().filter(|file| file.is_file()));
        }
        files.extend(super::super::pattern::files(&request.repository, &request.inputs));
        let packages = all.into_iter().map(|package| (package.import_path.clone(), package)).collect();
        Listing { request, facts, files, packages }
    }

    /// A pattern that selected nothing.
    pub(super) fn unmatched(&self) -> Option<&'a str> {
        let chosen = self.chosen();
        let folders: Vec<String> =
            chosen.iter().filter_map(|package| folder(&self.request.root, package)).collect();
        super::patterns(self.request).map(String::as_str).find(|pattern| {
            chosen.is_empty()
                || (pattern.starts_with('.') && !any_matches(&self.request.root, pattern, &folders))
        })
    }

    fn chosen(&self) -> Vec<&Package> {
        let chosen = |package: &&Package| {
            !package.dep_only && package.for_test.is_empty() && !package.import_path.ends_with(".test")
        };
        self.packages.values().filter(chosen).collect()
    }

    /// The units, sorted by kind and name.
    pub(super) fn units(&self) -> Vec<Unit> {
        let mut units = Vec::new();
        for package in self.chosen() {
            let name = folder(&self.request.root, package).unwrap_or_else(|| package.import_path.clone());
            let wanted = |patterns: &[String]| {
                let one = [name.clone()];
                patterns.iter().any(|pattern| {
                    pattern == &package.import_path
                        || pattern.trim_end_matches('/').trim_start_matches("./") == name
                        || any_matches(&self.request.root, pattern, &one)
                })
            };
            let tests = format!("{}.test", package.import_path);
            if let Some(main) = self.packages.get(&tests)
                && wanted(&self.request.packages)
                && !self.request.exclude.iter().any(|pattern| super::super::matches(pattern, &name))
            {
                units.push(self.unit(UnitKind::Test, &name, package, main));
            }
            if package.name == "main" && wanted(&self.request.binaries) {
                units.push(self.unit(UnitKind::Binary, &name, package, package));
            }
            if package.name == "main" && wanted(&self.request.helpers) {
                units.push(self.unit(UnitKind::Helper, &name, package, package));
            }
        }
        units.sort_by(|a, b| {
            (a.kind == UnitKind::Binary, &a.name).cmp(&(b.kind == UnitKind::Binary, &b.name))
        });
        units
    }

    fn unit(&self, kind: UnitKind, name: &str, package: &Package, main: &Package) -> Unit {
        let mut inputs: BTreeSet<PathBuf> = self.files.iter().cloned().collect();
        let mut facts: BTreeSet<String> = BTreeSet::new();
        let closure = main.deps.iter().filter_map(|path| self.packages.get(path));
        for part in
            closure.chain([package]).filter(|part| !part.standard && !part.import_path.ends_with(".test"))
        {
            // A vendored copy may be changed by hand.
            let published = part.module.as_ref().and_then(Module::fixed);
            match published.filter(|_| !part.dir.starts_with(&self.request.root)) {
                Some(fixed) => drop(facts.insert(fixed)),
                None => inputs.extend(sources(part, package, kind)),
            }
            facts.insert(format!("package {} in {}", part.import_path, part.dir.display()));
        }
        Unit {
            kind,
            name: name.to_owned(),
            import_path: package.import_path.clone(),
            dir: package.dir.clone(),
            inputs: inputs.into_iter().collect(),
            facts: self.facts.iter().cloned().chain(facts).collect(),
            made: None,
        }
    }
}

/// The files of a package; test files only of the package whose tests are built.
fn sources<'p>(part: &'p Package, package: &Package, kind: UnitKind) -> impl Iterator<Item = PathBuf> + 'p {
    let own = kind == UnitKind::Test && part.import_path == package.import_path;
    part.files
        .iter()
        .filter(move |(field, _)| own || !(field.starts_with("Test") || field.starts_with("XTest")))
        .flat_map(|(_, files)| files)
        .map(|file| part.dir.join(file))
}
