//! What the models use for [`rcu`](super): the contract, taken at its word.
//!
//! An object is freed at the very moment at which the contract first allows it, so that who relies on more is
//! caught; its memory is kept, marked as freed, until the model ends, so that a late use is seen and not just
//! undefined. The books are plain (loom runs one thread at a time); the only orderings are those that the real one
//! gives: from whoever calls [`retire`] or [`synchronize`] to sections that begin later (they do not see what was
//! unlinked before), and from the end of a section to a [`synchronize`] that waited for it.

use super::Head;
use crate::error::Error;
use loom::sync::atomic::{AtomicUsize, Ordering};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

#[derive(Default)]
struct Books {
    next: u64,
    /// The sections that run now, oldest first.
    sections: Vec<u64>,
    /// Retired objects, each with the sections that may hold it.
    retired: Vec<(Vec<u64>, NonNull<Head>)>,
    words: Option<Rc<Words>>,
}

/// The orderings.
struct Words {
    grace: AtomicUsize,
    ended: AtomicUsize,
}

thread_local! {
    // loom runs all threads of a model on one thread of the system.
    static BOOKS: RefCell<Books> = RefCell::default();
}

fn words() -> Rc<Words> {
    BOOKS.with_borrow_mut(|books| {
        let words = books.words.get_or_insert_with(|| {
            Rc::new(Words { grace: AtomicUsize::new(0), ended: AtomicUsize::new(0) })
        });
        Rc::clone(words)
    })
}

/// See [`rcu::enter`](super::enter).
#[must_use]
pub(crate) struct Guard {
    section: u64,
}

pub(crate) fn enter() -> Guard {
    // Acquire, and a read-modify-write so that it reads the newest: pairs with `retire` and `synchronize`.
    words().grace.fetch_add(0, Ordering::Acquire);
    BOOKS.with_borrow_mut(|books| {
        books.next += 1;
        let section = books.next;
        books.sections.push(section);
        Guard { section }
    })
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `synchronize`.
        words().ended.fetch_add(1, Ordering::Release);
        let ripe = BOOKS.with_borrow_mut(|books| {
            books.sections.retain(|section| *section != self.section);
            let running = books.sections.clone();
            let ripe = books
                .retired
                .extract_if(.., |(holders, _)| !holders.iter().any(|h| running.contains(h)));
            ripe.map(|(_, object)| object).collect::<Vec<_>>()
        });
        free(ripe);
    }
}

pub(crate) unsafe fn retire(object: NonNull<Head>) {
    // Release, read-modify-write: pairs with `enter`.
    words().grace.fetch_add(1, Ordering::Release);
    let now = BOOKS.with_borrow_mut(|books| {
        let holders = books.sections.clone();
        assert!(!books.retired.iter().any(|(_, other)| *other == object), "retired twice");
        if holders.is_empty() {
            return Some(object);
        }
        books.retired.push((holders, object));
        None
    });
    free(now);
}

pub(crate) fn synchronize() -> Result<(), Error> {
    // Release, read-modify-write: pairs with `enter`.
    words().grace.fetch_add(1, Ordering::Release);
    let running = BOOKS.with_borrow(|books| books.sections.clone());
    while BOOKS.with_borrow(|books| running.iter().any(|s| books.sections.contains(s))) {
        loom::thread::yield_now();
    }
    // Acquire, and reads the newest: pairs with the end of the sections waited for.
    words().ended.fetch_add(0, Ordering::Acquire);
    Ok(())
}

/// Always false: which thread a section is on is not modelled.
pub(crate) fn held() -> bool {
    false
}

/// Ends a model: no section left open, nothing left unfreed.
pub(crate) fn finish() {
    let books = BOOKS.take();
    assert!(books.sections.is_empty(), "a section was left open");
    assert!(books.retired.is_empty(), "retired and never freed");
}

fn free(objects: impl IntoIterator<Item = NonNull<Head>>) {
    for object in objects {
        // SAFETY: retired, and no section that could hold it runs any more.
        unsafe { (object.as_ref().free)(object) };
    }
}
