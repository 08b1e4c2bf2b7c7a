//! Unwinding the calling thread's own stack, from registers to the root: in a signal handler, from the code that the signal has
//! interrupted; or outside of one, from a function that records its own stack. It reads only copies of the modules' sections and
//! that stack.

use super::ground::Ground;
use super::walker::Walker;
use framehop::{FrameAddress, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder as _};

/// The unwinder's cache of addresses, for one thread. It is large, so it is made before the thread's first walk.
pub(super) type Cache = framehop::CacheNative<MustNotAllocateDuringUnwind>;

/// The registers from which a walk begins: those of interrupted code, or of a function that records its own stack.
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
    /// At the root of a fiber, from where the tables do not lead on to the thread's stack.
    FiberRoot,
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
        let registers =
            UnwindRegsNative::new_with_ptr_auth_mask(address_bits(), link, machine.sp, frame);
        Self { instruction: machine.pc, stack: machine.sp, registers }
    }
}

impl Interrupted {
    /// The registers of the function that calls this. Its frame is there until it returns.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn here() -> Self {
        let (instruction, stack, frame): (u64, u64, u64);
        // SAFETY: this reads registers.
        unsafe {
            std::arch::asm!(
                "lea {}, [rip]",
                "mov {}, rsp",
                "mov {}, rbp",
                out(reg) instruction,
                out(reg) stack,
                out(reg) frame,
                options(nomem, nostack, preserves_flags)
            );
        }
        let registers = UnwindRegsNative::new(instruction, stack, frame);
        Self { instruction, stack, registers }
    }

    /// The registers of the function that calls this. Its frame is there until it returns.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub(super) fn here() -> Self {
        let (instruction, stack, frame, link): (u64, u64, u64, u64);
        // SAFETY: this reads registers.
        unsafe {
            std::arch::asm!(
                "adr {}, .",
                "mov {}, sp",
                "mov {}, x29",
                "mov {}, x30",
                out(reg) instruction,
                out(reg) stack,
                out(reg) frame,
                out(reg) link,
                options(nomem, nostack, preserves_flags)
            );
        }
        let registers =
            UnwindRegsNative::new_with_ptr_auth_mask(address_bits(), link, stack, frame);
        Self { instruction, stack, registers }
    }
}

/// The bits of a return address that are the address. It may be signed, in the bits that user-space addresses do not use.
#[cfg(target_arch = "aarch64")]
pub(super) fn address_bits() -> framehop::aarch64::PtrAuthMask {
    framehop::aarch64::PtrAuthMask((1 << 48) - 1)
}

/// Walks the stack up to the root, and calls `found` with each address: first that of `from`, then where each caller continues.
/// Returns how the walk ended, and how many of the addresses are good.
///
/// # Safety
/// `from` must be the registers of a frame of the calling thread that does not end before the walk does: of the code that the
/// calling signal handler has interrupted, or of a function that has called this, directly or not, and has not returned. `ground`
/// must be the stack on which that frame is.
pub(super) unsafe fn walk(
    walker: &Walker,
    cache: &mut Cache,
    from: Interrupted,
    ground: &mut Ground,
    most: usize,
    mut found: impl FnMut(u64),
) -> (End, usize) {
    let mut registers = from.registers;
    let mut frame = FrameAddress::from_instruction_pointer(from.instruction);
    // The last frame on a fiber's stack, by its number and its stack pointer.
    let mut on_fiber = None;
    for depth in 1..=most {
        found(frame.address());
        let stack = registers.sp();
        if ground.is_fiber(stack) {
            on_fiber = Some((depth, stack));
        }
        let mut read = |at: u64| {
            // SAFETY: by the caller's contract, it is a stack of the calling thread, and the frame from which it begins does not end
            // before the walk does.
            unsafe { ground.read(at) }
        };
        let next = walker.unwinder.unwind_frame(frame, &mut registers, cache, &mut read);
        let next = next.map(|next| next.and_then(FrameAddress::from_return_address));
        frame = match (next, on_fiber) {
            (Ok(Some(caller)), None) => caller,
            (Ok(Some(caller)), Some(_)) if walker.is_code(caller.address()) => caller,
            // A fiber's first frame has no caller, and there may be anything where others have theirs. If the walk has come from
            // that frame to the thread's stack, it has taken something else for the frame of the fiber's resumer.
            (Ok(Some(_)), Some((last, _))) => return (End::FiberRoot, last),
            (Ok(None), Some((last, _))) if last == depth => return (End::FiberRoot, depth),
            (Ok(None), _) => return (End::Root, depth),
            (Err(_), Some((last, stack))) if ground.is_root(stack) => {
                return (End::FiberRoot, last);
            }
            (Err(_), _) => return (End::Lost, depth),
        };
    }
    (End::Full, most)
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
