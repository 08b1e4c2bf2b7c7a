//! What is written where a task is made or ends: books that one thread has to itself. Nobody else writes them, so forks and
//! ends on different CPUs share no line; whoever wants a sum adds up all books.
//!
//! A [`Cpu`](crate::Cpu) has books for as long as its thread is one. A thread that is no CPU claims some for one fork or end.

use crate::primitive::{
    AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence, thread_token, yield_now,
};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;

/// One thread's books.
#[repr(align(128))]
pub(crate) struct Books {
    /// Grows at the beginning and at the end of a task's end; odd in between.
    window: AtomicU64,
    /// Ends inside ends: what runs at a task's end may end another. The owner alone touches it.
    ends: Cell<u32>,
    /// The tasks that were made with these books, less those that have ended with them. It wraps around: a task may be made
    /// here and end there.
    live: Cell64,
    /// The owner's token, or 0 while nobody has them.
    owner: AtomicUsize,
    /// How many times this process had been made by `fork(2)` from another when the owner got them.
    forks: crate::primitive::plain::AtomicUsize,
    number: usize,
    /// Fixed once they are in the list.
    next: *const Books,
}

/// How many times this process, and those it comes from, were made by `fork(2)`.
static FORKS: crate::primitive::plain::AtomicUsize = crate::primitive::plain::AtomicUsize::new(0);

/// For the child of a `fork(2)`: the books of all threads but this one are nobody's any more.
#[cfg(all(unix, not(any(pertask_loom, pertask_shuttle, miri))))]
pub(crate) fn after_fork() {
    // Relaxed: there is no other thread.
    FORKS.fetch_add(1, Ordering::Relaxed);
    here::keep();
}

/// A number that its owner writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Cell64(crate::primitive::plain::AtomicU64);

// SAFETY: `ends` is touched by the owner alone, and passes to the next owner by `owner`; `next` is fixed; the rest are atomics.
unsafe impl Sync for Books {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Books {}

/// Books that this thread has to itself: the right to write what is kept by their number.
#[derive(Clone, Copy)]
pub(crate) struct Mine<'a> {
    books: &'a Books,
    not_send: PhantomData<*const ()>,
}

/// Books that were claimed for a moment.
pub(crate) struct Claimed<'a>(Mine<'a>);

/// A task's end under way: whoever reads what has ended here waits, or reads again.
pub(crate) struct Window<'a>(&'a Books);

impl Cell64 {
    /// For the owner.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        // Relaxed: one thread writes it; what is read is a sum over many.
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<'a> Mine<'a> {
    /// The books' number: dense from 0.
    #[inline]
    pub(crate) fn number(self) -> usize {
        self.books.number
    }

    #[inline]
    pub(crate) fn task_made(self) {
        self.books.live.add(1);
    }

    #[inline]
    pub(crate) fn task_ended(self) {
        self.books.live.add(u64::MAX);
    }

    /// Begins a task's end. What is added up before the window is closed, a reader finds whole or not at all.
    #[inline]
    pub(crate) fn begin_end(self) -> Window<'a> {
        let books = self.books;
        let ends = books.ends.get();
        books.ends.set(ends + 1);
        if ends == 0 {
            // Relaxed: the owner alone writes it.
            let closed = books.window.load(Ordering::Relaxed);
            books.window.store(closed + 1, Ordering::Relaxed);
            // Release: pairs with the fence in `read`. Whoever has read something that is written in the window finds the
            // number changed.
            fence(Ordering::Release);
        }
        Window(books)
    }

    fn of(books: &'a Books) -> Self {
        Self { books, not_send: PhantomData }
    }

    /// Gives the books back.
    pub(crate) fn release(self) {
        #[cfg(not(any(pertask_loom, pertask_shuttle)))]
        here::forget(self.books);
        // Release: pairs with the Acquire in `try_claim`: the next owner finds all as this one left it.
        self.books.owner.store(0, Ordering::Release);
    }
}

impl Drop for Window<'_> {
    #[inline]
    fn drop(&mut self) {
        let books = self.0;
        let ends = books.ends.get() - 1;
        books.ends.set(ends);
        if ends == 0 {
            let open = books.window.load(Ordering::Relaxed);
            // Release: pairs with the Acquire in `read`.
            books.window.store(open + 1, Ordering::Release);
        }
    }
}

