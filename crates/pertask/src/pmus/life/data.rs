//! What the PMU keeps for a task: its state, and the parts of its life.

use super::books::{Books, latest_cut};
use super::count::{LifeCount, Part};
use super::state::{Moment, State};
use crate::sync::{AtomicU32, AtomicU64, Ordering, before_try, fence};
use bytemuck::Zeroable;
use pertask_core::Task;

/// What the PMU keeps for a task.
///
/// INVARIANT: whoever switches the task writes `state`, `parts`, `tag`, `cut` and `before`, and changes all but `state` only while
/// `state` is `Moment::CHANGING`. One exception: any thread may replace the 0 of new data, once it has written `first_tag` and
/// `task`, which are not used any more once the state has changed.
#[derive(Debug, Default)]
#[repr(C)]
pub struct LifeData {
    /// A [`Moment`]: the task's state, and since when. 0 where neither is known.
    state: AtomicU64,
    /// When the task was first woken since its last poll began, or 0.
    woken_ns: AtomicU64,
    /// Whether the task is polled with wakers that note wakes: once it is, it stays so as long as this data is there.
    notes_wakes: AtomicU32,
    /// The tag that the task has in this state.
    tag: AtomicU32,
    /// The latest [cut](super::cut) when the state last changed, or 0 if it has never changed.
    cut: AtomicU32,
    /// The tag that the task had when its life began.
    first_tag: AtomicU32,
    parts: [AtomicU64; Part::COUNT],
    /// The task's number. Whoever writes it writes the same.
    task: AtomicU64,
    before: Before,
}

/// What a task had at its last change before `cut`.
#[derive(Debug, Default)]
#[repr(C)]
struct Before {
    parts: [AtomicU64; Part::COUNT],
    /// The tag that it had from that change on.
    tag: AtomicU32,
    _padding: u32,
}

// SAFETY: all fields are integers, for which zero is a value.
unsafe impl Zeroable for LifeData {}

/// The state that begins, and when.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) state: State,
    pub(super) now_ns: u64,
    /// When the task was woken, if the state that ends is one of waiting; or 0. That wake has led to the state that begins, and is not
    /// for a later one.
    pub(super) woken_ns: u64,
    /// The tag that the task has from now on.
    pub(super) tag: u32,
}

/// A life up to now, and what of it no cut has seen charged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) count: LifeCount,
    /// The part of the life that was not charged at the cut.
    pub(super) open: LifeCount,
    /// The tag that the task had at the cut.
    pub(super) tag: u32,
}

/// The time of a wake in a poll.
const LONG_AGO_NS: u64 = 1;

/// How often a reader tries to read a task between two changes of its state. In a forked child, the thread that changes it may be gone.
const TRIES: usize = 200;

impl LifeData {
    pub(super) fn has_begun(&self) -> bool {
        // Relaxed: only whoever switches the task asks, or a thread for which a beginning at this moment may come later.
        self.state.load(Ordering::Relaxed) != 0
    }

    /// Begins the life, unless it has begun.
    pub(super) fn begin(&self, task: &Task, state: State, now_ns: u64) {
        self.begin_as(task.id().get(), task.tag(), state, now_ns);
    }

    pub(super) fn begin_as(&self, task: u64, tag: u32, state: State, now_ns: u64) {
        if self.has_begun() {
            return;
        }
        // Relaxed: the Release below orders both.
        self.task.store(task, Ordering::Relaxed);
        self.first_tag.store(tag, Ordering::Relaxed);
        let moment = Moment { state, since_ns: now_ns }.word();
        // Release: pairs with the Acquire in `see` and `cross`. Relaxed: if it has begun already, nothing follows.
        let _ = self.state.compare_exchange(0, moment, Ordering::Release, Ordering::Relaxed);
    }

    /// Charges the time since the last change to the state that ends, and begins the next. The life has begun.
    ///
    /// Charges it in `books`, too, to the tag that the task had. The caller is in a section.
    #[inline(always)]
    pub(super) fn change(&self, change: Change, books: Books<'_>) {
        // Relaxed, both: only whoever switches the task writes them, the word once it is not 0.
        let last = Moment::of(self.state.load(Ordering::Relaxed));
        let cut = latest_cut();
        if self.cut.load(Ordering::Relaxed) != cut {
            return self.change_across(last, change, books, cut);
        }
        self.begin_change();
        self.forget_wake(change.woken_ns);
        self.finish_change(last, change, books, cut);
    }

