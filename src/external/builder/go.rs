//! The Go toolchain: one `go list` says what there is and what it depends on, `go test -c` and `go build`
//! compile. Works with modules, workspaces and, where `GO111MODULE=off` is in the environment, GOPATH.

mod listing;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kmt_reporters::event::Arch;

use super::{BuildRequest, Builder, Cgo, Lines, Race, Unit, UnitKind};
use crate::external::process::{Child, Output};
use crate::external::{Class, Error, Result};
use crate::settings::component::for_arch;
use listing::{Listing, Package};

const SYSTEM: &str = "go";
/// What `go list` is asked for.
const FIELDS: &str = "-json=ImportPath,Dir,Name,ForTest,Standard,DepOnly,Deps,Module,GoFiles,CgoFiles,CFiles,\
CXXFiles,MFiles,HFiles,FFiles,SFiles,SwigFiles,SwigCXXFiles,SysoFiles,EmbedFiles,TestGoFiles,XTestGoFiles,\
TestEmbedFiles,XTestEmbedFiles";
/// So many packages go to one command: their targets travel in its environment.
const TOGETHER: usize = 200;
/// Called by `go test` for each package in its folder, with its binary: takes it away.
const TAKE: &str = r#"sh -c '
printf "%s\n" "$KMT_TARGETS" | while IFS="	" read -r folder target; do
  if [ "$folder" = "$PWD" ]; then mv -f "$1" "$target"; fi
done' sh"#;
/// Variables that change what is compiled.
const VARIABLES: [&str; 17] = [
    "GOVERSION",
    "GOROOT",
    "GOFLAGS",
    "GOEXPERIMENT",
    "GOAMD64",
    "GOARM64",
    "GOMOD",
    "GOWORK",
    "GO111MODULE",
    "CC",
    "CXX",
    "CGO_ENABLED",
    "CGO_CFLAGS",
    "CGO_CPPFLAGS",
    "CGO_CXXFLAGS",
    "CGO_LDFLAGS",
    "PKG_CONFIG",
];

/// What `go env` says.
type Environment = serde_json::Map<String, serde_json::Value>;

/// Builds with the `go` found in `PATH`, or another.
#[derive(Debug, Clone)]
pub struct Go {
    program: String,
}

impl Default for Go {
    fn default() -> Go {
        Go { program: "go".to_owned() }
    }
}

impl Go {
    /// Builds with the toolchain command `program`.
    pub fn at(program: impl Into<String>) -> Go {
        Go { program: program.into() }
    }

    fn child(&self, request: &BuildRequest) -> Child {
        let mut child = Child::new(&self.program)
            .folder(&request.root)
            .env("GOOS", "linux")
            .env("GOARCH", request.arch.deb())
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", if request.cgo == Cgo::On { "1" } else { "0" });
        if request.cgo == Cgo::On && request.arch != Arch::host() {
            child = child.env("CC", for_arch("{machine}-linux-gnu-gcc", request.arch));
        }
        for (key, value) in &request.env {
            child = child.env(key, value);
        }
        child
    }

    fn flags(request: &BuildRequest) -> Vec<String> {
        let mut flags = Vec::new();
        if !request.tags.is_empty() {
            flags.push(format!("-tags={}", request.tags.join(",")));
        }
        if request.race == Race::Detected {
            flags.push("-race".to_owned());
        }
        flags.extend(request.args.iter().cloned());
        flags
    }

    async fn output(&self, child: Child, operation: &'static str, subject: &str) -> Result<Output> {
        let output = child.output().await.map_err(|error| match error.class {
            Class::NotFound => Error::new(SYSTEM, operation, subject, Class::NotFound, error.detail)
                .hint("install the Go toolchain, such as `apt-get install golang-go`"),
            _ => error,
        })?;
        if output.ok() {
            return Ok(output);
        }
        let words = format!("{}{}", output.text(), String::from_utf8_lossy(&output.stderr));
        Err(Error::new(SYSTEM, operation, subject, Class::Rejected, words))
    }

