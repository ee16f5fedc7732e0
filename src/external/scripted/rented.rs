//! Rented hosts of a stage: a file each, whoever looks.

use std::fs;

use serde::{Deserialize, Serialize};

use super::Stage;
use crate::external::cloud::Instance;

/// What a script says of the cloud.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CloudScript {
    /// Region that the environment names.
    pub region: Option<String>,
    /// Regions of the account.
    pub regions: Vec<String>,
    /// Ends of the names of zones; each has the subnet of its number.
    pub zones: Vec<String>,
    /// What happens to the first host that is rented, the second, …; after that all goes well.
    pub hosts: Vec<RentalFault>,
}

impl Default for CloudScript {
    fn default() -> CloudScript {
        let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        CloudScript {
            region: Some("eu-west-1".to_owned()),
            regions: words(["eu-west-1", "us-east-1"]),
            zones: words(["a", "b"]),
            hosts: Vec::new(),
        }
    }
}

/// What a rented host does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RentalFault {
    /// Nothing.
    #[default]
    Well,
    /// It stays where it begins.
    NeverRuns,
    /// It ends by itself.
    Ends,
    /// Its checks neither pass nor fail, and its console stays empty.
    NeverPasses,
    /// Its checks fail.
    Impaired,
    /// Its script fails.
    SetupFails,
}

/// A rented host as the stage knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RentedHost {
    /// As it is seen.
    pub instance: Instance,
    /// What goes wrong.
    pub fault: RentalFault,
    /// How often it was looked at.
    pub looks: u32,
}

impl Stage {
    /// Every host that was ever rented.
    pub fn rented(&self) -> Vec<RentedHost> {
        let listed = fs::read_dir(self.place("rented")).into_iter().flatten().flatten();
        let mut all: Vec<RentedHost> =
            listed.filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()).collect();
        all.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));
        all
    }

    /// Writes a host down.
    pub(in crate::external) fn put_rented(&self, host: &RentedHost) {
        let folder = self.place("rented");
        let beside = self.place(&format!("{}.new", host.instance.id));
        let text = serde_json::to_vec(host).unwrap_or_default();
        // A stage that cannot be written has no hosts: the next look says so.
        let _ = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&beside, text))
            .and_then(|()| fs::rename(&beside, folder.join(&host.instance.id)));
    }
}
