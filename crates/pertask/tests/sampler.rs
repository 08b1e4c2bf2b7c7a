//! The sampler: whose time it sees, that it sees all of it, where, and that it leaves the process as it was.

#![cfg(target_os = "linux")]

mod support;

use futures::executor::block_on;
use pertask::sampler::{Mechanism, RawProfile, RawSample, Sampler, SamplerOptions};
use pertask::{LabelExt, TaskExt, scope};
use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Poll;
use std::thread;
use support::{alone, loudly, ms};

/// Counts each thread's calls.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's word.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's word.
        unsafe { Heap.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

fn gettid() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Uses the CPU, mostly in user mode.
#[inline(never)]
fn spin(milliseconds: u64) {
    let start = thread_cpu_ns();
    while thread_cpu_ns() - start < ms(milliseconds) {
        for round in 0..20_000 {
            black_box(round);
        }
    }
}

/// As `spin`, with a name to be looked for in stacks.
#[inline(never)]
fn outermost(milliseconds: u64) {
    deeper(milliseconds, 20);
    black_box(());
}

#[inline(never)]
fn deeper(milliseconds: u64, levels: u32) {
    if levels == 0 {
        spin(milliseconds);
    } else {
        deeper(milliseconds, levels - 1);
    }
    black_box(());
}

fn options(mechanism: Mechanism) -> SamplerOptions {
    let mut options = SamplerOptions::with_frequency(997);
    options.mechanism = Some(mechanism);
    options
}

/// Starts by that mechanism, or says that it cannot.
fn start(mechanism: Mechanism) -> Option<Sampler> {
    match Sampler::start(options(mechanism)) {
        Ok(sampler) => Some(sampler),
        Err(refused) => {
            loudly(&format!("NOT TESTED with {mechanism}: {refused}"));
            None
        }
    }
}

fn cpu_ns<'a>(samples: impl IntoIterator<Item = &'a RawSample>) -> u64 {
    samples.into_iter().map(|sample| sample.cpu_ns).sum()
}

fn of_thread(profile: &RawProfile, thread: u32) -> impl Iterator<Item = &RawSample> {
    profile.samples.iter().filter(move |sample| sample.thread == thread)
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

#[test]
fn tasks_share_the_time_as_they_used_it() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let Some(sampler) = start(mechanism) else { continue };
        let used = [AtomicU64::new(0), AtomicU64::new(0)];
        let work = async |which: usize, milliseconds: u64| {
            let start = thread_cpu_ns();
            spin(milliseconds);
            used[which].fetch_add(thread_cpu_ns() - start, Relaxed);
        };
        let mut ids = [Vec::new(), Vec::new()];
        // Not in step with any tick.
        for round in 0..60 {
            for (which, milliseconds) in [(0, 9 + round % 7), (1, 3 + round % 3)] {
                let task = work(which, milliseconds).task(["large", "small"][which]);
                ids[which].push(task.handle().unwrap().id().get());
                block_on(task);
            }
        }
        let profile = sampler.stop();
        let of = |which: usize| {
            cpu_ns(
                profile
                    .samples
                    .iter()
                    .filter(|s| s.task.is_some_and(|id| ids[which].contains(&id))),
            )
        };
        let (large, small) = (of(0), of(1));
        let truth = used.each_ref().map(|used| used.load(Relaxed));
        let (sampled, true_share) =
            (percent(small, small + large), percent(truth[1], truth[0] + truth[1]));
        loudly(&format!(
            "{}: small task {sampled:.2} %, truly {true_share:.2} %",
            profile.mechanism
        ));
        // One sample in four goes to the small one. A timer keeps in step with the tick.
        let tolerance = if mechanism == Mechanism::Timer { 8.0 } else { 3.0 };
        assert!((sampled - true_share).abs() < tolerance, "{sampled} is not {true_share}");
        let seen = percent(large + small, truth[0] + truth[1]);
        assert!((95.0..105.0).contains(&seen), "{seen} % of the tasks' time");
        let mut sites = [0, 1].map(|which| {
            let of = |s: &&RawSample| s.task.is_some_and(|id| ids[which].contains(&id));
            let samples = profile.samples.iter().filter(of);
            samples.map(|s| s.path.unwrap()).collect::<BTreeSet<_>>()
        });
        assert_eq!(sites.each_ref().map(BTreeSet::len), [1, 1], "one site, one path each");
        assert_ne!(sites[0].pop_first(), sites[1].pop_first());
    }
}

