//! Hosts of a scripted world: each is a part of the stage, with room of its own, and with the troubles its script says.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Gate, RemoteHost, Way};
use crate::external::hypervisor::Hypervisor;
use crate::external::hypervisor::fake::FakeHypervisor;
use crate::external::scripted::{HostFault, Stage};
use crate::external::{Class, Error, Result};

/// Opens the hosts of a stage.
#[derive(Debug, Clone)]
pub struct FakeGate {
    stage: Arc<Stage>,
}

impl FakeGate {
    /// The gate of `stage`.
    pub fn new(stage: Arc<Stage>) -> FakeGate {
        FakeGate { stage }
    }
}

#[async_trait]
impl Gate for FakeGate {
    fn open(&self, host: &RemoteHost, _: &Way) -> Arc<dyn Hypervisor> {
        Arc::new(FakeHypervisor::on(self.stage.clone(), &host.name))
    }

    async fn close(&self, way: &Way) {
        self.stage.act("close", &way.alias).unwrap_or_default();
    }

    async fn check(&self, host: &RemoteHost, way: &Way) -> Result<()> {
        self.stage.act("check", &host.name)?;
        let config = std::fs::read_to_string(&way.config).unwrap_or_default();
        if !config.contains(&format!("\nHost {}\n  HostName {}\n", way.alias, host.address)) {
            return Err(self.stage.careless("check", &host.name, "its configuration is not written"));
        }
        let refused = |class, system, operation, words: &str, hint: &str| {
            Err(Error::new(system, operation, &host.name, class, words).hint(hint))
        };
        match self.stage.script.remote(&host.name).fault {
            HostFault::Well => self.stage.reachable(Some(&host.name)).await,
            HostFault::RefusesLogin => refused(
                Class::Denied,
                "ssh",
                "log in to",
                "Permission denied (publickey).",
                "`key` and `host-key` of its `[[host]]` say how to log in and what its key is",
            ),
            HostFault::Down => {
                refused(Class::Unreachable, "ssh", "log in to", "No route to host", "is it switched on?")
            }
            HostFault::NoLibvirt => refused(
                Class::NotFound,
                "the host",
                "give machines",
                "no libvirt listens on it",
                "as root there: apt-get install qemu-system qemu-utils libvirt-daemon-system",
            ),
        }
    }
}
