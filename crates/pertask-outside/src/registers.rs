//! The registers that a sample has: those from which a stack can be unwound, and those that a function keeps for its caller.

use framehop::UnwindRegsNative;

/// The registers in the order in which the kernel writes them, as bits of `sample_regs_user`.
#[cfg(target_arch = "x86_64")]
pub(crate) const WANTED: [u32; 8] = [1, 6, 7, 8, 20, 21, 22, 23];
#[cfg(target_arch = "aarch64")]
pub(crate) const WANTED: [u32; 14] = [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32];

/// Those of them from which a stack can be unwound.
#[cfg(target_arch = "x86_64")]
pub(crate) const UNWIND: [u32; 3] = [6, 7, 8];
#[cfg(target_arch = "aarch64")]
pub(crate) const UNWIND: [u32; 4] = [29, 30, 31, 32];

/// How many registers a sample has.
pub(crate) const COUNT: usize = WANTED.len();

/// How many of them are kept for the caller, besides the frame pointer.
pub(crate) const KEPT: usize = COUNT - UNWIND.len();

/// The registers as the kernel wants to be asked for them.
pub(crate) fn mask() -> u64 {
    WANTED.iter().fold(0, |mask, register| mask | 1 << register)
}

/// Where a thread was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    pub(crate) instruction: u64,
    pub(crate) stack: u64,
    pub(crate) unwind: UnwindRegsNative,
    /// What functions keep for their callers. A caller's value is here, or in the stack, where the function that uses the register has
    /// put it.
    pub(crate) kept: [u64; KEPT],
}

impl Registers {
    /// The frame pointer, which functions keep for their callers, too.
    pub(crate) fn frame(&self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        return self.unwind.bp();
        #[cfg(target_arch = "aarch64")]
        self.unwind.fp()
    }

    /// Takes all that are [`WANTED`].
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of(values: [u64; COUNT]) -> Self {
        let [rbx, frame, stack, instruction, r12, r13, r14, r15] = values;
        let kept = [rbx, r12, r13, r14, r15];
        Self { kept, ..Self::to_unwind([frame, stack, instruction]) }
    }

    /// Takes those to [`UNWIND`] from.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn to_unwind([frame, stack, instruction]: [u64; UNWIND.len()]) -> Self {
        let unwind = UnwindRegsNative::new(instruction, stack, frame);
        Self { instruction, stack, unwind, kept: [0; KEPT] }
    }

    /// Takes all that are [`WANTED`].
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn of(values: [u64; COUNT]) -> Self {
        let [kept @ .., frame, link, stack, instruction] = values;
        Self { kept, ..Self::to_unwind([frame, link, stack, instruction]) }
    }

    /// Takes those to [`UNWIND`] from.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn to_unwind([frame, link, stack, instruction]: [u64; UNWIND.len()]) -> Self {
        // Return addresses may be signed, in the bits that user-space addresses do not use.
        const ADDRESS_BITS: u64 = (1 << 48) - 1;
        let mask = framehop::aarch64::PtrAuthMask(ADDRESS_BITS);
        let unwind = UnwindRegsNative::new_with_ptr_auth_mask(mask, link, stack, frame);
        Self { instruction, stack, unwind, kept: [0; KEPT] }
    }
}
