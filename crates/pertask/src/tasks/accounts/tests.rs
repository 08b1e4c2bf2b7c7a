use super::*;
use std::thread;

/// Tests that count on others to close what they opened take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads hold and drop more sets than are kept, and each set at the same time as other threads: whoever holds one finds its
/// own labels by the tag, whatever has been closed meanwhile.
#[test]
fn who_holds_an_account_has_its_labels() {
    const SETS: usize = 3 * KEPT;
    let _turn = turn();
    let labels_of_set = |set: usize| Labels::new([("set", (set % SETS).to_string())]);
    let work = |first: usize| {
        for step in 0..4 * SETS {
            let (one, other) = (labels_of_set(first + step), labels_of_set(first + step / 2));
            let held = [&one, &other].map(|labels| hold(None, labels.clone()).unwrap());
            let [tag_of_one, tag_of_other] =
                [(&one, &held[0]), (&other, &held[1])].map(|(l, h)| tag_of(l, Some(h)));
            assert_eq!(labels_of(tag_of_one), one);
            assert_eq!(labels_of(tag_of_other), other);
            assert_eq!(tag_of_one == tag_of_other, one == other, "one account for equal labels");
        }
    };
    thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || work(first * 7));
        }
    });
    let places = ACCOUNTS.lock();
    assert!(places.ended.len() <= KEPT + 16, "{} are kept", places.ended.len());
    assert!(places.all.len() < SETS, "{} places for {SETS} sets", places.all.len());
    let open = places.all.iter().filter(|place| place.account.is_some()).count();
    assert!(open <= places.ended.len(), "nothing is held any more");
    assert_eq!(open + places.free.len() + FIRST as usize, places.all.len());
}

/// What is read during a reading is found at its end, however many sets come and go meanwhile.
#[test]
fn no_account_loses_its_place_during_a_reading() {
    let _turn = turn();
    let set = |set: usize| Labels::new([("of a reading", set.to_string())]);
    let watch = Watch::begin();
    let reading = watch.begin_reading();
    let (first, at) = (set(0), Used { cpu_ns: 7, ..Used::default() });
    let held = hold(None, first.clone()).unwrap();
    let tag = tag_of(&first, Some(&held));
    drop(held);
    (1..KEPT + 100).for_each(|number| drop(hold(None, set(number))));
    assert_eq!(labels_of(tag), first, "it has its place");
    let read = reading.finish(&ByPlace::of_one(place_of(tag), at.clone()));
    assert_eq!(read.keys["of a reading"].used["0"], at);
    (0..KEPT).for_each(|number| drop(hold(None, set(number + 2 * KEPT))));
    assert_ne!(labels_of(tag), first, "after the reading it leaves");
}

/// A child that was forked while another thread had the lock goes on, without labels.
#[test]
#[allow(unsafe_code)]
fn a_forked_child_does_not_wait_for_a_lock_of_its_parents() {
    let _lock = ACCOUNTS.lock();
    // SAFETY: the child calls what takes no lock but the one that is tried, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: so that a child that waits does not wait for ever.
        unsafe { libc::alarm(120) };
        let held = hold(None, Labels::new([("of", "a child")]));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(held.is_some())) };
    }
    let mut status = -1;
    // SAFETY: our own child, and a number of ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}
