//! Which of tokio's tasks a thread was polling: the ID that tokio itself gives each task, where that is sure.
//!
//! The function that polls a task gets the address of the task's header, and [keeps](Kept) it until the poll ends, in a register or in its
//! frame. A sample has both: registers that functions called from there have used meanwhile are in their frames. The header has a
//! table of functions, which must have the very function that was running, and the task's ID.
//!
//! The process goes on meanwhile, and memory is read some time after the sample was taken. The task may have ended since, and
//! another one of the same type may have taken its place. But tokio counts its tasks. An ID that was given out some time before the sample was
//! taken is that of a task which was in its place by then, so it is still the same. Whoever makes a task takes its ID a moment before
//! the task is in its place. So IDs count only if they were given out a while before: a thread would have to be
//! stopped for that long between the two for an ID to be wrong. A task that is younger stays unknown.
//!
//! The layout is that of tokio 1.25 to 1.54, from its sources. It is checked, and where it does not fit, no task is known.

use crate::allowed;
use crate::kept::Frame;
#[cfg(doc)]
use crate::kept::Kept;
use crate::record::{Sample, u64_at};
use crate::saved::{Saved, Values};
use crate::space::{Space, Walked};
use crate::tokio::{Polling, Tokio};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Where headers may begin: the allocator's alignment. From tokio 1.29 on, it is a line of the cache.
const ALIGNMENT: u64 = 16;

/// Where headers and tables may be: neither in the first pages nor in the kernel's half.
const ADDRESSES: std::ops::Range<u64> = 1 << 16..1 << 47;

/// Where in a header the address of the table of functions is.
const TABLE: usize = 16;

/// What is read of a table of functions: so many functions, of which the first polls, and then three distances from the header: of what
/// follows the future, of the scheduler, and of the task's ID.
const FUNCTIONS: usize = 7;
const WORDS: usize = FUNCTIONS + 3;

/// The least length of a header, and the most bytes of the scheduler's reference behind it.
const LEAST_HEADER: u64 = 32;
const MOST_SCHEDULER: u64 = 128;

/// The most bytes from the beginning of a header to the end of the ID.
const MOST_BYTES: usize = 1024;

/// The most tables that are remembered. There is one for each type of task.
const MOST_TABLES: usize = 1 << 16;

/// What is known of tasks.
#[derive(Debug)]
pub(crate) struct Identity {
    process: u32,
    memory: Memory,
    /// What is where tables may be: the tables so far, and what is none.
    tables: HashMap<u64, Option<Table>>,
    given_out: GivenOut,
    /// Samples in tasks, and those among them where the task's header was found.
    in_tasks: u64,
    with_header: u64,
}

/// The IDs that tokio had given out some time before the samples that are read now were taken.
#[derive(Debug, Default)]
struct GivenOut {
    /// Where tokio counts. Another copy of tokio counts elsewhere.
    at: u64,
    /// All lesser ones.
    settled: u64,
    /// What it had given out since, and when, the oldest first.
    looks: VecDeque<Look>,
}

/// What tokio had given out at some time: all lesser IDs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    at: u64,
    next_id: u64,
    time: Instant,
}

/// How long an ID must have been given out when a sample is taken.
const WHILE: Duration = Duration::from_millis(200);

/// The least time between two looks that are remembered.
const APART: Duration = Duration::from_millis(10);

/// The process's memory.
#[derive(Debug)]
enum Memory {
    NotYet,
    Open(File),
    Refused(io::Error),
}

/// What a task's table of functions says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Table {
    poll: u64,
    /// Where the task's ID is, from its header on.
    id: usize,
}

/// A task's header, and where its table of functions is.
#[derive(Clone, Copy, Debug)]
struct Header {
    address: u64,
    table_at: u64,
    table: Table,
}

impl Identity {
    pub(crate) fn of(process: u32) -> Self {
        Self {
            process,
            memory: Memory::NotYet,
            tables: HashMap::new(),
            given_out: GivenOut::default(),
            in_tasks: 0,
            with_header: 0,
        }
    }

    /// Notes that the process runs another program now.
    pub(crate) fn forget(&mut self) {
        (self.memory, self.given_out) = (Memory::NotYet, GivenOut::default());
        self.tables.clear();
    }

    /// Notes that other files are mapped now.
    pub(crate) fn forget_tables(&mut self) {
        self.tables.clear();
    }

