//! Summonses: a running thread is asked, once, for its stack.
//!
//! A timer on the thread's CPU clock brings the signal. So it comes while the thread runs and in no sleep, and not at all if the
//! thread does not go on to run. The handler writes the stack into a slot that was made for it before.

use super::area::Area;
use super::ground::Ground;
use super::handler::{self, MOST_FRAMES};
use super::mechanism::{self, Timer};
use super::record::Stack;
use super::shield::Shield;
use super::stat::Stat;
use super::unwind::{self, Cache, End, Interrupted};
use super::walker::Walker;
use super::{disposition, way};
use pertask_core::CpuRecord;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The signal: see [`Mechanism::signal`](super::Mechanism).
pub(super) const SIGNAL: i32 = libc::SIGURG;

/// The upper half of the number that a signal carries, which marks it as a summons. Of the lower half, the lowest bits are the
/// slot's number and the rest counts the slot's summonses.
const MARK: u64 = 0x7074_6b74 << 32;
const SLOT_BITS: u32 = 6;

/// The most threads that can be under summons at a time.
const MOST: usize = 1 << SLOT_BITS;

/// The slots, by number.
///
/// INVARIANT: each is null, or points to a slot that is never freed, because a signal that was sent long ago may still carry its
/// number.
static SLOTS: [AtomicPtr<Slot>; MOST] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST];

/// The slots that nobody has.
static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());

/// Those who may summon threads. While there are any, the handler stays installed.
static SUMMONERS: AtomicUsize = AtomicUsize::new(0);

/// What a slot's word says beside the number of the summons.
const NOBODY: u64 = 0;
const WANTED: u64 = 1;
const TAKING: u64 = 2;
const TAKEN: u64 = 3;
const STEP_BITS: u32 = 2;
const STEPS: u64 = (1 << STEP_BITS) - 1;

/// Where one thread writes its stack.
struct Slot {
    number: u32,
    /// The number of the summons, and how far it is.
    word: AtomicU64,
    thread: AtomicU32,
    /// The thread's CPU, and its count of switches in the poll that is meant.
    cpu: AtomicPtr<CpuRecord>,
    switches: AtomicU64,
    /// INVARIANT: who has the slot uses this, except from `TAKING` until `TAKEN`: then the handler does.
    own: UnsafeCell<Own>,
}

struct Own {
    walker: Option<Walker>,
    stack: Stack,
    cache: Cache,
    area: Area,
    addresses: [u64; MOST_FRAMES],
    length: usize,
    complete: bool,
}

// SAFETY: all fields but `own` are atomic or never change, and by its invariant one thread uses `own` at a time.
unsafe impl Sync for Slot {}
// SAFETY: nothing in a slot depends on the thread that made it.
unsafe impl Send for Slot {}

/// The right to summon threads, which keeps the handler installed until it is dropped.
#[derive(Debug)]
pub(super) struct Summoner(());

/// A thread that is under summons, until this is dropped.
pub(super) struct Summons {
    slot: &'static Slot,
    timer: Option<Timer>,
}

/// The state of a summons.
pub(super) enum Answer {
    NotYet,
    /// The poll was over when the thread was interrupted.
    TooLate,
    Stack {
        addresses: Vec<u64>,
        complete: bool,
    },
}

/// The handler's exceptions for alternate stacks, as long as threads may be summoned.
static SHIELD: Mutex<Option<Shield>> = Mutex::new(None);

/// Whether the handler of a signal must stay installed.
pub(super) fn expects(signal: i32) -> bool {
    // Relaxed: the collector's lock orders it.
    signal == SIGNAL && SUMMONERS.load(Ordering::Relaxed) > 0
}

impl Summoner {
    /// Installs the handler. The caller holds the collector's lock.
    pub(super) fn new() -> Result<Self, String> {
        if !mechanism::defers_timers() {
            return Err("this kernel's timers would end system calls that sleep".to_owned());
        }
        if disposition::wants_alternate_stack(SIGNAL) {
            return Err("the program's own handler of SIGURG runs on alternate stacks, which may have no room".to_owned());
        }
        disposition::install(SIGNAL, handler::on_signal).map_err(|why| why.to_string())?;
        // Relaxed: see `expects`.
        SUMMONERS.fetch_add(1, Ordering::Relaxed);
        cover();
        Ok(Self(()))
    }

    /// Removes the handler if nobody else needs it. The caller holds the collector's lock; `is_needed`: sessions that sample need it.
    pub(super) fn leave(self, is_needed: bool, threads: impl Iterator<Item = u32>) {
        // Relaxed: see `expects`.
        if SUMMONERS.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        lift_shield();
        if !is_needed {
            way::withdraw(SIGNAL, threads);
        }
    }

