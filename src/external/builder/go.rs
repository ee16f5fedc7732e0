//! The Go toolchain: one `go list` says what there is and what it depends on, `go test -c` and `go build`
//! compile. Works with modules, workspaces and, where `GO111MODULE=off` is in the environment, GOPATH.

mod listing;

use std::path::Path;

use async_trait::async_trait;

use super::{BuildRequest, Builder, Cgo, Unit, UnitKind};
use crate::external::process::{Child, Output};
use crate::external::{Class, Error, Result};
use listing::{Listing, Package};

const SYSTEM: &str = "go";
/// What `go list` is asked for.
const FIELDS: &str = "-json=ImportPath,Dir,Name,ForTest,Standard,DepOnly,Deps,Module,GoFiles,CgoFiles,CFiles,\
CXXFiles,MFiles,HFiles,FFiles,SFiles,SwigFiles,SwigCXXFiles,SysoFiles,EmbedFiles,TestGoFiles,XTestGoFiles,\
TestEmbedFiles,XTestEmbedFiles";
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

    async fn environment(
        &self,
        request: &BuildRequest,
    ) -> Result<serde_json::Map<String, serde_json::Value>> {
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
        let patterns = request.packages.iter().chain(&request.binaries);
        let Ok(known) = self.packages(request, &["./..."], &["-e"]).await else {
            return error;
        };
        let known: Vec<String> =
            known.iter().filter_map(|package| listing::folder(&request.root, package)).collect();
        for pattern in patterns {
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
}

#[async_trait]
impl Builder for Go {
    async fn list(&self, request: &BuildRequest) -> Result<Vec<Unit>> {
        let mut patterns: Vec<&str> = request.packages.iter().map(String::as_str).collect();
        patterns.extend(request.binaries.iter().map(String::as_str));
        if patterns.is_empty() {
            return Ok(Vec::new());
        }
        // Patterns that match nothing are a warning to Go and an error here.
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
        let listing = Listing::new(request, &environment, packages);
        if let Some(pattern) = listing.unmatched() {
            let error =
                Error::new(SYSTEM, "find the package", pattern, Class::NotFound, "it matches no package");
            return Err(self.explain(request, error).await);
        }
        Ok(listing.units())
    }

    async fn compile(&self, request: &BuildRequest, unit: &Unit, into: &Path) -> Result<()> {
        let verb: &[&str] = match unit.kind {
            UnitKind::Test => &["test", "-c"],
            UnitKind::Binary => &["build"],
        };
        // No VCS stamp: it would change the binary at each commit, and fails for a checkout of another user.
        let mut child = self.child(request).args(verb).arg("-buildvcs=false").args(Self::flags(request));
        if let Some(flags) = &request.ldflags {
            child = child.arg(format!("-ldflags={flags}"));
        }
        let child = child.arg("-o").arg(into).arg(&unit.import_path);
        self.output(child, "compile", &unit.name).await.map(|_| ())
    }
}
