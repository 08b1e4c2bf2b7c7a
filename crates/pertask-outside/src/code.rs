//! What the code of a function shows: where it keeps its first argument.
//!
//! If the code before the first call or jump puts the argument into a register or a slot, it is there until other code of the function writes
//! there. From each such instruction on, it may be lost wherever the code can go from there, also after a panic in a function that it calls. Where
//! it goes on by a table of jumps, nobody knows where that is, and then nothing is known.

use crate::kept::{Kept, Place};
use crate::landing_pads::CallSite;
use crate::saved::KEPT_REGISTERS;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};
use std::ops::Range;

/// Looks where the function with this code, which begins at `start`, keeps its first argument. `panics` are all its calls with landing pads.
pub(crate) fn first_argument(code: &[u8], start: u64, panics: &[CallSite]) -> Option<Kept> {
    let all: Vec<Instruction> =
        Decoder::with_ip(64, code, start, DecoderOptions::NONE).into_iter().collect();
    if all.iter().any(|it| it.code() == Code::INVALID) {
        return None;
    }
    let is_straight = |it: &&Instruction| it.flow_control() == FlowControl::Next;
    let first: Vec<_> = all.iter().take_while(is_straight).collect();
    let (at, place) = first
        .iter()
        .enumerate()
        .find_map(|(at, it)| Some((at, Place::of_argument(it, &first[..at])?)))?;
    if matches!(place, Place::Stack(_)) && !has_one_frame(&all) {
        return None;
    }
    let lost = lost(&all, panics, at, place)?;
    let kept =
        (at + 1..all.len()).filter(|at| !lost[*at]).map(|at| all[at].ip()..all[at].next_ip());
    Some(Kept { place, is_there: joined(kept) })
}

/// Before which instructions the argument may no longer be there, which one of them has put there. `None` if that is not known.
fn lost(all: &[Instruction], panics: &[CallSite], put: usize, place: Place) -> Option<Vec<bool>> {
    let mut lost = vec![false; all.len()];
    let mut open = Vec::new();
    for at in (put + 1..all.len()).filter(|at| place.is_written_by(&all[*at])) {
        open.extend(next(all, panics, at)?);
    }
    while let Some(at) = open.pop() {
        if !std::mem::replace(&mut lost[at], true) {
            open.extend(next(all, panics, at)?);
        }
    }
    Some(lost)
}

/// Which instructions of the function may come after one. `None` if that is not known.
fn next(all: &[Instruction], panics: &[CallSite], at: usize) -> Option<Vec<usize>> {
    use FlowControl::{
        Call, ConditionalBranch, Exception, IndirectBranch, IndirectCall, Interrupt, Next, Return,
        UnconditionalBranch, XbeginXabortXend,
    };
    let it = &all[at];
    let place = |address: u64| all.binary_search_by_key(&address, Instruction::ip).ok();
    let follows = || Some(at + 1).filter(|at| *at < all.len());
    let is_inside = |address| (all[0].ip()..all[all.len() - 1].next_ip()).contains(&address);
    let jump = || match is_inside(it.near_branch_target()) {
        true => place(it.near_branch_target()).map(Some),
        // A jump out of the function is its end.
        false => Some(None),
    };
    let to = match it.flow_control() {
        IndirectBranch => return None,
        UnconditionalBranch => [jump()?, None],
        ConditionalBranch => [jump()?, follows()],
        Return | Exception => [None, None],
        Next | Interrupt | XbeginXabortXend => [None, follows()],
        Call | IndirectCall => {
            let is_pad = |address| panics.iter().any(|site| site.landing_pad == address);
            let site = panics.iter().find(|site| site.calls.contains(&it.ip()));
            let pad = match site {
                Some(site) => Some(place(site.landing_pad)?),
                None => None,
            };
            // Nothing but panics leads to a landing pad. A call in front of one does not return.
            [pad, follows().filter(|_| !is_pad(it.next_ip()))]
        }
    };
    Some(to.into_iter().flatten().collect())
}

/// Joins what follows each other.
fn joined(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range),
        }
    }
    all
}

