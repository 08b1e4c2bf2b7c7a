//! The process's action for a signal. Our handler is installed in front of the earlier one, and removed when none of our
//! signals can arrive any more.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// One more than the highest signal number.
const SIGNALS: usize = 65;

/// The actions from before our handler, by signal number.
///
/// INVARIANT: each is null, or points to an action that is never freed, because a handler may be reading it.
static EARLIER: [AtomicPtr<libc::sigaction>; SIGNALS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; SIGNALS];

/// Whether our handler has been installed and not removed since, by signal number.
static INSTALLED: [AtomicBool; SIGNALS] = [const { AtomicBool::new(false) }; SIGNALS];

/// A signal handler with all three arguments (`SA_SIGINFO`).
pub(super) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs `handler` in front of the current action, unless it is installed already.
///
/// Refuses where the program has installed another handler since ours was installed. That one may call ours, and each would call the
/// other for ever if ours stood in front of it once more.
pub(super) fn install(signal: i32, handler: Handler) -> io::Result<()> {
    let current = action(signal)?;
    if is(&current, handler) {
        return Ok(());
    }
    let was_installed = installed(signal).is_some_and(|ours| ours.load(Ordering::Relaxed));
    if was_installed && may_call_ours(signal, &current) {
        return Err(io::Error::other(
            "the program has installed a handler of its own in front of the sampler's",
        ));
    }
    let mut ours = current;
    ours.sa_sigaction = (handler as *const ()).addr();
    // Our handler runs on the interrupted stack, because an alternate one may be too small. It runs on an alternate stack if the
    // earlier handler does, because ours calls that one, and the thread's own stack may be too small for it (Go's are).
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    if is_on_alternate(&current) {
        ours.sa_flags |= libc::SA_ONSTACK;
        // There is room for one signal. And to the kernel, a thread on the sampler's own stack has left its alternate one: it would
        // deliver another signal to the top of that, over what is there.
        // SAFETY: the set belongs to this function.
        unsafe { libc::sigfillset(&raw mut ours.sa_mask) };
    }
    keep(signal, current);
    // SAFETY: the kernel only reads the action, and its handler may run at any moment.
    let refused = unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) } < 0;
    if refused {
        return Err(io::Error::last_os_error());
    }
    // Relaxed, here and elsewhere: one thread at a time installs and restores.
    if let Some(ours) = installed(signal) {
        ours.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether an action that was installed since ours may call our handler: it is neither a default one nor the one before ours.
fn may_call_ours(signal: i32, current: &libc::sigaction) -> bool {
    let handler = current.sa_sigaction;
    let is_earlier = earlier(signal).is_some_and(|earlier| earlier.sa_sigaction == handler);
    ![libc::SIG_DFL, libc::SIG_IGN].contains(&handler) && !is_earlier
}

fn installed(signal: i32) -> Option<&'static AtomicBool> {
    INSTALLED.get(usize::try_from(signal).ok()?)
}

/// Restores the action from before `handler`, if `handler` is still installed. None of our signals may be pending on any thread.
pub(super) fn restore(signal: i32, handler: Handler) {
    let Some(earlier) = earlier(signal) else { return };
    if !action(signal).is_ok_and(|current| is(&current, handler)) {
        // The program has installed another handler after ours, which may call ours. So ours stays as it is.
        return;
    }
    let mut replaced = MaybeUninit::uninit();
    // SAFETY: the kernel only reads the earlier action, which it gave us, and writes the replaced one into memory of this
    // function's own.
    let done = unsafe { libc::sigaction(signal, earlier, replaced.as_mut_ptr()) } == 0;
    if let (true, Some(ours)) = (done, installed(signal)) {
        ours.store(false, Ordering::Relaxed);
    }
    // SAFETY: the call has succeeded, so the kernel has written the action.
    if done && !is(unsafe { replaced.assume_init_ref() }, handler) {
        // Another thread has installed a handler since the check above, so that one is installed again.
        // SAFETY: the kernel only reads the action, which it has just written.
        unsafe { libc::sigaction(signal, replaced.as_ptr(), ptr::null_mut()) };
    }
}

