//! A ring of records, which are words of any number. One thread writes them: samples in its signal handler, and waits outside of
//! it, but never one while it is in the middle of another. One other thread reads them. Neither waits for the other. A sample for which
//! there is no room is dropped and counted here; whoever writes a wait is told that there is no room.

use std::sync::atomic::{AtomicU64, Ordering};

/// A ring of words, for one writer and one reader at a time.
///
/// INVARIANT: `tail <= head <= tail + words.len()`. The words from `tail` to `head` (each at its number modulo the length)
/// belong to the reader, and the others to the writer. A record begins with its own length in words, including this first word.
#[derive(Debug)]
pub(super) struct Ring {
    words: Box<[AtomicU64]>,
    head: AtomicU64,
    tail: AtomicU64,
    /// The number of records that were dropped, since the ring was made.
    dropped: AtomicU64,
}

/// A record that is being written. Unless [`Writing::finish`] ends it, the reader never sees it.
pub(super) struct Writing<'a> {
    ring: &'a Ring,
    start: u64,
    length: u64,
}

impl Ring {
    /// Makes a ring, or returns `None` if there is no memory for it.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        let length = (bytes / size_of::<u64>()).max(1);
        let mut words = Vec::new();
        words.try_reserve_exact(length).ok()?;
        words.extend((0..length).map(|_| AtomicU64::new(0)));
        Some(Self {
            words: words.into_boxed_slice(),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// The bytes of a ring that has room for one record of so many words.
    pub(super) const fn bytes_for(words: usize) -> usize {
        (words + 1) * size_of::<u64>()
    }

    /// Whether the ring was made with so many bytes.
    pub(super) fn is_of(&self, bytes: usize) -> bool {
        self.words.len() == (bytes / size_of::<u64>()).max(1)
    }

    /// Begins a record of at most `most` words. If there is no room for it, this counts a dropped record and returns `None`.
    pub(super) fn begin(&self, most: usize) -> Option<Writing<'_>> {
        // Relaxed: only the writer changes it.
        let start = self.head.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `read_before`, so that the reader has read the words that it gave back.
        let used = start - self.tail.load(Ordering::Acquire);
        if used + most as u64 + 1 > self.words.len() as u64 {
            // Relaxed: a figure.
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Writing { ring: self, start, length: 1 })
    }

    /// Begins a record of at most `most` words, unless less than half of the ring would then be left for others. Then this returns
    /// `None`, and counts nothing.
    pub(super) fn begin_in_half(&self, most: usize) -> Option<Writing<'_>> {
        // Relaxed and Acquire: as in `begin`.
        let start = self.head.load(Ordering::Relaxed);
        let used = start - self.tail.load(Ordering::Acquire);
        let has_room = used + (most as u64) < self.words.len() as u64 / 2;
        has_room.then_some(Writing { ring: self, start, length: 1 })
    }

    /// The end of the records that are in the ring now.
    pub(super) fn end(&self) -> u64 {
        // Acquire: pairs with the Release in `finish`, so that the records before this end are whole.
        self.head.load(Ordering::Acquire)
    }

    /// Moves the next record's words into `words`. Returns false if there is no record.
    ///
    /// Only one reader may call this at a time. Another thread may become the reader if something else orders the two.
    pub(super) fn read(&self, words: &mut Vec<u64>) -> bool {
        self.read_before(self.end(), words)
    }

    /// Moves the next record's words into `words`, if the record is before `end`, which [`end`](Self::end) has returned.
    pub(super) fn read_before(&self, end: u64, words: &mut Vec<u64>) -> bool {
        // Relaxed: only the reader changes it.
        let start = self.tail.load(Ordering::Relaxed);
        if start >= end {
            return false;
        }
        let length = self.word(start);
        words.clear();
        words.extend((start + 1..start + length).map(|at| self.word(at)));
        // Release: pairs with the Acquire in `begin`.
        self.tail.store(start + length, Ordering::Release);
        true
    }

    /// The number of records that were dropped, since the ring was made.
    pub(super) fn dropped(&self) -> u64 {
        // Relaxed: a figure.
        self.dropped.load(Ordering::Relaxed)
    }

    fn word(&self, at: u64) -> u64 {
        // Relaxed: `head` and `tail` order the words.
        self.words[self.place(at)].load(Ordering::Relaxed)
    }

    fn place(&self, at: u64) -> usize {
        (at % self.words.len() as u64) as usize
    }
}

