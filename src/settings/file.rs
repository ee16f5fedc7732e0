//! `kmt.toml`: what the repository under test is, and how it is tested. Unknown keys are errors.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::profile::Profile;
use crate::error::{Failure, Result};
use crate::matrix::select::PackagePattern;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Component that is meant when none is named.
    pub default_component: Option<String>,
    /// Components by name.
    #[serde(default)]
    pub component: BTreeMap<String, Component>,
    /// Packages that must not run at the same time.
    #[serde(default)]
    pub group: Vec<Group>,
    /// Complaints of living kernels that fail no test.
    #[serde(default)]
    pub allowed_splat: Vec<AllowedSplat>,
    /// Profiles by name.
    #[serde(default)]
    pub profile: BTreeMap<String, Profile>,
}

/// Packages that must not run at the same time, wherever they run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// Patterns of packages.
    pub packages: Vec<String>,
    /// How many of them run at once.
    pub max_concurrent: Option<u32>,
    /// Whether nothing else runs at the same time.
    #[serde(default)]
    pub exclusive: bool,
}

/// A complaint of a living kernel that fails no test.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AllowedSplat {
    /// Regular expression for its title, its signature or one of its lines.
    pub pattern: String,
    /// Why it is allowed.
    pub reason: String,
    /// Where more is said of it.
    pub link: Option<String>,
    /// The last day on which it is, `"2027-01-31"`.
    #[serde(default)]
    pub expires: Option<chrono::NaiveDate>,
}

/// What is tested together: how it is built, where it lies in the guest, how long it may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Component {
    /// Who builds it.
    pub builder: BuilderKind,
    /// Programs to build and ship to `{root}/bin` (builder `go`).
    #[serde(default)]
    pub binaries: Vec<String>,
    /// Patterns of packages with tests.
    #[serde(default = "every_package")]
    pub packages: Vec<String>,
    /// Build tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Arguments of every compilation.
    #[serde(default)]
    pub build_args: Vec<String>,
    /// Environment of the build.
    #[serde(default)]
    pub build_env: BTreeMap<String, String>,
    /// Folder of test binaries, relative to `kmt.toml` (builder `prebuilt`).
    pub folder: Option<String>,
    /// Folder in the guest.
    pub layout: Option<String>,
    /// Environment of the tests; `{root}` is the folder in the guest.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Arguments of every test binary.
    #[serde(default)]
    pub test_args: Vec<String>,
    /// Longest time a package may take.
    #[serde(default = "ten_minutes", deserialize_with = "duration")]
    pub timeout: Duration,
    /// The same for packages by pattern; the longest pattern that matches wins.
    #[serde(default, deserialize_with = "durations")]
    pub timeouts: BTreeMap<String, Duration>,
}

/// Who builds a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuilderKind {
    /// The Go toolchain.
    Go,
    /// Nobody: a folder of test binaries.
    Prebuilt,
}

fn every_package() -> Vec<String> {
    vec!["./...".to_owned()]
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

fn durations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, Duration>, D::Error> {
    BTreeMap::<String, String>::deserialize(deserializer)?
        .into_iter()
        .map(|(name, text)| Ok((name, parse_duration(&text).map_err(serde::de::Error::custom)?)))
        .collect()
}

/// Reads `90s`, `5m`, `1h`, `1h30m`, `500ms`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration such as 90s, 5m, 1h30m or 500ms");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ms" => {
                total = total.saturating_add(Duration::from_millis(number));
                0
            }
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(bad()),
        };
        total = total.saturating_add(Duration::from_secs(number.saturating_mul(seconds)));
        rest = &rest[unit..];
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}

/// Reads a `kmt.toml`.
///
/// # Errors
/// The file cannot be read, or is not one: with line, column and the offending line.
pub fn read(path: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read `{}`", path.display())).caused_by(error))?;
    toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("`{}` is not a valid kmt.toml", path.display())).caused_by(error)
    })
}

impl Component {
    /// Folder of the component in a guest.
    pub fn layout_of(&self, name: &str) -> String {
        self.layout.clone().unwrap_or_else(|| format!("/opt/{name}-tests"))
    }

    /// The longest time `package` may take: the longest pattern that matches it, else the component's.
    pub fn timeout_of(&self, package: &str) -> Duration {
        longest_match(&self.timeouts, package).unwrap_or(self.timeout)
    }
}

/// The timeout of the longest pattern that means `package`.
pub fn longest_match(timeouts: &BTreeMap<String, Duration>, package: &str) -> Option<Duration> {
    let read = timeouts.iter().map(|(pattern, timeout)| (PackagePattern::of_go(pattern), timeout));
    let meant = read.filter(|(pattern, _)| pattern.matches(package));
    meant.max_by_key(|(pattern, _)| pattern.weight()).map(|(_, timeout)| *timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_refused() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "5", "m", "5 m", "0s", "5x", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_pattern_decides_the_timeout() {
        let config: Config = toml::from_str(
            "[component.a]\nbuilder = \"go\"\ntimeout = \"1m\"\n[component.a.timeouts]\n\
             \"./pkg/...\" = \"2m\"\n\"./pkg/network/tracer\" = \"3m\"\n\"./...\" = \"4m\"\n\"x\" = \"5m\"\n",
        )
        .unwrap();
        let component = &config.component["a"];
        assert_eq!(component.timeout_of("cmd/x"), Duration::from_secs(240));
        assert_eq!(component.timeout_of("x"), Duration::from_secs(300));
        assert_eq!(component.timeout_of("pkg/ebpf"), Duration::from_secs(120));
        assert_eq!(component.timeout_of("pkg/network/tracer"), Duration::from_secs(180));
        assert_eq!(component.timeout_of("pkgs"), Duration::from_secs(240));
        let none = Component { timeouts: BTreeMap::new(), ..component.clone() };
        assert_eq!(none.timeout_of("pkg/ebpf"), Duration::from_secs(60));
    }

    #[test]
    fn unknown_keys_are_errors_with_a_line() {
        let error =
            toml::from_str::<Config>("[component.a]\nbuilder = \"go\"\ntimeot = \"1m\"\n").unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
        assert!(error.to_string().contains("timeot"), "{error}");
    }
}
