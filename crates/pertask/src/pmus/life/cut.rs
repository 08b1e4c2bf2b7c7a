//! A cut: a reading of all lives by tag that counts each moment of each life once.
//!
//! Who begins a cut waits until all hooks have ended that may not know of it. From then on the bank of the cut before stands still,
//! and what is in both banks is what was charged before the cut. The walk over the live tasks adds to that what each had been
//! charged since, and the state that goes on: for the tag that it had at the cut. Tasks that end during the walk, and that the walk
//! may not see, say themselves what that is.

use super::books::{Banks, SHARED, begin_cut, latest_cut};
use super::count::{LifeCount, Part};
use super::data::Seen;
use super::{Life, ended};
use crate::pmus::by_tag::place_of;
use pertask_core::{Count, Live, PmuHandle, System, TaskId, rcu};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A cut that is being read.
pub(crate) struct Cut {
    number: u32,
    /// What was charged before, by place.
    by_place: Vec<[u64; Part::COUNT]>,
    _reading: Reading,
}

/// One thread at a time reads a cut.
static TURN: Mutex<()> = Mutex::new(());

/// The turn to read. Its drop says that nothing is read any more.
struct Reading(#[expect(dead_code, reason = "held until the drop")] MutexGuard<'static, ()>);

impl Reading {
    fn begin() -> Self {
        Self(TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        ended::end_reading();
    }
}

impl Cut {
    /// Cuts. What tasks are charged from now on is not in `by_place`.
    pub(crate) fn begin(handle: PmuHandle<Life>) -> Self {
        let reading = Reading::begin();
        let before = latest_cut();
        // Even after odd and odd after even; and 0 stands for a life without a change.
        let number = before.checked_add(1).unwrap_or(2);
        let mut by_place = Vec::new();
        // Nobody has written there since the cut before.
        add_bank(handle, number, &mut by_place);
        ended::begin_reading(number);
        begin_cut(number);
        // Where it is refused, what is charged at this moment may be missing, or counted twice.
        let _ = rcu::synchronize();
        add_bank(handle, before, &mut by_place);
        Self { number, by_place, _reading: reading }
    }

    /// The life of a live task, which is counted for its tag.
    pub(crate) fn see(&mut self, live: &Live<'_, Life>, now_ns: u64) -> LifeCount {
        let Seen { count, open, tag } = live.data().see(now_ns, self.number);
        self.add(tag, &open);
        count
    }

    /// The lives of all tags by place, once the walk has ended. `seen` are the tasks that the walk saw.
    pub(crate) fn finish(mut self, seen: impl Iterator<Item = TaskId>) -> Vec<LifeCount> {
        for (tag, open) in ended::unseen(self.number, seen.map(TaskId::get)) {
            self.add(tag, &open);
        }
        let of_place = |parts_ns: &[u64; Part::COUNT]| LifeCount { parts_ns: *parts_ns };
        self.by_place.iter().map(of_place).collect()
    }

    fn add(&mut self, tag: u32, open: &LifeCount) {
        if tag == 0 {
            return;
        }
        let place = place_of(tag);
        if self.by_place.len() <= place {
            self.by_place.resize(place + 1, [0; Part::COUNT]);
        }
        let mut sum = LifeCount { parts_ns: self.by_place[place] };
        sum.add(open);
        self.by_place[place] = sum.parts_ns;
    }
}

/// Adds what all CPUs have in the bank of a cut.
fn add_bank(handle: PmuHandle<Life>, cut: u32, sums: &mut Vec<[u64; Part::COUNT]>) {
    for_each_banks(handle, |banks| banks.bank(cut).add_to(sums));
}

fn for_each_banks(handle: PmuHandle<Life>, mut f: impl FnMut(&Banks)) {
    System::global().for_each_cpu(|cpu| {
        if let Some(data) = handle.cpu_data(cpu) {
            f(&data.banks);
        }
    });
    f(&SHARED);
}

/// Makes the wanted room on each CPU, if the PMU is registered. A CPU that comes now finds what is wanted, or is found here.
pub(crate) fn make_all_room() {
    if let Some(handle) = Life::registered() {
        for_each_banks(handle, Banks::make_all_room);
    }
}

/// What all CPUs have charged at one place, without the states that go on.
pub(crate) fn of_place(place: usize) -> LifeCount {
    let mut sum = LifeCount::default();
    if let Some(handle) = Life::registered() {
        for_each_banks(handle, |banks| sum.add(&LifeCount { parts_ns: banks.of_place(place) }));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task that was about to say so as the reading of its cut ended says it in the next.
    #[test]
    fn what_the_cut_before_would_have_had_is_not_counted_again() {
        const LONG_NS: u64 = 1 << 60;
        let cut = Cut::begin(Life::handle().unwrap());
        let open = LifeCount { parts_ns: [LONG_NS; Part::COUNT] };
        ended::push(cut.number - 1, u64::MAX, 1, open);
        let lives = cut.finish(std::iter::empty());
        assert!(lives.iter().all(|life| life.life_ns() < LONG_NS), "{lives:?}");
    }
}