impl Place {
    /// Where an instruction puts the function's first argument, if it does that after those `before`.
    fn of_argument(instruction: &Instruction, before: &[&Instruction]) -> Option<Self> {
        let moves = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op_count() == 2
            && instruction.op1_kind() == OpKind::Register
            && instruction.op1_register() == Register::RDI;
        if !moves || before.iter().any(|it| writes(it, Register::RDI)) {
            return None;
        }
        match instruction.op0_kind() {
            OpKind::Register => {
                let to = instruction.op0_register();
                KEPT_REGISTERS.iter().position(|it| *it == to).map(Self::Register)
            }
            OpKind::Memory if is_slot(instruction) && before.iter().any(|it| makes_room(it)) => {
                Some(Self::Stack(instruction.memory_displacement64()))
            }
            _ => None,
        }
    }

    /// Whether an instruction writes there, and does not only give the register back to the caller.
    fn is_written_by(self, it: &Instruction) -> bool {
        match self {
            Self::Register(number) => {
                it.mnemonic() != Mnemonic::Pop && writes(it, KEPT_REGISTERS[number])
            }
            Self::Stack(offset) => {
                let at = it.memory_displacement64();
                let size = it.memory_size().size().max(1) as u64;
                let overlaps = at < offset + 8 && offset < at.saturating_add(size);
                is_slot(it) && writes_memory(it) && overlaps
            }
        }
    }
}

/// Whether an instruction's memory is in the frame, at a fixed distance from the stack pointer.
fn is_slot(instruction: &Instruction) -> bool {
    instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None
}

/// Whether the stack pointer is the same wherever the function calls another one: it makes room once, after all it pushes.
fn has_one_frame(all: &[Instruction]) -> bool {
    let moves: Vec<_> =
        all.iter().filter(|it| writes(it, Register::RSP) && !gives_back(it)).collect();
    let room = moves.iter().position(|it| makes_room(it));
    let pushed = |it: &&&Instruction| it.mnemonic() == Mnemonic::Push;
    room.is_some_and(|room| {
        room + 1 == moves.len() && moves[..room].iter().filter(pushed).count() == room
    })
}

fn makes_room(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Sub && writes(instruction, Register::RSP)
}

/// Whether it is a part of a function's end, or a call, which leaves the stack pointer as it was.
fn gives_back(instruction: &Instruction) -> bool {
    use Mnemonic::{Add, Call, Pop, Ret};
    matches!(instruction.mnemonic(), Add | Call | Pop | Ret)
}

fn writes(instruction: &Instruction, register: Register) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(instruction).used_registers().to_vec();
    used.iter().any(|it| it.register().full_register() == register && is_write(it.access()))
}

fn writes_memory(instruction: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    factory.info(instruction).used_memory().iter().any(|it| is_write(it.access()))
}

