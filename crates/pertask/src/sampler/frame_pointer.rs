//! A function's frame pointer, found without the register.
//!
//! The kernel tells the stack pointer of a thread that is blocked in it, and no other register. Where the unwind tables want a
//! function's frame pointer, it follows from the function's own code: the frame pointer is as far above the stack pointer as the
//! first instructions have put it. Where those are of another kind, the frame is looked for on the stack. In both cases the return
//! address beside it must follow a call that leads to this function, or nothing is found.

use super::functions::Functions;
use std::ops::Range;

/// What is read to find a frame pointer.
pub(super) trait Sight {
    /// A word of the stack above the stack pointer.
    fn word(&mut self, at: u64) -> Option<u64>;
    /// Bytes of code, or of the tables beside it.
    fn bytes(&self, range: Range<u64>) -> Option<Vec<u8>>;
    fn function(&self, address: u64) -> Option<Range<u64>>;
}

/// The function of an address in one of these modules.
pub(super) fn function_in(modules: &[Functions], address: u64) -> Option<Range<u64>> {
    modules.iter().find_map(|module| module.at(address))
}

/// The frame pointer of the function at an address, with this stack pointer at its call.
#[cfg(target_arch = "x86_64")]
pub(super) fn find(sight: &mut impl Sight, address: u64, stack: u64) -> Option<u64> {
    x86_64::find(sight, address, stack)
}

/// On this processor there is no way: where a frame is says nothing of where the frame pointer points.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn find(_: &mut impl Sight, _: u64, _: u64) -> Option<u64> {
    None
}

#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "it reads this processor's code")
)]
mod x86_64 {
    use super::{Range, Sight};

    const WORD: u64 = 8;
    /// How much of a function is read, for its first instructions.
    const PROLOGUE: u64 = 64;
    /// How far up the stack a frame is looked for.
    const REACH: u64 = 16 << 10;
    /// The largest function in which a jump to another one is looked for.
    const MOST_CODE: u64 = 4 << 10;
    /// The longest call instruction.
    const CALL: u64 = 7;

    /// How a return address's call says where it leads.
    enum Call {
        To(u64),
        /// By a register or an object's table: it may lead anywhere.
        Anywhere,
    }

    pub(super) fn find(sight: &mut impl Sight, address: u64, stack: u64) -> Option<u64> {
        let function = sight.function(address)?;
        let end = function.end.min(function.start.saturating_add(PROLOGUE));
        let code = sight.bytes(function.start..end)?;
        if let Some(size) = frame_size(&code)
            && let Some(frame) = stack.checked_add(size)
            && is_frame(sight, frame, &function, true)
        {
            return Some(frame);
        }
        let mut places = (0..REACH / WORD).map_while(|word| stack.checked_add(word * WORD));
        places.find(|frame| is_frame(sight, *frame, &function, false))
    }

    /// Whether the words here are a frame of the function: above its caller's frame pointer is the address behind a call that leads
    /// to it. `or_anywhere`: the call need not say where it leads.
    fn is_frame(
        sight: &mut impl Sight,
        frame: u64,
        function: &Range<u64>,
        or_anywhere: bool,
    ) -> bool {
        let back = frame.checked_add(WORD).and_then(|at| sight.word(at));
        // Most words of a stack are no addresses of code.
        let Some(back) = back.filter(|back| sight.function(back.wrapping_sub(1)).is_some()) else {
            return false;
        };
        match call_before(sight, back) {
            Some(Call::To(target)) => leads_to(sight, target, function),
            Some(Call::Anywhere) => or_anywhere,
            None => false,
        }
    }

