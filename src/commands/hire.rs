//! Renting hosts for remote cells: what is needed, what it costs, whether it is allowed; and what becomes of them.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::future::join_all;
use kmt_reporters::event::{Arch, Event, EventSink, Location};
use tokio::sync::watch;

use super::lifecycle::confirmed;
use super::remotes::{self, Ready, Remotes};
use super::{rent, say};
use crate::cloud::gone::{self, Ended};
use crate::cloud::kinds::{Kind, PRICED, alternatives, dearest};
use crate::cloud::launch::{self, Ask, Desk};
use crate::cloud::tags::Asker;
use crate::error::{Failure, Result};
use crate::machine::seats::{Later, Seats};
use crate::matrix::Cell;
use crate::settings::Settings;
use crate::stack::record::Owner;
use crate::stack::{Lease, Stack};
use crate::world::World;

/// Hosts to rent: whom to ask, and for each the types to ask for in turn.
pub(super) struct Needed<'a> {
    /// Whom.
    pub(super) ask: Ask<'a>,
    /// Types by host.
    pub(super) hosts: Vec<Vec<Kind>>,
    /// Whose they are.
    asker: Asker,
}

/// Architectures of remote cells that no host has.
fn wanted<'a>(cells: impl Iterator<Item = &'a Cell> + Clone, has: &[Arch]) -> Vec<Arch> {
    let remote = |arch: Arch| move |cell: &Cell| cell.id.location == Location::Remote && cell.id.arch == arch;
    Arch::ALL.into_iter().filter(|arch| !has.contains(arch) && cells.clone().any(remote(*arch))).collect()
}

/// What must be rented for these cells where no host of theirs answers; nothing where `[ec2]` is not there.
///
/// # Errors
/// Nobody says which region, or no key is chosen.
pub(super) async fn needed<'s, 'c>(
    cells: impl Iterator<Item = &'c Cell> + Clone,
    remotes: &Remotes,
    settings: &'s Settings,
    world: &'s World,
) -> Result<Option<Needed<'s>>> {
    let has: Vec<Arch> = Arch::ALL.into_iter().filter(|arch| remotes.takes(*arch)).collect();
    let wanted = wanted(cells, &has);
    let Some(ec2) = settings.config.ec2.as_ref().filter(|_| !wanted.is_empty()) else { return Ok(None) };
    let hosts = wanted.into_iter().map(|arch| alternatives(Some(ec2), arch).map_err(Failure::usage));
    let hosts = hosts.collect::<Result<Vec<_>>>()?;
    let ask = rent::ask(settings, ec2, world).await?;
    Ok(Some(Needed { ask, hosts, asker: asker(&settings.root.value).await }))
}

impl Needed<'_> {
    /// Architectures of the hosts.
    pub(super) fn archs(&self) -> BTreeSet<Arch> {
        self.hosts.iter().flatten().map(|kind| kind.arch).collect()
    }

    /// Says the price, asks for a yes where it is above the limit, and whether the orders would be allowed. Rents nothing.
    ///
    /// # Errors
    /// No yes (2), or a refusal (104).
    pub(super) async fn preflight(&self, yes: bool) -> Result<()> {
        let ask = &self.ask;
        let limit = ask.ec2.price_limit;
        let mut sum = Some(0.0);
        for kinds in &self.hosts {
            let dearest = dearest(kinds);
            sum = sum.zip(dearest).map(|(sum, price)| sum + price);
            let names: Vec<&str> = kinds.iter().map(|kind| kind.instance_type.as_str()).collect();
            let market = if ask.ec2.spot { ", less on the spot market" } else { "" };
            let price = match dearest {
                Some(price) => format!("at most {price:.2} USD an hour{market} ({PRICED})"),
                None => "at a price that is not known here: `prices` in `[ec2]` says it".to_owned(),
            };
            say(&format!("{:>12} a host in {}: {}, {price}", "Renting", ask.region, names.join(" or ")));
        }
        if sum.is_none_or(|sum| sum > limit) {
            let what =
                sum.map_or("a price that is not known".to_owned(), |sum| format!("{sum:.2} USD an hour"));
            let question = format!("rent for {what}? `price-limit` is {limit:.2}.");
            let answered = confirmed(&question, yes).map_err(|failure| {
                let why =
                    format!("{what} is above `price-limit` of `[ec2]`, {limit:.2}; nothing was started");
                Failure { message: why, ..failure }
            })?;
            if !answered {
                return Err(Failure::usage("nothing was rented, and nothing started"));
            }
        }
        for kinds in &self.hosts {
            ask.rehearse(kinds).await?;
        }
        Ok(())
    }
}

/// This user on this machine, the repository's branch, and the pipeline of CI.
async fn asker(root: &Path) -> Asker {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = set("USER").or_else(|| set("LOGNAME")).unwrap_or_else(|| "somebody".to_owned());
    let node = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let node = if node.trim().is_empty() { "here" } else { node.trim() };
    let branch = match set("CI_COMMIT_REF_NAME") {
        Some(branch) => branch,
        None => crate::stack::name::default_name(root).await,
    };
    Asker { owner: format!("{user}@{node}"), branch: Some(branch), pipeline: set("CI_PIPELINE_ID") }
}

