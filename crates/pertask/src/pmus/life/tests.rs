use super::books::{Banks, Books, begin_cut, latest_cut};
use super::count::{LifeCount, Part};
use super::data::{Change, LifeData, Seen};
use super::state::State;
use crate::pmus::by_tag::want_room;
use bytemuck::Zeroable;
use std::sync::atomic::{AtomicU64, Ordering};

fn data() -> LifeData {
    Zeroable::zeroed()
}

/// Changes the state of a task without labels.
fn change(data: &LifeData, state: State, now_ns: u64, woken_ns: u64) {
    change_to(data, Change { state, now_ns, woken_ns, tag: 0 }, &Banks::default());
}

fn change_to(data: &LifeData, change: Change, books: &Banks) {
    data.begin_as(1, change.tag, change.state, change.now_ns);
    data.change(change, Books::own(books));
}

fn parts(data: &LifeData, now_ns: u64) -> Vec<(Part, u64)> {
    let LifeCount { parts_ns } = data.read(now_ns);
    Part::ALL.into_iter().zip(parts_ns).filter(|(_, ns)| *ns > 0).collect()
}

#[test]
fn each_moment_of_a_life_is_in_one_part() {
    let data = data();
    data.begin_as(1, 0, State::New, 100);
    data.begin_as(1, 0, State::Unknown, 700);
    change(&data, State::Polled, 110, data.woken_ns());
    change(&data, data.end_poll(), 120, 0);
    change(&data, State::Polled, 122, data.woken_ns());
    data.expect_wakes();
    change(&data, State::Inside, 130, 0);
    change(&data, State::Polled, 135, 0);
    change(&data, data.end_poll(), 140, 0);
    data.note_wake(|| 200);
    data.note_wake(|| 210);
    assert_eq!(
        parts(&data, 230),
        [
            (Part::Polled, 23),
            (Part::Ready, 30),
            (Part::Waiting, 60),
            (Part::Unknown, 2),
            (Part::Inside, 5),
            (Part::New, 10)
        ],
        "also of the state that goes on; the waker of the first poll noted nothing"
    );
    change(&data, State::Polled, 240, data.woken_ns());
    change(&data, data.end_poll(), 250, 0);
    change(&data, State::Polled, 290, data.woken_ns());
    assert_eq!(
        parts(&data, 291),
        [
            (Part::Polled, 34),
            (Part::Ready, 40),
            (Part::Waiting, 100),
            (Part::Unknown, 2),
            (Part::Inside, 5),
            (Part::New, 10)
        ],
        "nothing is known of a wake"
    );
    change(&data, State::Ended, 300, 0);
    assert_eq!(data.read(900).life_ns(), 200);
}

#[test]
fn a_task_that_wakes_itself_is_ready_from_the_end_of_its_poll() {
    let data = data();
    change(&data, State::Polled, 10, 0);
    data.expect_wakes();
    data.note_wake(|| panic!("the clock need not be read"));
    change(&data, data.end_poll(), 20, 0);
    change(&data, State::Polled, 50, data.woken_ns());
    assert_eq!(parts(&data, 50), [(Part::Polled, 10), (Part::Ready, 30)]);
}

#[test]
fn clocks_that_are_apart_take_nothing_away() {
    let data = data();
    change(&data, State::Polled, 100, 0);
    data.expect_wakes();
    change(&data, data.end_poll(), 90, 0);
    data.note_wake(|| 95);
    change(&data, State::Polled, 98, data.woken_ns());
    assert_eq!(data.read(97).life_ns(), 0);
    assert_eq!(parts(&data, 101), [(Part::Polled, 1)]);
}

/// A reader on another thread sees a life that grows, and is never more than it was at the end of the reading.
#[test]
fn a_reader_finds_each_moment_once() {
    let (data, clock, step_ns) = (data(), AtomicU64::new(1_000), 7);
    data.begin_as(1, 0, State::New, 1_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50_000 {
                for state in [State::Polled, State::Inside, State::Polled, State::Unknown] {
                    let now_ns = clock.fetch_add(step_ns, Ordering::SeqCst) + step_ns;
                    change(&data, state, now_ns, 0);
                }
            }
            clock.store(u64::MAX >> 8, Ordering::SeqCst);
        });
        let mut last_ns = 0;
        loop {
            let now_ns = clock.load(Ordering::SeqCst);
            if now_ns == u64::MAX >> 8 {
                break;
            }
            let life_ns = data.read(now_ns).life_ns();
            let latest_ns = clock.load(Ordering::SeqCst);
            assert!(life_ns + 1_000 <= latest_ns, "{life_ns} at {latest_ns}");
            // A reader that finds no moment between two changes lacks the state that goes on, and the change under way.
            assert!(life_ns + 3 * step_ns >= last_ns, "{life_ns} after {last_ns}");
            last_ns = life_ns;
        }
    });
    assert_eq!(data.read(0).life_ns(), 200_000 * step_ns);
}