/// All CPU time of the samples that have this label, and these scopes.
fn cpu_ns_in(profile: &RawProfile, tenant: Option<&str>, scopes: &[&str]) -> u64 {
    let fits = |sample: &&RawSample| {
        let names = sample.scopes.iter().map(|name| &**name);
        sample.labels.get("tenant") == tenant && names.eq(scopes.iter().copied())
    };
    cpu_ns(profile.samples.iter().filter(fits))
}

#[test]
fn a_sample_knows_its_tasks_labels_scopes_and_parent() {
    let _alone = alone();
    async fn handle() {
        let _request = scope!("request");
        // Between the two halves another task runs here.
        spin(100);
        yield_now().await;
        let _parse = scope!("parse");
        spin(100);
    }
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let (first, second, parent) = block_on(
        async {
            let parent = pertask::core::Cpu::with(|cpu| cpu.current()).unwrap().id().get();
            let first = handle().task("first").labels([("tenant", "acme")]);
            let second = handle().task("second").labels([("tenant", "globex")]);
            let ids = [&first, &second].map(|task| task.handle().unwrap().id().get());
            futures::join!(first, second);
            (ids[0], ids[1], parent)
        }
        .task("parent"),
    );
    block_on(async { spin(100) }.labels([("tenant", "nobody's")]));
    let profile = sampler.stop();
    for (tenant, id) in [("acme", first), ("globex", second)] {
        let whole = cpu_ns(profile.samples.iter().filter(|sample| sample.task == Some(id)));
        let parts = cpu_ns_in(&profile, Some(tenant), &["request"])
            + cpu_ns_in(&profile, Some(tenant), &["request", "parse"]);
        assert!(percent(parts, whole) > 98.0, "{parts} of {whole} ns of {tenant}");
        assert!(percent(cpu_ns_in(&profile, Some(tenant), &["request", "parse"]), whole) > 40.0);
        let is_child =
            |sample: &RawSample| sample.task != Some(id) || sample.parent == Some(parent);
        assert!(profile.samples.iter().all(is_child));
    }
    let path = profile.samples.iter().find(|sample| sample.task == Some(first)).unwrap().path;
    let path = pertask::core::System::global().path(path.unwrap()).unwrap();
    assert_eq!(path.site().name(), Some("first"));
    assert_eq!(path.parent().unwrap().site().name(), Some("parent"));
    let outside = profile
        .samples
        .iter()
        .filter(|sample| sample.task.is_none() && sample.labels.get("tenant") == Some("nobody's"));
    assert!(cpu_ns(outside) > ms(90), "labels hold outside of tasks, too");
}

async fn yield_now() {
    let mut first = true;
    futures::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

#[test]
fn what_no_task_uses_goes_to_the_thread() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    block_on(async { spin(50) }.task("work"));
    let thread = thread::spawn(|| {
        spin(200);
        gettid()
    });
    let thread = thread.join().unwrap();
    let profile = sampler.stop();
    assert!(
        of_thread(&profile, thread).all(|sample| sample.task.is_none() && sample.path.is_none())
    );
    let seen = cpu_ns(of_thread(&profile, thread));
    assert!((ms(190)..ms(220)).contains(&seen), "{seen} ns of 200 ms");
    let tasks = cpu_ns(of_thread(&profile, gettid()).filter(|sample| sample.task.is_some()));
    assert!((ms(46)..ms(60)).contains(&tasks), "{tasks} ns of 50 ms");
}

