//! The kernel's own clocks. They are exact, and each reading is a system call.

use std::sync::LazyLock;
use std::time::Instant;

/// The CPU time of the calling thread, user and system.
pub(crate) fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

/// The CPU time of a thread of this process, or `None` if the thread has ended.
pub(crate) fn cpu_ns_of_thread(thread: u32) -> Option<u64> {
    read(clock_of_thread(thread))
}

/// Wall time, by a clock that a signal handler may read. It cannot be compared with [`wall_ns`].
#[cfg(feature = "sampler")]
pub(crate) fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// The time since the machine was started, including time in suspend. The kernel dates the start of threads by this clock.
#[cfg(feature = "sampler")]
pub(crate) fn boot_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME).unwrap_or(0)
}

/// The CPU time of the whole process, including threads that have ended.
pub(crate) fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0)
}

/// Wall time since a moment before the first reading.
pub(crate) fn wall_ns() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Wall time, by the clock that no time daemon adjusts. The counter is calibrated against it.
pub(super) fn raw_wall_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC_RAW).unwrap_or(0)
}

/// The kernel's timer ticks per second, which are the resolution of its coarse clock.
pub(crate) fn tick_hz() -> Option<u32> {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, into memory of this function's own.
    let told = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut tick) } == 0;
    let tick_ns = u32::try_from(tick.tv_nsec).ok().filter(|ns| told && *ns > 0)?;
    Some(1_000_000_000 / tick_ns)
}

/// The clock id of a thread's CPU time. This is `CPUCLOCK_SCHED` for one thread, in the kernel's encoding, as
/// `pthread_getcpuclockid` returns it.
pub(crate) fn clock_of_thread(thread: u32) -> libc::clockid_t {
    const CPUCLOCK_SCHED: libc::clockid_t = 2;
    const CPUCLOCK_PERTHREAD_MASK: libc::clockid_t = 4;
    (!thread.cast_signed()) << 3 | CPUCLOCK_SCHED | CPUCLOCK_PERTHREAD_MASK
}

fn read(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, into memory of this function's own.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (result == 0)
        .then(|| time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_threads_clock_is_its_own() {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let start = thread_cpu_ns();
            while thread_cpu_ns() < start + 5_000_000 {}
            // SAFETY: `gettid` takes no arguments and touches no memory.
            #[allow(unsafe_code)]
            let number = unsafe { libc::gettid() }.cast_unsigned();
            tell.send((number, thread_cpu_ns())).unwrap();
            stopped.recv().unwrap_err();
        });
        let (number, own) = told.recv().unwrap();
        let seen = cpu_ns_of_thread(number).unwrap();
        assert!(seen >= own && seen < own + 5_000_000, "{seen} is not shortly after {own}");
        drop(stop);
        thread.join().unwrap();
    }
}
