//! Which remote cell goes to which host. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kmt_reporters::event::{Arch, CellId};

/// A cell that wants a host.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// The cell.
    pub cell: &'a CellId,
    /// Memory its machines take, MiB.
    pub memory_mib: u64,
    /// The host that a machine of it is on already.
    pub at: Option<&'a str>,
}

/// A host that can take some.
#[derive(Debug, Clone)]
pub struct Room<'a> {
    /// Its name.
    pub host: &'a str,
    /// Architecture of its guests.
    pub arch: Arch,
    /// Memory it has to give, MiB.
    pub memory_mib: u64,
}

/// Gives each cell a host of its architecture: the one its machine is on, else the one with most memory left, largest
/// cells first. More cells than a host has room for wait there.
///
/// # Returns
/// The host's name by cell; cells of an architecture that no host has are left out.
pub fn place<'a>(wishes: &[Wish<'a>], rooms: &[Room<'a>]) -> BTreeMap<CellId, &'a str> {
    let mut left: Vec<(Room<'a>, i128)> =
        rooms.iter().map(|room| (room.clone(), i128::from(room.memory_mib))).collect();
    let mut order: Vec<&Wish<'a>> = wishes.iter().collect();
    order.sort_by_key(|wish| (wish.at.is_none(), Reverse(wish.memory_mib)));
    let mut placed = BTreeMap::new();
    for wish in order {
        let fits = |room: &Room<'a>| room.arch == wish.cell.arch;
        let stays = left.iter().position(|(room, _)| fits(room) && Some(room.host) == wish.at);
        let best = || {
            let of_arch = left.iter().enumerate().filter(|(_, (room, _))| fits(room));
            of_arch.max_by_key(|(number, (_, free))| (*free, Reverse(*number))).map(|(number, _)| number)
        };
        let Some(number) = stays.or_else(best) else { continue };
        let (room, free) = &mut left[number];
        *free -= i128::from(wish.memory_mib);
        placed.insert(wish.cell.clone(), room.host);
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> CellId {
        text.parse().unwrap()
    }

    #[test]
    fn cells_spread_over_hosts_of_their_architecture_and_stay_where_they_are() {
        let cells: Vec<CellId> = [
            "debian_11/5.10/x86_64@remote",
            "debian_12/6.1/x86_64@remote",
            "debian_13/6.12/x86_64@remote",
            "debian_12/6.1/arm64@remote",
        ]
        .map(cell)
        .to_vec();
        let wish = |number: usize, memory_mib, at| Wish { cell: &cells[number], memory_mib, at };
        let room = |host, arch, memory_mib| Room { host, arch, memory_mib };
        let rooms = [room("big", Arch::X86_64, 8000), room("small", Arch::X86_64, 3000)];
        let wishes = [wish(0, 4000, None), wish(1, 2000, None), wish(2, 2500, None), wish(3, 1, None)];
        let placed = place(&wishes, &rooms);
        // 4000 to big (4000 left), 2500 to big (1500 left), 2000 to small.
        assert_eq!(placed.get(&cells[0]), Some(&"big"));
        assert_eq!(placed.get(&cells[2]), Some(&"big"));
        assert_eq!(placed.get(&cells[1]), Some(&"small"));
        assert_eq!(placed.get(&cells[3]), None, "no host has its architecture");
        let wishes = [wish(0, 4000, Some("small")), wish(1, 2000, Some("gone"))];
        let placed = place(&wishes, &rooms);
        assert_eq!(placed.get(&cells[0]), Some(&"small"), "its machine is there");
        assert_eq!(placed.get(&cells[1]), Some(&"big"), "its host is no more");
    }
}
