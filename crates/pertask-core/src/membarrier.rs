//! An asymmetric memory barrier: nearly free for the frequent side, a system call for the rare one.
//!
//! [`light`] and [`heavy`] order the two sides of a store-then-load race as two sequentially consistent fences would: if one
//! side stores X, passes its barrier and loads Y, and the other side stores Y, passes its barrier and loads X, then at least
//! one of them sees the other's store. Two `light` barriers order nothing between them.
//!
//! On Linux, `heavy` is `membarrier(2)` with `PRIVATE_EXPEDITED`: the kernel makes every running thread of the process pass a
//! full barrier, so `light` need only restrain the compiler. Where the kernel refuses `membarrier`, and in models, both are
//! plain fences. (Under shuttle everything is sequentially consistent, so the fences do nothing.)

#[cfg(not(any(pertask_loom, pertask_shuttle)))]
pub(crate) use real::{again_in_child, heavy, init, is_asymmetric, light};

/// The kernel refused a barrier that it had granted at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

#[cfg(any(pertask_loom, pertask_shuttle))]
pub(crate) fn light() {
    #[cfg(pertask_loom)]
    pass_the_door();
    crate::primitive::fence(crate::primitive::Ordering::SeqCst);
}

#[cfg(any(pertask_loom, pertask_shuttle))]
pub(crate) fn heavy() -> Result<(), Refused> {
    #[cfg(pertask_loom)]
    pass_the_door();
    crate::primitive::fence(crate::primitive::Ordering::SeqCst);
    Ok(())
}

#[cfg(pertask_shuttle)]
pub(crate) fn is_asymmetric() -> bool {
    false
}

#[cfg(pertask_loom)]
loom::lazy_static! {
    static ref DOOR: crate::primitive::AtomicU32 = crate::primitive::AtomicU32::new(0);
}

/// Makes loom explore both orders of two barriers.
///
/// loom never runs another thread between a step and the fence that follows it, and it does not try two fences in both orders.
/// It does both for a word that every thread accesses before its fence. A model accesses the word once before it starts
/// threads, so that no thread is ordered after the thread that initialises the word.
#[cfg(pertask_loom)]
pub(crate) fn pass_the_door() {
    // Relaxed: this access must not order anything that the barriers are meant to order.
    DOOR.fetch_add(0, crate::primitive::Ordering::Relaxed);
}

#[cfg(not(any(pertask_loom, pertask_shuttle)))]
mod real {
    use super::Refused;
    use std::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};

    /// The kernel has not been asked yet: `light` is a full fence, which is correct beside either kind of `heavy`.
    const UNKNOWN: u8 = 0;
    /// The kernel's barrier does the work, and `light` only restrains the compiler.
    const ASYMMETRIC: u8 = 1;
    /// Both sides are full fences.
    const FENCES: u8 = 2;

    // INVARIANT: `MODE` changes once, from UNKNOWN to one of the other values, and to ASYMMETRIC only after the kernel has
    // registered this process.
    static MODE: AtomicU8 = AtomicU8::new(UNKNOWN);

    /// The barrier of the frequent side.
    #[inline(always)]
    pub(crate) fn light() {
        // Relaxed: a thread that reads a stale UNKNOWN uses the stronger barrier.
        if MODE.load(Ordering::Relaxed) == ASYMMETRIC {
            compiler_fence(Ordering::SeqCst);
        } else {
            // SeqCst: pairs with the fence or the membarrier in `heavy`.
            fence(Ordering::SeqCst);
        }
    }

    /// The barrier of the rare side.
    pub(crate) fn heavy() -> Result<(), Refused> {
        // SeqCst: pairs with the fence in `light`. It also orders the caller's own accesses, because membarrier may do nothing
        // when the process has one thread.
        fence(Ordering::SeqCst);
        if init() == ASYMMETRIC && !command(MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            return Err(Refused);
        }
        // SeqCst: pairs with the fence in `light`, for what the caller does from here on.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Whether the kernel's barrier does the work, so that `light` is nearly free.
    pub(crate) fn is_asymmetric() -> bool {
        init() == ASYMMETRIC
    }

    /// Registers the child of a `fork(2)` again, in case the kernel did not pass the parent's registration on.
    pub(crate) fn again_in_child() {
        // Relaxed: the child has no other thread.
        if MODE.load(Ordering::Relaxed) == ASYMMETRIC {
            // If the kernel refuses, `heavy` reports it.
            let _ = command(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        }
    }

    /// Asks the kernel once and returns the mode, which never changes afterwards.
    #[cold]
    pub(crate) fn init() -> u8 {
        // Relaxed: a stale UNKNOWN asks the kernel once more.
        let mode = MODE.load(Ordering::Relaxed);
        if mode != UNKNOWN {
            return mode;
        }
        let granted = command(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
            && command(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        let mode = if granted { ASYMMETRIC } else { FENCES };
        // Relaxed: the value publishes no other data. If two threads race, the first one decides for both.
        match MODE.compare_exchange(UNKNOWN, mode, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => mode,
            Err(earlier) => earlier,
        }
    }

    const MEMBARRIER_CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    #[cfg(all(target_os = "linux", not(miri)))]
    #[allow(unsafe_code)]
    fn command(command: libc::c_int) -> bool {
        // SAFETY: membarrier takes three integers, touches no memory of ours and changes no errno that we rely on.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// Miri does not support membarrier, so both sides are fences there too.
    #[cfg(any(not(target_os = "linux"), miri))]
    fn command(_command: libc::c_int) -> bool {
        false
    }
}
