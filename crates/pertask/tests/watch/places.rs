//! Where in the code a poll blocks its worker.

use super::support::{self, alone};
use super::{caught, has_stack, is_at, wait_for, watch};
use pertask::TaskExt;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

const HERE: &str = "tests/watch/places.rs";

#[test]
fn a_sleep_is_found_at_the_line_that_calls_it() {
    let _alone = alone();
    let row = caught("sleep", has_stack, sleep_until);
    assert!(is_at(&row, HERE, SLEEP, "sleep_until"), "{row:#?}");
    assert!(row.stack_complete, "{row:#?}");
    let functions: Vec<_> = row.stack.iter().filter_map(|it| it.function.as_deref()).collect();
    let is_sleep = |it: &&str| it.starts_with("std::thread") && it.ends_with("sleep");
    assert!(functions.iter().any(is_sleep), "{functions:#?}");
}

const SLEEP: u32 = line!() + 5;

#[inline(never)]
fn sleep_until(over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(200));
    }
    black_box(());
}

#[test]
fn a_loop_is_found_in_its_function() {
    let _alone = alone();
    let row = caught("loop", has_stack, compute);
    let function = row.place.as_ref().and_then(|place| place.function.as_deref());
    assert!(function.is_some_and(|it| it.contains("places::compute")), "{row:#?}");
    assert!(row.stack_complete, "{row:#?}");
}

#[inline(never)]
fn compute(over: &AtomicBool) {
    let mut sum = 0_u64;
    while !over.load(Ordering::Relaxed) {
        sum = black_box(sum.wrapping_mul(3));
    }
}

#[test]
fn a_lock_is_found_at_the_line_that_waits_for_it() {
    let _alone = alone();
    let lock = Mutex::new(0);
    thread::scope(|scope| {
        let (hold, held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let lock = &lock;
        scope.spawn(move || {
            let _guard = lock.lock().unwrap();
            hold.send(()).unwrap();
            let _ = released.recv();
        });
        held.recv().unwrap();
        let watch = watch();
        let worker = scope.spawn(|| support::run(async { wait_for_lock(lock) }.task("lock")));
        let row = wait_for(&watch, "lock", has_stack);
        drop(release);
        worker.join().unwrap();
        assert_eq!(row.call.as_deref(), Some("futex"), "{row:#?}");
        assert!(is_at(&row, HERE, LOCK, "wait_for_lock"), "{row:#?}");
        assert!(row.stack_complete, "{row:#?}");
    });
}

const LOCK: u32 = line!() + 4;

#[inline(never)]
fn wait_for_lock(lock: &Mutex<i32>) -> i32 {
    let guard = lock.lock().unwrap();
    *guard
}

#[test]
fn a_read_is_found_at_the_line_that_reads() {
    let _alone = alone();
    let (mut reader, mut writer) = pipe();
    let watch = watch();
    thread::scope(|scope| {
        let worker = scope.spawn(|| support::run(async { read_one(&mut reader) }.task("read")));
        let row = wait_for(&watch, "read", has_stack);
        writer.write_all(b"x").unwrap();
        assert_eq!(worker.join().unwrap(), b'x');
        assert_eq!(row.call.as_deref(), Some("read"), "{row:#?}");
        assert!(is_at(&row, HERE, READ, "read_one"), "{row:#?}");
        assert!(row.stack_complete, "{row:#?}");
    });
}

const READ: u32 = line!() + 5;

#[inline(never)]
fn read_one(reader: &mut File) -> u8 {
    let mut byte = [0];
    reader.read_exact(&mut byte).unwrap();
    byte[0]
}

fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors, which belong to nobody else.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
    }
}

#[test]
fn the_inner_task_is_blamed() {
    let _alone = alone();
    let watch = watch();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let inner = async { sleep_until(&over) }.task("inner");
        let outer = async {
            inner.await;
            black_box(());
        };
        let worker = scope.spawn(|| support::run(outer.task("outer")));
        let row = wait_for(&watch, "inner", has_stack);
        over.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        assert!(is_at(&row, HERE, SLEEP, "sleep_until"), "{row:#?}");
    });
    let report = watch.stop();
    assert!(super::rows(&report, "outer").is_empty(), "{report:#?}");
    assert_eq!(super::rows(&report, "inner").len(), 1, "{report:#?}");
}