    /// Looks which IDs are given out. To be called before samples are read: see [`read_until`](Self::read_until).
    pub(crate) fn look(&mut self, tokio: &Tokio) -> Option<Look> {
        let (at, time) = (tokio.next_id()?, Instant::now());
        Some(Look { at, next_id: self.word(at)?, time })
    }

    /// Notes that all samples were read which had been taken at the time of that look. Others were taken later.
    pub(crate) fn read_until(&mut self, look: Option<Look>) {
        match look {
            Some(look) => self.given_out.add(look),
            None => self.given_out = GivenOut::default(),
        }
    }

    /// Returns the ID of the task that a thread was polling.
    pub(crate) fn task(
        &mut self,
        space: &mut Space,
        sample: &Sample<'_>,
        walked: &Walked,
    ) -> Option<u64> {
        let Space { saved, tokio, .. } = space;
        let tokio = tokio.as_ref()?;
        self.in_tasks += u64::from(tokio.polls(walked));
        let polling = tokio.polling(walked)?;
        let header = self.header_at(argument(saved, sample, walked, &polling)?)?;
        if !polling.entries.contains(&header.table.poll) {
            return None;
        }
        self.with_header += 1;
        let id = self.id(header)?;
        let counts_there = tokio.next_id() == Some(self.given_out.at);
        (counts_there && 0 < id && id < self.given_out.settled).then_some(id)
    }

    /// Returns the header that is there, if one is.
    fn header_at(&mut self, address: u64) -> Option<Header> {
        if !address.is_multiple_of(ALIGNMENT) || !ADDRESSES.contains(&address) {
            return None;
        }
        let table_at = self.word(address + TABLE as u64)?;
        if !table_at.is_multiple_of(8) || !ADDRESSES.contains(&table_at) {
            return None;
        }
        let known = self.tables.get(&table_at).copied();
        let table = known.unwrap_or_else(|| self.learn_table(table_at));
        table.map(|table| Header { address, table_at, table })
    }

    fn learn_table(&mut self, at: u64) -> Option<Table> {
        let mut bytes = [0; 8 * WORDS];
        let read = self.read(&mut bytes, at);
        let table = read.and_then(|()| Table::of(&bytes));
        if self.tables.len() >= MOST_TABLES {
            self.tables.clear();
        }
        self.tables.insert(at, table);
        table
    }

    /// Reads the ID of a task, if its header is still there: both at once.
    fn id(&mut self, header: Header) -> Option<u64> {
        let Header { address, table_at, table } = header;
        let mut bytes = [0; MOST_BYTES];
        let bytes = bytes.get_mut(..table.id.checked_add(8)?)?;
        self.read(bytes, address)?;
        let is_there = u64_at(bytes, TABLE) == Some(table_at);
        u64_at(bytes, table.id).filter(|_| is_there)
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(&mut bytes, address)?;
        Some(u64::from_ne_bytes(bytes))
    }

    /// Reads the process's memory, or returns `None` where nothing is mapped.
    fn read(&mut self, bytes: &mut [u8], from: u64) -> Option<()> {
        if matches!(self.memory, Memory::NotYet) {
            self.memory = match File::open(format!("/proc/{}/mem", self.process)) {
                Ok(file) => Memory::Open(file),
                // It has ended.
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => return None,
                Err(why) => Memory::Refused(why),
            };
        }
        let Memory::Open(file) = &self.memory else { return None };
        file.read_exact_at(bytes, from).ok()
    }

    /// Says why tasks of one type are not told apart, if that has one reason for all of them.
    pub(crate) fn remark(&self, tokio: &Tokio) -> Option<String> {
        let why = match (&self.memory, tokio.copies()) {
            _ if !tokio.is_there() => return None,
            _ if tokio.is_cut => "the program has too many symbols of tokio".to_owned(),
            (Memory::Refused(why), _) => format!(
                "the memory of process {} cannot be read ({why}){}",
                self.process,
                allowed::memory().err().map_or_else(String::new, |remedy| format!(": {remedy}"))
            ),
            (_, 0) => "the program's symbols do not say where tokio counts its tasks".to_owned(),
            (_, copies) if copies > 1 => {
                format!("the program has {copies} copies of tokio, and each counts its tasks for itself")
            }
            _ if cfg!(not(target_arch = "x86_64")) => {
                "that is possible on x86_64 alone".to_owned()
            }
            _ if self.in_tasks > 0 && 10 * self.with_header < self.in_tasks => {
                "for nearly all samples, no task of tokio was found where the versions 1.25 to 1.54 have it".to_owned()
            }
            _ => return None,
        };
        Some(format!("tasks of one type cannot be told apart: {why}"))
    }
}

