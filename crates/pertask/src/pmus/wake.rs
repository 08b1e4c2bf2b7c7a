//! The wake-latency PMU: how long a task waits between being woken and being polled.
//!
//! While a session measures it, tracked futures are polled with a [waker of ours](super::waker). It notes the time of the first
//! wake, and the next poll takes that time.

use crate::error::Error;
use crate::os::clock::Choice;
use bytemuck::Zeroable;
use pertask_core::{Count, CpuRecord, Edge, Pmu, PmuHandle, Switch, System, Task};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::pmus::stint::Stints;

/// Measures how long each task waits between being woken and being polled.
///
/// Users set [`SessionOptions::wake_latency`](crate::SessionOptions::wake_latency).
#[derive(Debug)]
pub struct WakeLatency {
    clock: &'static Choice,
}

/// What the PMU keeps for a task.
#[derive(Debug)]
#[repr(C)]
pub struct WakeData {
    /// When the task was woken, by the clock, or 0 if it was not woken since its last poll.
    woken_ns: AtomicU64,
    /// Polls with a waker that notes when it wakes the task. 0 if no session measures the task's waits.
    measured_polls: AtomicU64,
    /// Whether the task is polled with such wakers: once it is, it stays so as long as this data is there.
    notes_wakes: AtomicU32,
    buckets: [AtomicU32; BUCKETS],
    _padding: u32,
}

// SAFETY: all fields are integers, for which zero is a value.
unsafe impl Zeroable for WakeData {}

/// A histogram of latencies.
///
/// It has four buckets to each doubling, from [`LEAST_NS`](Self::LEAST_NS) on. So a bucket's bound is at most a quarter more
/// than a latency in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Polls whose waker noted wakes. 0 if nothing was measured.
    measured_polls: u64,
    /// The buckets that are not empty, by number, with the number of latencies in each. Most tasks have a few.
    buckets: Vec<(u8, u64)>,
}

/// Doublings, from 256 ns to 17 s. Each has four buckets; there is one bucket below them and one above.
const OCTAVES: usize = 26;
const STEPS: usize = 4;
const BUCKETS: usize = OCTAVES * STEPS + 2;

impl Pmu for WakeLatency {
    const NAME: &'static str = "wake-latency";
    type Data = WakeData;
    type CpuData = ();
    type Count = Latencies;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let (Some(data), Edge::Turn) = (switch.data, switch.edge) else { return };
        // Relaxed: this thread has written it, or one that polled the task before.
        if data.notes_wakes.load(Ordering::Relaxed) != 0 {
            add(&data.measured_polls, 1);
        }
        // Relaxed: a time. The executor orders the wake before the poll.
        let woken_ns = data.woken_ns.swap(0, Ordering::Relaxed);
        if woken_ns != 0 {
            data.count(self.clock.wall_ns().saturating_sub(woken_ns));
        }
    }

    fn sched_out(&self, _: Switch<'_, Self>) {}

    fn read(&self, data: &WakeData) -> Latencies {
        // Relaxed: each number is right by itself.
        let read = |(bucket, count): (usize, &AtomicU32)| {
            Some((u8::try_from(bucket).ok()?, u64::from(count.load(Ordering::Relaxed))))
        };
        let all = data.buckets.iter().enumerate().filter_map(read);
        let buckets = all.filter(|(_, count)| *count != 0).collect();
        Latencies { measured_polls: data.measured_polls.load(Ordering::Relaxed), buckets }
    }

    fn fold(&self, ended: &WakeData, totals: &WakeData) -> bool {
        // Relaxed: the task has been polled for the last time, and one thread at a time writes to `totals`.
        let of = |bucket: &AtomicU32| bucket.load(Ordering::Relaxed);
        let buckets =
            || ended.buckets.iter().zip(&totals.buckets).filter(|(ours, _)| of(ours) != 0);
        // A bucket of the totals may be full.
        let there_is_room =
            buckets().all(|(ours, total)| of(total).checked_add(of(ours)).is_some());
        if there_is_room {
            buckets()
                .for_each(|(ours, total)| total.store(of(total) + of(ours), Ordering::Relaxed));
            add(&totals.measured_polls, ended.measured_polls.load(Ordering::Relaxed));
        }
        there_is_room
    }
}

