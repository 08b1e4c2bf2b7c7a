//! What is done before the process exits.

/// Has `before` called when the program returns from `main` or calls `exit`, and not when a signal ends it. Also in a forked child.
///
/// Returns false if the C library has no room left.
pub(crate) fn at_exit(before: extern "C" fn()) -> bool {
    // SAFETY: `before` is a function of the program, whose code stays mapped until the end. It cannot unwind into C: a panic that leaves an
    // `extern "C"` function ends the process.
    unsafe { libc::atexit(before) == 0 }
}