    /// The call whose return address this is.
    fn call_before(sight: &impl Sight, back: u64) -> Option<Call> {
        let bytes = sight.bytes(back.checked_sub(CALL)?..back)?;
        match bytes[..] {
            [.., 0xe8, _, _, _, _] => Some(Call::To(relative(&bytes, back)?)),
            [_, 0xff, 0x15, _, _, _, _] => Some(Call::To(word_at(sight, relative(&bytes, back)?)?)),
            // With a register, alone or in an address, with an offset of one byte or four.
            [.., 0xff, 0xd0..=0xd7 | 0x10..=0x13 | 0x16..=0x17]
            | [.., 0xff, 0x50..=0x53 | 0x55..=0x57 | 0x14, _]
            | [.., 0xff, 0x54, _, _]
            | [_, 0xff, 0x90..=0x93 | 0x95..=0x97, _, _, _, _]
            | [0xff, 0x94, _, _, _, _, _] => Some(Call::Anywhere),
            _ => None,
        }
    }

    /// Whether a call of an address comes to the function: at once, by a table of the linker's, or by a function that ends with a
    /// jump to it.
    fn leads_to(sight: &impl Sight, target: u64, function: &Range<u64>) -> bool {
        target == function.start
            || by_table(sight, target) == Some(function.start)
            || sight.function(target).is_some_and(|other| jumps_to(sight, &other, function.start))
    }

    /// The address in the linker's table by which the code here jumps: `jmp [rip + …]`, perhaps after `endbr64`. What is read as a call
    /// may be none, and then lead anywhere, also to the last address that there is.
    fn by_table(sight: &impl Sight, stub: u64) -> Option<u64> {
        let bytes = sight.bytes(stub..stub.checked_add(16)?)?;
        let skipped = if bytes.starts_with(&ENDBR64) { ENDBR64.len() } else { 0 };
        let rest = &bytes[skipped..];
        // A prefix may come before it.
        let skipped = skipped + usize::from(rest.first() == Some(&0xf2));
        let jump = bytes[skipped..].get(..6).filter(|jump| jump.starts_with(&[0xff, 0x25]))?;
        word_at(sight, relative(jump, stub.checked_add(skipped as u64 + 6)?)?)
    }

    /// Whether a function has a jump to this address.
    fn jumps_to(sight: &impl Sight, function: &Range<u64>, target: u64) -> bool {
        let end = function.end.min(function.start.saturating_add(MOST_CODE));
        let Some(code) = sight.bytes(function.start..end) else { return false };
        let leads = |(at, jump): (usize, &[u8])| {
            let behind = function.start.checked_add(at as u64 + 5);
            jump[0] == 0xe9 && behind.and_then(|behind| relative(jump, behind)) == Some(target)
        };
        code.windows(5).enumerate().any(leads)
    }

    /// What the last four bytes of an instruction lead to, which ends at this address.
    fn relative(instruction: &[u8], end: u64) -> Option<u64> {
        let offset = i32::from_le_bytes(*instruction.last_chunk()?);
        Some(end.wrapping_add_signed(offset.into()))
    }

    fn word_at(sight: &impl Sight, at: u64) -> Option<u64> {
        let bytes = sight.bytes(at..at.checked_add(WORD)?)?;
        Some(u64::from_le_bytes(*bytes.first_chunk()?))
    }

    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

