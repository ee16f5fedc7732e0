//! `kmt.toml`: what the repository under test is, and how it is tested. Unknown keys are errors.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::component::Component;
use super::profile::Profile;
use crate::error::{Failure, Kind, Result, unknown_key};
use crate::matrix::select::PackagePattern;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Component that is meant when none is named.
    pub default_component: Option<String>,
    /// Components by name.
    #[serde(default)]
    pub component: BTreeMap<String, Component>,
    /// Whether machines start from the memory of one that has booted, where that is to be had; they do unless it says
    /// `false`.
    pub warm_start: Option<bool>,
    /// Packages that must not run at the same time.
    #[serde(default)]
    pub group: Vec<Group>,
    /// The list of tests that are known to be flaky, `flakes.yaml` where there is one.
    pub flakes: Option<String>,
    /// The file that says who owns which path, `CODEOWNERS` at its usual places where there is one.
    pub codeowners: Option<String>,
    /// Complaints of living kernels that fail no test.
    #[serde(default)]
    pub allowed_splat: Vec<AllowedSplat>,
    /// Profiles by name.
    #[serde(default)]
    pub profile: BTreeMap<String, Profile>,
    /// Where pipelines are, and what their jobs are called.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub gitlab: super::gitlab::GitlabSection,
    /// Where hosts are rented for remote machines; without it none are.
    pub ec2: Option<super::ec2::Ec2>,
}

/// Packages that must not run at the same time, wherever they run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Deserialize, JsonSchema)]
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
    #[schemars(with = "Option<String>")]
    pub expires: Option<chrono::NaiveDate>,
}

pub(super) fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

pub(super) fn durations<'de, D: Deserializer<'de>>(
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
    let config: Config = toml::from_str(&text).map_err(|error| {
        let failure = Failure::usage(format!("`{}` is not a valid kmt.toml", path.display()));
        let near = unknown_key(error.message());
        let failure = failure.caused_by(&error);
        match near {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure,
        }
    })?;
    if let Some(why) = config.ec2.as_ref().and_then(|ec2| ec2.check().err()) {
        let message = format!("`{}` is not a valid kmt.toml", path.display());
        return Err(Failure::usage(message).caused_by(why));
    }
    for (name, component) in &config.component {
        component.check(name).map_err(|failure| {
            let message = format!("`{}` is not a valid kmt.toml", path.display());
            failure
                .hints
                .iter()
                .fold(Failure::usage(message).caused_by(&failure.message), |all, hint| all.hint(hint))
        })?;
    }
    Ok(config)
}

/// The JSON Schema of a `kmt.toml`, for editors.
///
/// # Errors
/// It cannot be told: a bug.
pub fn schema() -> Result<serde_json::Value> {
    let schema = schemars::schema_for!(Config);
    serde_json::to_value(schema)
        .map_err(|error| Failure::new(Kind::Internal, "cannot tell the schema").caused_by(error))
}

/// The timeout of the longest pattern that means `package`.
pub fn longest_match(timeouts: &BTreeMap<String, Duration>, package: &str) -> Option<Duration> {
    let read = timeouts.iter().map(|(pattern, timeout)| (PackagePattern::of_go(pattern), timeout));
    let meant = read.filter(|(pattern, _)| pattern.matches(package));
    meant.max_by_key(|(pattern, _)| pattern.weight()).map(|(_, timeout)| *timeout)
}

