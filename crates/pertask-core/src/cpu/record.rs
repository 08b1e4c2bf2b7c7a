//! What a CPU shows to others, and the words that its switches write.

use super::hooks::Hooks;
use crate::active::MAX_PMUS;
use crate::foreign::OnUnwind;
use crate::pmu::{AnyPmu, Edge, ErasedPmu};
use crate::primitive::plain;
use crate::primitive::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, yield_now};
use crate::system::System;
use crate::task::{Task, TaskId};
use std::ptr;

/// In `owed`: hooks run at this moment. It makes every switch take the slow path, where it is looked at.
pub(super) const IN_HOOKS: u32 = 1 << 31;

/// A CPU as others see it: which thread it is, and what runs there.
///
/// Written by its thread alone. Another thread reads numbers; a signal handler on the CPU's own thread may also follow
/// `current`, which stays valid while the handler runs.
#[repr(C, align(128))]
pub struct CpuRecord {
    // What each switch touches comes first, together.
    pub(super) system: &'static System,
    /// INVARIANT: null, or the task that runs here. The tasks it was switched in over hang behind it, each from its `outer`.
    /// Each of them is kept alive by whoever runs it, and leaves the chain before it ends.
    current: AtomicPtr<Task>,
    /// Grows with every switch, so that another thread can tell one turn from the next.
    switches: AtomicU64,
    /// The number of the task that runs here, or 0, after an even number of switches and after an odd one. One switch writes the
    /// one place, the next the other; so while the number stays the same, so does the task.
    ids: [AtomicU64; 2],
    /// The PMUs whose `sched_in` the current task has had, and whose `sched_out` it is owed; and [`IN_HOOKS`].
    owed: AtomicU32,
    index: u32,
    /// The tag while no task runs.
    own_tag: AtomicU32,
    /// The kernel's number of the thread, or 0 while no thread has this record.
    thread: AtomicU32,
    online: AtomicBool,
    /// Runs that ended in another order than they began, and what else was out of order.
    disorders: plain::AtomicU64,
    /// The PMUs' data.
    ///
    /// INVARIANT: each is null, or what the PMU of that index keeps for this CPU.
    data: [AtomicPtr<()>; MAX_PMUS],
    /// Whether the PMU in each place has been told of the thread: one of [`AWAY`] and so on.
    told: [AtomicU32; MAX_PMUS],
}

/// No thread has the record: nobody is to be told.
const AWAY: u32 = 0;
/// A thread has it, and no PMU has been told.
const HERE: u32 = 1;
/// Somebody is telling a PMU: this, with the PMU's serial number above.
const TELLING: u32 = 2;
/// A PMU has been told: this, with the PMU's serial number above. Another that comes to its place has not.
const TOLD: u32 = 3;
const STATE: u32 = 3;

fn with_serial(pmu: &dyn AnyPmu, state: u32) -> u32 {
    pmu.state().serial << 2 | state
}

impl CpuRecord {
    pub(crate) fn new(system: &'static System, index: u32) -> Self {
        Self {
            system,
            index,
            current: AtomicPtr::new(ptr::null_mut()),
            switches: AtomicU64::new(0),
            ids: [AtomicU64::new(0), AtomicU64::new(0)],
            owed: AtomicU32::new(0),
            own_tag: AtomicU32::new(0),
            thread: AtomicU32::new(0),
            online: AtomicBool::new(false),
            disorders: plain::AtomicU64::new(0),
            data: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            told: std::array::from_fn(|_| AtomicU32::new(AWAY)),
        }
    }

    /// The CPU's number, dense from 0.
    ///
    /// When a thread ends, the next new one gets its number.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The kernel's number of the thread (`gettid`), or `None` while no thread has this CPU.
    #[must_use]
    pub fn thread(&self) -> Option<u32> {
        // Relaxed: a figure.
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }

    /// The task that runs here, by number: what another thread may know.
    ///
    /// Acquire: pairs with the Release of the switch, with what the hooks have written before it.
    #[must_use]
    pub fn current_id(&self) -> Option<TaskId> {
        loop {
            let switches = self.switches();
            // Acquire: pairs with the Release in `set_current`. A number that belongs to a later switch brings the number of
            // switches before it, which is then found to have changed.
            let id = self.ids[(switches & 1) as usize].load(Ordering::Acquire);
            if self.switches() == switches {
                return TaskId::new(id);
            }
        }
    }