    /// How far the frame pointer is above the stack pointer when a function's first instructions are over. `None` if they are not
    /// of the usual kind: `push rbp`, `mov rbp, rsp`, pushes, and room for the rest of the frame.
    pub(super) fn frame_size(code: &[u8]) -> Option<u64> {
        let code = code.strip_prefix(&ENDBR64).unwrap_or(code);
        let mut code = code
            .strip_prefix(&[0x55, 0x48, 0x89, 0xe5])
            .or_else(|| code.strip_prefix(&[0x55, 0x48, 0x8b, 0xec]))?;
        let mut size = 0;
        loop {
            code = match code {
                [0x50..=0x57, rest @ ..] | [0x41, 0x50..=0x57, rest @ ..] => rest,
                _ => break,
            };
            size += WORD;
        }
        match code {
            // `sub rsp, …`, of one byte or four.
            [0x48, 0x83, 0xec, room, ..] => Some(size + u64::from(*room)),
            [0x48, 0x81, 0xec, room @ ..] => {
                let room = u64::from(u32::from_le_bytes(*room.first_chunk()?));
                Some(size + room)
            }
            // `and rsp, …` moves the stack pointer by nobody knows how much.
            [0x48, 0x83, 0xe4, ..] | [0x48, 0x81, 0xe4, ..] => None,
            _ => Some(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::x86_64::{find, frame_size};
    use super::{Range, Sight};

    /// A function, its code, and a stack of one word.
    struct Edge {
        code: Vec<u8>,
        function: Range<u64>,
        /// A word of the stack, with its address.
        word: (u64, u64),
    }

    impl Edge {
        /// The address of the code.
        const CODE: u64 = 0x1000;
    }

    impl Sight for Edge {
        fn word(&mut self, at: u64) -> Option<u64> {
            (at == self.word.0).then_some(self.word.1)
        }

        fn bytes(&self, range: Range<u64>) -> Option<Vec<u8>> {
            let at = |address: u64| usize::try_from(address.checked_sub(Self::CODE)?).ok();
            Some(self.code.get(at(range.start)?..at(range.end)?)?.to_vec())
        }

        fn function(&self, address: u64) -> Option<Range<u64>> {
            self.function.contains(&address).then(|| self.function.clone())
        }
    }

    #[test]
    fn addresses_at_the_very_end_are_no_frames_and_no_functions() {
        let function = Edge::CODE..Edge::CODE + 0x40;
        let mut sight = Edge { code: vec![0x90; 0x40], function, word: (0, 0) };
        // A stack on which there is no room for one more word.
        for stack in [u64::MAX, u64::MAX - 7, u64::MAX - 0x100] {
            assert_eq!(find(&mut sight, Edge::CODE, stack), None, "{stack:#x}");
        }
        // A call of the last address: it leads to no function and to no table.
        let (stack, back) = (0x7000_u64, Edge::CODE + 0x20);
        let distance = (u64::MAX.wrapping_sub(back) as i64) as i32;
        sight.code[0x1b] = 0xe8;
        sight.code[0x1c..0x20].copy_from_slice(&distance.to_le_bytes());
        sight.word = (stack + 8, back);
        assert_eq!(find(&mut sight, Edge::CODE, stack), None);
        // A call of the function, from the same place: this is a frame.
        let distance = -0x20_i32;
        sight.code[0x1c..0x20].copy_from_slice(&distance.to_le_bytes());
        assert_eq!(find(&mut sight, Edge::CODE, stack), Some(stack));
        // A function that ends with all addresses.
        let function = u64::MAX - 0x10..u64::MAX;
        let mut sight = Edge { code: Vec::new(), function, word: (0, 0) };
        assert_eq!(find(&mut sight, u64::MAX - 0x10, stack), None);
    }

    #[test]
    fn a_frame_is_as_large_as_the_first_instructions_say() {
        let begin = [0x55, 0x48, 0x89, 0xe5];
        let with = |rest: &[u8]| frame_size(&[&begin, rest].concat());
        assert_eq!(with(&[0xe8, 1, 2, 3, 4]), Some(0));
        assert_eq!(with(&[0x41, 0x57, 0x41, 0x56, 0x53, 0x50, 0xe8]), Some(32));
        assert_eq!(with(&[0x53, 0x48, 0x83, 0xec, 0x18, 0xe8]), Some(0x20));
        assert_eq!(with(&[0x48, 0x81, 0xec, 0, 2, 0, 0, 0x31]), Some(0x200));
        assert_eq!(with(&[0x48, 0x83, 0xe4, 0xe0, 0x48]), None, "aligned");
        assert_eq!(frame_size(&[0x41, 0x57, 0x53]), None, "no frame pointer");
        assert_eq!(frame_size(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x90]), Some(0));
    }
}
