//! The signal handler: takes one sample of its own thread.
//!
//! It allocates nothing, takes no lock, touches no thread-local variable and makes two cheap system calls (its thread's
//! number, its CPU time). It keeps `errno`. What it needs was made before the first signal was asked for.

use super::disposition;
use super::record::{Own, Record, Stack};
use super::ring::Writing;
use super::unwind::{self, End, Interrupted};
use crate::os::clock;
use crate::pmus::call_stack::{CallStack, MAX_SCOPES};
use pertask_core::{CpuRecord, Task, TaskId};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses in a stack at most.
pub(super) const MOST_FRAMES: usize = 128;

/// Words of a sample before its scopes and its addresses.
pub(super) const HEAD: usize = 7;

/// Words of the largest sample: two scopes to a word.
pub(super) const MOST_WORDS: usize = HEAD + MAX_SCOPES.div_ceil(2) + MOST_FRAMES;

/// In a sample's first word: the walk came to the thread's root.
pub(super) const COMPLETE: u64 = 1;
/// There were more frames than [`MOST_FRAMES`].
pub(super) const TRUNCATED: u64 = 2;
/// Where, in the first word, are the nanoseconds that taking it took; and how many at most.
pub(super) const TOOK_SHIFT: u32 = 2;
pub(super) const MOST_TOOK_NS: u64 = (1 << (OVERRUN_SHIFT - TOOK_SHIFT)) - 1;
/// Where is how many more signals this one stands for.
pub(super) const OVERRUN_SHIFT: u32 = 32;

/// Where, in the word of the spawn path, the tag is. (Paths are fewer than 2^32 - 1.)
pub(super) const TAG_SHIFT: u32 = 32;
/// Where, in the word of the scopes, is how many were too deep.
pub(super) const DEEPER_SHIFT: u32 = 32;

/// Stack that must be left for a sample without unwinding. Measured: 0.9 KB optimised, 2.3 KB not.
const ROOM: usize = 3 << 10;

/// Marks a signal's number as ours.
const MARK: u64 = 0x7074_6b73 << 32;

/// The highest descriptor whose signals find their record, and one more.
pub(super) const MOST_DESCRIPTORS: usize = 1 << 16;

/// The record of each event that signals by its descriptor, by descriptor: its number and one; [`CLOSED`]; or 0, for those
/// that never were ours.
static OF_DESCRIPTOR: [AtomicU32; MOST_DESCRIPTORS] =
    [const { AtomicU32::new(0) }; MOST_DESCRIPTORS];

/// In the place of a descriptor that was an event's: a signal of that event may come yet.
const CLOSED: u32 = u32::MAX;

/// The number that a record's signals carry.
pub(super) fn number_of(record: &Record) -> u64 {
    MARK | u64::from(record.number())
}

/// Says whose signals come from that descriptor from now on.
pub(super) fn bind_descriptor(descriptor: i32, record: Option<&Record>) {
    let place = usize::try_from(descriptor).ok().and_then(|at| OF_DESCRIPTOR.get(at));
    if let Some(place) = place {
        // Release: pairs with the Acquire in `named_record`.
        place.store(record.map_or(CLOSED, |record| record.number() + 1), Ordering::Release);
    }
}

/// Nothing of that signal is under way any more from events that have been closed: whatever has their descriptors now signals
/// for itself. While nobody samples.
pub(super) fn forget_closed(signal: i32) {
    if signal != libc::SIGURG {
        return;
    }
    for place in &OF_DESCRIPTOR {
        // Relaxed: no signal is on its way that would be told by it.
        if place.load(Ordering::Relaxed) == CLOSED {
            place.store(0, Ordering::Relaxed);
        }
    }
}

