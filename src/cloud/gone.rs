//! Taking rented hosts away, whatever became of whoever rented them. Every step can be repeated.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::launch::again;
use super::refusal::told;
use super::{Pace, tags};
use crate::error::{Failure, Kind, Result};
use crate::external::Class;
use crate::external::cloud::{Cloud, Instance, InstanceState};
use crate::external::remote::{Provider, RemoteHost};
use crate::settings::Home;
use crate::stack::record::Owner;
use crate::stack::{Lease, MachineRecord, Stack};

/// A host that was ended now: how long it lived and what it came to, where that is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Its id.
    pub id: String,
    /// Its type.
    pub instance_type: String,
    /// How long it lived.
    pub age: Option<Duration>,
    /// US dollars.
    pub usd: Option<f64>,
}

/// How often a host is looked for whose order was not answered: what is new is listed with a delay.
const LOOKS: u32 = 3;
/// How long what is new may not be listed.
const NEW: chrono::TimeDelta = chrono::TimeDelta::minutes(1);

/// Ends the hosts of a rental whose lease is held, sees them end, and strikes them out.
///
/// # Errors
/// The cloud refused; the record stays, and the next command tries again.
pub async fn give_back(
    stack: &Stack,
    name: &str,
    cloud: &dyn Cloud,
    pace: Pace,
    lease: Lease,
) -> Result<Vec<Ended>> {
    let Some(rental) = stack.record()?.rentals.remove(name) else { return Ok(Vec::new()) };
    let region = rental.region.as_str();
    let refused =
        |error| told(&error, region).hint("nothing is struck out: the next `kmt-run stack gc` tries again");
    let looks = if rental.instance.is_none() && Utc::now() - rental.ordered < NEW { LOOKS } else { 1 };
    let mut found = Vec::new();
    for look in 0..looks {
        if look > 0 {
            sleep(pace.poll).await;
        }
        found = alive(stack.uuid, name, region, cloud, pace).await.map_err(refused)?;
        if !found.is_empty() {
            break;
        }
    }
    let mut ids: Vec<String> = found.iter().map(|instance| instance.id.clone()).collect();
    if let Some(rented) = rental.instance.as_ref().filter(|rented| !ids.contains(&rented.id)) {
        ids.push(rented.id.clone());
    }
    end(region, &ids, cloud, pace).await.map_err(refused)?;
    let until = Instant::now() + pace.end;
    while !alive(stack.uuid, name, region, cloud, pace).await.map_err(refused)?.is_empty() {
        if Instant::now() > until {
            let failure = Failure::new(Kind::Infrastructure, format!("{} does not end", ids.join(", ")));
            return Err(failure.hint("`kmt-run stack gc` looks again; it ends itself when its time is over"));
        }
        sleep(pace.poll).await;
    }
    forget(stack, name, &ids)?;
    drop(lease);
    let price = rental.instance.as_ref().and_then(|rented| rented.usd_per_hour);
    Ok(found.iter().map(|instance| ended(instance, price, Utc::now())).collect())
}

/// Strikes out a rental, the hosts it was and the machines that were on them: they went with their host. What is here of
/// them goes first, so that whoever is killed meanwhile leaves nothing that is not written down.
fn forget(stack: &Stack, name: &str, ids: &[String]) -> Result<()> {
    let on = |machine: &MachineRecord| machine.host.as_ref().is_some_and(|host| ids.contains(host));
    for machine in stack.record()?.machines.values().filter(|machine| on(machine)) {
        for folder in [stack.machine_folder(&machine.id), stack.machine_sockets(&machine.id)] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::file("remove", &folder, &error));
                }
                _ => {}
            }
        }
    }
    stack.change(|record| {
        record.rentals.remove(name);
        record.hosts.retain(|_, host| !is_one_of(host, ids));
        record.machines.retain(|_, machine| !on(machine));
    })
}

fn is_one_of(host: &RemoteHost, ids: &[String]) -> bool {
    matches!(&host.provider, Provider::Ec2 { instance, .. } if ids.contains(instance))
}

fn ended(instance: &Instance, usd_per_hour: Option<f64>, now: DateTime<Utc>) -> Ended {
    let age = instance.launched.and_then(|launched| (now - launched).to_std().ok());
    Ended {
        id: instance.id.clone(),
        instance_type: instance.instance_type.clone(),
        age,
        usd: age.zip(usd_per_hour).map(|(age, price)| crate::plan::cost::usd_of(price, age)),
    }
}

