//! Stints: what a task has used since it was last switched in, and what the PMU has not charged to it yet.

use pertask_core::{Count, CpuRecord, Pmu};

/// A PMU that tells other threads about the stint that runs on a CPU.
pub(crate) trait Stints: Pmu {
    /// Starts to count for the task that runs on the CPU at this moment, unless it is counted already. The thread that has just
    /// attached calls this.
    fn adopt_running(&self, cpu: &CpuRecord, cpu_data: &Self::CpuData);

    /// What the running stint has used so far, or `None` if it may have been charged already.
    ///
    /// The caller has read the CPU's count of switches, and then the counts to which the stint is charged at its end. If this
    /// returns a count, the stint is the one of `switches`, and those counts do not include it.
    fn running(
        &self,
        cpu: &CpuRecord,
        cpu_data: &Self::CpuData,
        switches: u64,
    ) -> Option<Self::Count>;

    /// Adds the running stint to the counts of its task.
    fn with_stint(settled: &mut Self::Count, stint: &Self::Count) {
        settled.add(stint);
    }
}
