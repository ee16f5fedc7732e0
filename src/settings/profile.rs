//! `[profile.*]` of `kmt.toml`: how a run behaves in one surrounding, and what that comes to.
//!
//! What a profile does not say, profile `default` says, and what that leaves open is built in: at the desk nothing is
//! tried again but what the infrastructure spoiled; in `ci` a failure gets two more attempts.

use std::collections::BTreeMap;
use std::time::Duration;

use kmt_reporters::junit::Flavour;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::file::parse_duration;

/// How a run behaves in one surrounding.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Exit code for failing tests, instead of 100.
    pub test_failure_exit_code: Option<u8>,
    /// Where JUnit is written as well, relative to `kmt.toml`: a path, or paths by flavour.
    #[serde(default, deserialize_with = "junit")]
    #[schemars(with = "JunitPaths")]
    pub junit: Vec<(Flavour, String)>,
    /// After how long a test is said to be slow.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub slow: Option<Duration>,
    /// Longest time a test may run by itself.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub test_timeout: Option<Duration>,
    /// Longest time a test binary may stay silent.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub no_output_timeout: Option<Duration>,
    /// Longest time of a whole run.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub global_timeout: Option<Duration>,
    /// Begin nothing more after so many tests have failed.
    pub max_fail: Option<u32>,
    /// What a run with a flaky test comes to.
    pub flaky_result: Option<FlakyResult>,
    /// What a run comes to whose only failures are of tests that are known to be flaky.
    pub known_flaky_result: Option<FlakyResult>,
    /// What is tried again.
    #[serde(default)]
    pub retries: RetryRules,
}

/// Paths as they are written, for the schema; `junit` reads them.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a shape, of which there is never a value")]
enum JunitPaths {
    /// A path, in the flavour of GitLab.
    Path(String),
    /// Paths by flavour.
    Flavours(BTreeMap<String, OneOrMore>),
}

/// The paths of one flavour.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a shape, of which there is never a value")]
enum OneOrMore {
    /// One file.
    One(String),
    /// Several files.
    More(Vec<String>),
}

/// `junit = "out/junit.xml"`, or `[profile.ci.junit]` with `gitlab = "…"`, `datadog = ["…", "…"]`.
fn junit<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<(Flavour, String)>, D::Error> {
    use serde::de::Error;
    let path = |value: &toml::Value| match value.as_str() {
        Some(path) if !path.is_empty() => Ok(path.to_owned()),
        _ => Err(D::Error::custom("a path is expected, such as \"out/junit.xml\"")),
    };
    let mut wanted = Vec::new();
    match toml::Value::deserialize(deserializer)? {
        toml::Value::Table(flavours) => {
            for (name, value) in &flavours {
                let flavour: Flavour = name.parse().map_err(D::Error::custom)?;
                match value.as_array() {
                    Some(paths) => {
                        for value in paths {
                            wanted.push((flavour, path(value)?));
                        }
                    }
                    None => wanted.push((flavour, path(value)?)),
                }
            }
        }
        value => wanted.push((Flavour::Gitlab, path(&value)?)),
    }
    Ok(wanted)
}

/// What a run with a test that passed on a later attempt, or that is known to be flaky and failed, comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FlakyResult {
    /// It passes.
    #[default]
    Pass,
    /// It fails.
    Fail,
}

/// `[profile.*.retries]`: what is tried again, by its cause.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RetryRules {
    /// Tests that failed, hung or crashed their binary: a count, or a table.
    pub assertion: Option<AssertionRule>,
    /// Tests under which the kernel died, on a fresh machine.
    pub crash: Option<u32>,
    /// Tests whose machine went away without kernel evidence.
    pub infrastructure: Option<u32>,
    /// Whether a test in which the race detector spoke is tried again.
    pub data_race: Option<bool>,
}

/// `assertion = 2`, or `assertion = { count = 2, backoff = "1s", jitter = true }`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AssertionRule {
    /// So many times.
    Count(u32),
    /// With a pause before each.
    Table {
        /// So many times.
        count: u32,
        /// Pause before the first; doubled each time.
        #[serde(default, deserialize_with = "duration")]
        #[schemars(with = "Option<String>")]
        backoff: Option<Duration>,
        /// Whether the pause is drawn between a half and the whole of it.
        #[serde(default)]
        jitter: bool,
    },
}

/// What is tried again, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Times a test is tried again that failed, hung or crashed its binary.
    pub assertion: u32,
    /// Pause before the first of those; doubled each time.
    pub backoff: Duration,
    /// Whether the pause is drawn between a half and the whole of it.
    pub jitter: bool,
    /// Times a test is tried again under which the kernel died.
    pub crash: u32,
    /// Times a test is tried again whose machine went away.
    pub infrastructure: u32,
    /// Whether data races are tried again.
    pub data_race: bool,
}

