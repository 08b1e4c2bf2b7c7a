//! As much of a kernel as the kernel's versions of the protocol need: CPUs, tasks, the list of tasks, a percpu rwsem.

use super::memory::{CtxData, Gfp, Memory, Ptr, Refcount, Refused, Section, Slot};
use super::trace::{self, Fault, fault};
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel};
use loom::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::fmt::{self, Display};
use std::sync::Arc;

/// A thread of a model, which makes the steps.
pub(super) struct Cpu {
    number: usize,
    kernel: Arc<Kernel>,
}

/// A `struct task_struct`.
pub(super) struct Task {
    number: usize,
    pub(super) slot: Slot,
    /// `PF_EXITING`.
    exiting: AtomicBool,
    /// V4's lock.
    lock: Mutex<()>,
}

struct Kernel {
    memory: Memory,
    list: List,
    rwsem: RwLock<()>,
    /// Global events: `global_ctx_data_ref`, V4's `nr_task_data_sys_wide_events`.
    global_events: Refcount,
    /// Plain numbers, outside loom.
    figures: std::sync::Mutex<Figures>,
}

#[derive(Default)]
struct Figures {
    tasks: usize,
    visits: usize,
    /// The most tasks that walks of others visited while one fork or exit waited.
    waited: usize,
}

/// The list of tasks. It is RCU's, so each step of a walk stands alone, and a task that has left still leads to the next.
struct List {
    tasks: std::sync::Mutex<Vec<(Arc<Task>, bool)>>,
    /// The word that orders the steps.
    order: AtomicUsize,
}

/// A kernel with one task and two CPUs.
pub(super) fn boot() -> ([Cpu; 2], Arc<Task>) {
    let list = List { tasks: std::sync::Mutex::default(), order: AtomicUsize::new(0) };
    let kernel = Arc::new(Kernel {
        memory: Memory::new(),
        list,
        rwsem: RwLock::new(()),
        global_events: Refcount::new(0),
        figures: std::sync::Mutex::default(),
    });
    let cpus = [0, 1].map(|number| Cpu { number, kernel: Arc::clone(&kernel) });
    let first = cpus[0].new_task();
    cpus[0].enter_list(&first, None);
    (cpus, first)
}

impl Cpu {
    /// Records a step.
    pub(super) fn step(&self, what: impl Display) {
        trace::step(self.number, what);
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.kernel.memory
    }

    pub(super) fn alloc(&self, global: bool, gfp: Gfp) -> Result<Ptr, Refused> {
        self.memory().alloc(global, gfp)
    }

    pub(super) fn look(&self, ptr: Ptr) -> Arc<CtxData> {
        self.memory().look(ptr)
    }

