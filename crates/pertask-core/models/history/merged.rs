//! The version merged in Linux 6.15 (506e64e710ff, "perf: attach/detach PMU specific data"): the sketch, plus the hooks of fork
//! and exit.

use super::Version;
use super::kernel::{Cpu, Task};
use super::memory::{Gfp, Refused};
use super::sketch::{self, attach_global, attach_task, detach_task};

pub(super) const MERGED: Version =
    Version { attach_task, detach_task, attach_global, detach_global, fork_hook, exit_hook };

/// The part of `perf_event_alloc` that concerns data: a failed attach ends in `__free_event`, which detaches.
pub(super) fn open_on_task(version: &Version, cpu: &Cpu, task: &Task) -> Result<(), Refused> {
    let opened = (version.attach_task)(cpu, task);
    if opened.is_err() {
        cpu.step("perf_event_alloc: no memory; the event is freed");
        (version.detach_task)(cpu, task);
    }
    opened
}

fn detach_global(cpu: &Cpu) {
    sketch::detach_global_with(cpu, take_data_from_all);
}

/// Begins again at the first task after each task that had data.
fn take_data_from_all(cpu: &Cpu) {
    loop {
        let marked = {
            let _section = cpu.rcu_read_lock();
            cpu.tasks().find(|task| sketch::unmark(cpu, task))
        };
        let Some(task) = marked else { return };
        detach_task(cpu, &task);
    }
}

/// `perf_event_alloc_task_data`.
pub(super) fn fork_hook(cpu: &Cpu, child: &Task, parent: &Task) {
    if cpu.global_events().read() == 0 {
        cpu.step("fork: no global event");
        return;
    }
    let cache_known = {
        let _section = cpu.rcu_read_lock();
        // The cache is taken from the parent's data.
        parent.slot.load(cpu).map(|data| cpu.look(data)).is_some()
    };
    if !cache_known {
        cpu.step(format_args!("fork: {parent} has no data, so {child} gets none"));
        return;
    }
    let _rwsem = cpu.down_read("fork");
    if child_lacks_data(cpu, child) && sketch::attach(cpu, child, true, Gfp::Wait).is_err() {
        cpu.step("fork: no memory; nobody is told");
    }
}

/// Marks data that the child has inherited. Returns true if there is no data, and there is a global event.
fn child_lacks_data(cpu: &Cpu, child: &Task) -> bool {
    let _section = cpu.rcu_read_lock();
    let Some(found) = child.slot.load(cpu) else { return cpu.global_events().read() != 0 };
    let data = cpu.look(found);
    if !data.is_global() {
        data.set_global(true);
        cpu.step(format_args!("fork: marked {found}"));
        data.refcount.add(1);
        cpu.step("fork: took a reference to it");
    }
    false
}

/// The end of `perf_event_exit_task`.
fn exit_hook(cpu: &Cpu, task: &Task) {
    let _rwsem = cpu.down_read("exit");
    detach_task(cpu, task);
    cpu.step(format_args!("exit: {task} has left perf"));
}
