//! Unwinding in a signal handler: from the interrupted registers to the thread's root, reading nothing but modules' copied
//! sections and the thread's own stack.

use super::modules::Unwinder;
use framehop::{FrameAddress, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder as _};
use std::ops::Range;

/// What an unwinder remembers of addresses, for one thread. It is large, and made before it is needed.
pub(super) type Cache = framehop::CacheNative<MustNotAllocateDuringUnwind>;

/// Stack that must be left below a handler for unwinding. Measured: 11 KB optimised, 43 KB not, 32 KB in some builds with
/// link-time optimisation.
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
    /// There was no room for more frames.
    Full,
    /// Where nothing said how to go on.
    Lost,
}

impl Interrupted {
    /// # Safety
    /// The context that the kernel has given to a signal handler.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn from_context(context: *const libc::c_void) -> Self {
        // SAFETY: the caller's word.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let register = |number: i32| registers[number as usize].cast_unsigned();
        let (instruction, stack, frame) =
            (register(libc::REG_RIP), register(libc::REG_RSP), register(libc::REG_RBP));
        let registers = UnwindRegsNative::new(instruction, stack, frame);
        Self { instruction, stack, registers }
    }

    /// As above.
    ///
    /// # Safety
    /// As above.
    #[cfg(target_arch = "aarch64")]
    pub(super) unsafe fn from_context(context: *const libc::c_void) -> Self {
        // SAFETY: the caller's word.
        let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        let (frame, link) = (machine.regs[29], machine.regs[30]);
        // Return addresses may be signed, in the bits that addresses of user space do not use.
        const ADDRESS_BITS: u64 = (1 << 48) - 1;
        let mask = framehop::aarch64::PtrAuthMask(ADDRESS_BITS);
        let registers = UnwindRegsNative::new_with_ptr_auth_mask(mask, link, machine.sp, frame);
        Self { instruction: machine.pc, stack: machine.sp, registers }
    }
}

/// Walks up to the root, and calls `found` with each address: first where the thread was interrupted, then where each caller
/// goes on.
///
/// # Safety
/// All of `stack` is mapped and readable for the time of the call.
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
    // What lies below the interrupted frame is nobody's.
    let readable = from.stack.max(stack.start)..stack.end;
    let mut read = |at: u64| {
        let whole = readable.start <= at && at <= readable.end.wrapping_sub(WORD);
        if !whole || readable.end < WORD || !at.is_multiple_of(WORD) {
            return Err(());
        }
        // SAFETY: in the stack, by the test above, and aligned.
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

/// The calling thread's pointer to its own control block, which stands at the top of its stack if it has not made the stack
/// itself.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn thread_pointer() -> u64 {
    let pointer;
    // SAFETY: by the ABI the first word of the control block is its own address.
    unsafe {
        std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly));
    }
    pointer
}

/// As above.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) fn thread_pointer() -> u64 {
    let pointer;
    // SAFETY: reads a register.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}
