//! What the tasks of all CPUs have allocated and freed, by tag.

use super::count::MemoryCount;
use super::{Memory, MemoryCpu};
use crate::pmus::by_tag;
use pertask_core::{CpuRecord, System};

/// How often a reading tries to read a CPU without a switch in between.
const TRIES: usize = 4;

/// The amounts of a tag, in this order.
pub(super) const AMOUNTS: usize = 4;

pub(super) fn amounts(count: MemoryCount) -> [u64; AMOUNTS] {
    let MemoryCount { allocated_bytes, allocations, freed_bytes, frees } = count;
    [allocated_bytes, allocations, freed_bytes, frees]
}

fn count([allocated_bytes, allocations, freed_bytes, frees]: [u64; AMOUNTS]) -> MemoryCount {
    MemoryCount { allocated_bytes, allocations, freed_bytes, frees }
}

fn for_each_cpu(mut f: impl FnMut(&CpuRecord, &MemoryCpu)) {
    let Some(handle) = Memory::registered() else { return };
    System::global().for_each_cpu(|cpu| {
        if let Some(data) = handle.cpu_data(cpu) {
            f(cpu, data);
        }
    });
}

/// Makes the wanted room on each CPU, if the PMU is registered. A CPU that comes now finds what is wanted, or is found here.
pub(crate) fn make_all_room() {
    for_each_cpu(|_, data| data.by_tag.make_all_room());
}

/// What was counted at one place, without stints that run at this moment.
pub(crate) fn of_place(place: usize) -> MemoryCount {
    let mut sum = MemoryCount::default();
    for_each_cpu(|_, data| sum = sum.plus(count(data.by_tag.of_place(place))));
    sum
}

/// What was counted, by place. It includes the stints that run at this moment, except those of tasks that ran already when the PMU
/// was attached.
pub(crate) fn read() -> Vec<MemoryCount> {
    let mut sums = Vec::new();
    for_each_cpu(|cpu, data| {
        let of_cpu = read_cpu(cpu, data);
        sums.resize(sums.len().max(of_cpu.len()), MemoryCount::default());
        sums.iter_mut().zip(of_cpu).for_each(|(sum, more)| *sum = sum.plus(more));
    });
    sums
}

/// What one CPU has counted. The running stint is counted once, even if it ends meanwhile.
fn read_cpu(cpu: &CpuRecord, data: &MemoryCpu) -> Vec<MemoryCount> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let switches = cpu.switches();
        let mut all: Vec<_> = data.by_tag.all().map(count).collect();
        let stint = data.running_tag(cpu, switches);
        // Without a stint, one may just be ending: then it has been charged by the next try.
        let is_ending = stint.is_none() && !data.is_adopted(switches) && cpu.current_id().is_some();
        if tries > 0 && (is_ending || cpu.switches() != switches) {
            continue;
        }
        if let Some((tag, more)) = stint
            && let Some(of_tag) = all.get_mut(by_tag::place_of(tag))
        {
            *of_tag = of_tag.plus(more);
        }
        return all;
    }
}
