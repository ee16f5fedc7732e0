//! `[ec2]` of `kmt.toml`: where hosts are rented for cells that want a remote machine, and how much they may cost.
//!
//! No credential stands here: they come from where AWS's own tools find them (environment, profiles, SSO, roles).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kmt_reporters::event::Arch;
use schemars::JsonSchema;
use serde::Deserialize;

use super::file::duration;
use crate::external::remote::FOLDER;

/// The section.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ec2 {
    /// Region, where it is not that of the environment or the AWS profile.
    pub region: Option<String>,
    /// Subnets in which hosts may be, best first: each is in one availability zone. None: the default ones.
    pub subnets: Vec<String>,
    /// Image by architecture: `ami-…`, or `resolve:ssm:NAME` of a public parameter. Debian 12 without.
    pub ami: BTreeMap<HostArch, String>,
    /// Who logs in; goes with the image.
    pub user: String,
    /// Types of instance by architecture, best first: bare metal, or such as can nest virtualization.
    pub types: BTreeMap<HostArch, Vec<String>>,
    /// The key pair, where it is not the one that `kmt-run config ssh-key` wrote down.
    pub key_name: Option<String>,
    /// Security groups: they must let us in by SSH. None: the default one of the network.
    pub security_groups: Vec<String>,
    /// Name of the instance profile.
    pub instance_profile: Option<String>,
    /// Which address of a host is used.
    pub address: AddressKind,
    /// This address instead of the host's own, as behind a tunnel.
    pub reach: Option<String>,
    /// The public host key of what is behind `reach`, `ssh-ed25519 …`; without it hosts tell theirs on their consoles.
    pub host_key: Option<String>,
    /// Folder on hosts where images and machines lie, absolute.
    pub folder: PathBuf,
    /// Space for images and machines, GiB, where the type has no disks of its own.
    pub disk_gib: u32,
    /// Whether spare capacity is rented: cheaper, and it may be taken away.
    pub spot: bool,
    /// US dollars an hour for all hosts of a command together, above which `--yes` must be typed.
    pub price_limit: f64,
    /// US dollars an hour of types, where the table that comes with this program is wrong or has none.
    pub prices: BTreeMap<String, f64>,
    /// How long a host lives at most: then it ends itself.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "String")]
    pub ttl: Duration,
    /// Whose hosts they are, as the tag `team` says.
    pub team: Option<String>,
    /// More tags.
    pub tags: BTreeMap<String, String>,
}

impl Default for Ec2 {
    fn default() -> Ec2 {
        Ec2 {
            region: None,
            subnets: Vec::new(),
            ami: BTreeMap::new(),
            user: "admin".to_owned(),
            types: BTreeMap::new(),
            key_name: None,
            security_groups: Vec::new(),
            instance_profile: None,
            address: AddressKind::Private,
            reach: None,
            host_key: None,
            folder: PathBuf::from(FOLDER),
            disk_gib: 100,
            spot: false,
            price_limit: 6.0,
            prices: BTreeMap::new(),
            ttl: Duration::from_hours(6),
            team: None,
            tags: BTreeMap::new(),
        }
    }
}

/// An architecture, as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
pub enum HostArch {
    /// Intel's and AMD's.
    #[serde(rename = "x86_64", alias = "amd64", alias = "x64")]
    X86_64,
    /// Graviton's.
    #[serde(rename = "arm64", alias = "aarch64")]
    Arm64,
}

impl From<Arch> for HostArch {
    fn from(arch: Arch) -> HostArch {
        match arch {
            Arch::X86_64 => HostArch::X86_64,
            Arch::Arm64 => HostArch::Arm64,
        }
    }
}

/// Which address of a host is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressKind {
    /// The one in its own network: reachable from within, or by VPN.
    Private,
    /// One that the world can reach; asked for.
    Public,
}