#[test]
fn carried_time_adds_up_to_the_process_and_threads_born_meanwhile_are_seen() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        // So that there is something to be left out.
        spin(50);
        let Some(sampler) = start(mechanism) else { continue };
        let born: Vec<_> = (0..3)
            .map(|_| {
                thread::spawn(|| {
                    spin(250);
                    gettid()
                })
            })
            .collect();
        spin(250);
        let born: Vec<u32> = born.into_iter().map(|thread| thread.join().unwrap()).collect();
        let profile = sampler.stop();
        let carried = profile.carried_cpu_ns();
        let seen = percent(carried, profile.process_cpu_ns);
        let (lost, count) = (profile.lost, profile.samples.len());
        loudly(&format!("{mechanism}: {count} samples carry {seen:.2} %; {lost:?}"));
        // What each thread has used since its last sample is in none: up to a tick, with a timer.
        let least = if mechanism == Mechanism::Timer { 90.0 } else { 98.0 };
        assert!((least..=100.5).contains(&seen), "{seen} %");
        let rest = profile.process_cpu_ns - carried;
        assert_eq!(lost.unsampled_cpu_ns, rest, "what is in no sample is told of");
        for thread in born {
            let seen = cpu_ns(of_thread(&profile, thread));
            let least = if mechanism == Mechanism::Timer { 200 } else { 240 };
            assert!((ms(least)..ms(270)).contains(&seen), "{seen} ns of 250 ms");
        }
    }
}

#[test]
fn stacks_reach_the_root_and_the_outermost_function() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let Some(sampler) = start(mechanism) else { continue };
        let thread = thread::spawn(|| {
            outermost(400);
            gettid()
        });
        let thread = thread.join().unwrap();
        let profile = sampler.stop();
        let outer = (outermost as fn(u64) as *const ()).addr() as u64;
        // What one function's code is at most, here.
        let in_outer = |at: &u64| (outer..outer + 256).contains(at);
        let samples: Vec<_> = of_thread(&profile, thread).collect();
        let good = |sample: &&&RawSample| sample.complete && sample.stack.iter().any(in_outer);
        let whole = samples.iter().filter(good).count();
        let count = samples.len();
        loudly(&format!("{mechanism}: {whole} of {count} stacks are whole"));
        assert!(count >= 50, "{count} samples");
        // The first and the last may be before and after it.
        assert!((whole + 2) * 100 >= count * 99, "{whole} of {count}");
        let known = |at: &u64| {
            let mut ranges = profile.modules.iter().flat_map(|module| &module.ranges);
            ranges.any(|range| range.addresses.contains(at))
        };
        assert!(samples.iter().flat_map(|sample| sample.stack.iter()).all(known), "unknown code");
    }
}

static OWN: AtomicU64 = AtomicU64::new(0);

extern "C" fn own_handler(_: i32) {
    OWN.fetch_add(1, Relaxed);
}

fn action(signal: i32, new: Option<usize>) -> libc::sigaction {
    // SAFETY: numbers and a set of bits.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let mut old = action;
    if let Some(handler) = new {
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_NODEFER;
    }
    let new = if new.is_some() { &raw const action } else { std::ptr::null() };
    // SAFETY: a handler of ours or none, and a place for the old one.
    assert_eq!(unsafe { libc::sigaction(signal, new, &raw mut old) }, 0);
    old
}

