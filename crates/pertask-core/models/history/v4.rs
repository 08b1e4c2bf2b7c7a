//! V4 as posted in 2021, "perf: Save PMU specific data in task_struct": a spinlock on each task, and a bias in the reference
//! count for the system-wide events.

use super::Version;
use super::kernel::{Cpu, Task};
use super::memory::{Gfp, Ptr, Refused};

pub(super) const V4: Version =
    Version { attach_task, detach_task, attach_global, detach_global, fork_hook, exit_hook };

/// `TASK_DATA_SYS_WIDE`: 2^24 in the kernel, scaled down so that a model can reach the limit.
const SYS_WIDE: u32 = 8;
/// `MAX_NR_TASK_DATA_EVENTS`.
pub(super) const MAX_EVENTS: u32 = SYS_WIDE / 2;

fn attach_task(cpu: &Cpu, task: &Task) -> Result<(), Refused> {
    let new = cpu.alloc(false, Gfp::Wait)?;
    let _lock = task.lock();
    let Some(found) = task.slot.load(cpu) else {
        if cpu.global_events().read() != 0 {
            cpu.look(new).refcount.add(SYS_WIDE);
        }
        task.slot.assign(Some(new));
        cpu.step(format_args!(
            "attach_task: {new} is in the slot of {task}, count {}",
            cpu.look(new).refcount.read()
        ));
        return Ok(());
    };
    free(cpu, new);
    let refcount = &cpu.look(found).refcount;
    let events = refcount.read() & !SYS_WIDE;
    if events > MAX_EVENTS {
        cpu.step(format_args!("attach_task: {events} events on {task} already"));
        return Err(Refused);
    }
    refcount.add(1);
    Ok(())
}

/// `attach_system_wide_ctx_data`.
fn attach_global(cpu: &Cpu) -> Result<(), Refused> {
    // nr_threads.
    let tasks = cpu.tasks().count();
    cpu.global_events().add_from_any(1);
    let mut spare = allocate(cpu, tasks, Gfp::Quick);
    let mut failed = hand_out(cpu, &mut spare);
    if failed == 0 {
        // Meant for the tasks that still have no data: as many as failed.
        spare = allocate(cpu, failed, Gfp::Wait);
        failed = hand_out(cpu, &mut spare);
    }
    if failed != 0 {
        cpu.step(format_args!("attach_global: {failed} tasks without data; success is returned"));
    }
    spare.into_iter().for_each(|unused| free(cpu, unused));
    Ok(())
}

fn allocate(cpu: &Cpu, count: usize, gfp: Gfp) -> Vec<Ptr> {
    (0..count).map_while(|_| cpu.alloc(false, gfp).ok()).collect()
}

/// Gives each task data, or adds the bias to the data it has. Returns how many tasks got neither.
fn hand_out(cpu: &Cpu, spare: &mut Vec<Ptr>) -> usize {
    let mut failed = 0;
    let _section = cpu.rcu_read_lock();
    for task in cpu.tasks() {
        let _lock = task.lock();
        if let Some(found) = task.slot.load(cpu) {
            let refcount = &cpu.look(found).refcount;
            if refcount.read() & SYS_WIDE == 0 {
                refcount.add(SYS_WIDE);
            }
        } else if let Some(new) = spare.pop() {
            cpu.look(new).refcount.set(SYS_WIDE);
            task.slot.assign(Some(new));
        } else {
            failed += 1;
        }
    }
    failed
}

fn detach_task(cpu: &Cpu, task: &Task) {
    let _lock = task.lock();
    let Some(found) = task.slot.load(cpu) else { return };
    let count = cpu.look(found).refcount.dec();
    cpu.step(format_args!("detach_task: dropped a reference to {found} (count {count})"));
    if count == 0 {
        take_out(cpu, task, found);
    }
}

/// `detach_system_wide_ctx_data`.
fn detach_global(cpu: &Cpu) {
    if cpu.global_events().dec() != 0 {
        return;
    }
    cpu.step("detach_global: the last");
    let _section = cpu.rcu_read_lock();
    for task in cpu.tasks() {
        let _lock = task.lock();
        // Another event has come.
        if cpu.global_events().read() != 0 {
            return;
        }
        detach_bias(cpu, &task);
    }
}

/// `detach_task_ctx_data_sys_wide`, under the lock.
fn detach_bias(cpu: &Cpu, task: &Task) {
    let Some(found) = task.slot.load(cpu) else { return };
    cpu.step(format_args!("detach_global: takes the bias off {found}"));
    if cpu.look(found).refcount.sub(SYS_WIDE) == 0 {
        take_out(cpu, task, found);
    }
}

/// `perf_event_alloc_task_data`; the cache comes from the parent, as in the merged version.
fn fork_hook(cpu: &Cpu, child: &Task, _parent: &Task) {
    if cpu.global_events().read() == 0 {
        cpu.step("fork: no global event");
        return;
    }
    let Ok(new) = cpu.alloc(false, Gfp::Wait) else { return };
    let _lock = child.lock();
    if child.slot.load(cpu).is_some() {
        free(cpu, new);
    } else {
        cpu.look(new).refcount.set(SYS_WIDE);
        child.slot.assign(Some(new));
        cpu.step(format_args!("fork: {new} is in the slot of {child}"));
    }
    if cpu.global_events().read() == 0 {
        detach_bias(cpu, child);
    }
}

/// `detach_task_ctx_data(task, force)`: no matter who else holds the data.
fn exit_hook(cpu: &Cpu, task: &Task) {
    let _lock = task.lock();
    if let Some(found) = task.slot.load(cpu) {
        take_out(cpu, task, found);
    }
}

fn take_out(cpu: &Cpu, task: &Task, found: Ptr) {
    task.slot.assign(None);
    cpu.memory().free_rcu(found);
}

/// `free_perf_ctx_data`.
fn free(cpu: &Cpu, unused: Ptr) {
    cpu.memory().kfree(unused);
}
