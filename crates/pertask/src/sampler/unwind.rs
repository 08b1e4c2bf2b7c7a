//! Unwinding in a signal handler, from the interrupted registers to the thread's root. It reads only copies of the modules'
//! sections and the thread's own stack.

use super::modules::Unwinder;
use framehop::{FrameAddress, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder as _};
use std::ops::Range;

/// The unwinder's cache of addresses, for one thread. It is large, so it is made before the handler needs it.
pub(super) type Cache = framehop::CacheNative<MustNotAllocateDuringUnwind>;

/// The stack that a handler must have left for unwinding. Measured use: 11 KB in optimised builds, 43 KB in unoptimised ones,
/// and 32 KB in some builds with link-time optimisation.
pub(super) const ROOM: u64 = 128 << 10;

/// The registers of interrupted code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interrupted {
    pub(super) instruction: u64,
    pub(super) stack: u64,
    registers: UnwindRegsNative,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the thread's root.
    Root,
    /// At the most frames that there is room for.
    Full,
    /// Where the unwind tables do not say how to continue.
    Lost,
}

impl Interrupted {
    /// Reads the registers of interrupted code.
    ///
    /// # Safety
    /// `context` must be the context that the kernel has passed to the running signal handler.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn from_context(context: *const libc::c_void) -> Self {
        // SAFETY: by the caller's contract, the kernel has written a `ucontext_t` there.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let register = |number: i32| registers[number as usize].cast_unsigned();
        let (instruction, stack, frame) =
            (register(libc::REG_RIP), register(libc::REG_RSP), register(libc::REG_RBP));
        let registers = UnwindRegsNative::new(instruction, stack, frame);
        Self { instruction, stack, registers }
    }

    /// Reads the registers of interrupted code.
    ///
    /// # Safety
    /// `context` must be the context that the kernel has passed to the running signal handler.
    #[cfg(target_arch = "aarch64")]
    pub(super) unsafe fn from_context(context: *const libc::c_void) -> Self {
        // SAFETY: by the caller's contract, the kernel has written a `ucontext_t` there.
        let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        let (frame, link) = (machine.regs[29], machine.regs[30]);
        // Return addresses may be signed, in the bits that user-space addresses do not use.
        const ADDRESS_BITS: u64 = (1 << 48) - 1;
        let mask = framehop::aarch64::PtrAuthMask(ADDRESS_BITS);
        let registers = UnwindRegsNative::new_with_ptr_auth_mask(mask, link, machine.sp, frame);
        Self { instruction: machine.pc, stack: machine.sp, registers }
    }
}

/// Walks the stack up to the root, and calls `found` with each address: first where the thread was interrupted, then where each
/// caller continues.
///
/// # Safety
/// All of `stack` must be mapped and readable during the call.
#[inline(never)]
pub(super) unsafe fn walk(
    unwinder: &Unwinder,
    cache: &mut Cache,
    from: Interrupted,
    stack: Range<u64>,
    most: usize,
    mut found: impl FnMut(u64),
) -> End {
    const WORD: u64 = size_of::<u64>() as u64;
    // Memory below the interrupted frame belongs to no frame.
    let readable = from.stack.max(stack.start)..stack.end;
    let mut read = |at: u64| {
        let whole = readable.start <= at && at <= readable.end.wrapping_sub(WORD);
        if !whole || readable.end < WORD || !at.is_multiple_of(WORD) {
            return Err(());
        }
        // SAFETY: the word is aligned and within the stack, by the tests above, and the stack is readable, by the caller's
        // contract.
        Ok(unsafe { (at as *const u64).read_volatile() })
    };
    let mut frames = unwinder.iter_frames(from.instruction, from.registers, cache, &mut read);
    for _ in 0..most {
        match frames.next() {
            Ok(Some(FrameAddress::InstructionPointer(at))) => found(at),
            Ok(Some(FrameAddress::ReturnAddress(at))) => found(at.get()),
            Ok(None) => return End::Root,
            Err(_) => return End::Lost,
        }
    }
    match frames.next() {
        Ok(None) => End::Root,
        _ => End::Full,
    }
}

/// The calling thread's pointer to its own control block, which stands at the top of its stack unless the program made the stack.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn thread_pointer() -> u64 {
    let pointer;
    // SAFETY: by the ABI, `fs:0` is the first word of the control block, which is its own address.
    unsafe {
        std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly));
    }
    pointer
}

/// The calling thread's pointer to its own control block, which stands at the top of its stack unless the program made the stack.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) fn thread_pointer() -> u64 {
    let pointer;
    // SAFETY: this reads the register in which the ABI keeps the thread pointer.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}
