//! A machine that is there comes up again, with all that was in it.

use std::sync::Arc;
use std::time::Duration;

use kmt_reporters::event::{BootPhase, Event};
use tokio::time::{Instant, sleep, timeout};

use super::console::ConsoleTap;
use super::{BootFailure, Guest, Parts, TICK};
use crate::error::{Failure, Kind};
use crate::external::Class;
use crate::external::hypervisor::DomainState;
use crate::external::transport::Connection;
use crate::stack::MachineRecord;

/// How often a guest that goes on is asked whether it answers.
const ASK_EVERY: Duration = Duration::from_millis(200);

type Result<T> = std::result::Result<T, BootFailure>;

impl Parts<'_> {
    /// Brings up a machine that is there: what was saved goes on where it was, what is off boots from its own disk.
    ///
    /// # Errors
    /// How far it got, and its last words. It stays as it is then.
    pub async fn wake(&self, record: &MachineRecord) -> Result<Guest> {
        let begun = Instant::now();
        let domain = self.stack.domain_name(&record.id);
        let state = self.settled(&domain).await?;
        self.hypervisor.follow(&domain, &self.console(&record.id)).await?;
        let connection = match state {
            Some(DomainState::Off) => {
                return self.rise(record, ConsoleTap::from_end(&self.console(&record.id)), begun).await;
            }
            Some(DomainState::Saved) => {
                self.start(&domain).await?;
                self.answers(record).await?
            }
            Some(DomainState::Running | DomainState::Paused) => self.answers(record).await?,
            None => return Err(Failure::new(Kind::Infrastructure, "its domain is gone").into()),
        };
        if record.rest.is_some() {
            set_clock(connection.as_ref()).await?;
        }
        let (guest, event) = self.ready(record, connection, begun).await?;
        self.sink.emit(Event::MachineReused { machine: record.id.clone(), cell: record.cell.clone() });
        self.sink.emit(event);
        Ok(guest)
    }

    /// The state of a domain, once its memory is not being written any more, as it still is where a pause was killed.
    async fn settled(&self, domain: &str) -> Result<Option<DomainState>> {
        let begun = Instant::now();
        loop {
            let state = self.hypervisor.state(domain).await?;
            if state != Some(DomainState::Paused) || begun.elapsed() > self.deadlines.ready {
                return Ok(state);
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// A connection to a guest that should be up.
    pub(super) async fn answers(&self, record: &MachineRecord) -> Result<Arc<dyn Connection>> {
        let route = self.route(record);
        let connected = timeout(self.deadlines.ready, async {
            loop {
                // Asking a machine of this host for its greeting costs next to nothing, a client that is refused some.
                while route.behind.is_none() && self.transport.greeting(&route).await.is_err() {
                    sleep(TICK).await;
                }
                match self.transport.connect(&route).await {
                    Err(error) if error.class == Class::Unreachable => sleep(ASK_EVERY).await,
                    done => return done,
                }
            }
        });
        let silent = || {
            let message = format!("it does not answer within {} s", self.deadlines.ready.as_secs());
            BootFailure { phase: Some(BootPhase::Sshd), message, excerpt: Vec::new(), idle: None }
        };
        Ok(connected.await.map_err(|_| silent())??)
    }
}

/// Sets a guest's clock, which stood still while it was saved.
async fn set_clock(connection: &dyn Connection) -> Result<()> {
    let now = chrono::Utc::now();
    let now = format!("@{}.{:06}", now.timestamp(), now.timestamp_subsec_micros());
    let set = connection.run(&["date", "-u", "-s", &now], Vec::new()).await?;
    if set.ok() {
        return Ok(());
    }
    let failure = Failure::new(Kind::Infrastructure, "its clock cannot be set");
    Err(failure.caused_by(String::from_utf8_lossy(&set.stderr)).into())
}
