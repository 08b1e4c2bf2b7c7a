//! The part of a CPU that other threads may read, and the words that its switches write.

use super::hooks::Hooks;
use super::strays::Strays;
use crate::active::MAX_PMUS;
use crate::foreign::OnUnwind;
use crate::pmu::{AnyPmu, Edge, ErasedPmu};
use crate::primitive::plain;
use crate::primitive::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, yield_now};
use crate::system::System;
use crate::task::{Task, TaskId};
use std::ptr;

/// A bit of `owed`: hooks run right now. It makes every switch take the slow path, which checks it.
pub(super) const IN_HOOKS: u32 = 1 << 31;

/// A CPU as other threads see it: its thread, and the task that runs there.
///
/// Only the CPU's thread writes it. Other threads read numbers; a signal handler on the CPU's own thread may also follow
/// `current`, which stays valid while the handler runs.
#[repr(C, align(128))]
pub struct CpuRecord {
    // Fields that each switch touches come first, together.
    pub(super) system: &'static System,
    /// INVARIANT: null, or the task that runs here. Its `outer` points to the task it was switched in over, and so on. The
    /// runner of each task keeps it alive, and each task leaves the chain before it ends.
    current: AtomicPtr<Task>,
    /// Grows with every switch, so that another thread can tell one turn from the next.
    switches: AtomicU64,
    /// The number of the current task, or 0, after an even number of switches and after an odd number. Consecutive switches
    /// write the two places in turn. So while the number of switches stays the same, so does the task.
    ids: [AtomicU64; 2],
    /// The PMUs whose `sched_in` was called for the current task and whose `sched_out` is still due; and [`IN_HOOKS`].
    owed: AtomicU32,
    index: u32,
    /// The tag that holds while no task runs.
    own_tag: AtomicU32,
    /// The kernel's thread ID, or 0 while no thread has this record.
    thread: AtomicU32,
    online: AtomicBool,
    /// How many runs ended in the wrong order, and other disorders.
    disorders: plain::AtomicU64,
    /// Tasks of the chain whose runs have ended on other threads.
    pub(super) strays: Strays,
    /// The PMUs' per-CPU data.
    ///
    /// INVARIANT: each pointer is null, or points to the data that the PMU of that index keeps for this CPU.
    data: [AtomicPtr<()>; MAX_PMUS],
    /// Whether the PMU in each place has been told that this CPU is online: [`AWAY`], [`HERE`], [`TELLING`] or [`TOLD`].
    told: [AtomicU32; MAX_PMUS],
}

