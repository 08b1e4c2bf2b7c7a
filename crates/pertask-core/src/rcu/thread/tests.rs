//! A thread's end: what happens to its record, and which record its late destructors use.
//!
//! `tests/thread_end.rs` tests a thread's end through the public API.

use super::*;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How many threads a test runs, one after the other.
const THREADS: usize = if cfg!(miri) { 20 } else { 200 };

/// Runs one of these tests at a time, because each inspects records that all threads claim.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static AT_END: AtEnd = const { AtEnd(RefCell::new(None)) };
}

/// Calls a closure when the thread ends.
struct AtEnd(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(late) = self.0.take() {
            late();
        }
    }
}

/// Runs a thread that claims a record and gives it back, then calls `late` on that thread. Returns when the thread has ended.
fn on_an_ending_thread<R: Send + 'static>(late: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = channel();
    let late = move || {
        let is_late = OWNER.try_with(|_| ()).is_err();
        // A panic in a destructor of a thread-local aborts the program.
        tell.send((is_late, catch_unwind(AssertUnwindSafe(late)))).unwrap();
    };
    let thread = thread::spawn(move || {
        // The thread uses this before its first section, so it is destroyed after the record has been given back.
        AT_END.with(|at_end| *at_end.0.borrow_mut() = Some(Box::new(late)));
        drop(enter());
    });
    thread.join().unwrap();
    let (is_late, result) = told.recv().unwrap();
    assert!(is_late, "the destructor ran before the record was given back");
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// The address of a section's record, which must be claimed while the section lasts.
fn record_of(section: &Guard) -> usize {
    assert!(section.reader.is_claimed(), "the record of a running section is unclaimed");
    std::ptr::from_ref(section.reader).addr()
}

/// Runs `f` many times, one thread at a time, and asserts that each ended thread has freed its record.
fn assert_leaves_its_record_to_others(f: fn()) {
    let _alone = alone();
    let claimed = || domain().claimed_records();
    let before = claimed();
    (0..THREADS).for_each(|_| f());
    let kept = claimed().saturating_sub(before);
    // Other tests of this program may have started threads since, but far fewer.
    assert!(kept < THREADS / 2, "{kept} records are claimed by {THREADS} threads that have ended");
}

#[test]
fn thread_that_ends_leaves_its_record_to_others() {
    assert_leaves_its_record_to_others(|| thread::spawn(|| drop(enter())).join().unwrap());
}

#[test]
fn section_on_an_ending_thread_leaves_its_record_to_others() {
    const SECTIONS: fn() = || {
        let _outer = enter();
        drop(enter());
        drop(enter());
    };
    assert_leaves_its_record_to_others(|| on_an_ending_thread(SECTIONS));
}

#[test]
fn barrier_on_an_ending_thread_leaves_its_record_to_others() {
    assert_leaves_its_record_to_others(|| on_an_ending_thread(|| barrier().unwrap()));
}

#[test]
fn section_on_an_ending_thread_has_a_record_as_long_as_it_lasts() {
    let _alone = alone();
    on_an_ending_thread(|| {
        // The second iteration checks that the first gave the record back.
        for _ in 0..2 {
            let outer = enter();
            let record = record_of(&outer);
            let inner = enter();
            record_of(&inner);
            drop(inner);
            assert_eq!(record_of(&outer), record);
        }
    });
}

/// A thread that claims a record which an ending thread had for one section keeps that record until its own end.
#[test]
fn thread_keeps_its_record_between_sections() {
    let _alone = alone();
    for _ in 0..THREADS / 10 {
        on_an_ending_thread(|| drop(enter()));
        let keeps = || {
            drop(enter());
            local().is_some_and(|local| local.reader.is_claimed())
        };
        assert!(thread::spawn(keeps).join().unwrap(), "the record is unclaimed");
    }
}