/// The handler itself.
pub(super) extern "C" fn on_signal(
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the thread's own word, which the C library has made when the thread began.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel's word for each signal.
    let notice = unsafe { Notice::read(signal, info) };
    match notice {
        // SAFETY: the context that the kernel gave.
        Some(notice) if unsafe { has_room(context) } => unsafe { take(&notice, context) },
        Some(notice) => notice.record.into_iter().for_each(Record::note_no_room),
        // SAFETY: the kernel's arguments.
        None => unsafe { disposition::forward(signal, info, context) },
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// What a signal of ours says.
struct Notice {
    /// `None`: from an event that has been closed since, or on another thread than it was for.
    record: Option<&'static Record>,
    overrun: u64,
}

/// The parts of `siginfo_t` that the C library has no names for, on 64-bit Linux.
#[repr(C)]
struct Info {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    /// SIGTRAP: an address. A timer: its number, and its overrun above. A file: its band.
    first: u64,
    /// SIGTRAP: the event's number. A timer: the value that it was made with. A file: its descriptor, below.
    second: u64,
}

impl Notice {
    /// `None` if the signal is not ours.
    ///
    /// # Safety
    /// `info` is what the kernel gave to a handler of that signal.
    unsafe fn read(signal: i32, info: *const libc::siginfo_t) -> Option<Self> {
        const TRAP_PERF: i32 = 6;
        const SI_TIMER: i32 = -2;
        // What files say: from POLL_IN to POLL_HUP.
        const FILES: std::ops::RangeInclusive<i32> = 1..=6;
        // SAFETY: it is larger than this, and aligned as 64-bit words are.
        let info = unsafe { &*info.cast::<Info>() };
        let urgent = signal == libc::SIGURG;
        match info.code {
            TRAP_PERF if signal == libc::SIGTRAP => Self::marked(info.second, 0),
            SI_TIMER if urgent => Self::marked(info.second, info.first >> 32),
            code if urgent && FILES.contains(&code) => {
                let descriptor = (info.second & u64::from(u32::MAX)) as usize;
                // Acquire: pairs with the Release in `bind_descriptor`.
                match OF_DESCRIPTOR.get(descriptor)?.load(Ordering::Acquire) {
                    0 => None,
                    // An event that is closed may have left a signal behind: it is ours, and says nothing.
                    CLOSED => Some(Self { record: None, overrun: 0 }),
                    number => Some(Self { record: own(number - 1), overrun: 0 }),
                }
            }
            _ => None,
        }
    }

    fn marked(number: u64, overrun: u64) -> Option<Self> {
        let low = u64::from(u32::MAX);
        (number & !low == MARK).then(|| Self { record: own((number & low) as u32), overrun })
    }
}

/// The record of that number, if it is the calling thread's.
fn own(number: u32) -> Option<&'static Record> {
    // SAFETY: no arguments, no memory.
    let thread = unsafe { libc::gettid() }.cast_unsigned();
    Record::of_number(number).filter(|record| record.is_of(thread))
}

/// Whether there is room for a sample. The program may have stacks of its own for its handlers, and small ones: where such a
/// handler is interrupted, we are on its stack, and so is all that the kernel has saved for both.
///
/// # Safety
/// In a signal handler, with the context that the kernel gave.
unsafe fn has_room(context: *const libc::c_void) -> bool {
    // SAFETY: the caller's word.
    let own = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_stack };
    let start = own.ss_sp.addr();
    let marker = 0_u8;
    let here = (&raw const marker).addr();
    !(start..start.saturating_add(own.ss_size)).contains(&here) || here - start >= ROOM
}

/// Takes a sample. Not inlined: what it takes of the stack is not taken where there is no room for it.
///
/// # Safety
/// In a signal handler, with the context that the kernel gave.
#[inline(never)]
unsafe fn take(notice: &Notice, context: *const libc::c_void) {
    let Some(record) = notice.record else { return };
    // SAFETY: the caller's word.
    let from = unsafe { Interrupted::from_context(context) };
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
        sample.set(1, flags | took_ns << TOOK_SHIFT | notice.overrun << OVERRUN_SHIFT);
        sample.finish();
    };
    // SAFETY: `own` has found it to be this thread's.
    unsafe { record.enter(write) };
}

/// Who runs here: the task's number, its parent's, its spawn path's and one, each 0 if there is none; above the path the tag of
/// its labels. Then its scopes.
fn push_task(record: &Record, sample: &mut Writing<'_>) {
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
        // SAFETY: the record is this thread's, and the CPU has the same thread.
        unsafe { cpu.with_current(of_task) }
    });
    numbers.unwrap_or_default().into_iter().for_each(|number| sample.push(number));
    push_scopes(cpu, sample);
}

/// How many scopes are kept, above it how many are not; then those that are, two to a word.
fn push_scopes(cpu: Option<&CpuRecord>, sample: &mut Writing<'_>) {
    let mut names = [0; MAX_SCOPES];
    let (kept, deeper) = cpu.map_or((0, 0), |cpu| CallStack::read_on(cpu, &mut names));
    sample.push(kept as u64 | u64::from(deeper) << DEEPER_SHIFT);
    for pair in names[..kept.next_multiple_of(2).min(MAX_SCOPES)].chunks_exact(2) {
        sample.push(u64::from(pair[0]) | u64::from(pair[1]) << 32);
    }
}

/// The stack's addresses. Returns the sample's flags.
fn push_stack(record: &Record, own: &mut Own, from: Interrupted, sample: &mut Writing<'_>) -> u64 {
    let Own { cache, stack, mappings } = own;
    let end = record.with_unwinder(|unwinder| {
        let (unwinder, stack) = (unwinder?, stack.readable(mappings, from.stack)?);
        // SAFETY: the thread's own stack, which stays mapped as long as the thread lives.
        Some(unsafe {
            unwind::walk(unwinder, cache, from, stack, MOST_FRAMES, |at| sample.push(at))
        })
    });
    match end {
        Some(End::Root) => COMPLETE,
        Some(End::Full) => TRUNCATED,
        Some(End::Lost) => 0,
        None => {
            sample.push(from.instruction);
            0
        }
    }
}

impl Stack {
    /// The stack, if it is known, the interrupted code ran on it, so does this handler, and there is room to unwind.
    fn readable(&mut self, mappings: &[Range<u64>], interrupted: u64) -> Option<Range<u64>> {
        if *self == Self::Sought {
            let found = find(mappings, unwind::thread_pointer());
            *self = found.map_or(Self::Unknown, Self::Known);
        }
        let Self::Known(stack) = self else { return None };
        let marker = 0_u8;
        let here = (&raw const marker).addr() as u64;
        let fits = stack.contains(&interrupted)
            && stack.contains(&here)
            && here - stack.start >= unwind::ROOM;
        fits.then(|| stack.clone())
    }
}

/// From the start of the mapping to the control block in it: what lies above that is not stack.
fn find(mappings: &[Range<u64>], control_block: u64) -> Option<Range<u64>> {
    let after = mappings.partition_point(|mapping| mapping.start <= control_block);
    let mapping = mappings.get(after.checked_sub(1)?)?;
    mapping.contains(&control_block).then_some(mapping.start..control_block)
}
