//! The hooks of one switch: each is called once, even if another panics.

use super::record::{CpuRecord, IN_HOOKS};
use crate::active::MAX_PMUS;
use crate::foreign::{OnUnwind, quietly};
use crate::pmu::Edge;
use crate::rcu;
use crate::task::Task;

/// The hooks of one switch.
///
/// While they run, the record's `owed` shows how far they have come, next to [`IN_HOOKS`]: first the PMUs that must still be
/// told that the task leaves, then the PMUs that have been told that the other task comes.
#[derive(Clone, Copy)]
pub(super) struct Hooks<'a> {
    pub(super) record: &'static CpuRecord,
    pub(super) outgoing: Option<&'a Task>,
    pub(super) incoming: Option<&'a Task>,
    pub(super) leaves: Edge,
    pub(super) comes: Edge,
}

impl Hooks<'_> {
    /// Calls all hooks, even if one panics. Must not be called in a hook.
    #[inline(always)]
    pub(super) fn call(self) {
        let record = self.record;
        let owed = record.owed();
        for task in [self.outgoing, self.incoming].into_iter().flatten() {
            task.whereabouts().take_in_hand();
        }
        // One section for all hooks, so that the data each finds stays alive while they run.
        let section = rcu::enter();
        let active = record.system.active_mask();
        if let Some(outgoing) = self.outgoing {
            let others = OnUnwind(move || self.finish_sched_out());
            // Also tells the PMUs whose first event was attached while the task ran.
            self.sched_out(outgoing, owed | active, section.token());
            std::mem::forget(others);
        }
        let Some(incoming) = self.incoming else {
            return record.set_owed(0);
        };
        let others = OnUnwind(move || self.finish_sched_in());
        let told = self.sched_in(incoming, active, 0, section.token());
        std::mem::forget(others);
        record.set_owed(told);
    }

    /// Tells the PMUs of `rest` that the outgoing task leaves.
    #[inline(always)]
    fn sched_out(self, outgoing: &Task, rest: u32, section: rcu::Token<'_>) {
        let (record, system) = (self.record, self.record.system);
        let mut rest = rest & !IN_HOOKS;
        // Counts up instead of finding the lowest bit: the processor can then predict the PMU before it has the mask.
        for index in 0..MAX_PMUS as u32 {
            if rest >> index == 0 {
                break;
            }
            if rest & (1 << index) == 0 {
                continue;
            }
            rest &= !(1 << index);
            // Cleared before the call, so that no hook is called twice.
            record.set_owed(IN_HOOKS | rest);
            if let Some(pmu) = system.pmu(index) {
                pmu.sched_out(record, outgoing, self.leaves, section);
            }
        }
    }

    /// Tells the PMUs of `rest` that the incoming task comes. Returns them together with `told`.
    #[inline(always)]
    fn sched_in(self, incoming: &Task, rest: u32, told: u32, section: rcu::Token<'_>) -> u32 {
        let (record, system) = (self.record, self.record.system);
        let mut told = told | IN_HOOKS;
        for index in 0..MAX_PMUS as u32 {
            if rest >> index == 0 {
                break;
            }
            if rest & (1 << index) != 0
                && let Some(pmu) = system.pmu(index)
            {
                told |= 1 << index;
                // Set before the call, so that the PMU gets its `sched_out` even if this hook panics.
                record.set_owed(told);
                pmu.sched_in(record, incoming, self.comes, section);
            }
        }
        told & !IN_HOOKS
    }

    /// Calls the remaining hooks after one panicked while a task left.
    #[cold]
    #[inline(never)]
    fn finish_sched_out(self) {
        let (record, section) = (self.record, rcu::enter());
        let Some(outgoing) = self.outgoing else { return };
        while !quietly(|| self.sched_out(outgoing, record.owed(), section.token())) {}
        record.set_owed(IN_HOOKS);
        self.finish_sched_in();
    }

    /// Calls the remaining hooks after one panicked while a task left or came.
    #[cold]
    #[inline(never)]
    fn finish_sched_in(self) {
        let (record, section) = (self.record, rcu::enter());
        let Some(incoming) = self.incoming else { return record.set_owed(0) };
        loop {
            let told = record.owed() & !IN_HOOKS;
            let next = u32::BITS - told.leading_zeros();
            let rest = record.system.active_mask() & u32::MAX.checked_shl(next).unwrap_or(0);
            if quietly(|| {
                self.sched_in(incoming, rest, told, section.token());
            }) {
                break;
            }
        }
        record.set_owed(record.owed() & !IN_HOOKS);
    }
}
