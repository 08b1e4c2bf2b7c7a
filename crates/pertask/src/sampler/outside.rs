//! The stack of a thread that is blocked in the kernel, read by another thread. No signal disturbs its sleep.
//!
//! The kernel tells where the thread is and where its stack is. The stack's memory is read as the kernel reads it for debuggers:
//! if the thread goes on meanwhile, what is read is rubbish and never a fault. Whoever asks must check that it has not.

use super::frame_pointer::{self, Sight};
use super::functions::Functions;
use super::handler::MOST_FRAMES;
use super::modules::Unwinder;
#[cfg(target_arch = "aarch64")]
use super::unwind;
use super::unwind::Cache;
use framehop::{FrameAddress, UnwindRegsNative, Unwinder as _};
use pertask_symbols::Memory;
use std::ops::Range;

/// In place of a register that is not known. No memory is there, so whoever follows it is noticed.
#[cfg(target_arch = "x86_64")]
const UNKNOWN: u64 = 0x5eed_0000_0000_0000;
/// How far from it an address may be that comes from it.
#[cfg(target_arch = "x86_64")]
const AROUND: u64 = 1 << 32;

/// In place of a register that is not known. No memory is there. The bits above the 48th are a return address's signature.
#[cfg(target_arch = "aarch64")]
const UNKNOWN: u64 = 0x8000;
/// How far from it an address may be that comes from it.
#[cfg(target_arch = "aarch64")]
const AROUND: u64 = 0x7000;

const WORD: u64 = 8;
const PAGE: u64 = 4 << 10;

/// The most pages of a stack that are read: the frames of a deep one.
const MOST_PAGES: usize = 64;

/// What a walk reads.
pub(super) struct View<'a> {
    pub(super) memory: &'a Memory,
    pub(super) functions: &'a [Functions],
    pub(super) unwinder: &'a Unwinder,
}

/// Walks from an instruction and a stack pointer to the root. Returns the addresses, and whether the walk has reached the root.
pub(super) fn walk(
    view: &View<'_>,
    cache: &mut Cache,
    instruction: u64,
    stack: &Range<u64>,
) -> (Vec<u64>, bool) {
    let mut words = Words { view, stack: stack.clone(), pages: Vec::new(), met_unknown: false };
    let mut registers = first_registers(instruction, stack.start);
    let mut frame = FrameAddress::from_instruction_pointer(instruction);
    let mut found = Vec::new();
    while found.len() < MOST_FRAMES {
        found.push(frame.address());
        let before = registers;
        let mut next = words.step(view, cache, frame, &mut registers);
        if words.met_unknown {
            registers = before;
            let at = frame.address_for_lookup();
            let Some(known) = frame_pointer::find(&mut words, at, registers.sp()) else {
                return (found, false);
            };
            set_frame_pointer(&mut registers, known);
            next = words.step(view, cache, frame, &mut registers);
        }
        frame = match next {
            Ok(Some(address)) if is_unknown(address) => return (found, false),
            Ok(Some(address)) => match FrameAddress::from_return_address(address) {
                Some(caller) => caller,
                None => return (found, true),
            },
            Ok(None) => return (found, true),
            Err(_) => return (found, false),
        };
    }
    (found, false)
}

fn is_unknown(address: u64) -> bool {
    address.abs_diff(UNKNOWN) < AROUND
}

#[cfg(target_arch = "x86_64")]
fn first_registers(instruction: u64, stack: u64) -> UnwindRegsNative {
    UnwindRegsNative::new(instruction, stack, UNKNOWN)
}

#[cfg(target_arch = "aarch64")]
fn first_registers(_: u64, stack: u64) -> UnwindRegsNative {
    UnwindRegsNative::new_with_ptr_auth_mask(unwind::address_bits(), UNKNOWN, stack, UNKNOWN)
}

#[cfg(target_arch = "x86_64")]
fn set_frame_pointer(registers: &mut UnwindRegsNative, to: u64) {
    registers.set_bp(to);
}

#[cfg(target_arch = "aarch64")]
fn set_frame_pointer(registers: &mut UnwindRegsNative, to: u64) {
    registers.set_fp(to);
}

/// The words of a stack, read page by page.
struct Words<'a> {
    view: &'a View<'a>,
    /// From the stack pointer to the end of the mapping.
    stack: Range<u64>,
    pages: Vec<(u64, Vec<u8>)>,
    /// Whether the last step has followed an unknown register.
    met_unknown: bool,
}

impl Words<'_> {
    fn step(
        &mut self,
        view: &View<'_>,
        cache: &mut Cache,
        frame: FrameAddress,
        registers: &mut UnwindRegsNative,
    ) -> Result<Option<u64>, framehop::Error> {
        self.met_unknown = false;
        view.unwinder.unwind_frame(frame, registers, cache, &mut |at| {
            self.met_unknown |= is_unknown(at);
            self.word(at).ok_or(())
        })
    }

    /// The bytes of a page, as far as they are this stack's.
    fn page(&mut self, page: u64) -> Option<&[u8]> {
        if let Some(known) = self.pages.iter().position(|(start, _)| *start == page) {
            return Some(&self.pages[known].1);
        }
        if self.pages.len() == MOST_PAGES {
            return None;
        }
        let bytes = self.view.memory.read(page..page.checked_add(PAGE)?)?;
        self.pages.push((page, bytes));
        self.pages.last().map(|(_, bytes)| &**bytes)
    }
}

impl Sight for Words<'_> {
    fn word(&mut self, at: u64) -> Option<u64> {
        let is_inside = self.stack.start <= at && at.checked_add(WORD)? <= self.stack.end;
        if !is_inside || !at.is_multiple_of(WORD) {
            return None;
        }
        let page = at & !(PAGE - 1);
        let bytes = self.page(page)?.get((at - page) as usize..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    fn bytes(&self, range: Range<u64>) -> Option<Vec<u8>> {
        self.view.memory.read(range)
    }

    fn function(&self, address: u64) -> Option<Range<u64>> {
        frame_pointer::function_in(self.view.functions, address)
    }
}
