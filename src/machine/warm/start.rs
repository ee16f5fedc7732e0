//! The start of a machine from a template.

use std::fs;

use kmt_reporters::event::{BootPhase, Event};
use tokio::time::{Instant, sleep, timeout};

use super::template::Template;
use crate::error::{Failure, Kind, Result};
use crate::external::hypervisor::DomainState;
use crate::image::LocalImage;
use crate::machine::{BootFailure, Guest, Parts, TICK, identity};
use crate::stack::MachineRecord;

/// What a guest says once it is who it was told to be.
const MINE: &str = "kmt-warm: mine";
/// What it says where the script it was told came to no good end.
const LOST: &str = "kmt-warm: lost";
/// How many times a guest's console is looked at before the hypervisor is asked whether QEMU still runs.
const STATE_EVERY: u32 = 10;

impl Parts<'_> {
    /// Makes the machine of `record`, which is written down and leased, from a template.
    ///
    /// # Errors
    /// How far it got. What exists of it then is for the caller to remove.
    pub(in crate::machine) async fn start_warm(
        &self,
        record: &MachineRecord,
        image: &LocalImage,
        template: &Template,
    ) -> std::result::Result<Guest, BootFailure> {
        let begun = Instant::now();
        let (spec, identity) = self.make(record, image, Some(template)).await?;
        copy(template, &spec.console)?;
        let said = fs::metadata(&spec.console).map_or(0, |found| found.len());
        self.hypervisor
            .revive(&spec, &template.memory())
            .await
            .map_err(|error| BootFailure::at(BootPhase::Defined, error.into()))?;
        self.hypervisor.tell(&spec, &identity::script(&identity, record)?).await?;
        self.is_mine(&spec.name, &spec.console, said).await?;
        self.sink.emit(Event::MachineDefined { machine: record.id.clone(), cell: record.cell.clone() });
        for phase in [BootPhase::Defined, BootPhase::Powered, BootPhase::Network] {
            self.reached(&record.id, phase);
        }
        let connection = self.answers(record).await?;
        self.reached(&record.id, BootPhase::Sshd);
        // What one machine of a template says of itself, all would: the first is asked.
        let known = template.facts();
        let facts = match &known {
            Some(facts) => facts.clone(),
            None => self.facts(connection.as_ref()).await?,
        };
        let (guest, event) = self.is_ready(record, connection, begun, &facts)?;
        if known.is_none() {
            template.learn(&facts);
        }
        self.reached(&record.id, BootPhase::Ready);
        let (machine, template) = (record.id.clone(), template.name.clone());
        self.sink.emit(Event::MachineWarm { machine, template });
        self.sink.emit(event);
        Ok(guest)
    }

    /// Waits until the guest says that it has become who it is.
    async fn is_mine(
        &self,
        domain: &str,
        console: &std::path::Path,
        said: u64,
    ) -> std::result::Result<(), BootFailure> {
        let failed = |message: String| {
            BootFailure::at(BootPhase::Powered, Failure::new(Kind::Infrastructure, message))
        };
        let becomes = async {
            for tick in 1u32.. {
                let words = said_since(console, said);
                if words.contains(MINE) {
                    break;
                }
                if words.contains(LOST) {
                    return Err(failed("its guest could not take its identity".to_owned()));
                }
                if tick % STATE_EVERY == 0
                    && self.hypervisor.state(domain).await? != Some(DomainState::Running)
                {
                    return Err(failed("QEMU ended before its guest took its identity".to_owned()));
                }
                sleep(TICK).await;
            }
            Ok(())
        };
        let seconds = self.deadlines.warm.as_secs();
        let late = || failed(format!("its guest does not take its identity within {seconds} s"));
        timeout(self.deadlines.warm, becomes).await.map_err(|_| late())?
    }
}

/// A machine's console begins with what its kernel said before it was this machine's.
fn copy(template: &Template, console: &std::path::Path) -> Result<()> {
    let said = fs::read(template.console()).unwrap_or_default();
    fs::write(console, said).map_err(|error| Failure::file("write", console, &error))
}

/// What a console says from that byte on.
pub(super) fn said_since(console: &std::path::Path, from: u64) -> String {
    let text = fs::read(console).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
    String::from_utf8_lossy(&text[from..]).into_owned()
}
