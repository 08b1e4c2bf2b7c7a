//! RCU's algorithm: a reader against a reclaimer, and against a thread that waits for readers.

use super::{check, check_within};
use crate::primitive::{Arc, AtomicPtr, Ordering};
use crate::rcu::Head;
use crate::rcu::domain::{Domain, Reader};
use loom::cell::UnsafeCell;
use loom::thread;
use std::ptr::{self, NonNull};

/// An object that detects an access after its end.
#[repr(C)]
struct Object {
    head: Head,
    // loom reports an access that is not ordered with the one in `free`.
    alive: UnsafeCell<bool>,
}

unsafe fn free(head: NonNull<Head>) {
    let object: NonNull<Object> = head.cast();
    // SAFETY: the head is an object's first field, and the domain frees the object once.
    let object = unsafe { Box::from_raw(object.as_ptr()) };
    // SAFETY: loom reports any concurrent access.
    object.alive.with_mut(|alive| unsafe { *alive = false });
}

fn publish() -> Arc<AtomicPtr<Object>> {
    let object = Object { head: Head::new(free), alive: UnsafeCell::new(true) };
    Arc::new(AtomicPtr::new(Box::into_raw(Box::new(object))))
}

fn read(domain: &Domain, shared: &AtomicPtr<Object>) {
    let reader = domain.claim();
    look(domain, reader, shared);
    reader.release();
}

fn look(domain: &Domain, reader: &Reader, shared: &AtomicPtr<Object>) {
    domain.enter(reader);
    // SAFETY: null, or an object that is not freed while the section lasts; the models check this.
    if let Some(object) = unsafe { shared.load(Ordering::Acquire).as_ref() } {
        // SAFETY: the object is not freed while the section lasts; the models check this.
        object.alive.with(|alive| assert!(unsafe { *alive }, "used after it was freed"));
    }
    let _ = reader.leave();
}

fn unlink_and_retire(domain: &Domain, shared: &AtomicPtr<Object>) {
    let object = NonNull::new(shared.swap(ptr::null_mut(), Ordering::AcqRel)).unwrap();
    let reader = domain.claim();
    // SAFETY: we have unlinked the object, and nobody else retires it.
    unsafe { domain.retire(reader, object.cast()) };
    reader.release();
}

/// A thread unlinks and frees an object while another thread reads it.
#[test]
fn reader_races_reclaim() {
    check(|| {
        let domain = Arc::new(Domain::new());
        let shared = publish();
        let reader = {
            let (domain, shared) = (Arc::clone(&domain), Arc::clone(&shared));
            thread::spawn(move || read(&domain, &shared))
        };
        unlink_and_retire(&domain, &shared);
        // Twice: the second may free what the first had to leave.
        domain.try_reclaim();
        domain.try_reclaim();
        reader.join().unwrap();
        domain.try_reclaim();
        assert_eq!(domain.pending(false), 0, "retired and never freed");
    });
}

/// `synchronize` returns only after every section that may have missed the change has ended.
#[test]
fn reader_races_synchronize() {
    check(|| {
        let domain = Arc::new(Domain::new());
        let flag = Arc::new(AtomicPtr::new(ptr::null_mut::<()>()));
        let effect = Arc::new(UnsafeCell::new(()));
        let reader = {
            let (domain, flag, effect) =
                (Arc::clone(&domain), Arc::clone(&flag), Arc::clone(&effect));
            thread::spawn(move || {
                let reader = domain.claim();
                domain.enter(reader);
                if flag.load(Ordering::Acquire).is_null() {
                    // Only a section that has not seen the flag does this.
                    effect.with_mut(|_| {});
                }
                let _ = reader.leave();
                reader.release();
            })
        };
        flag.store(ptr::dangling_mut(), Ordering::Release);
        domain.synchronize().unwrap();
        // loom reports it if the reader may still access it.
        effect.with_mut(|_| {});
        reader.join().unwrap();
    });
}

/// The end of a nested section does not end the outer one.
#[test]
fn nested_reader_races_reclaim() {
    check(|| {
        let domain = Arc::new(Domain::new());
        let shared = publish();
        let reader = {
            let (domain, shared) = (Arc::clone(&domain), Arc::clone(&shared));
            thread::spawn(move || {
                let reader = domain.claim();
                domain.enter(reader);
                // SAFETY: null, or an object that is not freed while the section lasts; the models check this.
                let object = unsafe { shared.load(Ordering::Acquire).as_ref() };
                domain.enter(reader);
                let _ = reader.leave();
                if let Some(object) = object {
                    // SAFETY: the object is not freed while the section lasts; the models check this.
                    object.alive.with(|alive| assert!(unsafe { *alive }));
                }
                let _ = reader.leave();
                reader.release();
            })
        };
        unlink_and_retire(&domain, &shared);
        domain.try_reclaim();
        reader.join().unwrap();
    });
}

/// Two threads retire and reclaim. Each object is freed once, and none is left.
#[test]
fn reclaim_races_reclaim() {
    check(|| {
        let domain = Arc::new(Domain::new());
        let shared = publish();
        let other = {
            let domain = Arc::clone(&domain);
            thread::spawn(move || {
                unlink_and_retire(&domain, &publish());
                domain.try_reclaim();
            })
        };
        unlink_and_retire(&domain, &shared);
        domain.try_reclaim();
        other.join().unwrap();
        domain.try_reclaim();
        assert_eq!(domain.pending(false), 0, "retired and never freed");
    });
}

