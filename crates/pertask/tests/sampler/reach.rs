//! Programs and threads that the best mechanism cannot reach: another one does, and the profile says why.

use super::support::{alone, loudly, ms};
use super::{gettid, of_thread, sample_enough_with, spin};
use pertask::TaskExt;
use pertask::sampler::{Mechanism, RawProfile, Sampler, SamplerOptions};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

/// What a child says when it has done all that it should.
const DONE: &str = "done to the end";

/// Above every tick's rate, so that perf is the first choice.
fn fast() -> SamplerOptions {
    SamplerOptions::with_frequency(4_000)
}

/// Whether perf's traps work here at all.
fn there_are_traps() -> bool {
    let mut options = fast();
    options.mechanism = Some(Mechanism::PerfTrap);
    let refused = Sampler::start(options).err();
    if let Some(why) = &refused {
        loudly(&format!("NOT TESTED: {why}"));
    }
    refused.is_none()
}

/// Runs one test of this module in a process of its own, which `prepare` makes ready before the program begins.
fn in_a_child(test: &str, prepare: fn()) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", &format!("reach::{test}"), "--nocapture"])
        .env("PERTASK_TEST_CHILD", "1");
    // SAFETY: what the tests prepare are single system calls.
    unsafe {
        child.pre_exec(move || {
            prepare();
            Ok(())
        })
    };
    let output = child.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains(DONE), "{}\n{text}", output.status);
}

fn is_child() -> bool {
    std::env::var_os("PERTASK_TEST_CHILD").is_some()
}

