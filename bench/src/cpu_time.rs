//! The calling thread's CPU time: what others do on a busy machine is not in it, beyond the caches that they dirty.

/// How much CPU time of this thread `work` takes.
pub fn cpu_time_ns(work: impl FnOnce()) -> f64 {
    let start = now_ns();
    work();
    (now_ns() - start) as f64
}

fn now_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to a local variable.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "no thread CPU clock");
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
