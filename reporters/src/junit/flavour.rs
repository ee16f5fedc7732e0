//! What the consumers of JUnit do differently.

use std::fmt;
use std::str::FromStr;

use crate::event::CellId;

/// Whose JUnit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Flavour {
    /// GitLab: of equal suite, class and name it keeps the first, so the cell is part of the class; 30 MB a file.
    #[default]
    Gitlab,
    /// `datadog-ci junit upload`: the cell is in `dd_tags`, so that a test keeps its name across cells.
    Datadog,
    /// Jenkins: a class is split at its last dot into package and class.
    Jenkins,
    /// Buildkite: 5,000 cases a file.
    Buildkite,
}

impl Flavour {
    /// Every flavour, the default first.
    pub const ALL: [Flavour; 4] = [Flavour::Gitlab, Flavour::Datadog, Flavour::Jenkins, Flavour::Buildkite];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Flavour::Gitlab => "gitlab",
            Flavour::Datadog => "datadog",
            Flavour::Jenkins => "jenkins",
            Flavour::Buildkite => "buildkite",
        }
    }

    /// The class of a case.
    pub(super) fn classname(self, cell: Option<&CellId>, package: &str) -> String {
        match (self, cell) {
            (Flavour::Datadog, _) | (_, None) => package.to_owned(),
            (Flavour::Gitlab | Flavour::Buildkite, Some(cell)) => format!("{}.{package}", cell.slug()),
            (Flavour::Jenkins, Some(cell)) => format!("{}.{}", cell.slug(), package.replace('.', "_")),
        }
    }

    /// The name of a suite. Jenkins drops a suite that has name and time of another.
    pub(super) fn suite(self, cell: &CellId, package: &str) -> String {
        match self {
            Flavour::Datadog => package.to_owned(),
            Flavour::Gitlab | Flavour::Jenkins | Flavour::Buildkite => format!("{cell} {package}"),
        }
    }

    /// Whether cases may have properties, which the common XSD does not know.
    pub(super) fn case_properties(self) -> bool {
        self == Flavour::Datadog
    }

    /// Whether suites may have properties that are no tags: Datadog drops them.
    pub(super) fn plain_properties(self) -> bool {
        self != Flavour::Datadog
    }

    /// Cases a file may have.
    pub(super) fn cases_a_file(self) -> usize {
        match self {
            Flavour::Buildkite => 5_000,
            Flavour::Gitlab | Flavour::Datadog | Flavour::Jenkins => usize::MAX,
        }
    }

    /// Bytes of output a report may hold, escaped; the rest of the file must fit beside it.
    pub(super) fn output_budget(self) -> usize {
        const MB: usize = 1_000_000;
        match self {
            Flavour::Gitlab => 15 * MB,
            Flavour::Datadog => 200 * MB,
            Flavour::Jenkins | Flavour::Buildkite => 100 * MB,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Flavour {
    type Err = UnknownFlavour;

    fn from_str(text: &str) -> Result<Flavour, UnknownFlavour> {
        let known = Flavour::ALL.into_iter().find(|flavour| flavour.as_str() == text);
        known.ok_or_else(|| UnknownFlavour { text: text.to_owned() })
    }
}

/// A word that is no flavour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a JUnit flavour: gitlab, datadog, jenkins, buildkite")]
pub struct UnknownFlavour {
    text: String,
}
