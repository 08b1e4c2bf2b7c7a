//! Waits that are sampled: a wait whose poll was watched for where it left its waker, and by whom it was ended.
//!
//! A future that waits clones the waker that it is polled with, and leaves the clone with whatever will wake it. At that moment the
//! whole chain of futures is on the thread's stack. A watched poll has a waker that it has not seen before, so that a future which
//! already left a waker leaves a new one. Each clone that is made during the poll is a *leaf* of its own, with its own stack; the leaf
//! that wakes the task is the place where the task waited.
//!
//! This file knows how a wait goes on and ends. Which polls are watched, how a stack is taken and what becomes of it is the sampler's
//! matter.

use crate::os::clock::Choice;
use pertask_core::{Cpu, SpawnPath, Task};
use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// The most leaves of a poll that have stacks at a time. One of which no waker is left makes room for another. (A future that is polled again
/// often makes its new waker before it drops the old one, so four futures need five.)
const LEAVES: usize = 5;

/// The most stacks that are taken in a poll. A future that is ready a thousand times in a poll may leave a waker each time.
const MOST_STACKS: u32 = 64;

/// The most leaves of a thread's polls, of those that go on and of those that have ended elsewhere.
const MOST_MADE: usize = 256;

/// What the sampler does for waits.
pub(crate) struct Sampling {
    /// Says whether the poll that begins on this thread is watched, and for how many polls it then stands.
    pub(crate) choose: fn() -> Option<u32>,
    /// The calling thread's stack.
    pub(crate) stack: fn() -> Option<Box<[u64]>>,
    /// Takes in a wait that begins.
    pub(crate) begun: fn(&Arc<Wait>),
    /// Takes in a wait that has ended.
    pub(crate) ended: fn(&Wait, now_ns: u64),
    /// Takes in that it is not known any more how a wait goes on.
    pub(crate) forgotten: fn(&Wait),
}

static SAMPLING: OnceLock<Sampling> = OnceLock::new();

/// The number of sessions that sample waits.
static WANTED: AtomicU32 = AtomicU32::new(0);

/// How often sampling has begun. In between nobody knows of polls, so a wait from before may have ended long ago.
static EPOCH: AtomicU32 = AtomicU32::new(0);

/// While a value of this type lives, waits are sampled.
#[derive(Debug)]
pub(crate) struct Sampled(());

impl Sampled {
    /// The first call decides how waits are sampled.
    pub(crate) fn begin(sampling: Sampling) -> Self {
        SAMPLING.get_or_init(|| sampling);
        // Relaxed: a poll that begins at this moment may not be watched, or be watched with the epoch before, and so be forgotten.
        if WANTED.fetch_add(1, Ordering::Relaxed) == 0 {
            EPOCH.fetch_add(1, Ordering::Relaxed);
        }
        Self(())
    }
}

impl Drop for Sampled {
    fn drop(&mut self) {
        // Relaxed: a poll that begins at this moment may be watched all the same.
        WANTED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How waits are sampled, if they are.
#[inline(always)]
fn sampling() -> Option<&'static Sampling> {
    // Relaxed: see `Sampled`.
    if WANTED.load(Ordering::Relaxed) == 0 { None } else { SAMPLING.get() }
}

/// A watched poll, and the wait after it.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) task: Arc<Task>,
    /// How many polls this one stands for.
    pub(crate) stands_for: u32,
    /// The epoch in which the poll was watched.
    epoch: u32,
    /// The thread that polls, by its [`Cpu`]'s number.
    poller: u32,
    /// Whether the poll goes on.
    polled: AtomicBool,
    /// The stacks of the leaves that are left when the poll ends, from then on: until then, this thread alone has them, as [`MADE`].
    leaves: [OnceLock<Box<[u64]>>; LEAVES],
    /// For each leaf, the number of the lock that its future waits for, or 0.
    locks: [AtomicU64; LEAVES],
    /// The leaves that are left when the poll ends, from the oldest: the number plus one of each, in four bits.
    order: AtomicU32,
    /// The number of stacks that were taken.
    taken: AtomicU32,
    /// A bit for each number that a leaf has had.
    made: AtomicU32,
    /// Whether the poll has left wakers that are no leaves.
    has_more: AtomicBool,
    /// A bit for each leaf of which no waker is left.
    dropped: AtomicU32,
    /// When the poll ended, or 0.
    since_ns: AtomicU64,
    /// When the task was first woken, or 0.
    woken_ns: AtomicU64,
    /// The leaf that woke it, as its number plus one, and in the upper half the spawn path of the task that did, as its number plus one.
    woken_by: AtomicU64,
}

