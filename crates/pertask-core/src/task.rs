//! A task: any unit of work that is switched in and out. One owner runs it; other threads hold handles to it.

use crate::active::MAX_PMUS;
use crate::books::Mine;
use crate::cpu::Whereabouts;
use crate::foreign::quietly;
use crate::links::Links;
use crate::path::SpawnPath;
use crate::primitive::plain::{AtomicBool, AtomicPtr, AtomicU32};
use crate::primitive::{Arc, Ordering};
use crate::site::Site;
use crate::slot::Slot;
use crate::start_time;
use crate::system::System;
use crate::task_table::Entry;
use std::fmt;
use std::num::NonZeroU64;
use std::ptr;

/// A task's number: unique in its system, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(NonZeroU64);

impl TaskId {
    pub(crate) fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// The number.
    #[must_use]
    #[inline]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A task as other threads see it (the kernel's `task_struct`): its identity, and a slot for each PMU's data.
///
/// Anyone who holds a `Task` may attach events to it. Holding one keeps neither the task nor its data alive.
#[repr(C)]
pub struct Task {
    // Fields that each switch touches come first, together.
    id: TaskId,
    system: &'static System,
    /// While the task runs: the task that it was switched in over, on the same CPU. Otherwise null. Only that CPU touches it.
    outer: AtomicPtr<Task>,
    slots: [Slot; MAX_PMUS],
    parent: Option<TaskId>,
    path: &'static SpawnPath,
    /// See [`start_time_ns`](Self::start_time_ns).
    start_time_ns: u64,
    /// Events that this task's children inherit.
    pub(crate) links: Links<Task>,
    /// The task's entry in the table, or null. Only the task's owner touches it.
    entry: AtomicPtr<Entry<Task>>,
    /// See [`tag`](Self::tag).
    tag: AtomicU32,
    /// Whether the task's CPU owns the right to run it. Only that CPU touches it.
    carried: AtomicBool,
    whereabouts: Whereabouts,
}

impl Task {
    pub(crate) fn new(
        id: TaskId,
        parent: Option<TaskId>,
        path: &'static SpawnPath,
        system: &'static System,
    ) -> Self {
        Self {
            id,
            parent,
            path,
            start_time_ns: start_time::now_ns(),
            system,
            slots: std::array::from_fn(|_| Slot::new()),
            links: Links::new(),
            entry: AtomicPtr::new(ptr::null_mut()),
            outer: AtomicPtr::new(ptr::null_mut()),
            tag: AtomicU32::new(0),
            carried: AtomicBool::new(false),
            whereabouts: Whereabouts::new(),
        }
    }

    /// The task's number.
    #[must_use]
    #[inline]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The task that made this task; it may have ended.
    #[must_use]
    pub fn parent(&self) -> Option<TaskId> {
        self.parent
    }

    /// The site where this task was made, which has its name.
    #[must_use]
    pub fn site(&self) -> &'static Site {
        self.path.site()
    }

