//! `config ssh-key`: choose the SSH key for remote hosts, from `~/.ssh`, from an agent, or by hand.

use std::io::{BufRead, IsTerminal as _, Write as _};
use std::path::PathBuf;

use super::say;
use crate::cli::SshKeyChoice;
use crate::error::{Failure, Kind, Result};
use crate::external::process::Child;
use crate::settings::ssh_key::Keys;
use crate::settings::user::{self, SshKey};

/// Chooses and writes down.
///
/// # Errors
/// No such key, nothing chosen and nobody to ask, or the user's file cannot be written.
pub(super) async fn ssh_key(choice: &SshKeyChoice) -> Result<u8> {
    let Some(file) = user::path()? else {
        return Err(Failure::usage("neither XDG_CONFIG_HOME nor HOME is set").hint("export HOME=DIR"));
    };
    let keys = keys().await;
    let mut key = match typed(choice, &keys)? {
        Some(key) => key,
        None if std::io::stdin().is_terminal() => asked(&keys, &mut std::io::stdin().lock())?,
        None => {
            return Err(Failure::usage("no key is named, and there is no terminal to ask on")
                .hint("--from-file FILE, --from-agent COMMENT, or --name NAME [--path FILE]"));
        }
    };
    if let Some(name) = &choice.aws_name {
        key.aws_key_name.clone_from(name);
    }
    user::write_key(&file, &key)?;
    let place = key.path.as_ref().map_or("in an agent".to_owned(), |path| path.display().to_string());
    say(&format!("{:>12} SSH key {} ({place}), in AWS {}", "Chosen", key.name, key.aws_key_name));
    say(&format!("{:>12} {}", "Written", file.display()));
    Ok(0)
}

/// The keys of this user.
pub(super) async fn keys() -> Keys {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    // Without an agent there are none in it.
    let agent = Child::new("ssh-add").arg("-L").success().await.map(|output| output.text());
    Keys::read(&home.join(".ssh"), &agent.unwrap_or_default())
}

/// What the flags say; `None` where they say nothing.
fn typed(choice: &SshKeyChoice, keys: &Keys) -> Result<Option<SshKey>> {
    let key = match choice {
        SshKeyChoice { hint: Some(hint), .. } => keys.meant(hint)?,
        SshKeyChoice { from_file: Some(file), .. } => {
            let in_folder = keys.folder.join(file);
            keys.of_file(if file.is_file() { file } else { &in_folder })?
        }
        SshKeyChoice { from_agent: Some(comment), .. } => keys.of_agent(comment)?,
        SshKeyChoice { path: Some(path), .. } => keys.of_file(path)?,
        SshKeyChoice { name: Some(name), .. } => {
            SshKey { path: None, name: name.clone(), aws_key_name: name.clone() }
        }
        _ => return Ok(None),
    };
    Ok(Some(match &choice.name {
        Some(name) => SshKey { name: name.clone(), aws_key_name: name.clone(), ..key },
        None => key,
    }))
}

/// Asks for a number of the list, or for a key by hand, and for its name in AWS.
fn asked(keys: &Keys, input: &mut impl BufRead) -> Result<SshKey> {
    let from_files = keys.files.iter().map(|(file, _)| keys.of_file(file)).collect::<Result<Vec<_>>>()?;
    let from_agent = keys.agent.iter().map(|comment| keys.of_agent(comment)).collect::<Result<Vec<_>>>()?;
    let all: Vec<SshKey> = from_files.into_iter().chain(from_agent).collect();
    for (number, key) in all.iter().enumerate() {
        let place = key.path.as_ref().map_or("agent".to_owned(), |path| path.display().to_string());
        say(&format!("{:>3}  {} ({place})", number + 1, key.name));
    }
    let by_hand = all.len() + 1;
    say(&format!("{by_hand:>3}  another one, by hand"));
    let answer = ask(&format!("which key? [1-{by_hand}]"), input)?;
    let number: usize = answer.parse().map_err(|_| {
        Failure::usage(format!("`{}` is not a number", answer.escape_debug())).hint(format!("1 to {by_hand}"))
    })?;
    let mut key = match number.checked_sub(1).and_then(|at| all.get(at)) {
        Some(key) => key.clone(),
        None if number == by_hand => {
            let path = ask("private key, or nothing where only an agent has it:", input)?;
            let name = ask("its name:", input)?;
            if name.is_empty() {
                return Err(Failure::usage("a key needs a name").hint("its comment, or the name of its file"));
            }
            let path = if path.is_empty() { None } else { keys.of_file(path.as_ref())?.path };
            SshKey { path, aws_key_name: name.clone(), name }
        }
        None => {
            return Err(Failure::usage(format!("there is no key {number}")).hint(format!("1 to {by_hand}")));
        }
    };
    let in_aws = ask(&format!("its name in AWS? [{}]", key.aws_key_name), input)?;
    if !in_aws.is_empty() {
        key.aws_key_name = in_aws;
    }
    Ok(key)
}

fn ask(question: &str, input: &mut impl BufRead) -> Result<String> {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question} ");
    let _ = err.flush();
    let mut answer = String::new();
    let read = input
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Kind::Internal, "cannot read the answer").caused_by(error))?;
    if read == 0 {
        return Err(Failure::new(Kind::Interrupted, "no answer; nothing was changed"));
    }
    Ok(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(folder: &std::path::Path) -> Keys {
        std::fs::write(folder.join("id"), "private").unwrap();
        std::fs::write(folder.join("id.pub"), "ssh-ed25519 AAAA me\n").unwrap();
        Keys::read(folder, "ssh-ed25519 BBBB agent key\n")
    }

    #[test]
    fn a_number_chooses_and_a_wrong_answer_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let keys = keys(temp.path());
        let answer = |text: &str| asked(&keys, &mut text.as_bytes());
        let key = answer("1\n\n").unwrap();
        assert_eq!((key.path, key.aws_key_name.as_str()), (Some(temp.path().join("id")), "me"));
        let key = answer("2\nin-aws\n").unwrap();
        assert_eq!((key.path, key.name.as_str(), key.aws_key_name.as_str()), (None, "agent key", "in-aws"));
        assert_eq!(answer("3\n\nby hand\n\n").unwrap().name, "by hand");
        for wrong in ["ssh\n", "0\n", "4\n", "-1\n", "", "3\n\n\n", "3\n/none\nx\n\n"] {
            assert!(answer(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn flags_choose_without_a_question() {
        let temp = tempfile::tempdir().unwrap();
        let keys = keys(temp.path());
        let choose =
            |choice: SshKeyChoice| typed(&choice, &keys).map(|key| key.map(|key| (key.path, key.name)));
        let id = Some(temp.path().join("id"));
        let none = SshKeyChoice::default();
        assert_eq!(choose(none.clone()), Ok(None));
        let from_file = SshKeyChoice { from_file: Some("id".into()), ..none.clone() };
        assert_eq!(choose(from_file), Ok(Some((id.clone(), "me".to_owned()))));
        let from_agent = SshKeyChoice { from_agent: Some("agent key".to_owned()), ..none.clone() };
        assert_eq!(choose(from_agent), Ok(Some((None, "agent key".to_owned()))));
        let by_hand = SshKeyChoice { path: id.clone(), name: Some("mine".to_owned()), ..none.clone() };
        assert_eq!(choose(by_hand), Ok(Some((id, "mine".to_owned()))));
        let only_name = SshKeyChoice { name: Some("mine".to_owned()), ..none };
        assert_eq!(choose(only_name), Ok(Some((None, "mine".to_owned()))));
    }
}
