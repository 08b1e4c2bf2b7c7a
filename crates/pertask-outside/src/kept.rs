//! Where a function keeps its first argument while it calls others, and its value in a stack.
//!
//! A function that needs its argument after it has called others keeps it in a register that those give back, or in its frame. Its
//! [code](crate::code) shows where, and at which of its places the argument is there.

use crate::saved::{Slots, Values};
use std::ops::Range;

/// The place of a function's first argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) place: Place,
    /// The addresses at which it is there, in order.
    pub(crate) is_there: Vec<Range<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no code of others is read"))]
pub(crate) enum Place {
    /// A register, by its number among those of [`Values`].
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
    /// Returns the argument of a function in a stack, or `None` if the function has not put it there yet, or may no longer have it.
    pub(crate) fn value(&self, of: &Frame<'_>) -> Option<u64> {
        if !self.is_there.iter().any(|range| range.contains(&of.place)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn value(
        kept: &Kept,
        place: u64,
        is_innermost: bool,
        word: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        let (mut values, mut slots) = (Values::default(), Slots::default());
        (values.0[0], values.0[1]) = (7, 8);
        slots[0] = Some(-24);
        kept.value(&Frame { place, is_innermost, values, slots, start: 64, end: 128, word })
    }

    #[test]
    fn a_register_has_it_until_it_is_given_back() {
        let kept =
            Kept { place: Place::Register(0), is_there: vec![0x100c..0x1011, 0x1020..0x1021] };
        let all = |_: u64| Some(1);
        assert_eq!(value(&kept, 0x100b, true, &all), None, "not yet");
        assert_eq!(value(&kept, 0x100c, true, &all), Some(7));
        assert_eq!(value(&kept, 0x100c, true, &|_| None), None, "given back");
        assert_eq!(value(&kept, 0x1010, false, &|_| None), Some(7));
        assert_eq!(value(&kept, 0x1011, false, &all), None, "no longer");
        assert_eq!(value(&kept, 0x1020, false, &all), Some(7));
        let unused = Kept { place: Place::Register(1), ..kept };
        assert_eq!(value(&unused, 0x100c, false, &all), None, "the function does not use it");
    }

    #[test]
    fn a_slot_has_it_while_another_function_is_called() {
        let kept = Kept { place: Place::Stack(8), is_there: vec![0x100c..0x1011, 0x1020..0x1021] };
        assert_eq!(value(&kept, 0x100c, false, &|at| Some(at + 1)), Some(64 + 8 + 1));
        assert_eq!(value(&kept, 0x100c, true, &|at| Some(at + 1)), None);
    }
}
