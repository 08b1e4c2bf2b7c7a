//! Weighing waits by the clock. The life of tasks says how long those of a spawn path waited and were ready; the waits that were seen
//! say where. So the waits of a spawn path share that time, in proportion to what each of them stood for. Where no wait was seen, the time
//! is known and the place is not.

use super::profile::RawWait;
use crate::report::LifeReport;
use crate::tasks::label_set::Labels;
use std::cmp::Reverse;
use std::collections::HashMap;

/// A time that is divided into parts, which stand in the same proportion as others and add up to the whole.
#[derive(Clone, Copy, Default)]
struct Division {
    whole_ns: u64,
    all: u128,
    so_far: u128,
}

impl Division {
    fn next(&mut self, part: u64) -> u64 {
        let before = self.up_to();
        self.so_far += u128::from(part);
        self.up_to() - before
    }

    fn up_to(&self) -> u64 {
        let part = u128::from(self.whole_ns) * self.so_far / self.all.max(1);
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// What has no parts.
    fn rest_ns(&self) -> u64 {
        if self.all == 0 { self.whole_ns } else { 0 }
    }
}

/// The waiting time of a spawn path, and the time that its tasks were ready.
#[derive(Clone, Copy, Default)]
struct Both {
    waiting: Division,
    ready: Division,
}

/// Gives the waits of each spawn path the time that its tasks waited by the clock, and were ready. Adds a wait without a place where a
/// path has time and no wait.
pub(super) fn weigh(waits: &mut Vec<RawWait>, lives: &HashMap<u32, LifeReport>) {
    let both = |life: &LifeReport| {
        let division = |whole_ns| Division { whole_ns, ..Division::default() };
        Both { waiting: division(life.waiting_ns), ready: division(life.ready_ns) }
    };
    let mut paths: HashMap<u32, Both> =
        lives.iter().map(|(path, life)| (*path, both(life))).collect();
    for wait in &*waits {
        if let Some(Both { waiting, ready }) = paths.get_mut(&wait.path) {
            waiting.all += u128::from(wait.waiting_ns);
            ready.all += u128::from(wait.ready_ns);
        }
    }
    for wait in &mut *waits {
        if let Some(Both { waiting, ready }) = paths.get_mut(&wait.path) {
            wait.waiting_ns = waiting.next(wait.waiting_ns);
            wait.ready_ns = ready.next(wait.ready_ns);
        }
    }
    let unseen = paths.iter().filter_map(|(path, Both { waiting, ready })| {
        let (waiting_ns, ready_ns) = (waiting.rest_ns(), ready.rest_ns());
        (waiting_ns + ready_ns > 0).then(|| unseen(*path, waiting_ns, ready_ns))
    });
    waits.extend(unseen);
    waits.sort_by_key(|wait| Reverse(wait.waiting_ns));
}

/// Waits of which nobody knows where they were.
fn unseen(path: u32, waiting_ns: u64, ready_ns: u64) -> RawWait {
    RawWait {
        path,
        labels: Labels::default(),
        woken_by: None,
        count: 0,
        waiting_ns,
        ready_ns,
        stack: [].into(),
        complete: true,
        truncated: false,
        fiber: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(path: u32, waiting_ns: u64, ready_ns: u64) -> RawWait {
        RawWait { count: 1, stack: [1].into(), ..unseen(path, waiting_ns, ready_ns) }
    }

    fn life(waiting_ns: u64, ready_ns: u64) -> LifeReport {
        LifeReport { waiting_ns, ready_ns, ..LifeReport::default() }
    }

    #[test]
    fn a_paths_waits_share_what_its_tasks_waited_and_lose_none_of_it() {
        let mut waits = vec![wait(7, 30, 0), wait(7, 60, 5), wait(7, 10, 0), wait(8, 1, 0)];
        let lives = [(7, life(1_001, 50)), (8, life(2, 9)), (9, life(40, 0)), (10, life(0, 0))];
        weigh(&mut waits, &lives.into());
        let of = |path: u32| {
            let of = waits.iter().filter(|wait| wait.path == path);
            of.map(|it| (it.waiting_ns, it.ready_ns, it.stack.len())).collect::<Vec<_>>()
        };
        assert_eq!(of(7), [(600, 50, 1), (300, 0, 1), (101, 0, 1)]);
        assert_eq!(of(8), [(2, 0, 1), (0, 9, 0)], "nobody saw where it was ready");
        assert_eq!(of(9), [(40, 0, 0)], "nobody saw where it waited");
        assert_eq!(of(10), []);
    }
}
