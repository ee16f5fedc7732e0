//! Tags, by which a host is found again whatever happened, and tokens, by which it is not rented twice.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use sha2::Digest as _;
use uuid::Uuid;

use crate::external::cloud::Instance;
use crate::settings::ec2::Ec2;

/// Identity of the stack.
pub const STACK: &str = "kmt-run:stack";
/// The host within it.
pub const HOST: &str = "kmt-run:host";
/// When it ends itself at the latest.
pub const EXPIRES: &str = "kmt-run:expires";
/// Whose stack it is: user and machine.
pub const OWNER: &str = "kmt-run:owner";

/// Most characters of a value.
const LONGEST: usize = 256;

/// Whose hosts are rented, as their tags say it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asker {
    /// User and machine.
    pub owner: String,
    /// Git branch, where there is one.
    pub branch: Option<String>,
    /// Pipeline of CI, where this is one.
    pub pipeline: Option<String>,
}

/// Whom a host is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct For<'a> {
    /// Identity of the stack.
    pub stack: Uuid,
    /// Its name.
    pub stack_name: &'a str,
    /// Name of the host within it.
    pub host: &'a str,
    /// Whose it is.
    pub asker: &'a Asker,
}

/// The tags of a host that is ordered now.
pub fn of(whom: &For<'_>, ec2: &Ec2, now: DateTime<Utc>) -> BTreeMap<String, String> {
    let expires = now + ec2.ttl;
    let mut tags = ec2.tags.clone();
    let mut add = |name: &str, value: &str| {
        tags.insert(name.to_owned(), value.chars().take(LONGEST).collect());
    };
    add("Name", &format!("kmt-run {} {}", whom.stack_name, whom.host));
    add(STACK, &whom.stack.to_string());
    add(HOST, whom.host);
    add(OWNER, &whom.asker.owner);
    add(EXPIRES, &expires.to_rfc3339_opts(SecondsFormat::Secs, true));
    let said = [
        ("team", ec2.team.as_deref()),
        ("branch", whom.asker.branch.as_deref()),
        ("pipeline", whom.asker.pipeline.as_deref()),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            add(name, value);
        }
    }
    tags
}

/// When a host ends itself at the latest, if it says so.
pub fn expires(instance: &Instance) -> Option<DateTime<Utc>> {
    let text = instance.tags.get(EXPIRES)?;
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}

/// Identity of the stack a host says it is of.
pub fn stack(instance: &Instance) -> Option<Uuid> {
    instance.tags.get(STACK)?.parse().ok()
}

/// The token of one attempt: the same as long as the same is asked for. At most 64 characters.
pub fn token(order: Uuid, instance_type: &str, subnet: Option<&str>) -> String {
    let text = format!("{order} {instance_type} {}", subnet.unwrap_or("-"));
    format!("kmt-{}", hex::encode(&sha2::Sha256::digest(text)[..20]))
}

/// How long until then, or how long ago, for people: `in 3 h`, `2 min ago`.
pub fn away(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let apart = (at - now).abs().to_std().unwrap_or(Duration::ZERO);
    let text = kmt_reporters::roughly(u64::try_from(apart.as_millis()).unwrap_or(u64::MAX));
    if at > now { format!("in {text}") } else { format!("{text} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_say_whose_it_is_and_until_when() {
        let ec2: Ec2 =
            toml::from_str("team = 'ebpf'\nttl = '2h'\ntags = { cost = '7', branch = 'x' }").unwrap();
        let stack = Uuid::from_u128(7);
        let asker = Asker { owner: "me@desk".to_owned(), branch: Some("b".repeat(300)), pipeline: None };
        let whom = For { stack, stack_name: "main", host: "x86_64", asker: &asker };
        let now = DateTime::parse_from_rfc3339("2026-01-02T03:04:05Z").unwrap().to_utc();
        let tags = of(&whom, &ec2, now);
        assert_eq!(tags["kmt-run:expires"], "2026-01-02T05:04:05Z");
        assert_eq!((tags["team"].as_str(), tags["cost"].as_str(), tags["branch"].len()), ("ebpf", "7", 256));
        assert!(!tags.contains_key("pipeline"));
        assert_eq!(tags["Name"], "kmt-run main x86_64");
    }

    #[test]
    fn a_token_is_of_what_is_asked_for() {
        let order = Uuid::from_u128(1);
        let token = |kind, subnet| super::token(order, kind, subnet);
        assert_eq!(token("m5.metal", Some("s")), token("m5.metal", Some("s")));
        assert_ne!(token("m5.metal", Some("s")), token("m5.metal", None));
        assert_ne!(token("m5.metal", None), super::token(Uuid::from_u128(2), "m5.metal", None));
        assert!(token("m5.metal", None).len() <= 64);
    }
}
