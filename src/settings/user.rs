//! The user's own file: `$XDG_CONFIG_HOME/kmt-run/config.toml`, by default `~/.config/kmt-run/config.toml`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::home::absolute;
use super::host::HostSection;
use crate::error::{Failure, Result};

/// What a user has chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UserFile {
    /// The key for remote hosts.
    pub ssh_key: Option<SshKey>,
    /// Hosts of one's own, on which remote cells run.
    #[serde(default)]
    pub host: Vec<HostSection>,
}

/// An SSH key of the user: a file, or one that an agent keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SshKey {
    /// The private key; none where only an agent has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// What it is called: its comment, or the name of its file.
    pub name: String,
    /// What AWS calls it.
    pub aws_key_name: String,
}

/// The section of [`UserFile::ssh_key`].
const SECTION: &str = "[ssh-key]";

/// Where the file is; `None` where this user has no home.
///
/// # Errors
/// A variable that should be an absolute path is none.
pub fn path() -> Result<Option<PathBuf>> {
    let folder = match (absolute("XDG_CONFIG_HOME")?, absolute("HOME")?) {
        (Some(folder), _) => Some(folder),
        (None, Some(home)) => Some(home.join(".config")),
        (None, None) => None,
    };
    Ok(folder.map(|folder| folder.join("kmt-run/config.toml")))
}

/// Reads it; an absent one says nothing.
///
/// # Errors
/// It cannot be read, or is none: with line and column.
pub fn read(path: &Path) -> Result<UserFile> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(UserFile::default()),
        Err(error) => return Err(Failure::file("read", path, &error)),
    };
    toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("`{}` is not a valid user file", path.display()))
            .caused_by(error)
            .hint("`kmt-run config ssh-key` writes one; mend or remove this one first")
    })
}

/// Writes the key into the file; whatever else stands there stays, comments too.
///
/// # Errors
/// The file cannot be read or written.
pub fn write_key(path: &Path, key: &SshKey) -> Result<()> {
    read(path)?;
    let old = std::fs::read_to_string(path).unwrap_or_default();
    let section = toml::to_string(key)
        .map_err(|error| Failure::usage("this key cannot be written down").caused_by(error))?;
    let text = format!("{}{SECTION}\n{section}", without_section(&old));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file("create", folder, &error))?;
    }
    crate::stack::write_atomically(path, text.as_bytes())
}

/// The text without the section of the key.
fn without_section(text: &str) -> String {
    let mut kept = String::new();
    let mut within = false;
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            within = line.trim() == SECTION;
        }
        if !within {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: Option<&str>, name: &str) -> SshKey {
        SshKey { path: path.map(PathBuf::from), name: name.to_owned(), aws_key_name: "mine".to_owned() }
    }

    #[test]
    fn a_key_is_written_read_and_replaced_and_comments_stay() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("deep/config.toml");
        assert_eq!(read(&file).unwrap(), UserFile::default());
        for key in [key(Some("/k/a \"b\""), "me@host"), key(None, "from the agent")] {
            write_key(&file, &key).unwrap();
            assert_eq!(read(&file).unwrap().ssh_key, Some(key));
        }
        let commented = format!("# mine\n{}", std::fs::read_to_string(&file).unwrap());
        std::fs::write(&file, commented).unwrap();
        write_key(&file, &key(None, "again")).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# mine\n") && text.matches(SECTION).count() == 1, "{text}");
    }

    #[test]
    fn a_file_that_is_none_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("config.toml");
        std::fs::write(&file, "[ssh-kez]\n").unwrap();
        assert!(write_key(&file, &key(None, "x")).unwrap_err().one_line().contains("ssh-kez"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "[ssh-kez]\n");
    }
}
