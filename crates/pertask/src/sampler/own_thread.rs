//! What a thread does with its own record outside of a handler: it walks its stack, and writes into its ring.

use super::errno::Errno;
use super::handler::{self, MOST_FRAMES, MOST_WORDS};
use super::record::{Own, Record};
use super::unwind::Interrupted;
use pertask_core::Cpu;
use std::cell::Cell;

/// The record of the calling thread.
///
/// INVARIANT: the thread had the record when this was made, and is still the same thread. It does not leave the thread.
#[derive(Clone, Copy)]
pub(super) struct OwnRecord {
    record: &'static Record,
    not_send: std::marker::PhantomData<*const ()>,
}

thread_local! {
    /// The record that the thread last had.
    static KNOWN: Cell<Option<&'static Record>> = const { Cell::new(None) };
}

impl OwnRecord {
    /// The record of the calling thread, which runs tasks or is about to, if the thread is sampled.
    pub(super) fn get() -> Option<Self> {
        Self::of(Cpu::with(|cpu| cpu.record().thread())?)
    }

    /// The record of the calling thread, if it has run tasks and is sampled. The allocator may call this.
    pub(super) fn of_worker() -> Option<Self> {
        Self::of(Cpu::record_here()?.thread()?)
    }

    fn of(thread: u32) -> Option<Self> {
        let known = KNOWN.get().filter(|record| record.is_of(thread));
        let record = known.or_else(|| Record::of_thread(thread));
        KNOWN.set(record);
        Some(Self { record: record?, not_send: std::marker::PhantomData })
    }

    /// The thread's stack: the flags of a sample, and then the addresses. `None` on a stack that is not known.
    #[inline(never)]
    pub(super) fn stack(self) -> Option<Box<[u64]>> {
        // The user's code, in the midst of which this is called, may look at it later.
        let _errno = Errno::keep();
        let from = Interrupted::here();
        let mut words = [0; 1 + MOST_FRAMES];
        let mut length = 1;
        let found = |address| {
            if let Some(word) = words.get_mut(length) {
                *word = address;
                length += 1;
            }
        };
        // SAFETY: the registers are those of this function, which goes on.
        let walk = |own: &mut Own| unsafe { handler::walk(self.record, own, from, found) };
        // SAFETY: the thread has the record, by the invariant, and a walk does not panic.
        let (flags, good) = unsafe { self.record.enter_outside(walk) }??;
        words[0] = flags;
        // Without this function itself.
        let callers = words.get(2..=good).unwrap_or_default();
        Some([flags].into_iter().chain(callers.iter().copied()).collect())
    }

    /// Writes a record of this kind into the thread's ring, half of which is left to samples: it has the words of a sample, with `number` in
    /// place of the thread's CPU time. `None` if there is no room, or the stack is not known.
    ///
    /// The allocator may call this.
    #[inline(never)]
    pub(super) fn write_sample(self, kind: u64, number: u64) -> Option<()> {
        // The code that allocates may look at it later.
        let _errno = Errno::keep();
        let from = Interrupted::here();
        let write = |own: &mut Own| {
            let mut sample = self.record.ring.begin_in_half(MOST_WORDS)?;
            [kind, 0, number].into_iter().for_each(|word| sample.push(word));
            handler::push_task(self.record, &mut sample);
            let start = sample.length();
            // SAFETY: the registers are those of this function, which goes on.
            let (flags, good) =
                unsafe { handler::walk(self.record, own, from, |address| sample.push(address)) }?;
            sample.cut(start + good as u64);
            sample.set(1, kind | flags);
            sample.finish();
            Some(())
        };
        // SAFETY: the thread has the record, by the invariant, and nothing of this panics.
        unsafe { self.record.enter_outside(write) }?
    }

    /// Writes a record of at most so many words into the thread's ring, half of which is left to samples. `None` if there is no room.
    ///
    /// `f` must not panic: it only copies words.
    pub(super) fn write(self, most: usize, f: impl FnOnce(&mut dyn FnMut(u64))) -> Option<()> {
        let write = |_: &mut Own| {
            let mut writing = self.record.ring.begin_in_half(most)?;
            f(&mut |word| writing.push(word));
            writing.finish();
            Some(())
        };
        // SAFETY: the thread has the record, by the invariant, and `f` does not panic.
        unsafe { self.record.enter_outside(write) }?
    }
}
