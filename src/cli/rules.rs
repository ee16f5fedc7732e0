//! Flags of `run` that win over `[profile.*]` of `kmt.toml`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::settings::Rules as Resolved;
use crate::settings::file::parse_duration;
use crate::settings::profile::FlakyResult;

/// When a test is slow or stuck, what is tried again, when to stop.
#[derive(Debug, Args, Default, Clone)]
#[command(next_help_heading = "Retries and time limits")]
pub struct Rules {
    /// Try a failed test again so many times (0 at the desk, 2 in profile `ci`). More than none also tries a test under
    /// which the kernel died once more, on a fresh machine. What the infrastructure spoiled is tried again anyway.
    #[arg(long, alias = "retry", value_name = "N")]
    pub retries: Option<u32>,

    /// Try data races again as well.
    #[arg(long, overrides_with = "no_retry_data_race")]
    pub retry_data_race: bool,

    /// Do not try data races again, whatever the profile says.
    #[arg(long)]
    pub no_retry_data_race: bool,

    /// Whether a run with a test that passed on a later attempt passes or fails.
    #[arg(long, value_enum, value_name = "RESULT")]
    pub flaky_result: Option<FlakyResult>,

    /// Whether a run passes or fails whose only failures are of tests that are known to be flaky: listed in
    /// `flakes.yaml`, or said so by the test. They are shown and counted apart either way.
    #[arg(long, value_enum, value_name = "RESULT")]
    pub known_flaky_result: Option<FlakyResult>,

    /// Take the tests that are known to be flaky from this file, not from `flakes.yaml`.
    #[arg(long, value_name = "FILE")]
    pub flakes: Option<PathBuf>,

    /// Take the owners of tests from this file, not from `CODEOWNERS`.
    #[arg(long, value_name = "FILE")]
    pub codeowners: Option<PathBuf>,

    /// Stop after the first failed test.
    #[arg(long, conflicts_with = "max_fail")]
    pub fail_fast: bool,

    /// Stop after so many failed tests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_fail: Option<u32>,

    /// Say that a test is slow after this time (60s), and again each time it has passed.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub slow: Option<Duration>,

    /// Longest time a test may run by itself: it fails with its goroutines, the rest of its package goes on.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub test_timeout: Option<Duration>,

    /// Longest time a test binary may say nothing.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub no_output_timeout: Option<Duration>,

    /// Longest time of the whole run.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub global_timeout: Option<Duration>,
}

impl Rules {
    /// The profile's rules with what was typed.
    pub fn over(&self, profile: Resolved) -> Resolved {
        let mut rules = profile;
        if let Some(count) = self.retries {
            rules.retry(count);
        }
        rules.retries.data_race = match (self.retry_data_race, self.no_retry_data_race) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => rules.retries.data_race,
        };
        rules.flaky_result = self.flaky_result.unwrap_or(rules.flaky_result);
        rules.known_flaky_result = self.known_flaky_result.unwrap_or(rules.known_flaky_result);
        rules.max_fail = self.max_fail.or(self.fail_fast.then_some(1)).or(rules.max_fail);
        rules.slow = self.slow.unwrap_or(rules.slow);
        rules.test_timeout = self.test_timeout.or(rules.test_timeout);
        rules.no_output_timeout = self.no_output_timeout.or(rules.no_output_timeout);
        rules.global_timeout = self.global_timeout.or(rules.global_timeout);
        rules
    }
}