fn raise(signal: i32) {
    // SAFETY: to this thread, which has a handler for it.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

#[test]
fn a_handler_of_the_hosts_keeps_its_signal_and_comes_back() {
    let _alone = alone();
    let before =
        action(libc::SIGTRAP, Some((own_handler as extern "C" fn(i32) as *const ()).addr()));
    if let Some(sampler) = start(Mechanism::PerfTrap) {
        assert_ne!(action(libc::SIGTRAP, None).sa_sigaction, own_handler as *const () as usize);
        let own = OWN.load(Relaxed);
        spin(50);
        assert_eq!(OWN.load(Relaxed), own, "the sampler's signals are not the host's");
        (0..10).for_each(|_| raise(libc::SIGTRAP));
        assert_eq!(OWN.load(Relaxed), own + 10, "the host's signals are");
        let profile = sampler.stop();
        // How many depends on how long the whole machine was stopped by its host: that is told as CPU time.
        assert!(!profile.samples.is_empty(), "{:?} by {}", profile.lost, profile.mechanism);
        let after = action(libc::SIGTRAP, None);
        assert_eq!(after.sa_sigaction, own_handler as *const () as usize);
        assert_eq!(after.sa_flags & libc::SA_NODEFER, libc::SA_NODEFER);
    }
    action(libc::SIGTRAP, Some(before.sa_sigaction));
}

/// While a session goes on that has ended early, another one would sample nobody.
#[test]
fn beside_a_session_that_has_ended_early_none_begins() {
    let _alone = alone();
    let Some(first) = start(Mechanism::PerfTrap) else { return };
    action(libc::SIGTRAP, Some(own_handler as *const () as usize));
    // The collector looks many times a second.
    let refused = (0..3_000).find_map(|_| {
        spin(1);
        Sampler::start(options(Mechanism::PerfTrap)).err()
    });
    let refused = refused.map_or_else(String::new, |why| why.to_string());
    assert!(refused.contains("another handler"), "{refused}");
    let profile = first.stop();
    assert!(profile.mechanism.contains("ended early"), "{}", profile.mechanism);
    action(libc::SIGTRAP, Some(libc::SIG_DFL));
    let again = start(Mechanism::PerfTrap).expect("as before");
    spin(10);
    assert!(!again.stop().samples.is_empty());
}

#[test]
fn stop_restores_every_signal() {
    let _alone = alone();
    let all = || {
        (1..=64)
            .filter(|s| ![32, 33].contains(s))
            .map(|s| action(s, None).sa_sigaction)
            .collect::<Vec<_>>()
    };
    for mechanism in Mechanism::ALL {
        let before = all();
        let Some(sampler) = start(mechanism) else { continue };
        assert_ne!(all(), before);
        // While other threads are being interrupted.
        let mut at_once = false;
        let go_on = AtomicBool::new(true);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while go_on.load(Relaxed) {
                        spin(1);
                    }
                });
            }
            spin(30);
            let profile = sampler.stop();
            at_once = all() == before;
            spin(30);
            go_on.store(false, Relaxed);
            assert!(!profile.samples.is_empty());
        });
        if !at_once {
            loudly(&format!("{mechanism}: on this busy machine a thread did not run in time"));
            drop(start(mechanism));
        }
        assert_eq!(all(), before, "{mechanism}");
    }
}

#[test]
fn many_starts_and_stops_among_busy_threads_do_no_harm() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let go_on = AtomicBool::new(true);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while go_on.load(Relaxed) {
                        // Takes the allocator's lock, which the handler must not want.
                        drop(black_box(vec![0_u8; 4_000]));
                        thread::spawn(|| black_box(vec![0_u8; 100])).join().unwrap();
                    }
                });
            }
            for _ in 0..20 {
                let mut options = options(mechanism);
                options.frequency_hz = 5_000;
                let Ok(sampler) = Sampler::start(options) else { break };
                spin(5);
                drop(sampler);
            }
            go_on.store(false, Relaxed);
        });
    }
}

#[test]
fn a_full_ring_drops_and_counts_and_loses_no_time() {
    let _alone = alone();
    let mut options = options(Mechanism::PerfTrap);
    options.frequency_hz = 5_000;
    // Room for one sample.
    options.ring_bytes = 0;
    let sampler = match Sampler::start(options) {
        Ok(sampler) => sampler,
        Err(refused) => return loudly(&format!("NOT TESTED: {refused}")),
    };
    outermost(300);
    let profile = sampler.stop();
    let lost = profile.lost;
    assert!(lost.dropped_ring_full > 100, "{lost:?}");
    let seen = cpu_ns(of_thread(&profile, gettid()));
    assert!((ms(280)..ms(330)).contains(&seen), "{seen} ns of 300 ms; {lost:?}");
}

