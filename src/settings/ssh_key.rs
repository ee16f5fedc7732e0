//! Which SSH keys a user has, and which one a word means.

use std::path::{Path, PathBuf};

use super::user::SshKey;
use crate::error::{Failure, Result, nearest};

/// The keys there are to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Folder of the user's keys.
    pub folder: PathBuf,
    /// Private keys with a public one beside, and the comment in it.
    pub files: Vec<(PathBuf, Option<String>)>,
    /// Comments of the keys an agent keeps.
    pub agent: Vec<String>,
}

impl Keys {
    /// Those in `folder`, by name; `agent` is what `ssh-add -L` says.
    pub fn read(folder: &Path, agent: &str) -> Keys {
        let listed = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut public: Vec<PathBuf> =
            listed.filter(|path| path.extension().is_some_and(|end| end == "pub")).collect();
        public.sort();
        let with_private = |public: PathBuf| {
            let private = private_of(&public)?;
            Some((private, comment_in(&public)))
        };
        Keys {
            folder: folder.to_path_buf(),
            files: public.into_iter().filter_map(with_private).collect(),
            agent: agent.lines().filter_map(comment).collect(),
        }
    }

    /// The key in a file: private, or public with the private one beside.
    ///
    /// # Errors
    /// There is no such file.
    pub fn of_file(&self, file: &Path) -> Result<SshKey> {
        let of_public = file.extension().is_some_and(|end| end == "pub");
        let private =
            if of_public { private_of(file) } else { Some(file.to_path_buf()).filter(|file| file.is_file()) };
        let Some(private) = private else {
            return Err(Failure::usage(format!("no private key for `{}`", file.display()))
                .hint("`--from-agent COMMENT` takes one that only an agent has"));
        };
        let private =
            std::path::absolute(&private).map_err(|error| Failure::file("find", &private, &error))?;
        let mut public = private.as_os_str().to_owned();
        public.push(".pub");
        let comment = comment_in(Path::new(&public)).or_else(|| comment_in(&private.with_extension("pub")));
        let by_file = || private.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = comment.unwrap_or_else(by_file);
        Ok(SshKey { path: Some(private), aws_key_name: name.clone(), name })
    }

    /// The key of an agent with that comment.
    ///
    /// # Errors
    /// The agent has none.
    pub fn of_agent(&self, comment: &str) -> Result<SshKey> {
        if !self.agent.iter().any(|known| known == comment) {
            let failure = Failure::usage(format!("no agent has a key `{}`", comment.escape_debug()));
            return Err(match nearest(comment, self.agent.iter().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("`ssh-add -L` lists what it has"),
            });
        }
        Ok(SshKey { path: None, name: comment.to_owned(), aws_key_name: comment.to_owned() })
    }

    /// The key that `hint` means: a file; a file of the user's folder, with or without `.pem`; the comment of a
    /// public key there; the comment of a key of the agent. The first of these counts.
    ///
    /// # Errors
    /// None is meant.
    pub fn meant(&self, hint: &str) -> Result<SshKey> {
        let here = [PathBuf::from(hint), self.folder.join(hint), self.folder.join(format!("{hint}.pem"))];
        if let Some(file) = here.iter().find(|file| !hint.is_empty() && file.is_file()) {
            return self.of_file(file);
        }
        if let Some((file, _)) = self.files.iter().find(|(_, comment)| comment.as_deref() == Some(hint)) {
            return self.of_file(file);
        }
        self.of_agent(hint).map_err(|_| {
            let failure = Failure::usage(format!("no SSH key `{}`", hint.escape_debug()));
            match nearest(hint, self.names().iter().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => {
                    failure.hint("a file, a name in ~/.ssh, or the comment of a key there or in an agent")
                }
            }
        })
    }

    fn names(&self) -> Vec<String> {
        let of_file = |(file, comment): &(PathBuf, Option<String>)| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            std::iter::once(name).chain(comment.clone())
        };
        self.files.iter().flat_map(of_file).chain(self.agent.iter().cloned()).collect()
    }
}

/// The private key beside a public one.
fn private_of(public: &Path) -> Option<PathBuf> {
    [public.with_extension(""), public.with_extension("pem")].into_iter().find(|path| path.is_file())
}

fn comment_in(public: &Path) -> Option<String> {
    std::fs::read_to_string(public).ok()?.lines().find_map(comment)
}

/// What follows type and key in the line of a public key, all of it.
fn comment(line: &str) -> Option<String> {
    let (kind, rest) = line.trim().split_once(char::is_whitespace)?;
    if !["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start)) {
        return None;
    }
    let rest = rest.trim_start();
    let comment = rest.split_once(char::is_whitespace)?.1.trim();
    (!comment.is_empty()).then(|| comment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(folder: &Path) -> Keys {
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("id_ed25519", "private");
        write("id_ed25519.pub", "ssh-ed25519 AAAA me at host\n");
        write("work.pem", "private");
        write("work.pub", "ssh-rsa AAAA\n");
        write("lonely.pub", "ssh-rsa AAAA lonely\n");
        Keys::read(folder, "ssh-ed25519 AAAA agent key\nssh-rsa BBBB\nThe agent has no identities.\n")
    }

    #[test]
    fn keys_are_found_with_their_whole_comments() {
        let temp = tempfile::tempdir().unwrap();
        let keys = keys(temp.path());
        let wanted = [
            (temp.path().join("id_ed25519"), Some("me at host".to_owned())),
            (temp.path().join("work.pem"), None),
        ];
        assert_eq!(keys.files, wanted);
        assert_eq!(keys.agent, ["agent key"]);
    }

    #[test]
    fn a_hint_is_tried_in_the_order_of_the_former_tool() {
        let temp = tempfile::tempdir().unwrap();
        let keys = keys(temp.path());
        let meant = |hint: &str| keys.meant(hint).map(|key| (key.path, key.name));
        let file = |name: &str| Some(temp.path().join(name));
        let outside = temp.path().join("work.pem").display().to_string();
        assert_eq!(meant(&outside).unwrap(), (file("work.pem"), "work.pem".to_owned()));
        assert_eq!(meant("id_ed25519").unwrap(), (file("id_ed25519"), "me at host".to_owned()));
        assert_eq!(meant("work").unwrap().0, file("work.pem"));
        assert_eq!(meant("me at host").unwrap().0, file("id_ed25519"));
        assert_eq!(meant("agent key").unwrap(), (None, "agent key".to_owned()));
        let near = meant("id_ed2551").unwrap_err().one_line();
        assert!(near.contains("did you mean `id_ed25519`"), "{near}");
        assert!(meant("").is_err() && meant("lonely").is_err());
    }

    #[test]
    fn a_public_key_stands_for_its_private_one() {
        let temp = tempfile::tempdir().unwrap();
        let keys = keys(temp.path());
        let key = keys.of_file(&temp.path().join("id_ed25519.pub")).unwrap();
        assert_eq!(key.path, Some(temp.path().join("id_ed25519")));
        assert!(keys.of_file(&temp.path().join("lonely.pub")).is_err());
    }
}
