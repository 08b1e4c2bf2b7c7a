//! The RCU that models use instead of [`rcu`](super): the contract, taken literally.
//!
//! The stand-in frees an object at the very moment the contract first allows it, so it catches code that relies on more. It
//! keeps the memory until the model ends, so a late use is detected instead of being undefined behaviour, and no address is
//! used twice. (Code that could match a reused address checks the [`Life`] behind it first.)
//!
//! The bookkeeping is plain data, because loom runs one thread at a time. It adds only the orderings that the real RCU gives:
//! from a call of [`retire`] or [`synchronize`] to each section that begins later (which does not see what was unlinked
//! before), and from the end of a section to a [`synchronize`] that waited for it and to the freeing of objects that it could
//! hold.
//!
//! The stand-in panics on a use of a freed object, or a use that is not ordered before the freeing; on a second retirement or
//! freeing; on an object that is never freed, or a section that never ends; and on an access outside a section.
//! `models/stand_in.rs` shows each.

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
    /// Retired objects, each with the sections that may still hold it.
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

/// The atomics that give the orderings.
struct Words {
    grace: AtomicUsize,
    ended: AtomicUsize,
}

thread_local! {
    // loom runs all threads of a model on one thread of the system, so this is shared by all of them.
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

/// Whether an object is still alive. Every object in a model has one.
///
/// loom reports an access that is not ordered after the object's creation, and an end that is not ordered after every access.
pub(crate) struct Life(UnsafeCell<bool>);

impl Life {
    pub(crate) fn new() -> Self {
        BOOKS.with_borrow_mut(|books| books.alive += 1);
        Self(UnsafeCell::new(true))
    }

    pub(crate) fn assert_not_freed(&self) {
        // SAFETY: loom reports a concurrent write.
        assert!(self.0.with(|alive| unsafe { *alive }), "used after it was freed");
    }

    pub(crate) fn end(&self) {
        // SAFETY: loom reports any concurrent access.
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
    // Acquire: pairs with the Release in `retire` and `synchronize`. A read-modify-write, so that it reads the newest value.
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
    // Release, in a read-modify-write: pairs with the Acquire in `enter` and `free`.
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
    // Release, in a read-modify-write: pairs with the Acquire in `enter`.
    words().grace.fetch_add(1, Ordering::Release);
    let running = BOOKS.with_borrow(Books::running);
    while BOOKS.with_borrow(|books| books.running().iter().any(|s| running.contains(s))) {
        thread::yield_now();
    }
    // Acquire, on the newest value: pairs with the Release at the end of each section that was waited for.
    words().ended.fetch_add(0, Ordering::Acquire);
    Ok(())
}

/// Whether this thread is inside a section.
pub(crate) fn held() -> bool {
    let thread = thread::current().id();
    BOOKS.with_borrow(|books| books.sections.iter().any(|section| section.thread == thread))
}

/// Panics outside a section, for code that reads what only a section keeps alive.
pub(crate) fn assert_held() {
    assert!(held(), "read outside a section");
}

/// How many sections have begun in this run of the model.
pub(crate) fn sections_begun() -> u64 {
    BOOKS.with_borrow(|books| books.next)
}

/// Ends a model: panics if a section is still open or an object was never freed.
pub(crate) fn finish() {
    let books = BOOKS.take();
    assert!(books.sections.is_empty(), "a section was left open");
    assert!(books.retired.is_empty(), "retired and never freed");
    assert_eq!(books.alive, 0, "never freed");
    // SAFETY: the model is over, so nothing uses the memory any more.
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
    // Acquire, on the newest values: pairs with the Release in `retire`, and with the end of each section that may have held
    // the objects.
    words().grace.fetch_add(0, Ordering::Acquire);
    words().ended.fetch_add(0, Ordering::Acquire);
    for object in objects {
        // SAFETY: the object is retired, and no section that could hold it runs any more.
        unsafe { (object.as_ref().free)(*object) };
    }
}
