//! The signal handler, which takes one sample of its own thread.
//!
//! The handler allocates nothing, takes no lock, touches no thread-local variable except `errno`, which it preserves, and makes
//! two cheap system calls: its thread's number, and its CPU time; on a fiber's stack it tries each page with another. The sampler has
//! made all that the handler needs before it arms a thread.

use super::disposition;
use super::errno::Errno;
use super::ground::Ground;
use super::record::{Own, Record};
use super::ring::Writing;
use super::summons;
use super::unwind::{self, End, Interrupted};
use super::walker::Walker;
use crate::os::clock;
use crate::pmus::call_stack::{CallStack, MAX_SCOPES};
use pertask_core::{CpuRecord, Task, TaskId};
use std::sync::atomic::{AtomicU32, Ordering};

/// The most addresses in a stack.
pub(super) const MOST_FRAMES: usize = 128;

/// The number of words in a sample before its scopes and its addresses.
pub(super) const HEAD: usize = 7;

/// The number of words in the largest sample. A word has two scopes.
pub(super) const MOST_WORDS: usize = HEAD + MAX_SCOPES.div_ceil(2) + MOST_FRAMES;

/// A flag in a sample's first word: the walk reached the thread's root.
pub(super) const COMPLETE: u64 = 1;
/// A flag in a sample's first word: the stack has more frames than [`MOST_FRAMES`].
pub(super) const TRUNCATED: u64 = 2;
/// A flag in a sample's first word: the signal waited until the thread no longer blocked it.
pub(super) const LATE: u64 = 4;
/// A flag in a sample's first word: the root that the walk reached is a fiber's.
pub(super) const FIBER: u64 = 8;
/// A flag in a sample's first word: the thread was on a stack that is in no known mapping.
pub(super) const NO_GROUND: u64 = 16;
/// A flag in a record's first word: it is no sample, but a wait, with the number of polls that it stands for in the upper half.
pub(super) const WAIT: u64 = 32;
/// A flag in a record's first word: it is an allocation, with its bytes in place of the thread's CPU time. The rest is as in a sample.
pub(super) const ALLOCATION: u64 = 64;
/// The place in a sample's first word of the nanoseconds that the handler took.
pub(super) const TOOK_SHIFT: u32 = 8;
/// The most nanoseconds that have room there.
pub(super) const MOST_TOOK_NS: u64 = (1 << (OVERRUN_SHIFT - TOOK_SHIFT)) - 1;
/// The place in a sample's first word of the number of signals that came while this one waited.
pub(super) const OVERRUN_SHIFT: u32 = 32;

/// The place of the labels' tag in the word of the spawn path. There are fewer than 2^32 - 1 paths.
pub(super) const TAG_SHIFT: u32 = 32;
/// The place in the word of the scopes of the number of scopes that were too deep.
pub(super) const DEEPER_SHIFT: u32 = 32;

/// The stack that must be left to reach the sampler's own. Measured use: less than 1 KB in unoptimised builds.
const ROOM: usize = 2 << 10;

/// The upper half of the number that a signal carries, which marks the signal as ours.
const MARK: u64 = 0x7074_6b73 << 32;

/// One more than the highest descriptor whose signals find their record.
pub(super) const MOST_DESCRIPTORS: usize = 1 << 16;

/// The records of events that signal by their descriptor, by descriptor. A word is the record's number plus one, [`CLOSED`], or
/// 0 for a descriptor that was never an event's.
static OF_DESCRIPTOR: [AtomicU32; MOST_DESCRIPTORS] =
    [const { AtomicU32::new(0) }; MOST_DESCRIPTORS];

/// The word of a descriptor whose event was closed. A signal of that event may still come.
const CLOSED: u32 = u32::MAX;

/// The number that a record's signals carry.
pub(super) fn number_of(record: &Record) -> u64 {
    MARK | u64::from(record.number())
}

/// Notes which record the signals of a descriptor are for. `None`: its event is about to be closed.
pub(super) fn bind_descriptor(descriptor: i32, record: Option<&Record>) {
    let place = usize::try_from(descriptor).ok().and_then(|at| OF_DESCRIPTOR.get(at));
    if let Some(place) = place {
        // Release: pairs with the Acquire in `Notice::read`.
        place.store(record.map_or(CLOSED, |record| record.number() + 1), Ordering::Release);
    }
}

/// Forgets events that have been closed. Their signals are no longer under way, so a signal that carries one of their
/// descriptors comes from another file. No session samples when this is called.
pub(super) fn forget_closed(signal: i32) {
    if signal != libc::SIGURG {
        return;
    }
    for place in &OF_DESCRIPTOR {
        // Relaxed: no signal is under way for which this word matters.
        if place.load(Ordering::Relaxed) == CLOSED {
            place.store(0, Ordering::Relaxed);
        }
    }
}

