//! How a guest gets what was built: from here, or by way of the host that it is on.

use kmt_reporters::event::{Event, EventSink as _};
use tokio::time::Instant;

use super::{Conductor, millis};
use crate::artifact::{self, ArtifactSet, Coding, Link, ShipReport, Store, Through};
use crate::external;
use crate::external::remote::Login;
use crate::machine::supply::Held;
use crate::matrix::Cell;

impl Conductor<'_> {
    pub(super) async fn ship(
        &self,
        cell: &Cell,
        held: &Held,
        artifacts: &ArtifactSet,
        root: &str,
    ) -> external::Result<()> {
        let begun = Instant::now();
        let machine = held.record.id.clone();
        let connection = held.guest.connection.as_ref();
        let mut store = Store::below(&format!("{}/var/lib/kmt", connection.prefix()), root);
        store.link = Link::to(held.record.host.as_deref());
        store.untouched =
            held.guest.untouched.then_some(if held.guest.gzip { Coding::Gzip } else { Coding::Plain });
        let report = match self.ship_through(held, artifacts, &store).await {
            Some(shipped) => shipped?,
            None => artifact::ship(artifacts, connection, &store).await?,
        };
        self.record.emit(Event::ShipFinished {
            machine,
            cell: cell.id.clone(),
            bytes: report.bytes,
            files: report.files,
            duration_ms: millis(begun),
        });
        Ok(())
    }

    /// By way of the guest's host, where it is on another one. `None` where it goes from here: that way is open whatever
    /// the host lacks, and only longer.
    async fn ship_through(
        &self,
        held: &Held,
        artifacts: &ArtifactSet,
        store: &Store,
    ) -> Option<external::Result<ShipReport>> {
        let seat = self.supply.seats.of_machine(&held.record).ok()?;
        let depot = seat.hypervisor.depot()?;
        let stack = self.supply.stack;
        let known = stack.record().ok()?.machines.remove(&held.record.id)?;
        let (address, port) = known.ssh_at();
        let login = Login { address, port, host_key: known.host_key?, key: stack.login_key() };
        let through = Through { depot, login, scratch: self.record.folder().to_path_buf() };
        let connection = held.guest.connection.as_ref();
        match artifact::ship_through(artifacts, connection, store, &through).await {
            Ok(report) => {
                if let Some(uploaded) = report.uploaded.filter(|uploaded| uploaded.bytes > 0) {
                    self.record.emit(Event::ArtifactsUploaded {
                        host: seat.label().to_owned(),
                        bytes: uploaded.bytes,
                        duration_ms: u64::try_from(uploaded.took.as_millis()).unwrap_or(u64::MAX),
                    });
                }
                Some(Ok(report))
            }
            Err(error) if error.system == artifact::GUEST => Some(Err(error)),
            Err(error) => {
                let message = format!("files go to it from here and not from its host: {error}");
                self.record.emit(Event::Warning { subject: held.record.id.clone(), message });
                None
            }
        }
    }
}