/// A call that would wait for this thread's own section must notice the section and be refused.
#[test]
fn section_on_an_ending_thread_is_known_to_be_one() {
    let _alone = alone();
    on_an_ending_thread(|| {
        for _ in 0..2 {
            assert!(!held());
            let outer = enter();
            drop(enter());
            assert!(held());
            assert_eq!(synchronize(), Err(Error::InsideHook));
            drop(outer);
            assert!(!held());
            assert_eq!(synchronize(), Ok(()));
        }
    });
}

/// An ending thread is in a nested section while other threads claim every free record.
#[test]
fn no_record_has_two_owners() {
    let _alone = alone();
    let others = domain().records() + 1;
    let (is_in_section, has_records) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let ending = {
        let (is_in_section, has_records) = (Arc::clone(&is_in_section), Arc::clone(&has_records));
        thread::spawn(move || {
            on_an_ending_thread(move || {
                let (outer, inner) = (enter(), enter());
                is_in_section.wait();
                has_records.wait();
                let records = [&outer, &inner].map(record_of);
                drop(inner);
                records
            })
        })
    };
    is_in_section.wait();
    let together = Arc::new(Barrier::new(others));
    let threads = (0..others).map(|_| {
        let together = Arc::clone(&together);
        thread::spawn(move || {
            let section = enter();
            // No thread gives its record back before all threads have one.
            together.wait();
            record_of(&section)
        })
    });
    let threads: Vec<_> = threads.collect();
    let records: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    has_records.wait();
    let mut records: Vec<_> = records.into_iter().map(Result::unwrap).collect();
    let late = ending.join().unwrap();
    assert!(late.iter().all(|late| !records.contains(late)), "one record, two threads");
    records.sort_unstable();
    records.dedup();
    assert_eq!(records.len(), others, "one record, two threads");
}

/// An object that records when it is freed.
#[repr(C)]
struct Object {
    head: Head,
    freed: Arc<AtomicUsize>,
}

unsafe fn free(head: NonNull<Head>) {
    // SAFETY: the head is the first field of an object that came from a box, and the domain frees it once.
    let object = unsafe { Box::from_raw(head.cast::<Object>().as_ptr()) };
    object.freed.fetch_add(1, SeqCst);
}

/// Retires an object that counts up when it is freed.
fn retire_one(freed: &Arc<AtomicUsize>) {
    let object = Object { head: Head::new(free), freed: Arc::clone(freed) };
    let object = NonNull::from(Box::leak(Box::new(object)));
    // SAFETY: the object was never shared, so no reader can reach it, and it is retired once.
    unsafe { retire(object.cast()) };
}

/// A section on an ending thread holds up objects retired after the section began, whichever threads enter and leave sections
/// meanwhile.
#[test]
fn section_on_an_ending_thread_keeps_what_it_may_have_seen() {
    let _alone = alone();
    let freed = Arc::new(AtomicUsize::new(0));
    let (is_in_section, goes_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let ending = {
        let (is_in_section, goes_on) = (Arc::clone(&is_in_section), Arc::clone(&goes_on));
        thread::spawn(move || {
            on_an_ending_thread(move || {
                let _outer = enter();
                drop(enter());
                is_in_section.wait();
                goes_on.wait();
            });
        })
    };
    is_in_section.wait();
    retire_one(&freed);
    for _ in 0..THREADS / 10 {
        let comes_and_goes = || {
            let _outer = enter();
            drop(enter());
        };
        thread::spawn(comes_and_goes).join().unwrap();
        domain().try_reclaim();
    }
    let early = freed.load(SeqCst);
    goes_on.wait();
    ending.join().unwrap();
    assert_eq!(early, 0, "freed while a section lasted that may have seen it");
    barrier().unwrap();
    assert_eq!(freed.load(SeqCst), 1);
}

/// Other threads free the objects that a thread retires at its very end.
#[test]
fn what_an_ending_thread_retires_is_freed() {
    let _alone = alone();
    let freed = Arc::new(AtomicUsize::new(0));
    let late = Arc::clone(&freed);
    on_an_ending_thread(move || {
        let _section = enter();
        (0..THREADS).for_each(|_| retire_one(&late));
    });
    barrier().unwrap();
    assert_eq!(freed.load(SeqCst), THREADS);
}