/// Whether the signal's current handler, ours included, runs on alternate stacks.
pub(super) fn wants_alternate_stack(signal: i32) -> bool {
    action(signal).is_ok_and(|action| is_on_alternate(&action))
}

/// Whether the signal goes to our handler.
pub(super) fn is_ours(signal: i32, handler: Handler) -> bool {
    action(signal).is_ok_and(|action| is(&action, handler))
}

/// Does with a signal that is not ours what the earlier action would have done. Our handler calls this.
///
/// # Safety
/// The arguments must be those that the kernel has passed to the running handler.
pub(super) unsafe fn forward(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(earlier) = earlier(signal) else { return };
    if is_on_alternate(earlier) {
        // SAFETY: by the caller's contract.
        unsafe { block_as(earlier, signal, context) };
    }
    match earlier.sa_sigaction {
        libc::SIG_IGN => {}
        libc::SIG_DFL if signal == libc::SIGURG => {
            // SIGURG is ignored by default.
        }
        // SAFETY: `info` is what the kernel passed to the handler, by the caller's contract.
        libc::SIG_DFL => unsafe { by_default(signal, earlier, info) },
        handler if earlier.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the process has installed this address as a handler with three arguments.
            let handler: Handler = unsafe { std::mem::transmute(handler as *const ()) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the process has installed this address as a handler with one argument.
            let handler: extern "C" fn(i32) = unsafe { std::mem::transmute(handler as *const ()) };
            handler(signal);
        }
    }
}

/// Blocks the signals that the kernel would have blocked for this action's handler, and no others, until our handler returns.
///
/// # Safety
/// `context` must be what the kernel has passed to the running handler.
unsafe fn block_as(action: &libc::sigaction, signal: i32, context: *const libc::c_void) {
    // SAFETY: the kernel has written a `ucontext_t` there, and both sets. A signal handler may make these calls.
    unsafe {
        let mut blocked = (*context.cast::<libc::ucontext_t>()).uc_sigmask;
        for other in (1..).take(SIGNALS - 1) {
            if libc::sigismember(&raw const action.sa_mask, other) == 1 {
                libc::sigaddset(&raw mut blocked, other);
            }
        }
        if action.sa_flags & libc::SA_NODEFER == 0 {
            libc::sigaddset(&raw mut blocked, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, ptr::null_mut());
    }
}

/// Sends the signal to this thread once more, so that the default action meets it when our handler returns.
///
/// # Safety
/// `info` must be what the kernel has passed to the running handler.
unsafe fn by_default(signal: i32, default: &libc::sigaction, info: *mut libc::siginfo_t) {
    // SAFETY: a signal handler may make all these calls. The kernel only reads the action and `info`, which is valid by the
    // caller's contract.
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
    // Acquire: pairs with the Release in `keep`, for what the action holds.
    let earlier = EARLIER.get(usize::try_from(signal).ok()?)?.load(Ordering::Acquire);
    // SAFETY: the pointer is null, or to an action that is never freed.
    unsafe { earlier.as_ref() }
}

/// Keeps an action for ever. Equal actions in a row are kept once, so that many sessions do not accumulate them.
fn keep(signal: i32, current: libc::sigaction) {
    let same = |kept: &libc::sigaction| {
        // SAFETY: the kernel has written both sets, and the first word of a set has the bits of all signals.
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
    // Release: pairs with the Acquire in `earlier`, so that a handler sees the whole action.
    place.store(Box::leak(Box::new(current)), Ordering::Release);
}

/// Whether an action has a handler that runs on the thread's alternate stack.
pub(super) fn is_on_alternate(action: &libc::sigaction) -> bool {
    let is_handler = ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
    is_handler && action.sa_flags & libc::SA_ONSTACK != 0
}

fn is(action: &libc::sigaction, handler: Handler) -> bool {
    action.sa_sigaction == (handler as *const ()).addr()
}

/// The current action for a signal.
pub(super) fn action(signal: i32) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: the kernel writes the current action into memory of this function's own.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so the kernel has written the action.
    Ok(unsafe { action.assume_init() })
}
