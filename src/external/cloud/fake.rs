//! A cloud of a stage: its hosts are files, and begin, fail and end as the script says.
//!
//! Stricter than a real one: an order that could be rented twice, or would not be found again, is refused.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use sha2::Digest as _;

use super::{Cloud, Health, Instance, InstanceState, Order, Subnet};
use crate::external::scripted::{RentalFault, RentedHost, Stage};
use crate::external::{Class, Error, Result};

/// Looks at a host until it runs.
const PENDING: u32 = 1;
/// Longest script an order may have, bytes.
const LONGEST: usize = 16 * 1024;

/// The cloud of a stage.
#[derive(Debug, Clone)]
pub struct FakeCloud {
    stage: Arc<Stage>,
}

impl FakeCloud {
    /// The cloud of `stage`.
    pub fn new(stage: Arc<Stage>) -> FakeCloud {
        FakeCloud { stage }
    }

    fn zones(&self, region: &str) -> Vec<String> {
        self.stage.script.cloud.zones.iter().map(|zone| format!("{region}{zone}")).collect()
    }

    /// What no caller may ask for.
    fn careful(&self, order: &Order) -> Result<()> {
        let tagged = ["kmt-run:stack", "kmt-run:host", "kmt-run:expires"]
            .iter()
            .all(|tag| order.tags.contains_key(*tag));
        let what = if !tagged {
            "without the tags by which it is found again"
        } else if order.token.is_empty() || order.token.len() > 64 {
            "without a token"
        } else if order.user_data.len() > LONGEST || !order.user_data.contains("kmt-run-end.timer") {
            "without a script that ends it"
        } else {
            return Ok(());
        };
        Err(self.stage.careless("rent", &order.instance_type, what))
    }

    fn refuse(operation: &'static str, subject: &str, class: Class, detail: &str) -> Error {
        Error::new("ec2", operation, subject, class, detail)
    }
}

#[async_trait]
impl Cloud for FakeCloud {
    async fn default_region(&self) -> Option<String> {
        self.stage.script.cloud.region.clone()
    }

    async fn regions(&self, from: &str) -> Result<Vec<String>> {
        self.stage.look("list-regions", from)?;
        Ok(self.stage.script.cloud.regions.clone())
    }

    async fn subnets(&self, region: &str, ids: &[String]) -> Result<Vec<Subnet>> {
        self.stage.look("list-subnets", region)?;
        let zones = self.zones(region);
        let all: Vec<Subnet> = (1..)
            .zip(&zones)
            .map(|(n, zone)| Subnet { id: format!("subnet-{n}"), zone: zone.clone() })
            .collect();
        if let Some(id) = ids.iter().find(|id| !all.iter().any(|subnet| subnet.id == **id)) {
            let words = format!("InvalidSubnetID.NotFound: The subnet ID '{id}' does not exist");
            return Err(Self::refuse("list the subnets of", region, Class::NotFound, &words));
        }
        Ok(all.into_iter().filter(|subnet| ids.is_empty() || ids.contains(&subnet.id)).collect())
    }

    async fn offered(&self, region: &str, types: &[String]) -> Result<Vec<(String, String)>> {
        self.stage.look("list-offers", region)?;
        let zones = self.zones(region);
        Ok(types.iter().flat_map(|name| zones.iter().map(|zone| (name.clone(), zone.clone()))).collect())
    }

    async fn rehearse(&self, order: &Order) -> Result<()> {
        self.careful(order)?;
        self.stage.look("rehearse", &order.instance_type)
    }

