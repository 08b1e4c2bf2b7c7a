//! What the models use for [`rcu`](super): the contract, taken at its word.
//!
//! An object is freed at the very moment at which the contract first allows it, so that who relies on more is
//! caught; its memory is kept until the model ends, so that a late use is seen and not just undefined, and no address is
//! used twice. (What could match an address that is used again looks at the [`Life`] behind it first.)
//!
//! The books are plain (loom runs one thread at a time); the only orderings are those that the real one gives: from
//! whoever calls [`retire`] or [`synchronize`] to sections that begin later (they do not see what was unlinked before),
//! and from the end of a section to a [`synchronize`] that waited for it and to the freeing of what it could hold.
//!
//! It panics on: a use after the object was freed, or not ordered before that; a second retirement or freeing; an object
//! that is never freed, or a section never left; a look outside a section. `models/stand_in.rs` shows each.

use super::Head;
use crate::error::Error;
use crate::quarantine;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, ThreadId};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

#[derive(Default)]
struct Books {
    next: u64,
    /// The sections that run now, oldest first.
    sections: Vec<Section>,
    /// Retired objects, each with the sections that may hold it.
    retired: Vec<(Vec<u64>, NonNull<Head>)>,
    /// How many objects with a [`Life`] there are.
    alive: usize,
    /// `None` outside a model.
    words: Option<Rc<Words>>,
}

struct Section {
    number: u64,
    thread: ThreadId,
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

/// Begins a model, on its first thread.
pub(crate) fn begin() {
    let words = Words { grace: AtomicUsize::new(0), ended: AtomicUsize::new(0) };
    BOOKS.set(Books { words: Some(Rc::new(words)), ..Books::default() });
}

fn words() -> Rc<Words> {
    BOOKS.with_borrow(|books| books.words.clone()).expect("not in a model")
}

/// Whether an object is still there. Part of each object in a model.
///
/// loom reports a look that is not ordered after the object's making, and an end that is not ordered after all looks.
pub(crate) struct Life(UnsafeCell<bool>);

impl Life {
    pub(crate) fn new() -> Self {
        BOOKS.with_borrow_mut(|books| books.alive += 1);
        Self(UnsafeCell::new(true))
    }

    pub(crate) fn assert_not_freed(&self) {
        // SAFETY: loom reports it if somebody writes meanwhile.
        assert!(self.0.with(|alive| unsafe { *alive }), "used after it was freed");
    }

    pub(crate) fn end(&self) {
        // SAFETY: loom reports it if somebody else is at it.
        let alive = self.0.with_mut(|alive| unsafe { std::mem::replace(&mut *alive, false) });
        assert!(alive, "freed twice");
        BOOKS.with_borrow_mut(|books| books.alive -= 1);
    }
}

/// See [`rcu::enter`](super::enter).
#[must_use]
pub(crate) struct Guard {
    section: u64,
}

pub(crate) fn enter() -> Guard {
    // Acquire, and a read-modify-write so that it reads the newest: pairs with `retire` and `synchronize`.
    words().grace.fetch_add(0, Ordering::Acquire);
    let thread = thread::current().id();
    BOOKS.with_borrow_mut(|books| {
        books.next += 1;
        let section = books.next;
        books.sections.push(Section { number: section, thread });
        Guard { section }
    })
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `synchronize` and `free`.
        words().ended.fetch_add(1, Ordering::Release);
        let ripe = BOOKS.with_borrow_mut(|books| {
            books.sections.retain(|section| section.number != self.section);
            let running = books.running();
            let ripe = books
                .retired
                .extract_if(.., |(holders, _)| !holders.iter().any(|h| running.contains(h)));
            ripe.map(|(_, object)| object).collect::<Vec<_>>()
        });
        free(&ripe);
    }
}

pub(crate) unsafe fn retire(object: NonNull<Head>) {
    // Release, read-modify-write: pairs with `enter` and `free`.
    words().grace.fetch_add(1, Ordering::Release);
    let now = BOOKS.with_borrow_mut(|books| {
        let holders = books.running();
        assert!(!books.retired.iter().any(|(_, other)| *other == object), "retired twice");
        if holders.is_empty() {
            return Some(object);
        }
        books.retired.push((holders, object));
        None
    });
    free(now.as_slice());
}

pub(crate) fn synchronize() -> Result<(), Error> {
    if held() {
        return Err(Error::InsideHook);
    }
    // Release, read-modify-write: pairs with `enter`.
    words().grace.fetch_add(1, Ordering::Release);
    let running = BOOKS.with_borrow(Books::running);
    while BOOKS.with_borrow(|books| books.running().iter().any(|s| running.contains(s))) {
        thread::yield_now();
    }
    // Acquire, and reads the newest: pairs with the end of the sections waited for.
    words().ended.fetch_add(0, Ordering::Acquire);
    Ok(())
}

/// Whether this thread is inside a section.
pub(crate) fn held() -> bool {
    let thread = thread::current().id();
    BOOKS.with_borrow(|books| books.sections.iter().any(|section| section.thread == thread))
}

/// For whoever looks at what only a section keeps.
pub(crate) fn assert_held() {
    assert!(held(), "read outside a section");
}

/// How many sections have begun in this run of the model.
pub(crate) fn sections_begun() -> u64 {
    BOOKS.with_borrow(|books| books.next)
}

/// Ends a model: no section left open, nothing left unfreed.
pub(crate) fn finish() {
    let books = BOOKS.take();
    assert!(books.sections.is_empty(), "a section was left open");
    assert!(books.retired.is_empty(), "retired and never freed");
    assert_eq!(books.alive, 0, "never freed");
    // SAFETY: the model is over.
    unsafe { quarantine::release() };
}

impl Books {
    fn running(&self) -> Vec<u64> {
        self.sections.iter().map(|section| section.number).collect()
    }
}

fn free(objects: &[NonNull<Head>]) {
    if objects.is_empty() {
        return;
    }
    // Acquire, and each reads the newest: pairs with `retire`, and with the end of the sections that may have held them.
    words().grace.fetch_add(0, Ordering::Acquire);
    words().ended.fetch_add(0, Ordering::Acquire);
    for object in objects {
        // SAFETY: retired, and no section that could hold it runs any more.
        unsafe { (object.as_ref().free)(*object) };
    }
}
