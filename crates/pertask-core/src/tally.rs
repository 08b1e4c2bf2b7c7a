//! The counts of tasks that have ended, kept so that a walk over the living counts nobody twice.
//!
//! A walk reads the living one by one. Meanwhile some of them end, and their counts move here. Those that the walk has seen
//! must not be counted again, those that it has not seen must not be missed. So there are two banks: what ended without having
//! been seen by the latest walk is *settled*; what that walk had seen first is set *aside* until the next.
//!
//! One thread writes a tally, in a window of its books, and takes no lock. A reader that finds the window open, or closed since
//! it began, reads again. A bank's total is data of the PMU's, as a task has it, into which the PMU folds the data of each task
//! that ends; a PMU that does not is given a count instead, which is replaced each time.

use crate::count::Count;
use crate::foreign::quietly;
use crate::pmu::Pmu;
use crate::primitive::{AtomicPtr, AtomicU64, Ordering};
use crate::rcu;
use bytemuck::Zeroable;
use std::ptr::{self, NonNull};

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

/// The ended tasks of one spawn path, of those that ended with one thread's books.
///
/// INVARIANT: `aside` holds exactly the tasks that were folded after `walk` had seen them; every other folded task is in
/// `settled`. A walk with a higher number finds `aside` settled.
pub(crate) struct Tally<P: Pmu> {
    walk: AtomicU64,
    settled: Bank<P>,
    aside: Bank<P>,
}

struct Bank<P: Pmu> {
    tasks: AtomicU64,
    /// INVARIANT: null, or a box that belongs to the bank: freed only when every section has ended that began before it was
    /// taken out.
    total: AtomicPtr<Total<P>>,
}

/// What has been added up.
#[repr(C)]
struct Total<P: Pmu> {
    rcu: rcu::Head,
    /// What the PMU has folded.
    data: P::Data,
    /// What it has not. Never changes.
    count: P::Count,
}

impl<P: Pmu> Default for Tally<P> {
    fn default() -> Self {
        Self { walk: AtomicU64::new(0), settled: Bank::default(), aside: Bank::default() }
    }
}

impl<P: Pmu> Default for Bank<P> {
    fn default() -> Self {
        Self { tasks: AtomicU64::new(0), total: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl<P: Pmu> Tally<P> {
    /// Adds a task that ends. `seen_in_walk` is the last walk that has read it while it lived; 0 for none.
    ///
    /// For the owner of the books, in a window.
    pub(crate) fn fold(&self, pmu: &P, seen_in_walk: u64, ended: &P::Data) {
        // Relaxed, here and below: the owner's own; readers are kept off by the window.
        let mut walk = self.walk.load(Ordering::Relaxed);
        if seen_in_walk > walk {
            self.settle(pmu);
            self.walk.store(seen_in_walk, Ordering::Relaxed);
            walk = seen_in_walk;
        }
        let is_aside = seen_in_walk != 0 && seen_in_walk == walk;
        let bank = if is_aside { &self.aside } else { &self.settled };
        bank.add(pmu, 1, ended, None);
    }

    /// The ended tasks that `walk`, which is the latest, has not seen among the living. For readers, within
    /// [`Books::read`](crate::books::Books::read).
    pub(crate) fn total_beside(&self, pmu: &P, walk: u64) -> Totals<P::Count> {
        let mut total = self.settled.read(pmu);
        if self.walk.load(Ordering::Relaxed) != walk {
            total.add(&self.aside.read(pmu));
        }
        total
    }

    fn settle(&self, pmu: &P) {
        let tasks = self.aside.tasks.load(Ordering::Relaxed);
        self.aside.tasks.store(0, Ordering::Relaxed);
        if let Some(aside) = self.aside.take() {
            // SAFETY: taken out by its owner, and retired below, once.
            let total = unsafe { aside.as_ref() };
            self.settled.add(pmu, tasks, &total.data, Some(&total.count));
            // SAFETY: it is in the bank no more, and nobody else retires it.
            unsafe { rcu::retire(aside.cast()) };
        }
    }
}

impl<P: Pmu> Bank<P> {
    fn read(&self, pmu: &P) -> Totals<P::Count> {
        let _section = rcu::enter();
        // Relaxed: a figure; the window keeps readers off while it changes.
        let tasks = self.tasks.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `replace`; the total is found whole.
        // SAFETY: null, or a total that was in the bank in this section, and is not freed before the section ends.
        let Some(total) = (unsafe { self.total.load(Ordering::Acquire).as_ref() }) else {
            return Totals { tasks, count: P::Count::default() };
        };
        let mut count = pmu.read(&total.data);
        count.add(&total.count);
        Totals { tasks, count }
    }

    /// Adds so many tasks' data, and what was counted of them beside it.
    fn add(&self, pmu: &P, tasks: u64, ended: &P::Data, counted: Option<&P::Count>) {
        let total = self.total();
        let is_folded = pmu.fold(ended, &total.data);
        if counted.is_some() || !is_folded {
            let mut count = total.count.clone();
            counted.iter().for_each(|counted| count.add(counted));
            if !is_folded {
                count.add(&pmu.read(ended));
            }
            self.replace(Total::new(count));
        }
        // Relaxed: as in `read`.
        self.tasks.store(self.tasks.load(Ordering::Relaxed) + tasks, Ordering::Relaxed);
    }

    /// The total, for the owner.
    fn total(&self) -> &Total<P> {
        // Relaxed: the owner's own.
        let mut total = self.total.load(Ordering::Relaxed);
        if total.is_null() {
            total = self.replace(Total::new(P::Count::default()));
        }
        // SAFETY: the bank's, and nobody but the owner takes it out.
        unsafe { &*total }
    }

    fn replace(&self, new: Box<Total<P>>) -> *mut Total<P> {
        let new = Box::into_raw(new);
        // AcqRel: Release pairs with the Acquire in `read`.
        if let Some(old) = NonNull::new(self.total.swap(new, Ordering::AcqRel)) {
            // SAFETY: it is in the bank no more, and nobody else retires it.
            unsafe { rcu::retire(old.cast()) };
        }
        new
    }

    fn take(&self) -> Option<NonNull<Total<P>>> {
        NonNull::new(self.total.swap(ptr::null_mut(), Ordering::AcqRel))
    }
}

impl<P: Pmu> Total<P> {
    fn new(count: P::Count) -> Box<Self> {
        Box::new(Self { rcu: rcu::Head::new(free::<P>), data: P::Data::zeroed(), count })
    }
}

unsafe fn free<P: Pmu>(head: NonNull<rcu::Head>) {
    // SAFETY: the head is the first field of a boxed total, which nobody can hold any more.
    let total = unsafe { Box::from_raw(head.cast::<Total<P>>().as_ptr()) };
    // The count's destructor is not ours, and others wait behind it.
    quietly(|| drop(total));
}

impl<P: Pmu> Drop for Bank<P> {
    fn drop(&mut self) {
        if let Some(total) = self.take() {
            // SAFETY: a box, and nobody reads a bank that is dropped.
            drop(unsafe { Box::from_raw(total.as_ptr()) });
        }
    }
}