/// Ends these; those that never were or are gone are fine.
async fn end(region: &str, ids: &[String], cloud: &dyn Cloud, pace: Pace) -> crate::external::Result<()> {
    for id in ids {
        let one = [id.clone()];
        match again(pace, || cloud.end(region, &one)).await {
            Err(error) if error.class == Class::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Hosts of that name in that stack that are not ending.
async fn alive(
    stack: Uuid,
    name: &str,
    region: &str,
    cloud: &dyn Cloud,
    pace: Pace,
) -> crate::external::Result<Vec<Instance>> {
    let stack = stack.to_string();
    let all = again(pace, || cloud.tagged(region, tags::STACK, Some(&stack))).await?;
    let is = |one: &Instance| {
        one.state != InstanceState::Ended && one.tags.get(tags::HOST).is_some_and(|host| host == name)
    };
    Ok(all.into_iter().filter(is).collect())
}

/// Ends all hosts of a stack.
///
/// # Returns
/// What was ended, and what could not be.
///
/// # Errors
/// Another process uses one; then none is ended.
pub async fn give_back_all(
    stack: &Stack,
    cloud: &dyn Cloud,
    pace: Pace,
) -> Result<(Vec<Ended>, Vec<Failure>)> {
    let mut leases = Vec::new();
    for name in stack.record()?.rentals.into_keys() {
        let Some(lease) = stack.lease_rental(&name)? else {
            let failure =
                format!("the rented host `{name}` of stack `{}` is in use by another kmt-run", stack.name);
            return Err(Failure::new(Kind::Infrastructure, failure)
                .hint("wait for it, or end it; then repeat this command"));
        };
        leases.push((name, lease));
    }
    let (mut gone, mut failures) = (Vec::new(), Vec::new());
    for (name, lease) in leases {
        match give_back(stack, &name, cloud, pace, lease).await {
            Ok(ended) => gone.extend(ended),
            Err(failure) => failures.push(failure),
        }
    }
    Ok((gone, failures))
}

/// Ends, in every stack, what processes that are gone rented for a run.
///
/// # Returns
/// What was ended, and what could not be.
///
/// # Errors
/// The stacks cannot be read.
pub async fn sweep(home: &Home, cloud: &dyn Cloud, pace: Pace) -> Result<(Vec<Ended>, Vec<Failure>)> {
    let (mut gone, mut failures) = (Vec::new(), Vec::new());
    for stack in Stack::all(home)? {
        let record = stack.record()?;
        for (name, rental) in record.rentals {
            // One that is configured stays, unless its making was cut off or its stack is to go.
            if rental.owner == Owner::Configured && rental.instance.is_some() && !record.destroyed {
                continue;
            }
            let Some(lease) = stack.lease_rental(&name)? else { continue };
            match give_back(&stack, &name, cloud, pace, lease).await {
                Ok(ended) => gone.extend(ended),
                Err(failure) => failures.push(failure),
            }
        }
    }
    Ok((gone, failures))
}

/// What becomes of a host that carries our tags. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A stack of this home has it.
    Ours,
    /// A stack of this home had it, and does not know it any more.
    Forgotten,
    /// Its time is over, whoever's it is.
    Expired,
    /// Somebody else's.
    Foreign,
}

/// What becomes of it, where `known` says whether a stack is here, and whether it has that host.
pub fn fate(instance: &Instance, known: &dyn Fn(Uuid, &str) -> Option<bool>, now: DateTime<Utc>) -> Fate {
    let host = instance.tags.get(tags::HOST).map(String::as_str).unwrap_or_default();
    let expired = tags::expires(instance).is_some_and(|at| at < now);
    match tags::stack(instance).and_then(|stack| known(stack, host)) {
        Some(false) => Fate::Forgotten,
        _ if expired => Fate::Expired,
        Some(true) => Fate::Ours,
        None => Fate::Foreign,
    }
}

/// What `stack gc` found in all regions.
#[derive(Debug, Default)]
pub struct Found {
    /// Hosts that stacks had and that ended by themselves, or by somebody else's hand: struck out.
    pub over: Vec<String>,
    /// What was ended, and why.
    pub ended: Vec<(Ended, Fate)>,
    /// What was left alone, and until when it lives.
    pub left: Vec<(Instance, Fate)>,
    /// Regions that could not be looked at.
    pub unseen: Vec<(String, Failure)>,
}

/// Looks in all regions for hosts with our tags, and ends those that nobody has or whose time is over.
///
/// # Errors
/// The regions cannot be listed, or the stacks of this home not read.
pub async fn gc(home: &Home, from: &str, cloud: &dyn Cloud, pace: Pace) -> Result<Found> {
    let regions = again(pace, || cloud.regions(from)).await.map_err(|error| told(&error, from))?;
    let stacks = Stack::all(home)?;
    let records: Vec<_> = stacks.iter().map(|stack| stack.record()).collect::<Result<_>>()?;
    let known = |uuid: Uuid, host: &str| {
        records.iter().find(|record| record.uuid == uuid).map(|record| record.rentals.contains_key(host))
    };
    let mut found = Found::default();
    for region in &regions {
        let all = match again(pace, || cloud.tagged(region, tags::STACK, None)).await {
            Ok(all) => all,
            Err(error) => {
                found.unseen.push((region.clone(), told(&error, region)));
                continue;
            }
        };
        for instance in all.into_iter().filter(|one| one.state != InstanceState::Ended) {
            let fate = fate(&instance, &known, Utc::now());
            if matches!(fate, Fate::Ours | Fate::Foreign) {
                found.left.push((instance, fate));
                continue;
            }
            match end(region, std::slice::from_ref(&instance.id), cloud, pace).await {
                Ok(()) => found.ended.push((ended(&instance, None, Utc::now()), fate)),
                Err(error) => found.unseen.push((region.clone(), told(&error, region))),
            }
        }
    }
    strike_out(&stacks, cloud, pace, &mut found).await?;
    Ok(found)
}

/// Strikes out the rentals of stacks whose hosts are over, with the machines that were on them. What somebody uses is
/// left, and so is all of regions that were not looked at.
async fn strike_out(stacks: &[Stack], cloud: &dyn Cloud, pace: Pace, found: &mut Found) -> Result<()> {
    for stack in stacks {
        for (name, rental) in stack.record()?.rentals {
            let lives = |id: &str| found.left.iter().any(|(instance, _)| instance.id == id);
            let unseen = found.unseen.iter().any(|(region, _)| *region == rental.region);
            let Some(rented) = rental.instance.filter(|rented| !unseen && !lives(&rented.id)) else {
                continue;
            };
            let Some(lease) = stack.lease_rental(&name)? else { continue };
            match give_back(stack, &name, cloud, pace, lease).await {
                Ok(_) => found.over.push(rented.id),
                Err(failure) => found.unseen.push((rental.region, failure)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn instance(stack: u128, expires: &str) -> Instance {
        let tags = [
            (tags::STACK, Uuid::from_u128(stack).to_string()),
            (tags::HOST, "ec2-x86_64".to_owned()),
            (tags::EXPIRES, expires.to_owned()),
        ];
        Instance {
            id: "i-1".to_owned(),
            region: "r".to_owned(),
            zone: "z".to_owned(),
            instance_type: "m5d.metal".to_owned(),
            state: InstanceState::Running,
            reason: None,
            private_address: None,
            public_address: None,
            launched: DateTime::from_timestamp(0, 0),
            token: String::new(),
            tags: tags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn only_what_nobody_has_or_is_over_is_ended() {
        let now = DateTime::from_timestamp(1_000_000_000, 0).unwrap();
        let (past, future) = ("2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z");
        let known = |stack: Uuid, _: &str| match stack.as_u128() {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        };
        for (stack, expires, expected) in [
            (1, future, Fate::Ours),
            (1, past, Fate::Expired),
            (2, future, Fate::Forgotten),
            (3, future, Fate::Foreign),
            (3, past, Fate::Expired),
            (3, "whenever", Fate::Foreign),
        ] {
            assert_eq!(fate(&instance(stack, expires), &known, now), expected, "{stack} {expires}");
        }
    }

    #[test]
    fn an_age_has_a_price() {
        let ended = ended(&instance(1, ""), Some(5.0), DateTime::from_timestamp(5400, 0).unwrap());
        assert_eq!((ended.age, ended.usd), (Some(Duration::from_mins(90)), Some(7.5)));
    }
}