impl Ec2 {
    /// The image for that architecture.
    pub fn image(&self, arch: Arch) -> String {
        let usual = || format!("resolve:ssm:/aws/service/debian/release/12/latest/{}", arch.deb());
        self.ami.get(&arch.into()).cloned().unwrap_or_else(usual)
    }

    /// What cannot be meant, in one sentence.
    ///
    /// # Errors
    /// That sentence.
    pub fn check(&self) -> Result<(), String> {
        for arch in Arch::ALL {
            crate::cloud::kinds::alternatives(Some(self), arch)?;
        }
        let minute = Duration::from_mins(1);
        let starts = |word: &String, start: &str| word.starts_with(start);
        if self.ttl < 10 * minute || self.ttl > Duration::from_hours(72) {
            return Err("`ttl` of `[ec2]` is between 10m and 72h".to_owned());
        }
        if !self.price_limit.is_finite() || self.price_limit < 0.0 {
            return Err("`price-limit` of `[ec2]` is a number of US dollars an hour".to_owned());
        }
        if let Some(word) = self.subnets.iter().find(|word| !starts(word, "subnet-")) {
            return Err(format!("`{word}` in `subnets` of `[ec2]` is no subnet: `subnet-…`"));
        }
        if let Some(word) = self.security_groups.iter().find(|word| !starts(word, "sg-")) {
            return Err(format!("`{word}` in `security-groups` of `[ec2]` is no security group: `sg-…`"));
        }
        if let Some(word) =
            self.ami.values().find(|word| !starts(word, "ami-") && !starts(word, "resolve:ssm:"))
        {
            return Err(format!("`{word}` in `ami` of `[ec2]` is no image: `ami-…` or `resolve:ssm:NAME`"));
        }
        let sane = |user: &str| {
            !user.is_empty()
                && user.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
                && !user.starts_with('-')
        };
        if !sane(&self.user) {
            return Err(format!("`{}` of `[ec2]` is no name of a user", self.user.escape_debug()));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !self.folder.is_absolute() || !self.folder.to_string_lossy().chars().all(plain) {
            return Err(format!("`{}` of `[ec2]` cannot be a folder of a host", self.folder.display()));
        }
        if let Some(name) = self.tags.keys().find(|name| reserved(name)) {
            return Err(format!("the tag `{name}` of `[ec2]` is one that kmt-run or AWS sets"));
        }
        Ok(())
    }
}

/// Tags that are not the user's to choose.
fn reserved(name: &str) -> bool {
    name.is_empty() || name.starts_with("kmt-run:") || name.starts_with("aws:") || name == "Name"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Ec2 {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_section_says_what_differs() {
        let ec2 = parsed(
            "region = 'eu-west-1'\nttl = '90m'\n[types]\nx86_64 = ['m8i.4xlarge']\n[ami]\narm64 = 'ami-1'",
        );
        assert_eq!((ec2.image(Arch::Arm64).as_str(), ec2.ttl), ("ami-1", Duration::from_mins(90)));
        assert_eq!(ec2.image(Arch::X86_64), "resolve:ssm:/aws/service/debian/release/12/latest/amd64");
        assert_eq!(ec2.check(), Ok(()));
        assert!(toml::from_str::<Ec2>("secret-access-key = 'x'").is_err(), "a credential by value");
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (text, words) in [
            ("ttl = '1m'", "between 10m and 72h"),
            ("ttl = '100h'", "between 10m and 72h"),
            ("price-limit = -1.0", "number of US dollars"),
            ("subnets = ['eu-west-1a']", "`eu-west-1a` in `subnets`"),
            ("security-groups = ['default']", "`default` in `security-groups`"),
            ("ami = { x86_64 = 'debian' }", "`debian` in `ami`"),
            ("user = '$(id)'", "is no name of a user"),
            ("folder = 'here'", "cannot be a folder"),
            ("types = { x86_64 = ['t3.large'] }", "neither bare metal"),
            ("tags = { 'kmt-run:stack' = 'x' }", "the tag `kmt-run:stack`"),
        ] {
            let why = parsed(text).check().unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
