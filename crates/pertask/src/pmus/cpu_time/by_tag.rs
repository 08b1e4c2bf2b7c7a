//! CPU time by tag: what tasks have used while they had each tag.
//!
//! Each CPU counts for itself, so tasks on different CPUs that have the same tag share no memory. A tag's lower bits are its
//! place in the table of each CPU, so a switch finds its counter by two loads. Tables have room before a tag is in use: a switch
//! does not allocate.

use super::{CpuTime, CpuTimeCpu, add};
use crate::os::clock::Choice;
use pertask_core::{CpuRecord, System};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// The number of places that a tag's lower bits can name.
pub(crate) const PLACES: u32 = 1 << 20;

/// Places for which memory is allocated at a time.
const CHUNK: usize = 1024;

/// The CPU time of one CPU's tasks, by the place of their tag.
#[derive(Debug, Default)]
pub(super) struct ByTag {
    chunks: OnceLock<Box<[Chunk]>>,
}

/// INVARIANT: a counter never falls. Only the CPU's own thread writes it.
type Chunk = OnceLock<Box<[AtomicU64]>>;

/// How often a reading tries to read a CPU without a switch in between.
const TRIES: usize = 16;

/// The number of chunks that every CPU has.
static CHUNKS: AtomicUsize = AtomicUsize::new(0);

/// The place of a tag.
#[inline(always)]
pub(crate) fn place_of(tag: u32) -> usize {
    (tag & (PLACES - 1)) as usize
}

/// Makes room for a place on each CPU, and on those that come. Call this before a task has the place's tag.
pub(crate) fn make_room(place: usize) {
    let wanted = place / CHUNK + 1;
    // Relaxed: a thread that finds the number large enough got its place's tag from one that has been past the fence.
    if CHUNKS.load(Ordering::Relaxed) >= wanted {
        return;
    }
    CHUNKS.fetch_max(wanted, Ordering::Relaxed);
    // SeqCst: pairs with the fence in `make_all_room`. A CPU that comes now finds the number, or is found below.
    fence(Ordering::SeqCst);
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
        sum += handle.cpu_data(cpu).map_or(0, |data| data.by_tag.of_place(place));
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
        let mut all: Vec<_> = data.by_tag.all().collect();
        let stint = data.running_tag(cpu, switches, clock);
        // Without a stint, one may just be ending: then it has been charged by the next try.
        let is_ending = stint.is_none() && cpu.current_id().is_some();
        if tries > 0 && (is_ending || cpu.switches() != switches) {
            continue;
        }
        if let Some((tag, ns)) = stint
            && let Some(of_tag) = all.get_mut(place_of(tag))
        {
            *of_tag += ns;
        }
        return all;
    }
}

impl ByTag {
    /// Makes the room that all CPUs have.
    pub(super) fn make_all_room(&self) {
        // SeqCst: pairs with the fence in `make_room`.
        fence(Ordering::SeqCst);
        // Relaxed: the fences order it.
        let wanted = CHUNKS.load(Ordering::Relaxed);
        if wanted == 0 {
            return;
        }
        let none = || (0..PLACES as usize / CHUNK).map(|_| Chunk::new()).collect();
        for chunk in &self.chunks.get_or_init(none)[..wanted] {
            chunk.get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(0)).collect());
        }
    }

    /// Adds to the time of a tag. Only the CPU's own thread calls this.
    pub(super) fn charge(&self, tag: u32, cpu_ns: u64) {
        if let Some(cell) = self.cell(place_of(tag)) {
            add(cell, cpu_ns);
        }
    }

    fn cell(&self, place: usize) -> Option<&AtomicU64> {
        Some(&self.chunks.get()?[place / CHUNK].get()?[place % CHUNK])
    }

    fn of_place(&self, place: usize) -> u64 {
        // Relaxed: a figure.
        self.cell(place).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    fn all(&self) -> impl Iterator<Item = u64> {
        let chunks = self.chunks.get().into_iter().flatten();
        // Relaxed: a figure.
        chunks.map_while(OnceLock::get).flatten().map(|ns| ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_charged_at_its_place_and_needs_room() {
        let by_tag = ByTag::default();
        by_tag.charge(7, 1);
        assert_eq!(by_tag.all().sum::<u64>(), 0, "no room, and no harm");
        make_room(CHUNK + 1);
        by_tag.make_all_room();
        by_tag.charge(7, 2);
        by_tag.charge(7 | 5 << 20, 3);
        by_tag.charge(CHUNK as u32 + 1, 4);
        assert_eq!(by_tag.all().nth(7), Some(5), "the place, whatever stands above it");
        assert_eq!(by_tag.all().nth(CHUNK + 1), Some(4));
        assert_eq!(by_tag.all().sum::<u64>(), 9);
    }
}
