//! tokio's task hooks, which track every task of a runtime: those that libraries spawn, too, and without a change to the code
//! that spawns them.
//!
//! The hooks are for programs built with `--cfg tokio_unstable`, and need tokio 1.46.1 or later. They do not cover everything: a `LocalSet` and the root future
//! of `block_on` call no hook, and some tasks end whose spawn called none. So the hooks add to [`Tracked`](crate::Tracked) and
//! do not replace it. Where both see a task, in `tokio::spawn(future.task("name"))`, the wrapper tracks it, because it
//! knows the name.

use crate::tasks::accounts::Held;
use crate::tasks::run;
use pertask_core::{Cpu, OwnedTask, Task, TaskId};
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, LazyLock};
use tokio::runtime::{Builder, TaskMeta};
use tokio::task::Id;

/// Tracks every task of the runtime that `builder` will build.
///
/// This function sets tokio's four task hooks. A runtime has each hook once, so a program with hooks of its own calls
/// [`task_spawn`], [`before_task_poll`], [`after_task_poll`] and [`task_terminate`] from them instead.
///
/// ```
/// let mut builder = tokio::runtime::Builder::new_multi_thread();
/// let runtime = pertask::tokio::track_runtime(&mut builder).build()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn track_runtime(builder: &mut Builder) -> &mut Builder {
    builder
        .on_task_spawn(task_spawn)
        .on_before_task_poll(before_task_poll)
        .on_after_task_poll(after_task_poll)
        .on_task_terminate(task_terminate)
}

/// A task of tokio's that the hooks have seen begin.
struct Seen {
    /// The right to run the task, while no thread runs it.
    ///
    /// INVARIANT: null, or a pointer from `OwnedTask::into_raw`. The thread that swaps the pointer out owns the task.
    idle: AtomicPtr<Task>,
    /// Whether tokio has ended the task. If so, the thread that has the right to run it, or takes that right next, ends it here.
    ended: AtomicBool,
    /// The account of the task's labels, which lives until the task has ended.
    _account: Option<Held>,
    /// The wrapped future that the thread made just before the spawn. It probably is what the task runs.
    suspect: Option<TaskId>,
    spawned_at: &'static Location<'static>,
}

/// A poll under way on the calling thread.
struct Polling {
    seen: Arc<Seen>,
    /// The task that was switched in for this poll.
    task: Option<TaskId>,
    /// Whether the suspect was polled in this poll. If so, the wrapper tracks the task.
    confirmed: bool,
}

// Lock-free: each poll looks its task up.
static SEEN: LazyLock<papaya::HashMap<Id, Arc<Seen>>> = LazyLock::new(papaya::HashMap::new);

thread_local! {
    /// The wrapped future that this thread made last, until it is spawned or polled.
    static MADE: Cell<Option<TaskId>> = const { Cell::new(None) };
    /// The polls under way, innermost last: a poll may run another runtime.
    static POLLING: RefCell<Vec<Polling>> = const { RefCell::new(Vec::new()) };
}

/// Notes that the calling thread has wrapped a future.
pub(crate) fn made(task: TaskId) {
    MADE.set(Some(task));
}

/// Notes that the calling thread polls a wrapped future.
pub(crate) fn polled(task: TaskId) {
    MADE.set(None);
    let _ = POLLING.try_with(|polling| {
        if let Ok(mut polling) = polling.try_borrow_mut()
            && let Some(innermost) = polling.last_mut()
            && innermost.seen.suspect == Some(task)
        {
            innermost.confirmed = true;
        }
    });
}

/// Notes a new task.
///
/// A program calls this from its [`Builder::on_task_spawn`] hook.
pub fn task_spawn(meta: &TaskMeta<'_>) {
    let suspect = MADE.take();
    let spawned_at = meta.spawned_at();
    let seen = match suspect {
        Some(_) => Seen { suspect, ..Seen::new(None, spawned_at) },
        None => Seen::new(Some(run::fork(None, spawned_at)), spawned_at),
    };
    SEEN.pin().insert(meta.id(), Arc::new(seen));
}

