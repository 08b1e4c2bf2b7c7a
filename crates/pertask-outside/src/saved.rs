//! Where functions have put the registers that they keep for their callers, by the unwind tables.
//!
//! A function that wants to use such a register puts its caller's value into its own frame first. So the value that a register had in some function
//! of a stack is in the frame of the first function called from there that uses the register, or still in the register.

use crate::registers::{KEPT, Registers};
use gimli::{
    BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Register, RegisterRule,
    UnwindContext, UnwindSection as _,
};
use pertask_symbols::UnwindSections;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// How many registers there are: those of [`Registers::kept`], and the frame pointer.
const COUNT: usize = KEPT + 1;

/// Their numbers in DWARF.
#[cfg(target_arch = "x86_64")]
const NUMBERS: [u16; COUNT] = [3, 12, 13, 14, 15, 6];
#[cfg(target_arch = "aarch64")]
const NUMBERS: [u16; COUNT] = [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29];

/// The same registers, for whoever reads code.
#[cfg(target_arch = "x86_64")]
pub(crate) const KEPT_REGISTERS: [iced_x86::Register; COUNT] = {
    use iced_x86::Register::{R12, R13, R14, R15, RBP, RBX};
    [RBX, R12, R13, R14, R15, RBP]
};

/// The most places in the code that are remembered.
const MOST_PLACES: usize = 1 << 16;

/// Where a function has put each register, counted from the end of its frame, or `None` if it does not use it.
pub(crate) type Slots = [Option<i64>; COUNT];

/// The values of the registers in some function of a stack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Values(pub(crate) [u64; COUNT]);

impl Values {
    /// What the registers were where the thread was.
    pub(crate) fn of(registers: &Registers) -> Self {
        let mut values = [0; COUNT];
        values[..KEPT].copy_from_slice(&registers.kept);
        values[KEPT] = registers.frame();
        Self(values)
    }

    /// Goes from a function to its caller. `word` returns what is in the stack, counted from the end of the function's frame.
    pub(crate) fn enter_caller(
        &mut self,
        slots: &Slots,
        word: impl Fn(i64) -> Option<u64>,
    ) -> Option<()> {
        for (value, slot) in self.0.iter_mut().zip(slots) {
            if let Some(slot) = slot {
                *value = word(*slot)?;
            }
        }
        Some(())
    }
}

/// The unwind tables of all modules.
#[derive(Default)]
pub(crate) struct Saved {
    modules: Vec<Tables>,
    context: UnwindContext<usize>,
    known: HashMap<u64, Option<Slots>>,
}

/// The unwind tables of a module, which the unwinder shares.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) code: Range<u64>,
    pub(crate) bias: u64,
    pub(crate) frames: Range<u64>,
    pub(crate) frames_bytes: Arc<[u8]>,
    pub(crate) index: Range<u64>,
    pub(crate) index_bytes: Arc<[u8]>,
}

impl Saved {
    pub(crate) fn add(&mut self, tables: Tables) {
        self.modules.push(tables);
        self.known.clear();
    }

    /// Removes the module whose code begins there.
    pub(crate) fn remove(&mut self, start: u64) {
        self.modules.retain(|module| module.code.start != start);
        self.known.clear();
    }

    /// Returns where the function has put the registers when it is at this place, or `None` if no table says.
    pub(crate) fn at(&mut self, place: u64) -> Option<Slots> {
        if let Some(known) = self.known.get(&place) {
            return *known;
        }
        let Self { modules, context, known } = self;
        let module = modules.iter().find(|module| module.code.contains(&place));
        let slots = module.and_then(|module| module.slots(place, context).ok());
        if known.len() < MOST_PLACES {
            known.insert(place, slots);
        }
        slots
    }
}

impl Tables {
    pub(crate) fn of(sections: UnwindSections) -> Self {
        let UnwindSections { code, bias, frames, frames_bytes, index, index_bytes, .. } = sections;
        let (frames_bytes, index_bytes) = (frames_bytes.into(), index_bytes.into());
        Self { code, bias, frames, frames_bytes, index, index_bytes }
    }

    fn slots(&self, place: u64, context: &mut UnwindContext<usize>) -> Result<Slots, gimli::Error> {
        let bases = BaseAddresses::default()
            .set_eh_frame(self.frames.start)
            .set_eh_frame_hdr(self.index.start);
        let frames = EhFrame::new(&self.frames_bytes, LittleEndian);
        let index = EhFrameHdr::new(&self.index_bytes, LittleEndian).parse(&bases, 8)?;
        let index = index.table().ok_or(gimli::Error::NoUnwindInfoForAddress)?;
        let address = place.wrapping_sub(self.bias);
        let row = index.unwind_info_for_address(
            &frames,
            &bases,
            context,
            address,
            EhFrame::<EndianSlice<'_, LittleEndian>>::cie_from_offset,
        )?;
        let mut slots = [None; COUNT];
        for (slot, number) in slots.iter_mut().zip(NUMBERS) {
            *slot = match row.register(Register(number)) {
                Some(RegisterRule::Offset(slot)) => Some(slot),
                None | Some(RegisterRule::SameValue) => None,
                // It is somewhere else, where nobody looks.
                Some(_) => return Err(gimli::Error::UnsupportedOffset),
            };
        }
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_in_the_first_frame_that_has_it() {
        let mut values = Values([7; COUNT]);
        let mut slots = [None; COUNT];
        slots[1] = Some(-16);
        // The stack has at each place the place itself.
        values.enter_caller(&slots, |slot| Some(slot.unsigned_abs())).unwrap();
        assert_eq!(values.0[..3], [7, 16, 7]);
        assert!(values.enter_caller(&slots, |_| None).is_none());
    }
}
