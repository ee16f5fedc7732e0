//! Renting one host: ordered by attempts, written down before and after, watched until it can be used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use kmt_reporters::event::{Arch, Event, EventSink};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::attempts::{Attempt, Attempts};
use super::gone::give_back;
use super::kinds::{Kind, Virtualization};
use super::refusal::{Meaning, meaning, told};
use super::tags::Asker;
use super::{Pace, setup, tags};
use crate::error::{Failure, Kind as ErrorKind, Result};
use crate::external::cloud::{Cloud, Health, Instance, InstanceState, Order, Subnet, code};
use crate::external::remote::{Provider, RemoteHost};
use crate::external::{Class, Error};
use crate::hosts::Hosts;
use crate::settings::ec2::{AddressKind, Ec2};
use crate::stack::record::Owner;
use crate::stack::{Lease, Rental, Rented, Stack};

/// How many hosts are rented, one after the other, until one comes up.
const LAUNCHES: usize = 2;

/// How a cloud is asked.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The door.
    pub cloud: &'a dyn Cloud,
    /// What is configured.
    pub ec2: &'a Ec2,
    /// Region.
    pub region: String,
    /// Name of the key pair.
    pub key_name: Option<String>,
    /// The user's private key; without it OpenSSH takes what an agent has.
    pub key: Option<PathBuf>,
    /// How fast it is asked.
    pub pace: Pace,
}

/// A cloud that is asked on behalf of one stack.
pub struct Desk<'a> {
    /// How.
    pub ask: &'a Ask<'a>,
    /// The stack.
    pub stack: &'a Stack,
    /// Whose it is, as tags say it.
    pub asker: &'a Asker,
    /// Hears what happens.
    pub sink: &'a dyn EventSink,
}

/// Name of the rental of an architecture: one host runs all its machines.
pub fn name(arch: Arch) -> String {
    format!("ec2-{arch}")
}

impl Ask<'_> {
    /// Whether these types could be ordered with these credentials. Rents nothing.
    ///
    /// # Errors
    /// What would be refused, exit code 104.
    pub async fn rehearse(&self, kinds: &[Kind]) -> Result<()> {
        let Some(kind) = kinds.first() else { return Ok(()) };
        let subnet = self.ec2.subnets.first().map(String::as_str);
        // With tags as they will be: an order without is refused, and whether it is allowed may depend on them.
        let (asker, host) = (Asker::default(), name(kind.arch));
        let whom = tags::For { stack: Uuid::nil(), stack_name: "rehearsal", host: &host, asker: &asker };
        let order = self.order(Uuid::nil(), kind, subnet, tags::of(&whom, self.ec2, Utc::now()));
        let rehearsed = self.again(|| self.cloud.rehearse(&order)).await;
        match rehearsed {
            // That one type is not to be had somewhere is for the attempts to find out.
            Err(error)
                if matches!(
                    meaning(&error),
                    Meaning::NoCapacity | Meaning::NotOffered | Meaning::NoAddresses
                ) =>
            {
                Ok(())
            }
            other => other.map_err(|error| told(&error, &self.region)),
        }
    }

    fn order(&self, order: Uuid, kind: &Kind, subnet: Option<&str>, tags: BTreeMap<String, String>) -> Order {
        // The public half lies beside: it needs no key pair of AWS.
        let public =
            self.key.as_ref().and_then(|key| std::fs::read_to_string(key.with_added_extension("pub")).ok());
        let setup = setup::Setup {
            arch: kind.arch,
            ttl: self.ec2.ttl,
            user: &self.ec2.user,
            key: public.as_deref().and_then(|text| text.lines().next()),
            folder: &self.ec2.folder,
        };
        Order {
            region: self.region.clone(),
            token: tags::token(order, &kind.instance_type, subnet),
            instance_type: kind.instance_type.clone(),
            nested: kind.virtualization == Virtualization::Nested,
            image: self.ec2.image(kind.arch),
            subnet: subnet.map(str::to_owned),
            key_name: self.key_name.clone(),
            security_groups: self.ec2.security_groups.clone(),
            instance_profile: self.ec2.instance_profile.clone(),
            public_address: (self.ec2.address == AddressKind::Public).then_some(true),
            disk_gib: (!kind.own_disks).then_some(self.ec2.disk_gib),
            spot: self.ec2.spot,
            user_data: setup::script(&setup),
            tags,
        }
    }

    /// Asks again what was throttled or not answered, a little later each time.
    async fn again<T, F>(&self, ask: impl FnMut() -> F) -> std::result::Result<T, Error>
    where
        F: Future<Output = std::result::Result<T, Error>>,
    {
        again(self.pace, ask).await
    }
}