/// Where a task ran for a moment, no sample may have met it. The clock did.
#[test]
fn who_ran_too_briefly_to_be_met_is_told_of_all_the_same() {
    const BRIEF: u64 = 100;
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let mut options = options(mechanism);
        options.frequency_hz = 50;
        let sampler = match Sampler::start(options) {
            Ok(sampler) => sampler,
            Err(refused) => {
                loudly(&format!("NOT TESTED: {refused}"));
                continue;
            }
        };
        for number in 0..BRIEF {
            block_on(async { spin(2) }.task(format!("brief {number}")));
        }
        let profile = sampler.stop();
        let met = profile.samples.iter().filter_map(|sample| sample.path).collect::<BTreeSet<_>>();
        let unmet = profile.unmet.iter().filter_map(|unmet| unmet.path).collect::<BTreeSet<_>>();
        assert!(unmet.len() > 50, "{} met, {} not", met.len(), unmet.len());
        assert!(met.is_disjoint(&unmet), "each is told of once");
        assert_eq!((met.len() + unmet.len()) as u64, BRIEF);
        let (told, whole) = (profile.carried_cpu_ns(), profile.process_cpu_ns);
        assert!(told <= whole + whole / 50, "{told} ns of {whole}");
        #[cfg(feature = "symbols")]
        check_brief(&profile.resolve(), BRIEF);
    }
}

/// Each has its two milliseconds in what is written, too.
#[cfg(feature = "symbols")]
fn check_brief(profile: &pertask::profile::Profile, count: u64) {
    let mut file = Vec::new();
    profile.write_pprof(&mut file).unwrap();
    assert_eq!(*profile, pertask::profile::Profile::from_pprof(&file[..]).unwrap());
    for number in 0..count {
        let wanted = format!("brief {number}");
        let named = |it: &&pertask::profile::Sample| {
            it.task.as_ref().is_some_and(|task| task.name.as_deref() == Some(&*wanted))
        };
        let seen_ns: u64 = profile.samples.iter().filter(named).map(|sample| sample.cpu_ns).sum();
        // More where the machine was stopped meanwhile.
        assert!(seen_ns >= ms(2) * 19 / 20, "{wanted} has {seen_ns} ns");
    }
    let unsampled_ns = profile.lost.unsampled_cpu_ns;
    let overview = profile.overview(Default::default()).to_string();
    assert_eq!(overview.contains("not in the profile)"), unsampled_ns > 0, "{overview}");
}

#[test]
fn samples_of_a_part_of_the_session_do_not_get_the_time_of_the_rest() {
    let _alone = alone();
    let mut options = options(Mechanism::PerfTrap);
    options.memory_bytes = 4_000;
    let Ok(sampler) = Sampler::start(options) else { return loudly("NOT TESTED: no perf") };
    block_on(async { spin(200) }.task("long"));
    let profile = sampler.stop();
    assert!(profile.lost.dropped_memory_full > 50, "{:?}", profile.lost);
    assert!(profile.carried_cpu_ns() < ms(100), "{} ns", profile.carried_cpu_ns());
    assert!(profile.lost.unsampled_cpu_ns > ms(100), "{:?}", profile.lost);
    assert!(!profile.mechanism.contains("by the clock"), "{}", profile.mechanism);
}

#[test]
fn no_memory_left_is_counted() {
    let _alone = alone();
    let mut options = options(Mechanism::PerfTrap);
    options.memory_bytes = 4_000;
    let Ok(sampler) = Sampler::start(options) else { return loudly("NOT TESTED: no perf") };
    spin(200);
    let profile = sampler.stop();
    assert!(profile.lost.dropped_memory_full > 50, "{:?}", profile.lost);
    assert!(profile.samples.len() < 40);
    assert!(profile.lost.unsampled_cpu_ns > ms(100), "{:?}", profile.lost);
}

#[test]
fn the_handler_does_not_allocate() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let Some(sampler) = start(mechanism) else { continue };
        let thread = thread::spawn(|| {
            let before = CALLS.get();
            outermost(200);
            (gettid(), CALLS.get() - before)
        });
        let (thread, calls) = thread.join().unwrap();
        let profile = sampler.stop();
        assert!(of_thread(&profile, thread).count() >= 30);
        assert_eq!(calls, 0, "{mechanism}");
    }
}

#[test]
fn errno_survives() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    // SAFETY: this thread's own word.
    unsafe { *libc::__errno_location() = 4711 };
    for _ in 0..200_000_000_u64 {
        black_box(());
    }
    // SAFETY: as above.
    assert_eq!(unsafe { *libc::__errno_location() }, 4711);
    assert!(!sampler.stop().samples.is_empty());
}