fn is_write(access: OpAccess) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSHES: &[u8] = &[0x41, 0x57, 0x41, 0x56, 0x53]; // push r15; push r14; push rbx
    const ROOM: &[u8] = &[0x48, 0x83, 0xec, 0x20]; // sub rsp, 0x20
    const KEEP: &[u8] = &[0x48, 0x89, 0xfb]; // mov rbx, rdi
    const STORE: &[u8] = &[0x48, 0x89, 0x7c, 0x24, 0x08]; // mov [rsp+8], rdi
    const CALL: &[u8] = &[0xe8, 0, 0, 0, 0];
    const END: &[u8] = &[0x48, 0x83, 0xc4, 0x20, 0x5b, 0x41, 0x5e, 0x41, 0x5f, 0xc3];
    const OTHER: &[u8] = &[0x48, 0x89, 0xf3]; // mov rbx, rsi
    const CLOBBER: &[u8] = &[0x48, 0x89, 0x74, 0x24, 0x08]; // mov [rsp+8], rsi
    const LOST: &[u8] = &[0x48, 0x89, 0xf7]; // mov rdi, rsi

    fn kept(parts: &[&[u8]]) -> Option<Kept> {
        first_argument(&parts.concat(), 0x1000, &[])
    }

    fn place(parts: &[&[u8]]) -> Option<Place> {
        kept(parts).map(|kept| kept.place)
    }

    /// Where it is there, counted from the beginning.
    fn is_there(parts: &[&[u8]]) -> Option<Vec<(u64, u64)>> {
        let ranges = kept(parts)?.is_there;
        Some(ranges.iter().map(|range| (range.start - 0x1000, range.end - 0x1000)).collect())
    }

    #[test]
    fn a_register_keeps_the_argument_until_it_is_written() {
        assert_eq!(place(&[PUSHES, ROOM, KEEP, CALL, END]), Some(Place::Register(0)));
        assert_eq!(is_there(&[PUSHES, ROOM, KEEP, CALL, END]), Some(vec![(12, 27)]));
        // What comes behind the end is reached from nowhere but its own beginning.
        assert_eq!(is_there(&[PUSHES, ROOM, KEEP, CALL, END, OTHER, CALL]), Some(vec![(12, 30)]));
        assert_eq!(is_there(&[PUSHES, ROOM, KEEP, OTHER, CALL, END]), Some(vec![(12, 15)]));
        assert_eq!(place(&[PUSHES, ROOM, LOST, KEEP, CALL, END]), None);
        assert_eq!(place(&[PUSHES, ROOM, CALL, KEEP, CALL, END]), None);
    }

    #[test]
    fn it_may_be_lost_wherever_the_code_goes() {
        // Behind the end, the register is written, and the code jumps back to the call.
        const BACK: &[u8] = &[0xeb, 0xec]; // jmp to the call
        assert_eq!(is_there(&[PUSHES, ROOM, KEEP, CALL, END, OTHER, BACK]), Some(vec![(27, 30)]));
        const BY_TABLE: &[u8] = &[0xff, 0xe0]; // jmp rax
        assert_eq!(is_there(&[PUSHES, ROOM, KEEP, CALL, END, OTHER, BY_TABLE]), None);
        // Before it is written, the code may go on by a table.
        assert!(is_there(&[PUSHES, ROOM, KEEP, CALL, BY_TABLE, END]).is_some());
        const INTO: &[u8] = &[0xeb, 0xed]; // jmp into the middle of an instruction
        assert_eq!(is_there(&[PUSHES, ROOM, KEEP, CALL, END, OTHER, INTO]), None);
    }

    #[test]
    fn panics_are_followed_and_calls_before_landing_pads_do_not_return() {
        // A panic in the call leads behind the end, where the register is written.
        let code = [PUSHES, ROOM, KEEP, CALL, END, OTHER, CALL, CALL, END].concat();
        let site = |calls: Range<u64>, pad: u64| CallSite {
            calls: 0x1000 + calls.start..0x1000 + calls.end,
            landing_pad: 0x1000 + pad,
        };
        let there = |panics: &[CallSite]| {
            let ranges = first_argument(&code, 0x1000, panics).unwrap().is_there;
            let ranges = ranges.iter().map(|range| (range.start - 0x1000, range.end - 0x1000));
            ranges.collect::<Vec<_>>()
        };
        assert_eq!(there(&[site(12..17, 27)]), [(12, 30)]);
        // The call after it has a landing pad behind it, so it does not return.
        assert_eq!(there(&[site(12..17, 27), site(0..1, 35)]), [(12, 30), (35, 50)]);
        // But a panic in it leads there.
        assert_eq!(there(&[site(12..17, 27), site(30..35, 35)]), [(12, 30)]);
        assert_eq!(first_argument(&code, 0x1000, &[site(30..35, 36)]), None, "no instruction");
    }

    #[test]
    fn a_slot_keeps_it_too() {
        assert_eq!(place(&[ROOM, STORE, CALL, END]), Some(Place::Stack(8)));
        assert_eq!(is_there(&[ROOM, STORE, CALL, CLOBBER, CALL, END]), Some(vec![(9, 19)]));
        assert_eq!(place(&[ROOM, STORE, CALL, ROOM, CALL, END]), None, "the stack pointer moves");
        assert_eq!(place(&[STORE, ROOM, CALL, END]), None, "it is below the stack pointer");
        assert_eq!(place(&[&[0x06], ROOM, STORE, CALL, END]), None, "no instruction");
    }
}
