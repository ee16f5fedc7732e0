//! A stack's own network, for machines that have addresses: chosen and written down before it is made, gone with the
//! last that needs it.

use super::{Stack, StackRecord};
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::network::{NUMBERS, NetworkSpec, Subnet};
use crate::external::hypervisor::{GuestNetwork, Hypervisor};
use crate::hosts::Hosts;
use crate::settings::Home;

/// How often another subnet is tried where one was taken meanwhile.
const TRIES: u32 = 3;

impl Stack {
    /// Name of its network, and of the network's bridge.
    pub fn network_name(&self) -> String {
        format!("kmt-{}", &self.uuid.simple().to_string()[..8])
    }

    /// Has the stack's network up. Idempotent.
    ///
    /// # Errors
    /// No subnet is free, or the hypervisor refused.
    pub async fn raise_network(&self, home: &Home, hypervisor: &dyn Hypervisor) -> Result<()> {
        for tries in 1.. {
            let subnet = match self.record()?.subnet {
                Some(subnet) => subnet,
                None => {
                    let free = self.free_subnet(home, hypervisor).await?;
                    self.change(|record| *record.subnet.get_or_insert(free))?
                }
            };
            let network = NetworkSpec { name: self.network_name(), stack: self.uuid, subnet };
            let Err(error) = hypervisor.raise_network(&network).await else { return Ok(()) };
            let in_use = error.to_string().contains("in use");
            let unused = self.record()?.machines.values().all(|machine| machine.address.is_none());
            if !in_use || !unused || tries >= TRIES {
                return Err(error.into());
            }
            // Somebody took it between the look and the deed.
            hypervisor.remove_network(&network.name).await?;
            self.change(|record| record.subnet = None)?;
        }
        Ok(())
    }

    /// A subnet that neither the host nor a stack of this home has.
    async fn free_subnet(&self, home: &Home, hypervisor: &dyn Hypervisor) -> Result<Subnet> {
        let mut taken = hypervisor.networks().await?;
        let records = Stack::all(home)?.into_iter().filter_map(|stack| stack.record().ok());
        taken.extend(records.filter_map(|record| record.subnet).map(|subnet| subnet.to_string()));
        let mut candidates = Subnet::candidates(self.uuid);
        candidates.find(|subnet| !taken.iter().any(|network| subnet.meets(network))).ok_or_else(|| {
            Failure::new(
                Kind::Infrastructure,
                "no network 192.168.96.0/24 to 192.168.249.0/24 is free on the host",
            )
            .hint("`kmt-run stack list` shows stacks that have one; `--network user` needs none")
        })
    }

    /// Takes the network away where no machine needs it any more. Idempotent.
    ///
    /// # Errors
    /// The hypervisor refused.
    pub async fn drop_unused_network(&self, hosts: &Hosts) -> Result<()> {
        let record = self.record()?;
        let needed = record.spec.network == GuestNetwork::Nat
            || record.machines.values().any(|machine| machine.network == GuestNetwork::Nat);
        if record.subnet.is_none() || needed {
            return Ok(());
        }
        hosts.here().remove_network(&self.network_name()).await?;
        for host in record.hosts.values() {
            hosts.of(host)?.remove_network(&self.network_name()).await?;
        }
        self.change(|record| record.subnet = None)
    }
}

impl StackRecord {
    /// Gives a machine that should have an address the first one that no other has, and takes it from one that should
    /// have none.
    ///
    /// # Errors
    /// The network is full, or not chosen yet.
    pub fn address(&mut self, machine: &str) -> Result<()> {
        match self.machines.get_mut(machine) {
            Some(record) if record.network != GuestNetwork::Nat => record.address = None,
            Some(record) if record.address.is_none() => return self.give_address(machine),
            _ => {}
        }
        Ok(())
    }

    fn give_address(&mut self, machine: &str) -> Result<()> {
        let subnet = self.subnet.ok_or_else(|| {
            Failure::new(
                Kind::Internal,
                format!("machine `{machine}` wants an address of a network that is not there"),
            )
        })?;
        let taken: Vec<u8> =
            self.machines.values().filter_map(|m| m.address).filter_map(|at| subnet.number(at)).collect();
        let number = NUMBERS.into_iter().find(|number| !taken.contains(number)).ok_or_else(|| {
            Failure::new(Kind::Infrastructure, format!("all addresses of {subnet} are given to machines"))
                .hint("another stack has a network of its own: `--stack NAME`")
        })?;
        let mac = NetworkSpec::mac(self.uuid, number);
        if let Some(machine) = self.machines.get_mut(machine) {
            (machine.address, machine.mac) = (Some(subnet.address(number)), mac);
        }
        Ok(())
    }
}