#[test]
fn sessions_side_by_side_each_get_their_own_time() {
    let _alone = alone();
    // So seldom that the second begins in the middle of a period.
    let mut seldom = options(Mechanism::PerfTrap);
    seldom.frequency_hz = 4;
    let Ok(first) = Sampler::start(seldom) else { return loudly("NOT TESTED: no perf") };
    spin(100);
    let second = Sampler::start(SamplerOptions::with_frequency(4_999)).unwrap();
    spin(200);
    let second = second.stop();
    spin(100);
    let first = first.stop();
    let (long, short) = (cpu_ns(of_thread(&first, gettid())), cpu_ns(of_thread(&second, gettid())));
    // The last 100 ms may be in no sample.
    assert!((ms(290)..ms(420)).contains(&long), "{long}");
    assert!((ms(195)..ms(210)).contains(&short), "{short}");
    assert!(second.samples.len() > 700, "the higher rate: {}", second.samples.len());
}

#[test]
fn a_thread_with_a_small_stack_is_sampled_without_unwinding() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let small = thread::Builder::new().stack_size(64 << 10);
    let thread = small.spawn(|| {
        spin(100);
        gettid()
    });
    let thread = thread.unwrap().join().unwrap();
    let profile = sampler.stop();
    let samples: Vec<_> = of_thread(&profile, thread).collect();
    assert!(samples.len() > 50, "{}", samples.len());
    assert!(samples.iter().all(|sample| !sample.complete && sample.stack.len() <= 1));
    assert!(profile.lost.incomplete_stacks >= samples.len() as u64);
}

#[test]
fn a_thread_that_blocks_the_signal_is_told_of() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let (tell, told) = std::sync::mpsc::channel();
    let go_on = AtomicBool::new(true);
    let profile = thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: a set of ours, filled in before use.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::sigfillset(&raw mut set);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            }
            spin(200);
            tell.send(gettid()).unwrap();
            while go_on.load(SeqCst) {
                thread::yield_now();
            }
        });
        let deaf = told.recv().unwrap();
        let profile = sampler.stop();
        go_on.store(false, SeqCst);
        assert!(of_thread(&profile, deaf).all(|sample| sample.stack.is_empty()));
        profile
    });
    assert_eq!(profile.lost.threads_not_sampled, 1, "{:?}", profile.lost);
    assert!(profile.lost.unsampled_cpu_ns > ms(150));
    // Its signal is pending when sampling ends: the handler must have stayed until then, and may go now.
    drop(Sampler::start(options(Mechanism::PerfTrap)).unwrap());
    assert_eq!(action(libc::SIGTRAP, None).sa_sigaction, libc::SIG_DFL);
}

/// Writes to the stack far below, and says how much of that was written to again while `f` ran.
#[inline(never)]
fn stack_used_below(f: impl FnOnce()) -> usize {
    const WORDS: usize = 32 << 10;
    const UNTOUCHED: u64 = 0xa5a5_5a5a_1234_4321;
    #[inline(never)]
    fn paint() -> *const u64 {
        let mut words = [0_u64; WORDS];
        let words = black_box(&mut words);
        words.fill(UNTOUCHED);
        black_box(words.as_ptr())
    }
    let lowest = paint();
    f();
    // SAFETY: this thread's own stack, which is mapped that far down: it has been written to.
    let touched = (0..WORDS).find(|at| unsafe { lowest.add(*at).read_volatile() } != UNTOUCHED);
    (WORDS - touched.unwrap_or(WORDS)) * size_of::<u64>()
}

#[test]
fn the_handler_leaves_most_of_a_small_stack_alone() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let used = thread::spawn(|| stack_used_below(|| outermost(200))).join().unwrap();
    drop(sampler);
    let without = thread::spawn(|| stack_used_below(|| outermost(20))).join().unwrap();
    loudly(&format!("stack used: {used} bytes with samples, {without} without"));
    assert!(used > without, "it was not interrupted");
    // It asks for 128 KiB.
    assert!(used - without < 64 << 10, "{used}");
}

