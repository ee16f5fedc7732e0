//! Versions of kernels and distributions, and comparisons of them.
//!
//! Versions compare as numbers: 4.5 is not 5.4, and 5.15 is newer than 5.4. A bound compares as far as it is
//! written: `<=5.15` holds for `5.15.0-91-generic`, and so does `5.15` alone.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A version such as `6.12`, `5.15.0-91-generic` or `4.18.0-348.el8.0.2`: the numbers it begins with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    numbers: Vec<u64>,
}

impl Version {
    /// Reads the numbers at the start of `text`, parted by `.` or `-`; `None` where it begins with none.
    pub fn of(text: &str) -> Option<Version> {
        let numbers: Vec<u64> =
            text.split(['.', '-', '+', '_', '~']).map_while(|part| part.parse().ok()).collect();
        (!numbers.is_empty()).then_some(Version { numbers })
    }

    /// The numbers, most significant first.
    pub fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// This version against `bound`, read only as far as `bound` is written; what it lacks counts as 0.
    fn against(&self, bound: &Version) -> Ordering {
        let own = self.numbers.iter().copied().chain(std::iter::repeat(0)).take(bound.numbers.len());
        own.cmp(bound.numbers.iter().copied())
    }
}

/// A set of versions: comparisons joined by commas, all of which must hold, such as `>=5.4, <6.2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionReq {
    text: String,
    bounds: Vec<(Comparison, Version)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Is,
    IsNot,
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// Longer signs first.
const SIGNS: [(&str, Comparison); 7] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("!=", Comparison::IsNot),
    ("==", Comparison::Is),
    ("=", Comparison::Is),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

/// Why a comparison was refused: what is wrong, and where in the text (bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionError {
    /// What is wrong.
    pub message: String,
    /// The wrong part of the text, in bytes.
    pub at: Range<usize>,
}

impl VersionReq {
    /// Whether `version` is one of them.
    pub fn matches(&self, version: &Version) -> bool {
        self.bounds.iter().all(|(comparison, bound)| {
            let order = version.against(bound);
            match comparison {
                Comparison::Is => order.is_eq(),
                Comparison::IsNot => order.is_ne(),
                Comparison::Below => order.is_lt(),
                Comparison::AtMost => order.is_le(),
                Comparison::Above => order.is_gt(),
                Comparison::AtLeast => order.is_ge(),
            }
        })
    }
}

impl FromStr for VersionReq {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut bounds = Vec::new();
        let mut start = 0;
        for part in text.split(',') {
            bounds.push(bound(part, start)?);
            start += part.len() + 1;
        }
        Ok(VersionReq { text: text.trim().to_owned(), bounds })
    }
}

/// Reads one comparison that begins at byte `start` of the whole.
fn bound(part: &str, start: usize) -> Result<(Comparison, Version), VersionError> {
    let from = start + part.len() - part.trim_start().len();
    let word = part.trim();
    let at = from..from + word.len().max(1);
    if word.is_empty() {
        return Err(VersionError { message: "a version is missing".to_owned(), at });
    }
    let (comparison, rest) = SIGNS
        .iter()
        .find_map(|(sign, comparison)| word.strip_prefix(sign).map(|rest| (*comparison, rest.trim())))
        .unwrap_or((Comparison::Is, word));
    match Version::of(rest) {
        Some(version) if rest.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-') => {
            Ok((comparison, version))
        }
        _ => Err(VersionError { message: format!("`{word}` is not a comparison such as `>=5.8`"), at }),
    }
}

impl fmt::Display for VersionReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for VersionError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(bounds: &str, version: &str) -> bool {
        bounds.parse::<VersionReq>().unwrap().matches(&Version::of(version).unwrap())
    }

    #[test]
    fn versions_compare_as_numbers() {
        let of = |text| Version::of(text).unwrap();
        assert!(of("5.4") > of("4.5") && of("5.15") > of("5.4") && of("6.12") > of("6.2"));
        assert!(of("4.18.0-348.el8.0.2") > of("4.18.0-25-generic"));
        assert_eq!(of("5.15.0-91-generic").numbers(), [5, 15, 0, 91]);
        assert_eq!(Version::of("sid"), None);
        assert_eq!(Version::of(""), None);
        assert_eq!(Version::of("99999999999999999999999"), None);
    }

    #[test]
    fn a_bound_compares_as_far_as_it_is_written() {
        for (bounds, version, expected) in [
            ("<=5.15", "5.15.0-91-generic", true),
            (">5.15", "5.15.0-91-generic", false),
            ("5.15", "5.15.0-91-generic", true),
            ("=5.1", "5.15.0-91-generic", false),
            (">=5.4, <6.2", "6.2.0", false),
            (">=5.4,<6.2", "6.1.0-17-amd64", true),
            ("!=6.1", "6.1", false),
            ("==7", "7.0.1", true),
            (">=6.12.1", "6.12", false),
            (">=4.18.0-100", "4.18.0-25-generic", false),
        ] {
            assert_eq!(holds(bounds, version), expected, "{bounds} on {version}");
        }
    }

    #[test]
    fn what_is_no_comparison_is_shown_where_it_stands() {
        for (text, at) in [("", 0..1), (">=5.4, ", 7..8), (">=5.4, <six", 7..11), ("~5", 0..2), (">=", 0..2)]
        {
            assert_eq!(text.parse::<VersionReq>().unwrap_err().at, at, "{text}");
        }
    }
}
