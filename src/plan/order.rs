//! Whose machine gets room first, where a host holds only some of them at once, so that all are done soon.
//!
//! Nobody knows the best order in reasonable time. Several good ones are played through, and the best of them is taken;
//! what fits beside those that come first need not wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// What a machine takes of its host, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub vcpu: u32,
    /// How long.
    pub takes: Duration,
}

/// What a host has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub vcpu: u32,
}

/// More machines than this are not played through: the longest goes first.
const MOST: usize = 300;
/// Orders that are tried besides the plain ones.
const VARIANTS: u32 = 100;

/// The numbers of `loads` in the order in which they should get room.
pub fn order(loads: &[Load], space: &Space) -> Vec<usize> {
    let seconds = |load: &Load| load.takes.as_secs_f64();
    let longest = by_weight(loads, |_, load| seconds(load));
    if loads.len() > MOST {
        return longest;
    }
    let memory = |load: &Load| load.memory_mib as f64;
    let mut orders = vec![longest];
    orders.push(by_weight(loads, |_, load| seconds(load) * memory(load)));
    orders.push(by_weight(loads, |_, load| seconds(load) * memory(load).sqrt()));
    orders.push(by_weight(loads, |_, load| memory(load)));
    let mut dice = Dice(0x2545_F491_4F6C_DD1D);
    for _ in 0..VARIANTS {
        let power = dice.throw() * 1.2;
        let noise: Vec<f64> = loads.iter().map(|_| 0.6 + dice.throw() * 0.8).collect();
        orders
            .push(by_weight(loads, |number, load| seconds(load) * memory(load).powf(power) * noise[number]));
    }
    orders.into_iter().min_by_key(|order| makespan(loads, order, space)).unwrap_or_default()
}

/// The heaviest first.
fn by_weight(loads: &[Load], weight: impl Fn(usize, &Load) -> f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..loads.len()).collect();
    order.sort_by(|a, b| weight(*b, &loads[*b]).total_cmp(&weight(*a, &loads[*a])));
    order
}

/// How long it takes until all are done, where each gets room as soon as it fits and nobody before it does.
fn makespan(loads: &[Load], order: &[usize], space: &Space) -> Duration {
    let (mut now, mut free) = (Duration::ZERO, *space);
    let mut waiting = order.to_vec();
    let mut working: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
    loop {
        waiting.retain(|number| {
            let load = &loads[*number];
            // A machine with more processors than the host gets all of them.
            let vcpu = load.vcpu.min(space.vcpu);
            let fits = load.memory_mib <= free.memory_mib && vcpu <= free.vcpu;
            if fits {
                free = Space { memory_mib: free.memory_mib - load.memory_mib, vcpu: free.vcpu - vcpu };
                working.push(Reverse((now + load.takes, *number)));
            }
            !fits
        });
        // What is left then is larger than the host.
        let Some(Reverse((end, number))) = working.pop() else { return now };
        now = end;
        free.memory_mib += loads[number].memory_mib;
        free.vcpu += loads[number].vcpu.min(space.vcpu);
    }
}

/// The same throws each time: a plan depends on nothing but what it is made of.
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn throw(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(memory_mib: u64, vcpu: u32, seconds: u64) -> Load {
        Load { memory_mib, vcpu, takes: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_longest_goes_first_and_large_ones_are_packed() {
        let space = Space { memory_mib: 2048, vcpu: 8 };
        assert_eq!(order(&[load(1024, 1, 1), load(1024, 1, 9), load(1024, 1, 5)], &space)[0], 1);
        // Two halves and four quarters: whoever begins with three quarters wastes one.
        let mixed =
            [load(512, 1, 10), load(512, 1, 10), load(1024, 1, 10), load(1024, 1, 10), load(1024, 1, 10)];
        assert_eq!(makespan(&mixed, &order(&mixed, &space), &space), Duration::from_secs(20));
        assert_eq!(order(&[], &space), Vec::<usize>::new());
        // What can never fit keeps nobody from an end.
        assert_eq!(order(&[load(4096, 1, 1), load(512, 99, 1)], &space).len(), 2);
    }
}
