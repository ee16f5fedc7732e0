//! The door to a cloud: rent a host, look at those that are rented, end them.
//!
//! Owns what is ordered ([`Order`]) and what is seen ([`Instance`]), region by region. Does not decide which type, zone
//! or price (`crate::cloud` does), and asks only once: the caller repeats what may be repeated. To add a cloud:
//! an adapter beside [`ec2`], named in `world.rs`.
//!
//! An error's `detail` begins with the cloud's own code, `Code: words`, which [`code`] gives back.

pub mod ec2;
pub mod fake;

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// A host to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The region.
    pub region: String,
    /// The same token twice is the same host twice.
    pub token: String,
    /// Type of instance.
    pub instance_type: String,
    /// Whether its processors must be told to nest virtualization.
    pub nested: bool,
    /// `ami-…` or `resolve:ssm:NAME`.
    pub image: String,
    /// Where; the default network without.
    pub subnet: Option<String>,
    /// Name of the key pair.
    pub key_name: Option<String>,
    /// Ids of security groups.
    pub security_groups: Vec<String>,
    /// Name of the instance profile.
    pub instance_profile: Option<String>,
    /// Whether it gets an address that the world can reach; `None` as its subnet says.
    pub public_address: Option<bool>,
    /// A disk besides that of the image, GiB.
    pub disk_gib: Option<u32>,
    /// Whether spare capacity will do.
    pub spot: bool,
    /// Script that it runs when it first boots.
    pub user_data: String,
    /// Tags of it and of its disks.
    pub tags: BTreeMap<String, String>,
}

/// What a rented host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It begins.
    Pending,
    /// It runs, as far as the cloud can tell.
    Running,
    /// It is off, and still paid for by its disks.
    Stopped,
    /// It is ending or gone.
    Ended,
}

/// A rented host, as it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The cloud's name of it.
    pub id: String,
    /// Where.
    pub region: String,
    /// Where within.
    pub zone: String,
    /// Type of instance.
    pub instance_type: String,
    /// What it does.
    pub state: InstanceState,
    /// Why it does, in the cloud's words, where it ended by itself.
    pub reason: Option<String>,
    /// Address in its network.
    pub private_address: Option<String>,
    /// Address in the world.
    pub public_address: Option<String>,
    /// When it was begun.
    pub launched: Option<DateTime<Utc>>,
    /// Token of its order.
    pub token: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// What the cloud's own checks say of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not known yet.
    Checking,
    /// Well.
    Well,
    /// The host or its network is broken.
    Impaired,
}

/// A subnet and its availability zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// Its zone.
    pub zone: String,
}

/// Rents hosts.
#[async_trait]
pub trait Cloud: std::fmt::Debug + Send + Sync {
    /// The region that environment and profile name, if they do.
    async fn default_region(&self) -> Option<String>;

    /// Regions that this account may use, as seen from one of them.
    async fn regions(&self, from: &str) -> Result<Vec<String>>;

    /// These subnets, or without ids the default one of each zone.
    async fn subnets(&self, region: &str, ids: &[String]) -> Result<Vec<Subnet>>;

    /// Which of these types are offered, and in which zone: pairs of type and zone.
    async fn offered(&self, region: &str, types: &[String]) -> Result<Vec<(String, String)>>;

    /// Whether the order would be allowed. Rents nothing.
    async fn rehearse(&self, order: &Order) -> Result<()>;

    /// Rents it. The same order again gives the same host.
    async fn launch(&self, order: &Order) -> Result<Instance>;

    /// All hosts with a tag of that name, and that value where one is given; those that ended are forgotten after a while.
    async fn tagged(&self, region: &str, tag: &str, value: Option<&str>) -> Result<Vec<Instance>>;

    /// What its checks say.
    async fn health(&self, region: &str, id: &str) -> Result<Health>;

    /// Ends them for good. Idempotent; `NotFound` where one never was.
    async fn end(&self, region: &str, ids: &[String]) -> Result<()>;

    /// What its console said, as far as the cloud knows: the last 64 KiB.
    async fn console(&self, region: &str, id: &str) -> Result<String>;
}

/// The cloud's own code of an error, such as `InsufficientInstanceCapacity`; empty where it never answered.
pub fn code(error: &Error) -> &str {
    let code = error.detail.split(": ").next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    if !code.is_empty() && code.chars().all(plain) { code } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::Class;

    #[test]
    fn the_code_is_the_first_word_of_the_detail() {
        let error = |detail: &str| Error::new("ec2", "launch", "m5d.metal", Class::Busy, detail);
        assert_eq!(
            code(&error("InsufficientInstanceCapacity: none left: sorry")),
            "InsufficientInstanceCapacity"
        );
        assert_eq!(code(&error("InvalidAMIID.NotFound: x")), "InvalidAMIID.NotFound");
        assert_eq!((code(&error("no answer: in time")), code(&error(""))), ("", ""));
    }
}
