//! The version repaired in 2026. Exit takes no lock, and attaches check `PF_EXITING` before and after (4960626f956d,
//! "perf/core: Fix slow perf_event_task_exit() with LBR callstacks"). The walk of an attach begins again only where a quick
//! allocation fails (bec2ee2390c9, "perf/core: Try to allocate task_ctx_data quickly"), and that of a detach never does
//! (da45c8d5f051, "perf/core: Simplify __detach_global_ctx_data()").

use super::Version;
use super::kernel::{Cpu, Task};
use super::memory::{Gfp, Refused};
use super::merged::fork_hook;
use super::sketch::{self, Attached, detach_task};

pub(super) const REPAIRED: Version =
    Version { attach_task, detach_task, attach_global, detach_global, fork_hook, exit_hook };

fn attach_task(cpu: &Cpu, task: &Task) -> Result<(), Refused> {
    attach(cpu, task, false, Gfp::Wait)
}

/// The second check is for data that was installed while the task began to end.
fn attach(cpu: &Cpu, task: &Task, global: bool, gfp: Gfp) -> Result<(), Refused> {
    let attached = sketch::attach(cpu, task, global, gfp)?;
    if let Attached::Installed(new) = attached
        && task.is_exiting()
    {
        cpu.step(format_args!("attach_task: {task} is exiting"));
        if task.slot.try_cmpxchg(cpu, Some(new), None).is_ok() {
            cpu.memory().free_rcu(new);
        }
    }
    Ok(())
}

fn attach_global(cpu: &Cpu) -> Result<(), Refused> {
    if cpu.global_events().inc_not_zero().is_some() {
        return Ok(());
    }
    let _rwsem = cpu.down_write();
    if cpu.global_events().inc_not_zero().is_some() {
        return Ok(());
    }
    if let Err(refused) = give_data_to_all(cpu) {
        sketch::take_data_from_all(cpu);
        return Err(refused);
    }
    cpu.global_events().set(1);
    cpu.step("attach_global: the walk is over, the count of global events is 1");
    Ok(())
}

fn give_data_to_all(cpu: &Cpu) -> Result<(), Refused> {
    loop {
        let lacking = {
            let _section = cpu.rcu_read_lock();
            cpu.tasks().find(|task| {
                !task.is_exiting()
                    && sketch::lacks_data(cpu, task)
                    && attach(cpu, task, true, Gfp::Quick).is_err()
            })
        };
        let Some(task) = lacking else { return Ok(()) };
        attach(cpu, &task, true, Gfp::Wait)?;
    }
}

fn detach_global(cpu: &Cpu) {
    sketch::detach_global_with(cpu, sketch::take_data_from_all);
}

/// Takes no rwsem.
fn exit_hook(cpu: &Cpu, task: &Task) {
    task.set_exiting(cpu);
    detach_task(cpu, task);
    cpu.step(format_args!("exit: {task} has left perf"));
}