fn set_mask(how: i32, signal: i32) {
    // SAFETY: a set of ours, filled in before use.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

fn limit_descriptors(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: a limit to read.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// Samples until there are some, and returns the profile.
fn some_samples(options: &SamplerOptions) -> RawProfile {
    let own = gettid();
    let of_this = |profile: &RawProfile, _: &u64| of_thread(profile, own).count();
    sample_enough_with(options, 5, |times| spin(40 * times), of_this).expect("one that works").0
}

#[test]
fn a_program_that_blocks_sigtrap_from_the_start_is_sampled_another_way() {
    if is_child() {
        let profile = some_samples(&fast());
        let why = "every thread of the program blocks SIGTRAP";
        assert!(profile.mechanism.contains(why), "{}", profile.mechanism);
        assert_eq!(profile.lost.threads_not_sampled, 0, "{:?}", profile.remarks);
        let mut traps = fast();
        traps.mechanism = Some(Mechanism::PerfTrap);
        let refused = Sampler::start(traps).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        println!("{DONE}");
        return;
    }
    let _alone = alone();
    if there_are_traps() {
        in_a_child("a_program_that_blocks_sigtrap_from_the_start_is_sampled_another_way", || {
            set_mask(libc::SIG_BLOCK, libc::SIGTRAP);
        });
    }
}

#[test]
fn a_program_that_ignores_sigtrap_from_the_start_is_sampled() {
    if is_child() {
        some_samples(&fast());
        println!("{DONE}");
        return;
    }
    let _alone = alone();
    in_a_child("a_program_that_ignores_sigtrap_from_the_start_is_sampled", || {
        // SAFETY: the kernel's own action.
        unsafe { libc::signal(libc::SIGTRAP, libc::SIG_IGN) };
    });
}

#[test]
fn a_program_that_blocks_sigurg_is_sampled_by_traps_at_any_rate() {
    if is_child() {
        let profile = some_samples(&SamplerOptions::with_frequency(99));
        let why = "every thread of the program blocks SIGURG";
        assert!(profile.mechanism.contains(why), "{}", profile.mechanism);
        println!("{DONE}");
        return;
    }
    let _alone = alone();
    if there_are_traps() {
        in_a_child("a_program_that_blocks_sigurg_is_sampled_by_traps_at_any_rate", || {
            set_mask(libc::SIG_BLOCK, libc::SIGURG);
        });
    }
}

/// Blocks the signal in a thread of its own and spins there. Returns the thread's number and the CPU time that it has used.
fn deaf_thread(signal: i32, milliseconds: u64) -> (u32, u64) {
    let work = move || {
        set_mask(libc::SIG_BLOCK, signal);
        (gettid(), spin(milliseconds))
    };
    thread::spawn(work).join().unwrap()
}

#[test]
fn a_thread_that_blocks_sigtrap_is_sampled_by_a_timer() {
    let _alone = alone();
    if !there_are_traps() {
        return;
    }
    let work = |times| deaf_thread(libc::SIGTRAP, 200 * times);
    let of_it = |profile: &RawProfile, (thread, _): &(u32, u64)| {
        of_thread(profile, *thread).filter(|sample| !sample.stack.is_empty()).count()
    };
    let (profile, (thread, used)) = sample_enough_with(&fast(), 5, work, of_it).unwrap();
    let said = profile.remarks.iter().any(|line| line.contains("SIGTRAP is blocked there"));
    assert!(said, "{:?}", profile.remarks);
    assert!(!profile.unmet.iter().any(|unmet| unmet.kernel && unmet.thread == Some(thread)));
    // A thread can keep in step with the tick, to which timers are blind. What they miss is told.
    let told = profile.carried_cpu_ns() + profile.lost.unsampled_cpu_ns;
    assert!(told >= used, "{told} ns of {used}: {:?}", profile.lost);
}

#[test]
fn a_thread_that_blocks_sigtrap_later_on_is_sampled_by_a_timer_from_then_on() {
    let _alone = alone();
    if !there_are_traps() {
        return;
    }
    let work = |times| {
        let thread = thread::spawn(move || {
            spin(50);
            set_mask(libc::SIG_BLOCK, libc::SIGTRAP);
            // SAFETY: a clock and a place for its time.
            let blocked_at = unsafe {
                let mut time = std::mem::zeroed::<libc::timespec>();
                libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
                time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
            };
            spin(300 * times);
            (gettid(), blocked_at)
        });
        thread.join().unwrap()
    };
    let after = |profile: &RawProfile, (thread, blocked_at): &(u32, u64)| {
        of_thread(profile, *thread).filter(|sample| sample.time_ns > *blocked_at).count()
    };
    let (profile, _) = sample_enough_with(&fast(), 5, work, after).unwrap();
    let said = profile.remarks.iter().any(|line| line.contains("SIGTRAP is blocked there"));
    assert!(said, "{:?}", profile.remarks);
}

#[test]
fn time_in_which_a_thread_blocked_the_signal_is_not_taken_for_the_kernels() {
    let _alone = alone();
    let mut options = fast();
    options.mechanism = Some(Mechanism::PerfTrap);
    // So that each thread's time stands with the thread.
    options.clocked = false;
    let work = |times| {
        let blocked = move || {
            spin(20);
            set_mask(libc::SIG_BLOCK, libc::SIGTRAP);
            spin(100 * times);
            set_mask(libc::SIG_UNBLOCK, libc::SIGTRAP);
            spin(20);
            gettid()
        };
        thread::spawn(blocked).join().unwrap()
    };
    let of_it = |profile: &RawProfile, thread: &u32| of_thread(profile, *thread).count();
    let Some((profile, thread)) = sample_enough_with(&options, 20, work, of_it) else { return };
    let own = profile.unmet.iter().filter(|unmet| unmet.thread == Some(thread) && unmet.kernel);
    let kernel_ns: u64 = own.map(|unmet| unmet.cpu_ns).sum();
    assert!(kernel_ns < ms(50), "{kernel_ns} ns are said to be in the kernel");
}

/// Starts threads that wait until the sender is dropped.
fn waiting_threads(count: usize) -> (Vec<mpsc::Sender<()>>, Vec<thread::JoinHandle<()>>) {
    let one = |_| {
        let (stop, stopped) = mpsc::channel::<()>();
        (stop, thread::spawn(move || stopped.recv().unwrap_or_default()))
    };
    (0..count).map(one).unzip()
}

#[test]
fn many_threads_leave_the_program_its_descriptors() {
    const LIMIT: u64 = 64;
    if is_child() {
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let (stop, threads) = waiting_threads(60);
        let sampler = Sampler::start(fast()).unwrap();
        let opened: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        let least = (LIMIT - before) / 4 * 3 - 2;
        assert!(opened.len() as u64 >= least, "{} of {least}", opened.len());
        drop(opened);
        let mechanism = sampler.stop().mechanism;
        assert!(mechanism.contains("a quarter of the free ones (ulimit -n 64)"), "{mechanism}");
        assert!(mechanism.starts_with("POSIX timer"), "{mechanism}");
        drop(stop);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        println!("{DONE}");
        return;
    }
    let _alone = alone();
    in_a_child("many_threads_leave_the_program_its_descriptors", || limit_descriptors(LIMIT));
}

#[test]
fn threads_that_come_later_leave_the_program_its_descriptors() {
    const LIMIT: u64 = 64;
    if is_child() {
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let sampler = Sampler::start(fast()).unwrap();
        let (stop, threads) = waiting_threads(60);
        // The collector looks for threads many times a second. It has found all when there are no more for long.
        let mut looks = std::iter::repeat_with(|| {
            spin(200);
            events()
        });
        let mut last = 0;
        while last < LIMIT / 8 || looks.next() != Some(last) {
            last = events();
        }
        let opened: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        let least = (LIMIT - before) / 4 * 3 - 2;
        assert!(opened.len() as u64 >= least, "{} of {least}", opened.len());
        drop(opened);
        let profile = sampler.stop();
        let told = |line: &String| line.contains("threads are sampled by POSIX timers");
        assert!(profile.remarks.iter().any(told), "{:?}", profile.remarks);
        drop(stop);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        println!("{DONE}");
        return;
    }
    let _alone = alone();
    if there_are_traps() {
        let test = "threads_that_come_later_leave_the_program_its_descriptors";
        in_a_child(test, || limit_descriptors(LIMIT));
    }
}

/// From now on, the process has no `/proc`. Returns false if it may not do that.
fn lose_proc() -> bool {
    // A folder without one.
    let folder = std::ffi::CString::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    // SAFETY: a path that ends with 0.
    unsafe { libc::chroot(folder.as_ptr()) == 0 }
}

/// As a server does that locks itself into an empty folder when it has started.
#[test]
fn a_program_that_loses_proc_in_mid_session_is_sampled_where_it_runs_tasks() {
    if is_child() {
        let sampler = Sampler::start(fast()).unwrap();
        if !lose_proc() {
            loudly("NOT TESTED: this user may not change the root folder");
            println!("{DONE}");
            return;
        }
        let worker = thread::spawn(|| {
            let task = async { spin(800) }.task("after it");
            (gettid(), futures::executor::block_on(task))
        });
        let (worker, used) = worker.join().unwrap();
        let profile = sampler.stop();
        let own: Vec<_> = of_thread(&profile, worker).filter(|it| it.task.is_some()).collect();
        assert!(!own.is_empty(), "{:?}", profile.lost);
        let carried: u64 = own.iter().map(|sample| sample.cpu_ns).sum();
        assert!(carried * 10 > used * 9, "{carried} ns of {used}");
        let told = profile.remarks.iter().filter(|line| line.contains("/proc is not mounted"));
        assert_eq!(told.count(), 1, "{:?}", profile.remarks);
        // Of a signal that may still come nothing can be known, so its handler stays.
        spin(20);
        println!("{DONE}");
        return;
    }
    let _alone = alone();
    in_a_child("a_program_that_loses_proc_in_mid_session_is_sampled_where_it_runs_tasks", || {});
}

/// The number of perf events that this process has open.
fn events() -> u64 {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let events = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    events.filter(|file| file.to_string_lossy().contains("perf_event")).count() as u64
}