    async fn environment(&self, request: &BuildRequest) -> Result<Environment> {
        let child = self.child(request).args(["env", "-json"]).args(VARIABLES);
        let output = self.output(child, "ask", "its environment").await?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::new(SYSTEM, "ask", "its environment", Class::Unintelligible, error))
    }

    async fn packages(
        &self,
        request: &BuildRequest,
        patterns: &[&str],
        more: &[&str],
    ) -> Result<Vec<Package>> {
        let subject = patterns.join(" ");
        let child = self.child(request).arg("list").args(more).arg(FIELDS).args(Self::flags(request));
        let output = self.output(child.arg("--").args(patterns), "list", &subject).await?;
        let packages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Package>();
        packages
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| Error::new(SYSTEM, "list", subject, Class::Unintelligible, error))
    }

    /// Says of a listing that failed which pattern it was and what there is instead.
    async fn explain(&self, request: &BuildRequest, error: Error) -> Error {
        let Ok(known) = self.packages(request, &["./..."], &["-e"]).await else {
            return error;
        };
        let known: Vec<String> =
            known.iter().filter_map(|package| listing::folder(&request.root, package)).collect();
        for pattern in patterns(request) {
            if !pattern.starts_with('.') && request.root.join(pattern.trim_end_matches("...")).is_dir() {
                let unknown = Error::new(SYSTEM, "find the package", pattern, Class::NotFound, &error.detail);
                return unknown.hint(format!("folders begin with `./`: `./{pattern}`"));
            }
            if listing::any_matches(&request.root, pattern, &known) {
                continue;
            }
            let detail = if error.detail.is_empty() { "it matches no package" } else { &error.detail };
            let unknown = Error::new(SYSTEM, "find the package", pattern, Class::NotFound, detail);
            return match listing::nearest(pattern, &known) {
                Some(near) => unknown.hint(format!("did you mean `./{near}`?")),
                None => unknown,
            };
        }
        error
    }

    /// What the C compiler calls itself, where there is one to take part.
    async fn compiler(&self, request: &BuildRequest, environment: &Environment) -> Option<String> {
        let compiler = environment.get("CC").and_then(serde_json::Value::as_str)?;
        let mut words = compiler.split_whitespace();
        let (program, cgo) = (words.next()?, request.cgo == Cgo::On);
        if !cgo {
            return None;
        }
        let output = Child::new(program).args(words).arg("--version").output().await.ok()?;
        output.text().lines().next().map(|line| format!("compiler {line}"))
    }

    /// The units of one request, without helpers.
    async fn units(&self, request: &BuildRequest) -> Result<Vec<Unit>> {
        let patterns: Vec<&str> = patterns(request).map(String::as_str).collect();
        if patterns.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(dash) = patterns.iter().find(|pattern| pattern.starts_with('-')) {
            return Err(Error::new(SYSTEM, "list", *dash, Class::Rejected, "that is no package pattern"));
        }
        let (environment, packages) =
            tokio::join!(self.environment(request), self.packages(request, &patterns, &["-deps", "-test"]));
        let environment = environment?;
        let packages = match packages {
            Ok(packages) => packages,
            Err(error) => return Err(self.explain(request, error).await),
        };
        let compiler = self.compiler(request, &environment).await;
        let listing = Listing::new(request, &environment, compiler, packages);
        // Patterns that match nothing are a warning to Go and an error here.
        if let Some(pattern) = listing.unmatched() {
            let error =
                Error::new(SYSTEM, "find the package", pattern, Class::NotFound, "it matches no package");
            return Err(self.explain(request, error).await);
        }
        Ok(listing.units())
    }
}

/// Everything that is named to be built.
fn patterns(request: &BuildRequest) -> impl Iterator<Item = &String> {
    request.packages.iter().chain(&request.binaries).chain(&request.helpers)
}

/// The helpers of a request: they run in any guest, so they are static.
/// How tests are linked: without DWARF, as `go test` links what it runs itself, which is half of what a guest
/// gets; the component's own flags come later and may ask for it (`-w=false`). Symbols stay: probes attach to them.
fn tests_linked(request: &BuildRequest) -> String {
    format!("-ldflags=-s=false -w {}", request.ldflags.as_deref().unwrap_or_default())
}

fn helpers(request: &BuildRequest) -> BuildRequest {
    BuildRequest {
        packages: Vec::new(),
        binaries: Vec::new(),
        cgo: Cgo::Off,
        race: Race::Ignored,
        ..request.clone()
    }
}

#[async_trait]
impl Builder for Go {
    async fn list(&self, request: &BuildRequest) -> Result<Vec<Unit>> {
        let (tests, helpers) = (BuildRequest { helpers: Vec::new(), ..request.clone() }, helpers(request));
        let (units, helpers) = tokio::join!(self.units(&tests), self.units(&helpers));
        let mut units = units?;
        units.extend(helpers?);
        Ok(units)
    }

    async fn compile_together(&self, request: &BuildRequest, units: &[(Unit, PathBuf)], lines: Lines<'_>) {
        let tests: Vec<_> = units.iter().filter(|(unit, _)| unit.kind == UnitKind::Test).collect();
        for tests in tests.chunks(TOGETHER) {
            // Two targets in one folder cannot be told apart, a line end would make two of one.
            let plain = |path: &Path| !path.to_string_lossy().contains(['\n', '\t']);
            let tests = tests.iter().filter(|(unit, into)| plain(&unit.dir) && plain(into));
            let (mut targets, mut names) = (String::new(), Vec::new());
            for (unit, into) in tests {
                targets.push_str(&format!("{}\t{}\n", unit.dir.display(), into.display()));
                names.push(unit.import_path.as_str());
            }
            if names.len() < 2 {
                continue;
            }
            // `go test` builds all of them in one graph, which `go test -c` does not; what it would run is taken
            // away instead.
            let child = self.child(request).env("KMT_TARGETS", targets);
            let child = child.args(["test", "-vet=off", "-count=1", "-timeout=0", "-buildvcs=false"]);
            let child =
                child.args(Self::flags(request)).arg(tests_linked(request)).arg(format!("-exec={TAKE}"));
            // Whatever is missing afterwards is compiled again, and says then why it cannot be.
            let _ = child.args(names).told(1 << 10, lines).await;
        }
    }

    async fn compile(&self, request: &BuildRequest, unit: &Unit, into: &Path) -> Result<()> {
        let verb: &[&str] = match unit.kind {
            UnitKind::Test => &["test", "-c"],
            UnitKind::Binary | UnitKind::Helper => &["build"],
        };
        let request = match unit.kind {
            UnitKind::Helper => &helpers(request),
            UnitKind::Test | UnitKind::Binary => request,
        };
        // No VCS stamp: it would change the binary at each commit, and fails for a checkout of another user.
        let mut child = self.child(request).args(verb).arg("-buildvcs=false").args(Self::flags(request));
        if unit.kind == UnitKind::Test {
            child = child.arg(tests_linked(request));
        } else if let Some(flags) = &request.ldflags {
            child = child.arg(format!("-ldflags={flags}"));
        }
        let child = child.arg("-o").arg(into).arg(&unit.import_path);
        self.output(child, "compile", &unit.name).await.map(|_| ())
    }
}