/// A wait is counted when its poll begins, so no count is under way.
impl Stints for WakeLatency {
    fn adopt_running(&self, _: &CpuRecord, (): &()) {}

    fn running(&self, _: &CpuRecord, (): &(), _: u64) -> Option<Latencies> {
        Some(Latencies::default())
    }
}

static HANDLE: OnceLock<Result<PmuHandle<WakeLatency>, pertask_core::Error>> = OnceLock::new();

impl WakeLatency {
    pub(crate) fn handle() -> Result<PmuHandle<Self>, Error> {
        let register = || System::global().register(Self { clock: Choice::of_process() });
        HANDLE.get_or_init(register).map_err(Error::from)
    }

    /// Says that the task is polled with wakers that note wakes, from its next poll on. Returns false if no session measures its waits.
    pub(crate) fn expect_wakes(task: &Task) -> bool {
        // Relaxed: the same thread reads it when the poll begins, and the executor orders the polls after it.
        with_data(task, |_, data| data.notes_wakes.store(1, Ordering::Relaxed)).is_some()
    }

    pub(crate) fn note_wake(task: &Task) {
        with_data(task, |latency, data| data.note_wake(latency.clock.wall_ns()));
    }
}

fn with_data<R>(task: &Task, f: impl FnOnce(&WakeLatency, &WakeData) -> R) -> Option<R> {
    let handle = HANDLE.get()?.ok()?;
    handle.with_data(task, |data| f(handle.pmu(), data))
}

impl WakeData {
    fn note_wake(&self, now_ns: u64) {
        let (at, times) = (&self.woken_ns, Ordering::Relaxed);
        // Only the first wake counts. Relaxed: a time.
        let _ = at.compare_exchange(0, now_ns.max(1), times, times);
    }

