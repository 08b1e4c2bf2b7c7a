//! Which meter a thread uses: a worker that of its CPU, any other thread one of a table.
//!
//! The global allocator asks here at each call, so nothing here allocates, waits or panics, and it works from a thread's first
//! moment to its last: the thread-local is a constant at first and needs no destructor. So nobody learns that a thread ends, and the
//! table knows threads by the address of their thread-local. If a new thread has the address of one that has ended, it goes on with
//! that thread's meter.

use super::count::MemoryCount;
use super::meter::Meter;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A thread's meter, found in an epoch of counting. It may be another one in the next epoch.
#[derive(Clone, Copy)]
struct Place {
    epoch: u64,
    meter: Option<&'static Meter>,
}

const NOWHERE: Place = Place { epoch: 0, meter: None };

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(NOWHERE) };
}

/// The meters of threads that are no workers.
struct Table {
    /// INVARIANT: a slot that has an owner keeps it.
    slots: [Slot; SLOTS],
    /// For threads that find no slot.
    beyond: [Meter; SHARED],
}

struct Slot {
    /// The address of the owner's thread-local, or 0 if the slot was never used.
    owner: AtomicUsize,
    meter: Meter,
}

/// The number of threads, in all, that get a meter of their own without being workers.
const SLOTS: usize = 1024;
/// How many slots a thread tries.
const PROBES: usize = 16;
/// The number of meters for the threads beyond.
const SHARED: usize = 16;

static TABLE: Table = Table::new();

/// Whether a thread has ever asked for its meter.
static ASKED: AtomicBool = AtomicBool::new(false);

/// The thread's meter. `of_worker` finds it for a thread that runs tasks.
#[inline(always)]
pub(super) fn meter(epoch: u64, of_worker: fn() -> Option<&'static Meter>) -> &'static Meter {
    match PLACE.get() {
        Place { meter: Some(meter), epoch: since } if since == epoch => meter,
        _ => find(epoch, of_worker),
    }
}

#[cold]
#[inline(never)]
fn find(epoch: u64, of_worker: fn() -> Option<&'static Meter>) -> &'static Meter {
    // Relaxed: who looks for it has made this call on its own thread.
    ASKED.store(true, Ordering::Relaxed);
    let meter = of_worker().unwrap_or_else(of_other);
    PLACE.set(Place { epoch, meter: Some(meter) });
    meter
}

/// Whether any thread has asked for its meter, so whether the program has the allocator that asks.
pub(super) fn is_asked_for() -> bool {
    // Relaxed: see `find`.
    ASKED.load(Ordering::Relaxed)
}

/// Makes this the meter of the calling thread, in this epoch.
#[inline(always)]
pub(super) fn move_to(meter: &'static Meter, epoch: u64) {
    PLACE.set(Place { epoch, meter: Some(meter) });
}

/// Takes the calling thread's meter away. Its next call finds one.
pub(super) fn leave() {
    PLACE.set(NOWHERE);
}

/// The meter of a thread that is no worker.
fn of_other() -> &'static Meter {
    // No two threads that live at the same time have the same address.
    TABLE.of(PLACE.with(|place| ptr::from_ref(place).addr()))
}

/// What all threads have counted that were no workers.
pub(super) fn of_all_others() -> MemoryCount {
    TABLE.read()
}

impl Table {
    const fn new() -> Self {
        Self {
            slots: [const { Slot { owner: AtomicUsize::new(0), meter: Meter::new() } }; SLOTS],
            beyond: [const { Meter::shared() }; SHARED],
        }
    }

    /// The meter of an owner, who gets a slot if there is one.
    fn of(&self, owner: usize) -> &Meter {
        let hash = ((owner as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
        for probe in 0..PROBES {
            let slot = &self.slots[(hash + probe) % SLOTS];
            // Relaxed: only the owner looks for its address, and the meter of a slot that nobody had before is zero.
            match slot.owner.compare_exchange(0, owner, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return &slot.meter,
                Err(found) if found == owner => return &slot.meter,
                Err(_) => {}
            }
        }
        &self.beyond[hash % SHARED]
    }

    fn read(&self) -> MemoryCount {
        let meters = self.slots.iter().map(|slot| &slot.meter).chain(&self.beyond);
        meters.map(Meter::read).fold(MemoryCount::default(), MemoryCount::plus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_thread_keeps_its_meter_and_nobody_else_has_it() {
        let nobody = || None;
        let mine = meter(u64::MAX, nobody);
        assert!(ptr::eq(mine, meter(u64::MAX, nobody)) && ptr::eq(mine, of_other()));
        let others = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(of_other)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(others.iter().all(|other| !ptr::eq(mine, *other)));
    }

    #[test]
    fn a_worker_has_its_cpus_meter_until_it_leaves_or_another_epoch_begins() {
        static OF_WORKER: Meter = Meter::new();
        let found = |epoch| meter(epoch, || None);
        thread::spawn(move || {
            move_to(&OF_WORKER, 1);
            assert!(ptr::eq(found(1), &OF_WORKER));
            assert!(!ptr::eq(found(2), &OF_WORKER), "another epoch");
            assert!(ptr::eq(meter(3, || Some(&OF_WORKER)), &OF_WORKER));
            leave();
            assert!(!ptr::eq(found(3), &OF_WORKER), "it has left");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn those_who_find_no_slot_share_and_all_are_counted() {
        static FULL: Table = Table::new();
        let owners = || (1..=2 * SLOTS).map(|number| 0x7f00_0000_0000 + number * 0x1000);
        let meters: Vec<_> = owners().map(|owner| FULL.of(owner)).collect();
        meters.iter().for_each(|meter| meter.count_free(5));
        assert!(owners().zip(&meters).all(|(owner, meter)| ptr::eq(FULL.of(owner), *meter)));
        let shared = |meter: &&&Meter| FULL.beyond.iter().any(|beyond| ptr::eq(beyond, **meter));
        assert!(meters.iter().filter(shared).count() >= SLOTS);
        let all = FULL.read();
        assert_eq!((all.frees, all.freed_bytes), (2 * SLOTS as u64, 10 * SLOTS as u64));
    }

    #[test]
    fn threads_that_share_a_meter_lose_nothing() {
        static BOTH: Meter = Meter::shared();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| assert!(!BOTH.count_allocation(3))));
            }
        });
        assert_eq!((BOTH.read().allocations, BOTH.read().allocated_bytes), (40_000, 120_000));
    }
}
