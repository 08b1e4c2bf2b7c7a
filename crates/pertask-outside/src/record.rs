//! What the kernel writes into a ring: samples, and what happens to the process.

use crate::registers::{self, Registers};
use perf_event_open_sys::bindings as sys;

/// What each sample has, in this order.
pub(crate) const SAMPLE: u64 = sys::PERF_SAMPLE_TID as u64
    | sys::PERF_SAMPLE_ID as u64
    | sys::PERF_SAMPLE_REGS_USER as u64
    | sys::PERF_SAMPLE_STACK_USER as u64;

/// A record, which borrows the ring's bytes.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
pub(crate) enum Record<'a> {
    Sample(Sample<'a>),
    /// So many records found no room in the ring.
    Lost(u64),
    /// The process has mapped code.
    Mapped {
        process: u32,
    },
    /// A thread has a new name, or its process runs another program now.
    Named {
        process: u32,
        thread: u32,
        is_exec: bool,
    },
    /// A process has made another one.
    Forked {
        process: u32,
        parent: u32,
    },
    Other,
}

/// Where a thread was when it had used a period of CPU time.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    pub(crate) process: u32,
    pub(crate) thread: u32,
    /// The number of the event, or of that which it was inherited from.
    pub(crate) event: u64,
    /// `None` if the thread has no user mode.
    pub(crate) registers: Option<Registers>,
    /// The bytes of the stack from the stack pointer on.
    pub(crate) stack: &'a [u8],
}

const ABI_NONE: u64 = 0;
const ABI_64: u64 = 2;

/// The length of a record's header.
pub(crate) const HEADER: usize = 8;

impl<'a> Record<'a> {
    /// Reads a record, which begins with its header. `None` if it is damaged.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (kind, misc) = (u32_at(bytes, 0)?, u16_at(bytes, 4)?);
        let body = bytes.get(HEADER..)?;
        Some(match kind {
            sys::PERF_RECORD_SAMPLE => Self::Sample(Sample::parse(body)?),
            sys::PERF_RECORD_LOST => Self::Lost(u64_at(body, 8)?),
            // Without an inode it is no file.
            sys::PERF_RECORD_MMAP2 if u64_at(body, 40)? != 0 => {
                Self::Mapped { process: u32_at(body, 0)? }
            }
            sys::PERF_RECORD_COMM => Self::Named {
                process: u32_at(body, 0)?,
                thread: u32_at(body, 4)?,
                is_exec: u32::from(misc) & sys::PERF_RECORD_MISC_COMM_EXEC != 0,
            },
            // It is also written for threads, whose process is their maker's.
            sys::PERF_RECORD_FORK => {
                Self::Forked { process: u32_at(body, 0)?, parent: u32_at(body, 4)? }
            }
            _ => Self::Other,
        })
    }
}

impl<'a> Sample<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let (process, thread) = (u32_at(body, 0)?, u32_at(body, 4)?);
        let event = u64_at(body, 8)?;
        let abi = u64_at(body, 16)?;
        let mut at = 24;
        let mut registers = None;
        if abi != ABI_NONE {
            let mut values = [0; registers::COUNT];
            for value in &mut values {
                *value = u64_at(body, at)?;
                at += 8;
            }
            // Those of a 32-bit program are others.
            registers = (abi == ABI_64).then(|| Registers::of(values));
        }
        let size = usize::try_from(u64_at(body, at)?).ok()?;
        let stack = body.get(at + 8..)?.get(..size)?;
        // The room for the stack is always there, and then stands how much of it was written.
        let written = if size > 0 { u64_at(body, at + 8 + size)? } else { 0 };
        let stack = stack.get(..usize::try_from(written).ok()?)?;
        Some(Self { process, thread, event, registers, stack })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Reads a word, as samples have them.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, misc: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(misc.to_ne_bytes());
        bytes.extend((body.len() as u16 + 8).to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn sample(registers: u64, stack: &[u8], written: u64) -> Vec<u8> {
        let mut body = Vec::new();
        [7_u32, 8].iter().for_each(|number| body.extend(number.to_ne_bytes()));
        body.extend(9_u64.to_ne_bytes());
        body.extend(if registers > 0 { ABI_64 } else { ABI_NONE }.to_ne_bytes());
        (0..registers).for_each(|number| body.extend((100 + number).to_ne_bytes()));
        body.extend((stack.len() as u64).to_ne_bytes());
        body.extend(stack);
        if !stack.is_empty() {
            body.extend(written.to_ne_bytes());
        }
        record(sys::PERF_RECORD_SAMPLE, 0, &body)
    }

    #[test]
    fn a_sample_has_its_registers_and_what_was_written_of_its_stack() {
        let bytes = sample(registers::COUNT as u64, &[5; 32], 24);
        let Some(Record::Sample(sample)) = Record::parse(&bytes) else { panic!("{bytes:?}") };
        assert_eq!((sample.process, sample.thread, sample.event), (7, 8, 9));
        assert_eq!(sample.stack, [5; 24]);
        // The instruction pointer is the last one to unwind from, wherever it is among all.
        let place = registers::WANTED.iter().position(|it| registers::UNWIND.last() == Some(it));
        let registers = sample.registers.expect("its registers");
        assert_eq!(Some(registers.instruction), place.map(|place| 100 + place as u64));
    }

    #[test]
    fn a_sample_of_a_thread_of_the_kernel_has_none() {
        let bytes = sample(0, &[], 0);
        let Some(Record::Sample(sample)) = Record::parse(&bytes) else { panic!("{bytes:?}") };
        assert!(sample.registers.is_none() && sample.stack.is_empty());
    }

    #[test]
    fn what_is_cut_off_is_no_record() {
        let whole = sample(registers::COUNT as u64, &[5; 32], 24);
        for length in 0..whole.len() {
            assert!(Record::parse(&whole[..length]).is_none(), "{length}");
        }
        let lies = sample(registers::COUNT as u64, &[5; 32], 40);
        assert!(Record::parse(&lies).is_none());
    }

    #[test]
    fn what_happens_to_the_process_is_told() {
        let mut body = Vec::new();
        [7_u32, 8].iter().for_each(|number| body.extend(number.to_ne_bytes()));
        let exec = sys::PERF_RECORD_MISC_COMM_EXEC as u16;
        let named = record(sys::PERF_RECORD_COMM, exec, &body);
        assert!(matches!(
            Record::parse(&named),
            Some(Record::Named { process: 7, thread: 8, is_exec: true })
        ));
        let mut mapping = body.clone();
        mapping.extend([0; 40]);
        let anonymous = record(sys::PERF_RECORD_MMAP2, 0, &mapping);
        assert!(matches!(Record::parse(&anonymous), Some(Record::Other)));
        mapping[40] = 1;
        let mapped = record(sys::PERF_RECORD_MMAP2, 0, &mapping);
        assert!(matches!(Record::parse(&mapped), Some(Record::Mapped { process: 7 })));
        let forked = record(sys::PERF_RECORD_FORK, 0, &body);
        assert!(matches!(Record::parse(&forked), Some(Record::Forked { process: 7, parent: 8 })));
        body.extend(12_u64.to_ne_bytes());
        let lost = record(sys::PERF_RECORD_LOST, 0, &body);
        assert!(matches!(Record::parse(&lost), Some(Record::Lost(12))));
        assert!(matches!(Record::parse(&record(77, 0, &[])), Some(Record::Other)));
    }
}