    /// Summons a thread for the stack of the poll that it is in. The caller holds the collector's lock. `Err` says why it cannot
    /// be.
    pub(super) fn summon(
        &self,
        thread: u32,
        cpu: &'static CpuRecord,
        switches: u64,
        (walker, stack): (Walker, Stack),
    ) -> Result<Summons, String> {
        if Stat::of(thread).is_some_and(|stat| stat.blocks(SIGNAL)) {
            return Err("a thread blocks SIGURG, which would ask it for its stack".to_owned());
        }
        if !disposition::is_ours(SIGNAL, handler::on_signal) {
            return Err("the program has given SIGURG another handler".to_owned());
        }
        cover();
        let slot = Slot::take().ok_or("too many threads are asked at a time")?;
        let mut summons = Summons { slot, timer: None };
        let number = slot.begin(thread, cpu, switches, walker, stack);
        let timer = Timer::once(number, thread, SIGNAL);
        summons.timer = Some(timer.map_err(|why| format!("timer_create: {why}"))?);
        Ok(summons)
    }
}

/// Keeps the signal, as long as somebody may summon threads, away from the program's handlers on alternate stacks. The caller holds the
/// collector's lock.
pub(super) fn cover() {
    if expects(SIGNAL) {
        let mut shield = SHIELD.lock().unwrap_or_else(PoisonError::into_inner);
        shield.get_or_insert_with(Shield::default).cover(&[SIGNAL]);
    }
}

/// Gives the program's handlers their masks back. The caller holds the collector's lock.
pub(super) fn lift_shield() {
    if let Some(mut shield) = SHIELD.lock().unwrap_or_else(PoisonError::into_inner).take() {
        shield.lift();
    }
}

impl Summons {
    pub(super) fn thread(&self) -> u32 {
        // Relaxed: this summons has the slot.
        self.slot.thread.load(Ordering::Relaxed)
    }

    /// Looks whether the thread has answered.
    pub(super) fn answer(&self) -> Answer {
        // Acquire: pairs with the Release in `answer`, for what the handler has written.
        let word = self.slot.word.load(Ordering::Acquire);
        if word & STEPS != TAKEN {
            return Answer::NotYet;
        }
        // SAFETY: the handler has finished, and this summons has the slot.
        let own = unsafe { &*self.slot.own.get() };
        match own.length {
            0 => Answer::TooLate,
            length => Answer::Stack {
                addresses: own.addresses[..length].to_vec(),
                complete: own.complete,
            },
        }
    }
}

impl Drop for Summons {
    fn drop(&mut self) {
        // No signal is sent from here on. One may be under way, and finds that it is not wanted.
        self.timer = None;
        let slot = self.slot;
        loop {
            // Relaxed: the exchange below finds a change.
            let word = slot.word.load(Ordering::Relaxed);
            let nobody = word & !STEPS | NOBODY;
            let done = |word: u64| word & STEPS != TAKING;
            // Acquire: pairs with the Release in `answer`. On the way to `NOBODY` nothing is published.
            if done(word)
                && slot
                    .word
                    .compare_exchange(word, nobody, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                break;
            }
            // The handler is at work, for some microseconds unless its thread has lost the CPU.
            std::thread::sleep(Duration::from_micros(50));
        }
        // SAFETY: the word says that no handler uses it, and this summons has the slot.
        unsafe { (*slot.own.get()).walker = None };
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }
}

