//! A task: any unit of work that is switched in and out, seen by all who know of it, and owned by whoever runs it.

use crate::active::MAX_PMUS;
use crate::books::Mine;
use crate::foreign::quietly;
use crate::links::Links;
use crate::path::SpawnPath;
use crate::primitive::plain::{AtomicBool, AtomicPtr, AtomicU32};
use crate::primitive::{Arc, Ordering};
use crate::site::Site;
use crate::slot::Slot;
use crate::system::System;
use crate::task_table::Entry;
use std::fmt;
use std::num::NonZeroU64;
use std::ptr;

/// A task's number: unique in its system, never used again.
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

/// A task as others see it (the kernel's `task_struct`): its identity, and a slot for each PMU's data.
///
/// Whoever holds one may attach events to the task; that keeps neither the task nor its data alive.
#[repr(C)]
pub struct Task {
    // What each switch touches comes first, together.
    id: TaskId,
    system: &'static System,
    /// While the task runs: the task that it was switched in over, on the same CPU. Null while it does not. Only that CPU
    /// touches it.
    outer: AtomicPtr<Task>,
    slots: [Slot; MAX_PMUS],
    parent: Option<TaskId>,
    path: &'static SpawnPath,
    /// Events that this task's children inherit.
    pub(crate) links: Links<Task>,
    /// Where the task stands in the table, or null. Its owner's.
    entry: AtomicPtr<Entry<Task>>,
    /// See [`tag`](Self::tag).
    tag: AtomicU32,
    /// Whether the CPU that runs the task has been given the right to it. Only that CPU touches it.
    carried: AtomicBool,
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
            system,
            slots: std::array::from_fn(|_| Slot::new()),
            links: Links::new(),
            entry: AtomicPtr::new(ptr::null_mut()),
            outer: AtomicPtr::new(ptr::null_mut()),
            tag: AtomicU32::new(0),
            carried: AtomicBool::new(false),
        }
    }

    /// The task's number.
    #[must_use]
    #[inline]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The task that made it, which may have ended.
    #[must_use]
    pub fn parent(&self) -> Option<TaskId> {
        self.parent
    }

    /// The site where it was made, with its name.
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

    /// The system that it belongs to.
    #[must_use]
    #[inline]
    pub fn system(&self) -> &'static System {
        self.system
    }

    /// Whether the task has ended.
    ///
    /// It may end at any time after the answer "no".
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.slots[0].is_tombstone()
    }

    /// A number that the core's users hang on a task, for them to say what it stands for.
    ///
    /// A task begins with the tag of the task that makes it, or of the [CPU](crate::Cpu::tag), or with 0. Profilers keep the number
    /// of a set of labels here: a signal handler can read it.
    #[must_use]
    #[inline]
    pub fn tag(&self) -> u32 {
        // Relaxed: a number.
        self.tag.load(Ordering::Relaxed)
    }

    /// Sets the [`tag`](Self::tag), and returns the one before.
    #[inline]
    pub fn set_tag(&self, tag: u32) -> u32 {
        let before = self.tag();
        // Relaxed: a number, set by who runs the task.
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

    /// The task's entry in the table, if it has entered.
    #[inline]
    pub(crate) fn entry(&self) -> Option<ptr::NonNull<Entry<Task>>> {
        // Relaxed: its owner's.
        ptr::NonNull::new(self.entry.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set_entry(&self, entry: ptr::NonNull<Entry<Task>>) {
        self.entry.store(entry.as_ptr(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn outer(&self) -> *mut Task {
        // Relaxed: one CPU's own chain.
        self.outer.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_outer(&self, outer: *mut Task) {
        // Relaxed: one CPU's own chain.
        self.outer.store(outer, Ordering::Relaxed);
    }

    pub(crate) fn is_carried(&self) -> bool {
        // Relaxed: one CPU's own.
        self.carried.load(Ordering::Relaxed)
    }

    pub(crate) fn set_carried(&self, carried: bool) {
        // Relaxed: one CPU's own.
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

/// The one right to run a task.
///
/// Dropping it ends the task. It cannot be copied, and a run borrows it exclusively or takes it along: a task runs on one CPU
/// at a time because nothing else can be written. Forgotten ([`std::mem::forget`]), the task stays in the table as one that is
/// never polled again.
#[must_use = "a task ends when this is dropped"]
pub struct OwnedTask(pub(crate) Arc<Task>);

impl OwnedTask {
    /// The task, for others to look at and attach to.
    #[must_use]
    pub fn handle(&self) -> Arc<Task> {
        Arc::clone(&self.0)
    }

    /// The task, borrowed, for others to look at and attach to.
    #[must_use]
    pub fn handle_ref(&self) -> &Arc<Task> {
        &self.0
    }

    /// Turns the right to the task into a pointer, to be kept in an atomic word.
    ///
    /// The task lives until the right comes back through [`from_raw`](Self::from_raw) and is dropped.
    #[cfg(not(pertask_loom))]
    #[must_use]
    pub fn into_raw(self) -> *const Task {
        Arc::as_ptr(&std::mem::ManuallyDrop::new(self).0)
    }

    /// Takes the right to a task back from [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    /// The pointer comes from `into_raw`, and is given back once.
    #[cfg(not(pertask_loom))]
    pub unsafe fn from_raw(task: *const Task) -> Self {
        // SAFETY: `into_raw` kept one strong count of the `Arc` whose pointer this is; the rest is the caller's.
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
        let library = self.0.system.library();
        match library.here() {
            Some(mine) => self.0.system.exit(&mut self.0, mine),
            None => {
                let claimed = library.claim_for_now(self.0.id.get() as usize);
                self.0.system.exit(&mut self.0, claimed.mine());
            }
        }
    }

    /// Ends the task, with the books of this thread.
    #[inline]
    pub(crate) fn exit_with(self, mine: Mine<'_>) {
        let mut ending = std::mem::ManuallyDrop::new(self);
        // SAFETY: taken out once, and not dropped again.
        let mut task = unsafe { ptr::read(&raw mut ending.0) };
        task.system.exit(&mut task, mine);
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
