//! Renting one host: ordered by attempts, written down before and after, watched until it can be used.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use kmt_reporters::event::{Arch, Event, EventSink};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::attempts::{Attempt, Attempts};
use super::kinds::{Kind, Virtualization};
use super::refusal::{Meaning, meaning, told};
use super::{Pace, setup, tags};
use crate::error::{Failure, Kind as ErrorKind, Result};
use crate::external::cloud::{Cloud, Health, Instance, InstanceState, Order, Subnet, code};
use crate::external::{Class, Error};
use crate::settings::ec2::{AddressKind, Ec2};
use crate::stack::record::Owner;
use crate::stack::{Rental, Rented, Stack};

/// What is asked of a cloud on behalf of one stack.
pub struct Desk<'a> {
    /// The door.
    pub cloud: &'a dyn Cloud,
    /// What is configured.
    pub ec2: &'a Ec2,
    /// Region.
    pub region: &'a str,
    /// The stack.
    pub stack: &'a Stack,
    /// User and machine.
    pub owner: &'a str,
    /// Git branch, where there is one.
    pub branch: Option<&'a str>,
    /// Pipeline of CI, where this is one.
    pub pipeline: Option<&'a str>,
    /// Name of the key pair.
    pub key_name: Option<String>,
    /// The user's public key, where it is a file.
    pub public_key: Option<String>,
    /// How fast it is asked.
    pub pace: Pace,
    /// Hears what happens.
    pub sink: &'a dyn EventSink,
}

/// A rented host that runs, and what it said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// As it is seen.
    pub instance: Instance,
    /// The address to log in at.
    pub address: String,
    /// Its public host key.
    pub host_key: String,
}

/// Name of the rental of an architecture: one host runs all its machines.
pub fn name(arch: Arch) -> String {
    format!("ec2-{arch}")
}