/// What is known of a wait at some moment.
pub(crate) struct Course<'a> {
    pub(crate) since_ns: u64,
    /// When the task was woken, if it was.
    pub(crate) woken_ns: Option<u64>,
    /// The number of the spawn path of the task that woke it, if one did.
    pub(crate) woken_by: Option<u32>,
    /// The lock that the task waits for there, if the runtime says so.
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only spans tell of locks"))]
    pub(crate) lock: Option<NonZeroU64>,
    /// Where the task waited: empty where nothing is known.
    pub(crate) stack: &'a [u64],
}

impl Wait {
    /// Begins to watch the poll that begins on this thread, if it is chosen.
    pub(crate) fn choose(task: &Arc<Task>) -> Option<Arc<Self>> {
        let sampling = sampling()?;
        let stands_for = (sampling.choose)()?;
        let wait = Arc::new(Self {
            task: Arc::clone(task),
            stands_for,
            // Relaxed: see `Sampled::begin`.
            epoch: EPOCH.load(Ordering::Relaxed),
            poller: Cpu::with(|cpu| cpu.record().index()),
            polled: AtomicBool::new(true),
            leaves: Default::default(),
            locks: Default::default(),
            order: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            made: AtomicU32::new(0),
            has_more: AtomicBool::new(false),
            dropped: AtomicU32::new(0),
            since_ns: AtomicU64::new(0),
            woken_ns: AtomicU64::new(0),
            woken_by: AtomicU64::new(0),
        });
        // Of a poll that was moved to another thread before it ended, there may be some left.
        drop(wait.take_made());
        Some(wait)
    }

    /// Makes a leaf of the waker that is being cloned, and returns its number plus one. `None` if it is not cloned in the watched poll,
    /// or is one too many, or comes after a leaf has woken the task.
    pub(crate) fn make_leaf(&self) -> Option<u32> {
        if !self.is_polled_here() {
            return None;
        }
        let make =
            |made: &RefCell<Vec<Made>>| self.make_leaf_among(&mut *made.try_borrow_mut().ok()?);
        let leaf = MADE.try_with(make).ok().flatten();
        if leaf.is_none() {
            // Relaxed: only this thread writes it before the wait is known.
            self.has_more.store(true, Ordering::Relaxed);
        }
        leaf
    }

    fn make_leaf_among(&self, made: &mut Vec<Made>) -> Option<u32> {
        // Acquire: pairs with the Release in `drop_leaf`. If a leaf has woken the task and is dropped, the wake is seen below.
        let dropped = self.dropped.load(Ordering::Acquire);
        // Relaxed: a figure. Who has been woken by a leaf in the poll will not wait, and that leaf must stay.
        if self.woken_by.load(Ordering::Relaxed) as u32 != 0 {
            return None;
        }
        if made.len() >= MOST_MADE {
            made.clear();
        }
        made.retain(|leaf| !leaf.is_of(self) || dropped & 1 << leaf.number == 0);
        // Relaxed, all: only the thread that polls writes them.
        let (taken, had) = (self.taken.load(Ordering::Relaxed), self.made.load(Ordering::Relaxed));
        let is_free = |number: &u32| (had & !dropped) & 1 << number == 0;
        let number = (0..LEAVES as u32).find(is_free).filter(|_| taken < MOST_STACKS)?;
        self.taken.store(taken + 1, Ordering::Relaxed);
        self.made.store(had | 1 << number, Ordering::Relaxed);
        let stack = (sampling()?.stack)().unwrap_or_default();
        self.locks[number as usize].store(0, Ordering::Relaxed);
        // Relaxed: of the leaf that had this number no waker is left, and of the new one there is none yet.
        self.dropped.fetch_and(!(1 << number), Ordering::Relaxed);
        made.push(Made { wait: std::ptr::from_ref(self), number, stack });
        Some(number + 1)
    }

