//! Rented hosts of stacks: whom to ask, what is left of them, and giving them back. `hire` rents them.

use std::time::Duration;

use kmt_reporters::event::Arch;

use super::say;
use crate::cloud::gone::{self, Ended, Fate, Found};
use crate::cloud::kinds::alternatives;
use crate::cloud::launch::Ask;
use crate::cloud::tags;
use crate::error::{Failure, Kind as ErrorKind, Result};
use crate::external::cloud::Cloud;
use crate::settings::Settings;
use crate::settings::ec2::Ec2;
use crate::stack::Stack;
use crate::world::World;

/// Whom to ask for hosts.
///
/// # Errors
/// Nobody says which region, or no key is chosen to log in with.
pub(super) async fn ask<'s>(settings: &'s Settings, ec2: &'s Ec2, world: &'s World) -> Result<Ask<'s>> {
    let key = settings.ssh_key.as_ref().map(|key| &key.value);
    let Some(key_name) = ec2.key_name.clone().or_else(|| key.map(|key| key.aws_key_name.clone())) else {
        return Err(Failure::new(ErrorKind::Remote, "no SSH key is chosen to log in to rented hosts with")
            .hint(
                "kmt-run config ssh-key; or `key-name` in `[ec2]` of kmt.toml, for a key that an agent keeps",
            ));
    };
    Ok(Ask {
        cloud: world.cloud.as_ref(),
        ec2,
        region: region(ec2, world.cloud.as_ref()).await?,
        key_name: Some(key_name),
        key: key.and_then(|key| key.path.clone()),
        pace: world.pace,
    })
}

/// The region that is meant.
///
/// # Errors
/// Nobody says one.
async fn region(ec2: &Ec2, cloud: &dyn Cloud) -> Result<String> {
    let configured = ec2.region.clone();
    let region = match configured {
        Some(region) => Some(region),
        None => cloud.default_region().await,
    };
    region.ok_or_else(|| {
        Failure::new(ErrorKind::Remote, "no region of AWS is named")
            .hint("`region = \"eu-west-1\"` in `[ec2]` of kmt.toml, or AWS_REGION")
    })
}

/// What could be rented, as `doctor` says it; `None` where nothing is configured. Rents nothing.
pub(super) async fn rentable(settings: &Settings, world: &World) -> Option<Result<String>> {
    let ec2 = settings.config.ec2.as_ref()?;
    let rehearsed = async {
        let ask = ask(settings, ec2, world).await?;
        // The architecture of this machine stands for both.
        let kinds = alternatives(Some(ec2), Arch::host()).map_err(Failure::usage)?;
        ask.rehearse(&kinds).await?;
        let first = kinds.first().map(|kind| kind.instance_type.clone()).unwrap_or_default();
        Ok(format!("EC2 would rent {first} in {}", ask.region))
    };
    Some(rehearsed.await)
}

/// Says of each host that it was ended.
pub(super) fn tell(ended: &[Ended], why: &str) {
    for one in ended {
        let age = |age: Duration| {
            format!(" after {}", kmt_reporters::roughly(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
        };
        let age = one.age.map_or(String::new(), age);
        let usd = one.usd.map_or(String::new(), |usd| format!(", about {usd:.2} USD"));
        say(&format!("{:>12} host {} ({}){age}{usd}{why}", "Ended", one.id, one.instance_type));
    }
}

/// Ends, in all stacks, the hosts of runs that are gone. A cloud that does not answer keeps nobody from working here.
///
/// # Errors
/// The stacks cannot be read.
pub(super) async fn sweep(settings: &Settings, world: &World) -> Result<()> {
    let (ended, failures) = gone::sweep(&settings.home, world.cloud.as_ref(), world.pace).await?;
    tell(&ended, ", left by a process that is gone");
    for failure in failures {
        say(&format!("{:>12} {}", "WARNING", failure.one_line()));
    }
    Ok(())
}

/// Ends all hosts of a stack that is to go.
///
/// # Returns
/// Why some could not be.
///
/// # Errors
/// One is in use.
pub(super) async fn give_back_all(stack: &Stack, world: &World) -> Result<Vec<Failure>> {
    let (ended, failures) = gone::give_back_all(stack, world.cloud.as_ref(), world.pace).await?;
    tell(&ended, "");
    Ok(failures)
}

/// Looks in all regions for hosts that nobody has, or whose time is over. Nobody is asked where nothing was ever rented.
///
/// # Errors
/// The regions cannot be listed.
pub(super) async fn gc(settings: &Settings, world: &World) -> Result<()> {
    let Some(ec2) = &settings.config.ec2 else { return Ok(()) };
    let from = region(ec2, world.cloud.as_ref()).await?;
    let Found { over, ended, left, unseen } =
        gone::gc(&settings.home, &from, world.cloud.as_ref(), world.pace).await?;
    for (one, fate) in &ended {
        let why = if *fate == Fate::Expired { ", whose time was over" } else { ", which no stack has" };
        tell(std::slice::from_ref(one), why);
    }
    for host in &over {
        say(&format!("{:>12} host {host}: it has ended, and what was on it is struck out", "Over"));
    }
    let now = chrono::Utc::now();
    for (one, fate) in &left {
        let whose = match fate {
            Fate::Ours => "a stack has it".to_owned(),
            _ => format!(
                "its stack is not in {}; it is of {}",
                settings.home.root.value.display(),
                one.tags.get(tags::OWNER).map_or("somebody", String::as_str)
            ),
        };
        let until =
            tags::expires(one).map_or(String::new(), |at| format!("; it ends {}", tags::away(at, now)));
        say(&format!("{:>12} host {} in {}: {whose}{until}", "Left", one.id, one.region));
    }
    for (region, failure) in &unseen {
        say(&format!("{:>12} {region} was not looked at: {}", "WARNING", failure.one_line()));
    }
    Ok(())
}
