//! Names of the former tool's tasks: each is read as if the name that stands for it had been typed.

use std::ffi::{OsStr, OsString};

/// Former name, and the words that are meant.
pub const NAMES: &[(&str, &[&str])] = &[
    ("config-ssh-key", &["config", "ssh-key"]),
    ("create-stack", &["stack", "create"]),
    ("destroy-stack", &["stack", "destroy"]),
    ("flare", &["stack", "flare"]),
    ("gen-config", &["stack", "configure"]),
    ("init", &["images", "init"]),
    ("launch-stack", &["stack", "launch"]),
    ("pause-stack", &["stack", "pause"]),
    ("provision-stack", &["stack", "provision"]),
    ("resume-stack", &["stack", "resume"]),
    ("revert-resources", &["images", "revert"]),
    ("ssh-config", &["stack", "ssh-config"]),
    ("status", &["stack", "status"]),
    ("tmux", &["stack", "tmux"]),
    ("update-resources", &["images", "update"]),
];

/// Options that stand before a command and take a value.
const VALUED: [&str; 2] = ["-C", "--profile"];

/// The arguments with a former name, where the command stands, replaced.
pub fn modern(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let mut at = 1;
    while let Some(word) = args.get(at).and_then(|word| word.to_str()).filter(|word| word.starts_with('-')) {
        at += if VALUED.contains(&word) { 2 } else { 1 };
    }
    let former = args.get(at).and_then(|word| NAMES.iter().find(|(name, _)| word == OsStr::new(name)));
    if let Some((_, words)) = former {
        args.splice(at..=at, words.iter().map(OsString::from));
    }
    args
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn read(line: &str) -> String {
        let words = modern(line.split(' ').map(OsString::from));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_former_name_is_replaced_where_the_command_stands_and_nowhere_else() {
        assert_eq!(read("kmt-run ssh-config --stack x"), "kmt-run stack ssh-config --stack x");
        let before = "kmt-run -C ssh-config --profile=ci ssh-config";
        assert_eq!(read(before), "kmt-run -C ssh-config --profile=ci stack ssh-config");
        for same in ["kmt-run", "kmt-run stack ssh-config", "kmt-run run ssh-config", "kmt-run -C"] {
            assert_eq!(read(same), same);
        }
    }

    #[test]
    fn every_former_name_stands_for_something_that_exists() {
        for (former, words) in NAMES {
            let mut command = crate::cli::Cli::command();
            assert!(command.find_subcommand(former).is_none(), "`{former}` is a command of its own");
            for word in *words {
                let found = command.find_subcommand(word).unwrap_or_else(|| panic!("{former}: no `{word}`"));
                command = found.clone();
            }
        }
    }
}