    /// Takes the leaves that this thread has made in the poll, from the oldest.
    fn take_made(&self) -> Vec<Made> {
        let take = |made: &RefCell<Vec<Made>>| {
            Some(made.try_borrow_mut().ok()?.extract_if(.., |leaf| leaf.is_of(self)).collect())
        };
        MADE.try_with(take).ok().flatten().unwrap_or_default()
    }

    /// Says that the poll has ended, or panicked.
    pub(crate) fn leave(&self) {
        // Relaxed: see `is_polled_here`.
        self.polled.store(false, Ordering::Relaxed);
        drop(self.take_made());
    }

    /// Whether this thread is in the watched poll.
    fn is_polled_here(&self) -> bool {
        // Relaxed: on the thread that polls, it is what that thread has written. On others the answer is no, whatever they find.
        self.polled.load(Ordering::Relaxed)
            && Cpu::try_with(|cpu| cpu.record().index()) == Some(self.poller)
    }

    /// Says that this thread has made a leaf, so that [`note_lock`] finds it. Where a task is within another, the inner one's leaf comes last.
    pub(crate) fn note_leaf(self: &Arc<Self>) {
        // Relaxed: if the first lock is made at this moment, nobody waits for it yet.
        if TELLS_OF_LOCKS.load(Ordering::Relaxed) {
            let _ = LAST.try_with(|last| last.set(Arc::downgrade(self)));
        }
    }

    /// Notes that no waker is left of a leaf, given by its number plus one: a future has been dropped, or does not wait any more.
    pub(crate) fn drop_leaf(&self, leaf: u32) {
        // Release: pairs with the Acquires in `course` and `make_leaf_among`. Whoever sees that a leaf is dropped sees that it woke the task before.
        self.dropped.fetch_or(1 << (leaf - 1), Ordering::Release);
    }

    /// Ends the poll. If the task is pending, its wait begins.
    pub(crate) fn end_poll(self: &Arc<Self>, is_pending: bool) {
        // Relaxed: see `is_polled_here`.
        self.polled.store(false, Ordering::Relaxed);
        for (place, leaf) in self.take_made().into_iter().take(LEAVES).enumerate() {
            let order = self.order.load(Ordering::Relaxed);
            // Relaxed: whoever reads it has found the wait in a table of the sampler's, which orders it, or polls the task next.
            self.order.store(order | (leaf.number + 1) << (4 * place), Ordering::Relaxed);
            let _ = self.leaves[leaf.number as usize].set(leaf.stack);
        }
        if is_pending && let Some(sampling) = sampling() {
            // Relaxed: whoever reads it has found the wait in a table of the sampler's, which orders it.
            self.since_ns.store(Choice::of_process().wall_ns(), Ordering::Relaxed);
            (sampling.begun)(self);
        }
    }

    /// Ends the wait, if one began.
    pub(crate) fn end(&self) {
        // Relaxed, both: the executor orders the last poll before this.
        if self.since_ns.load(Ordering::Relaxed) != 0
            && let Some(sampling) = SAMPLING.get()
        {
            match self.is_known() {
                true => (sampling.ended)(self, Choice::of_process().wall_ns()),
                false => (sampling.forgotten)(self),
            }
            self.since_ns.store(0, Ordering::Relaxed);
        }
    }

    /// Whether waits have been sampled ever since, so that all polls are known.
    pub(crate) fn is_known(&self) -> bool {
        // Relaxed: see `Sampled::begin`.
        self.epoch == EPOCH.load(Ordering::Relaxed)
    }

    /// Notes that the task is woken by a leaf, given by its number plus one, or 0.
    pub(crate) fn note_wake(&self, leaf: u32) {
        let times = Ordering::Relaxed;
        // Only the first wake counts. Relaxed, both: a time.
        if self.woken_ns.load(times) != 0 {
            return;
        }
        let now_ns = Choice::of_process().wall_ns();
        if self.woken_ns.compare_exchange(0, now_ns, times, times).is_ok() {
            let by = Cpu::try_with(|cpu| cpu.path().map(SpawnPath::id)).flatten();
            let by = by.map_or(0, |path| path + 1);
            // Relaxed: figures. Who sees the time and not these takes the waker for unknown.
            self.woken_by.store(u64::from(by) << 32 | u64::from(leaf), Ordering::Relaxed);
        }
    }