/// Switches a task in.
///
/// A program calls this from its [`Builder::on_before_task_poll`] hook.
pub fn before_task_poll(meta: &TaskMeta<'_>) {
    MADE.set(None);
    let Some(seen) = SEEN.pin().get(&meta.id()).cloned() else { return };
    let task = match seen.suspect {
        None => seen.switch_in(),
        Some(_) => None,
    };
    let _ = POLLING.try_with(|polling| {
        polling.borrow_mut().push(Polling { seen, task, confirmed: false });
    });
}

/// Switches a task out.
///
/// A program calls this from its [`Builder::on_after_task_poll`] hook.
pub fn after_task_poll(meta: &TaskMeta<'_>) {
    let ended = POLLING.try_with(|polling| polling.borrow_mut().pop()).ok().flatten();
    let Some(Polling { seen, task, confirmed }) = ended else { return };
    if let Some(task) = task {
        seen.switch_out(task);
    }
    if confirmed {
        SEEN.pin().remove(&meta.id());
    } else if seen.suspect.is_some() && !seen.ended.load(Ordering::SeqCst) {
        unsuspect(meta.id(), &seen);
    }
}

/// Ends a task.
///
/// A program calls this from its [`Builder::on_task_terminate`] hook.
pub fn task_terminate(meta: &TaskMeta<'_>) {
    // Some tasks end for which tokio called no other hook.
    if let Some(seen) = SEEN.pin().remove(&meta.id()) {
        seen.end();
    }
}

/// Tracks a task that turned out to run another future than the suspect. The hooks track it from its second poll on.
fn unsuspect(id: Id, seen: &Seen) {
    run::count_untracked();
    let seen = Seen::new(Some(run::fork(None, seen.spawned_at)), seen.spawned_at);
    SEEN.pin().insert(id, Arc::new(seen));
}

impl Seen {
    fn new(
        task: Option<(OwnedTask, Option<Held>)>,
        spawned_at: &'static Location<'static>,
    ) -> Self {
        let (task, account) = task.unzip();
        Self {
            idle: AtomicPtr::new(task.map_or(ptr::null_mut(), into_raw)),
            ended: AtomicBool::new(false),
            _account: account.flatten(),
            suspect: None,
            spawned_at,
        }
    }

    /// Switches the task in on the calling thread.
    fn switch_in(&self) -> Option<TaskId> {
        let Some(task) = self.take_soon() else {
            run::count_untracked();
            return None;
        };
        let id = task.id();
        if let Err(task) = Cpu::with(|cpu| cpu.switch_in(task)) {
            run::count_untracked();
            self.put(task);
            return None;
        }
        Some(id)
    }

    /// Switches the task out on the calling thread, if it still runs there.
    fn switch_out(&self, task: TaskId) {
        let task = Cpu::with(|cpu| {
            let is_current = cpu.record().current_id() == Some(task);
            is_current.then(|| cpu.switch_out()).flatten()
        });
        if let Some(task) = task {
            self.put(task);
        }
    }

    /// Takes the right to the task, and waits for it for a moment.
    ///
    /// tokio reschedules a task a moment before it calls the hook after the poll. So a worker that polls the task next may find
    /// the right still taken. It waits for no longer than that.
    fn take_soon(&self) -> Option<OwnedTask> {
        for _ in 0..64 {
            if let Some(task) = self.take() {
                return Some(task);
            }
            std::hint::spin_loop();
        }
        None
    }

    fn take(&self) -> Option<OwnedTask> {
        // AcqRel, for its Acquire: pairs with the Release in `put`, so that this thread sees what the task's last CPU wrote.
        let task = self.idle.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: a pointer in `idle` comes from `OwnedTask::into_raw`, and the swap has given it to this thread alone.
        (!task.is_null()).then(|| unsafe { OwnedTask::from_raw(task) })
    }

    fn put(&self, task: OwnedTask) {
        // SeqCst, for its Release: pairs with the Acquire in `take`. And SeqCst for the order with `ended`: if this store comes
        // first, `end` finds the task here; if `end`'s store comes first, the load below sees that the task has ended.
        self.idle.store(into_raw(task), Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            drop(self.take());
        }
    }

    fn end(&self) {
        // SeqCst: pairs with the two operations in `put`. If this store comes first, `put` ends the task; if not, the `take`
        // below does.
        self.ended.store(true, Ordering::SeqCst);
        drop(self.take());
    }
}

fn into_raw(task: OwnedTask) -> *mut Task {
    task.into_raw().cast_mut()
}