impl<'a> Claimed<'a> {
    pub(crate) fn mine(&self) -> Mine<'a> {
        self.0
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Books {
    fn new(number: usize, next: *const Books) -> Self {
        Self {
            window: AtomicU64::new(0),
            ends: Cell::new(0),
            live: Cell64::default(),
            owner: AtomicUsize::new(thread_token()),
            forks: FORKS.load(Ordering::Relaxed).into(),
            number,
            next,
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    fn try_claim(&self) -> bool {
        // Acquire: pairs with the Release in `release`.
        let is_ours = self.owner.load(Ordering::Relaxed) == 0
            && self
                .owner
                .compare_exchange(0, thread_token(), Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            // Relaxed: see `is_orphaned`.
            self.forks.store(FORKS.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        is_ours
    }

    /// Whether the owner is a thread of the process from which `fork(2)` has made this one. Its window will not close.
    fn is_orphaned(&self) -> bool {
        // Relaxed: the number changes before the child has a second thread.
        self.forks.load(Ordering::Relaxed) != FORKS.load(Ordering::Relaxed)
    }

    /// Reads what has ended with these books, at a moment at which no end is under way. `read` may be called again.
    ///
    /// It waits for the owner, who waits for nobody: whoever reads is not at a task's end itself, see
    /// [`Library::is_ending_here`]. A thread is not waited for that `fork(2)` has left behind in another process.
    pub(crate) fn read<R>(&self, mut read: impl FnMut() -> R) -> R {
        loop {
            // Acquire: pairs with the Release at the window's closing.
            let before = self.window.load(Ordering::Acquire);
            let is_orphaned = self.is_orphaned();
            if before.is_multiple_of(2) || is_orphaned {
                let result = read();
                // Acquire: pairs with the fence in `begin_end`.
                fence(Ordering::Acquire);
                if is_orphaned || self.window.load(Ordering::Relaxed) == before {
                    return result;
                }
            }
            yield_now();
        }
    }

    /// Whether the calling thread is at a task's end with these books.
    fn is_ending_here(&self) -> bool {
        // Relaxed: a thread that is the owner stays it. In models and schedules no thread is told from another.
        cfg!(not(any(pertask_loom, pertask_shuttle)))
            && self.owner.load(Ordering::Relaxed) == thread_token()
            && self.ends.get() != 0
    }
}

/// All books of a system.
pub(crate) struct Library {
    /// INVARIANT: a list that only grows; books are used again, never freed while the library lives.
    first: AtomicPtr<Books>,
}

impl Library {
    pub(crate) fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Books for the calling thread: some that nobody has, or new ones. `hint` says where to look first, so that threads with
    /// different hints seldom look at the same.
    pub(crate) fn claim(&self, hint: usize) -> Mine<'_> {
        let count = self.iter().next().map_or(0, |newest| newest.number + 1);
        let from = if count == 0 { 0 } else { hint % count };
        let free = self.iter().skip(from).chain(self.iter().take(from)).find(|it| it.try_claim());
        Mine::of(free.unwrap_or_else(|| self.add()))
    }

    /// As [`claim`](Self::claim), for a moment.
    pub(crate) fn claim_for_now(&self, hint: usize) -> Claimed<'_> {
        Claimed(self.claim(hint))
    }

    /// Has [`here`](Self::here) find these books on this thread, until they are released.
    pub(crate) fn remember(&'static self, _mine: Mine<'static>) {
        #[cfg(not(any(pertask_loom, pertask_shuttle)))]
        here::remember(self, _mine.books);
    }

    /// The books that this thread has, if it is a CPU of this library's system. (Of two such, the newer one's.)
    #[inline]
    pub(crate) fn here(&self) -> Option<Mine<'static>> {
        #[cfg(any(pertask_loom, pertask_shuttle))]
        return None;
        #[cfg(not(any(pertask_loom, pertask_shuttle)))]
        here::find(self).map(Mine::of)
    }

    /// Whether the calling thread is at a task's end: whoever reads counts might wait for it.
    pub(crate) fn is_ending_here(&self) -> bool {
        self.iter().any(Books::is_ending_here)
    }

    /// All books, newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Books> {
        // Acquire: pairs with the Release in `add`; books are found whole.
        let mut at = self.first.load(Ordering::Acquire).cast_const();
        std::iter::from_fn(move || {
            // SAFETY: null, or books, which live as long as the library.
            let books = unsafe { at.as_ref()? };
            at = books.next;
            Some(books)
        })
    }

    /// How many tasks live: an exact figure only while none is made or ends.
    pub(crate) fn live(&self) -> usize {
        let live = self.iter().fold(0_u64, |live, books| live.wrapping_add(books.live.get()));
        // A task may be seen to end and not to begin.
        live.cast_signed().max(0) as usize
    }

    fn add(&self) -> &Books {
        // Acquire, here and on failure: pairs with the Release below, for the number and the link.
        let mut first = self.first.load(Ordering::Acquire);
        let books = Box::into_raw(Box::new(Books::new(0, ptr::null())));
        loop {
            // SAFETY: null, or books, which live as long as the library.
            let number = unsafe { first.as_ref() }.map_or(0, |newest| newest.number + 1);
            // SAFETY: the new books are ours alone until the exchange succeeds.
            unsafe {
                (*books).number = number;
                (*books).next = first;
            }
            // Release: publishes the books.
            match self.first.compare_exchange(first, books, Ordering::Release, Ordering::Acquire) {
                // SAFETY: books live as long as the library.
                Ok(_) => return unsafe { &*books },
                Err(now) => first = now,
            }
        }
    }
}

/// Which books a thread has.
#[cfg(not(any(pertask_loom, pertask_shuttle)))]
mod here {
    use super::{Books, Library, Ordering};
    use std::cell::Cell;
    use std::ptr;

    thread_local! {
        /// INVARIANT: books that this thread has claimed and not released.
        static HERE: Cell<Option<(&'static Library, &'static Books)>> = const { Cell::new(None) };
    }

    pub(super) fn remember(library: &'static Library, books: &'static Books) {
        HERE.set(Some((library, books)));
    }

    pub(super) fn forget(books: &Books) {
        HERE.set(HERE.get().filter(|(_, here)| !ptr::eq(*here, books)));
    }

    /// After a `fork(2)`: this thread still has its books.
    #[cfg(all(unix, not(miri)))]
    pub(super) fn keep() {
        if let Some((_, books)) = HERE.get() {
            books.forks.store(super::FORKS.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn find(library: &Library) -> Option<&'static Books> {
        HERE.get().filter(|(of, _)| ptr::eq(*of, library)).map(|(_, books)| books)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // Acquire: pairs with the Release in `add`.
        let mut at = self.first.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: nobody borrows the library any more; each came from a box.
            at = unsafe { Box::from_raw(at) }.next.cast_mut();
        }
    }
}
