//! How a template is made, beside other work.

use std::fs;

use kmt_reporters::event::Event;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::start::said_since;
use super::template::{Template, domain_of, key};
use super::{Key, Wish};
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::{DirectBoot, Disk, DiskFormat, DomainSpec, DomainState};
use crate::image::LocalImage;
use crate::machine::seats::Seat;
use crate::machine::supply::Supply;
use crate::machine::{BootFailure, Guest, cmdline, identity};
use crate::settings::Warmth;
use crate::stack::MachineRecord;
use crate::stack::record::Owner;

/// What a guest says that waits to hear who it is.
const WAITING: &str = "kmt-warm: waiting";
/// What it says where it cannot hear.
const NO_PORT: &str = "kmt-warm: no port";

/// What becomes of a template that nobody had time to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbegun {
    /// Its guest is started, and the next command takes it up.
    Begin,
    /// The next one that needs it begins.
    Leave,
}

/// How a guest that is to be a template came along.
enum Came {
    Waits,
    /// Somebody else wants its room.
    GaveWay,
    Unfit(String),
}

/// By whom a guest was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Now,
    Earlier,
}

impl Supply<'_> {
    /// Does `work`, and beside it makes the templates that are wished for. What is not made by then is left to itself;
    /// where nothing is to stay, or the run was cancelled, it is taken away.
    pub async fn beside<T>(&self, work: impl Future<Output = T>, unbegun: Unbegun) -> T {
        if self.templates.warmth == Warmth::Off {
            return work.await;
        }
        let done = tokio::select! {
            done = work => done,
            () = self.make_templates() => unreachable!("there may always be another wish"),
        };
        let wishes: Vec<(Key, Wish)> =
            self.templates.wishes().iter().map(|(key, wish)| (key.clone(), wish.clone())).collect();
        for (key, wish) in wishes {
            let Ok(Some(_lock)) = self.templates.lock(&key) else { continue };
            if self.owner == Owner::ThrowAway || *self.cancelled.borrow() {
                self.abandon(&key).await;
            } else if unbegun == Unbegun::Begin
                && self.templates.wanted(&key)
                && self.seats.here.capacity.spare(wish.record.memory_mib).is_some()
            {
                // Only the next start would have been quicker.
                let _ = self.bring_up(&key, &wish).await;
            }
        }
        done
    }

    async fn make_templates(&self) {
        loop {
            sleep(self.world.deadlines.pulse).await;
            let wish = self.templates.wishes().iter().next().map(|(key, wish)| (key.clone(), wish.clone()));
            let Some((key, wish)) = wish else { continue };
            if !self.templates.wanted(&key) {
                self.templates.wishes().remove(&key);
                continue;
            }
            let Some(_spare) = self.seats.here.capacity.spare(wish.record.memory_mib) else { continue };
            let made = self.make_template(&key, &wish).await;
            // The wish stays while it is made: whoever ends meanwhile knows what to take away.
            self.templates.wishes().remove(&key);
            if let Err(failure) = made {
                let message = format!("no template for warm starts: {}", failure.one_line());
                self.sink.emit(Event::Warning { subject: wish.record.cell.to_string(), message });
            }
        }
    }

    async fn make_template(&self, key: &Key, wish: &Wish) -> Result<()> {
        let Some(_lock) = self.templates.lock(key)? else { return Ok(()) };
        let begun = Instant::now();
        let guest = self.bring_up(key, wish).await?;
        match self.comes_along(key, guest).await? {
            Came::Waits => self.finish(key, wish, begun).await,
            Came::GaveWay => {
                self.abandon(key).await;
                Ok(())
            }
            Came::Unfit(why) => {
                self.abandon(key).await;
                self.templates.publish(key, wish, &self.seats.here.facts.software, Some(&why))?;
                Err(Failure::new(Kind::Infrastructure, why))
            }
        }
    }

    /// Has the guest run that becomes the template; its lock is held.
    async fn bring_up(&self, key: &Key, wish: &Wish) -> Result<Begun> {
        let hypervisor = self.seats.here.hypervisor.as_ref();
        if hypervisor.state(&domain_of(key.as_str())).await? == Some(DomainState::Running) {
            return Ok(Begun::Earlier);
        }
        self.abandon(key).await;
        let spec = self.prepare(key, wish).await?;
        hypervisor.define(&spec).await?;
        hypervisor.start(&spec.name).await?;
        Ok(Begun::Now)
    }

    /// The files and the description of the domain that becomes a template.
    async fn prepare(&self, key: &Key, wish: &Wish) -> Result<DomainSpec> {
        let folder = self.templates.unfinished(key);
        crate::stack::create_private(&folder)?;
        let (record, image) = (&wish.record, &wish.image);
        let Some(boot) = &image.direct else {
            return Err(Failure::new(Kind::Infrastructure, "its disk boots by itself"));
        };
        let initrd =
            identity::initrd_of_nobody(&folder, &boot.initrd, super::seed_program(record.cell.arch))?;
        let direct = DirectBoot { kernel: boot.kernel.clone(), initrd, cmdline: cmdline(image, record) };
        let overlay = folder.join("root.qcow2");
        self.seats.here.hypervisor.create_overlay(&image.rootfs, &overlay).await?;
        let console = folder.join("console.log");
        fs::write(&console, b"").map_err(|error| Failure::file("write", &console, &error))?;
        let modules = image.modules.iter().cloned();
        let mut disks = vec![Disk { file: overlay, format: DiskFormat::Qcow2, serial: None }];
        disks.extend(modules.map(|file| Disk { file, format: DiskFormat::RawReadOnly, serial: None }));
        Ok(DomainSpec {
            name: domain_of(key.as_str()),
            uuid: Uuid::new_v4(),
            stack: Uuid::nil(),
            machine: format!("template-{}", record.cell.arch),
            arch: record.cell.arch,
            machine_type: record.extras.machine.clone(),
            acceleration: self.seats.here.facts.acceleration_of(record.cell.arch),
            vcpu: self.seats.here.facts.most_vcpu.map_or(record.vcpu, |most| record.vcpu.min(most)),
            memory_mib: record.memory_mib,
            direct: Some(direct),
            disks,
            console,
            ssh_port: 0,
            gdb: None,
            mac: "52:54:00:00:00:00".to_owned(),
            network: record.network,
            lan: None,
            identity: Some(folder.join("identity")),
        })
    }

    /// Waits until the guest waits.
    async fn comes_along(&self, key: &Key, guest: Begun) -> Result<Came> {
        let begun = Instant::now();
        let console = self.templates.unfinished(key).join("console.log");
        let limit = self.world.deadlines.template;
        loop {
            let said = said_since(&console, 0);
            if said.contains(WAITING) {
                return Ok(Came::Waits);
            }
            if said.contains(NO_PORT) {
                return Ok(Came::Unfit(
                    "its kernel has no port on which it could be told who it is".to_owned(),
                ));
            }
            if self.seats.here.capacity.is_waited_for() {
                return Ok(Came::GaveWay);
            }
            let state = self.seats.here.hypervisor.state(&domain_of(key.as_str())).await?;
            if state != Some(DomainState::Running) {
                return Ok(Came::Unfit("its guest ended while it booted".to_owned()));
            }
            if begun.elapsed() > limit && guest == Begun::Earlier {
                // What befell it nobody saw: it is begun anew.
                return Ok(Came::GaveWay);
            }
            if begun.elapsed() > limit {
                let message = format!("its guest does not wait within {} s", limit.as_secs());
                return Ok(Came::Unfit(message));
            }
            sleep(self.world.deadlines.pulse).await;
        }
    }

    /// Keeps the memory of a guest that waits.
    async fn finish(&self, key: &Key, wish: &Wish, begun: Instant) -> Result<()> {
        let (domain, hypervisor) = (domain_of(key.as_str()), self.seats.here.hypervisor.as_ref());
        let memory = self.templates.unfinished(key).join("memory");
        let kept = hypervisor.keep(&domain, &memory).await;
        let removed = hypervisor.remove(&domain).await;
        if let Err(error) = kept {
            self.abandon(key).await;
            return Err(error.into());
        }
        removed?;
        let bytes = fs::metadata(&memory).map_or(0, |found| found.len());
        self.templates.publish(key, wish, &self.seats.here.facts.software, None)?;
        self.sink.emit(Event::TemplateMade {
            template: key.as_str().to_owned(),
            cell: wish.record.cell.clone(),
            bytes,
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        Ok(())
    }

    /// Takes away what is made of a template; its lock is held.
    async fn abandon(&self, key: &Key) {
        let removed = self.seats.here.hypervisor.remove(&domain_of(key.as_str())).await;
        let folder = self.templates.unfinished(key);
        match removed {
            Ok(()) => drop(fs::remove_dir_all(folder)),
            Err(error) => {
                let message = format!("{}; `kmt-run stack gc` tries again", Failure::from(error).one_line());
                self.sink.emit(Event::Warning { subject: domain_of(key.as_str()), message });
            }
        }
    }

    /// A guest that waits since an earlier command becomes the template now.
    async fn take_up(&self, key: &Key, wish: &Wish) -> Result<()> {
        let console = self.templates.unfinished(key).join("console.log");
        if !said_since(&console, 0).contains(WAITING) {
            return Ok(());
        }
        let Some(_lock) = self.templates.lock(key)? else { return Ok(()) };
        let domain = domain_of(key.as_str());
        if self.seats.here.hypervisor.state(&domain).await? == Some(DomainState::Running) {
            self.finish(key, wish, Instant::now()).await?;
        }
        Ok(())
    }

    /// A machine from a template where that can be, else one that boots; an event says why.
    pub(in crate::machine) async fn begin(
        &self,
        seat: &Seat,
        record: &MachineRecord,
        image: &LocalImage,
    ) -> std::result::Result<Guest, BootFailure> {
        let parts = self.parts(seat);
        match self.templates.suits(record, image) {
            None => return parts.boot(record, image).await,
            Some(Err(why)) => {
                self.cold(record, why.to_owned(), true);
                return parts.boot(record, image).await;
            }
            Some(Ok(())) => {}
        }
        let key = key(record, &seat.facts);
        match self.template(&key, record, image).await {
            Err((why, ordinary)) => self.cold(record, why, ordinary),
            Ok(template) => match parts.start_warm(record, image, &template).await {
                Err(failure) if !failure.port_was_taken() => {
                    self.templates.discard(&template);
                    self.seats.here.hypervisor.remove(&self.stack.domain_name(&record.id)).await?;
                    self.cold(record, failure.message, false);
                }
                started => return started,
            },
        }
        let guest = parts.boot(record, image).await?;
        self.templates.wish(key, record, image);
        Ok(guest)
    }

    async fn template(
        &self,
        key: &Key,
        record: &MachineRecord,
        image: &LocalImage,
    ) -> std::result::Result<Template, (String, bool)> {
        if self.templates.wanted(key) {
            let wish = Wish { record: record.clone(), image: image.clone() };
            self.take_up(key, &wish).await.map_err(|failure| (failure.one_line(), false))?;
        }
        self.templates.find(key)
    }

    fn cold(&self, record: &MachineRecord, why: String, ordinary: bool) {
        let (machine, cell) = (record.id.clone(), record.cell.clone());
        self.sink.emit(Event::MachineCold { machine, cell, why, ordinary });
    }
}
