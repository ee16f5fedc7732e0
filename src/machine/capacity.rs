//! Room on a host: memory for machines that exist, processors for machines that work.
//!
//! Machines outlive their work, so memory comes back only when a machine is removed: idle ones of the run
//! go first when room is short. Room is given by turns, so that the end is not one long machine on an empty host; what
//! fits beside those before it need not wait. Processors are lent for a boot or a package; two virtual ones may share a
//! real one, since guests mostly wait.

use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::plan::Space;

/// Memory that stays with the host, MiB.
pub const HOST_KEEPS_MIB: u64 = 512;
/// What QEMU needs besides the guest's memory, MiB.
const OVERHEAD_MIB: u64 = 96;
/// Virtual processors that share a real one.
const VCPU_PER_CORE: u32 = 2;

/// Room on one host.
#[derive(Debug)]
pub struct Capacity {
    memory: Mutex<Memory>,
    changed: Notify,
    cores: u32,
    busy: Semaphore,
}

#[derive(Debug)]
struct Memory {
    free_mib: u64,
    total_mib: u64,
    /// Machines that exist and serve nobody now, oldest first.
    idle: Vec<(String, u64)>,
    /// Leases given out that may become idle or be given back.
    working: u32,
    /// Those that wait.
    waiting: Vec<Wish>,
    /// How many have come so far.
    came: u64,
}

/// Somebody who wants memory.
#[derive(Debug, Clone, Copy)]
struct Wish {
    number: u64,
    cost_mib: u64,
    turn: u32,
}

impl Wish {
    /// What comes first is smallest: whose turn it is, the largest, whoever came first.
    fn rank(&self) -> (u32, Reverse<u64>, u64) {
        (self.turn, Reverse(self.cost_mib), self.number)
    }
}

impl Memory {
    /// What there is for `wish`; `None` where it has to wait.
    fn answer(&mut self, wish: &Wish) -> Option<Result<Room, (u64, u64)>> {
        let wanted = wish.cost_mib;
        if self.free_mib >= wanted {
            let fits_before = |other: &Wish| other.rank() < wish.rank() && other.cost_mib <= self.free_mib;
            if self.waiting.iter().any(fits_before) {
                return None;
            }
            self.free_mib -= wanted;
            self.working += 1;
            return Some(Ok(Room::Granted));
        }
        if wanted > self.total_mib {
            return Some(Err((wanted, self.total_mib)));
        }
        if !self.idle.is_empty() {
            return Some(Ok(Room::Evict(self.idle.remove(0).0)));
        }
        (self.working == 0).then_some(Err((wanted, self.free_mib)))
    }
}

/// A place among those that wait; given up when dropped.
struct Place<'a> {
    capacity: &'a Capacity,
    wish: Wish,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.capacity.with(|memory| memory.waiting.retain(|wish| wish.number != self.wish.number));
        self.capacity.changed.notify_waiters();
    }
}

/// Memory that nobody else wants now; given back when dropped.
#[derive(Debug)]
pub struct Spare<'a> {
    capacity: &'a Capacity,
    memory_mib: u32,
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        self.capacity.gone(self.memory_mib);
    }
}

/// What to do to get room.
#[derive(Debug, PartialEq, Eq)]
pub enum Room {
    /// It is yours.
    Granted,
    /// Remove this idle machine, then say so by [`Capacity::removed`] and ask again.
    Evict(String),
}

impl Capacity {
    /// A host with so many processors and so much free memory.
    pub fn new(cores: u32, free_mib: u64) -> Capacity {
        let free_mib = free_mib.saturating_sub(HOST_KEEPS_MIB);
        Capacity {
            memory: Mutex::new(Memory {
                free_mib,
                total_mib: free_mib,
                idle: Vec::new(),
                working: 0,
                waiting: Vec::new(),
                came: 0,
            }),
            changed: Notify::new(),
            cores: cores.max(1),
            busy: Semaphore::new((cores.max(1) * VCPU_PER_CORE) as usize),
        }
    }

