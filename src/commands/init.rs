//! `config init` and `config schema`: a first `kmt.toml`, and what may stand in one.

use std::path::Path;

use super::{print_json, say};
use crate::cli::{Init, Template};
use crate::error::{Failure, Result};
use crate::settings::file;

const GO: &str = include_str!("../settings/templates/go.toml");
const DATADOG_AGENT: &str = include_str!("../settings/templates/datadog-agent.toml");

/// Writes a commented `kmt.toml` into the folder.
///
/// # Errors
/// There is one already, no Go module, or no way to write.
pub(super) fn init(args: &Init, folder: Option<&Path>) -> Result<u8> {
    let folder = folder.unwrap_or(Path::new("."));
    let path = folder.join("kmt.toml");
    if path.exists() && !args.force {
        return Err(Failure::usage(format!("there is a `{}` already", path.display()))
            .hint("`--force` writes over it; `kmt-run config show` says what it means"));
    }
    let text = match args.template {
        Template::Go => go(folder)?,
        Template::DatadogAgent => DATADOG_AGENT.to_owned(),
    };
    std::fs::write(&path, text).map_err(|error| Failure::file("write", &path, &error))?;
    say(&format!("{:>12} {}", "Wrote", path.display()));
    say(&format!("{:>12} kmt-run plan --vms debian_12-local-distro", "next:"));
    Ok(0)
}

/// The template of a Go module, its component called by the module's last part.
fn go(folder: &Path) -> Result<String> {
    let path = folder.join("go.mod");
    let module = std::fs::read_to_string(&path).map_err(|error| {
        Failure::usage(format!("no Go module here: cannot read `{}`", path.display()))
            .caused_by(error)
            .hint("`-C DIR config init` writes elsewhere; other builders: `kmt-run config schema`")
    })?;
    let module = module.lines().find_map(|line| line.trim().strip_prefix("module ")).unwrap_or("suite");
    let mut parts = module.trim().trim_matches('"').rsplit('/');
    // `example.com/name/v2` is called `name`.
    let version = |part: &&str| part.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    let name = parts.find(|part| !version(part)).unwrap_or("suite");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    Ok(GO.replace("NAME", &name.chars().map(plain).collect::<String>()))
}

/// Prints the JSON Schema of `kmt.toml`.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn schema() -> Result<u8> {
    print_json(&file::schema()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmt.toml");
        let mut args = Init { template: Template::Go, force: false };
        assert!(init(&args, Some(folder.path())).unwrap_err().message.contains("no Go module"));
        fs::write(folder.path().join("go.mod"), "module example.com/some/probe/v2\n\ngo 1.19\n").unwrap();
        init(&args, Some(folder.path())).unwrap();
        let config = file::read(&path).unwrap();
        assert_eq!(config.component.keys().collect::<Vec<_>>(), ["probe"]);
        assert!(init(&args, Some(folder.path())).unwrap_err().message.contains("already"));
        args = Init { template: Template::DatadogAgent, force: true };
        init(&args, Some(folder.path())).unwrap();
        let config = file::read(&path).unwrap();
        assert_eq!(config.component.keys().collect::<Vec<_>>(), ["security-agent", "system-probe"]);
    }

    /// Every commented line of the template is one that can be used.
    #[test]
    fn what_is_commented_out_means_something_too() {
        let text = GO.replace("NAME", "probe");
        let live = |line: &str| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.starts_with('"') || rest.contains(" = ") => {
                rest.to_owned()
            }
            _ => line.to_owned(),
        };
        let text: String = text.lines().map(|line| live(line) + "\n").collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmt.toml");
        fs::write(&path, text).unwrap();
        let component = &file::read(&path).unwrap().component["probe"];
        assert!(component.race && component.prepare.modules == ["veth"] && component.command.len() == 1);
    }
}