#[test]
fn libraries_that_come_and_go_meanwhile_are_told_of() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let name = c"libresolv.so.2";
    for _ in 0..3 {
        // SAFETY: a library of the system's, of which nothing is called.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return loudly("NOT TESTED: there is no libresolv.so.2");
        }
        spin(60);
        // SAFETY: as above.
        unsafe { libc::dlclose(library) };
        spin(30);
    }
    let profile = sampler.stop();
    let found: Vec<_> =
        profile.modules.iter().filter(|module| module.path.contains("libresolv")).collect();
    assert!(!found.is_empty(), "{:?}", profile.modules);
    assert!(found.iter().all(|module| !module.ranges.is_empty() && !module.build_id.is_empty()));
    let whole = of_thread(&profile, gettid()).filter(|sample| sample.complete).count();
    assert!(whole * 100 >= of_thread(&profile, gettid()).count() * 99);
}

/// Runs one test of this file in a process of its own, where `variable` is set.
fn in_a_child(test: &str, variable: &str) -> std::process::ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(variable, "1");
    child.output().unwrap().status
}

#[test]
fn a_trap_of_the_programs_own_ends_it_as_it_would_have() {
    const CHILD: &str = "PERTASK_TEST_TRAPS";
    if std::env::var_os(CHILD).is_some() {
        let sampler = start(Mechanism::PerfTrap);
        spin(20);
        raise(libc::SIGTRAP);
        drop(sampler);
        return;
    }
    let _alone = alone();
    let status = in_a_child("a_trap_of_the_programs_own_ends_it_as_it_would_have", CHILD);
    assert_eq!(status.signal(), Some(libc::SIGTRAP), "{status}");
}

#[test]
fn a_forked_child_is_not_sampled_and_ends_as_it_should() {
    const CHILD: &str = "PERTASK_TEST_FORKS";
    if std::env::var_os(CHILD).is_some() {
        let sampler = start(Mechanism::PerfTrap);
        spin(20);
        // SAFETY: the child calls what is allowed after a fork, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            spin(50);
            drop(sampler);
            // SAFETY: ends the child.
            unsafe { libc::_exit(7) };
        }
        let mut status = 0;
        // SAFETY: a child of ours, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 7);
        let samples = sampler.map_or(usize::MAX, |sampler| sampler.stop().samples.len());
        assert!(samples > 5, "the parent's go on");
        return;
    }
    let _alone = alone();
    let status = in_a_child("a_forked_child_is_not_sampled_and_ends_as_it_should", CHILD);
    assert!(status.success(), "{status}");
}

#[test]
fn who_takes_the_signal_over_is_not_sent_ours() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    spin(50);
    let own = (own_handler as extern "C" fn(i32) as *const ()).addr();
    action(libc::SIGTRAP, Some(own));
    spin(300);
    let came = OWN.load(Relaxed);
    spin(200);
    assert_eq!(OWN.load(Relaxed), came, "samples still go to the host's handler");
    let profile = sampler.stop();
    assert!(profile.mechanism.contains("another handler"), "{}", profile.mechanism);
    assert_eq!(action(libc::SIGTRAP, None).sa_sigaction, own, "the host's handler stays");
    action(libc::SIGTRAP, Some(libc::SIG_DFL));
}

#[test]
fn a_thread_that_begins_to_run_tasks_is_known_at_once() {
    let _alone = alone();
    let mut options = options(Mechanism::PerfTrap);
    options.frequency_hz = 4_999;
    let Ok(sampler) = Sampler::start(options) else { return loudly("NOT TESTED: no perf") };
    let work = || {
        // So long that it is sampled before.
        spin(30);
        block_on(async { spin(4) }.task("first of its thread"));
    };
    (0..12).for_each(|_| thread::spawn(work).join().unwrap());
    let profile = sampler.stop();
    let seen = cpu_ns(profile.samples.iter().filter(|sample| sample.task.is_some()));
    loudly(&format!("{seen} ns of 48 ms were seen in tasks"));
    assert!((ms(36)..ms(60)).contains(&seen), "{seen} ns of 48 ms");
}
