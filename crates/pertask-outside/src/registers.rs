//! The registers that a sample has: those from which a stack can be unwound.

use framehop::UnwindRegsNative;

/// The registers in the order in which the kernel writes them, as bits of `sample_regs_user`.
#[cfg(target_arch = "x86_64")]
pub(crate) const WANTED: [u32; 3] = [6, 7, 8];
#[cfg(target_arch = "aarch64")]
pub(crate) const WANTED: [u32; 4] = [29, 30, 31, 32];

/// How many registers a sample has.
pub(crate) const COUNT: usize = WANTED.len();

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
}

impl Registers {
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of([frame, stack, instruction]: [u64; COUNT]) -> Self {
        let unwind = UnwindRegsNative::new(instruction, stack, frame);
        Self { instruction, stack, unwind }
    }

    #[cfg(target_arch = "aarch64")]
    pub(crate) fn of([frame, link, stack, instruction]: [u64; COUNT]) -> Self {
        // Return addresses may be signed, in the bits that user-space addresses do not use.
        const ADDRESS_BITS: u64 = (1 << 48) - 1;
        let mask = framehop::aarch64::PtrAuthMask(ADDRESS_BITS);
        let unwind = UnwindRegsNative::new_with_ptr_auth_mask(mask, link, stack, frame);
        Self { instruction, stack, unwind }
    }
}
