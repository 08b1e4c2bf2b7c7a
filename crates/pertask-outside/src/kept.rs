//! Where a function keeps its first argument until it returns, as its code shows.
//!
//! A function that needs its argument after it has called others keeps it in a register that those give back, or in its frame. If the
//! code before the first call or jump puts the argument there, it is there from then on up to the next code that writes there. What
//! comes behind that is not looked at. There are the ways out of a panic.

use crate::saved::{KEPT_REGISTERS, Slots, Values};
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

/// The place of a function's first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    place: Place,
    /// The addresses at which it is there.
    from: u64,
    until: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A register, by its number among [`KEPT_REGISTERS`].
    Register(usize),
    /// So many bytes above the stack pointer that the function has when it calls another one.
    Stack(u64),
}

/// A function in a stack.
pub(crate) struct Frame<'a> {
    /// Where it was.
    pub(crate) place: u64,
    /// Whether the thread was in it, and not in a function that it has called.
    pub(crate) is_innermost: bool,
    /// The values of the registers, and where the function has put its caller's.
    pub(crate) values: Values,
    pub(crate) slots: Slots,
    /// Where the frame begins and ends.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Reads the stack.
    pub(crate) word: &'a dyn Fn(u64) -> Option<u64>,
}

impl Kept {
    /// Looks where the function with this code, which begins at `start`, keeps its first argument.
    pub(crate) fn find(code: &[u8], start: u64) -> Option<Self> {
        let all: Vec<Instruction> =
            Decoder::with_ip(64, code, start, DecoderOptions::NONE).into_iter().collect();
        if all.iter().any(|it| it.code() == Code::INVALID) {
            return None;
        }
        let is_straight = |it: &&Instruction| it.flow_control() == FlowControl::Next;
        let first: Vec<_> = all.iter().take_while(is_straight).collect();
        first.iter().enumerate().find_map(|(at, it)| {
            let place = Place::of_argument(it, &first[..at])?;
            let from = it.next_ip();
            let mut later = all.iter().filter(|it| it.ip() >= from);
            let until = later.find(|it| place.is_written_by(it)).map_or(u64::MAX, |it| it.ip());
            let is_there = !matches!(place, Place::Stack(_)) || has_one_frame(&all);
            is_there.then_some(Self { place, from, until })
        })
    }

    /// Returns the argument of a function in a stack, or `None` if the function has not put it there yet, or no longer has it.
    pub(crate) fn value(&self, of: &Frame<'_>) -> Option<u64> {
        if !(self.from..self.until).contains(&of.place) {
            return None;
        }
        match self.place {
            Place::Register(number) => {
                let slot = of.slots[number]?;
                if of.is_innermost {
                    // Once the function has given the register back, that part of its frame is gone.
                    (of.word)(of.end.checked_add_signed(slot)?)?;
                }
                Some(of.values.0[number])
            }
            // While it calls none, its stack pointer may move.
            Place::Stack(_) if of.is_innermost => None,
            Place::Stack(offset) => (of.word)(of.start.checked_add(offset)?),
        }
    }
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

    fn place(parts: &[&[u8]]) -> Option<Place> {
        Kept::find(&parts.concat(), 0x1000).map(|kept| kept.place)
    }

    /// The first address at which it is no longer there, counted from the beginning.
    fn until(parts: &[&[u8]]) -> Option<u64> {
        let until = Kept::find(&parts.concat(), 0x1000)?.until;
        (until != u64::MAX).then(|| until - 0x1000)
    }

    #[test]
    fn a_register_keeps_the_argument_until_it_is_written() {
        assert_eq!(place(&[PUSHES, ROOM, KEEP, CALL, END]), Some(Place::Register(0)));
        assert_eq!(until(&[PUSHES, ROOM, KEEP, CALL, END]), None);
        assert_eq!(until(&[PUSHES, ROOM, KEEP, CALL, END, OTHER, CALL]), Some(27));
        assert_eq!(place(&[PUSHES, ROOM, LOST, KEEP, CALL, END]), None);
        assert_eq!(place(&[PUSHES, ROOM, CALL, KEEP, CALL, END]), None);
    }

    #[test]
    fn a_slot_keeps_it_too() {
        assert_eq!(place(&[ROOM, STORE, CALL, END]), Some(Place::Stack(8)));
        assert_eq!(until(&[ROOM, STORE, CALL, CLOBBER, CALL, END]), Some(14));
        assert_eq!(place(&[ROOM, STORE, CALL, ROOM, CALL, END]), None, "the stack pointer moves");
        assert_eq!(place(&[STORE, ROOM, CALL, END]), None, "it is below the stack pointer");
        assert_eq!(place(&[&[0x06], ROOM, STORE, CALL, END]), None, "no instruction");
    }

    #[test]
    fn where_the_function_begins_it_is_not_there_yet() {
        let kept = Kept::find(&[PUSHES, ROOM, KEEP, CALL, END].concat(), 0x1000).expect("a place");
        let value = |place, is_innermost, word: &dyn Fn(u64) -> Option<u64>| {
            let mut values = Values::default();
            (values.0[0], values.0[1]) = (7, 8);
            let mut slots = Slots::default();
            slots[0] = Some(-24);
            kept.value(&Frame { place, is_innermost, values, slots, start: 64, end: 128, word })
        };
        let all = |_: u64| Some(1);
        assert_eq!(value(0x1009, true, &all), None);
        assert_eq!(value(0x100c, true, &all), Some(7));
        assert_eq!(value(0x100c, true, &|_| None), None, "given back");
        assert_eq!(value(0x1010, false, &|_| None), Some(7));
    }
}
