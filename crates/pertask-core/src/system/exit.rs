//! The exit of a task: it leaves the table, its counts are folded, and its data is given back.

use super::System;
use crate::books::Mine;
use crate::foreign::{Delayed, OnUnwind, quietly};
use crate::primitive::Arc;
use crate::rcu;
use crate::slot::Left;
use crate::task::Task;

impl System {
    /// Ends a task (the kernel's `perf_event_exit_task`), using the calling thread's books.
    ///
    /// The exit takes no lock, and writes nothing that the exit of another task on another CPU writes or waits for, unless the
    /// task has inherited events, or [`Pmu::fold`](crate::Pmu::fold) does. It is finished even if a PMU panics, and the panic then goes on.
    #[inline]
    pub(crate) fn exit(&self, task: &mut Arc<Task>, mine: Mine<'_>) {
        mine.task_ended();
        let rest = OnUnwind(|| {
            quietly(|| self.exit_shared(task));
        });
        let shared = self.leave_and_fold(task, mine);
        std::mem::forget(rest);
        // The task is out of the table, so only those that hold it already can reach it.
        match Arc::get_mut(task) {
            Some(unshared) if !shared => self.exit_unshared(unshared, mine),
            _ => self.exit_shared(task),
        }
    }

    /// Takes the task out of the table and folds its counts, in one step for a reader of both. Returns true if a walk has the
    /// task pinned.
    #[allow(unsafe_code)]
    #[inline]
    fn leave_and_fold(&self, task: &Arc<Task>, mine: Mine<'_>) -> bool {
        let _window = mine.begin_end();
        let at_hand = &self.entries.of(mine.number()).0;
        let shared = task.entry().is_some_and(|entry| {
            // SAFETY: this is the entry that `enter` returned for this task, and a task ends once.
            let alone = unsafe { self.tasks.leave(at_hand, entry, task) };
            !alone
        });
        self.fold(task, mine, shared, 0);
        shared
    }

    /// Folds the counts of all PMUs from index `from` on.
    #[inline]
    fn fold(&self, task: &Arc<Task>, mine: Mine<'_>, shared: bool, from: usize) {
        for (index, slot) in task.slots().iter().enumerate().skip(from) {
            if slot.has_data() {
                let rest = OnUnwind(|| {
                    quietly(|| self.fold(task, mine, shared, index + 1));
                });
                let section = rcu::enter();
                if let Some(pmu) = self.pmu(index as u32) {
                    pmu.any().fold(task, mine, shared, section.token());
                }
                std::mem::forget(rest);
            }
        }
    }

    #[inline]
    fn exit_unshared(&self, task: &Task, mine: Mine<'_>) {
        // The task shares no family, because a family holds handles to its members.
        for (index, slot) in task.slots().iter().enumerate() {
            if !slot.is_empty() {
                self.count_left(index, slot.exit_unshared(mine));
            }
        }
    }

    #[cold]
    fn exit_shared(&self, task: &Task) {
        for (index, slot) in task.slots().iter().enumerate() {
            self.count_left(index, slot.exit());
        }
        let mut panics = Delayed::default();
        task.links.exit(&mut panics);
        panics.go_on();
    }

    fn count_left(&self, index: usize, left: Left) {
        if left == Left::Hole
            && let Some(pmu) = self.pmu(index as u32)
        {
            pmu.any().state().global.count_left(left);
        }
    }
}
