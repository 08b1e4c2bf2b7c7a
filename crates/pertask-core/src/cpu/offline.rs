//! The end of a CPU, with its thread or before.

use super::Cpu;
use super::record::IN_HOOKS;
use crate::active::MAX_PMUS;
use crate::foreign::quietly;
use crate::task::Task;

impl Cpu {
    /// Gives back what the thread has as a CPU.
    ///
    /// Returns true if it gave back everything, so that this `Cpu` is no longer needed. Returns false if a suspended run may
    /// still end here; everything that the run could touch then stays as it is, for good.
    fn go_offline(&self) -> bool {
        // Tasks that were switched in and left here end now.
        while self.current_task().is_some_and(Task::is_carried) && !self.is_in_hooks() {
            quietly(|| self.switch_out());
        }
        self.settle();
        if !self.record.current().is_null() {
            let last = self.record.strays.close();
            // In a hook, nobody may leave the chain.
            if !self.is_in_hooks() {
                self.bring_home(last);
            }
        }
        for pmu in 0..MAX_PMUS {
            quietly(|| self.record.tell_offline(pmu));
        }
        let is_free = self.record.current().is_null();
        if is_free {
            self.mine.release();
        } else {
            // From now on no hook is called here.
            self.record.set_owed(IN_HOOKS);
        }
        self.record.go_offline();
        is_free
    }

    /// Ends the CPU of an ending thread. The CPU was made by `Box::into_raw`.
    ///
    /// # Safety
    /// Nobody borrows the CPU except runs that are suspended on it.
    #[cfg(not(any(pertask_loom, pertask_shuttle)))]
    pub(crate) unsafe fn end_boxed(cpu: std::ptr::NonNull<Self>) {
        // SAFETY: the CPU is a live box, by the caller's contract.
        if unsafe { cpu.as_ref() }.go_offline() {
            // `go_offline` has done the work of its drop. SAFETY: no run is suspended on the CPU, so nobody borrows it.
            drop(unsafe { Box::from_raw(cpu.cast::<std::mem::ManuallyDrop<Self>>().as_ptr()) });
        }
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        self.go_offline();
    }
}