impl Desk<'_> {
    /// Orders a host of one of these types and writes it down. Whatever happens, the record knows of it first.
    async fn order_one(&self, kinds: &[Kind], owner: Owner, name: &str) -> Result<Instance> {
        let arch = kinds.first().map_or_else(Arch::host, |kind| kind.arch);
        let (order, region) = (Uuid::new_v4(), self.ask.region.clone());
        let rental = Rental { order, arch, region, owner, ordered: Utc::now(), instance: None };
        self.stack.change(|record| record.rentals.insert(name.to_owned(), rental.clone()))?;
        let ordered = self.attempt_all(kinds, &rental, name).await;
        let (instance, kind) = match ordered {
            Ok(ordered) => ordered,
            Err(failure) => {
                // A refused order is no host; one whose answer was lost may be: then it stays written down.
                if failure.1 == Answered::Yes {
                    self.stack.change(|record| record.rentals.remove(name))?;
                }
                return Err(failure.0);
            }
        };
        let rented = Rented {
            id: instance.id.clone(),
            instance_type: instance.instance_type.clone(),
            zone: instance.zone.clone(),
            usd_per_hour: kind.usd_per_hour.filter(|_| !self.ask.ec2.spot),
        };
        self.sink.emit(Event::HostRented {
            host: instance.id.clone(),
            arch,
            instance_type: rented.instance_type.clone(),
            zone: rented.zone.clone(),
            usd_per_hour: rented.usd_per_hour,
            expires: tags::expires(&instance),
        });
        self.stack.change(|record| {
            record.rentals.entry(name.to_owned()).and_modify(|rental| rental.instance = Some(rented));
        })?;
        Ok(instance)
    }

    /// One attempt after the other, until one is accepted.
    async fn attempt_all<'k>(
        &self,
        kinds: &'k [Kind],
        rental: &Rental,
        name: &str,
    ) -> std::result::Result<(Instance, &'k Kind), (Failure, Answered)> {
        let failed = |error: Error| (told(&error, &self.ask.region), Answered::Yes);
        let subnets = self
            .ask
            .again(|| self.ask.cloud.subnets(&self.ask.region, &self.ask.ec2.subnets))
            .await
            .map_err(failed)?;
        // In the order in which they are configured.
        let mut subnets: Vec<Subnet> = subnets;
        subnets.sort_by_key(|one| self.ask.ec2.subnets.iter().position(|id| *id == one.id));
        let types: Vec<String> = kinds.iter().map(|kind| kind.instance_type.clone()).collect();
        let offered =
            self.ask.again(|| self.ask.cloud.offered(&self.ask.region, &types)).await.map_err(failed)?;
        let mut attempts = Attempts::of(kinds, &subnets, &offered);
        let Some(mut attempt) = attempts.next() else {
            let error = Error::new(
                "ec2",
                "launch",
                types.join(", "),
                Class::Rejected,
                "Unsupported: no zone offers them",
            );
            return Err(failed(error));
        };
        loop {
            let kind = &kinds[attempt.kind];
            let order = self.attempted(rental, name, kind, attempt, &subnets);
            let error = match self.ask.again(|| self.ask.cloud.launch(&order)).await {
                Ok(instance) => return Ok((instance, kind)),
                Err(error) => error,
            };
            let meaning = meaning(&error);
            let goes_on = meaning != Meaning::Again && attempts.strike(attempt, meaning);
            match attempts.next().filter(|_| goes_on) {
                Some(next) => {
                    self.warn(&format!("{}; trying another: {error}", kind.instance_type));
                    attempt = next;
                }
                None => {
                    let answered = if code(&error).is_empty() { Answered::No } else { Answered::Yes };
                    return Err((told(&error, &self.ask.region), answered));
                }
            }
        }
    }

    fn attempted(
        &self,
        rental: &Rental,
        name: &str,
        kind: &Kind,
        attempt: Attempt,
        subnets: &[Subnet],
    ) -> Order {
        let whom =
            tags::For { stack: self.stack.uuid, stack_name: &self.stack.name, host: name, asker: self.asker };
        let subnet = attempt.subnet.and_then(|number| subnets.get(number)).map(|subnet| subnet.id.as_str());
        self.ask.order(rental.order, kind, subnet, tags::of(&whom, self.ask.ec2, rental.ordered))
    }

    fn warn(&self, message: &str) {
        self.sink.emit(Event::Warning { subject: "ec2".to_owned(), message: message.to_owned() });
    }

    /// Rents a host of one of these types, or takes the one that the stack has, and waits until it can be used. One that
    /// does not come up is ended, and another asked for once.
    ///
    /// # Returns
    /// The host, and the right to it: whoever drops that leaves a host of a run to the next sweep.
    ///
    /// # Errors
    /// It is refused (104), or none comes up (102); then nothing is left.
    pub async fn rent(&self, kinds: &[Kind], owner: Owner, hosts: &Hosts) -> Result<(RemoteHost, Lease)> {
        let Some(arch) = kinds.first().map(|kind| kind.arch) else {
            return Err(Failure::new(ErrorKind::Internal, "no type of host to ask for"));
        };
        let name = name(arch);
        let mut last = None;
        for _ in 0..LAUNCHES {
            let lease = self.stack.lease_rental(&name)?.ok_or_else(|| {
                let failure = format!(
                    "the rented host `{name}` of stack `{}` is in use by another kmt-run",
                    self.stack.name
                );
                Failure::new(ErrorKind::Infrastructure, failure)
                    .hint("wait for it, or use a stack of your own: `--stack NAME`")
            })?;
            let instance = match self.there(&name).await? {
                Some(instance) => instance,
                None => self.order_one(kinds, owner, &name).await?,
            };
            match self.until_ready(&instance, arch, hosts).await {
                Ok(host) => {
                    self.stack.change(|record| record.hosts.insert(host.name.clone(), host.clone()))?;
                    return Ok((host, lease));
                }
                Err(failure) => {
                    let given = give_back(self.stack, &name, self.ask.cloud, self.ask.pace, lease).await;
                    let failure = match given {
                        Ok(_) => failure,
                        Err(_) => failure.hint("it is still written down: `kmt-run stack gc` ends it"),
                    };
                    if failure.kind != ErrorKind::Infrastructure {
                        return Err(failure);
                    }
                    self.warn(&failure.one_line());
                    last = Some(failure);
                }
            }
        }
        Err(last.unwrap_or_else(|| Failure::new(ErrorKind::Internal, "no host was asked for")))
    }

    /// The host that the stack has under that name, if it still lives.
    async fn there(&self, name: &str) -> Result<Option<Instance>> {
        let Some(rented) = self.stack.record()?.rentals.remove(name).and_then(|rental| rental.instance)
        else {
            return Ok(None);
        };
        let seen = self.look(&rented.id).await?;
        Ok(seen.filter(|instance| matches!(instance.state, InstanceState::Pending | InstanceState::Running)))
    }

    /// Waits until a host can be logged in to and gives what machines need.
    async fn until_ready(&self, instance: &Instance, arch: Arch, hosts: &Hosts) -> Result<RemoteHost> {
        let until = Instant::now() + self.ask.pace.boot;
        let mut trouble = None;
        loop {
            let now =
                self.look(&instance.id).await?.ok_or_else(|| lost(&instance.id, "is not listed any more"))?;
            let said = match now.state {
                InstanceState::Ended | InstanceState::Stopped => return Err(ended(&now)),
                InstanceState::Pending => setup::Said::default(),
                InstanceState::Running => self.said(&instance.id).await?,
            };
            if let Some(why) = said.failed {
                return Err(lost(&instance.id, "could not be made ready").caused_by(why));
            }
            if let (Some(address), Some(host_key)) = (self.address(&now), said.host_key) {
                let host = self.host(&instance.id, arch, address, host_key);
                match hosts.check(&host).await {
                    Ok(_) => return Ok(host),
                    Err(failure) => trouble = Some(failure),
                }
                hosts.close(&host).await;
            }
            self.worth_waiting_for(&instance.id, until, trouble.as_ref()).await?;
            sleep(self.ask.pace.poll).await;
        }
    }

    fn host(&self, id: &str, arch: Arch, address: String, host_key: String) -> RemoteHost {
        RemoteHost {
            name: id.to_owned(),
            arch,
            address,
            port: 22,
            user: self.ask.ec2.user.clone(),
            key: self.ask.key.clone(),
            host_key: Some(host_key),
            folder: self.ask.ec2.folder.clone(),
            memory_mib: None,
            cores: None,
            provider: Provider::Ec2 { region: self.ask.region.clone(), instance: id.to_owned() },
        }
    }

    /// Whether a host that is not ready yet may become so.
    async fn worth_waiting_for(&self, id: &str, until: Instant, trouble: Option<&Failure>) -> Result<()> {
        let health = self.ask.again(|| self.ask.cloud.health(&self.ask.region, id)).await;
        let health = health.map_err(|error| told(&error, &self.ask.region))?;
        let waited = kmt_reporters::plural(self.ask.pace.boot.as_secs().div_ceil(60), "minute");
        let failure = match health {
            Health::Impaired => return Err(lost(id, "does not pass EC2's checks")),
            _ if Instant::now() < until => return Ok(()),
            Health::Checking => lost(id, &format!("has not passed EC2's checks in {waited}")),
            Health::Well => lost(id, &format!("passes EC2's checks, and was not ready in {waited}")).hint(
                "its security group must let this machine in by SSH; without a way to Debian's archive it needs an `ami` that has libvirt",
            ),
        };
        Err(match trouble {
            Some(trouble) => failure.caused_by(trouble.one_line()),
            None => failure,
        })
    }

    /// What its script said so far; its key is configured where it is reached by another way.
    async fn said(&self, id: &str) -> Result<setup::Said> {
        if let Some(key) = &self.ask.ec2.host_key {
            return Ok(setup::Said { host_key: Some(key.clone()), ready: true, failed: None });
        }
        let console = self.ask.again(|| self.ask.cloud.console(&self.ask.region, id)).await;
        Ok(setup::said(&console.map_err(|error| told(&error, &self.ask.region))?))
    }

    fn address(&self, instance: &Instance) -> Option<String> {
        let own = match self.ask.ec2.address {
            AddressKind::Private => &instance.private_address,
            AddressKind::Public => &instance.public_address,
        };
        self.ask.ec2.reach.clone().or_else(|| own.clone())
    }

    async fn look(&self, id: &str) -> Result<Option<Instance>> {
        let stack = self.stack.uuid.to_string();
        let all = self.ask.again(|| self.ask.cloud.tagged(&self.ask.region, tags::STACK, Some(&stack))).await;
        let all = all.map_err(|error| told(&error, &self.ask.region))?;
        Ok(all.into_iter().find(|one| one.id == id))
    }
}

