//! A watch disturbs nobody: it ends no sleep, leaves no thread behind, and a fork does not hang.

use super::support::{self, alone, thread_number};
use super::{caught, caught_by, has_stack, options, rows, wait_for, watch};
use pertask::TaskExt;
use pertask::watch::{BlockingPoll, Watch, WatchOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Sleeps by the system call itself, which says when a signal has ended the sleep. Returns whether one has.
fn is_disturbed(milliseconds: i64) -> bool {
    let time = libc::timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
    // SAFETY: the kernel only reads the time.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) != 0 }
}

#[test]
fn no_sleep_is_ended() {
    let _alone = alone();
    let disturbed = AtomicU32::new(0);
    for _ in 0..10 {
        caught("sleeper", has_stack, |over| {
            while !over.load(Ordering::Relaxed) {
                // It works a little, so that it is caught at work as well.
                support::spin(1);
                disturbed.fetch_add(is_disturbed(30).into(), Ordering::Relaxed);
            }
        });
    }
    assert_eq!(disturbed.load(Ordering::Relaxed), 0);
}

#[test]
fn a_thread_that_blocks_all_signals_is_watched_like_others() {
    let _alone = alone();
    let (row, report) = caught_by(
        watch(),
        "deaf",
        |_| true,
        |over| {
            // SAFETY: the set is this function's own, and filled before it is used.
            unsafe {
                let mut all = std::mem::zeroed();
                libc::sigfillset(&raw mut all);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
            }
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        },
    );
    assert!(row.stack.is_empty(), "nothing can ask it: {row:#?}");
    let remarks = report.remarks;
    assert!(remarks.iter().any(|it| it.contains("a thread blocks SIGURG")), "{remarks:?}");
}

#[test]
fn the_watchs_thread_ends_with_it_and_takes_no_signal() {
    let _alone = alone();
    let is_watch = |thread: &u32| {
        let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
        name.is_ok_and(|name| name.trim() == "pertask-watch")
    };
    let threads = || {
        let all = std::fs::read_dir("/proc/self/task").unwrap();
        let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.filter(is_watch).collect::<Vec<u32>>()
    };
    let watch = watch();
    let [thread] = threads()[..] else { panic!("{:?}", threads()) };
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD, libc::SIGUSR1, libc::SIGURG] {
        assert_ne!(blocked >> (signal - 1) & 1, 0, "{signal}");
    }
    let _ = watch.stop();
    support::wait_until_reaped(thread);
    assert_eq!(threads(), Vec::<u32>::new());
}

#[test]
fn the_handler_is_gone_when_the_last_watch_is() {
    let _alone = alone();
    let handler = || {
        // SAFETY: the kernel writes the action, of which zero is a value.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            assert_eq!(libc::sigaction(libc::SIGURG, std::ptr::null(), &raw mut action), 0);
            action.sa_sigaction
        }
    };
    let before = handler();
    let (one, other) = (watch(), watch());
    assert_ne!(handler(), before);
    drop(one);
    assert_ne!(handler(), before);
    drop(other);
    assert_eq!(handler(), before);
}

#[test]
fn a_forked_child_has_no_watch_and_does_not_hang() {
    let _alone = alone();
    let watch = watch();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let task = async {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
        };
        let worker = scope.spawn(|| support::run(task.task("parent")));
        wait_for(&watch, "parent", has_stack);
        // SAFETY: the child ends at once after calls that wait for no other thread, which is what the test is about.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_empty = watch.report().polls == 0;
            drop(watch);
            // SAFETY: it ends this process.
            unsafe { libc::_exit(if is_empty { 0 } else { 1 }) };
        }
        assert_eq!(support::wait_for_child(child), 0);
        over.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        assert_eq!(rows(&watch.stop(), "parent").len(), 1);
    });
}

#[test]
fn two_watches_and_a_sampler_see_the_same_poll() {
    use pertask::sampler::{Sampler, SamplerOptions};
    let _alone = alone();
    let sampler = Sampler::start(SamplerOptions::default());
    let (one, other) = (watch(), Watch::start(WatchOptions::default()).unwrap());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let task = async {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            thread_number()
        };
        let worker = scope.spawn(|| support::run(task.task("seen twice")));
        wait_for(&one, "seen twice", has_stack);
        drop(sampler);
        wait_for(&other, "seen twice", has_stack);
        over.store(true, Ordering::Relaxed);
        worker.join().unwrap();
    });
}

/// What the watch's thread uses. Not a test: `cargo test --release … -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_watch_costs() {
    use super::support::{loudly, spin};
    let _alone = alone();
    let of_watch = || {
        let all = std::fs::read_dir("/proc/self/task").unwrap();
        let stats = all.filter_map(|entry| {
            let folder = entry.ok()?.path();
            let name = std::fs::read_to_string(folder.join("comm")).ok()?;
            let stat = std::fs::read_to_string(folder.join("schedstat")).ok()?;
            (name.trim() == "pertask-watch").then(|| stat.split(' ').next()?.parse::<u64>().ok())?
        });
        stats.sum::<u64>()
    };
    for workers in [2, 16, 64] {
        let (over, watch) = (AtomicBool::new(false), watch());
        thread::scope(|scope| {
            for worker in 0..workers {
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        support::run(async { spin(0) }.task("short"));
                        thread::sleep(Duration::from_millis(1 + worker % 7));
                    }
                });
            }
            thread::sleep(Duration::from_millis(300));
            let before = of_watch();
            thread::sleep(Duration::from_secs(3));
            let used = of_watch() - before;
            over.store(true, Ordering::Relaxed);
            let share = used as f64 / 3e7;
            loudly(&format!("{workers} workers, 5 ms: {share:.2} % of a CPU"));
        });
        let polls = watch.stop().polls;
        loudly(&format!("{polls} polls were caught"));
    }
}

#[test]
fn watches_and_samplers_come_and_go_and_no_sleep_is_ended() {
    use pertask::sampler::{Sampler, SamplerOptions};
    let _alone = alone();
    let (over, disturbed) = (AtomicBool::new(false), AtomicU32::new(0));
    let (over, disturbed) = (&over, &disturbed);
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            scope.spawn(move || {
                for round in worker.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let poll = async {
                        support::spin(round * 7 % 11);
                        let ended = is_disturbed((round * 5 % 13) as i64);
                        disturbed.fetch_add(ended.into(), Ordering::Relaxed);
                    };
                    support::run(poll.task("storm"));
                }
            });
        }
        let told = Arc::new(AtomicU32::new(0));
        for round in 0..12 {
            let count = Arc::clone(&told);
            // Names would take longer than all the rest.
            let tell = move |_: &BlockingPoll| {
                count.fetch_add(1, Ordering::Relaxed);
            };
            let watch = Watch::start_with(options(), tell).unwrap();
            let sampler = (round % 3 == 0).then(|| Sampler::start(SamplerOptions::default()));
            let other = (round % 2 == 0).then(super::watch);
            thread::sleep(Duration::from_millis(40));
            drop(other);
            drop((watch, sampler));
        }
        over.store(true, Ordering::Relaxed);
        support::loudly(&format!("{} times told", told.load(Ordering::Relaxed)));
    });
    assert_eq!(disturbed.load(Ordering::Relaxed), 0);
}
