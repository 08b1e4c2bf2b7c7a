//! Lives by tag: a cut counts each moment of a life once, whatever the task does meanwhile.
//!
//! An RCU section is a read lock here, and a grace period a moment at which nobody has one. All times are before the moment of the
//! reading, so that whatever has been charged by then, and whatever goes on, add up to the same life.

use super::books::{Banks, Books, begin_cut, latest_cut};
use super::count::{LifeCount, Part};
use super::data::{Change, LifeData, Seen};
use super::ended;
use super::state::State;
use crate::check;
use crate::sync::{AtomicU32, Ordering};
use loom::sync::{Arc, RwLock};
use loom::thread;

const TASK: u64 = 1;
const TAG: u32 = 1;
const OTHER_TAG: u32 = 2;
/// When the life is read.
const NOW_NS: u64 = 100;

/// A task, and the CPU that runs it.
struct World {
    data: LifeData,
    books: Banks,
    sections: RwLock<()>,
}

impl World {
    /// A task whose life has not begun.
    fn unborn() -> Arc<Self> {
        // loom orders the first use of a static before all others.
        latest_cut();
        ended::end_reading();
        let (data, books) = (LifeData::default(), Banks::default());
        Arc::new(Self { data, books, sections: RwLock::new(()) })
    }

    /// A task that waits from 0 on.
    fn new() -> Arc<Self> {
        let world = Self::unborn();
        world.data.begin_as(TASK, TAG, State::Waiting, 0);
        world
    }

    fn change(&self, state: State, now_ns: u64) {
        let woken_ns = self.data.woken_ns();
        let change = Change { state, now_ns, woken_ns, tag: TAG };
        self.data.change(change, Books::own(&self.books));
    }

    fn in_section(&self, f: impl FnOnce()) {
        let section = self.sections.read().unwrap();
        f();
        drop(section);
    }

    /// Cuts. Returns the cut's number and what was charged before.
    fn cut(&self) -> (u32, u64) {
        let before = latest_cut();
        ended::begin_reading(before + 1);
        begin_cut(before + 1);
        drop(self.sections.write().unwrap());
        let charged = |cut| self.books.bank(cut).of_place(0).iter().sum::<u64>();
        // The other bank has what was charged before the cut before.
        (before + 1, charged(before))
    }

    fn see(&self, cut: u32) -> Seen {
        self.data.see(NOW_NS, cut)
    }
}

fn whole(life: &LifeCount) -> u64 {
    life.parts_ns.iter().sum()
}

/// A task changes its state while a cut is made and read.
#[test]
fn a_cut_races_a_change() {
    check(|| {
        let world = World::new();
        let other = Arc::clone(&world);
        let polls = thread::spawn(move || other.in_section(|| other.change(State::Polled, 40)));
        let (cut, charged_ns) = world.cut();
        let seen = world.see(cut);
        assert_eq!(charged_ns + whole(&seen.open), NOW_NS);
        assert_eq!((whole(&seen.count), seen.tag), (NOW_NS, TAG));
        polls.join().unwrap();
    });
}

/// The second change after a cut keeps what the first one kept.
#[test]
fn a_cut_races_two_changes() {
    check(|| {
        let world = World::new();
        let other = Arc::clone(&world);
        let polls = thread::spawn(move || {
            other.in_section(|| other.change(State::Polled, 40));
            other.in_section(|| other.change(State::Inside, 70));
        });
        let (cut, charged_ns) = world.cut();
        let seen = world.see(cut);
        assert_eq!(charged_ns + whole(&seen.open), NOW_NS);
        polls.join().unwrap();
    });
}

/// A task is woken as it is read, and as it is polled. No time goes back, and none is lost.
#[test]
fn a_reading_races_a_wake() {
    check(|| {
        let world = World::new();
        let other = Arc::clone(&world);
        let wakes = thread::spawn(move || other.data.note_wake(|| 30));
        let [first, second] = [(); 2].map(|()| world.see(0).count);
        assert_eq!((whole(&first), whole(&second)), (NOW_NS, NOW_NS));
        let ready = Part::Ready as usize;
        assert!(second.parts_ns[ready] >= first.parts_ns[ready], "{first:?}, {second:?}");
        wakes.join().unwrap();
    });
}

