//! Stints: what a task has used since it was last switched in, and has not been charged yet.

use pertask_core::{CpuRecord, Pmu};

/// A PMU that can be asked by other threads about the stint that runs now on a CPU.
pub(crate) trait Stints: Pmu {
    /// Starts counting for the task that runs at this moment, if it is not counted yet. By who has just attached.
    fn adopt_running(&self, cpu: &CpuRecord, cpu_data: &Self::CpuData);

    /// What the stint has used that runs now, if it is the one of `switches`, and what has been read before this call of
    /// what it will be added to does not have it yet.
    fn running(
        &self,
        cpu: &CpuRecord,
        cpu_data: &Self::CpuData,
        switches: u64,
    ) -> Option<Self::Count>;
}
