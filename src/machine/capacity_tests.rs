use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::*;
use crate::plan::{self, Load};

#[tokio::test]
async fn memory_is_granted_then_evicted_then_waited_for() {
    let host = Capacity::new(2, HOST_KEEPS_MIB + 2 * (1024 + OVERHEAD_MIB));
    assert_eq!(host.room(1024, 0).await, Ok(Room::Granted));
    assert_eq!(host.room(1024, 0).await, Ok(Room::Granted));
    host.now_idle("a", 1024);
    assert_eq!(host.room(1024, 0).await, Ok(Room::Evict("a".to_owned())));
    host.removed(1024);
    assert_eq!(host.room(1024, 0).await, Ok(Room::Granted));
    let waiting = host.room(1024, 0);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
    host.gone(1024);
    assert_eq!(waiting.await, Ok(Room::Granted));
}

#[tokio::test]
async fn what_can_never_fit_is_said_at_once() {
    let host = Capacity::new(2, 1000);
    assert!(host.room(4096, 0).await.is_err());
}

/// Lets everything go on that can.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_has_the_turn_goes_first_and_what_fits_beside_it_does_not_wait() {
    let host = Capacity::new(2, HOST_KEEPS_MIB + 2 * (1024 + OVERHEAD_MIB));
    assert_eq!(host.room(1024, 0).await, Ok(Room::Granted));
    let order = Mutex::new(Vec::new());
    let wait = async |name: &'static str, memory_mib, turn| {
        assert_eq!(host.room(memory_mib, turn).await, Ok(Room::Granted));
        order.lock().unwrap().push(name);
    };
    let release = async {
        settle().await;
        assert_eq!(*order.lock().unwrap(), ["small"], "it fits beside");
        host.gone(1024);
        settle().await;
        assert_eq!(*order.lock().unwrap(), ["small", "first"]);
        host.gone(1500);
    };
    let all = [wait("second", 1500, 2), wait("first", 1500, 1), wait("small", 512, 2)];
    tokio::join!(join_all(all), release);
    assert_eq!(*order.lock().unwrap(), ["small", "first", "second"]);
}

/// A clock that stands still while anything can go on.
#[derive(Default)]
struct Clock {
    now: AtomicU64,
    sleepers: Mutex<BTreeMap<(u64, usize), oneshot::Sender<()>>>,
}

impl Clock {
    async fn sleep(&self, number: usize, seconds: u64) {
        let (wake, woken) = oneshot::channel();
        let at = self.now.load(Ordering::Relaxed) + seconds;
        self.sleepers.lock().unwrap().insert((at, number), wake);
        woken.await.unwrap();
    }

    /// Wakes one after another until none is left.
    async fn run(&self) {
        loop {
            settle().await;
            let Some(((at, _), wake)) = self.sleepers.lock().unwrap().pop_first() else { return };
            self.now.store(at, Ordering::Relaxed);
            wake.send(()).unwrap();
        }
    }
}

/// What a machine of those below needs: memory, processors, seconds.
type Needs = (u32, u32, u64);

/// Lets machines come and go as the lanes of a run do, and gives makespan and bound, in seconds.
async fn play(cores: u32, memory_mib: u64, loads: &[Needs]) -> (f64, f64) {
    let host = Capacity::new(cores, memory_mib + HOST_KEEPS_MIB);
    let (taken, lent) = (AtomicU64::new(0), AtomicU64::new(0));
    let clock = Clock::default();
    let machine = async |turn: u32, number: usize| {
        let (memory, vcpu, seconds) = loads[number];
        let name = number.to_string();
        let sizes = |name: &str| loads[name.parse::<usize>().unwrap()].0;
        loop {
            match host.room(memory, turn).await.unwrap() {
                Room::Granted => break,
                Room::Evict(idle) => {
                    taken.fetch_sub(cost(sizes(&idle)), Ordering::Relaxed);
                    host.removed(sizes(&idle));
                }
            }
        }
        let now = taken.fetch_add(cost(memory), Ordering::Relaxed) + cost(memory);
        assert!(now <= memory_mib, "{now} of {memory_mib} MiB are taken");
        let _processors = host.processors(vcpu).await;
        let now = lent.fetch_add(u64::from(vcpu), Ordering::Relaxed) + u64::from(vcpu);
        assert!(now <= u64::from(cores * VCPU_PER_CORE), "{now} processors are lent");
        clock.sleep(number, seconds).await;
        lent.fetch_sub(u64::from(vcpu), Ordering::Relaxed);
        host.now_idle(&name, memory);
    };
    let takes = |seconds| Duration::from_secs(seconds);
    let all: Vec<Load> = loads
        .iter()
        .map(|(memory, vcpu, seconds)| Load {
            memory_mib: cost(*memory),
            vcpu: *vcpu,
            takes: takes(*seconds),
        })
        .collect();
    let order = plan::order(&all, &host.space());
    let all = join_all((0..).zip(order).map(|(turn, number)| machine(turn, number)));
    tokio::join!(all, clock.run());
    let sum = |of: &dyn Fn(&Needs) -> u64| loads.iter().map(|load| of(load) * load.2).sum::<u64>() as f64;
    let by_memory = sum(&|load| cost(load.0)) / memory_mib as f64;
    let by_processors = sum(&|load| u64::from(load.1)) / f64::from(cores * VCPU_PER_CORE);
    let longest = loads.iter().map(|load| load.2).max().unwrap_or(0) as f64;
    (clock.now.load(Ordering::Relaxed) as f64, by_memory.max(by_processors).max(longest))
}

/// Fifty machines of mixed size on a host that holds some of them at once.
#[tokio::test]
async fn fifty_machines_take_hardly_longer_than_they_must() {
    let mut seed = 7_u64;
    let mut dice = |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    for host_mib in [10, 12, 16].map(|gib| gib * 1024) {
        for mix in 0..4 {
            let mut one =
                || ([512, 1024, 1536, 2048, 3072][dice(5) as usize], 1 + dice(2) as u32, 60 + dice(540));
            let loads: Vec<Needs> = (0..50).map(|_| one()).collect();
            let (makespan, bound) = play(12, host_mib, &loads).await;
            assert!(makespan <= 1.1 * bound, "mix {mix}, {host_mib} MiB: {makespan} s, {bound} s would do");
        }
    }
}

#[test]
fn what_can_be_done_without_takes_only_what_nobody_wants() {
    let capacity = Capacity::new(2, HOST_KEEPS_MIB + 3 * cost(1024));
    let first = capacity.spare(1024).unwrap();
    let second = capacity.spare(1024).unwrap();
    drop(second);
    assert!(capacity.spare(4096).is_none(), "more than there is");
    assert!(!capacity.is_waited_for());
    drop(first);
    assert!(capacity.spare(2048).is_some(), "it was given back");
    // Both processors have work.
    let busy = capacity.busy.try_acquire_many(3).unwrap();
    assert!(capacity.spare(1024).is_none());
    drop(busy);
    assert!(capacity.spare(1024).is_some());
}