    fn count(&self, latency_ns: u64) {
        // Relaxed: a figure, written by the CPU that runs the task.
        let bucket = &self.buckets[bucket_of(latency_ns)];
        // A task's bucket is full at 4,294,967,295. Later latencies are missing.
        bucket.store(bucket.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }
}

/// Adds to a figure that one thread writes at a time.
fn add(figure: &AtomicU64, amount: u64) {
    // Relaxed: a figure.
    figure.store(figure.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

/// The bucket of a latency: the first bucket whose upper bound is not below the latency.
fn bucket_of(latency_ns: u64) -> usize {
    if latency_ns <= Latencies::LEAST_NS {
        return 0;
    }
    // A bound belongs to the bucket below it.
    let below = latency_ns - 1;
    let octave = (below / Latencies::LEAST_NS).ilog2() as usize;
    if octave >= OCTAVES {
        return BUCKETS - 1;
    }
    let step = (below >> (octave + Latencies::LEAST_NS.ilog2() as usize - 2)) as usize - STEPS;
    1 + octave * STEPS + step
}

/// The upper bound of a bucket, or `None` for the last bucket, which has none.
fn bound_of(bucket: usize) -> Option<u64> {
    if bucket == 0 {
        return Some(Latencies::LEAST_NS);
    }
    let (octave, step) = ((bucket - 1) / STEPS, (bucket - 1) % STEPS);
    let quarter = (Latencies::LEAST_NS << octave) / STEPS as u64;
    (bucket < BUCKETS - 1).then_some((STEPS + step + 1) as u64 * quarter)
}

impl Latencies {
    /// The bound of the first bucket, which holds all shorter latencies.
    pub const LEAST_NS: u64 = 256;

    /// The number of latencies.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Whether there are no latencies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Whether anything was measured. A task that was measured may have had no wait.
    pub(crate) fn were_measured(&self) -> bool {
        self.measured_polls > 0 || !self.is_empty()
    }

    /// The bound below which `permille` of a thousand latencies lie.
    ///
    /// Returns `None` if there are no latencies, or if the bound lies beyond the end of the histogram, at 17 s.
    #[must_use]
    pub fn permille_ns(&self, permille: u32) -> Option<u64> {
        let all = self.len();
        // The rank of the latency, counted from 1.
        let rank = (u128::from(all) * u128::from(permille)).div_ceil(1_000).max(1);
        let mut seen = 0;
        let reached = |(_, count): &&(u8, u64)| {
            seen += u128::from(*count);
            seen >= rank
        };
        self.buckets.iter().find(reached).and_then(|(bucket, _)| bound_of((*bucket).into()))
    }

    /// The buckets that are not empty: the upper bound of each, or `None` for the last bucket, and its number of latencies.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        self.buckets.iter().map(|(bucket, count)| (bound_of((*bucket).into()), *count))
    }
}

impl Count for Latencies {
    fn add(&mut self, other: &Self) {
        self.measured_polls += other.measured_polls;
        for (bucket, count) in &other.buckets {
            match self.buckets.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
                Ok(place) => self.buckets[place].1 += count,
                Err(place) => self.buckets.insert(place, (*bucket, *count)),
            }
        }
    }

    fn since(&self, base: &Self) -> Self {
        let before = |bucket: u8| {
            let place = base.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket);
            place.map_or(0, |place| base.buckets[place].1)
        };
        let since = |(bucket, count): &(u8, u64)| (*bucket, count.saturating_sub(before(*bucket)));
        let all = self.buckets.iter().map(since);
        Self {
            measured_polls: self.measured_polls.saturating_sub(base.measured_polls),
            buckets: all.filter(|(_, count)| *count != 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(latencies: impl IntoIterator<Item = u64>) -> Latencies {
        let mut all = Latencies::default();
        for ns in latencies {
            let bucket = u8::try_from(bucket_of(ns)).unwrap();
            all.add(&Latencies { measured_polls: 1, buckets: vec![(bucket, 1)] });
        }
        all
    }

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound_and_a_quarter_less() {
        for ns in (0..40).flat_map(|power| {
            let around = 1_u64 << power;
            [around - 1, around, around + 1, around + around / 3, around + around / 2]
        }) {
            let bucket = bucket_of(ns);
            match bound_of(bucket) {
                Some(bound) => {
                    assert!(ns <= bound, "{ns} is beyond {bound}");
                    assert!(
                        bound == Latencies::LEAST_NS || ns * 5 / 4 + 2 >= bound,
                        "{ns}: {bound}"
                    );
                }
                None => assert!(ns > 17_000_000_000, "{ns} has no bound"),
            }
            assert!(bucket == 0 || bound_of(bucket - 1).is_some_and(|bound| bound < ns), "{ns}");
        }
    }

    #[test]
    fn percentiles_are_of_the_right_rank() {
        let latencies = of((1..=100).map(|n| n * 10_000));
        assert_eq!(latencies.len(), 100);
        for (permille, at_least) in
            [(500, 500_000), (900, 900_000), (990, 990_000), (1000, 1_000_000)]
        {
            let ns = latencies.permille_ns(permille).unwrap();
            assert!((at_least..=at_least * 5 / 4).contains(&ns), "{permille}: {ns}");
        }
        assert_eq!(of([7]).permille_ns(1), Some(Latencies::LEAST_NS));
        assert_eq!(of([]).permille_ns(500), None);
        assert_eq!(of([u64::MAX]).permille_ns(500), None, "beyond the end");
    }

    #[test]
    fn a_difference_has_what_came_since() {
        let base = of([1_000, 2_000]);
        let mut now = base.clone();
        now.add(&of([5_000]));
        assert_eq!(now.since(&base), of([5_000]));
        assert_eq!(now.since(&base).buckets().collect::<Vec<_>>(), [(Some(5_120), 1)]);
    }
}
