//! Per-thread bookkeeping for the beginning and end of tasks.
//!
//! Only the thread that has the books writes them, so forks and exits on different CPUs share no cache line. A reader that
//! wants a sum adds up all books.
//!
//! A [`Cpu`](crate::Cpu) keeps its books for as long as it exists. A thread that is no CPU claims books for one fork or one
//! exit.

use crate::primitive::{
    AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence, thread_token, yield_now,
};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;

/// One thread's books.
#[repr(align(128))]
pub(crate) struct Books {
    /// Incremented at the beginning and at the end of a task's exit; odd in between.
    window: AtomicU64,
    /// How many exits are nested: code that runs during one exit may end another task. The owner alone touches it.
    ends: Cell<u32>,
    /// Tasks made with these books, minus tasks ended with them. It wraps around: a task may be made with one thread's books
    /// and end with another's.
    live: Cell64,
    /// The owner's token, or 0 while no thread has the books.
    owner: AtomicUsize,
    /// The value of [`FORKS`] when the owner claimed the books.
    forks: crate::primitive::plain::AtomicUsize,
    number: usize,
    /// Fixed once the books are in the list.
    next: *const Books,
}

/// How many times `fork(2)` has made a new process between the first process and this one.
static FORKS: crate::primitive::plain::AtomicUsize = crate::primitive::plain::AtomicUsize::new(0);

/// For the child of a `fork(2)`: marks the books of all other threads as orphaned.
#[cfg(all(unix, not(any(pertask_loom, pertask_shuttle, miri))))]
pub(crate) fn after_fork() {
    // Relaxed: there is no other thread.
    FORKS.fetch_add(1, Ordering::Relaxed);
    here::keep();
}

/// A number that its owner writes and other threads read.
#[derive(Debug, Default)]
pub(crate) struct Cell64(crate::primitive::plain::AtomicU64);

// SAFETY: only the owner touches `ends`, and `owner` hands it over to the next owner; `next` is fixed; the rest are atomics.
unsafe impl Sync for Books {}
// SAFETY: nothing in books is bound to a thread.
unsafe impl Send for Books {}

/// Books that this thread owns: the right to write everything that is indexed by their number.
#[derive(Clone, Copy)]
pub(crate) struct Mine<'a> {
    books: &'a Books,
    not_send: PhantomData<*const ()>,
}

/// Books claimed for one operation.
pub(crate) struct Claimed<'a>(Mine<'a>);

/// A task's exit in progress. A thread that reads the totals of these books waits for it, or reads again.
pub(crate) struct Window<'a>(&'a Books);

