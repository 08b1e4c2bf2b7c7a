//! What belongs to the interrupted code: errno, registers, the red zone, flags.

use crate::harness::{
    HZ, action, block_all, gettid, options, rounds, sample_enough, spin, start, start_again, stop,
    torture, unblock_all,
};
use pertask::sampler::RawProfile;
use std::hint::black_box;
use std::thread;

/// A long computation in floating point, of which each bit counts.
#[inline(never)]
fn floats(count: u64) -> u64 {
    let mut lanes = [1.0_f64, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for round in 0..count {
        for (which, lane) in lanes.iter_mut().enumerate() {
            *lane =
                (*lane * 1.000_001 + (round % 97) as f64).sqrt().mul_add(0.75, which as f64).sin();
        }
        for lane in lanes {
            hash = (hash ^ lane.to_bits()).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

#[test]
fn floating_point_to_the_last_bit() {
    torture(|mechanism| {
        let count = rounds(150_000) as u64;
        let without = floats(count);
        let Some(sampler) = start(mechanism) else { return };
        let threads: Vec<_> = (0..2).map(|_| thread::spawn(move || floats(count))).collect();
        assert_eq!(floats(count), without);
        for thread in threads {
            assert_eq!(thread.join().unwrap(), without);
        }
        stop(sampler);
    });
}

/// All vector registers keep what is in them over a long time in which nothing but a counter changes.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn registers_hold(count: u64) -> bool {
    if !std::is_x86_feature_detected!("avx") {
        crate::harness::skip("the upper halves of vector registers: there is no AVX");
        return true;
    }
    let mut out = [0_u64; 16 * 4];
    let patterns: [u64; 16] =
        std::array::from_fn(|at| 0x0123_4567_89ab_cdef_u64.rotate_left(at as u32 * 3));
    // SAFETY: loads and stores within the two arrays; all that is changed is declared; the processor has AVX.
    unsafe {
        std::arch::asm!(
            "vbroadcastsd ymm0, [{from}]", "vbroadcastsd ymm1, [{from} + 8]",
            "vbroadcastsd ymm2, [{from} + 16]", "vbroadcastsd ymm3, [{from} + 24]",
            "vbroadcastsd ymm4, [{from} + 32]", "vbroadcastsd ymm5, [{from} + 40]",
            "vbroadcastsd ymm6, [{from} + 48]", "vbroadcastsd ymm7, [{from} + 56]",
            "vbroadcastsd ymm8, [{from} + 64]", "vbroadcastsd ymm9, [{from} + 72]",
            "vbroadcastsd ymm10, [{from} + 80]", "vbroadcastsd ymm11, [{from} + 88]",
            "vbroadcastsd ymm12, [{from} + 96]", "vbroadcastsd ymm13, [{from} + 104]",
            "vbroadcastsd ymm14, [{from} + 112]", "vbroadcastsd ymm15, [{from} + 120]",
            "2: dec {count}", "jnz 2b",
            "vmovups [{to}], ymm0", "vmovups [{to} + 32], ymm1", "vmovups [{to} + 64], ymm2",
            "vmovups [{to} + 96], ymm3", "vmovups [{to} + 128], ymm4", "vmovups [{to} + 160], ymm5",
            "vmovups [{to} + 192], ymm6", "vmovups [{to} + 224], ymm7", "vmovups [{to} + 256], ymm8",
            "vmovups [{to} + 288], ymm9", "vmovups [{to} + 320], ymm10", "vmovups [{to} + 352], ymm11",
            "vmovups [{to} + 384], ymm12", "vmovups [{to} + 416], ymm13", "vmovups [{to} + 448], ymm14",
            "vmovups [{to} + 480], ymm15",
            count = inout(reg) count => _, from = in(reg) patterns.as_ptr(), to = in(reg) out.as_mut_ptr(),
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _, options(nostack),
        );
    }
    out.chunks_exact(4)
        .zip(patterns)
        .all(|(lanes, pattern)| lanes.iter().all(|lane| *lane == pattern))
}

/// What lies just below the stack pointer belongs to the function that is interrupted, too.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn red_zone_holds(count: u64) -> bool {
    let (lowest, highest): (u64, u64);
    // SAFETY: 128 bytes below the stack pointer are a function's own, by the ABI, and nothing is called or pushed.
    unsafe {
        std::arch::asm!(
            "mov [rsp - 128], {pattern}", "mov [rsp - 8], {pattern}",
            "2: dec {count}", "jnz 2b",
            "mov {lowest}, [rsp - 128]", "mov {highest}, [rsp - 8]",
            pattern = in(reg) 0x5a5a_1234_u64, count = inout(reg) count => _,
            lowest = out(reg) lowest, highest = out(reg) highest,
        );
    }
    (lowest, highest) == (0x5a5a_1234, 0x5a5a_1234)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn vector_registers_and_the_red_zone() {
    torture(|mechanism| {
        let before = gettid();
        let work = |times| {
            for _ in 0..rounds(20) * times {
                assert!(registers_hold(20_000_000), "a vector register has changed");
                assert!(red_zone_holds(20_000_000), "the red zone has changed");
            }
        };
        sample_enough(mechanism, 20, work, |profile| profile.samples.len());
        assert_eq!(gettid(), before);
    });
}

#[test]
fn errno_and_thread_local_variables() {
    torture(|mechanism| {
        thread_local! {
            static MINE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
        }
        let Some(sampler) = start(mechanism) else { return };
        thread::scope(|scope| {
            for which in 1..=3 {
                scope.spawn(move || {
                    MINE.set(which);
                    // SAFETY: this thread's own word.
                    let errno = unsafe { &mut *libc::__errno_location() };
                    *errno = which as i32;
                    for _ in 0..rounds(30_000_000) {
                        black_box(());
                        assert!(*black_box(&*errno) == which as i32 && MINE.get() == which);
                    }
                });
            }
        });
        stop(sampler);
    });
}

/// Threads that block all signals work on, whether they ever let them through again or not.
#[test]
fn threads_that_block_all_signals() {
    torture(|mechanism| {
        for _ in 0..rounds(3) {
            let Some(sampler) = start(mechanism) else { return };
            let mut threads = Vec::new();
            for which in 0..4 {
                threads.push(thread::spawn(move || {
                    block_all();
                    spin(20);
                    if which % 2 == 0 {
                        unblock_all();
                        spin(10);
                        block_all();
                    }
                    spin(10);
                }));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            stop(sampler);
        }
    });
}

/// A session ends while its signal is pending in a thread, which lets it through much later, or in another session.
#[test]
fn pending_when_the_session_ends() {
    torture(|mechanism| {
        let (mut orders, mut answers) = (Vec::new(), Vec::new());
        let mut threads = Vec::new();
        for _ in 0..3 {
            let (order, ordered) = std::sync::mpsc::channel::<bool>();
            let (answer, answered) = std::sync::mpsc::channel();
            orders.push(order);
            answers.push(answered);
            threads.push(thread::spawn(move || {
                block_all();
                for unblock in ordered {
                    if unblock {
                        unblock_all();
                        block_all();
                    }
                    spin(10);
                    answer.send(()).unwrap();
                }
            }));
        }
        let all = |unblock| {
            orders.iter().for_each(|order| order.send(unblock).unwrap());
            answers.iter().for_each(|answer| answer.recv().unwrap());
        };
        for round in 0..rounds(3) {
            let Some(sampler) = start(mechanism) else { return };
            all(false);
            drop(sampler.stop());
            // Pending, and nobody samples.
            all(round % 2 == 0);
            let Some(next) = start_again(options(mechanism, HZ)) else { return };
            all(round % 2 == 1);
            drop(next.stop());
        }
        all(true);
        drop(orders);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// What the kernel puts on the stack for one signal, on this processor, at most.
fn kernels_frame() -> usize {
    // SAFETY: asks for a number.
    unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) as usize }.max(libc::MINSIGSTKSZ)
}

/// Whether the program's handler of SIGUSR1 keeps the sampler's signals waiting by now.
fn is_covered() -> bool {
    let mask = action(libc::SIGUSR1).sa_mask;
    // SAFETY: a set that the kernel has filled in.
    [libc::SIGTRAP, libc::SIGURG]
        .iter()
        .any(|ours| unsafe { libc::sigismember(&raw const mask, *ours) } == 1)
}

/// Threads with an alternate stack for signals, from the smallest that the kernel allows. Two signals have no room there: the
/// kernel would end the process.
#[test]
fn alternate_signal_stacks() {
    extern "C" fn on_it(_: i32) {
        for _ in 0..2_000_000 {
            black_box(());
        }
    }
    const ITS_OWN: usize = 512;
    torture(|mechanism| {
        let handler = (on_it as extern "C" fn(i32) as *const ()).addr();
        let smallest = kernels_frame() + ITS_OWN;
        let own = gettid();
        for size in [smallest, smallest + (1 << 10), 6 << 10, 8 << 10, 16 << 10, 256 << 10] {
            let work = |times| {
                // The program installs its handler before the session, or again in mid-session.
                crate::harness::set_action(libc::SIGUSR1, handler, libc::SA_ONSTACK);
                while !is_covered() {
                    spin(1);
                }
                thread::scope(|scope| {
                    (0..4).for_each(|_| drop(scope.spawn(|| raise_on_a_stack_of(size, times))));
                });
            };
            let of_them = |profile: &RawProfile| {
                profile.samples.iter().filter(|sample| sample.thread != own).count()
            };
            let Some(profile) = sample_enough(mechanism, 5, work, of_them) else { return };
            assert_eq!(profile.lost.dropped_stack_full, 0, "of {size} bytes");
            assert!(!is_covered(), "its action is as it was");
        }
    });
}

/// Raises SIGUSR1 in this thread some times, with an alternate stack of that size.
fn raise_on_a_stack_of(size: usize, times: usize) {
    let mut memory = vec![0_u8; size];
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: size };
    let mut earlier = stack;
    // SAFETY: memory of ours, given back below; a signal to this thread.
    unsafe {
        assert_eq!(libc::sigaltstack(&raw const stack, &raw mut earlier), 0);
        (0..rounds(10) * times).for_each(|_| {
            libc::raise(libc::SIGUSR1);
        });
        let mut now = stack;
        assert_eq!(libc::sigaltstack(&raw const earlier, &raw mut now), 0);
        assert_eq!((now.ss_sp, now.ss_size), (stack.ss_sp, size), "it is still there");
    }
}