    /// How many switches there have been.
    ///
    /// While the number stays as it is, so does [`current_id`](Self::current_id).
    ///
    /// Acquire: pairs with the Release of the switch.
    #[must_use]
    #[inline]
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Acquire)
    }

    /// How often something was out of order here.
    ///
    /// That is: a run that ended below another that goes on, as those of coroutines may that are suspended in a poll; a run
    /// that a hook began or ended; a thread that ended with a run suspended on it. Until such a run ends, what its coroutine
    /// does is charged to the task on top of it.
    #[must_use]
    pub fn disorders(&self) -> u64 {
        // Relaxed: a figure.
        self.disorders.load(Ordering::Relaxed)
    }

    /// Calls `f` with the task that runs here, for a signal handler on the CPU's own thread.
    ///
    /// The handler may have interrupted anything, a switch included.
    ///
    /// # Safety
    /// The calling thread is the one that has this CPU: [`thread`](Self::thread) is its own number.
    pub unsafe fn with_current<R>(&self, f: impl FnOnce(Option<&Task>) -> R) -> R {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out on this thread, which is not
        // before `f` has returned.
        f(unsafe { self.current().as_ref() })
    }

    /// The CPU's own [tag](crate::Cpu::tag), which holds while no task runs here.
    ///
    /// A signal handler may ask for it, too.
    #[must_use]
    #[inline]
    pub fn own_tag(&self) -> u32 {
        // Relaxed: a number that means the same to whoever sees it.
        self.own_tag.load(Ordering::Relaxed)
    }

    pub(super) fn set_own_tag(&self, tag: u32) -> u32 {
        let before = self.own_tag();
        // Relaxed: a number, which this thread alone writes.
        self.own_tag.store(tag, Ordering::Relaxed);
        before
    }

    pub(crate) fn is_of(&self, system: &System) -> bool {
        ptr::eq(self.system, system)
    }

    /// A PMU's data, or null. It lives as long as the PMU is registered, and until all sections have ended in which it was.
    #[inline(always)]
    pub(crate) fn data(&self, pmu: usize) -> *const () {
        // Acquire: pairs with the Release in `set_data`.
        self.data[pmu].load(Ordering::Acquire)
    }

    /// Shows a PMU's data for this CPU to switches.
    pub(crate) fn set_data(&self, pmu: &dyn AnyPmu) {
        let data = pmu.cpu_data(self.index as usize);
        // Release: pairs with the Acquire in `data`.
        self.data[pmu.state().index].store(data.cast_mut(), Ordering::Release);
    }

    /// Takes the data of a PMU away that has been let go.
    pub(crate) fn take_data(&self, pmu: usize) {
        // Relaxed: a grace period has passed since a hook could be called that looks here.
        self.data[pmu].store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Whether a PMU is told of this CPU at this moment.
    pub(crate) fn is_telling(&self, pmu: &dyn AnyPmu) -> bool {
        let told = self.told[pmu.state().index].load(Ordering::Relaxed);
        told == with_serial(pmu, TELLING)
    }

    /// Claims the record for the calling thread. Under the system's lock.
    pub(crate) fn go_online(&self) -> bool {
        // Acquire: pairs with the Release in `go_offline`; the former owner's writes come first.
        if self.online.swap(true, Ordering::Acquire) {
            return false;
        }
        self.own_tag.store(0, Ordering::Relaxed);
        self.thread.store(thread_number(), Ordering::Relaxed);
        // Relaxed: ordered by the lock, under which PMUs are registered, too.
        self.told.iter().for_each(|told| told.store(HERE, Ordering::Relaxed));
        true
    }

    pub(super) fn go_offline(&self) {
        self.thread.store(0, Ordering::Relaxed);
        if !self.current().is_null() {
            // A run is suspended here that may still end. The record is not used again.
            return self.count_disorder();
        }
        // Release: pairs with the Acquire in `go_online`.
        self.online.store(false, Ordering::Release);
    }

    /// Tells a PMU that this CPU has come, once: both the CPU's own thread and whoever registers the PMU try to.
    pub(crate) fn tell_online(&self, pmu: &dyn AnyPmu) {
        let told = &self.told[pmu.state().index];
        loop {
            let now = told.load(Ordering::Relaxed);
            if now == AWAY || now >> 2 == pmu.state().serial {
                return;
            }
            // Acquire: pairs with the Release of the last one who changed it. A hook of the PMU that was here before is waited for.
            if now & STATE != TELLING
                && told
                    .compare_exchange(
                        now,
                        with_serial(pmu, TELLING),
                        Ordering::Acquire,
                        Ordering::Relaxed,
                    )
                    .is_ok()
            {
                break;
            }
            yield_now();
        }
        // Release: pairs with the Acquire in `tell_offline`. Also if the hook panics.
        let done = OnUnwind(|| told.store(with_serial(pmu, TOLD), Ordering::Release));
        pmu.cpu_online(self);
        drop(done);
    }

    /// Tells the PMU in that place that this CPU goes, if it has been told that it came; from here on it is not told that. For the
    /// CPU's thread, which waits for a hook that another thread calls at this moment.
    pub(super) fn tell_offline(&self, place: usize) {
        let told = &self.told[place];
        loop {
            let now = told.load(Ordering::Relaxed);
            // AcqRel: Acquire pairs with the Release in `tell_online`, Release with the Acquire there.
            if now & STATE == TELLING
                || told.compare_exchange(now, AWAY, Ordering::AcqRel, Ordering::Relaxed).is_err()
            {
                yield_now();
                continue;
            }
            let pmu = self.system.pmu(place as u32).map(ErasedPmu::any);
            if let Some(pmu) = pmu.filter(|pmu| now == with_serial(*pmu, TOLD)) {
                pmu.cpu_offline(self);
            }
            return;
        }
    }

    #[cold]
    pub(super) fn count_disorder(&self) {
        // Relaxed: a figure.
        self.disorders.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn current(&self) -> *mut Task {
        // Relaxed: read by the thread that writes it.
        self.current.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn owed(&self) -> u32 {
        // Relaxed: this thread's own.
        self.owed.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn set_owed(&self, owed: u32) {
        // Relaxed: this thread's own.
        self.owed.store(owed, Ordering::Relaxed);
    }

    /// The hooks' side of a switch: the current task leaves, `incoming` comes. Not in a hook.
    #[inline(never)]
    pub(super) fn switch(&'static self, incoming: Option<&Task>, leaves: Edge, comes: Edge) {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out, on this thread.
        let outgoing = unsafe { self.current().as_ref() };
        Hooks { record: self, outgoing, incoming, leaves, comes }.call();
    }

    /// Counts a switch that leaves the current task what it is.
    pub(super) fn count_switch(&self) {
        self.set_current(self.current());
    }

    /// Puts a task on top of the chain: as it is now, for hooks have run.
    ///
    /// # Safety
    /// It is the pointer of an `Arc` with a strong count, which whoever runs the task keeps until it has left the chain.
    #[inline(always)]
    pub(super) unsafe fn arrive(&self, task: *mut Task) {
        let below = self.current();
        // A handle may be made of the pointer, so it is kept as it came. SAFETY: the caller's.
        let (at, task) = (task, unsafe { &*task });
        // Nearly always nothing runs here, and a task that is in no chain has nothing below it.
        if !below.is_null() {
            task.set_outer(below);
        }
        self.set_current_and_id(at, task.id().get());
    }

    /// Takes a task off the top of the chain: as it is now, for hooks have run.
    #[inline(always)]
    pub(super) fn depart(&self, task: &Task) {
        let below = task.outer();
        if below.is_null() {
            return self.set_current_and_id(below, 0);
        }
        task.set_outer(ptr::null_mut());
        self.set_current(below);
    }

    #[inline(always)]
    pub(super) fn set_current(&self, task: *mut Task) {
        // SAFETY: null, or the task that is about to run, which its runner keeps alive.
        let id = unsafe { task.as_ref() }.map_or(0, |task| task.id().get());
        self.set_current_and_id(task, id);
    }

    #[inline(always)]
    fn set_current_and_id(&self, task: *mut Task, id: u64) {
        // Relaxed: other threads do not follow the pointer; this thread's signal handlers see it in program order.
        self.current.store(task, Ordering::Relaxed);
        // Relaxed: this thread alone writes it.
        let switches = self.switches.load(Ordering::Relaxed) + 1;
        // Release: pairs with the Acquire in `current_id`.
        self.ids[(switches & 1) as usize].store(id, Ordering::Release);
        // Release: pairs with the Acquire in `switches`.
        self.switches.store(switches, Ordering::Release);
    }
}

#[cfg(target_os = "linux")]
fn thread_number() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

#[cfg(not(target_os = "linux"))]
fn thread_number() -> u32 {
    0
}
