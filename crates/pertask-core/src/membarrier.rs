//! An asymmetric memory barrier: nearly free for the frequent side, a system call for the rare one.
//!
//! [`light`] and [`heavy`] order the two sides of a store-then-load race as two sequentially consistent fences
//! would: if one side stores X, passes its barrier and loads Y, and the other stores Y, passes its barrier and
//! loads X, then at least one of them sees the other's store. Light against light gives nothing.
//!
//! On Linux, `heavy` is `membarrier(2)` with `PRIVATE_EXPEDITED`: the kernel makes every running thread of the
//! process pass a full barrier, so `light` need only hold the compiler back. Where the kernel refuses it, and in
//! the models, both are plain fences. (Under shuttle, where all is sequentially consistent, those do nothing.)

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

/// loom lets no other thread run between a step and the fence that follows it, and does not try two fences in both orders.
/// It does both for a word that all pass before their fence. A model passes it before it starts threads, so that none
/// is ordered behind the one that makes it.
#[cfg(pertask_loom)]
pub(crate) fn pass_the_door() {
    // Relaxed: orders nothing that the barriers should order.
    DOOR.fetch_add(0, crate::primitive::Ordering::Relaxed);
}

#[cfg(not(any(pertask_loom, pertask_shuttle)))]
mod real {
    use super::Refused;
    use std::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};

    /// Not asked yet: `light` is a full fence, which is right beside either kind of `heavy`.
    const UNKNOWN: u8 = 0;
    /// The kernel does the work.
    const ASYMMETRIC: u8 = 1;
    /// Both sides are full fences.
    const FENCES: u8 = 2;

    // INVARIANT: changes once, from UNKNOWN to one of the others, and to ASYMMETRIC only after the kernel has
    // registered this process.
    static MODE: AtomicU8 = AtomicU8::new(UNKNOWN);

    /// The frequent side.
    #[inline(always)]
    pub(crate) fn light() {
        // Relaxed: a thread that reads an old UNKNOWN takes the stronger way.
        if MODE.load(Ordering::Relaxed) == ASYMMETRIC {
            compiler_fence(Ordering::SeqCst);
        } else {
            // SeqCst: pairs with the fence or the membarrier in `heavy`.
            fence(Ordering::SeqCst);
        }
    }

    /// The rare side.
    pub(crate) fn heavy() -> Result<(), Refused> {
        // SeqCst: pairs with `light`; it also covers the caller's own accesses, which membarrier may skip when the
        // process has one thread.
        fence(Ordering::SeqCst);
        if init() == ASYMMETRIC && !command(MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            return Err(Refused);
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Whether the kernel does the work.
    pub(crate) fn is_asymmetric() -> bool {
        init() == ASYMMETRIC
    }

    /// Registers the child of a `fork(2)`, should the kernel not have passed its parent's registration on.
    pub(crate) fn again_in_child() {
        if MODE.load(Ordering::Relaxed) == ASYMMETRIC {
            // Where it is refused, `heavy` says so.
            let _ = command(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        }
    }

    /// Asks the kernel once. Returns the mode, which never changes afterwards.
    #[cold]
    pub(crate) fn init() -> u8 {
        let mode = MODE.load(Ordering::Relaxed);
        if mode != UNKNOWN {
            return mode;
        }
        let granted = command(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
            && command(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        let mode = if granted { ASYMMETRIC } else { FENCES };
        // Relaxed: the value carries no other data. The first of two racing threads decides for both.
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
        // SAFETY: membarrier takes three integers, touches no memory of ours and changes no errno we rely on.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// Miri knows no membarrier: there, too, both sides are fences.
    #[cfg(any(not(target_os = "linux"), miri))]
    fn command(_command: libc::c_int) -> bool {
        false
    }
}