    pub(super) fn rcu_read_lock(&self) -> Section<'_> {
        self.memory().rcu_read_lock()
    }

    pub(super) fn global_events(&self) -> &Refcount {
        &self.kernel.global_events
    }

    fn figures<R>(&self, f: impl FnOnce(&mut Figures) -> R) -> R {
        f(&mut self.kernel.figures.lock().unwrap_or_else(|failed| failed.into_inner()))
    }

    /// How many tasks walks have visited, counting repeated visits.
    pub(super) fn visits(&self) -> usize {
        self.figures(|figures| figures.visits)
    }

    /// Makes a task that is not in the list yet.
    pub(super) fn new_task(&self) -> Arc<Task> {
        let number = self.figures(|figures| {
            figures.tasks += 1;
            figures.tasks
        });
        let exiting = AtomicBool::new(false);
        Arc::new(Task { number, slot: Slot::new(), exiting, lock: Mutex::new(()) })
    }

    /// Makes a task at the end of the list. No hook has seen it.
    pub(super) fn spawn_plain(&self) -> Arc<Task> {
        let task = self.new_task();
        let last = self.kernel.list.last();
        self.enter_list(&task, last.as_deref());
        task
    }

    /// Enters a task behind another, as a thread is listed behind the thread that made it.
    pub(super) fn enter_list(&self, task: &Arc<Task>, behind: Option<&Task>) {
        self.kernel.list.insert(task, behind);
        if behind.is_some() {
            self.step(format_args!("fork: {task} is in the list of tasks"));
        }
    }

    /// Removes a task, and with it its pointer to data.
    pub(super) fn leave_list(&self, task: &Task) {
        self.kernel.list.remove(task);
        self.step(format_args!("exit: {task} is gone"));
    }

    /// A walk: `for_each_process_thread`.
    pub(super) fn tasks(&self) -> impl Iterator<Item = Arc<Task>> {
        let mut at = None;
        std::iter::from_fn(move || {
            at = self.kernel.list.next(at.as_deref());
            if at.is_some() {
                self.figures(|figures| figures.visits += 1);
            }
            at.clone()
        })
    }

    /// `percpu_down_write`.
    pub(super) fn down_write(&self) -> RwLockWriteGuard<'_, ()> {
        self.kernel.rwsem.write().unwrap()
    }

    /// `percpu_down_read`.
    pub(super) fn down_read(&self, who: &str) -> RwLockReadGuard<'_, ()> {
        if let Ok(held) = self.kernel.rwsem.try_read() {
            return held;
        }
        self.step(format_args!("{who}: waits for the rwsem"));
        let before = self.visits();
        let held = self.kernel.rwsem.read().unwrap();
        let waited = self.visits() - before;
        self.step(format_args!("{who}: has waited while a walk visited {waited} tasks"));
        self.figures(|figures| figures.waited = figures.waited.max(waited));
        held
    }

    /// Reports a fault if fork or exit has waited for at least as many visits as there are tasks.
    pub(super) fn expect_no_wait(&self, tasks: usize) {
        let waited = self.figures(|figures| figures.waited);
        if waited >= tasks {
            fault(Fault::Waited, format_args!("for {waited} visits of a walk over {tasks} tasks"));
        }
    }

    /// Reports a fault unless the task has live data with that many references, and the global event's mark if `global`.
    pub(super) fn expect_references(&self, task: &Task, references: u32, global: bool) {
        let _section = self.rcu_read_lock();
        let Some(data) = task.slot.load(self) else {
            fault(Fault::Hole, format_args!("{task} has no data"));
        };
        let data = self.look(data);
        let found = (data.refcount.read(), data.is_global());
        if found.0 == 0 {
            fault(Fault::Hole, format_args!("{task} has dead data"));
        }
        if found != (references, global) {
            let what = format_args!(
                "{task}'s data has {} references for {references} holders, and {} mark",
                found.0,
                if found.1 { "the" } else { "no" }
            );
            fault(Fault::References, what);
        }
    }

    /// Reports a fault if any data is left.
    pub(super) fn expect_all_freed(&self, whose: &str) {
        let live = self.memory().live();
        if live != 0 {
            fault(Fault::Leak, format_args!("{live} data left that nobody holds: {whose}"));
        }
    }
}

impl Task {
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap()
    }

    pub(super) fn is_exiting(&self) -> bool {
        self.exiting.fetch_or(false, AcqRel)
    }

    /// `exit_signals`.
    pub(super) fn set_exiting(&self, cpu: &Cpu) {
        self.exiting.swap(true, AcqRel);
        cpu.step(format_args!("exit: {self} is PF_EXITING"));
    }
}

impl List {
    fn locked<R>(&self, f: impl FnOnce(&mut Vec<(Arc<Task>, bool)>) -> R) -> R {
        self.order.fetch_add(1, AcqRel);
        f(&mut self.tasks.lock().unwrap_or_else(|failed| failed.into_inner()))
    }

    fn insert(&self, task: &Arc<Task>, behind: Option<&Task>) {
        self.locked(|tasks| {
            let at = behind.map_or(0, |behind| position(tasks, behind) + 1);
            tasks.insert(at, (Arc::clone(task), true));
        });
    }

    fn remove(&self, task: &Task) {
        self.locked(|tasks| {
            let at = position(tasks, task);
            tasks[at].1 = false;
        });
    }

    fn last(&self) -> Option<Arc<Task>> {
        self.locked(|tasks| tasks.last().map(|(task, _)| Arc::clone(task)))
    }

    fn next(&self, after: Option<&Task>) -> Option<Arc<Task>> {
        self.locked(|tasks| {
            let from = after.map_or(0, |after| position(tasks, after) + 1);
            tasks[from..].iter().find(|(_, listed)| *listed).map(|(task, _)| Arc::clone(task))
        })
    }
}

fn position(tasks: &[(Arc<Task>, bool)], task: &Task) -> usize {
    let same = |(other, _): &(Arc<Task>, bool)| other.number == task.number;
    tasks.iter().position(same).expect("a task that was never in the list")
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.number)
    }
}
