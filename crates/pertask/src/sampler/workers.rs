//! A PMU by which the sampler learns of threads that begin to run tasks before the collector's next search.

use super::bell;
use super::record::Record;
use pertask_core::{CpuRecord, Pmu, PmuHandle, Switch, System};
use std::sync::OnceLock;

/// A PMU that measures nothing. The core tells it of threads that become CPUs.
struct Workers;

/// Watches for such threads from now on. If the system has no place for this PMU, only searches find them.
pub(super) fn watch() {
    static HANDLE: OnceLock<Option<PmuHandle<Workers>>> = OnceLock::new();
    HANDLE.get_or_init(|| System::global().register(Workers).ok());
}

impl Pmu for Workers {
    const NAME: &'static str = "sampled workers";
    type Data = ();
    type CpuData = ();
    type Count = ();

    fn sched_in(&self, _: Switch<'_, Self>) {}

    fn sched_out(&self, _: Switch<'_, Self>) {}

    fn cpu_online(&self, cpu: &CpuRecord, (): &()) {
        let Some(thread) = cpu.thread() else { return };
        match Record::of_thread(thread) {
            Some(record) => record.set_cpu(cpu),
            None => bell::ring(),
        }
    }

    fn read(&self, (): &()) {}
}
