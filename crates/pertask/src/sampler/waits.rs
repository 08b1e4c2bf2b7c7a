//! Where tasks wait: which polls are watched, the stacks of their leaves, and the waits that go on.
//!
//! A wait that has ended is a record in the ring of the thread that polls the task next. A poll takes no lock. Chance says whether it is
//! watched: one in so many on its thread, which is all of them while there are few, and so few of them while there are many that the
//! stacks take less than a hundredth of the thread's time.

use super::handler::{COMPLETE, FIBER, HEAD, MOST_FRAMES, TAG_SHIFT, TRUNCATED, WAIT};
use super::own_thread::OwnRecord;
use crate::os::clock::Choice as Clock;
use crate::pmus::waits::{Course, Sampled, Sampling, Wait};
use crate::tasks::accounts::can_look_up;
use pertask_core::TaskId;
use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// The words of a wait between a sample's first words and its stack.
pub(super) const MORE: usize = 2;

/// The most words of a wait.
const MOST_WORDS: usize = HEAD + MORE + MOST_FRAMES;

/// The bit of the seventh word that says that the task there has not ended the wait, but holds the lock that is waited for.
pub(super) const HOLDS: u64 = 1 << 63;

/// About how many stacks a second are taken on a thread where there are many: this many to twice as many. Each watched poll counts as one
/// stack at least.
const RATE: u64 = 500;

/// How often a thread finds out how many polls it makes.
const LOOK_NS: u64 = 50_000_000;

/// At most so many polls in a row only count down. The next one looks at the clock, which costs more than all else here. So after a rush
/// some more polls pass until each is watched again.
const MOST_SKIPPED: u32 = 7;

/// The most waits that go on and are known.
const MOST_OPEN: usize = 1 << 16;

/// The waits that go on. Whoever reads a session takes them from here.
static OPEN: LazyLock<papaya::HashMap<NonZeroU64, Arc<Wait>>> = LazyLock::new(papaya::HashMap::new);

/// The watched waits that are lost, because their thread has no ring, or no room in it.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Begins to sample waits.
pub(super) fn begin() -> Sampled {
    // Here, where a lock is nobody's loss.
    LazyLock::force(&OPEN);
    Sampled::begin(Sampling { choose, stack, begun, ended, forgotten })
}

/// How many watched waits have been lost since the program began.
pub(super) fn dropped() -> u64 {
    // Relaxed: a figure.
    DROPPED.load(Ordering::Relaxed)
}

/// Calls `f` with the words of each wait that goes on, as those of a wait that ends now.
pub(super) fn for_each_open(mut f: impl FnMut(&[u64])) {
    if !can_look_up() {
        return;
    }
    let now_ns = Clock::of_process().wall_ns();
    let open = OPEN.pin();
    for (number, wait) in open.iter().filter(|(_, wait)| wait.is_known()) {
        let course = wait.course();
        if course.since_ns == 0 {
            // It has just ended, and is in a ring; or a thread has forgotten it that was too near its end to say so.
            let _ = open.remove_if(number, |_, known| Arc::ptr_eq(known, wait));
            continue;
        }
        let mut words = Vec::with_capacity(MOST_WORDS);
        let by = woken_by(&course).or_else(|| Some(of_path(holder(&course)?) | HOLDS));
        write(wait, &course, by, now_ns, |word| words.push(word));
        f(&words);
    }
}

/// A thread's choice of polls.
#[derive(Clone, Copy)]
struct Choosing {
    /// One of so many polls is watched.
    every: u32,
    /// The polls until the next watched one, with it.
    left: u32,
    /// How many polls only count down before the next look at the clock.
    skipped: u32,
    /// The polls since `since_ns`, those among them that were watched, and the stacks that were taken in these.
    polls: u64,
    watched: u64,
    stacks: u64,
    /// Stacks, and the watched polls in which they were taken, when there last were any.
    lately: (u64, u64),
    since_ns: u64,
    /// The state of a xorshift generator.
    random: u64,
}

thread_local! {
    /// The polls that only count down before the next look at the clock.
    static SKIP: Cell<u32> = const { Cell::new(0) };
    static CHOOSING: Cell<Choosing> = const {
        Cell::new(Choosing {
            every: 1,
            left: 1,
            skipped: 0,
            polls: 0,
            watched: 0,
            stacks: 0,
            lately: (1, 1),
            since_ns: 0,
            random: 0,
        })
    };
}

fn choose() -> Option<u32> {
    let left = SKIP.get();
    if left > 0 {
        SKIP.set(left - 1);
        return None;
    }
    let mut choosing = CHOOSING.get();
    let chosen = choosing.look(Clock::of_process().wall_ns());
    SKIP.set(choosing.skipped);
    CHOOSING.set(choosing);
    chosen
}