impl Desk<'_> {
    /// Whether these types could be ordered with these credentials. Rents nothing.
    ///
    /// # Errors
    /// What would be refused, exit code 104.
    pub async fn rehearse(&self, kinds: &[Kind]) -> Result<()> {
        let Some(kind) = kinds.first() else { return Ok(()) };
        let subnet = self.ec2.subnets.first().map(String::as_str);
        let order = self.order(Uuid::nil(), kind, subnet, BTreeMap::new());
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
            other => other.map_err(|error| told(&error, self.region)),
        }
    }

    /// Orders a host of one of these types and writes it down. Whatever happens, the record knows of it first.
    ///
    /// # Errors
    /// No attempt was accepted; then nothing is rented and nothing written down.
    pub async fn order_one(&self, kinds: &[Kind], owner: Owner) -> Result<Instance> {
        let Some(arch) = kinds.first().map(|kind| kind.arch) else {
            return Err(Failure::new(ErrorKind::Internal, "no type of host to ask for"));
        };
        let name = name(arch);
        let rental = Rental {
            order: Uuid::new_v4(),
            arch,
            region: self.region.to_owned(),
            owner,
            ordered: Utc::now(),
            instance: None,
        };
        self.stack.change(|record| record.rentals.insert(name.clone(), rental.clone()))?;
        let ordered = self.attempt_all(kinds, &rental, &name).await;
        let (instance, kind) = match ordered {
            Ok(ordered) => ordered,
            Err(failure) => {
                // A refused order is no host; one whose answer was lost may be: then it stays written down.
                if failure.1 == Answered::Yes {
                    self.stack.change(|record| record.rentals.remove(&name))?;
                }
                return Err(failure.0);
            }
        };
        let rented = Rented {
            id: instance.id.clone(),
            instance_type: instance.instance_type.clone(),
            zone: instance.zone.clone(),
            usd_per_hour: kind.usd_per_hour.filter(|_| !self.ec2.spot),
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
            record.rentals.entry(name).and_modify(|rental| rental.instance = Some(rented));
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
        let failed = |error: Error| (told(&error, self.region), Answered::Yes);
        let subnets =
            self.again(|| self.cloud.subnets(self.region, &self.ec2.subnets)).await.map_err(failed)?;
        // In the order in which they are configured.
        let mut subnets: Vec<Subnet> = subnets;
        subnets.sort_by_key(|one| self.ec2.subnets.iter().position(|id| *id == one.id));
        let types: Vec<String> = kinds.iter().map(|kind| kind.instance_type.clone()).collect();
        let offered = self.again(|| self.cloud.offered(self.region, &types)).await.map_err(failed)?;
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
            let error = match self.again(|| self.cloud.launch(&order)).await {
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
                    return Err((told(&error, self.region), answered));
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
        let whom = tags::For {
            stack: self.stack.uuid,
            stack_name: &self.stack.name,
            host: name,
            owner: self.owner,
            branch: self.branch,
            pipeline: self.pipeline,
        };
        let subnet = attempt.subnet.and_then(|number| subnets.get(number)).map(|subnet| subnet.id.as_str());
        self.order(rental.order, kind, subnet, tags::of(&whom, self.ec2, rental.ordered))
    }

    fn order(&self, order: Uuid, kind: &Kind, subnet: Option<&str>, tags: BTreeMap<String, String>) -> Order {
        let setup = setup::Setup {
            arch: kind.arch,
            ttl: self.ec2.ttl,
            user: &self.ec2.user,
            key: self.public_key.as_deref(),
            folder: std::path::Path::new(super::FOLDER),
        };
        Order {
            region: self.region.to_owned(),
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
    async fn again<T, F>(&self, mut ask: impl FnMut() -> F) -> std::result::Result<T, Error>
    where
        F: Future<Output = std::result::Result<T, Error>>,
    {
        again(self.pace, || ask()).await
    }

    fn warn(&self, message: &str) {
        self.sink.emit(Event::Warning { subject: "ec2".to_owned(), message: message.to_owned() });
    }

    /// Waits until a host runs, has an address and has told its host key.
    ///
    /// # Errors
    /// It ended, its checks or its script failed, or it took too long.
    pub async fn until_it_runs(&self, instance: &Instance) -> Result<Running> {
        let until = Instant::now() + self.pace.boot;
        loop {
            let now = self.look(&instance.id).await?;
            let said = match now.state {
                InstanceState::Ended | InstanceState::Stopped => return Err(ended(&now)),
                InstanceState::Pending => setup::Said::default(),
                InstanceState::Running => self.said(&instance.id).await?,
            };
            if let Some(why) = said.failed {
                return Err(lost(&instance.id, "could not be made ready").caused_by(why));
            }
            let address = self.address(&now);
            if let (InstanceState::Running, Some(address), Some(host_key)) =
                (now.state, address, said.host_key)
            {
                return Ok(Running { instance: now, address, host_key });
            }
            self.check(&instance.id, until).await?;
            sleep(self.pace.poll).await;
        }
    }

    /// Whether a host that is waited for is worth waiting for.
    ///
    /// # Errors
    /// Its checks failed, or it is late.
    pub async fn check(&self, id: &str, until: Instant) -> Result<()> {
        let health = self.again(|| self.cloud.health(self.region, id)).await;
        let health = health.map_err(|error| told(&error, self.region))?;
        let waited = self.pace.boot.as_secs() / 60;
        match health {
            Health::Impaired => Err(lost(id, "does not pass EC2's checks").hint("the next one may: the same command again")),
            _ if Instant::now() < until => Ok(()),
            Health::Checking => Err(lost(id, &format!("has not passed EC2's checks in {waited} minutes"))),
            Health::Well => Err(lost(id, &format!("passes EC2's checks, and was not ready in {waited} minutes"))
                .hint("its security group must let this machine in by SSH; a host without a way to Debian's archive needs an `ami` that has libvirt")),
        }
    }

    /// What its script said so far; its key is configured where it is reached by another way.
    async fn said(&self, id: &str) -> Result<setup::Said> {
        if let Some(key) = &self.ec2.host_key {
            return Ok(setup::Said { host_key: Some(key.clone()), ready: true, failed: None });
        }
        let console = self.again(|| self.cloud.console(self.region, id)).await;
        Ok(setup::said(&console.map_err(|error| told(&error, self.region))?))
    }

    fn address(&self, instance: &Instance) -> Option<String> {
        let own = match self.ec2.address {
            AddressKind::Private => &instance.private_address,
            AddressKind::Public => &instance.public_address,
        };
        self.ec2.reach.clone().or_else(|| own.clone())
    }

    async fn look(&self, id: &str) -> Result<Instance> {
        let stack = self.stack.uuid.to_string();
        let all = self.again(|| self.cloud.tagged(self.region, tags::STACK, Some(&stack))).await;
        let all = all.map_err(|error| told(&error, self.region))?;
        all.into_iter().find(|one| one.id == id).ok_or_else(|| lost(id, "is not listed any more"))
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
