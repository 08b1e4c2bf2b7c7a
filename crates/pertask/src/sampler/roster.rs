//! The roster of records that no armed thread uses: records of threads that were sampled before, and of threads that have ended.

use super::record::{Record, Stack};
use super::stat::Birth;
use std::collections::BTreeMap;

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
        unsafe { record.give(thread, stack) };
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
    pub(super) fn threads(&self) -> impl Iterator<Item = u32> + Clone {
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
    fn a_thread_has_one_record_whatever_sizes_are_asked_for() {
        let mut roster = Roster::new();
        let (thread, birth) = (u32::MAX - 1, Birth(1));
        let numbers = [8_000, 90_000, 8_000, 60_000].map(|bytes| {
            let record = roster.record(thread, birth, bytes, Stack::Unknown);
            let record = record.expect("there are few");
            roster.keep(thread, birth, record);
            record.number()
        });
        assert_eq!(numbers, [numbers[0]; 4]);
        // Another thread of that number.
        let other = roster.record(thread, Birth(2), 8_000, Stack::Unknown);
        assert_eq!(other.map(Record::number), Some(numbers[0]), "it has become free");
    }
}