impl Slot {
    /// A slot that nobody has, or a new one.
    fn take() -> Option<&'static Self> {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().or_else(Self::new)
    }

    /// Makes a slot. The caller holds the lock of the free ones.
    fn new() -> Option<&'static Self> {
        // Relaxed: the lock orders it.
        let number = SLOTS.iter().position(|place| place.load(Ordering::Relaxed).is_null())?;
        let own = Own {
            walker: None,
            stack: Stack::Unknown,
            cache: Cache::default(),
            area: Area::new()?,
            addresses: [0; MOST_FRAMES],
            length: 0,
            complete: false,
        };
        let slot = Box::leak(Box::new(Self {
            number: number as u32,
            word: AtomicU64::new(NOBODY),
            thread: AtomicU32::new(0),
            cpu: AtomicPtr::new(ptr::null_mut()),
            switches: AtomicU64::new(0),
            own: UnsafeCell::new(own),
        }));
        // Release: pairs with the Acquire in `answer`, so that the slot is whole.
        SLOTS[number].store(slot, Ordering::Release);
        Some(slot)
    }

    /// Begins a summons. Returns the number that its signal carries. The caller has the slot.
    fn begin(
        &self,
        thread: u32,
        cpu: &'static CpuRecord,
        switches: u64,
        walker: Walker,
        stack: Stack,
    ) -> u64 {
        // SAFETY: the caller has the slot, and the word says that it wants nobody.
        let own = unsafe { &mut *self.own.get() };
        (own.walker, own.stack, own.length, own.complete) = (Some(walker), stack, 0, false);
        // Relaxed, these three: the Release below orders them.
        self.thread.store(thread, Ordering::Relaxed);
        self.cpu.store(ptr::from_ref(cpu).cast_mut(), Ordering::Relaxed);
        self.switches.store(switches, Ordering::Relaxed);
        // Relaxed: nobody else changes a word that wants nobody.
        let count = (self.word.load(Ordering::Relaxed) >> STEP_BITS) + 1;
        // Release: pairs with the Acquire in `answer`.
        self.word.store(count << STEP_BITS | WANTED, Ordering::Release);
        let low = (count << SLOT_BITS | u64::from(self.number)) & u64::from(u32::MAX);
        MARK | low
    }
}

/// The number of the summons that a signal is, if it is one.
pub(super) fn number_in(value: u64) -> Option<u32> {
    (value >> 32 == MARK >> 32).then_some(value as u32)
}

/// Answers a summons: writes the stack of the calling thread into the slot, if it is wanted still.
///
/// # Safety
/// The caller is a signal handler, which has interrupted its thread there.
pub(super) unsafe fn answer(number: u32, from: Interrupted) {
    let place = &SLOTS[number as usize & (MOST - 1)];
    // Acquire: pairs with the Release in `new`. SAFETY: the pointer is null, or to a slot, which is never freed.
    let Some(slot) = (unsafe { place.load(Ordering::Acquire).as_ref() }) else { return };
    // Acquire: pairs with the Release in `begin`, for whom it is about.
    let word = slot.word.load(Ordering::Acquire);
    // SAFETY: `gettid` takes no arguments and touches no memory.
    let thread = unsafe { libc::gettid() }.cast_unsigned();
    // Relaxed: see above.
    let is_meant = (word >> STEP_BITS) as u32 & (u32::MAX >> SLOT_BITS) == number >> SLOT_BITS
        && word & STEPS == WANTED
        && slot.thread.load(Ordering::Relaxed) == thread;
    let taking = word & !STEPS | TAKING;
    // Acquire: pairs with the Release in `begin`, for `own`.
    let took = || slot.word.compare_exchange(word, taking, Ordering::Acquire, Ordering::Relaxed);
    if !is_meant || took().is_err() {
        return;
    }
    // SAFETY: the word says that this handler uses it.
    let own = unsafe { &mut *slot.own.get() };
    // SAFETY: the system never frees a CPU's record. Relaxed: the Acquire above orders both.
    let cpu = unsafe { slot.cpu.load(Ordering::Relaxed).as_ref() };
    let switches = slot.switches.load(Ordering::Relaxed);
    if cpu.is_some_and(|cpu| cpu.switches() == switches) {
        let area = own.area;
        // SAFETY: this handler alone uses the slot's stack, and `walk` does not panic. It is the calling thread's stack, which this
        // handler has interrupted.
        unsafe { area.run(|| walk(own, from)) };
    }
    // Release: pairs with the Acquire in `Summons::answer` and in its drop.
    slot.word.store(word & !STEPS | TAKEN, Ordering::Release);
}

/// Walks the interrupted stack.
///
/// # Safety
/// The caller is a signal handler, which has interrupted its thread there.
unsafe fn walk(own: &mut Own, from: Interrupted) {
    let Own { walker, stack, cache, addresses, length, complete, .. } = own;
    let ground = walker.as_ref().and_then(|walker| Ground::at(from.stack, stack, walker));
    let (Some(walker), Some(mut ground)) = (walker.as_ref(), ground) else {
        (addresses[0], *length) = (from.instruction, 1);
        return;
    };
    let mut count = 0;
    let found = |at| {
        addresses[count] = at;
        count += 1;
    };
    // SAFETY: by the caller's contract.
    let (end, good) = unsafe { unwind::walk(walker, cache, from, &mut ground, MOST_FRAMES, found) };
    (*length, *complete) = (good, matches!(end, End::Root | End::FiberRoot));
}