impl Writing<'_> {
    /// Adds a word.
    pub(super) fn push(&mut self, word: u64) {
        self.set(self.length, word);
        self.length += 1;
    }

    /// The number of words, including the first one, which is the length itself.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Removes the last words, so that `length` remain.
    pub(super) fn cut(&mut self, length: u64) {
        self.length = self.length.min(length);
    }

    /// Replaces a word that was pushed. The first pushed word has number 1.
    pub(super) fn set(&self, number: u64, word: u64) {
        let place = self.ring.place(self.start + number);
        // Relaxed: `finish` publishes the word.
        self.ring.words[place].store(word, Ordering::Relaxed);
    }

    /// Ends the record, so that the reader can see it.
    pub(super) fn finish(self) {
        self.set(0, self.length);
        // Release: pairs with the Acquire in `end`, so that the reader sees the record's words.
        self.ring.head.store(self.start + self.length, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_take_half_of_the_ring_leaves_the_other_half() {
        let ring = Ring::new(64 * 8).unwrap();
        let mut taken = 0;
        while let Some(mut writing) = ring.begin_in_half(7) {
            (0..7).for_each(|word| writing.push(word));
            writing.finish();
            taken += 1;
        }
        assert_eq!((taken, ring.dropped()), (4, 0), "eight words each");
        assert!((0..4).all(|_| write(&ring, &[1, 2, 3, 4, 5, 6, 7])));
        assert!(!write(&ring, &[1]) && ring.dropped() == 1);
    }

    fn write(ring: &Ring, words: &[u64]) -> bool {
        let Some(mut writing) = ring.begin(words.len()) else { return false };
        words.iter().for_each(|word| writing.push(*word));
        writing.finish();
        true
    }

    fn read(ring: &Ring) -> Option<Vec<u64>> {
        let mut words = vec![99];
        ring.read(&mut words).then_some(words)
    }

    #[test]
    fn records_come_out_as_they_went_in_around_the_end() {
        let ring = Ring::new(8 * 8).unwrap();
        for round in 0..50 {
            assert!(write(&ring, &[round, round + 1]));
            assert!(write(&ring, &[round + 2, 5, 6]));
            assert_eq!(read(&ring), Some(vec![round, round + 1]));
            assert_eq!(read(&ring), Some(vec![round + 2, 5, 6]));
            assert_eq!(read(&ring), None);
        }
        assert_eq!(ring.dropped(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_harms_nothing() {
        let ring = Ring::new(8 * 8).unwrap();
        assert!(write(&ring, &[1, 2, 3]));
        assert!(write(&ring, &[4, 5, 6]));
        assert!(!write(&ring, &[7]));
        assert!(!write(&ring, &[8, 9]));
        assert_eq!(ring.dropped(), 2);
        assert_eq!(read(&ring), Some(vec![1, 2, 3]));
        assert!(write(&ring, &[7]));
        assert_eq!((read(&ring), read(&ring)), (Some(vec![4, 5, 6]), Some(vec![7])));
        assert!(!write(&ring, &[0; 8]), "longer than the ring");
    }

    #[test]
    fn words_that_were_cut_off_are_not_read() {
        let ring = Ring::new(8 * 8).unwrap();
        let mut writing = ring.begin(4).unwrap();
        writing.push(1);
        let length = writing.length();
        [2, 3].into_iter().for_each(|word| writing.push(word));
        writing.cut(length + 1);
        writing.cut(length + 5);
        writing.finish();
        assert_eq!(read(&ring), Some(vec![1, 2]));
    }

    #[test]
    fn a_record_that_is_not_finished_was_never_there() {
        let ring = Ring::new(8 * 8).unwrap();
        ring.begin(4).unwrap().push(1);
        assert_eq!(read(&ring), None);
        assert!(write(&ring, &[2]));
        assert_eq!(read(&ring), Some(vec![2]));
    }

    #[test]
    fn a_reader_on_another_thread_sees_whole_records_in_order() {
        let ring = Ring::new(64 * 8).unwrap();
        const LAST: u64 = 200_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = 1;
                while next <= LAST {
                    next += u64::from(write(&ring, &vec![next; (next % 7 + 1) as usize]));
                }
            });
            let mut last = 0;
            while last < LAST {
                let Some(words) = read(&ring) else { continue };
                assert_eq!(words, vec![last + 1; ((last + 1) % 7 + 1) as usize]);
                last += 1;
            }
        });
    }
}