/// The handler.
pub(super) extern "C" fn on_signal(
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let _errno = Errno::keep();
    // SAFETY: `info` is what the kernel has passed to this handler, for this signal.
    let notice = unsafe { Notice::read(signal, info) };
    match notice {
        // SAFETY: `context` is what the kernel has passed to this handler.
        Some(notice) if unsafe { has_room(context) } => unsafe { take(&notice, context) },
        Some(notice) => notice.record.into_iter().for_each(Record::note_no_room),
        // SAFETY: the arguments are those that the kernel has passed to this handler.
        None => unsafe { disposition::forward(signal, info, context) },
    }
}

/// What one of our signals says.
struct Notice {
    /// The record that the signal is for, or `None` if its event has been closed since, or the signal came on another thread
    /// than meant.
    record: Option<&'static Record>,
    /// Which summons the signal is, if it is one.
    summons: Option<u32>,
    overrun: u64,
    /// [`LATE`], or no flag.
    late: u64,
}

/// The fields of `siginfo_t` on 64-bit Linux for which the `libc` crate has no names.
#[repr(C)]
struct Info {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    /// The address of a SIGTRAP; the number of a timer, with its overrun in the upper half; or the band of a file.
    first: u64,
    /// The number of a SIGTRAP's event; the value with which a timer was made; or the descriptor of a file, in the lower half.
    second: u64,
    /// The kind of a SIGTRAP's event, with flags in the upper half.
    third: u64,
}

impl Notice {
    /// Reads what a signal says. Returns `None` if the signal is not ours.
    ///
    /// # Safety
    /// `info` must be what the kernel has passed to the running handler of that signal.
    unsafe fn read(signal: i32, info: *const libc::siginfo_t) -> Option<Self> {
        const TRAP_PERF: i32 = 6;
        const TRAP_PERF_FLAG_ASYNC: u64 = 1 << 32;
        const SI_TIMER: i32 = -2;
        // The codes of signals that files send: from POLL_IN to POLL_HUP.
        const FILES: std::ops::RangeInclusive<i32> = 1..=6;
        // SAFETY: a `siginfo_t` is larger than an `Info`, aligned like 64-bit words, and initialised by the kernel.
        let info = unsafe { &*info.cast::<Info>() };
        let urgent = signal == libc::SIGURG;
        match info.code {
            TRAP_PERF if signal == libc::SIGTRAP => {
                let late = if info.third & TRAP_PERF_FLAG_ASYNC != 0 { LATE } else { 0 };
                Self::marked(info.second, 0, late)
            }
            SI_TIMER if urgent => match summons::number_in(info.second) {
                Some(number) => Some(Self { summons: Some(number), ..Self::of(None) }),
                None => Self::marked(info.second, info.first >> 32, 0),
            },
            code if urgent && FILES.contains(&code) => {
                let descriptor = (info.second & u64::from(u32::MAX)) as usize;
                // Acquire: pairs with the Release in `bind_descriptor`.
                match OF_DESCRIPTOR.get(descriptor)?.load(Ordering::Acquire) {
                    0 => None,
                    // A closed event may have left a signal behind. It is ours, but there is nothing to sample for it.
                    CLOSED => Some(Self::of(None)),
                    number => Some(Self::of(own(number - 1))),
                }
            }
            _ => None,
        }
    }

    /// The notice of a signal that carries this number, if the number has our mark.
    fn marked(number: u64, overrun: u64, late: u64) -> Option<Self> {
        let low = u64::from(u32::MAX);
        let record = || own((number & low) as u32);
        (number & !low == MARK).then(|| Self { overrun, late, ..Self::of(record()) })
    }

    fn of(record: Option<&'static Record>) -> Self {
        Self { record, summons: None, overrun: 0, late: 0 }
    }
}

/// The record with this number, if the calling thread has it.
fn own(number: u32) -> Option<&'static Record> {
    // SAFETY: `gettid` takes no arguments and touches no memory.
    let thread = unsafe { libc::gettid() }.cast_unsigned();
    Record::of_number(number).filter(|record| record.is_of(thread))
}

/// Whether the stack has room for a sample. The program may have small stacks for its own signal handlers. If our signal
/// interrupts such a handler, ours runs on the same stack, which then also has what the kernel has saved for both.
///
/// # Safety
/// `context` must be what the kernel has passed to the running handler.
unsafe fn has_room(context: *const libc::c_void) -> bool {
    // SAFETY: by the caller's contract, the kernel has written a `ucontext_t` there.
    let own = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_stack };
    let start = own.ss_sp.addr();
    let marker = 0_u8;
    let here = (&raw const marker).addr();
    !(start..start.saturating_add(own.ss_size)).contains(&here) || here - start >= ROOM
}

