//! The wake-latency PMU: how long a task waits between being woken and being polled.
//!
//! While somebody measures it, tracked futures are polled with a waker of our own around the executor's; it notes the time
//! at which the task was first woken, and the next poll takes it away again. Executors and futures may compare wakers or
//! look into them, so this is done only for those who ask.

use crate::error::Error;
use crate::os::clock::Choice;
use bytemuck::Zeroable;
use pertask_core::{Count, CpuRecord, Edge, Pmu, PmuHandle, Switch, System, Task};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};

use crate::pmus::stint::Stints;

/// Measures how long each task waits between being woken and being polled. Users set
/// [`SessionOptions::wake_latency`](crate::SessionOptions::wake_latency).
#[derive(Debug)]
pub struct WakeLatency {
    clock: &'static Choice,
}

/// What the PMU keeps for a task.
#[derive(Debug)]
#[repr(C)]
pub struct WakeData {
    /// When the task was woken that has not been polled since, by the clock; 0: it was not.
    woken_ns: AtomicU64,
    buckets: [AtomicU32; BUCKETS],
}

// SAFETY: all fields are integers, for which zero is a value.
unsafe impl Zeroable for WakeData {}

/// A histogram of latencies.
///
/// Its buckets are four to each doubling, from [`LEAST_NS`](Self::LEAST_NS) on: what it tells of a latency is at most a
/// quarter too much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// The buckets that are not empty, by number, and how many latencies lie in each. Most tasks have a few.
    buckets: Vec<(u8, u64)>,
}

/// Doublings, from 256 ns to 17 s, four buckets each, and one bucket below and one above.
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
        // Relaxed: a time; the executor orders the wake before the poll.
        let woken_ns = data.woken_ns.swap(0, Ordering::Relaxed);
        if woken_ns != 0 {
            data.count(self.clock.wall_ns().saturating_sub(woken_ns));
        }
    }

    fn sched_out(&self, _: Switch<'_, Self>) {}

    fn read(&self, data: &WakeData) -> Latencies {
        // Relaxed: each is right for itself.
        let read = |(bucket, count): (usize, &AtomicU32)| {
            Some((u8::try_from(bucket).ok()?, u64::from(count.load(Ordering::Relaxed))))
        };
        let all = data.buckets.iter().enumerate().filter_map(read);
        Latencies { buckets: all.filter(|(_, count)| *count != 0).collect() }
    }

    fn fold(&self, ended: &WakeData, totals: &WakeData) -> bool {
        // Relaxed: the task has been polled for the last time, and one thread at a time writes to `totals`.
        let of = |bucket: &AtomicU32| bucket.load(Ordering::Relaxed);
        let buckets =
            || ended.buckets.iter().zip(&totals.buckets).filter(|(ours, _)| of(ours) != 0);
        // A bucket of the totals may be full one day.
        let there_is_room =
            buckets().all(|(ours, total)| of(total).checked_add(of(ours)).is_some());
        if there_is_room {
            buckets()
                .for_each(|(ours, total)| total.store(of(total) + of(ours), Ordering::Relaxed));
        }
        there_is_room
    }
}

/// A poll is counted when it begins: nothing of it is under way.
impl Stints for WakeLatency {
    fn adopt_running(&self, _: &CpuRecord, (): &()) {}

    fn running(&self, _: &CpuRecord, (): &(), _: u64) -> Option<Latencies> {
        Some(Latencies::default())
    }
}

impl WakeLatency {
    pub(crate) fn handle() -> Result<PmuHandle<Self>, Error> {
        static HANDLE: OnceLock<Result<PmuHandle<WakeLatency>, pertask_core::Error>> =
            OnceLock::new();
        let register = || System::global().register(Self { clock: Choice::of_process() });
        HANDLE.get_or_init(register).map_err(Error::from)
    }
}

