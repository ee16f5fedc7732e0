//! Matchers of strings: `=exact`, `~contains`, `/regular expression/`, `#glob`.

use regex::Regex;

use super::super::Complaint;

/// Matches a string.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    Equal(String),
    Contains(String),
    Pattern(Regex),
}

impl Matcher {
    /// A glob over the whole string: `*` and `?`.
    pub(super) fn glob(text: &str) -> Result<Matcher, Complaint> {
        if !text.contains(['*', '?']) {
            return Ok(Matcher::Equal(text.to_owned()));
        }
        let pattern = regex::escape(text).replace(r"\*", ".*").replace(r"\?", ".");
        Matcher::pattern(&format!("^{pattern}$"))
    }

    /// A regular expression that matches anywhere.
    pub(super) fn pattern(text: &str) -> Result<Matcher, Complaint> {
        Regex::new(text).map(Matcher::Pattern).map_err(|error| {
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Complaint::new(format!("`{text}` is not a regular expression: {last}"))
        })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Matcher::Equal(wanted) => text == wanted,
            Matcher::Contains(part) => text.contains(part),
            Matcher::Pattern(pattern) => pattern.is_match(text),
        }
    }

    /// The same for Go, about whole names of top-level tests.
    pub(super) fn for_go(&self) -> String {
        match self {
            Matcher::Equal(name) => format!("^{}$", regex::escape(name)),
            Matcher::Contains(part) => regex::escape(part),
            Matcher::Pattern(pattern) => pattern.as_str().to_owned(),
        }
    }
}

/// A package path, or a pattern of Go's: `./pkg/network/...`.
#[derive(Debug, Clone)]
pub struct PackagePattern(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Matcher(Matcher),
    Below(String),
}

impl PackagePattern {
    /// Reads what `go` would read; `*` is every package, as `./...` is.
    pub fn of_go(text: &str) -> PackagePattern {
        let text = if text == "*" { "..." } else { text };
        let path = text.trim_start_matches("./").trim_end_matches('/');
        match path.strip_suffix("...") {
            Some(above) => PackagePattern(Kind::Below(above.trim_end_matches('/').to_owned())),
            None => PackagePattern(Kind::Matcher(Matcher::Equal(path.to_owned()))),
        }
    }

    /// Whatever the matcher matches.
    pub(super) fn matching(matcher: Matcher) -> PackagePattern {
        PackagePattern(Kind::Matcher(matcher))
    }

    /// How much it says: of several that match a package, the one with the most decides. A path itself says more
    /// than all below it.
    pub fn weight(&self) -> (usize, bool) {
        match &self.0 {
            Kind::Matcher(Matcher::Equal(path)) => (path.len(), true),
            Kind::Matcher(_) => (0, false),
            Kind::Below(above) => (above.len(), false),
        }
    }

    /// Whether it means the package of that path, such as `pkg/ebpf`.
    pub fn matches(&self, package: &str) -> bool {
        match &self.0 {
            Kind::Matcher(matcher) => matcher.matches(package),
            Kind::Below(above) => {
                let rest = package.strip_prefix(above.as_str());
                above.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}
