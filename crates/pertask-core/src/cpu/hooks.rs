//! The hooks of one switch: each is called once, whatever the others do.

use super::record::{CpuRecord, IN_HOOKS};
use crate::active::MAX_PMUS;
use crate::foreign::{OnUnwind, quietly};
use crate::pmu::Edge;
use crate::rcu;
use crate::task::Task;

/// The hooks of one switch. While they run, `owed` of the record says how far they are, beside [`IN_HOOKS`]: first which PMUs
/// are still to be told that a task leaves, then which have been told that one comes.
#[derive(Clone, Copy)]
pub(super) struct Hooks<'a> {
    pub(super) record: &'static CpuRecord,
    pub(super) outgoing: Option<&'a Task>,
    pub(super) incoming: Option<&'a Task>,
    pub(super) leaves: Edge,
    pub(super) comes: Edge,
}

impl Hooks<'_> {
    /// Calls all hooks, also if one panics. Not in a hook.
    #[inline(always)]
    pub(super) fn call(self) {
        let record = self.record;
        let owed = record.owed();
        // One section for all hooks: each finds data that stays as long as they run.
        let section = rcu::enter();
        let active = record.system.active_mask();
        if let Some(outgoing) = self.outgoing {
            let others = OnUnwind(move || self.finish_sched_out());
            // Also for the PMUs that were attached while the task ran.
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
        // By counting, not by the lowest bit: a guess of where the PMU is need not wait for the mask.
        for index in 0..MAX_PMUS as u32 {
            if rest >> index == 0 {
                break;
            }
            if rest & (1 << index) == 0 {
                continue;
            }
            rest &= !(1 << index);
            // Crossed off before it is called: so none is called twice.
            record.set_owed(IN_HOOKS | rest);
            if let Some(pmu) = system.pmu(index) {
                pmu.sched_out(record, outgoing, self.leaves, section);
            }
        }
    }

    /// Tells the PMUs of `rest` that the incoming task comes. Those that have been told, and those of `told`.
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
                // Noted before it is called: so it is owed a `sched_out` also if it panics.
                record.set_owed(told);
                pmu.sched_in(record, incoming, self.comes, section);
            }
        }
        told & !IN_HOOKS
    }

    /// Calls the hooks that are left, after one has panicked as a task left.
    #[cold]
    #[inline(never)]
    fn finish_sched_out(self) {
        let (record, section) = (self.record, rcu::enter());
        let Some(outgoing) = self.outgoing else { return };
        while !quietly(|| self.sched_out(outgoing, record.owed(), section.token())) {}
        record.set_owed(IN_HOOKS);
        self.finish_sched_in();
    }

    /// Calls the hooks that are left, after one has panicked as a task left or came.
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
