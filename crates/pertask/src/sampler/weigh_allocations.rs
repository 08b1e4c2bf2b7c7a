//! Weighing allocations by what was counted. Counting says to the byte what the tasks of a spawn path have allocated; the samples say
//! where. So the samples of a spawn path share that, in proportion to what each of them stood for. Where there is no sample, the bytes
//! are known and the place is not.

use super::division::Division;
use super::profile::RawAllocation;
use crate::pmus::memory::count::MemoryCount;
use std::cmp::Reverse;
use std::collections::HashMap;

/// What the tasks of a path have allocated.
struct Both {
    count: Division,
    bytes: Division,
}

/// Gives the allocations of each spawn path what its tasks have allocated. Adds one without a place where there is no sample.
pub(super) fn weigh(allocations: &mut Vec<RawAllocation>, counted: &HashMap<u32, MemoryCount>) {
    let both = |(path, count): (&u32, &MemoryCount)| {
        let MemoryCount { allocations, allocated_bytes, .. } = *count;
        (*path, Both { count: Division::of(allocations), bytes: Division::of(allocated_bytes) })
    };
    let mut paths: HashMap<u32, Both> = counted.iter().map(both).collect();
    for allocation in &*allocations {
        if let Some(Both { count, bytes }) = of(&mut paths, allocation) {
            count.all += u128::from(allocation.count);
            bytes.all += u128::from(allocation.bytes);
        }
    }
    for allocation in &mut *allocations {
        if let Some(Both { count, bytes }) = of(&mut paths, allocation) {
            allocation.count = count.next(allocation.count);
            allocation.bytes = bytes.next(allocation.bytes);
        }
    }
    let unseen = paths.into_iter().map(|(path, Both { count, bytes })| RawAllocation {
        count: count.rest(),
        bytes: bytes.rest(),
        ..RawAllocation::without_place(path)
    });
    allocations.extend(unseen);
    // Of what was seen before the counting began, or after it ended, there is nothing to share.
    allocations.retain(|allocation| allocation.count > 0 || allocation.bytes > 0);
    allocations.sort_by_key(|allocation| Reverse(allocation.bytes));
}

fn of<'a>(paths: &'a mut HashMap<u32, Both>, allocation: &RawAllocation) -> Option<&'a mut Both> {
    paths.get_mut(&allocation.path?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: Option<u32>, count: u64, bytes: u64) -> RawAllocation {
        RawAllocation { path, count, bytes, ..RawAllocation::without_place(0) }
    }

    fn counted(allocations: u64, allocated_bytes: u64) -> MemoryCount {
        MemoryCount { allocations, allocated_bytes, ..MemoryCount::default() }
    }

    #[test]
    fn samples_of_a_path_share_what_it_has_allocated() {
        let mut all = vec![
            seen(Some(1), 30, 3_000),
            seen(Some(1), 10, 1_000),
            seen(None, 5, 50),
            seen(Some(9), 7, 70),
        ];
        let paths = [(1, counted(41, 8_001)), (2, counted(3, 60)), (3, counted(0, 0))];
        weigh(&mut all, &paths.into());
        let told: Vec<_> = all.iter().map(|it| (it.path, it.count, it.bytes)).collect();
        assert_eq!(
            told,
            [
                (Some(1), 30, 6_000),
                (Some(1), 11, 2_001),
                (Some(9), 7, 70),
                (Some(2), 3, 60),
                (None, 5, 50),
            ]
        );
        assert_eq!(all[3].seen, 0, "and nobody knows where");
    }
}
