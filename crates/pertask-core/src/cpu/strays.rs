//! Runs that end on another thread than the one on which they began, as those of a coroutine may that is moved while it is suspended
//! in one.
//!
//! The task is then in the chain of a CPU that only another thread may change. So the thread on which the run ends leaves it there
//! and notifies that CPU, which takes the task out of its chain before it switches in another one, or when its thread ends. In the
//! meantime the task is *away*: no CPU switches it in, and its end waits for that CPU.

use crate::pmu::Edge;
use crate::primitive::{Arc, AtomicPtr, AtomicU8, Ordering};
use crate::task::Task;
use std::ptr;

/// A number that differs between threads that live at the same time, read anew each time: the compiler may take the address of a
/// thread-local for the same before and after a call, even if a coroutine was moved meanwhile. It is 0 where it cannot be had, and
/// no run is then found to have moved.
#[inline(always)]
pub(super) fn thread_pointer() -> usize {
    #[allow(unused_mut, unused_assignments, reason = "not every platform has it")]
    let mut pointer = 0;
    #[cfg(not(any(miri, pertask_loom, pertask_shuttle)))]
    {
        // SAFETY: on Linux the first word of a thread's control block is the block's address.
        #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64"))]
        unsafe {
            std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly));
        }
        // SAFETY: reads a register.
        #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
        unsafe {
            std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, nomem));
        }
    }
    pointer
}

/// The task can be run.
const HOME: u8 = 0;
/// The task is in the chain of a CPU where it does not run any more.
const AWAY: u8 = 1;
/// As [`AWAY`], and its owner has dropped it.
const ENDED: u8 = 2;
/// The task is in the chain of a CPU whose thread has ended.
const LOST: u8 = 3;

/// Whether a task is away: part of the task.
///
/// INVARIANT: while the task is away, only the CPU that has it in its chain switches it or ends it.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    state: AtomicU8,
    #[cfg(pertask_loom)]
    hands: loom::cell::UnsafeCell<()>,
}

// SAFETY: loom reports concurrent accesses to the cell.
#[cfg(pertask_loom)]
unsafe impl Sync for Whereabouts {}

impl Whereabouts {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(HOME),
            #[cfg(pertask_loom)]
            hands: loom::cell::UnsafeCell::new(()),
        }
    }

    /// In models, reports it if two threads have the task in hand without an order: a CPU that has it in its chain and the owner.
    #[inline(always)]
    pub(crate) fn take_in_hand(&self) {
        #[cfg(pertask_loom)]
        self.hands.with_mut(|_| ());
    }

    /// Whether a CPU may switch the task in.
    #[inline(always)]
    pub(super) fn is_home(&self) -> bool {
        // Acquire: pairs with the Release in `come_home`, so that the task is in no chain any more.
        self.state.load(Ordering::Acquire) == HOME
    }

    #[cfg(all(test, pertask_loom))]
    pub(crate) fn is_lost(&self) -> bool {
        self.state.load(Ordering::Relaxed) == LOST
    }

    /// Leaves the task's end to the CPU that has it in its chain. Returns false if the caller is to end the task.
    #[inline(always)]
    pub(crate) fn leave_end(&self) -> bool {
        // Acquire: as in `is_home`.
        let is_left = self.state.load(Ordering::Acquire) != HOME && self.leave_end_away();
        if !is_left {
            self.take_in_hand();
        }
        is_left
    }

    #[cold]
    #[inline(never)]
    fn leave_end_away(&self) -> bool {
        // Release: pairs with the Acquire in `come_home`, for what the owner did before. Acquire: as in `is_home`.
        self.state.compare_exchange(AWAY, ENDED, Ordering::Release, Ordering::Acquire).is_ok()
    }

    /// Called after the task has left the chain. Returns false if its owner has dropped it, and the caller is to end it.
    fn come_home(&self) -> bool {
        self.take_in_hand();
        // Release: pairs with the Acquire in `is_home`. Acquire: pairs with the Release in `leave_end`.
        self.state.compare_exchange(AWAY, HOME, Ordering::Release, Ordering::Acquire).is_ok()
    }
}

