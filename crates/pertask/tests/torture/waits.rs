//! Threads that wait in the kernel: only who uses the CPU is interrupted, and so nobody's waiting is cut short.

use crate::harness::{rounds, skip, spin, start, stop, torture};
use pertask::sampler::Mechanism;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Waits in that way for about a millisecond; says whether it was cut short.
type Wait = fn() -> bool;

fn interrupted(result: i64) -> bool {
    result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
}

fn nanosleep() -> bool {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    // SAFETY: a time to read.
    interrupted(unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) }.into())
}

fn epoll() -> bool {
    // SAFETY: an epoll of this call's, and a place for one event, of which there are none.
    unsafe {
        let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let result = interrupted(libc::epoll_wait(epoll, &raw mut event, 1, 1).into());
        libc::close(epoll);
        result
    }
}

fn poll() -> bool {
    // SAFETY: of no descriptors.
    interrupted(unsafe { libc::poll(std::ptr::null_mut(), 0, 1) }.into())
}

fn select() -> bool {
    let mut time = libc::timeval { tv_sec: 0, tv_usec: 1_000 };
    let none = std::ptr::null_mut;
    // SAFETY: of no descriptors, and a time.
    interrupted(unsafe { libc::select(0, none(), none(), none(), &raw mut time) }.into())
}

fn semaphore() -> bool {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a semaphore of this call's, and times.
    unsafe {
        let mut semaphore = std::mem::zeroed();
        libc::sem_init(&raw mut semaphore, 0, 0);
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time);
        time.tv_nsec += 1_000_000;
        if time.tv_nsec >= 1_000_000_000 {
            (time.tv_sec, time.tv_nsec) = (time.tv_sec + 1, time.tv_nsec - 1_000_000_000);
        }
        let result = interrupted(libc::sem_timedwait(&raw mut semaphore, &raw const time).into());
        libc::sem_destroy(&raw mut semaphore);
        result
    }
}

fn futex() -> bool {
    let word = 0_u32;
    let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let (call, wait) = (libc::SYS_futex, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
    // SAFETY: a word of ours that nobody changes, and a time.
    interrupted(unsafe { libc::syscall(call, &raw const word, wait, 0, &raw const time) })
}

/// Some milliseconds of one system call, so that ticks fall into it.
fn in_the_kernel() {
    let mut bytes = vec![0_u8; 1 << 20];
    // SAFETY: a buffer of ours. How much of it is filled does not matter.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
}

/// Whether the kernel has a thread's timers wait for its return to user mode.
fn defers_timers() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|it| it.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= if cfg!(target_arch = "x86_64") { (5, 11) } else { (5, 18) }
}

const WAITS: [(&str, Wait); 6] = [
    ("nanosleep", nanosleep),
    ("epoll_wait", epoll),
    ("poll", poll),
    ("select", select),
    ("sem_timedwait", semaphore),
    ("futex", futex),
];

#[test]
fn waits_with_a_limit_are_not_cut_short() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        let cut = [const { AtomicUsize::new(0) }; WAITS.len()];
        thread::scope(|scope| {
            for (which, (_, wait)) in WAITS.into_iter().enumerate() {
                let cut = &cut;
                scope.spawn(move || {
                    for round in 0..rounds(60) {
                        // Some work before, in the kernel too, to come into step with all kinds of moments.
                        for _ in 0..round * 20 {
                            // SAFETY: no arguments, no memory.
                            unsafe { libc::getppid() };
                        }
                        spin(u64::from(round % 8 == 0));
                        if round % 4 == 0 {
                            in_the_kernel();
                        }
                        cut[which].fetch_add(usize::from(wait()), Relaxed);
                    }
                });
            }
        });
        stop(sampler);
        let cut: Vec<_> =
            WAITS.iter().zip(&cut).map(|((name, _), cut)| (name, cut.load(Relaxed))).collect();
        let short: usize = cut.iter().map(|(_, cut)| cut).sum();
        if mechanism == Mechanism::Timer && !defers_timers() {
            // It may signal in the middle of a call.
            crate::harness::say(&format!("cut short by the timer: {cut:?}"));
        } else {
            assert_eq!(short, 0, "{cut:?}");
        }
    });
}

/// Calls that are begun again after a signal, by `SA_RESTART`: nobody sees an error.
#[test]
fn waits_without_a_limit_see_no_error() {
    torture(|mechanism| {
        let Some(sampler) = start(mechanism) else { return };
        let listener = match TcpListener::bind("127.0.0.1:0") {
            Ok(listener) => listener,
            Err(why) => return skip(&format!("no network: {why}")),
        };
        let address = listener.local_addr().unwrap();
        let calls = rounds(60);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut buffer = [0; 64];
                for _ in 0..calls {
                    // Not by std, which tries again by itself.
                    // SAFETY: accepts without an address, and reads into a buffer of ours.
                    unsafe {
                        let none = std::ptr::null_mut();
                        let got = libc::accept(listener.as_raw_fd(), none, none.cast());
                        assert!(got >= 0, "accept: {}", std::io::Error::last_os_error());
                        let read = libc::read(got, buffer.as_mut_ptr().cast(), buffer.len());
                        assert_eq!(read, 5, "read: {}", std::io::Error::last_os_error());
                        assert_eq!(libc::write(got, buffer.as_ptr().cast(), 5), 5);
                        libc::close(got);
                    }
                    spin(1);
                }
            });
            scope.spawn(move || {
                for _ in 0..calls {
                    let mut stream = TcpStream::connect(address).unwrap();
                    spin(1);
                    stream.write_all(b"hello").unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).unwrap();
                    assert_eq!(answer, b"hello");
                }
            });
        });
        stop(sampler);
    });
}