/// A task is woken by another thread as its poll ends. It is ready from the wake on, or from the end of the poll if that comes later.
#[test]
fn a_wake_races_the_end_of_the_poll() {
    check(|| {
        let world = World::new();
        world.change(State::Polled, 20);
        let other = Arc::clone(&world);
        let wakes = thread::spawn(move || other.data.note_wake(|| 70));
        world.change(State::Waiting, 40);
        let before = world.see(0).count;
        wakes.join().unwrap();
        let after = world.see(0).count;
        assert_eq!((whole(&before), whole(&after)), (NOW_NS, NOW_NS));
        let ready_ns = after.parts_ns[Part::Ready as usize];
        assert!([NOW_NS - 70, NOW_NS - 40].contains(&ready_ns), "{after:?}");
        world.change(State::Polled, 90);
        assert_eq!(world.data.woken_ns(), 0, "the next poll has taken it");
    });
}

/// A task gets another tag while a cut is made and read. What was open at the cut is of the tag that the task had then.
#[test]
fn a_cut_races_a_change_of_the_tag() {
    check(|| {
        let world = World::new();
        let other = Arc::clone(&world);
        let labels = thread::spawn(move || {
            other.in_section(|| other.data.change_tag(OTHER_TAG, 40, Books::own(&other.books)));
        });
        let (cut, charged_ns) = world.cut();
        let seen = world.see(cut);
        assert_eq!(charged_ns + whole(&seen.open), NOW_NS);
        // Charged before the cut is what the task had with its first tag.
        assert_eq!(seen.tag, if charged_ns > 0 { OTHER_TAG } else { TAG });
        labels.join().unwrap();
    });
}

/// A task ends while a cut is made and read. The walk sees it, or its end has said what was open.
#[test]
fn a_cut_races_an_end() {
    check(|| {
        let world = World::new();
        let live = Arc::new(AtomicU32::new(1));
        let (other, ends) = (Arc::clone(&world), Arc::clone(&live));
        let ends = thread::spawn(move || {
            other.in_section(|| {
                let (task, cut, seen) =
                    other.data.end(NOW_NS, Books::own(&other.books)).expect("it has begun");
                ended::note_end(task, cut, seen);
            });
            // Release: a walk that does not find the task finds what its end has said, as with the core's table.
            ends.store(0, Ordering::Release);
        });
        let (cut, charged_ns) = world.cut();
        let is_seen = live.load(Ordering::Acquire) == 1;
        let open_ns = if is_seen { whole(&world.see(cut).open) } else { 0 };
        let task = is_seen.then_some(TASK).into_iter();
        let unseen_ns: u64 = ended::unseen(cut, task).map(|(_, open)| whole(&open)).sum();
        ended::end_reading();
        assert_eq!(charged_ns + open_ns + unseen_ns, NOW_NS);
        ends.join().unwrap();
    });
}

/// Two threads begin a life: the one that adopts the task, and the one that polls it.
#[test]
fn a_life_begins_once() {
    check(|| {
        let world = World::unborn();
        let other = Arc::clone(&world);
        let polls = thread::spawn(move || {
            other.data.begin_as(TASK, TAG, State::Unknown, 20);
            other.in_section(|| other.change(State::Polled, 40));
        });
        world.data.begin_as(TASK, TAG, State::Unknown, 10);
        let (cut, charged_ns) = world.cut();
        let seen = world.see(cut);
        let life_ns = charged_ns + whole(&seen.open);
        assert!(life_ns == NOW_NS - 10 || life_ns == NOW_NS - 20, "{life_ns}");
        assert_eq!(seen.tag, TAG);
        polls.join().unwrap();
    });
}

/// A session begins the life of a task that is polled just then. The poll knows the tag with which the life began.
#[test]
fn a_poll_races_a_beginning_by_another_thread() {
    check(|| {
        let world = World::unborn();
        let other = Arc::clone(&world);
        let polls = thread::spawn(move || {
            if other.data.has_begun() {
                other.in_section(|| other.change(State::Polled, 40));
            }
        });
        world.data.begin_as(TASK, TAG, State::Unknown, 10);
        let (cut, charged_ns) = world.cut();
        let seen = world.see(cut);
        assert_eq!((charged_ns + whole(&seen.open), seen.tag), (NOW_NS - 10, TAG));
        polls.join().unwrap();
    });
}
