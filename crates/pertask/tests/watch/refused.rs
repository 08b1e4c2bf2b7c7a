//! What the kernel refuses: that is said, and the rest works.

use super::support::{alone, loudly, process};
use super::{caught, caught_by, has_stack, wait_for, watch};
use pertask::BlockedState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

fn sleep_until(over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(200));
    }
}

fn compute_until(over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
fn without_timers_running_threads_have_no_stacks_and_blocked_ones_do() {
    let _alone = alone();
    let test = "refused::without_timers_running_threads_have_no_stacks_and_blocked_ones_do";
    if !process::in_a_process_of_its_own(test, || process::forbid(libc::SYS_timer_create)) {
        return;
    }
    let (row, report) = caught_by(watch(), "computes", |_| true, compute_until);
    assert!(row.stack.is_empty(), "{row:#?}");
    let told = |remark: &&String| {
        remark.contains("no stacks of running threads") && remark.contains("timer_create")
    };
    assert_eq!(report.remarks.iter().filter(told).count(), 1, "{:?}", report.remarks);
    let row = caught("sleeps", has_stack, sleep_until);
    assert!(row.stack_complete && row.place.is_some(), "{row:#?}");
}

#[test]
fn without_proc_there_are_times_and_no_stacks() {
    let _alone = alone();
    let lose_proc = || {
        // A folder without one.
        let folder = std::ffi::CString::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
        // SAFETY: a path that ends with 0.
        if unsafe { libc::chroot(folder.as_ptr()) } != 0 {
            loudly("SKIPPED: this user may not change the root folder");
            println!("1 passed");
            std::process::exit(0);
        }
    };
    let test = "refused::without_proc_there_are_times_and_no_stacks";
    if !process::in_a_process_of_its_own(test, lose_proc) {
        return;
    }
    let row = caught("sleeps", |_| true, sleep_until);
    assert_eq!((row.state, row.call.as_deref()), (BlockedState::Blocked, None), "{row:#?}");
    assert!(row.stack.is_empty() && row.cpu_ns < row.max_ns, "{row:#?}");
    let watch = watch();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let task = async { compute_until(&over) };
        let task = pertask::TaskExt::task(task, "computes");
        let worker = scope.spawn(|| super::support::run(task));
        wait_for(&watch, "computes", |row| row.cpu_ns > 0);
        over.store(true, Ordering::Relaxed);
        worker.join().unwrap();
    });
    let remarks = watch.stop().remarks;
    assert!(remarks.iter().any(|remark| remark.contains("/proc")), "{remarks:?}");
}