/// A reader on another thread never sees a time go over from one part to another.
#[test]
fn a_reader_sees_no_part_go_back() {
    const READY_NS: u64 = 1_000;
    let (data, clock, is_over) = (data(), AtomicU64::new(1_000), AtomicU64::new(0));
    data.begin_as(1, 0, State::New, 1_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let after = |ns: u64| clock.fetch_add(ns, Ordering::SeqCst) + ns;
            for _ in 0..100_000 {
                change(&data, State::Polled, after(1), data.woken_ns());
                data.expect_wakes();
                change(&data, data.end_poll(), after(1), 0);
                data.note_wake(|| after(1));
                after(READY_NS);
            }
            is_over.store(1, Ordering::SeqCst);
        });
        let mut last = [0; Part::COUNT];
        while is_over.load(Ordering::SeqCst) == 0 {
            let now = data.read(clock.load(Ordering::SeqCst)).parts_ns;
            for (part, last_ns, now_ns) in
                Part::ALL.into_iter().zip(last).zip(now).map(|((part, a), b)| (part, a, b))
            {
                assert!(now_ns + READY_NS / 2 > last_ns, "{part:?}: {last_ns}, and then {now_ns}");
            }
            last = now;
        }
    });
}

/// The time of each part belongs to the tag that the task had in it.
#[test]
fn each_part_is_charged_to_its_tag() {
    let (data, books) = (data(), Banks::default());
    want_room(9);
    books.make_all_room();
    let to = |state, now_ns, woken_ns, tag| {
        change_to(&data, Change { state, now_ns, woken_ns, tag }, &books);
    };
    data.begin_as(1, 5, State::New, 100);
    to(State::Polled, 110, 0, 5);
    to(State::Inside, 130, 0, 5);
    to(State::Polled, 130, 0, 7);
    data.expect_wakes();
    to(data.end_poll(), 160, 0, 7);
    data.note_wake(|| 200);
    // A wait and a wake that go on with other labels.
    data.change_tag(9, 210, Books::own(&books));
    to(State::Polled, 215, data.woken_ns(), 0);
    to(State::Unknown, 300, 0, 0);
    let of = |tag: usize| {
        let parts = Part::ALL.into_iter().zip(books.of_place(tag));
        parts.filter(|(_, ns)| *ns > 0).collect::<Vec<_>>()
    };
    assert_eq!(of(5), [(Part::Polled, 20), (Part::New, 10)]);
    assert_eq!(of(7), [(Part::Polled, 30), (Part::Ready, 10), (Part::Waiting, 40)]);
    assert_eq!(of(9), [(Part::Ready, 5)]);
    assert_eq!(of(0), [], "no labels, no books");
    let all: u64 = [5, 7, 9].into_iter().flat_map(of).map(|(_, ns)| ns).sum();
    assert_eq!(all + 85, data.read(300).life_ns());
}

/// Whatever happens after a cut, a reading finds what was not charged at the cut, for the tag of that moment.
#[test]
fn a_task_remembers_what_it_had_at_the_cut() {
    let (data, books) = (data(), Banks::default());
    let cut = latest_cut();
    let to = |state, now_ns, tag| {
        change_to(&data, Change { state, now_ns, woken_ns: 0, tag }, &books);
    };
    data.begin_as(1, 3, State::New, 100);
    let open = |cut| {
        let Seen { count, open, tag } = data.see(1_000, cut);
        (tag, count.life_ns(), open.life_ns())
    };
    assert_eq!(open(cut), (3, 900, 900), "it has never been charged");
    to(State::Polled, 200, 5);
    to(State::Unknown, 300, 5);
    assert_eq!(open(cut + 1), (5, 900, 700), "nothing has happened since the cut");
    // As if another reading cut now: other tests may do so, too, which changes nothing.
    begin_cut(cut + 1);
    to(State::Polled, 600, 7);
    to(State::Unknown, 700, 7);
    let (tag, all_ns, open_ns) = open(data.cut_of_last_change());
    assert_eq!(
        (tag, all_ns, open_ns),
        (5, 900, 700),
        "it was charged since, which is not in the bank"
    );
    let (task, _, seen) = data.end(900, Books::own(&books)).unwrap();
    assert_eq!((task, seen.count.life_ns(), seen.open.life_ns(), seen.tag), (1, 800, 600, 5));
}
