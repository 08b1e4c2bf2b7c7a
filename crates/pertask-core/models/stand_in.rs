//! The stand-in for RCU, tested with wrong protocols: it must catch each of them, and pass the right one.

use super::check;
use crate::primitive::{Arc, AtomicPtr, Ordering};
use crate::quarantine;
use crate::rcu::stand_in::{self, Life, assert_held, enter, retire};
use crate::rcu::{Guard, Head};
use loom::thread;
use std::alloc::Layout;
use std::ptr::{self, NonNull};

#[repr(C)]
struct Object {
    head: Head,
    life: Life,
}

type Shared = Arc<AtomicPtr<Object>>;

unsafe fn free(head: NonNull<Head>) {
    let object: NonNull<Object> = head.cast();
    // SAFETY: the head is an object's first field, and the memory is kept until the model ends.
    unsafe { object.as_ref() }.life.end();
    quarantine::keep(object.cast(), Layout::new::<Object>());
}

fn publish() -> Shared {
    let shared = Arc::new(AtomicPtr::new(ptr::null_mut()));
    shared.store(new_object(), Ordering::Release);
    shared
}

fn new_object() -> *mut Object {
    Box::into_raw(Box::new(Object { head: Head::new(free), life: Life::new() }))
}

/// What a correct reader does. It may use the result until the section ends.
fn load(shared: &Shared, ordering: Ordering, _section: &Guard) -> Option<&'static Life> {
    assert_held();
    // SAFETY: memory is kept until the model ends; the models check whether the object is still alive.
    unsafe { shared.load(ordering).as_ref() }.map(|object| &object.life)
}

fn look(shared: &Shared, ordering: Ordering) {
    let section = enter();
    if let Some(life) = load(shared, ordering, &section) {
        life.assert_not_freed();
    }
}

fn unlink(shared: &Shared) -> Option<NonNull<Head>> {
    NonNull::new(shared.swap(ptr::null_mut(), Ordering::AcqRel)).map(NonNull::cast)
}

fn unlink_and_retire(shared: &Shared) {
    let object = unlink(shared).unwrap();
    // SAFETY: we have unlinked the object, and nobody else retires it.
    unsafe { retire(object) };
}

fn with(shared: &Shared, f: impl FnOnce(&Shared) + 'static) -> thread::JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || f(&shared))
}

/// Runs a model that must fail, on a thread of its own, so that the thread-local state of the failed run goes with the thread.
fn caught(message: &str, model: impl Fn() + Send + Sync + 'static) {
    let panic = std::thread::spawn(|| check(model)).join().expect_err("not caught");
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(said.contains(message), "caught, but: {said}");
}

#[test]
fn what_keeps_the_contract_passes() {
    check(|| {
        let shared = publish();
        let reader = with(&shared, |shared| look(shared, Ordering::Acquire));
        unlink_and_retire(&shared);
        reader.join().unwrap();
        stand_in::finish();
    });
}

/// A reader keeps what it found after its section has ended.
#[test]
fn a_use_after_the_free_is_caught() {
    caught("used after it was freed", || {
        let shared = publish();
        let section = enter();
        let life = load(&shared, Ordering::Acquire, &section).unwrap();
        drop(section);
        unlink_and_retire(&shared);
        life.assert_not_freed();
    });
}

/// Another thread uses the object before or after the free. It is enough that the use may come after.
#[test]
fn a_use_that_may_come_after_the_free_is_caught() {
    caught("Causality violation", || {
        let shared = publish();
        let reader = with(&shared, |shared| {
            let section = enter();
            let life = load(shared, Ordering::Acquire, &section);
            drop(section);
            life.inspect(|life| life.assert_not_freed());
        });
        unlink_and_retire(&shared);
        reader.join().unwrap();
    });
}

/// The object is retired while new readers can still find it.
#[test]
fn what_is_retired_before_it_is_unlinked_is_caught() {
    caught("Causality violation", || {
        let shared = publish();
        let object = NonNull::new(shared.load(Ordering::Acquire)).unwrap();
        let reader = with(&shared, |shared| look(shared, Ordering::Acquire));
        // SAFETY: none; the model must notice.
        unsafe { retire(object.cast()) };
        reader.join().unwrap();
    });
}

/// A thread accesses a part of a freed object, as a hook accesses a payload.
#[test]
fn a_look_at_freed_memory_is_caught() {
    caught("used after it was freed", || {
        let shared = publish();
        let section = enter();
        let life = load(&shared, Ordering::Acquire, &section).unwrap();
        drop(section);
        unlink_and_retire(&shared);
        quarantine::assert_not_kept(life);
    });
}

/// A reader finds the object, but nothing orders the object's initialisation before the access.
#[test]
fn a_look_that_nothing_orders_is_caught() {
    caught("Causality violation", || {
        let shared = Arc::new(AtomicPtr::new(ptr::null_mut()));
        let reader = with(&shared, |shared| look(shared, Ordering::Relaxed));
        shared.store(new_object(), Ordering::Release);
        reader.join().unwrap();
        unlink_and_retire(&shared);
        stand_in::finish();
    });
}

/// The same object is retired twice in a row.
#[test]
fn a_second_free_is_caught() {
    caught("freed twice", || {
        let shared = publish();
        let object = unlink(&shared).unwrap();
        // SAFETY: the second call breaks the contract; the model must notice.
        unsafe {
            retire(object);
            retire(object);
        }
    });
}

/// Two threads both find the object, and both unlink and retire it.
#[test]
fn a_second_free_on_another_thread_is_caught() {
    caught("Causality violation", || {
        let shared = publish();
        let take = |shared: &Shared| {
            if let Some(object) = NonNull::new(shared.load(Ordering::Acquire)) {
                shared.store(ptr::null_mut(), Ordering::Release);
                // SAFETY: both threads may retire the object, which breaks the contract; the model must notice.
                unsafe { retire(object.cast()) };
            }
        };
        let other = with(&shared, take);
        take(&shared);
        other.join().unwrap();
    });
}

/// One thread retires an object twice while a section holds it.
#[test]
fn a_second_retirement_is_caught() {
    caught("retired twice", || {
        let shared = publish();
        let section = enter();
        let object = unlink(&shared).unwrap();
        // SAFETY: the second call breaks the contract; the model must notice.
        unsafe {
            retire(object);
            retire(object);
        }
        drop(section);
    });
}

/// A thread unlinks the object and forgets it.
#[test]
fn a_leak_is_caught() {
    caught("never freed", || {
        let shared = publish();
        let reader = with(&shared, |shared| look(shared, Ordering::Acquire));
        let _forgotten = unlink(&shared);
        reader.join().unwrap();
        stand_in::finish();
    });
}

/// The section belongs to another thread.
#[test]
fn a_read_outside_a_section_is_caught() {
    caught("read outside a section", || {
        let shared = publish();
        let section = enter();
        let reader = with(&shared, move |shared| {
            let _ = load(shared, Ordering::Acquire, &section);
        });
        reader.join().unwrap();
    });
}

/// A section never ends.
#[test]
fn a_section_that_is_never_left_is_caught() {
    caught("a section was left open", || {
        std::mem::forget(enter());
        stand_in::finish();
    });
}