/// Everything a profile rules, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After how long a test is said to be slow.
    pub slow: Duration,
    /// Longest time a test may run by itself.
    pub test_timeout: Option<Duration>,
    /// Longest time a test binary may stay silent.
    pub no_output_timeout: Option<Duration>,
    /// Longest time of the run.
    pub global_timeout: Option<Duration>,
    /// Begin nothing more after so many tests have failed.
    pub max_fail: Option<u32>,
    /// What a run with a flaky test comes to.
    pub flaky_result: FlakyResult,
    /// What a run comes to whose only failures are of tests that are known to be flaky.
    pub known_flaky_result: FlakyResult,
    /// What is tried again.
    pub retries: Retries,
}

impl Rules {
    /// What profile `name` comes to.
    pub fn of(name: &str, profiles: &BTreeMap<String, Profile>) -> Rules {
        let layers = || [name, "default"].into_iter().filter_map(|name| profiles.get(name));
        let in_ci = name == "ci";
        // In profile `ci` what is built in for it outranks what the file says of `default`.
        let retries = || {
            let own = profiles.get(name).into_iter();
            let general = profiles.get("default").filter(|_| !in_ci);
            own.chain(general).map(|profile| &profile.retries)
        };
        let assertion = retries().find_map(|rules| rules.assertion);
        let (count, backoff, jitter) = match assertion {
            Some(AssertionRule::Count(count)) => (count, Duration::ZERO, false),
            Some(AssertionRule::Table { count, backoff, jitter }) => {
                (count, backoff.unwrap_or_default(), jitter)
            }
            None => (if in_ci { 2 } else { 0 }, Duration::ZERO, false),
        };
        Rules {
            slow: layers().find_map(|p| p.slow).unwrap_or(Duration::from_secs(60)),
            test_timeout: layers().find_map(|p| p.test_timeout),
            no_output_timeout: layers().find_map(|p| p.no_output_timeout),
            global_timeout: layers().find_map(|p| p.global_timeout),
            max_fail: layers().find_map(|p| p.max_fail),
            flaky_result: layers().find_map(|p| p.flaky_result).unwrap_or_default(),
            known_flaky_result: layers().find_map(|p| p.known_flaky_result).unwrap_or_default(),
            retries: Retries {
                assertion: count,
                backoff,
                jitter,
                crash: retries().find_map(|rules| rules.crash).unwrap_or(u32::from(count > 0)),
                infrastructure: retries().find_map(|rules| rules.infrastructure).unwrap_or(1),
                data_race: retries().find_map(|rules| rules.data_race).unwrap_or(false),
            },
        }
    }

    /// What `--retries` makes of it: so many times for what fails; none means none, however it fails, but for what the
    /// infrastructure spoils.
    pub fn retry(&mut self, count: u32) {
        self.retries.assertion = count;
        self.retries.crash = if count == 0 { 0 } else { self.retries.crash.max(1) };
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(name: &str, text: &str) -> Rules {
        Rules::of(name, &toml::from_str(text).unwrap())
    }

    #[test]
    fn the_desk_tries_nothing_again_and_ci_does() {
        let (desk, ci) = (rules("default", ""), rules("ci", ""));
        assert_eq!((desk.retries.assertion, desk.retries.crash, desk.retries.infrastructure), (0, 0, 1));
        assert_eq!((ci.retries.assertion, ci.retries.crash, ci.retries.data_race), (2, 1, false));
        let mut typed = ci;
        typed.retry(0);
        assert_eq!((typed.retries.assertion, typed.retries.crash), (0, 0));
    }

    #[test]
    fn a_profile_falls_back_on_default_and_that_on_what_is_built_in() {
        let text = "[default]\nslow = \"5s\"\nmax-fail = 3\n[default.retries]\nassertion = 7\n\
                    [night]\nslow = \"9s\"\n[night.retries]\n\
                    assertion = { count = 1, backoff = \"2s\", jitter = true }\n";
        let night = rules("night", text);
        assert_eq!((night.slow, night.max_fail), (Duration::from_secs(9), Some(3)));
        assert_eq!((night.retries.assertion, night.retries.backoff), (1, Duration::from_secs(2)));
        assert!(night.retries.jitter);
        assert_eq!(rules("ci", text).retries.assertion, 2);
        assert_eq!(rules("ci", text).slow, Duration::from_secs(5));
        assert!(toml::from_str::<Profile>("retires = 1").is_err());
    }
}
