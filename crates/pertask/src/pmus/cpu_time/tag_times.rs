//! The CPU time of all CPUs by tag.

use super::{CpuTime, CpuTimeCpu};
use crate::os::clock::Choice;
use crate::pmus::by_tag;
use pertask_core::{CpuRecord, System};

/// How often a reading tries to read a CPU without a switch in between.
const TRIES: usize = 4;

/// Makes the wanted room on each CPU, if the PMU is registered. A CPU that comes now finds what is wanted, or is found here.
pub(crate) fn make_all_room() {
    let Some(handle) = CpuTime::registered() else { return };
    System::global().for_each_cpu(|cpu| {
        if let Some(data) = handle.cpu_data(cpu) {
            data.by_tag.make_all_room();
        }
    });
}

/// The CPU time at one place, of all CPUs' tasks, without stints that run at this moment.
pub(crate) fn of_place(place: usize) -> u64 {
    let Some(handle) = CpuTime::registered() else { return 0 };
    let mut sum = 0;
    System::global().for_each_cpu(|cpu| {
        sum += handle.cpu_data(cpu).map_or(0, |data| data.by_tag.of_place(place)[0]);
    });
    sum
}

/// The CPU time of all CPUs' tasks, by place. It includes the stints that run at this moment, except those of tasks that ran
/// already when the PMU was attached.
pub(crate) fn read() -> Vec<u64> {
    let mut sums = Vec::new();
    let Some(handle) = CpuTime::registered() else { return sums };
    System::global().for_each_cpu(|cpu| {
        let Some(data) = handle.cpu_data(cpu) else { return };
        let of_cpu = read_cpu(cpu, data, handle.pmu().clock);
        sums.resize(sums.len().max(of_cpu.len()), 0);
        sums.iter_mut().zip(of_cpu).for_each(|(sum, ns)| *sum += ns);
    });
    sums
}

/// One CPU's times. The running stint is counted once, even if it ends meanwhile.
fn read_cpu(cpu: &CpuRecord, data: &CpuTimeCpu, clock: &Choice) -> Vec<u64> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let switches = cpu.switches();
        let mut all: Vec<_> = data.by_tag.all().map(|[cpu_ns]| cpu_ns).collect();
        let stint = data.running_tag(cpu, switches, clock);
        // Without a stint, one may just be ending: then it has been charged by the next try.
        let is_ending = stint.is_none() && !data.is_adopted(switches) && cpu.current_id().is_some();
        if tries > 0 && (is_ending || cpu.switches() != switches) {
            continue;
        }
        if let Some((tag, ns)) = stint
            && let Some(of_tag) = all.get_mut(by_tag::place_of(tag))
        {
            *of_tag += ns;
        }
        return all;
    }
}
