//! The PMU behind it: at each switch, the thread's record becomes that of the task that runs.

use super::record::Record;
use super::{keys, slot};
use crate::error::Error;
use pertask_core::{CpuRecord, Event, Pmu, PmuHandle, Switch, System, Task};
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Publishes the running task of each thread. It counts nothing, and keeps no data for tasks.
#[derive(Debug)]
pub(super) struct ThreadContext(());

/// What the PMU keeps for a thread.
///
/// Only the thread itself writes it.
#[derive(Debug, Default)]
pub(super) struct ThreadContextCpu {
    record: Record,
    /// What the record was made of: the path and the tag of a task.
    task: AtomicU64,
    /// How many keys were known then, plus 1; or 0 before.
    keys: AtomicUsize,
}

static HANDLE: OnceLock<Result<PmuHandle<ThreadContext>, pertask_core::Error>> = OnceLock::new();
static EVENT: Mutex<Option<Event<ThreadContext>>> = Mutex::new(None);

/// Attaches to all tasks, for good.
pub(super) fn attach() -> Result<(), Error> {
    let mut event = EVENT.lock().unwrap_or_else(PoisonError::into_inner);
    if event.is_none() {
        let register = || System::global().register(ThreadContext(()));
        let handle = HANDLE.get_or_init(register).map_err(Error::from)?;
        *event = Some(handle.attach_global()?);
    }
    Ok(())
}

impl Pmu for ThreadContext {
    const NAME: &'static str = "thread-context";
    type Data = ();
    type CpuData = ThreadContextCpu;
    type Count = ();

    fn sched_in(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.show(switch.task);
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        switch.cpu_data.record.set_valid(false);
    }

    fn cpu_offline(&self, _: &CpuRecord, _: &ThreadContextCpu) {
        slot::point_to(ptr::null());
    }

    fn read(&self, (): &()) {}
}

impl ThreadContextCpu {
    fn show(&self, task: &Task) {
        let (made_of, keys) =
            (u64::from(task.path().id()) << 32 | u64::from(task.tag()), keys::known() + 1);
        // Relaxed: only this thread writes them.
        let is_same = self.task.load(Ordering::Relaxed) == made_of
            && self.keys.load(Ordering::Relaxed) == keys;
        if is_same {
            self.record.set_valid(true);
        } else {
            self.record.write(task);
            self.task.store(made_of, Ordering::Relaxed);
            self.keys.store(keys, Ordering::Relaxed);
        }
        // The core never frees what it keeps for a CPU.
        slot::point_to(&raw const self.record);
    }
}
