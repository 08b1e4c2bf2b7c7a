//! The counts of ended tasks, kept so that a walk over the live tasks counts nobody twice.
//!
//! A walk reads the live tasks one by one. Meanwhile some of them end, and their counts move here. The walk must not count
//! again a task that it has seen, and must not miss a task that it has not seen. So a tally has two banks. A task that ends
//! without having been seen by the latest walk goes into the *settled* bank. A task that the latest walk has seen goes into the
//! *aside* bank until the next walk.
//!
//! One thread writes a tally, in a window of its books and without a lock. A reader that finds the window open, or closed since
//! it began, reads again. A bank's total is an object of the PMU's data type, into which the PMU folds the data of each task
//! that ends. For a PMU that does not fold, the total also has a count, which is replaced each time.

use crate::count::Count;
use crate::foreign::quietly;
use crate::path::SpawnPath;
use crate::per_cpu::PerCpu;
use crate::primitive::{AtomicPtr, AtomicU64, OnceLock, Ordering};
use crate::rcu;
use bytemuck::Zeroable;
use std::ptr::{self, NonNull};

/// The part of a PMU that tallies use.
pub(crate) trait Folder {
    type Data: Zeroable;
    type Count: Count;

    /// Adds an ended task's data to `totals`. Returns false if it added nothing.
    fn fold(&self, ended: &Self::Data, totals: &Self::Data) -> bool;
    /// The counts in a task's data, or in totals.
    fn read(&self, data: &Self::Data) -> Self::Count;
}

/// A number of tasks and the sum of their counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals<C> {
    pub(crate) tasks: u64,
    pub(crate) count: C,
}

impl<C: Count> Totals<C> {
    pub(crate) fn add(&mut self, other: &Self) {
        self.tasks += other.tasks;
        self.count.add(&other.count);
    }
}

/// How many spawn paths have their tallies in one allocation.
const PATHS: usize = if cfg!(pertask_loom) { 2 } else { 32 };

/// The tallies of one thread's books, by spawn path.
pub(crate) struct EndedPaths<P: Folder>(PerCpu<OnceLock<Box<[Tally<P>; PATHS]>>>);

impl<P: Folder> Default for EndedPaths<P> {
    fn default() -> Self {
        Self(PerCpu::new())
    }
}

impl<P: Folder> EndedPaths<P> {
    #[inline]
    pub(crate) fn of(&self, path: &SpawnPath) -> &Tally<P> {
        let path = path.id() as usize;
        let make = || Box::new(std::array::from_fn(|_| Tally::default()));
        &self.0.of(path / PATHS).get_or_init(make)[path % PATHS]
    }

    pub(crate) fn get(&self, path: &SpawnPath) -> Option<&Tally<P>> {
        let path = path.id() as usize;
        Some(&self.0.get(path / PATHS)?.get()?[path % PATHS])
    }
}

/// The tasks of one spawn path that ended with one thread's books.
///
/// INVARIANT: `aside` holds exactly the tasks that were folded after `walk` had seen them; every other folded task is in
/// `settled`. For a walk with a higher number, `aside` counts as settled.
pub(crate) struct Tally<P: Folder> {
    walk: AtomicU64,
    settled: Bank<P>,
    aside: Bank<P>,
}

struct Bank<P: Folder> {
    tasks: AtomicU64,
    /// INVARIANT: null, or a box that belongs to the bank. The box is freed only after it was taken out and every section that
    /// began before that has ended.
    total: AtomicPtr<Total<P>>,
}

/// The counts that a bank has added up.
#[repr(C)]
struct Total<P: Folder> {
    rcu: rcu::Head,
    /// The counts that the PMU has folded.
    data: P::Data,
    /// The counts that the PMU has not folded. Never changes.
    count: P::Count,
}

impl<P: Folder> Default for Tally<P> {
    fn default() -> Self {
        Self { walk: AtomicU64::new(0), settled: Bank::default(), aside: Bank::default() }
    }
}