    /// The task's place in the tree of spawns: its site, below the path of the task that made it.
    #[must_use]
    #[inline]
    pub fn path(&self) -> &'static SpawnPath {
        self.path
    }

    /// When the task was made, by `CLOCK_MONOTONIC` (the kernel's `start_time`), as of the last tick of the kernel's timer. 0 where there is no
    /// such clock.
    #[must_use]
    pub fn start_time_ns(&self) -> u64 {
        self.start_time_ns
    }

    /// The system that this task belongs to.
    #[must_use]
    #[inline]
    pub fn system(&self) -> &'static System {
        self.system
    }

    /// Whether the task has ended.
    ///
    /// The task may end at any time after this returned false.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.slots[0].is_tombstone()
    }

    /// A number that users of the core attach to a task, with a meaning of their own.
    ///
    /// A task starts with the tag of the task that makes it; without such a task, with the tag of the [CPU](crate::Cpu::tag),
    /// or with 0. Profilers store the number of a label set here, because a signal handler can read it.
    #[must_use]
    #[inline]
    pub fn tag(&self) -> u32 {
        // Relaxed: the number stands alone.
        self.tag.load(Ordering::Relaxed)
    }

    /// Sets the [`tag`](Self::tag), and returns the old one.
    #[inline]
    pub fn set_tag(&self, tag: u32) -> u32 {
        let before = self.tag();
        // Relaxed: the number stands alone, and only the thread that runs the task sets it.
        self.tag.store(tag, Ordering::Relaxed);
        before
    }

    #[inline]
    pub(crate) fn slot(&self, pmu: usize) -> &Slot {
        &self.slots[pmu]
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The task's entry in the table, if the task is in the table.
    #[inline]
    pub(crate) fn entry(&self) -> Option<ptr::NonNull<Entry<Task>>> {
        // Relaxed: only the task's owner touches it.
        ptr::NonNull::new(self.entry.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set_entry(&self, entry: ptr::NonNull<Entry<Task>>) {
        self.entry.store(entry.as_ptr(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn outer(&self) -> *mut Task {
        // Relaxed: the chain belongs to one CPU.
        self.outer.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_outer(&self, outer: *mut Task) {
        // Relaxed: the chain belongs to one CPU.
        self.outer.store(outer, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn whereabouts(&self) -> &Whereabouts {
        &self.whereabouts
    }

    pub(crate) fn is_carried(&self) -> bool {
        // Relaxed: the flag belongs to one CPU.
        self.carried.load(Ordering::Relaxed)
    }

    pub(crate) fn set_carried(&self, carried: bool) {
        // Relaxed: the flag belongs to one CPU.
        self.carried.store(carried, Ordering::Relaxed);
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("parent", &self.parent)
            .field("site", self.site())
            .finish_non_exhaustive()
    }
}

/// The exclusive right to run a task.
///
/// Dropping it ends the task. An `OwnedTask` cannot be copied, and a run borrows it exclusively or moves it, so a task runs on
/// at most one CPU at a time. A forgotten ([`std::mem::forget`]) task stays in the table like a task that is never polled
/// again.
#[must_use = "a task ends when this is dropped"]
pub struct OwnedTask(pub(crate) Arc<Task>);

impl OwnedTask {
    /// The task, for others to inspect and attach events to.
    #[must_use]
    pub fn handle(&self) -> Arc<Task> {
        Arc::clone(&self.0)
    }

    /// The task, borrowed, for others to inspect and attach events to.
    #[must_use]
    pub fn handle_ref(&self) -> &Arc<Task> {
        &self.0
    }

    /// Turns the right to the task into a pointer, which can be stored in an atomic.
    ///
    /// The task lives until [`from_raw`](Self::from_raw) turns the pointer back and the result is dropped.
    #[cfg(not(pertask_loom))]
    #[must_use]
    pub fn into_raw(self) -> *const Task {
        Arc::as_ptr(&std::mem::ManuallyDrop::new(self).0)
    }

    /// Turns a pointer from [`into_raw`](Self::into_raw) back into the right to the task.
    ///
    /// # Safety
    /// The pointer comes from `into_raw`, and is turned back at most once.
    #[cfg(not(pertask_loom))]
    pub unsafe fn from_raw(task: *const Task) -> Self {
        // SAFETY: the pointer is that of an `Arc` of which `into_raw` kept one strong count, and the caller turns it back once.
        Self(unsafe { Arc::from_raw(task) })
    }
}

impl std::ops::Deref for OwnedTask {
    type Target = Task;

    #[inline]
    fn deref(&self) -> &Task {
        &self.0
    }
}

impl fmt::Debug for OwnedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedTask").field(&self.0).finish()
    }
}

impl OwnedTask {
    #[inline]
    fn exit(&mut self) {
        if self.0.whereabouts.leave_end() {
            return;
        }
        let library = self.0.system.library();
        match library.here() {
            Some(mine) => self.0.system.exit(&mut self.0, mine),
            None => {
                let claimed = library.claim_for_now(self.0.id.get() as usize);
                self.0.system.exit(&mut self.0, claimed.mine());
            }
        }
    }

    /// Ends the task, using the calling thread's books.
    #[inline]
    pub(crate) fn exit_with(self, mine: Mine<'_>) {
        let mut ending = std::mem::ManuallyDrop::new(self);
        // SAFETY: the task is moved out once, and `ManuallyDrop` does not drop it again.
        let mut task = unsafe { ptr::read(&raw mut ending.0) };
        if !task.whereabouts.leave_end() {
            task.system.exit(&mut task, mine);
        }
    }
}

impl Drop for OwnedTask {
    #[inline]
    fn drop(&mut self) {
        // A second panic would abort the program.
        if std::thread::panicking() {
            quietly(|| self.exit());
        } else {
            self.exit();
        }
    }
}
