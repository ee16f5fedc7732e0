//! The command line: what was typed, and the table of contents that `--help` prints.

use crate::packages::Need;
use crate::setup::Mode;

/// What `cargo xtask` and `cargo xtask --help` print: one screen.
pub(crate) const HELP: &str = "\
cargo xtask: set up, show and check kmt-run

  cargo xtask demo [-- ARGS]        set up, build, and run matrices/demo.toml: real kernels, a green matrix
  cargo xtask test [GROUP...]       set up, then the gate; exit 1 when a group failed
                   [--list]         say which groups there are
  cargo xtask setup                 install what is missing; says nothing when nothing is
              [--for build|run|test]  only as much as that needs (default: test; each contains the ones before)
              [--check]               only say what is missing; exit 1 when something is
              [--user NAME]           as root: make this user ready instead
  cargo xtask soak                  set up, then what takes too long for the gate
  cargo xtask bench [NAME]          run a benchmark; without a name, list them
  cargo xtask triage-score [FOLDER] how well triage names the cause of recorded consoles (default: tests/consoles)

KMT_HOME says where images and runs lie (default: /var/lib/kmt-run for root, the XDG data directory for others).";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Print [`HELP`].
    Help,
    /// Make this machine ready.
    Setup(Wanted),
    /// The demonstration; `extra` goes to `kmt-run run`.
    Demo {
        /// What stood behind `--`.
        extra: Vec<String>,
    },
    /// The gate, or some groups of it.
    Test {
        /// Names of groups; empty means all.
        groups: Vec<String>,
        /// Only list them.
        list: bool,
    },
    /// The long tests.
    Soak,
    /// A benchmark, or their names.
    Bench {
        /// Which one.
        name: Option<String>,
    },
    /// The score of triage.
    TriageScore {
        /// Where the consoles lie.
        folder: Option<String>,
    },
}

/// How far `setup` is to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// For what the machine must be ready.
    pub(crate) need: Need,
    /// Mend, or only look.
    pub(crate) mode: Mode,
    /// The ordinary user to make ready instead of the caller.
    pub(crate) user: Option<String>,
}

/// Reads the words behind `cargo xtask`.
pub(crate) fn parse(words: &[String]) -> Result<Task, String> {
    let Some((task, rest)) = words.split_first() else {
        return Ok(Task::Help);
    };
    if rest.iter().take_while(|word| *word != "--").any(|word| word == "--help" || word == "-h") {
        return Ok(Task::Help);
    }
    match task.as_str() {
        "--help" | "-h" | "help" => Ok(Task::Help),
        "setup" => parse_setup(rest).map(Task::Setup),
        "demo" => parse_demo(rest),
        "test" => parse_test(rest),
        "soak" => nothing_more(task, rest).map(|()| Task::Soak),
        "bench" => match rest {
            [] => Ok(Task::Bench { name: None }),
            [name] if !name.starts_with('-') => Ok(Task::Bench { name: Some(name.clone()) }),
            _ => Err("`bench` takes one name".to_owned()),
        },
        "triage-score" => match rest {
            [] => Ok(Task::TriageScore { folder: None }),
            [folder] if !folder.starts_with('-') => Ok(Task::TriageScore { folder: Some(folder.clone()) }),
            _ => Err("`triage-score` takes one folder".to_owned()),
        },
        other => Err(format!("unknown task `{other}`")),
    }
}

fn parse_setup(words: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted { need: Need::Test, mode: Mode::Mend, user: None };
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (flag, inline) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
        let mut value = || inline.or_else(|| words.next()).ok_or_else(|| format!("`{flag}` needs a value"));
        match flag {
            "--for" => wanted.need = value()?.parse()?,
            "--user" => wanted.user = Some(value()?.to_owned()),
            "--check" if inline.is_none() => wanted.mode = Mode::Check,
            _ => return Err(format!("`setup` does not know `{word}`")),
        }
    }
    Ok(wanted)
}

fn parse_demo(words: &[String]) -> Result<Task, String> {
    match words.split_first() {
        None => Ok(Task::Demo { extra: Vec::new() }),
        Some((dashes, extra)) if dashes == "--" => Ok(Task::Demo { extra: extra.to_vec() }),
        Some((word, _)) => {
            Err(format!("`demo` does not know `{word}`; what is meant for kmt-run goes behind `--`"))
        }
    }
}

fn parse_test(words: &[String]) -> Result<Task, String> {
    let (flags, groups): (Vec<String>, Vec<String>) =
        words.iter().cloned().partition(|word| word.starts_with('-'));
    match flags.iter().find(|flag| *flag != "--list") {
        Some(flag) => Err(format!("`test` does not know `{flag}`")),
        None => Ok(Task::Test { groups, list: !flags.is_empty() }),
    }
}

fn nothing_more(task: &str, words: &[String]) -> Result<(), String> {
    match words.first() {
        None => Ok(()),
        Some(word) => Err(format!("`{task}` does not know `{word}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_and_help_print_the_contents() {
        for line in ["", "--help", "-h", "help", "setup --help", "demo -h"] {
            assert_eq!(read(line), Ok(Task::Help), "{line}");
        }
        assert!(HELP.lines().count() < 24, "one screen");
    }

    #[test]
    fn setup_takes_its_flags_in_both_spellings() {
        let wanted = Wanted { need: Need::Run, mode: Mode::Check, user: Some("alice".to_owned()) };
        assert_eq!(read("setup --for run --check --user alice"), Ok(Task::Setup(wanted)));
        let wanted = Wanted { need: Need::Build, mode: Mode::Mend, user: None };
        assert_eq!(read("setup --for=build"), Ok(Task::Setup(wanted)));
    }

    #[test]
    fn everything_for_kmt_run_stands_behind_the_dashes() {
        let extra = vec!["--help".to_owned(), "--fresh".to_owned()];
        assert_eq!(read("demo -- --help --fresh"), Ok(Task::Demo { extra }));
    }

    #[test]
    fn test_takes_groups_and_list() {
        let groups = vec!["fmt".to_owned(), "unit".to_owned()];
        assert_eq!(read("test fmt unit"), Ok(Task::Test { groups, list: false }));
        assert_eq!(read("test --list"), Ok(Task::Test { groups: Vec::new(), list: true }));
    }

    #[test]
    fn what_it_does_not_know_is_an_error_that_names_it() {
        for line in [
            "tset",
            "setup --fro run",
            "setup --for",
            "setup --for all",
            "setup --check=1",
            "demo --fresh",
            "test --lsit",
            "soak now",
            "bench a b",
            "bench --boot",
            "triage-score a b",
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains('`'), "{line}: {error}");
        }
    }
}
