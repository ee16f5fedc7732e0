//! The steps of a launch, carried out: removals first, then all that comes up, at once.

use futures_util::future::join_all;
use kmt_reporters::event::Event;

use super::supply::Supply;
use crate::error::{Failure, Result};
use crate::image::{ImageRequest, SharedImages};
use crate::matrix::Cell;
use crate::stack::reconcile::{Seen, Step};
use crate::stack::record::Owner;
use crate::stack::{MachineRecord, remove_machine};

/// What should be, and what gives it.
pub struct Asked<'a> {
    /// Gives machines.
    pub supply: &'a Supply<'a>,
    /// Images, each made once.
    pub images: &'a SharedImages<'a>,
    /// The machines that are asked for.
    pub cells: &'a [(Cell, ImageRequest)],
}

/// Carries out the steps from what was `seen`.
///
/// # Returns
/// How many of the machines that are asked for are up.
///
/// # Errors
/// The stack cannot be read or written, or a machine cannot be removed. What one machine cannot do is a fact.
pub async fn converge(asked: &Asked<'_>, steps: &[Step], seen: &[Seen]) -> Result<usize> {
    let stack = asked.supply.stack;
    for step in steps {
        match step {
            Step::Remove(id) => match stack.lease(id)? {
                Some(lease) => {
                    let up = seen.iter().find(|machine| machine.record.id == *id && machine.is_up());
                    remove_machine(stack, id, &asked.supply.world.hosts, lease).await?;
                    if let Some(machine) = up
                        && let Ok(seat) = asked.supply.seats.of_machine(&machine.record)
                    {
                        seat.capacity.removed(machine.record.memory_mib);
                    }
                }
                None => asked.warn(id, "it is in use by another kmt-run; the next launch removes it"),
            },
            Step::Adopt(id) => {
                // Nobody may evict it for another one any more.
                let record = seen.iter().find(|machine| machine.record.id == *id).map(|seen| &seen.record);
                if let Some(seat) = record.and_then(|record| asked.supply.seats.of_machine(record).ok())
                    && seat.capacity.take_idle(id)
                {
                    seat.capacity.given_up();
                }
                stack.change(|record| {
                    record.machines.entry(id.clone()).and_modify(|m| m.owner = Owner::Configured);
                })?;
            }
            Step::Wake(_) | Step::Make(_) => {}
        }
    }
    let work = asked.cells.iter().map(|(cell, image)| asked.bring_up(cell, image, steps));
    let mut up = 0;
    for done in join_all(work).await {
        up += usize::from(done?);
    }
    Ok(up)
}

impl Asked<'_> {
    fn warn(&self, machine: &str, message: &str) {
        self.supply.sink.emit(Event::Warning { subject: machine.to_owned(), message: message.to_owned() });
    }

    fn failed(&self, cell: &Cell, stage: &str, failure: &Failure) {
        let (stage, message) = (stage.to_owned(), failure.one_line());
        self.supply.sink.emit(Event::CellFailed { cell: cell.id.clone(), stage, message });
    }

    /// Whether the machine of a cell is up in the end.
    async fn bring_up(&self, cell: &Cell, request: &ImageRequest, steps: &[Step]) -> Result<bool> {
        let supply = self.supply;
        if steps.contains(&Step::Make(cell.id.clone())) {
            let mut cancelled = supply.cancelled.clone();
            let image = tokio::select! {
                image = self.images.get(request, supply.sink) => image,
                _ = cancelled.wait_for(|stop| *stop) => return Ok(false),
            };
            let image = match image {
                Ok(image) => image,
                Err(failure) => {
                    self.failed(cell, "image", &failure);
                    return Ok(false);
                }
            };
            return Ok(supply.machine(cell, &image, 0).await?.is_some());
        }
        let configured = |m: &MachineRecord| m.cell == cell.id && m.owner == Owner::Configured;
        let Some(record) = supply.stack.record()?.machines.into_values().find(configured) else {
            self.failed(cell, "host", &Failure::usage("its machine is gone").hint("kmt-run stack launch"));
            return Ok(false);
        };
        let Some(lease) = supply.stack.lease(&record.id)? else {
            // Whoever uses it found it up.
            return Ok(true);
        };
        if steps.contains(&Step::Wake(record.id.clone())) {
            return Ok(supply.wake(record, lease).await?.is_some());
        }
        let up = supply.answers(&record).await;
        if !up {
            let reset = format!("kmt-run stack reset {}", record.id);
            self.failed(cell, "host", &Failure::usage("it runs and does not answer").hint(reset));
        }
        Ok(up)
    }
}