    /// All that there is to give.
    pub fn space(&self) -> Space {
        let memory_mib = self.with(|memory| memory.total_mib);
        Space { memory_mib, vcpu: self.cores * VCPU_PER_CORE }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a machine that exists and is idle: it may be evicted.
    pub fn add_idle(&self, machine: &str, memory_mib: u32) {
        self.with(|memory| {
            memory.total_mib += cost(memory_mib);
            memory.idle.push((machine.to_owned(), cost(memory_mib)));
        });
    }

    /// Takes an idle machine out of eviction's reach, because it works again. False where it was evicted.
    pub fn take_idle(&self, machine: &str) -> bool {
        self.with(|memory| {
            let before = memory.idle.len();
            memory.idle.retain(|(id, _)| id != machine);
            let taken = memory.idle.len() < before;
            memory.working += u32::from(taken);
            taken
        })
    }

    /// A host that gives memory to whoever asks, more than it has.
    pub fn oversubscribed(cores: u32) -> Capacity {
        Capacity::new(cores, u64::MAX / 2)
    }

    /// A machine that has its memory already and is nobody's to evict works again.
    pub fn works(&self) {
        self.with(|memory| memory.working += 1);
    }

    fn queue(&self, memory_mib: u32, turn: u32) -> Place<'_> {
        let wish = self.with(|memory| {
            memory.came += 1;
            let wish = Wish { number: memory.came, cost_mib: cost(memory_mib), turn };
            memory.waiting.push(wish);
            wish
        });
        Place { capacity: self, wish }
    }

    /// Waits until there is memory for a machine, or names an idle one to remove. Those with a lower `turn` come first
    /// where both fit.
    ///
    /// # Errors
    /// The machine is larger than the host will ever have: MiB wanted and MiB there.
    pub async fn room(&self, memory_mib: u32, turn: u32) -> Result<Room, (u64, u64)> {
        let place = self.queue(memory_mib, turn);
        loop {
            let changed = self.changed.notified();
            match self.with(|memory| memory.answer(&place.wish)) {
                Some(answer) => return answer,
                None => changed.await,
            }
        }
    }

    /// Memory for something that can be done without: there is some, nobody waits for it, and a processor has nothing to
    /// do.
    pub fn spare(&self, memory_mib: u32) -> Option<Spare<'_>> {
        if self.busy.available_permits() < VCPU_PER_CORE as usize {
            return None;
        }
        let taken = self.with(|memory| {
            let there = memory.waiting.is_empty() && memory.free_mib >= cost(memory_mib);
            if there {
                memory.free_mib -= cost(memory_mib);
                memory.working += 1;
            }
            there
        });
        taken.then_some(Spare { capacity: self, memory_mib })
    }

    /// Whether somebody waits for memory.
    pub fn is_waited_for(&self) -> bool {
        self.with(|memory| !memory.waiting.is_empty())
    }

    /// An idle machine was removed after [`Room::Evict`].
    pub fn removed(&self, memory_mib: u32) {
        self.with(|memory| memory.free_mib += cost(memory_mib));
        self.changed.notify_waiters();
    }

    /// A working machine has nothing to do any more and stays.
    pub fn now_idle(&self, machine: &str, memory_mib: u32) {
        self.with(|memory| {
            memory.working = memory.working.saturating_sub(1);
            memory.idle.push((machine.to_owned(), cost(memory_mib)));
        });
        self.changed.notify_waiters();
    }

    /// A working machine is gone.
    pub fn gone(&self, memory_mib: u32) {
        self.with(|memory| {
            memory.working = memory.working.saturating_sub(1);
            memory.free_mib += cost(memory_mib);
        });
        self.changed.notify_waiters();
    }

    /// A working machine is nobody's any more, and may still take its memory.
    pub fn given_up(&self) {
        self.with(|memory| memory.working = memory.working.saturating_sub(1));
        self.changed.notify_waiters();
    }

    /// Lends processors for a boot or a package; a machine larger than the host gets all of them.
    pub async fn processors(&self, vcpu: u32) -> Option<SemaphorePermit<'_>> {
        self.busy.acquire_many(vcpu.clamp(1, self.cores * VCPU_PER_CORE)).await.ok()
    }
}

/// What a machine of that memory takes of the host, MiB.
pub fn cost(memory_mib: u32) -> u64 {
    u64::from(memory_mib) + OVERHEAD_MIB
}

#[cfg(test)]
#[path = "capacity_tests.rs"]
mod tests;
