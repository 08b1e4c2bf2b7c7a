//! What the process does with a signal: our handler put before the one that was there, and taken away again when nothing of
//! ours can arrive any more.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// One more than the highest signal.
const SIGNALS: usize = 65;

/// What was there before our handler, by signal.
///
/// INVARIANT: null, or an action that is never freed: a handler may be looking at it.
static EARLIER: [AtomicPtr<libc::sigaction>; SIGNALS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; SIGNALS];

/// A signal handler that wants all there is to know.
pub(super) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Puts `handler` before what is there, unless it is there already.
pub(super) fn install(signal: i32, handler: Handler) -> io::Result<()> {
    let current = action(signal)?;
    if is(&current, handler) {
        return Ok(());
    }
    let mut ours = current;
    ours.sa_sigaction = (handler as *const ()).addr();
    // On the thread's own stack: an alternate one is most often too small to unwind on. But where the earlier handler wants one,
    // it may be that the thread's own is too small for it (Go's are), and ours calls it. What the earlier handler does not want
    // to be interrupted by, ours is not.
    let alternate = if is_on_alternate(&current) { libc::SA_ONSTACK } else { 0 };
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | alternate;
    keep(signal, current);
    // SAFETY: an action of ours, whose handler is good for any moment.
    let refused = unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) } < 0;
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Brings back what was there before `handler`, if `handler` is still there. Nothing of ours may be pending anywhere.
pub(super) fn restore(signal: i32, handler: Handler) {
    let Some(earlier) = earlier(signal) else { return };
    if !action(signal).is_ok_and(|current| is(&current, handler)) {
        // Somebody has come after us, and may call us: so we stay.
        return;
    }
    let mut replaced = MaybeUninit::uninit();
    // SAFETY: an action that the kernel gave us, and a place for the one that it replaces.
    let done = unsafe { libc::sigaction(signal, earlier, replaced.as_mut_ptr()) } == 0;
    // SAFETY: the kernel has filled it in.
    if done && !is(unsafe { replaced.assume_init_ref() }, handler) {
        // SAFETY: as above. Somebody came in between.
        unsafe { libc::sigaction(signal, replaced.as_ptr(), ptr::null_mut()) };
    }
}

/// Whether the signal's handler, ours included, runs on alternate stacks.
pub(super) fn wants_alternate_stack(signal: i32) -> bool {
    action(signal).is_ok_and(|action| is_on_alternate(&action))
}

/// Whether it is our handler that the signal goes to.
pub(super) fn is_ours(signal: i32, handler: Handler) -> bool {
    action(signal).is_ok_and(|action| is(&action, handler))
}

/// Does with a signal that is not ours what would have been done without us. In our handler.
///
/// # Safety
/// The arguments are those that the kernel gave to the handler.
pub(super) unsafe fn forward(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(earlier) = earlier(signal) else { return };
    match earlier.sa_sigaction {
        libc::SIG_IGN => {}
        libc::SIG_DFL if signal == libc::SIGURG => {
            // By default it is ignored.
        }
        // SAFETY: the caller's word.
        libc::SIG_DFL => unsafe { by_default(signal, earlier, info) },
        handler if earlier.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the process has installed it as a handler of this kind.
            let handler: Handler = unsafe { std::mem::transmute(handler as *const ()) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: as above.
            let handler: extern "C" fn(i32) = unsafe { std::mem::transmute(handler as *const ()) };
            handler(signal);
        }
    }
}

/// The same signal again, to be met by the default action when our handler returns.
///
/// # Safety
/// `info` is what the kernel gave to the handler.
unsafe fn by_default(signal: i32, default: &libc::sigaction, info: *mut libc::siginfo_t) {
    // SAFETY: all of it is allowed in a signal handler; the kernel copies what it needs.
    unsafe {
        libc::sigaction(signal, default, ptr::null_mut());
        let (process, thread) = (libc::getpid(), libc::gettid());
        let sent = libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info);
        if sent != 0 {
            libc::syscall(libc::SYS_tgkill, process, thread, signal);
        }
    }
}

fn earlier(signal: i32) -> Option<&'static libc::sigaction> {
    // Acquire: pairs with the Release in `keep`.
    let earlier = EARLIER.get(usize::try_from(signal).ok()?)?.load(Ordering::Acquire);
    // SAFETY: null, or never freed.
    unsafe { earlier.as_ref() }
}

/// Remembers it for good. The same one is kept once, so that many sessions do not pile them up.
fn keep(signal: i32, current: libc::sigaction) {
    let same = |kept: &libc::sigaction| {
        // SAFETY: a set is bits, and both have been filled in by the kernel.
        let bits = |set: &libc::sigset_t| unsafe { ptr::from_ref(set).cast::<u64>().read() };
        (kept.sa_sigaction, kept.sa_flags) == (current.sa_sigaction, current.sa_flags)
            && bits(&kept.sa_mask) == bits(&current.sa_mask)
    };
    if earlier(signal).is_some_and(same) {
        return;
    }
    let Some(place) = usize::try_from(signal).ok().and_then(|signal| EARLIER.get(signal)) else {
        return;
    };
    // Release: pairs with the Acquire in `earlier`.
    place.store(Box::leak(Box::new(current)), Ordering::Release);
}

/// Whether there is a handler, and it is to run on the thread's alternate stack.
fn is_on_alternate(action: &libc::sigaction) -> bool {
    let is_handler = ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
    is_handler && action.sa_flags & libc::SA_ONSTACK != 0
}

fn is(action: &libc::sigaction, handler: Handler) -> bool {
    action.sa_sigaction == (handler as *const ()).addr()
}

fn action(signal: i32) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: asks for the current action, and has a place for it.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled it in.
    Ok(unsafe { action.assume_init() })
}