impl Cell64 {
    /// Adds to the number. Only the owner calls it.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        // Relaxed: one thread writes the number, and readers only add up many of them.
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<'a> Mine<'a> {
    /// The number of the books: dense from 0.
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

    /// Begins a task's exit. A reader sees all of what is added up before the window closes, or none of it.
    #[inline]
    pub(crate) fn begin_end(self) -> Window<'a> {
        let books = self.books;
        let ends = books.ends.get();
        books.ends.set(ends + 1);
        if ends == 0 {
            // Relaxed: the owner alone writes the window.
            let closed = books.window.load(Ordering::Relaxed);
            books.window.store(closed + 1, Ordering::Relaxed);
            // Release: pairs with the fence in `read`. A reader that has read anything written in the window also finds that
            // the window's number has changed.
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
        // Release: pairs with the Acquire in `try_claim`. The next owner finds everything as this owner left it.
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
            // Relaxed: the number changes before a child process has a second thread; see `is_orphaned`.
            self.forks.store(FORKS.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        is_ours
    }

    /// Whether the owner is a thread that `fork(2)` left behind in the parent process. Its window will never close.
    fn is_orphaned(&self) -> bool {
        // Relaxed: the number changes before the child has a second thread.
        self.forks.load(Ordering::Relaxed) != FORKS.load(Ordering::Relaxed)
    }

    /// Reads the totals of tasks that ended with these books, at a moment when no exit is in progress. `read` may be called
    /// again.
    ///
    /// The reader waits for the owner. The owner never waits for the reader, because a reader is never in an exit itself (see
    /// [`Library::is_ending_here`]). The reader does not wait for a thread that `fork(2)` left behind in another process.
    pub(crate) fn read<R>(&self, mut read: impl FnMut() -> R) -> R {
        loop {
            // Acquire: pairs with the Release that closes the window.
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

    /// Whether the calling thread is in a task's exit with these books.
    fn is_ending_here(&self) -> bool {
        // Relaxed: a thread always sees its own store to `owner`. In models and schedules, threads have no tokens of their own.
        cfg!(not(any(pertask_loom, pertask_shuttle)))
            && self.owner.load(Ordering::Relaxed) == thread_token()
            && self.ends.get() != 0
    }
}

/// All books of a system.
pub(crate) struct Library {
    /// INVARIANT: a list that only grows. Books are reused, and never freed while the library lives.
    first: AtomicPtr<Books>,
}

impl Library {
    pub(crate) fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Claims books for the calling thread: free ones if there are any, otherwise new ones.
    ///
    /// `hint` says where the search begins, so that threads with different hints seldom contend for the same books.
    pub(crate) fn claim(&self, hint: usize) -> Mine<'_> {
        let count = self.iter().next().map_or(0, |newest| newest.number + 1);
        let from = if count == 0 { 0 } else { hint % count };
        let free = self.iter().skip(from).chain(self.iter().take(from)).find(|it| it.try_claim());
        Mine::of(free.unwrap_or_else(|| self.add()))
    }

    /// Claims books for one operation; see [`claim`](Self::claim) for `hint`.
    pub(crate) fn claim_for_now(&self, hint: usize) -> Claimed<'_> {
        Claimed(self.claim(hint))
    }

    /// Makes [`here`](Self::here) return these books on this thread, until they are released.
    pub(crate) fn remember(&'static self, _mine: Mine<'static>) {
        #[cfg(not(any(pertask_loom, pertask_shuttle)))]
        here::remember(self, _mine.books);
    }

    /// The books of the CPU that this thread is, if that CPU belongs to this library's system. With two such CPUs, the newer
    /// one's.
    #[inline]
    pub(crate) fn here(&self) -> Option<Mine<'static>> {
        #[cfg(any(pertask_loom, pertask_shuttle))]
        return None;
        #[cfg(not(any(pertask_loom, pertask_shuttle)))]
        here::find(self).map(Mine::of)
    }

    /// Whether the calling thread is in a task's exit. A thread that reads counts would then wait for itself.
    pub(crate) fn is_ending_here(&self) -> bool {
        self.iter().any(Books::is_ending_here)
    }

    /// All books, newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Books> {
        // Acquire: pairs with the Release in `add`, so that we see the books initialised.
        let mut at = self.first.load(Ordering::Acquire).cast_const();
        std::iter::from_fn(move || {
            // SAFETY: the pointer is null or points to books, and books live as long as the library.
            let books = unsafe { at.as_ref()? };
            at = books.next;
            Some(books)
        })
    }

    /// How many tasks are alive; exact only while no task is made or ends.
    pub(crate) fn live(&self) -> usize {
        let live = self.iter().fold(0_u64, |live, books| live.wrapping_add(books.live.get()));
        // The sum may include a task's end but not its beginning.
        live.cast_signed().max(0) as usize
    }

    fn add(&self) -> &Books {
        // Acquire, here and on failure: pairs with the Release below, so that we see the number and the link.
        let mut first = self.first.load(Ordering::Acquire);
        let books = Box::into_raw(Box::new(Books::new(0, ptr::null())));
        loop {
            // SAFETY: the pointer is null or points to books, and books live as long as the library.
            let number = unsafe { first.as_ref() }.map_or(0, |newest| newest.number + 1);
            // SAFETY: no other thread can reach the new books until the exchange succeeds.
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

/// The books that each thread has.
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

    /// After a `fork(2)`: this thread keeps its books.
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
            // SAFETY: nobody borrows the library any more, and the books were allocated as a box.
            at = unsafe { Box::from_raw(at) }.next.cast_mut();
        }
    }
}
