//! Which of tokio's tasks a thread was polling: the number that tokio itself gives each task, where that is sure.
//!
//! The function that polls a task keeps the address of the task's header until the poll ends, in a register or in its frame. A sample has both:
//! registers that functions called from there have used meanwhile are in their frames. A header is known by its table of functions, which
//! has the very function that was running, and it leads to the task's number.
//!
//! The process goes on meanwhile, and memory is read some time after the sample was taken. The task may have ended since, and
//! another one of the same type may have taken its place. But tokio counts its tasks: one whose number was given out before the sample was taken, and
//! which is there now, was there all the time. A task that is younger than the last look stays unknown.
//!
//! The layout is that of tokio 1.25 to 1.54, from its sources. It is checked, and where it does not fit, no task is known.

use crate::record::{Sample, u64_at};
use crate::saved::Values;
use crate::space::{Space, Walked};
use crate::tokio::Tokio;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where each header begins: the structure of a task is aligned so that no two tasks share a line of the cache.
const ALIGNMENT: u64 = 128;

/// What is read of a header, in bytes, and where in it the address of the table of functions is.
const HEADER: usize = 16 + 8;
const TABLE: usize = 16;

/// What is read of a table of functions: so many functions, of which the first polls, and then three distances from the header: of what
/// follows the future, of the scheduler, and of the task's number.
const FUNCTIONS: usize = 7;
const WORDS: usize = FUNCTIONS + 3;

/// The least length of a header, and the most bytes of the scheduler's reference behind it.
const LEAST_HEADER: u64 = 32;
const MOST_SCHEDULER: u64 = 128;

/// The most tables that are remembered. There is one for each type of task.
const MOST_TABLES: usize = 1 << 16;

/// The most bytes of a frame that are looked at.
const MOST_FRAME: u64 = 64 << 10;

/// What is known of tasks.
#[derive(Debug)]
pub(crate) struct Identity {
    process: u32,
    memory: Memory,
    /// The tables of functions so far, by their addresses.
    tables: HashMap<u64, Option<Table>>,
    /// All tasks with a lesser number were made before the samples that are read now were taken.
    made_before: u64,
    /// Samples in tasks, and those among them where no header was found.
    in_tasks: u64,
    without_header: u64,
}

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
    /// Where the task's number is, from its header on.
    id: u64,
}

impl Identity {
    pub(crate) fn of(process: u32) -> Self {
        Self {
            process,
            memory: Memory::NotYet,
            tables: HashMap::new(),
            made_before: 0,
            in_tasks: 0,
            without_header: 0,
        }
    }

    /// Notes that the process runs another program now.
    pub(crate) fn forget(&mut self) {
        (self.memory, self.made_before) = (Memory::NotYet, 0);
        self.tables.clear();
    }

    /// Notes that other files are mapped now.
    pub(crate) fn forget_tables(&mut self) {
        self.tables.clear();
    }

    /// Returns the number of the next task. To be called before samples are read: see [`read_until`](Self::read_until).
    pub(crate) fn next_id(&mut self, tokio: &Tokio) -> u64 {
        let address = tokio.next_id();
        address.and_then(|address| self.word(address)).unwrap_or(0)
    }

    /// Notes that all samples were read which had been taken when `next_id` was that of the next task. Later ones were taken later.
    pub(crate) fn read_until(&mut self, next_id: u64) {
        self.made_before = next_id;
    }

    /// Returns the number of the task that a thread was polling.
    pub(crate) fn task(
        &mut self,
        space: &mut Space,
        sample: &Sample<'_>,
        walked: &Walked,
    ) -> Option<u64> {
        let tokio = space.tokio.as_ref()?;
        let frame = (0..walked.addresses.len())
            .position(|frame| !tokio.entries(walked.place(frame)).is_empty())?;
        self.in_tasks += 1;
        let header = self.header(space, sample, walked, frame);
        self.without_header += u64::from(header.is_none());
        let (header, table) = header?;
        let id = self.word(header.checked_add(table.id)?)?;
        (0 < id && id < self.made_before).then_some(id)
    }

