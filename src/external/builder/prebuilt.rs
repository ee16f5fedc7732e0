//! A folder of finished test binaries: nothing is compiled.
//!
//! Each executable ELF file named `testsuite` or `*.test` below the root is a package. `a/b/testsuite` is
//! `a/b`; `a/b.test` is `a/b` too, and gets the `testdata` beside it unless there is a folder `a/b`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{BuildRequest, Builder, Unit, UnitKind, matches};
use crate::artifact::elf;
use crate::external::{Class, Error, Result};

const SYSTEM: &str = "prebuilt folder";

/// Takes what is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prebuilt;

#[async_trait]
impl Builder for Prebuilt {
    async fn list(&self, request: &BuildRequest) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        visit(&request.root, &request.root, &mut units)?;
        units.sort_by(|a, b| a.name.cmp(&b.name));
        let all: Vec<String> = units.iter().map(|unit| unit.name.clone()).collect();
        for unit in &units {
            let file = unit.made.as_deref().unwrap_or(&unit.dir);
            if elf::architecture(file) != Some(request.arch) {
                let detail = format!("it is not a binary for {}", request.arch);
                return Err(Error::new(SYSTEM, "use", file.display().to_string(), Class::Rejected, detail));
            }
        }
        for pattern in &request.packages {
            if !all.iter().any(|name| matches(pattern, name)) {
                let error =
                    Error::new(SYSTEM, "find", pattern, Class::NotFound, "no test binary of that name");
                return Err(error.hint(format!("there are: {}", all.join(", "))));
            }
        }
        units.retain(|unit| request.wants(&unit.name));
        Ok(units)
    }

    async fn compile(&self, _request: &BuildRequest, unit: &Unit, _into: &Path) -> Result<()> {
        Err(Error::new(SYSTEM, "compile", &unit.name, Class::Rejected, "it takes finished binaries only"))
    }
}

fn visit(root: &Path, folder: &Path, units: &mut Vec<Unit>) -> Result<()> {
    let fail = |error: std::io::Error| Error::io(SYSTEM, "read", folder.display().to_string(), &error);
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        let path = entry.path();
        if kind.is_dir() && entry.file_name() != "testdata" {
            visit(root, &path, units)?;
        } else if kind.is_file()
            && let Some(unit) = unit(root, &path)
        {
            units.push(unit);
        }
    }
    Ok(())
}

fn unit(root: &Path, file: &Path) -> Option<Unit> {
    let relative = file.strip_prefix(root).ok()?;
    let executable = file.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
    let name: PathBuf = match relative.file_name()?.to_str()? {
        "testsuite" => relative.parent()?.to_owned(),
        name => relative.with_file_name(name.strip_suffix(".test")?),
    };
    if !executable || !elf::is_elf(file) {
        return None;
    }
    let own = root.join(&name);
    let dir = if own.is_dir() { own } else { file.parent()?.to_owned() };
    let name = if name.as_os_str().is_empty() { ".".to_owned() } else { name.to_str()?.to_owned() };
    Some(Unit {
        kind: UnitKind::Test,
        import_path: name.clone(),
        name,
        dir,
        inputs: Vec::new(),
        facts: Vec::new(),
        made: Some(file.to_owned()),
    })
}
