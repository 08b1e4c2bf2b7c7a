//! A thread that the engine interrupts, and what the engine knows of it.

use super::arms::Armed;
use super::record::Record;
use super::stat::Birth;
use crate::os::clock;

/// A thread that is armed.
pub(super) struct Sampled {
    pub(super) record: &'static Record,
    pub(super) birth: Birth,
    pub(super) armed: Armed,
    /// The thread's CPU time at its last sample, or when the engine found it.
    pub(super) cpu_ns: u64,
    /// The record's counts that the engine has already told to the sessions.
    pub(super) told: Told,
    /// Whether interruptions may be missing before the next sample that did not fall into the kernel: some were dropped, or the
    /// rate has changed.
    pub(super) gap: bool,
    /// Whether the thread was seen to block its signal since its last sample.
    pub(super) deaf: bool,
}

/// The counts of a record.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) dropped: u64,
    pub(super) nested: u64,
    pub(super) no_room: u64,
}

impl Told {
    pub(super) fn of(record: &Record) -> Self {
        Self { dropped: record.ring.dropped(), nested: record.nested(), no_room: record.no_room() }
    }
}

impl Sampled {
    /// Whether the thread has used the CPU for so long without a sample that it may block the signal. It may also be in the kernel.
    pub(super) fn seems_deaf(&self, thread: u32) -> bool {
        const PERIODS: u64 = 16;
        let used = clock::cpu_ns_of_thread(thread).map_or(0, |now| now.saturating_sub(self.cpu_ns));
        !self.deaf && used > PERIODS * self.armed.period_ns
    }
}