    /// Finds the header of the task that a frame polls.
    fn header(
        &mut self,
        space: &mut Space,
        sample: &Sample<'_>,
        walked: &Walked,
        frame: usize,
    ) -> Option<(u64, Table)> {
        let Space { saved, tokio, .. } = space;
        let entries = tokio.as_ref()?.entries(walked.place(frame));
        let registers = sample.registers?;
        let word = |address: u64| {
            let at = address.checked_sub(registers.stack)?;
            u64_at(sample.stack, usize::try_from(at).ok()?)
        };
        let mut values = Values::of(&registers);
        for callee in 0..frame {
            let (slots, end) = (saved.at(walked.place(callee))?, *walked.ends.get(callee)?);
            values.enter_caller(&slots, |slot| word(end.checked_add_signed(slot)?))?;
        }
        let slots = saved.at(walked.place(frame))?;
        if let Some(found) = self.only_header(values.used(&slots), entries) {
            return found;
        }
        // It is no register's. In the frame are also its caller's registers, and what calls before have left there.
        let start =
            frame.checked_sub(1).map_or(Some(&registers.stack), |callee| walked.ends.get(callee));
        let (start, end) = (*start?, *walked.ends.get(frame)?);
        let own = (start..end.min(start.saturating_add(MOST_FRAME))).step_by(8);
        let is_callers = |address: &u64| {
            slots.iter().flatten().any(|slot| end.checked_add_signed(*slot) == Some(*address))
        };
        let own: Vec<_> = own.filter(|address| !is_callers(address)).filter_map(word).collect();
        self.only_header(own.into_iter(), entries)?
    }

    /// Returns the header among these words whose table has one of these functions: `Some(None)` if there are several, as nobody knows which of
    /// two tasks of one type was polled.
    fn only_header(
        &mut self,
        words: impl Iterator<Item = u64>,
        entries: &[u64],
    ) -> Option<Option<(u64, Table)>> {
        let mut found: Option<(u64, Table)> = None;
        for address in words.filter(|word| *word != 0 && word.is_multiple_of(ALIGNMENT)) {
            if found.is_some_and(|(header, _)| header == address) {
                continue;
            }
            let table = self.table_of(address).filter(|table| entries.contains(&table.poll));
            if let Some(table) = table
                && found.replace((address, table)).is_some()
            {
                return Some(None);
            }
        }
        found.map(Some)
    }

    /// Returns the table of functions of the task whose header is there, if one is.
    fn table_of(&mut self, header: u64) -> Option<Table> {
        let mut bytes = [0; HEADER];
        self.read(&mut bytes, header)?;
        let at = u64_at(&bytes, TABLE)?;
        if let Some(known) = self.tables.get(&at) {
            return *known;
        }
        let mut bytes = [0; 8 * WORDS];
        let read = self.read(&mut bytes, at);
        let table = read.and_then(|()| Table::of(&bytes));
        if self.tables.len() < MOST_TABLES {
            self.tables.insert(at, table);
        }
        table
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
                Err(why) => Memory::Refused(why),
            };
        }
        let Memory::Open(file) = &self.memory else { return None };
        file.read_exact_at(bytes, from).ok()
    }

    /// Says why single tasks are not known, if that has one reason for all of them.
    pub(crate) fn remark(&self, tokio: &Tokio) -> Option<String> {
        let copies = tokio.copies();
        let why = match &self.memory {
            _ if self.in_tasks == 0 => return None,
            Memory::Refused(why) => format!(
                "this user may not read the memory of process {} ({why}): run as root, or set kernel.yama.ptrace_scope to 0",
                self.process
            ),
            _ if copies > 1 => {
                format!(
                    "the program has {copies} versions of tokio, and each counts its tasks for itself"
                )
            }
            _ if self.without_header == self.in_tasks => {
                "tokio's tasks do not look as in the versions 1.25 to 1.54".to_owned()
            }
            _ => return None,
        };
        Some(format!("the tasks of a type cannot be told apart: {why}"))
    }
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
        (is_whole && fits).then_some(Self { poll, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(words: [u64; WORDS]) -> Option<Table> {
        Table::of(&words.map(u64::to_ne_bytes).concat())
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