/// No thread has the record, so no PMU is to be told.
const AWAY: u32 = 0;
/// A thread has the record, and no PMU has been told.
const HERE: u32 = 1;
/// A thread is telling a PMU. The PMU's serial number is in the bits above.
const TELLING: u32 = 2;
/// A PMU has been told. Its serial number is in the bits above: the next PMU in that place has not been told.
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
            strays: Strays::new(),
            data: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            told: std::array::from_fn(|_| AtomicU32::new(AWAY)),
        }
    }

    /// The CPU's number, dense from 0.
    ///
    /// When a thread ends, the next new thread gets its number.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The kernel's thread ID (`gettid`), or `None` while no thread has this CPU.
    #[must_use]
    pub fn thread(&self) -> Option<u32> {
        // Relaxed: the number stands alone.
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }

    /// The number of the task that runs here, for other threads.
    ///
    /// Acquire: pairs with the Release of the switch, so that the caller sees what the hooks wrote before it.
    #[must_use]
    pub fn current_id(&self) -> Option<TaskId> {
        loop {
            let switches = self.switches();
            // Acquire: pairs with the Release in `set_current_and_id`. If the number is from a later switch, this load also
            // makes visible the `switches` stored before it, so the check below finds a change.
            let id = self.ids[(switches & 1) as usize].load(Ordering::Acquire);
            if self.switches() == switches {
                return TaskId::new(id);
            }
        }
    }

    /// How many switches there have been.
    ///
    /// While this number stays the same, so does [`current_id`](Self::current_id).
    ///
    /// Acquire: pairs with the Release of the switch.
    #[must_use]
    #[inline]
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Acquire)
    }

    /// How often something happened out of order here.
    ///
    /// That is: a run that ended below another run that goes on, as can happen with coroutines that suspend inside a poll; a
    /// run that a hook began or ended; a thread that ended with a run suspended on it; a run that ended on another thread than the
    /// one on which it began. Until a run that is out of order ends, the work of its coroutine is seen as that of the task at the
    /// top of the chain. Its end tells PMUs of that ([`Edge::Disorder`](crate::Edge::Disorder)).
    #[must_use]
    pub fn disorders(&self) -> u64 {
        // Relaxed: for statistics.
        self.disorders.load(Ordering::Relaxed)
    }

    /// Whether the run of a task that is seen here has ended on another thread.
    ///
    /// It is not known then how long the current task has run. The CPU finds out when it switches in another task.
    #[must_use]
    #[inline]
    pub fn has_strays(&self) -> bool {
        self.strays.are_there()
    }

    /// Calls `f` with the task that runs here, for a signal handler on the CPU's own thread.
    ///
    /// The handler may have interrupted anything, even a switch.
    ///
    /// # Safety
    /// The calling thread is the one that has this CPU: [`thread`](Self::thread) is its own ID.
    pub unsafe fn with_current<R>(&self, f: impl FnOnce(Option<&Task>) -> R) -> R {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out on this thread, which cannot happen
        // before `f` has returned.
        f(unsafe { self.current().as_ref() })
    }

    /// The CPU's own [tag](crate::Cpu::tag), which holds while no task runs here.
    ///
    /// A signal handler may read it, too.
    #[must_use]
    #[inline]
    pub fn own_tag(&self) -> u32 {
        // Relaxed: the number stands alone.
        self.own_tag.load(Ordering::Relaxed)
    }

    pub(super) fn set_own_tag(&self, tag: u32) -> u32 {
        let before = self.own_tag();
        // Relaxed: the number stands alone, and only this thread writes it.
        self.own_tag.store(tag, Ordering::Relaxed);
        before
    }

    pub(crate) fn is_of(&self, system: &System) -> bool {
        ptr::eq(self.system, system)
    }

    /// A PMU's per-CPU data, or null. The data lives while the PMU is registered, and until every section in which it was has
    /// ended.
    #[inline(always)]
    pub(crate) fn data(&self, pmu: usize) -> *const () {
        // Acquire: pairs with the Release in `set_data`.
        self.data[pmu].load(Ordering::Acquire)
    }

    /// Makes a PMU's data for this CPU visible to switches.
    pub(crate) fn set_data(&self, pmu: &dyn AnyPmu) {
        let data = pmu.cpu_data(self.index as usize);
        // Release: pairs with the Acquire in `data`.
        self.data[pmu.state().index].store(data.cast_mut(), Ordering::Release);
    }

    /// Removes the data of a PMU that was unregistered.
    pub(crate) fn take_data(&self, pmu: usize) {
        // Relaxed: a grace period has passed since the last hook that could load the pointer.
        self.data[pmu].store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Whether a thread is telling the PMU right now that this CPU is online.
    pub(crate) fn is_telling(&self, pmu: &dyn AnyPmu) -> bool {
        let told = self.told[pmu.state().index].load(Ordering::Relaxed);
        told == with_serial(pmu, TELLING)
    }

    /// Claims the record for the calling thread. The caller holds the system's lock.
    pub(crate) fn go_online(&self) -> bool {
        // Acquire: pairs with the Release in `go_offline`, so that we see the former owner's writes.
        if self.online.swap(true, Ordering::Acquire) {
            return false;
        }
        self.own_tag.store(0, Ordering::Relaxed);
        self.thread.store(thread_number(), Ordering::Relaxed);
        // Relaxed: the system's lock orders this, and PMUs are registered under that lock, too.
        self.told.iter().for_each(|told| told.store(HERE, Ordering::Relaxed));
        true
    }

    pub(super) fn go_offline(&self) {
        self.thread.store(0, Ordering::Relaxed);
        if !self.current().is_null() {
            // A suspended run may still end here, so the record is not reused.
            return self.count_disorder();
        }
        self.strays.open();
        // Release: pairs with the Acquire in `go_online`.
        self.online.store(false, Ordering::Release);
    }

    /// Tells a PMU that this CPU is online, once. Both the CPU's own thread and the thread that registers the PMU try to.
    pub(crate) fn tell_online(&self, pmu: &dyn AnyPmu) {
        let told = &self.told[pmu.state().index];
        loop {
            let now = told.load(Ordering::Relaxed);
            if now == AWAY || now >> 2 == pmu.state().serial {
                return;
            }
            // Acquire: pairs with the Release of the last change. If the place's former PMU is still being told, we wait for
            // its hook.
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
        // Release: pairs with the Acquire in `tell_offline`. Stored even if the hook panics.
        let done = OnUnwind(|| told.store(with_serial(pmu, TOLD), Ordering::Release));
        pmu.cpu_online(self);
        drop(done);
    }

    /// Tells the PMU in that place that this CPU goes offline, if the PMU was told that it is online. From then on no PMU is
    /// told that it is online.
    ///
    /// The CPU's own thread calls this, and waits for a hook that another thread is calling.
    pub(super) fn tell_offline(&self, place: usize) {
        let told = &self.told[place];
        loop {
            let now = told.load(Ordering::Relaxed);
            // AcqRel: Acquire pairs with the Release in `tell_online`, and Release with the Acquire there.
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
        // Relaxed: for statistics.
        self.disorders.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn current(&self) -> *mut Task {
        // Relaxed: only the thread that writes it reads it here.
        self.current.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn owed(&self) -> u32 {
        // Relaxed: only this thread uses it.
        self.owed.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn set_owed(&self, owed: u32) {
        // Relaxed: only this thread uses it.
        self.owed.store(owed, Ordering::Relaxed);
    }

    /// The hooks of a switch: the current task leaves, and `incoming` comes. Must not be called in a hook.
    #[inline(never)]
    pub(super) fn switch(&'static self, incoming: Option<&Task>, leaves: Edge, comes: Edge) {
        // SAFETY: null, or a task that its runner keeps alive until it is switched out, which happens on this thread.
        let outgoing = unsafe { self.current().as_ref() };
        Hooks { record: self, outgoing, incoming, leaves, comes }.call();
    }

    /// Counts a switch that does not change the current task.
    pub(super) fn count_switch(&self) {
        self.set_current(self.current());
    }

    /// Puts a task on top of the chain as it is now, after the hooks have run.
    ///
    /// # Safety
    /// `task` is the pointer of an `Arc` with a strong count, which the runner of the task keeps until the task has left the
    /// chain.
    #[inline(always)]
    pub(super) unsafe fn arrive(&self, task: *mut Task) {
        let below = self.current();
        // The pointer is stored as it came, because a handle may be made from it. SAFETY: the task is alive, by the caller's
        // contract.
        let (at, task) = (task, unsafe { &*task });
        // Nearly always no task runs here, and a task that is in no chain has a null `outer`.
        if !below.is_null() {
            task.set_outer(below);
        }
        self.set_current_and_id(at, task.id().get());
    }

    /// Takes a task off the top of the chain as it is now, after the hooks have run.
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
        // Relaxed: other threads do not follow the pointer, and this thread's signal handlers see it in program order.
        self.current.store(task, Ordering::Relaxed);
        // Relaxed: only this thread writes it.
        let switches = self.switches.load(Ordering::Relaxed) + 1;
        // Release: pairs with the Acquire in `current_id`.
        self.ids[(switches & 1) as usize].store(id, Ordering::Release);
        // Release: pairs with the Acquire in `switches`.
        self.switches.store(switches, Ordering::Release);
    }
}

#[cfg(target_os = "linux")]
fn thread_number() -> u32 {
    // SAFETY: `gettid` takes no arguments and touches no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

#[cfg(not(target_os = "linux"))]
fn thread_number() -> u32 {
    0
}
