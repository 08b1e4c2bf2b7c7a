//! The roster of records that no armed thread uses: records of threads that were sampled before, and of threads that have ended.

use super::record::{Record, Stack};
use super::signals;
use crate::os::clock;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// When a thread began, in the kernel's ticks. A thread's number and its birth identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Birth(u64);

impl Birth {
    /// The birth of a thread, or `None` if the thread has ended or its file cannot be read.
    pub(super) fn of(thread: u32) -> Option<Self> {
        Self::look(thread).ok().flatten()
    }

    /// The birth of a thread that would begin now.
    pub(super) fn now() -> Self {
        // SAFETY: `sysconf` touches no memory of ours.
        let hertz = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100);
        Self(clock::boot_ns() / (1_000_000_000 / hertz.max(1)))
    }

    /// Whether the thread with this number and birth has certainly ended. A process without a free file descriptor does not know.
    pub(super) fn has_ended(self, thread: u32) -> bool {
        match Self::look(thread) {
            Ok(birth) => birth.is_some_and(|birth| birth != self),
            Err(why) => signals::says_ended(&why),
        }
    }

    fn look(thread: u32) -> io::Result<Option<Self>> {
        // The 20th word after the name, which may contain any character.
        const PLACE: usize = 19;
        let stat = std::fs::read(format!("/proc/self/task/{thread}/stat"))?;
        let stat = String::from_utf8_lossy(&stat);
        let words = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        Ok(words.split_whitespace().nth(PLACE).and_then(|word| word.parse().ok()).map(Self))
    }
}

/// The records that no armed thread uses.
pub(super) struct Roster {
    /// The records of threads that were sampled and may still live. A signal from that time may still come.
    kept: BTreeMap<u32, (Birth, &'static Record)>,
    /// The records of threads that have ended.
    free: Vec<&'static Record>,
    /// The record with which collectors try the mechanisms.
    trial: Option<&'static Record>,
}

impl Roster {
    pub(super) const fn new() -> Self {
        Self { kept: BTreeMap::new(), free: Vec::new(), trial: None }
    }

    /// A record for a thread, or `None` if there are too many records.
    ///
    /// This is the record that the thread had before, of whatever size, because its handler may still use it. Otherwise it is a
    /// free record, or a new one.
    pub(super) fn record(
        &mut self,
        thread: u32,
        birth: Birth,
        ring_bytes: usize,
        stack: Stack,
        mappings: Arc<[Range<u64>]>,
    ) -> Option<&'static Record> {
        let kept = self.kept.remove(&thread);
        match kept {
            Some((same, record)) if same == birth => return Some(record),
            Some((_, record)) => self.free.push(record),
            None => {}
        }
        let free = self.free.iter().position(|record| record.ring.is_of(ring_bytes));
        let record = match free {
            Some(at) => self.free.swap_remove(at),
            None => Record::new(ring_bytes)?,
        };
        // SAFETY: the record is new, or its thread has ended. The caller has the roster under the collector's lock, so no other
        // thread gives records away.
        unsafe { record.give(thread, stack, mappings) };
        Some(record)
    }

    /// Frees the kept records of threads that have ended.
    pub(super) fn sweep(&mut self) {
        let Self { kept, free, .. } = self;
        kept.retain(|thread, (birth, record)| {
            let lives = !birth.has_ended(*thread);
            if !lives {
                free.push(*record);
            }
            lives
        });
    }

    /// Keeps the record of a thread that is no longer sampled.
    pub(super) fn keep(&mut self, thread: u32, birth: Birth, record: &'static Record) {
        self.kept.insert(thread, (birth, record));
    }

    /// The threads whose records are kept.
    pub(super) fn threads(&self) -> impl Iterator<Item = u32> {
        self.kept.keys().copied()
    }

    /// Frees the record of a thread that has ended.
    pub(super) fn free(&mut self, record: &'static Record) {
        self.free.push(record);
    }

    /// The record with which a collector tries the mechanisms.
    pub(super) fn trial(&mut self) -> Option<&'static Record> {
        const BYTES: usize = 16 << 10;
        self.trial = self.trial.or_else(|| Record::new(BYTES));
        self.trial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_born_between_what_was_now_before_and_after() {
        // SAFETY: `gettid` takes no arguments and touches no memory.
        let me = || unsafe { libc::gettid() }.cast_unsigned();
        let before = Birth::now();
        let born = std::thread::spawn(move || Birth::of(me())).join().unwrap().unwrap();
        assert!(before <= born && born <= Birth::now(), "{born:?} is not from {before:?} on");
    }

    #[test]
    fn a_thread_has_one_record_whatever_sizes_are_asked_for() {
        let mut roster = Roster::new();
        let (thread, birth) = (u32::MAX - 1, Birth(1));
        let numbers = [8_000, 90_000, 8_000, 60_000].map(|bytes| {
            let record = roster.record(thread, birth, bytes, Stack::Unknown, Arc::default());
            let record = record.expect("there are few");
            roster.keep(thread, birth, record);
            record.number()
        });
        assert_eq!(numbers, [numbers[0]; 4]);
        // Another thread of that number.
        let other = roster.record(thread, Birth(2), 8_000, Stack::Unknown, Arc::default());
        assert_eq!(other.map(Record::number), Some(numbers[0]), "it has become free");
    }
}
