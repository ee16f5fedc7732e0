//! Build layouts: folders, files and commands that make an installation out of a bare guest.
//!
//! The file is JSON as the former tool reads it (`layout`: folders, `copy`: file here to path there, `run`: commands
//! of a shell), or the same in TOML. Unknown keys are errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Failure, Kind, Result, unknown_key};
use crate::external::process::Output;
use crate::external::transport::Connection;

/// Takes a file from standard input to a path; puts it in place by a rename. Arguments: path, mode.
const PUT: &str = r#"set -e
mkdir -p "$(dirname "$1")"
new=$1.kmt-new
trap 'rm -f "$new"' EXIT
cat >"$new"
chmod "$2" "$new"
mv -f "$new" "$1""#;

/// A build layout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BuildLayout {
    /// Folders to make.
    pub layout: Vec<String>,
    /// Files here, relative to `kmt.toml`, and where they go.
    pub copy: BTreeMap<String, String>,
    /// Commands of a shell, in this order.
    pub run: Vec<String>,
}

impl BuildLayout {
    /// Reads a file; its ending says which of the two it is.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(path: &Path) -> Result<BuildLayout> {
        let refuse = |why: String, key: Option<String>| {
            let failure =
                Failure::usage(format!("`{}` is not a valid build layout", path.display())).caused_by(why);
            match key {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure
                    .hint("it has `layout` (folders), `copy` (file = path in the guest), `run` (commands)"),
            }
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string(), None))?;
        let near = |message: &str| unknown_key(message).map(str::to_owned);
        if path.extension().is_some_and(|ending| ending == "toml") {
            return toml::from_str(&text).map_err(|error| refuse(error.to_string(), near(error.message())));
        }
        serde_json::from_str(&text).map_err(|error| refuse(error.to_string(), near(&error.to_string())))
    }

    /// The files here, each with where it goes.
    ///
    /// # Errors
    /// One is missing, or goes to no absolute path.
    pub fn files(&self, repository: &Path) -> Result<Vec<(PathBuf, String)>> {
        let file = |(from, to): (&String, &String)| {
            let path = repository.join(from);
            if !path.is_file() {
                return Err(Failure::usage(format!(
                    "the build layout copies `{}`, which is no file",
                    path.display()
                )));
            }
            if !to.starts_with('/') {
                return Err(Failure::usage(format!(
                    "the build layout copies to `{to}`, which is no absolute path"
                )));
            }
            Ok((path, to.clone()))
        };
        self.copy.iter().map(file).collect()
    }

    /// Makes folders, copies files, runs commands.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn apply(&self, repository: &Path, guest: &dyn Connection) -> Result<()> {
        for folder in &self.layout {
            let path = format!("{}{folder}", guest.prefix());
            well(guest.run(&["mkdir", "-p", &path], Vec::new()).await?, &format!("make `{folder}`"))?;
        }
        for (file, to) in self.files(repository)? {
            put(guest, &file, &to).await?;
        }
        for command in &self.run {
            well(guest.run(&["sh", "-c", command], Vec::new()).await?, &format!("run `{command}`"))?;
        }
        Ok(())
    }
}

/// Copies a file to an absolute path in a guest, with its permissions.
///
/// # Errors
/// The file cannot be read, the guest does not take it.
pub async fn put(guest: &dyn Connection, file: &Path, to: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let unread = |error: &std::io::Error| Failure::file("read", file, error);
    let meta = std::fs::metadata(file).map_err(|error| unread(&error))?;
    let mode = format!("{:o}", meta.permissions().mode() & 0o777);
    let mut content = tokio::fs::File::open(file).await.map_err(|error| unread(&error))?;
    let path = format!("{}{to}", guest.prefix());
    let output = guest.feed(&["sh", "-c", PUT, "sh", &path, &mode], &mut content).await?;
    well(output, &format!("take `{to}`"))
}

fn well(output: Output, what: &str) -> Result<()> {
    if output.ok() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let status = output.status.map_or("a signal".to_owned(), |code| format!("status {code}"));
    let failure = Failure::new(Kind::Infrastructure, format!("the guest could not {what}: {status}"));
    Err(if words.trim().is_empty() {
        failure
    } else {
        failure.caused_by(kmt_reporters::escape(words.trim()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::external::transport::local::Local;

    #[tokio::test]
    async fn both_spellings_make_the_same_installation() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name).display().to_string();
        fs::write(temp.path().join("a.yaml"), "key: 1\n").unwrap();
        let json = format!(
            r#"{{"layout": ["{0}"], "copy": {{"a.yaml": "{1}"}}, "run": ["echo done >{2}"]}}"#,
            at("etc/agent"),
            at("etc/agent/b.yaml"),
            at("ran")
        );
        let toml = format!(
            "layout = [\"{0}\"]\nrun = [\"echo done >{2}\"]\n[copy]\n\"a.yaml\" = \"{1}\"\n",
            at("etc/agent"),
            at("etc/agent/b.yaml"),
            at("ran")
        );
        for (name, text) in [("l.json", json), ("l.toml", toml)] {
            let file = temp.path().join(name);
            fs::write(&file, text).unwrap();
            BuildLayout::read(&file).unwrap().apply(temp.path(), &Local::new("/")).await.unwrap();
            assert_eq!(fs::read_to_string(at("etc/agent/b.yaml")).unwrap(), "key: 1\n");
            assert_eq!(fs::read_to_string(at("ran")).unwrap(), "done\n");
            fs::remove_dir_all(at("etc")).unwrap();
            fs::remove_file(at("ran")).unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_missing_or_misspelt_is_said() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("l.json");
        fs::write(&file, r#"{"layouts": []}"#).unwrap();
        assert_eq!(BuildLayout::read(&file).unwrap_err().hints, ["did you mean `layout`?"]);
        fs::write(&file, r#"{"copy": {"none": "/x"}}"#).unwrap();
        let error = BuildLayout::read(&file).unwrap().apply(temp.path(), &Local::new("/")).await.unwrap_err();
        assert!(error.message.contains("which is no file"), "{error:?}");
        let layout = BuildLayout { run: vec!["echo no >&2; exit 3".into()], ..BuildLayout::default() };
        let error = layout.apply(temp.path(), &Local::new("/")).await.unwrap_err();
        assert_eq!(
            (error.causes.as_slice(), error.kind),
            (["no".to_owned()].as_slice(), Kind::Infrastructure)
        );
    }
}