impl WakeData {
    fn count(&self, latency_ns: u64) {
        // Relaxed: a figure, written by the CPU that runs the task.
        let bucket = &self.buckets[bucket_of(latency_ns)];
        // One task's bucket is full at 4,294,967,295; what comes then is missing.
        bucket.store(bucket.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }
}

/// The bucket of a latency: the first whose upper bound it does not pass.
fn bucket_of(latency_ns: u64) -> usize {
    if latency_ns <= Latencies::LEAST_NS {
        return 0;
    }
    // Bounds belong to the bucket below them.
    let below = latency_ns - 1;
    let octave = (below / Latencies::LEAST_NS).ilog2() as usize;
    if octave >= OCTAVES {
        return BUCKETS - 1;
    }
    let step = (below >> (octave + Latencies::LEAST_NS.ilog2() as usize - 2)) as usize - STEPS;
    1 + octave * STEPS + step
}

/// A bucket's upper bound; `None` for the last, which has none.
fn bound_of(bucket: usize) -> Option<u64> {
    if bucket == 0 {
        return Some(Latencies::LEAST_NS);
    }
    let (octave, step) = ((bucket - 1) / STEPS, (bucket - 1) % STEPS);
    let quarter = (Latencies::LEAST_NS << octave) / STEPS as u64;
    (bucket < BUCKETS - 1).then_some((STEPS + step + 1) as u64 * quarter)
}

impl Latencies {
    /// What is shorter is in the first bucket.
    pub const LEAST_NS: u64 = 256;

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// A bound which so many of a thousand latencies do not pass. `None` if there are none, or if it lies beyond the
    /// histogram's end, which is at 17 s.
    #[must_use]
    pub fn permille_ns(&self, permille: u32) -> Option<u64> {
        let all = self.len();
        // The one of that rank, counted from 1.
        let rank = (u128::from(all) * u128::from(permille)).div_ceil(1_000).max(1);
        let mut seen = 0;
        let reached = |(_, count): &&(u8, u64)| {
            seen += u128::from(*count);
            seen >= rank
        };
        self.buckets.iter().find(reached).and_then(|(bucket, _)| bound_of((*bucket).into()))
    }

    /// The buckets that are not empty: upper bound (`None`: none) and how many latencies lie in them.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        self.buckets.iter().map(|(bucket, count)| (bound_of((*bucket).into()), *count))
    }
}

impl Count for Latencies {
    fn add(&mut self, other: &Self) {
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
        Self { buckets: all.filter(|(_, count)| *count != 0).collect() }
    }
}

/// Sessions that want it.
static WANTED: AtomicU32 = AtomicU32::new(0);

/// While one lives, tracked futures are polled with our waker.
#[derive(Debug)]
pub(crate) struct Wakes {
    pub(crate) handle: PmuHandle<WakeLatency>,
}

impl Wakes {
    pub(crate) fn begin() -> Result<Self, Error> {
        let handle = WakeLatency::handle()?;
        // Relaxed, here and below: a future polled at this moment is measured from now on or from the next poll on.
        WANTED.fetch_add(1, Ordering::Relaxed);
        Ok(Self { handle })
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        WANTED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether anybody measures wakes.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed) != 0
}

/// A task's waker: notes the time, and wakes the executor.
///
/// A future keeps its own from poll to poll, as long as the executor's stays the same: futures may compare wakers.
#[derive(Debug)]
pub(crate) struct NotingWaker {
    inner: Waker,
    task: Arc<Task>,
}

/// A waker that notes when it wakes `task`, kept in `own`. `None` if nobody measures that task.
#[cold]
pub(crate) fn noting(
    task: &Arc<Task>,
    inner: &Waker,
    own: &mut Option<Arc<NotingWaker>>,
) -> Option<Waker> {
    let handle = WakeLatency::handle().ok()?;
    handle.with_data(task, |_| ())?;
    let kept = own.take().filter(|noting| noting.inner.will_wake(inner));
    let noting = kept
        .unwrap_or_else(|| Arc::new(NotingWaker { inner: inner.clone(), task: Arc::clone(task) }));
    Some(own.insert(noting).clone().into())
}

impl NotingWaker {
    fn note(&self) {
        let Ok(handle) = WakeLatency::handle() else { return };
        let now_ns = handle.pmu().clock.wall_ns().max(1);
        // The first wake counts. Relaxed: a time.
        let note = |data: &WakeData| {
            data.woken_ns.compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed)
        };
        let _ = handle.with_data(&self.task, note);
    }
}

impl Wake for NotingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note();
        self.inner.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(latencies: impl IntoIterator<Item = u64>) -> Latencies {
        let mut all = Latencies::default();
        for ns in latencies {
            let bucket = u8::try_from(bucket_of(ns)).unwrap();
            all.add(&Latencies { buckets: vec![(bucket, 1)] });
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
