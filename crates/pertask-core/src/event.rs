//! An attached use of a PMU (the kernel's `perf_event`). Dropping it detaches it.

use crate::count::Count;
use crate::ctx_data::CtxRef;
use crate::error::Error;
use crate::family::Family;
use crate::pmu::{Pmu, PmuHandle, Registered};
use crate::primitive::Arc;
use crate::task::Task;
use std::fmt;
use std::sync::Arc as StdArc;

/// The tasks that an event is attached to.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// One task (`perf_event`'s `hw.target`).
    Task(&'a Arc<Task>, Inherit),
    /// Every task of the system, including future tasks.
    Global,
}

/// Whether the tasks that a task makes inherit its event, and so on for their children (`perf_event_attr.inherit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit {
    /// The event counts the task alone.
    No,
    /// The event counts the task, and every descendant that is made from now on.
    Children,
}

/// An attached use of one PMU.
///
/// An event owns exactly the references that it took, and gives back exactly those when it is dropped. It can be read at any
/// time, even after its task has ended. A forgotten ([`std::mem::forget`]) event stays attached.
#[must_use = "an event detaches when it is dropped"]
pub struct Event<P: Pmu> {
    pmu: &'static Registered<P>,
    uses: Uses<P>,
}

enum Uses<P: Pmu> {
    Task {
        task: Arc<Task>,
        held: Option<CtxRef>,
        base: P::Count,
    },
    Family(StdArc<Family<P>>),
    Global {
        base: P::Count,
    },
    /// An event on a task, of a PMU that keeps no data.
    NoData,
}

impl<P: Pmu> PmuHandle<P> {
    /// Attaches an event to a target.
    ///
    /// # Errors
    /// The errors of [`attach_task`](Self::attach_task) and [`attach_global`](Self::attach_global).
    pub fn attach(self, target: Target<'_>) -> Result<Event<P>, Error> {
        match target {
            Target::Task(task, inherit) => self.attach_task(task, inherit),
            Target::Global => self.attach_global(),
        }
    }

    /// Attaches an event to a task.
    ///
    /// The event counts from now on. The cost of the attach does not depend on the number of tasks.
    ///
    /// # Errors
    /// [`Error::TaskExited`], [`Error::OtherSystem`], [`Error::Unregistered`], [`Error::CacheLimit`], [`Error::OutOfMemory`].
    /// An attach that fails leaves nothing behind.
    pub fn attach_task(self, task: &Arc<Task>, inherit: Inherit) -> Result<Event<P>, Error> {
        let pmu = self.0;
        if !std::ptr::eq(task.system(), pmu.state.system) {
            return Err(Error::OtherSystem);
        }
        // Before there is data, so that no switch of a task with data goes uncounted.
        let counted = pmu.state.count_event()?;
        let uses = match inherit {
            _ if !pmu.state.has_data && task.has_exited() => return Err(Error::TaskExited),
            _ if !pmu.state.has_data => Uses::NoData,
            Inherit::Children => Uses::Family(Family::begin(pmu, task)?),
            Inherit::No => {
                let (held, base) = pmu.attach(task)?;
                Uses::Task { task: Arc::clone(task), held: Some(held), base }
            }
        };
        counted.keep();
        Ok(Event { pmu, uses })
    }

    /// Attaches an event to every task, including future tasks.
    ///
    /// When this returns, every live task has data before it next runs. The first global event of a PMU walks all tasks; spawn
    /// and exit do not wait for the walk. Later global events take a reference and return.
    ///
    /// # Errors
    /// [`Error::CacheLimit`], [`Error::OutOfMemory`], [`Error::InsideHook`], [`Error::BarrierRefused`],
    /// [`Error::Unregistered`]. An attach that fails leaves nothing behind.
    pub fn attach_global(self) -> Result<Event<P>, Error> {
        let state = &self.0.state;
        let counted = state.count_event()?;
        state.global.attach(state)?;
        counted.keep();
        Ok(Event { pmu: self.0, uses: Uses::Global { base: P::Count::default() } })
    }
}

impl<P: Pmu> Event<P> {
    /// The counts of all tasks that the event is attached to.
    ///
    /// For an event on a task: the counts since the attach or the last [`reset`](Self::reset), including those of descendants
    /// that have ended. For a global event: the sum over the data of all tasks, live and ended. The data may be older than the
    /// event, so take the difference of two reads, or call `reset` first. What a running task does now is counted when the task
    /// is next switched out.
    ///
    /// # Panics
    /// If called inside another read of the same counts on the same thread: in a PMU's own `read`, or in the closure of a
    /// [`snapshot`](PmuHandle::snapshot).
    #[must_use]
    pub fn read(&self) -> P::Count {
        match &self.uses {
            Uses::Task { held: Some(held), base, .. } => self.pmu.read(held.data()).since(base),
            Uses::Task { held: None, .. } | Uses::NoData => P::Count::default(),
            Uses::Family(family) => family.read(),
            Uses::Global { base } => self.sum().since(base),
        }
    }

    /// Starts counting from zero (`PERF_EVENT_IOC_RESET`).
    ///
    /// # Errors
    /// [`Error::Inherited`] if children inherit the event: such an event has no single zero.
    ///
    /// # Panics
    /// In the same cases as [`read`](Self::read).
    pub fn reset(&mut self) -> Result<(), Error> {
        let now = match &self.uses {
            Uses::Task { held: Some(held), .. } => self.pmu.read(held.data()),
            Uses::Global { .. } => self.sum(),
            Uses::Task { held: None, .. } | Uses::NoData => return Ok(()),
            Uses::Family(_) => return Err(Error::Inherited),
        };
        if let Uses::Task { base, .. } | Uses::Global { base } = &mut self.uses {
            *base = now;
        }
        Ok(())
    }

    /// How many descendants got no data, and so are missing from the counts.
    ///
    /// For a global event, see [`PmuHandle::tasks_without_data`].
    #[must_use]
    pub fn lost(&self) -> u64 {
        match &self.uses {
            Uses::Family(family) => family.lost(),
            Uses::Task { .. } | Uses::Global { .. } | Uses::NoData => 0,
        }
    }

    fn sum(&self) -> P::Count {
        let mut sum = P::Count::default();
        for path in PmuHandle(self.pmu).snapshot(|_| {}) {
            sum.add(&path.count);
        }
        sum
    }
}

impl<P: Pmu> Drop for Event<P> {
    fn drop(&mut self) {
        let state = &self.pmu.state;
        match &mut self.uses {
            Uses::Task { task, held, .. } => {
                if let Some(held) = held.take() {
                    let _ = task.slot(state.index).put(held);
                }
            }
            Uses::Family(family) => family.close(),
            Uses::Global { .. } => state.global.detach(state),
            Uses::NoData => {}
        }
        state.uncount_event();
    }
}

impl<P: Pmu> fmt::Debug for Event<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match &self.uses {
            Uses::Task { task, .. } => format!("task {}", task.id()),
            Uses::Family(_) => "a task and its descendants".to_owned(),
            Uses::Global { .. } => "all tasks".to_owned(),
            Uses::NoData => "a task, without data".to_owned(),
        };
        f.debug_struct("Event").field("pmu", &P::NAME).field("target", &target).finish()
    }
}
