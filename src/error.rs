//! Failures a user reads: what went wrong, why, what helps, and the exit code.
//!
//! [`Failure`] is the only error that reaches `main`; [`Failure::render`] is the only place that words it.

use std::fmt::Write as _;

use crate::external;

/// Result of anything a command does.
pub type Result<T> = std::result::Result<T, Failure>;

/// What kind of failure it is; each kind is one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bug of ours or a host that broke under us.
    Internal,
    /// Bad arguments, matrix or configuration.
    Usage,
    /// Nothing was selected.
    NothingSelected,
    /// The build failed.
    Build,
    /// A cell cannot run: image, boot, capacity, host.
    Infrastructure,
    /// What a CI server was asked for is not to be had.
    Ci,
    /// A remote machine was asked for and no provider takes it.
    Remote,
    /// A signal stopped it.
    Interrupted,
}

impl Kind {
    /// The exit code of `design/product.md`.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Internal => 1,
            Kind::Usage => 2,
            Kind::NothingSelected => 4,
            Kind::Build => 101,
            Kind::Infrastructure => 102,
            Kind::Ci => 103,
            Kind::Remote => 104,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure with its causes and advice. Texts are lower-case fragments without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What went wrong, the value in backticks.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// Commands and actions that help.
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// Bad arguments, matrix or configuration.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    /// Adds a cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl ToString) -> Failure {
        self.causes.push(cause.to_string().trim().to_owned());
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// A file that could not be `operation` (read, written, …).
    pub fn file(operation: &str, path: &std::path::Path, source: &std::io::Error) -> Failure {
        Failure::new(Kind::Internal, format!("cannot {operation} `{}`", path.display())).caused_by(source)
    }

    /// A failure outside, of this kind.
    pub fn outside(kind: Kind, error: &external::Error) -> Failure {
        let failure =
            Failure::new(kind, format!("{} could not {} `{}`", error.system, error.operation, error.subject));
        let failure = if error.detail.is_empty() { failure } else { failure.caused_by(&error.detail) };
        match &error.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// The same in one line, for a record: message, causes, hints.
    pub fn one_line(&self) -> String {
        let mut text = self.message.clone();
        for cause in &self.causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        for hint in &self.hints {
            text.push_str(&format!(" (hint: {hint})"));
        }
        text
    }

    /// The text on standard error: one line of what, `caused by` lines, `hint:` lines.
    pub fn render(&self, color: Color) -> String {
        let mut text = String::new();
        let (red, cyan, off) = match color {
            Color::Yes => ("\x1b[1;31m", "\x1b[36m", "\x1b[0m"),
            Color::No => ("", "", ""),
        };
        let _ = writeln!(text, "{red}error{off}: {}", self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {}", cause.replace('\n', "\n    "));
        }
        for hint in &self.hints {
            let _ = writeln!(text, "{cyan}hint{off}: {hint}");
        }
        text
    }
}

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Escape sequences are understood and wanted.
    Yes,
    /// Plain text.
    No,
}

impl Color {
    /// Colour if the stream is a terminal and `NO_COLOR` is not set; `CLICOLOR_FORCE` forces it.
    pub fn of(terminal: bool) -> Color {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0");
        if set("NO_COLOR") {
            Color::No
        } else if terminal || set("CLICOLOR_FORCE") {
            Color::Yes
        } else {
            Color::No
        }
    }
}

impl From<external::Error> for Failure {
    fn from(error: external::Error) -> Failure {
        Failure::outside(Kind::Infrastructure, &error)
    }
}

impl From<crate::image::ImageError> for Failure {
    fn from(error: crate::image::ImageError) -> Failure {
        let mut failure = Failure::new(Kind::Infrastructure, error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            failure = failure.caused_by(source);
        }
        error.hints().into_iter().fold(failure, Failure::hint)
    }
}

/// The known key nearest to the unknown one that a message of serde's names, with those that were expected.
pub fn unknown_key(message: &str) -> Option<&str> {
    let names =
        message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    let mut names = names.split('`').skip(1).step_by(2);
    nearest(names.next()?, names)
}

/// The name of `known` nearest to `wanted`, if any is near enough to be meant.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (distance(wanted, name), name))
        .filter(|(d, name)| *d <= name.len().max(wanted.len()) / 3)
        .min_by_key(|(d, _)| *d)
        .map(|(_, name)| name)
}

/// Levenshtein distance, in characters.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_what_why_and_what_helps() {
        let failure = Failure::usage("unknown machine `debian_21`").caused_by("a\nb").hint("kmt-run ls");
        assert_eq!(
            failure.render(Color::No),
            "error: unknown machine `debian_21`\n  caused by: a\n    b\nhint: kmt-run ls\n"
        );
    }

    #[test]
    fn the_nearest_name_is_only_offered_when_it_may_be_meant() {
        assert_eq!(nearest("debian_21", ["debian_12", "ubuntu_22.04"]), Some("debian_12"));
        assert_eq!(nearest("zzz", ["debian_12"]), None);
    }
}