impl Choosing {
    /// Chooses in a poll that looks at the clock. Returns for how many polls it stands if it is watched.
    fn look(&mut self, now_ns: u64) -> Option<u32> {
        let passed = self.skipped + 1;
        self.polls += u64::from(passed);
        self.left = self.left.saturating_sub(passed);
        let stands_for = (self.left == 0).then_some(self.every);
        let has_changed = self.adapt(now_ns);
        self.watched += u64::from(stands_for.is_some());
        // What comes does not depend on what came before, so a new rate holds from here on.
        if has_changed || stands_for.is_some() {
            self.left = self.draw(now_ns);
        }
        self.skipped = (self.left - 1).min(MOST_SKIPPED);
        stands_for
    }

    /// Learns how many polls there are, from time to time, and at once where they have become many. Returns whether that changes how
    /// many are watched.
    fn adapt(&mut self, now_ns: u64) -> bool {
        const ENOUGH: u64 = RATE * LOOK_NS / 1_000_000_000;
        let passed_ns = now_ns.saturating_sub(self.since_ns);
        // A poll that leaves many wakers counts as many.
        let taken = self.stacks.max(self.watched);
        if passed_ns < LOOK_NS && taken < 2 * ENOUGH {
            return false;
        }
        let a_second = self.polls.saturating_mul(1_000_000_000) / passed_ns.max(1);
        if self.watched > 0 {
            self.lately = (taken, self.watched);
        }
        let stacks_a_second = a_second.saturating_mul(self.lately.0) / self.lately.1;
        let every = (stacks_a_second / RATE).clamp(1, 1 << 16) as u32;
        (self.polls, self.watched, self.stacks, self.since_ns) = (0, 0, 0, now_ns);
        every != std::mem::replace(&mut self.every, every)
    }

    /// The polls until one is watched, where each is with a chance of one in `every`. So polls which come in turns are all met, and the
    /// sum of what the watched ones stand for is right in the mean, however often `every` changes.
    fn draw(&mut self, now_ns: u64) -> u32 {
        let chance = self.random(now_ns) as f64 / u64::MAX as f64;
        // At most some millions.
        let passed_over = chance.ln() / (1.0 - 1.0 / f64::from(self.every)).ln();
        1 + passed_over as u32
    }

    fn random(&mut self, now_ns: u64) -> u64 {
        let mut x = if self.random == 0 { now_ns | 1 } else { self.random };
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        x
    }
}

/// The stack of the calling thread: its flags, and then its addresses.
fn stack() -> Option<Box<[u64]>> {
    let choosing = CHOOSING.get();
    CHOOSING.set(Choosing { stacks: choosing.stacks + 1, ..choosing });
    OwnRecord::get()?.stack()
}

fn begun(wait: &Arc<Wait>) {
    // A wait beyond the bound is known once it has ended.
    if can_look_up() && OPEN.len() < MOST_OPEN {
        OPEN.pin().insert(number(wait), Arc::clone(wait));
    }
}

fn forgotten(wait: &Wait) {
    if can_look_up() {
        OPEN.pin().remove(&number(wait));
    }
}