    /// The first change since a cut. The fast path calls it last, so it needs no stack frame.
    #[cold]
    #[inline(never)]
    fn change_across(&self, last: Moment, change: Change, books: Books<'_>, cut: u32) {
        self.begin_change();
        self.forget_wake(change.woken_ns);
        self.cross(cut);
        self.finish_change(last, change, books, cut);
    }

    #[inline(always)]
    fn begin_change(&self) {
        // Relaxed: the fence orders it.
        self.state.store(Moment::CHANGING, Ordering::Relaxed);
        // Release: pairs with the Acquire fence in `see`. A reader that has read something of what is written after this finds that
        // the state is changing, or has changed.
        fence(Ordering::Release);
    }

    /// Forgets a wake that has led to the state that begins.
    #[inline(always)]
    fn forget_wake(&self, woken_ns: u64) {
        if woken_ns != 0 {
            // Relaxed: the fence of `begin_change` orders it. A wake that comes now is taken for this one.
            self.woken_ns.store(0, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn finish_change(&self, last: Moment, change: Change, books: Books<'_>, cut: u32) {
        // Relaxed, here and below: the executor moves a task from one CPU to the next, and so orders their writes.
        let account = books.account(cut, self.tag.load(Ordering::Relaxed));
        let add = |part: Part, ns: u64| {
            let so_far = &self.parts[part as usize];
            so_far.store(so_far.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
            account.charge(part, ns);
        };
        // Clocks of two CPUs may be apart by some nanoseconds.
        let now_ns = change.now_ns.max(last.since_ns);
        last.for_each_part(now_ns, change.woken_ns, add);
        self.tag.store(change.tag, Ordering::Relaxed);
        // Release: pairs with the Acquire in `see`.
        self.state
            .store(Moment { state: change.state, since_ns: now_ns }.word(), Ordering::Release);
    }

    /// Keeps, at the first change since a cut, what the task had been charged by then.
    fn cross(&self, cut: u32) {
        // Relaxed, all: the fence of `begin_change` orders what readers see. Nobody else writes these.
        if self.cut.load(Ordering::Relaxed) == 0 {
            // Acquire: pairs with the Release in `begin_as`. `change` has read the word of another thread.
            fence(Ordering::Acquire);
            self.tag.store(self.first_tag.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.before.tag.store(self.tag.load(Ordering::Relaxed), Ordering::Relaxed);
        for (before, now) in self.before.parts.iter().zip(&self.parts) {
            before.store(now.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// Lets the task go on in its state, with another tag.
    pub(super) fn change_tag(&self, tag: u32, now_ns: u64, books: Books<'_>) {
        // Relaxed: whoever has the task writes the word.
        let last = Moment::of(self.state.load(Ordering::Relaxed));
        // The wake, if there was one, is for the state that goes on as well. One at this moment counts from the next change on.
        let change = Change { state: last.state, now_ns, woken_ns: self.woken_ns(), tag };
        let cut = latest_cut();
        self.begin_change();
        if self.cut.load(Ordering::Relaxed) != cut {
            self.cross(cut);
        }
        self.finish_change(last, change, books, cut);
    }

    /// Ends the life, if it has begun. Returns the task's number, the latest cut, and what of its life was not charged at that cut.
    pub(super) fn end(&self, now_ns: u64, books: Books<'_>) -> Option<(u64, u32, Seen)> {
        if !self.has_begun() {
            return None;
        }
        let woken_ns = self.woken_ns();
        // Relaxed, all: the task has run for the last time, and its last CPU has handed it over.
        let tag = self.tag.load(Ordering::Relaxed);
        self.change(Change { state: State::Ended, now_ns, woken_ns, tag }, books);
        let cut = self.cut.load(Ordering::Relaxed);
        Some((self.task.load(Ordering::Relaxed), cut, self.see(now_ns, cut)))
    }

    #[cfg(test)]
    pub(super) fn cut_of_last_change(&self) -> u32 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Says that the task is polled with wakers that note wakes, from its next poll on.
    pub(super) fn expect_wakes(&self) {
        // Relaxed: the same thread reads it when the poll ends, and the executor orders the polls after it.
        self.notes_wakes.store(1, Ordering::Relaxed);
    }

    /// The state that begins when a poll ends.
    #[inline(always)]
    pub(super) fn end_poll(&self) -> State {
        // Relaxed: see `expect_wakes`.
        let notes_wakes = self.notes_wakes.load(Ordering::Relaxed) != 0;
        if notes_wakes { State::Waiting } else { State::Unknown }
    }

    /// Notes that the task is being woken. Only the first wake since its last poll began counts.
    pub(super) fn note_wake(&self, now_ns: impl FnOnce() -> u64) {
        // Relaxed, all: these are times. A wake that still finds the poll that has just ended counts as one in that poll, also if another
        // thread has noted its own wake meanwhile.
        if self.woken_ns.load(Ordering::Relaxed) != 0 {
            return;
        }
        if Moment::of(self.state.load(Ordering::Relaxed)).is_in_a_poll() {
            // It is ready from the end of the poll on, so any time before that will do, without a look at the clock.
            self.woken_ns.store(LONG_AGO_NS, Ordering::Relaxed);
            return;
        }
        let (woken_ns, times) = (now_ns().max(LONG_AGO_NS), Ordering::Relaxed);
        let _ = self.woken_ns.compare_exchange(0, woken_ns, times, times);
    }

    /// When the task was first woken since its last poll began, or 0.
    #[inline(always)]
    pub(super) fn woken_ns(&self) -> u64 {
        // Relaxed: a time. The executor orders the wake before the poll.
        self.woken_ns.load(Ordering::Relaxed)
    }

    /// The parts so far, with the state that goes on, up to `now_ns`.
    pub(super) fn read(&self, now_ns: u64) -> LifeCount {
        self.see(now_ns, 0).count
    }

    /// Adds parts. Only for totals.
    pub(super) fn add(&self, count: &LifeCount) {
        for (total, part_ns) in self.parts.iter().zip(count.parts_ns) {
            // Relaxed: a figure, which one thread writes at a time.
            total.store(total.load(Ordering::Relaxed) + part_ns, Ordering::Relaxed);
        }
    }

    /// The life up to `now_ns`, and what of it was not charged at `cut`, which is the latest.
    pub(super) fn see(&self, now_ns: u64, cut: u32) -> Seen {
        let mut seen = Seen::default();
        for tries in 0..TRIES {
            before_try(tries);
            // Acquire: pairs with the Release in `finish_change` and `begin_as`, so that the rest is that of this state's beginning, or later.
            let word = self.state.load(Ordering::Acquire);
            // Relaxed: the fence orders them.
            let woken_ns = self.woken_ns.load(Ordering::Relaxed);
            let parts_ns = load(&self.parts);
            let (charged_ns, tag) = self.charged(cut, parts_ns);
            // Acquire: pairs with the Release fence in `begin_change`.
            fence(Ordering::Acquire);
            let is_settled = word != Moment::CHANGING && self.state.load(Ordering::Relaxed) == word;
            let mut all_ns = parts_ns;
            if is_settled {
                let moment = Moment::of(word);
                let add = |part: Part, ns: u64| all_ns[part as usize] += ns;
                moment.for_each_part(now_ns.max(moment.since_ns), woken_ns, add);
            }
            // Of a task that changes its state all the time, the last look has to do: it lacks what came since the last change.
            let open = |part: usize| all_ns[part].saturating_sub(charged_ns[part]);
            let open = LifeCount { parts_ns: std::array::from_fn(open) };
            seen = Seen { count: LifeCount { parts_ns: all_ns }, open, tag };
            if is_settled {
                break;
            }
        }
        seen
    }

    /// What the task had been charged at a cut, and the tag that it had then. `parts_ns` are the parts that it has been charged now.
    fn charged(&self, cut: u32, parts_ns: [u64; Part::COUNT]) -> ([u64; Part::COUNT], u32) {
        // Relaxed, all: the fence in `see` orders them.
        match self.cut.load(Ordering::Relaxed) {
            0 => (parts_ns, self.first_tag.load(Ordering::Relaxed)),
            at if at == cut => (load(&self.before.parts), self.before.tag.load(Ordering::Relaxed)),
            _ => (parts_ns, self.tag.load(Ordering::Relaxed)),
        }
    }
}

fn load(parts: &[AtomicU64; Part::COUNT]) -> [u64; Part::COUNT] {
    // Relaxed: the caller's fence orders them.
    std::array::from_fn(|part| parts[part].load(Ordering::Relaxed))
}
