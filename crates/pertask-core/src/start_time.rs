//! When tasks begin, by a clock that costs a few nanoseconds.

/// The monotonic clock in nanoseconds, as of the kernel's last tick.
#[cfg(all(target_os = "linux", not(any(pertask_loom, pertask_shuttle))))]
#[inline]
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes to `now`. It cannot fail: every kernel has the clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Models do without time.
#[cfg(not(all(target_os = "linux", not(any(pertask_loom, pertask_shuttle)))))]
#[inline]
pub(crate) fn now_ns() -> u64 {
    0
}