/// Whether the cloud answered at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Yes,
    No,
}

fn lost(id: &str, what: &str) -> Failure {
    Failure::new(ErrorKind::Infrastructure, format!("host `{id}` {what}"))
}

fn ended(instance: &Instance) -> Failure {
    let failure = lost(&instance.id, "ended before it was ready");
    match &instance.reason {
        Some(reason) => failure.caused_by(reason),
        None => failure,
    }
}

/// Asks, and asks again what was throttled or not answered, a little later each time.
///
/// # Errors
/// The last refusal.
pub async fn again<T, F>(pace: Pace, mut ask: impl FnMut() -> F) -> std::result::Result<T, Error>
where
    F: Future<Output = std::result::Result<T, Error>>,
{
    let mut pause = pace.pause;
    for _ in 1..pace.tries {
        match ask().await {
            Err(error) if meaning(&error) == Meaning::Again => sleep(jittered(pause)).await,
            answer => return answer,
        }
        pause *= 2;
    }
    ask().await
}

/// Between half and all of it, so that many who were refused at once do not come again at once.
fn jittered(pause: Duration) -> Duration {
    let part = u32::from(Uuid::new_v4().as_bytes()[0]);
    pause / 2 + pause / 2 * part / 255
}

#[cfg(test)]
mod tests;