#[cfg(test)]
mod tests {
    use kmt_reporters::junit::Flavour;

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
    fn junit_is_a_path_or_paths_by_flavour() {
        let junit =
            |text: &str| toml::from_str::<Config>(text).map(|config| config.profile["ci"].junit.clone());
        let one = junit("[profile.ci]\njunit = \"a.xml\"\n").unwrap();
        assert_eq!(one, [(Flavour::Gitlab, "a.xml".to_owned())]);
        let text = "[profile.ci.junit]\ngitlab = \"a.xml\"\ndatadog = [\"b.xml\", \"c.xml\"]\n";
        let flavours: Vec<_> =
            junit(text).unwrap().into_iter().map(|(flavour, path)| format!("{flavour} {path}")).collect();
        assert_eq!(flavours, ["datadog b.xml", "datadog c.xml", "gitlab a.xml"]);
        assert!(junit("[profile.ci]\n").unwrap().is_empty());
        let wrong = junit("[profile.ci.junit]\ngitlub = \"a.xml\"\n").unwrap_err().to_string();
        assert!(wrong.contains("`gitlub` is not a JUnit flavour"), "{wrong}");
        assert!(
            junit("[profile.ci.junit]\ngitlab = 3\n").unwrap_err().to_string().contains("a path is expected")
        );
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

    fn parsed(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmt.toml");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn unknown_keys_are_errors_with_a_line_and_the_nearest_name() {
        for (text, line, near) in [
            ("[component.a]\nbuilder = \"go\"\ntimeot = \"1m\"\n", "line 3", "timeout"),
            ("[component.a]\nbuilder = \"prebuild\"\n", "line 2", "prebuilt"),
            ("[component.a]\nbuilder = \"go\"\n[component.a.prepare]\nmodule = []\n", "line 4", "modules"),
        ] {
            let failure = parsed(text).unwrap_err();
            assert!(failure.causes[0].contains(line), "{failure:?}");
            assert_eq!(failure.hints, [format!("did you mean `{near}`?")]);
        }
    }

    #[test]
    fn keys_that_do_not_go_together_are_errors() {
        for (keys, words) in [
            ("builder = \"go\"\nrace = true", "needs cgo"),
            ("builder = \"prebuilt\"", "names no folder"),
            ("builder = \"command\"", "has none"),
            ("builder = \"go\"\nformat = \"tap\"", "as `gotest`"),
            ("builder = \"prebuilt\"\nfolder = \"x\"\nhelpers = [\"./x\"]", "only the builder `go`"),
            ("builder = \"go\"\nlayout = \"opt\"", "is no layout"),
            ("builder = \"go\"\nprepare.disks = [{ target = \"/d\" }]", "neither of a size nor of an image"),
            ("builder = \"go\"\nartifacts = [{ form = \"x\" }]", "a pattern of files, or {"),
        ] {
            let failure = parsed(&format!("[component.a]\n{keys}\n")).unwrap_err();
            assert!(failure.causes[0].contains(words), "{failure:?}");
        }
    }

    #[test]
    fn a_whole_component_is_read() {
        let text = "[component.a]\nbuilder = \"command\"\nformat = \"kselftest\"\nlayout = \"/opt/x/\"\n\
                    artifacts = [\"a/{arch}/*.o\", { from = \"b\", to = \"c\" }]\n\
                    [[component.a.command]]\nargv = [\"make\"]\ninputs = [\"*.c\"]\noutputs = [\"out\"]\n\
                    container = { image = \"i\", engine = \"podman\" }\n\
                    [component.a.tests]\nnet = \"out/net\"\n\
                    [component.a.prepare]\nsysctls = { \"net.core.somaxconn\" = 5 }\n\
                    mounts = [{ type = \"debugfs\", target = \"/d\" }]\n";
        let component = &parsed(text).unwrap().component["a"];
        assert_eq!((component.layout_of("a"), component.artifacts.len()), ("/opt/x".to_owned(), 2));
        assert_eq!(component.prepare.sysctls["net.core.somaxconn"].to_string(), "5");
    }

    /// `SCHEMA=overwrite cargo nextest run schema` writes it.
    #[test]
    fn the_schema_that_is_kept_is_that_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/settings/kmt.schema.json");
        let now = format!("{:#}\n", schema().unwrap());
        if std::env::var_os("SCHEMA").is_some_and(|word| word == "overwrite") {
            std::fs::write(&path, &now).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), now);
    }
}