fn ended(wait: &Wait, now_ns: u64) {
    forgotten(wait);
    let write = |push: &mut dyn FnMut(u64)| {
        let course = wait.course();
        write(wait, &course, woken_by(&course), now_ns, push);
    };
    if OwnRecord::get().and_then(|own| own.write(MOST_WORDS, write)).is_none() {
        // Relaxed: a figure.
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

fn number(wait: &Wait) -> NonZeroU64 {
    NonZeroU64::new(TaskId::get(wait.task.id())).unwrap_or(NonZeroU64::MIN)
}

/// The number of a spawn path, as the words of a wait have it.
fn of_path(path: u32) -> u64 {
    u64::from(path) + 1
}

fn woken_by(course: &Course<'_>) -> Option<u64> {
    course.woken_by.map(of_path)
}

/// The spawn path of the task that holds the lock that is waited for, if that is known and nobody has woken the task.
#[cfg(feature = "tracing")]
fn holder(course: &Course<'_>) -> Option<u32> {
    let lock = course.lock.filter(|_| course.woken_ns.is_none());
    crate::tasks::locks::holder(lock?)
}

#[cfg(not(feature = "tracing"))]
fn holder(_: &Course<'_>) -> Option<u32> {
    None
}

/// Writes a wait: first the words of a sample, which has the end of the wait in place of the thread's CPU time and in place of scopes
/// who ended it, or holds what is waited for; then when the wait began, and when the task was woken.
fn write(
    wait: &Wait,
    course: &Course<'_>,
    by: Option<u64>,
    now_ns: u64,
    mut push: impl FnMut(u64),
) {
    let (flags, addresses) = course.stack.split_first().unwrap_or((&0, &[]));
    let task = &wait.task;
    let path = of_path(task.path().id());
    push(flags & (COMPLETE | FIBER | TRUNCATED) | WAIT | u64::from(wait.stands_for) << 32);
    push(0);
    push(now_ns);
    push(task.id().get());
    push(task.parent().map_or(0, TaskId::get));
    push(path | u64::from(task.tag()) << TAG_SHIFT);
    push(by.unwrap_or(0));
    push(course.since_ns);
    push(course.woken_ns.unwrap_or(0));
    addresses.iter().for_each(|address| push(*address));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread's choice of polls, with the polls that only count down.
    struct Polls {
        choosing: Choosing,
        skip: u32,
        watched: u64,
        stood_for: u64,
    }

    impl Polls {
        fn new() -> Self {
            let choosing = Choosing { since_ns: 1, ..CHOOSING.get() };
            Self { choosing, skip: 0, watched: 0, stood_for: 0 }
        }

        /// Polls at a time. Returns whether the poll is watched.
        fn poll(&mut self, now_ns: u64) -> bool {
            if self.skip > 0 {
                self.skip -= 1;
                return false;
            }
            let chosen = self.choosing.look(now_ns);
            self.skip = self.choosing.skipped;
            self.watched += u64::from(chosen.is_some());
            self.stood_for += u64::from(chosen.unwrap_or(0));
            chosen.is_some()
        }
    }

    fn of(count: u64, apart_ns: u64) -> (u64, u64) {
        let mut polls = Polls::new();
        for poll in 0..count {
            polls.poll(1 + poll * apart_ns);
        }
        (polls.watched, polls.stood_for)
    }

    #[test]
    fn few_polls_are_all_watched_and_of_many_a_bounded_number() {
        assert_eq!(of(500, 2_000_000), (500, 500));
        // A million polls a second, for two seconds.
        let (watched, stood_for) = of(2_000_000, 1_000);
        assert!((RATE..=RATE * 12 / 5).contains(&watched), "{watched}");
        assert!((1_600_000..=2_400_000).contains(&stood_for), "they stand for {stood_for}");
    }

    /// Polls that leave as many wakers as are looked at.
    #[test]
    fn stacks_are_bounded_and_what_they_stand_for_is_right() {
        const STACKS: u64 = 64;
        let (count, apart_ns) = (200_000_u64, 100_000);
        let mut polls = Polls::new();
        for poll in 0..count {
            if polls.poll(1 + poll * apart_ns) {
                polls.choosing.stacks += STACKS;
            }
        }
        let Polls { watched, stood_for, .. } = polls;
        // Twenty seconds.
        assert!((20 * RATE / 2..=20 * RATE * 2).contains(&(watched * STACKS)), "{watched}");
        assert!((count / 10 * 7..=count / 10 * 13).contains(&stood_for), "{stood_for} of {count}");
    }

    /// Rushes of some 20 ms, and calm between them, of polls that leave many wakers, so that `every` changes all the time and never fits.
    #[test]
    fn what_they_stand_for_is_right_in_the_mean_however_the_load_changes() {
        const RUNS: u64 = 100;
        const STACKS: u64 = 16;
        let (mut count, mut stood_for) = (0, 0);
        for run in 1..=RUNS {
            let mut polls = Polls::new();
            polls.choosing.random = run << 32 | run;
            let mut now_ns = 1;
            for _ in 0..100 {
                for (many, apart_ns) in [(4_000, 5_000), (50, 400_000)] {
                    for _ in 0..many {
                        now_ns += apart_ns;
                        let is_watched = polls.poll(now_ns);
                        polls.choosing.stacks += u64::from(is_watched) * STACKS;
                    }
                    count += many;
                }
            }
            stood_for += polls.stood_for;
        }
        assert!((count / 20 * 19..=count / 20 * 21).contains(&stood_for), "{stood_for} of {count}");
    }

    #[test]
    fn after_a_rush_every_poll_is_watched_again() {
        let mut polls = Polls::new();
        for poll in 0..1_000_000 {
            polls.poll(1 + poll * 500);
        }
        assert!(polls.choosing.every > 100);
        let later = 10_000_000_000;
        let mut watched = |poll: &u64| polls.poll(later + poll * 100_000_000);
        let first = (0..50).find(&mut watched).unwrap();
        // Two looks, of which the first still finds many polls since the one before; and then the next poll.
        assert!(first <= 2 * (u64::from(MOST_SKIPPED) + 1), "{first}");
        assert!((first + 1..50).all(|poll| watched(&poll)));
    }
}
