//! The reviewer's sketch of May 2021: an exchange instead of a lock on each task, a field `global` instead of the bias, and a
//! percpu rwsem around the global events. It leaves the hooks of fork and exit open.

use super::Version;
use super::kernel::{Cpu, Task};
use super::memory::{Gfp, Ptr, Refused};

pub(super) const SKETCH: Version = Version {
    attach_task,
    detach_task,
    attach_global,
    detach_global,
    fork_hook: no_hook,
    exit_hook,
};

/// The outcome of an attach: new data is in the slot, or there was live data.
pub(super) enum Attached {
    Installed(Ptr),
    Shared,
}

/// `attach_task_ctx_data`, for an event on the task.
pub(super) fn attach_task(cpu: &Cpu, task: &Task) -> Result<(), Refused> {
    attach(cpu, task, false, Gfp::Wait).map(drop)
}

/// `attach_task_ctx_data`, for any caller. It accesses the data that it found without a section.
pub(super) fn attach(cpu: &Cpu, task: &Task, global: bool, gfp: Gfp) -> Result<Attached, Refused> {
    let new = cpu.alloc(global, gfp)?;
    let mut old = None;
    loop {
        match task.slot.try_cmpxchg(cpu, old, Some(new)) {
            Ok(()) => {
                cpu.step(format_args!("attach_task: {new} is in the slot of {task}"));
                if let Some(dead) = old {
                    cpu.memory().free_rcu(dead);
                }
                return Ok(Attached::Installed(new));
            }
            Err(found) => old = found,
        }
        let Some(found) = old else { continue };
        cpu.step(format_args!("attach_task: found {found} in the slot of {task}"));
        if let Some(count) = cpu.look(found).refcount.inc_not_zero() {
            cpu.step(format_args!("attach_task: took a reference to it ({count}), no mark"));
            cpu.memory().free(new);
            return Ok(Attached::Shared);
        }
    }
}

/// `attach_global_ctx_data`.
pub(super) fn attach_global(cpu: &Cpu) -> Result<(), Refused> {
    if cpu.global_events().inc_not_zero().is_some() {
        return Ok(());
    }
    let _rwsem = cpu.down_write();
    if cpu.global_events().inc_not_zero().is_some() {
        return Ok(());
    }
    if let Err(refused) = give_data_to_all(cpu) {
        take_data_from_all(cpu);
        return Err(refused);
    }
    cpu.global_events().set(1);
    cpu.step("attach_global: the walk is over, the count of global events is 1");
    Ok(())
}

/// An allocation may sleep, so the section ends, and the walk with it. The walk begins again at the first task.
fn give_data_to_all(cpu: &Cpu) -> Result<(), Refused> {
    loop {
        let lacking = {
            let _section = cpu.rcu_read_lock();
            cpu.tasks().find(|task| lacks_data(cpu, task))
        };
        let Some(task) = lacking else { return Ok(()) };
        attach(cpu, &task, true, Gfp::Wait)?;
    }
}

/// Marks the data that is there, and takes a reference. Returns true if there is no live data.
pub(super) fn lacks_data(cpu: &Cpu, task: &Task) -> bool {
    let Some(found) = task.slot.load(cpu) else {
        cpu.step(format_args!("attach_global: {task} has no data"));
        return true;
    };
    let data = cpu.look(found);
    if data.is_global() {
        return false;
    }
    data.set_global(true);
    let count = data.refcount.inc_not_zero();
    if let Some(count) = count {
        cpu.step(format_args!("attach_global: marked {found}, took a reference ({count})"));
    }
    count.is_none()
}

/// `detach_task_ctx_data`: drops a reference to whatever data is in the slot.
pub(super) fn detach_task(cpu: &Cpu, task: &Task) {
    let dead = {
        let _section = cpu.rcu_read_lock();
        let Some(found) = task.slot.load(cpu) else { return };
        cpu.step(format_args!("detach_task: found {found} in the slot of {task}"));
        let count = cpu.look(found).refcount.dec();
        cpu.step(format_args!("detach_task: dropped a reference to it ({count})"));
        if count != 0 {
            return;
        }
        found
    };
    if task.slot.try_cmpxchg(cpu, Some(dead), None).is_ok() {
        cpu.step(format_args!("detach_task: its address was in the slot: out, and to be freed"));
        cpu.memory().free_rcu(dead);
    }
}

/// `detach_global_ctx_data`.
fn detach_global(cpu: &Cpu) {
    detach_global_with(cpu, take_data_from_all);
}

pub(super) fn detach_global_with(cpu: &Cpu, take_data_from_all: impl FnOnce(&Cpu)) {
    if cpu.global_events().dec_not_one() {
        return;
    }
    let _rwsem = cpu.down_write();
    if cpu.global_events().dec() == 0 {
        take_data_from_all(cpu);
    }
}

pub(super) fn take_data_from_all(cpu: &Cpu) {
    let _section = cpu.rcu_read_lock();
    for task in cpu.tasks() {
        if unmark(cpu, &task) {
            detach_task(cpu, &task);
        }
    }
}

/// Removes the mark. Returns true if there was one.
pub(super) fn unmark(cpu: &Cpu, task: &Task) -> bool {
    let Some(found) = task.slot.load(cpu) else { return false };
    let data = cpu.look(found);
    let marked = data.is_global();
    if marked {
        data.set_global(false);
        cpu.step(format_args!("detach_global: took the mark off {found}"));
    }
    marked
}

fn no_hook(_: &Cpu, _: &Task, _: &Task) {}

fn exit_hook(_: &Cpu, _: &Task) {}