    /// What is known of the wait now.
    pub(crate) fn course(&self) -> Course<'_> {
        // Acquire: pairs with the Release in `drop_leaf`.
        let dropped = self.dropped.load(Ordering::Acquire);
        // Relaxed, all: see where they are stored.
        let since_ns = self.since_ns.load(Ordering::Relaxed);
        let woken_ns = self.woken_ns.load(Ordering::Relaxed);
        let woken_by = self.woken_by.load(Ordering::Relaxed);
        // Where nobody has woken it, the task waits for all that are left. The first is what it awaited first. Where it was woken by a waker that
        // is no leaf, the place is theirs only if all of them have the same one: a loop over many futures of a kind.
        let order = self.order.load(Ordering::Relaxed);
        let made = (0..LEAVES).filter_map(|place| (order >> (4 * place) & 0xf).checked_sub(1));
        let stack_of = |leaf: u32| Some(&**self.leaves.get(leaf as usize)?.get()?);
        let is_one_of_more = woken_ns != 0 && self.has_more.load(Ordering::Relaxed);
        let waits_at = || match is_one_of_more {
            false => made.clone().find(|leaf| dropped & 1 << leaf == 0),
            true => {
                let first = made.clone().next()?;
                made.clone().all(|leaf| stack_of(leaf) == stack_of(first)).then_some(first)
            }
        };
        let leaf = (woken_by as u32).checked_sub(1).or_else(waits_at);
        let stack = leaf.and_then(stack_of);
        // Relaxed: the thread that polled has written it before the wait was known.
        let lock = leaf.and_then(|leaf| self.locks.get(leaf as usize));
        let lock = lock.map_or(0, |lock| lock.load(Ordering::Relaxed));
        Course {
            since_ns,
            woken_ns: (woken_ns != 0).then(|| woken_ns.max(since_ns)),
            woken_by: ((woken_by >> 32) as u32).checked_sub(1),
            lock: NonZeroU64::new(lock),
            stack: stack.unwrap_or_default(),
        }
    }
}

/// Whether the runtime says which locks tasks wait for.
static TELLS_OF_LOCKS: AtomicBool = AtomicBool::new(false);

/// A leaf of a poll that goes on.
struct Made {
    wait: *const Wait,
    number: u32,
    stack: Box<[u64]>,
}

impl Made {
    fn is_of(&self, wait: &Wait) -> bool {
        std::ptr::eq(self.wait, wait)
    }
}

thread_local! {
    /// The leaves of the watched polls that go on on this thread, from the oldest.
    static MADE: RefCell<Vec<Made>> = const { RefCell::new(Vec::new()) };

    /// The poll in which this thread has made its latest leaf.
    static LAST: Cell<Weak<Wait>> = const { Cell::new(Weak::new()) };
}

/// Says that the runtime tells of locks.
#[cfg(feature = "tracing")]
pub(crate) fn expect_locks() {
    // Relaxed: see `note_leaf`.
    TELLS_OF_LOCKS.store(true, Ordering::Relaxed);
}

/// Whether waits are sampled: only then is it of use to say which locks tasks wait for.
#[cfg(feature = "tracing")]
pub(crate) fn are_sampled() -> bool {
    sampling().is_some()
}

/// Says that a future begins to ask for a lock: what this thread's poll has left before is none of it.
#[cfg(feature = "tracing")]
pub(crate) fn begin_lock() {
    let _ = LAST.try_with(Cell::take);
}

/// Notes that the future which has just left its waker waits for a lock.
#[cfg(feature = "tracing")]
pub(crate) fn note_lock(lock: NonZeroU64) {
    let last = LAST.try_with(Cell::take).ok().and_then(|last| last.upgrade());
    let Some(wait) = last.filter(|wait| wait.is_polled_here()) else { return };
    let latest = |made: &RefCell<Vec<Made>>| {
        Some(made.try_borrow().ok()?.iter().rfind(|leaf| leaf.is_of(&wait))?.number)
    };
    if let Some(leaf) = MADE.try_with(latest).ok().flatten() {
        // Relaxed: only the thread that polls writes it.
        wait.locks[leaf as usize].store(lock.get(), Ordering::Relaxed);
    }
}