/// Takes a sample, on a stack of the sampler's own. This is not inlined, so that the handler uses this function's stack only where
/// there is room for it.
///
/// # Safety
/// `context` must be what the kernel has passed to the running handler, of which `notice` was read.
#[inline(never)]
unsafe fn take(notice: &Notice, context: *const libc::c_void) {
    // SAFETY: `context` is what the kernel has passed to the handler, by the caller's contract.
    let from = unsafe { Interrupted::from_context(context) };
    if let Some(number) = notice.summons {
        // SAFETY: this is a signal handler, which has interrupted its thread there.
        unsafe { summons::answer(number, from) };
    }
    let Some(record) = notice.record else { return };
    let write = |own: &mut Own| {
        let Some(mut sample) = record.ring.begin(MOST_WORDS) else {
            return;
        };
        let start_ns = clock::monotonic_ns();
        sample.push(0);
        sample.push(start_ns);
        sample.push(clock::thread_cpu_ns());
        push_task(record, &mut sample);
        let flags = push_stack(record, own, from, &mut sample);
        let took_ns = (clock::monotonic_ns() - start_ns).min(MOST_TOOK_NS);
        let flags = flags | notice.late;
        sample.set(1, flags | took_ns << TOOK_SHIFT | notice.overrun << OVERRUN_SHIFT);
        sample.finish();
    };
    // SAFETY: this is a signal handler, and `Notice::read` has checked that the calling thread has the record.
    unsafe { record.enter(write) };
}

/// Writes the task that runs on this thread: its number, its parent's number, and its spawn path's number plus one, each 0 if
/// there is none. The upper half of the path's word has the tag of the labels. Then this writes the scopes.
pub(super) fn push_task(record: &Record, sample: &mut Writing<'_>) {
    let cpu = record.cpu().filter(|cpu| cpu.thread().is_some_and(|thread| record.is_of(thread)));
    let numbers = cpu.map(|cpu| {
        let of_task = |task: Option<&Task>| match task {
            Some(task) => {
                let parent = task.parent().map_or(0, TaskId::get);
                let path = u64::from(task.path().id()) + 1;
                [task.id().get(), parent, path | u64::from(task.tag()) << TAG_SHIFT]
            }
            None => [0, 0, u64::from(cpu.own_tag()) << TAG_SHIFT],
        };
        // SAFETY: the calling thread has the record, and the CPU is this same thread.
        unsafe { cpu.with_current(of_task) }
    });
    numbers.unwrap_or_default().into_iter().for_each(|number| sample.push(number));
    push_scopes(cpu, sample);
}

/// Writes the number of scopes that are kept, with the number of deeper ones in the upper half, and then the kept scopes, two
/// to a word.
fn push_scopes(cpu: Option<&CpuRecord>, sample: &mut Writing<'_>) {
    let mut names = [0; MAX_SCOPES];
    let (kept, deeper) = cpu.map_or((0, 0), |cpu| CallStack::read_on(cpu, &mut names));
    sample.push(kept as u64 | u64::from(deeper) << DEEPER_SHIFT);
    for pair in names[..kept.next_multiple_of(2).min(MAX_SCOPES)].chunks_exact(2) {
        sample.push(u64::from(pair[0]) | u64::from(pair[1]) << 32);
    }
}

/// Writes the addresses of the stack. Returns the sample's flags.
fn push_stack(record: &Record, own: &mut Own, from: Interrupted, sample: &mut Writing<'_>) -> u64 {
    let start = sample.length();
    // SAFETY: these are the registers of the code that this handler has interrupted.
    let walked = unsafe { walk(record, own, from, |at| sample.push(at)) };
    let Some((flags, good)) = walked else {
        sample.push(from.instruction);
        return NO_GROUND;
    };
    sample.cut(start + good as u64);
    flags
}

/// Walks the stack. Returns its flags and how many of its addresses are good, or `None` on a stack that is not known.
///
/// # Safety
/// `from` must be the registers of a frame of the calling thread that does not end before the walk does: of the code that the
/// calling signal handler has interrupted, or of a function that has called this, directly or not, and has not returned.
pub(super) unsafe fn walk(
    record: &Record,
    own: &mut Own,
    from: Interrupted,
    found: impl FnMut(u64),
) -> Option<(u64, usize)> {
    let Own { cache, stack, .. } = own;
    let end = record.with_walker(|walker| {
        let walker = walker?;
        let Some(mut ground) = Ground::at(from.stack, stack, walker) else {
            Walker::ask();
            return None;
        };
        // SAFETY: the registers are what the caller's contract says, and `ground` is the stack of their frame.
        Some(unsafe { unwind::walk(walker, cache, from, &mut ground, MOST_FRAMES, found) })
    });
    let (end, good) = end?;
    let flags = match end {
        End::Root => COMPLETE,
        End::FiberRoot => COMPLETE | FIBER,
        End::Full => TRUNCATED,
        End::Lost => 0,
    };
    Some((flags, good))
}