impl GivenOut {
    fn add(&mut self, look: Look) {
        if look.at != self.at {
            *self = Self { at: look.at, ..Self::default() };
        }
        let is_settled = |old: &Look| old.time + WHILE <= look.time;
        while let Some(old) = self.looks.front().filter(|old| is_settled(old)) {
            self.settled = old.next_id;
            self.looks.pop_front();
        }
        if self.looks.back().is_none_or(|last| last.time + APART <= look.time) {
            self.looks.push_back(look);
        }
    }
}

/// The argument of the function that polls: the address of the task's header.
fn argument(
    saved: &mut Saved,
    sample: &Sample<'_>,
    walked: &Walked,
    polling: &Polling<'_>,
) -> Option<u64> {
    let (registers, frame) = (sample.registers?, polling.frame);
    let word = |address: u64| {
        let at = address.checked_sub(registers.stack)?;
        u64_at(sample.stack, usize::try_from(at).ok()?)
    };
    let mut values = Values::of(&registers);
    for callee in 0..frame {
        let (slots, end) = (saved.at(walked.place(callee))?, *walked.ends.get(callee)?);
        values.enter_caller(&slots, |slot| word(end.checked_add_signed(slot)?))?;
    }
    let start = match frame.checked_sub(1) {
        Some(callee) => *walked.ends.get(callee)?,
        None => registers.stack,
    };
    polling.kept.value(&Frame {
        place: walked.place(frame),
        is_innermost: frame == 0,
        values,
        slots: saved.at(walked.place(frame))?,
        start,
        end: *walked.ends.get(frame)?,
        word: &word,
    })
}

impl Table {
    /// Reads a table, if it may be one.
    fn of(bytes: &[u8]) -> Option<Self> {
        let word = |at| u64_at(bytes, 8 * at);
        let poll = word(0)?;
        let [trailer, scheduler, id] = [FUNCTIONS, FUNCTIONS + 1, FUNCTIONS + 2].map(word);
        let (trailer, scheduler, id) = (trailer?, scheduler?, id?);
        let is_whole = [trailer, scheduler, id].iter().all(|it| it.is_multiple_of(8));
        let fits = LEAST_HEADER <= scheduler
            && scheduler <= id
            && id <= scheduler.saturating_add(MOST_SCHEDULER)
            && id < trailer;
        let id = usize::try_from(id).ok().filter(|id| is_whole && fits && id + 8 <= MOST_BYTES);
        id.map(|id| Self { poll, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(words: [u64; WORDS]) -> Option<Table> {
        Table::of(&words.map(u64::to_ne_bytes).concat())
    }

    #[test]
    fn an_id_is_settled_a_while_after_it_was_given_out() {
        let (mut given_out, began) = (GivenOut::default(), Instant::now());
        let mut look = |at, ms, next_id| {
            given_out.add(Look { at, next_id, time: began + Duration::from_millis(ms) });
            given_out.settled
        };
        assert_eq!(look(8, 0, 10), 0);
        assert_eq!(look(8, 1, 20), 0);
        assert_eq!(look(8, 100, 30), 0);
        assert_eq!(look(8, 199, 40), 0);
        assert_eq!(look(8, 200, 50), 10);
        assert_eq!(look(8, 300, 60), 30, "the one at 1 ms was too soon to be remembered");
        assert_eq!(look(8, 10_000, 70), 60);
        assert_eq!(look(9, 10_001, 5), 0, "another tokio");
    }

    #[test]
    fn a_table_of_functions_is_known_by_its_distances() {
        // As tokio 1.54.1 has it for a future of 80 bytes, with a scheduler of one word.
        let known = [1, 2, 3, 4, 5, 6, 7, 0x88, 0x20, 0x28];
        assert_eq!(table(known), Some(Table { poll: 1, id: 0x28 }));
        let with = |at: usize, word: u64| {
            let mut changed = known;
            changed[at] = word;
            table(changed)
        };
        // A scheduler of no bytes.
        assert_eq!(with(9, 0x20), Some(Table { poll: 1, id: 0x20 }));
        for (at, word) in [(7, 0x28), (7, 0x81), (8, 0x18), (8, 0x30), (9, 0x18), (9, 0x1000)] {
            assert_eq!(with(at, word), None, "{at} {word:#x}");
        }
    }
}