impl<P: Folder> Default for Bank<P> {
    fn default() -> Self {
        Self { tasks: AtomicU64::new(0), total: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl<P: Folder> Tally<P> {
    /// Adds a task that ends. `seen_in_walk` is the last walk that read it while it was alive, or 0 for none.
    ///
    /// Only the owner of the books calls this, in a window.
    pub(crate) fn fold(&self, folder: &P, seen_in_walk: u64, ended: &P::Data) {
        // Relaxed, here and below: only the owner writes, and the window makes readers retry.
        let mut walk = self.walk.load(Ordering::Relaxed);
        if seen_in_walk > walk {
            self.settle(folder);
            self.walk.store(seen_in_walk, Ordering::Relaxed);
            walk = seen_in_walk;
        }
        let is_aside = seen_in_walk != 0 && seen_in_walk == walk;
        let bank = if is_aside { &self.aside } else { &self.settled };
        bank.add(folder, 1, ended, None);
    }

    /// The ended tasks that `walk`, the latest walk, has not seen alive. Readers call this in
    /// [`Books::read`](crate::books::Books::read).
    pub(crate) fn total_beside(&self, folder: &P, walk: u64) -> Totals<P::Count> {
        let mut total = self.settled.read(folder);
        if self.walk.load(Ordering::Relaxed) != walk {
            total.add(&self.aside.read(folder));
        }
        total
    }

    fn settle(&self, folder: &P) {
        let tasks = self.aside.tasks.load(Ordering::Relaxed);
        self.aside.tasks.store(0, Ordering::Relaxed);
        if let Some(aside) = self.aside.take() {
            // SAFETY: only we, the owner, can take it out of the bank, and it is retired below, once.
            let total = unsafe { aside.as_ref() };
            self.settled.add(folder, tasks, &total.data, Some(&total.count));
            // SAFETY: it is no longer in the bank, and nobody else retires it.
            unsafe { rcu::retire(aside.cast()) };
        }
    }
}

impl<P: Folder> Bank<P> {
    fn read(&self, folder: &P) -> Totals<P::Count> {
        let _section = rcu::enter();
        // Relaxed: a reader that overlaps a change finds the window changed, and reads again.
        let tasks = self.tasks.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `replace`, so that we see the total initialised.
        // SAFETY: null, or a total that was in the bank during this section, so it is not freed before the section ends.
        let Some(total) = (unsafe { self.total.load(Ordering::Acquire).as_ref() }) else {
            return Totals { tasks, count: P::Count::default() };
        };
        let mut count = folder.read(&total.data);
        count.add(&total.count);
        Totals { tasks, count }
    }

    /// Adds a number of tasks: their data, and optionally counts in addition to it.
    fn add(&self, folder: &P, tasks: u64, ended: &P::Data, counted: Option<&P::Count>) {
        let total = self.total();
        if counted.is_some() || !folder.fold(ended, &total.data) {
            // Turn everything into one count, beside fresh data.
            let mut count = total.count.clone();
            count.add(&folder.read(&total.data));
            count.add(&folder.read(ended));
            counted.iter().for_each(|counted| count.add(counted));
            self.replace(Total::new(count));
        }
        // Relaxed: a reader that overlaps a change finds the window changed, and reads again.
        self.tasks.store(self.tasks.load(Ordering::Relaxed) + tasks, Ordering::Relaxed);
    }

    /// The total, for the owner. Makes it if it does not exist.
    fn total(&self) -> &Total<P> {
        // Relaxed: only the owner stores it.
        let mut total = self.total.load(Ordering::Relaxed);
        if total.is_null() {
            total = self.replace(Total::new(P::Count::default()));
        }
        // SAFETY: the bank owns the total, and only the owner of the books takes it out.
        unsafe { &*total }
    }

    fn replace(&self, new: Box<Total<P>>) -> *mut Total<P> {
        let new = Box::into_raw(new);
        // AcqRel: Release pairs with the Acquire in `read`.
        if let Some(old) = NonNull::new(self.total.swap(new, Ordering::AcqRel)) {
            // SAFETY: it is no longer in the bank, and nobody else retires it.
            unsafe { rcu::retire(old.cast()) };
        }
        new
    }

    fn take(&self) -> Option<NonNull<Total<P>>> {
        NonNull::new(self.total.swap(ptr::null_mut(), Ordering::AcqRel))
    }
}

impl<P: Folder> Total<P> {
    fn new(count: P::Count) -> Box<Self> {
        Box::new(Self { rcu: rcu::Head::new(free::<P>), data: P::Data::zeroed(), count })
    }
}

unsafe fn free<P: Folder>(head: NonNull<rcu::Head>) {
    // SAFETY: the head is the first field of a boxed total, which nobody can hold any more.
    let total = unsafe { Box::from_raw(head.cast::<Total<P>>().as_ptr()) };
    // The count's destructor is foreign code, and a panic in it must not keep other objects from being freed.
    quietly(|| drop(total));
}

impl<P: Folder> Drop for Bank<P> {
    fn drop(&mut self) {
        if let Some(total) = self.take() {
            // SAFETY: the total was allocated as a box, and nobody reads a bank that is being dropped.
            drop(unsafe { Box::from_raw(total.as_ptr()) });
        }
    }
}

#[cfg(all(test, not(any(pertask_loom, pertask_shuttle))))]
mod tests {
    use super::*;

    /// A sum that folds only on the calls in this range, counted from 0.
    struct Folds(std::ops::Range<u64>, AtomicU64);

    impl Folder for Folds {
        type Data = AtomicU64;
        type Count = u64;

        fn fold(&self, ended: &AtomicU64, totals: &AtomicU64) -> bool {
            let is_folded = self.0.contains(&self.1.fetch_add(1, Ordering::Relaxed));
            if is_folded {
                totals.fetch_add(ended.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            is_folded
        }

        fn read(&self, data: &AtomicU64) -> u64 {
            data.load(Ordering::Relaxed)
        }
    }

    /// Runs a test with PMUs that fold always, never, only at first, only later, and only once.
    fn each_folder(
        test: impl Fn(&dyn Fn(&Tally<Folds>, u64, u64), &dyn Fn(&Tally<Folds>, u64) -> (u64, u64)),
    ) {
        for range in [0..u64::MAX, 0..0, 0..2, 2..u64::MAX, 1..2] {
            let folder = Folds(range, AtomicU64::new(0));
            test(
                &|tally, seen, count| tally.fold(&folder, seen, &AtomicU64::new(count)),
                &|tally, walk| {
                    let total = tally.total_beside(&folder, walk);
                    (total.tasks, total.count)
                },
            );
        }
    }

    #[test]
    fn a_task_seen_by_a_walk_is_not_counted_beside_it() {
        each_folder(|fold, total_beside| {
            let tally = Tally::default();
            fold(&tally, 0, 10);
            // Walk 1 saw this task alive. It ends before the walk reads the tally.
            fold(&tally, 1, 5);
            assert_eq!(total_beside(&tally, 1), (1, 10));
            assert_eq!(total_beside(&tally, 2), (2, 15));
        });
    }

    #[test]
    fn a_task_seen_by_an_older_walk_is_settled() {
        each_folder(|fold, total_beside| {
            let tally = Tally::default();
            fold(&tally, 2, 1);
            fold(&tally, 1, 10);
            assert_eq!(total_beside(&tally, 2), (1, 10));
            assert_eq!(total_beside(&tally, 3), (2, 11));
            fold(&tally, 3, 100);
            assert_eq!(total_beside(&tally, 3), (2, 11));
            fold(&tally, 3, 1000);
            fold(&tally, 0, 10_000);
            assert_eq!(total_beside(&tally, 3), (3, 10_011));
            assert_eq!(total_beside(&tally, 4), (5, 11_111));
            fold(&tally, 4, 100_000);
            assert_eq!(total_beside(&tally, 4), (5, 11_111));
            assert_eq!(total_beside(&tally, 5), (6, 111_111));
        });
    }
}