    async fn launch(&self, order: &Order) -> Result<Instance> {
        self.careful(order)?;
        let subject = format!("{} {}", order.instance_type, order.subnet.as_deref().unwrap_or("-"));
        self.stage.act("rent", &subject)?;
        if let Some(same) = self.stage.rented().into_iter().find(|host| host.instance.token == order.token) {
            if same.instance.instance_type != order.instance_type || same.instance.tags != order.tags {
                return Err(self.stage.careless("rent", &subject, "the same token for another order"));
            }
            return Ok(same.instance);
        }
        let number = self.stage.rented().len();
        let zones = self.zones(&order.region);
        let at = order
            .subnet
            .as_ref()
            .and_then(|id| id.strip_prefix("subnet-")?.parse::<usize>().ok())
            .unwrap_or(1);
        let instance = Instance {
            id: format!("i-{:017x}", number + 1),
            region: order.region.clone(),
            zone: zones.get(at - 1).cloned().unwrap_or_default(),
            instance_type: order.instance_type.clone(),
            state: InstanceState::Pending,
            reason: None,
            private_address: Some(format!("10.77.0.{}", number + 1)),
            public_address: order.public_address.unwrap_or(false).then(|| format!("192.0.2.{}", number + 1)),
            launched: Some(Utc::now()),
            token: order.token.clone(),
            tags: order.tags.clone(),
        };
        let fault = self.stage.script.cloud.hosts.get(number).copied().unwrap_or_default();
        self.stage.put_rented(&RentedHost { instance: instance.clone(), fault, looks: 0 });
        self.stage.done("rent", &subject);
        Ok(instance)
    }

    async fn tagged(&self, region: &str, tag: &str, value: Option<&str>) -> Result<Vec<Instance>> {
        self.stage.look("list-hosts", region)?;
        let mut all = Vec::new();
        for mut host in self.stage.rented() {
            let is = |text: &String| value.is_none_or(|value| value == text);
            if host.instance.region != region || !host.instance.tags.get(tag).is_some_and(is) {
                continue;
            }
            host.looks += 1;
            if host.instance.state == InstanceState::Pending && host.looks > PENDING {
                match host.fault {
                    RentalFault::NeverRuns => {}
                    RentalFault::Ends => {
                        host.instance.state = InstanceState::Ended;
                        host.instance.reason =
                            Some("Server.InternalError: Internal error on launch".to_owned());
                    }
                    _ => host.instance.state = InstanceState::Running,
                }
            }
            self.stage.put_rented(&host);
            all.push(host.instance);
        }
        Ok(all)
    }

    async fn health(&self, region: &str, id: &str) -> Result<Health> {
        self.stage.look("check-host", region)?;
        let host = self.stage.rented().into_iter().find(|host| host.instance.id == id);
        Ok(match host.map(|host| (host.fault, host.instance.state)) {
            Some((RentalFault::Impaired, InstanceState::Running)) => Health::Impaired,
            Some((RentalFault::NeverPasses, _)) | None => Health::Checking,
            Some((_, InstanceState::Running)) => Health::Well,
            Some(_) => Health::Checking,
        })
    }

    async fn end(&self, region: &str, ids: &[String]) -> Result<()> {
        for id in ids {
            self.stage.act("end-host", id)?;
            let Some(mut host) = self.stage.rented().into_iter().find(|host| host.instance.id == *id) else {
                let words =
                    format!("InvalidInstanceID.NotFound: The instance ID '{id}' does not exist in {region}");
                return Err(Self::refuse("end", id, Class::NotFound, &words));
            };
            host.instance.state = InstanceState::Ended;
            self.stage.put_rented(&host);
            // Its machines go with it.
            for domain in self.stage.domains().iter().filter(|domain| domain.host.as_ref() == Some(id)) {
                self.stage.forget(&domain.name);
            }
            self.stage.done("end-host", id);
        }
        Ok(())
    }

    async fn console(&self, region: &str, id: &str) -> Result<String> {
        self.stage.look("read-console", region)?;
        let Some(host) = self.stage.rented().into_iter().find(|host| host.instance.id == id) else {
            return Err(Self::refuse(
                "read the console of",
                id,
                Class::NotFound,
                "InvalidInstanceID.NotFound: none",
            ));
        };
        let key = hex::encode(sha2::Sha256::digest(id));
        let told = format!("Linux\r\nkmt-run: host-key ssh-ed25519 AAAA{key}\r\n");
        Ok(match host.fault {
            RentalFault::SetupFails => format!("{told}kmt-run: failed: packages could not be installed\r\n"),
            RentalFault::NeverPasses | RentalFault::Impaired => String::new(),
            _ => format!("{told}kmt-run: ready\r\n"),
        })
    }
}