fn event(ended: &Ended) -> Event {
    let age_ms = ended.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    Event::HostEnded { host: ended.id.clone(), age_ms, usd: ended.usd }
}

/// Hosts that come while the run begins, and the right to each.
pub(super) struct Hiring<'a> {
    /// What is needed; nothing where nothing is.
    pub(super) needed: Option<Needed<'a>>,
    /// The doors.
    pub(super) world: &'a World,
    /// The stack.
    pub(super) stack: &'a Stack,
    /// Hears what happens.
    pub(super) sink: &'a dyn EventSink,
}

impl Hiring<'_> {
    /// Rents all that is needed, for that owner.
    ///
    /// # Returns
    /// For each architecture its host and the right to it, or why there is none.
    pub(super) async fn rent(&self, owner: Owner) -> Vec<(Arch, Result<(Ready, Lease)>)> {
        let Some(needed) = &self.needed else { return Vec::new() };
        let desk = Desk { ask: &needed.ask, stack: self.stack, asker: &needed.asker, sink: self.sink };
        let rent = async |kinds: &Vec<Kind>| {
            let arch = kinds.first().map_or_else(Arch::host, |kind| kind.arch);
            let rented = async {
                let (host, lease) = desk.rent(kinds, owner, &self.world.hosts).await?;
                let facts = remotes::look(self.world, &host).await?;
                Ok((Ready { host, facts }, lease))
            };
            (arch, rented.await)
        };
        join_all(needed.hosts.iter().map(rent)).await
    }

    /// Rents for a run, and has the cells that wait for it know: by their seats, or by why there is none.
    pub(super) async fn bring(
        &self,
        seats: &Seats,
        cells: &[&Cell],
        oversubscribe: bool,
        arrived: &watch::Sender<bool>,
        mut stop: watch::Receiver<bool>,
    ) -> Vec<(Arch, Lease)> {
        let rented = tokio::select! {
            rented = self.rent(Owner::Run) => rented,
            _ = stop.wait_for(|stop| *stop) => Vec::new(),
        };
        let (mut remotes, mut later, mut leases) = (Remotes::default(), Later::default(), Vec::new());
        for (arch, rented) in rented {
            match rented {
                Ok((ready, lease)) => {
                    remotes.ready.push(ready);
                    leases.push((arch, lease));
                }
                Err(failure) => {
                    self.sink
                        .emit(Event::HostFailed { host: launch::name(arch), message: failure.one_line() });
                    later.refused.insert(arch, failure);
                }
            }
        }
        remotes.tell(self.sink);
        let waiting: Vec<&Cell> =
            cells.iter().copied().filter(|cell| seats.of_cell(&cell.id).is_err()).collect();
        match remotes::others(self.world, self.stack, remotes, &waiting, oversubscribe).await {
            Ok((others, placed)) => (later.others, later.placed) = (others, placed),
            Err(failure) => {
                later.refused.extend(leases.iter().map(|(arch, _)| (*arch, failure.clone())));
            }
        }
        // Set once: there is one bringing a run.
        let _ = seats.later.set(later);
        arrived.send_replace(true);
        leases
    }

    /// Ends what a run rented, and tells age and price of each.
    pub(super) async fn give_back(&self, mut leases: Vec<(Arch, Lease)>) {
        let Some(needed) = &self.needed else { return };
        let archs = needed.hosts.iter().filter_map(|kinds| Some(kinds.first()?.arch));
        for arch in archs {
            let name = launch::name(arch);
            let at = leases.iter().position(|(of, _)| *of == arch);
            // What was cut off while it was rented has no lease any more, and may exist.
            let lease = match at.map(|at| leases.swap_remove(at).1) {
                Some(lease) => Ok(Some(lease)),
                None => self.stack.lease_rental(&name),
            };
            let given = match lease {
                Ok(Some(lease)) => {
                    self.close(&name).await;
                    gone::give_back(self.stack, &name, self.world.cloud.as_ref(), self.world.pace, lease)
                        .await
                }
                Ok(None) => continue,
                Err(failure) => Err(failure),
            };
            match given {
                Ok(ended) => ended.iter().for_each(|ended| self.sink.emit(event(ended))),
                Err(failure) => {
                    self.sink.emit(Event::Warning { subject: "ec2".to_owned(), message: failure.one_line() });
                }
            }
        }
    }

    /// Ends the connection to a rented host.
    async fn close(&self, name: &str) {
        let Ok(record) = self.stack.record() else { return };
        let id =
            record.rentals.get(name).and_then(|rental| rental.instance.as_ref()).map(|rented| &rented.id);
        if let Some(host) = id.and_then(|id| record.hosts.get(id)) {
            self.world.hosts.close(host).await;
        }
    }
}
