//! In which order cells get room, on each host by itself.

use std::time::Duration;

use super::{Conductor, UNKNOWN};
use crate::image::ImageRequest;
use crate::machine::capacity;
use crate::machine::seats::Seat;
use crate::matrix::Cell;
use crate::plan::{self, Load};

impl Conductor<'_> {
    /// The cells with their turns, in the order in which they get room: each host has an order of its own.
    pub(super) fn turns<'c>(
        &self,
        cells: &'c [(Cell, ImageRequest)],
    ) -> Vec<(u32, &'c (Cell, ImageRequest))> {
        let seats = &self.supply.seats;
        let of = |name: Option<&str>| -> Vec<&'c (Cell, ImageRequest)> {
            let there = |cell: &Cell| seats.of_cell(&cell.id).is_ok_and(|seat| seat.name() == name);
            cells.iter().filter(|(cell, _)| there(cell)).collect()
        };
        let hosts = std::iter::once(&seats.here).chain(&seats.others);
        let mut turns: Vec<_> =
            hosts.flat_map(|seat| (0..).zip(self.turns_on(seat, &of(seat.name())))).collect();
        // What no host takes says so at once.
        let homeless = cells.iter().filter(|(cell, _)| seats.of_cell(&cell.id).is_err());
        turns.extend(homeless.map(|cell| (0, cell)));
        turns
    }

    fn turns_on<'c>(&self, seat: &Seat, cells: &[&'c (Cell, ImageRequest)]) -> Vec<&'c (Cell, ImageRequest)> {
        let known: Vec<Option<Duration>> = cells.iter().map(|(cell, _)| self.expected(cell)).collect();
        // What nobody has timed may take long.
        let longest = known.iter().flatten().max().copied().unwrap_or(UNKNOWN);
        let loads = cells.iter().zip(&known).map(|((cell, _), takes)| Load {
            memory_mib: capacity::cost(cell.memory_mib),
            vcpu: cell.vcpu,
            takes: takes.unwrap_or(longest),
        });
        let order = plan::order(&loads.collect::<Vec<_>>(), &seat.capacity.space());
        order.into_iter().map(|number| cells[number]).collect()
    }
}