/// A task that is away.
pub(super) struct Stray {
    /// A strong count of the task, which is in the chain of the CPU that is notified.
    task: *const Task,
    pub(super) edge: Edge,
    next: *mut Stray,
    /// In models, reports it if another thread reads this before it is whole.
    #[cfg(pertask_loom)]
    whole: loom::cell::UnsafeCell<()>,
}

impl Stray {
    pub(super) fn task(&self) -> &Task {
        // SAFETY: this has a strong count.
        unsafe { &*self.task }
    }

    /// Called when the task has left the chain. Returns the task if it is to end.
    pub(super) fn come_home(self) -> Option<Arc<Task>> {
        // SAFETY: the strong count is this one's own.
        let task = unsafe { Arc::from_raw(self.task) };
        (!task.whereabouts().come_home()).then_some(task)
    }
}

/// The tasks in a CPU's chain that are away. Any thread adds to it; the CPU's thread takes all out.
///
/// INVARIANT: null, or the head of a list of boxes that nobody else has; or [`closed`], for a CPU whose thread has ended.
#[derive(Debug)]
pub(super) struct Strays(AtomicPtr<Stray>);

fn closed() -> *mut Stray {
    ptr::dangling_mut()
}

impl Strays {
    pub(super) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Whether a task in the chain is away.
    #[inline(always)]
    pub(super) fn are_there(&self) -> bool {
        // Relaxed: `take` orders what follows, and a later look finds what this one misses.
        !self.0.load(Ordering::Relaxed).is_null()
    }

    /// Leaves a task away, whose run ends on this thread.
    ///
    /// # Safety
    /// The task is in the chain of this CPU, and the calling thread is its runner.
    pub(super) unsafe fn leave(&self, task: *const Task, edge: Edge) {
        // SAFETY: the runner keeps the task alive, and the pointer is that of its `Arc`. In a lost task's CPU the count stays for good.
        let whereabouts = unsafe {
            Arc::increment_strong_count(task);
            (*task).whereabouts()
        };
        // Relaxed: the Release below orders it for the CPU, and who moves the task on for others.
        whereabouts.state.store(AWAY, Ordering::Relaxed);
        let stray = Box::into_raw(Box::new(Stray {
            task,
            edge,
            next: ptr::null_mut(),
            #[cfg(pertask_loom)]
            whole: loom::cell::UnsafeCell::new(()),
        }));
        // Acquire, here and below: pairs with the Release in `close`, so that the CPU does nothing with the task any more.
        let mut head = self.0.load(Ordering::Acquire);
        loop {
            if ptr::eq(head, closed()) {
                // SAFETY: the box is still this function's own.
                drop(unsafe { Box::from_raw(stray) });
                return whereabouts.state.store(LOST, Ordering::Relaxed);
            }
            // SAFETY: as above.
            unsafe { (*stray).next = head };
            // Release: pairs with the Acquire in `take`.
            match self.0.compare_exchange_weak(head, stray, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all out. Only the CPU's thread calls this.
    pub(super) fn take(&self) -> Taken {
        // Acquire: pairs with the Release in `leave`.
        Taken(self.0.swap(ptr::null_mut(), Ordering::Acquire))
    }

    /// Takes all out, and lets no more in: tasks that are left from now on are lost.
    pub(super) fn close(&self) -> Taken {
        // Acquire: as in `take`. Release: pairs with the Acquire in `leave`.
        Taken(self.0.swap(closed(), Ordering::AcqRel))
    }

    /// Undoes [`close`](Self::close), for a CPU without a chain.
    pub(super) fn open(&self) {
        // Relaxed: the next owner of the CPU is ordered after this.
        self.0.store(ptr::null_mut(), Ordering::Relaxed);
    }
}

/// Strays that were taken out.
pub(super) struct Taken(*mut Stray);

impl Iterator for Taken {
    type Item = Stray;

    fn next(&mut self) -> Option<Stray> {
        if self.0.is_null() || ptr::eq(self.0, closed()) {
            return None;
        }
        // SAFETY: the list is this one's own, and each of its items is a box.
        let stray = unsafe { *Box::from_raw(self.0) };
        #[cfg(pertask_loom)]
        stray.whole.with(|_| ());
        self.0 = stray.next;
        Some(stray)
    }
}
