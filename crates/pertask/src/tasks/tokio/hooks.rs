//! Every task of a runtime, by tokio's own hooks: also those that libraries spawn, and without a change where they do.
//!
//! For programs built with `--cfg tokio_unstable`. The hooks are uneven (a `LocalSet` and the `block_on` root fire none,
//! some terminations come without a spawn), so they add to the wrapper and do not replace it. Where both meet, in
//! `tokio::spawn(future.task("name"))`, the wrapper has the task: it knows the name.

use crate::tasks::run;
use pertask_core::{Cpu, OwnedTask, Task, TaskId};
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, LazyLock};
use tokio::runtime::{Builder, TaskMeta};
use tokio::task::Id;

/// Has every task of the runtime seen that `builder` will build.
///
/// It takes tokio's four task hooks, of which a runtime has one each. A program with hooks of its own calls
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

/// A task of tokio's that the hooks have seen.
struct Seen {
    /// The right to run its task, while nobody runs it.
    ///
    /// INVARIANT: null, or from `OwnedTask::into_raw`; who swaps it out owns it.
    idle: AtomicPtr<Task>,
    /// tokio has ended it. Whoever holds the right to the task, or comes to hold it, ends that too.
    ended: AtomicBool,
    /// The wrapped future that was made just before it was spawned, and probably is what it runs.
    suspect: Option<TaskId>,
    spawned_at: &'static Location<'static>,
}

/// A poll under way on this thread.
struct Polling {
    seen: Arc<Seen>,
    /// The task that was switched in for it.
    task: Option<TaskId>,
    /// The suspect has been polled in it: the wrapper has the task.
    confirmed: bool,
}

// Lock-free: it is looked into at each poll.
static SEEN: LazyLock<papaya::HashMap<Id, Arc<Seen>>> = LazyLock::new(papaya::HashMap::new);

thread_local! {
    /// The wrapped future that was made last on this thread, until it is spawned or polled.
    static MADE: Cell<Option<TaskId>> = const { Cell::new(None) };
    /// Innermost last: a poll may run another runtime.
    static POLLING: RefCell<Vec<Polling>> = const { RefCell::new(Vec::new()) };
}

/// A future was wrapped on this thread.
pub(crate) fn made(task: TaskId) {
    MADE.set(Some(task));
}

/// A wrapped future is polled on this thread.
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

/// For [`Builder::on_task_spawn`].
pub fn task_spawn(meta: &TaskMeta<'_>) {
    let suspect = MADE.take();
    let spawned_at = meta.spawned_at();
    let task = suspect.is_none().then(|| run::fork(None, spawned_at));
    let idle = AtomicPtr::new(task.map_or(ptr::null_mut(), into_raw));
    let seen = Seen { idle, ended: AtomicBool::new(false), suspect, spawned_at };
    SEEN.pin().insert(meta.id(), Arc::new(seen));
}

/// For [`Builder::on_before_task_poll`].
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

/// For [`Builder::on_after_task_poll`].
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

/// For [`Builder::on_task_terminate`].
pub fn task_terminate(meta: &TaskMeta<'_>) {
    // Some end that never began, as far as the hooks go.
    if let Some(seen) = SEEN.pin().remove(&meta.id()) {
        seen.end();
    }
}

/// The task runs something else than the wrapped future made before it: from its second poll on it is one of ours.
fn unsuspect(id: Id, seen: &Seen) {
    run::count_untracked();
    let idle = AtomicPtr::new(into_raw(run::fork(None, seen.spawned_at)));
    let ended = AtomicBool::new(false);
    let seen = Seen { idle, ended, suspect: None, spawned_at: seen.spawned_at };
    SEEN.pin().insert(id, Arc::new(seen));
}

impl Seen {
    /// Switches the task in on this thread.
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

    /// Switches the task out on this thread, if it is still what runs here.
    fn switch_out(&self, task: TaskId) {
        let task = Cpu::with(|cpu| {
            let is_current = cpu.record().current_id() == Some(task);
            is_current.then(|| cpu.switch_out()).flatten()
        });
        if let Some(task) = task {
            self.put(task);
        }
    }

    /// tokio reschedules a task a moment before it calls the hook after its poll: another worker may have to wait for that
    /// moment. It waits for no longer.
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
        // AcqRel: Acquire pairs with the Release in `put`, with what the task's last CPU wrote.
        let task = self.idle.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: what stands in `idle` comes from `into_raw`, and the swap gives it to us alone.
        (!task.is_null()).then(|| unsafe { OwnedTask::from_raw(task) })
    }

    fn put(&self, task: OwnedTask) {
        // SeqCst, for its Release: pairs with the Acquire in `take`; and with `ended`: either `end` sees the task here, or we
        // see that it has ended.
        self.idle.store(into_raw(task), Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            drop(self.take());
        }
    }

    fn end(&self) {
        // SeqCst: pairs with `put`.
        self.ended.store(true, Ordering::SeqCst);
        drop(self.take());
    }
}

fn into_raw(task: OwnedTask) -> *mut Task {
    task.into_raw().cast_mut()
}