/// `barrier` returns only after everything retired before has been freed, whichever thread frees it.
#[test]
fn barrier_races_reclaim() {
    check(|| {
        let domain = Arc::new(Domain::new());
        let shared = publish();
        unlink_and_retire(&domain, &shared);
        let other = {
            let domain = Arc::clone(&domain);
            thread::spawn(move || domain.try_reclaim())
        };
        domain.barrier(domain.claim()).unwrap();
        assert_eq!(domain.pending(false), 0, "retired before, and not freed");
        other.join().unwrap();
    });
}

/// `barrier` also waits for objects that a reader holds up by announcing its epoch late.
#[test]
fn enter_races_barrier() {
    check(|| {
        let domain = Arc::new(Domain::new());
        let shared = publish();
        let reader = {
            let (domain, shared) = (Arc::clone(&domain), Arc::clone(&shared));
            thread::spawn(move || read(&domain, &shared))
        };
        unlink_and_retire(&domain, &shared);
        domain.barrier(domain.claim()).unwrap();
        assert_eq!(domain.pending(false), 0, "retired before, and not freed");
        reader.join().unwrap();
    });
}

/// A record passes from one thread to another. The second thread begins outside any section.
#[test]
fn claim_races_release() {
    check(|| {
        let domain = Arc::new(Domain::new());
        let first = domain.claim();
        domain.enter(first);
        let other = {
            let domain = Arc::clone(&domain);
            thread::spawn(move || {
                let reader = domain.claim();
                assert!(!reader.inside(), "the former owner's section");
                reader.release();
            })
        };
        let _ = first.leave();
        first.release();
        other.join().unwrap();
    });
}

/// Two threads claim records concurrently. A thread that waits for readers sees both.
///
/// With two preemptions, because three take half a minute.
#[test]
fn claim_races_claim() {
    check_within(2, || {
        let domain = Arc::new(Domain::new());
        let shared = publish();
        let readers = [(); 2].map(|()| {
            let (domain, shared) = (Arc::clone(&domain), Arc::clone(&shared));
            thread::spawn(move || read(&domain, &shared))
        });
        unlink_and_retire(&domain, &shared);
        domain.try_reclaim();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        domain.try_reclaim();
        assert_eq!(domain.pending(false), 0, "retired and never freed");
    });
}

/// A thread in its second section has ended its first, with all accesses in it.
#[test]
fn next_section_races_reclaim() {
    check(|| {
        let domain = Arc::new(Domain::new());
        let shared = publish();
        let reader = {
            let (domain, shared) = (Arc::clone(&domain), Arc::clone(&shared));
            thread::spawn(move || {
                read(&domain, &shared);
                read(&domain, &shared);
            })
        };
        unlink_and_retire(&domain, &shared);
        domain.try_reclaim();
        reader.join().unwrap();
    });
}

/// A reader announces an epoch while it is being opened. With the new epoch, it finds the object unlinked.
#[test]
fn enter_races_reclaim() {
    check(|| {
        let domain: &'static Domain = Box::leak(Box::new(Domain::new()));
        let [theirs, ours] = [(); 2].map(|()| domain.claim());
        let shared = publish();
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || look(domain, theirs, &shared))
        };
        let object = NonNull::new(shared.swap(ptr::null_mut(), Ordering::AcqRel)).unwrap();
        // SAFETY: we have unlinked the object, and nobody else retires it.
        unsafe { domain.retire(ours, object.cast()) };
        domain.try_reclaim();
        reader.join().unwrap();
        // SAFETY: the domain was made by `Box::leak`, and nobody uses it any more.
        drop(unsafe { Box::from_raw(ptr::from_ref(domain).cast_mut()) });
    });
}

/// Two threads claim the one free record. Only one of them gets it.
#[test]
fn claim_races_claim_of_a_free_record() {
    check(|| {
        let domain = Arc::new(Domain::new());
        domain.claim().release();
        let other = {
            let domain = Arc::clone(&domain);
            thread::spawn(move || ptr::from_ref(domain.claim()).addr())
        };
        let ours = ptr::from_ref(domain.claim()).addr();
        assert_ne!(ours, other.join().unwrap(), "one record, two threads");
    });
}

/// A thread takes the bags while another retires an object that a third reads. The object goes into a batch whose epoch is
/// opened afterwards, so the third thread's section is older than the batch's tag.
#[test]
fn reclaim_races_retire_and_reader() {
    check(|| {
        let domain: &'static Domain = Box::leak(Box::new(Domain::new()));
        let [looks, retires, reclaims] = [(); 3].map(|()| domain.claim());
        // There is something to free anyway, so the reclaimer opens an epoch even if the other object is not yet retired.
        retire_from(domain, reclaims, &publish());
        let shared = publish();
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || look(domain, looks, &shared))
        };
        let retirer = thread::spawn(move || retire_from(domain, retires, &shared));
        domain.try_reclaim();
        reader.join().unwrap();
        retirer.join().unwrap();
        domain.try_reclaim();
        assert_eq!(domain.pending(false), 0, "retired and never freed");
        // SAFETY: the domain was made by `Box::leak`, and nobody uses it any more.
        drop(unsafe { Box::from_raw(ptr::from_ref(domain).cast_mut()) });
    });
}

/// Unlinks an object and retires it through a record that was claimed before the race began.
fn retire_from(domain: &Domain, reader: &Reader, shared: &AtomicPtr<Object>) {
    let object = NonNull::new(shared.swap(ptr::null_mut(), Ordering::AcqRel)).unwrap();
    // SAFETY: we have unlinked the object, and nobody else retires it.
    unsafe { domain.retire(reader, object.cast()) };
}
