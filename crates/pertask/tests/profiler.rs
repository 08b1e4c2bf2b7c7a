//! From samples to a profile: each task's own functions stand under the task, with the shares that they truly had.

#![cfg(target_os = "linux")]

mod support;

use pertask::profile::{Profile, Sample};
use pertask::sampler::{Mechanism, Sampler, SamplerOptions};
use pertask::{LabelExt, TaskExt, scope};
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use support::{alone, loudly, ms};

fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Computes in user mode, in its caller: without calls of its own, whatever the compiler does.
#[inline(always)]
fn compute(rounds: u64) {
    // SAFETY: counts a register down.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("2: dec {0}", "jnz 2b", inout(reg) rounds => _, options(nomem, nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("2: subs {0}, {0}, #1", "b.ne 2b", inout(reg) rounds => _, options(nomem, nostack));
    }
}

/// Returns the CPU time that it has used.
#[inline(never)]
fn small(milliseconds: u64) -> u64 {
    let start = thread_cpu_ns();
    while thread_cpu_ns() - start < ms(milliseconds) {
        compute(20_000);
    }
    thread_cpu_ns() - start
}

/// As `small`, by another name.
#[inline(never)]
fn large(milliseconds: u64) -> u64 {
    let start = thread_cpu_ns();
    while thread_cpu_ns() - start < ms(milliseconds) {
        compute(20_000);
    }
    black_box(thread_cpu_ns() - start)
}

fn start(mechanism: Mechanism) -> Option<Sampler> {
    let mut options = SamplerOptions::with_frequency(997);
    options.mechanism = Some(mechanism);
    match Sampler::start(options) {
        Ok(sampler) => Some(sampler),
        Err(refused) => {
            loudly(&format!("NOT TESTED with {mechanism}: {refused}"));
            None
        }
    }
}

/// The functions of a sample, innermost first.
fn functions<'p>(profile: &'p Profile, sample: &Sample) -> Vec<&'p str> {
    let locations = sample.stack.iter().filter_map(|id| profile.location(*id));
    let lines = locations.flat_map(|location| &location.lines);
    lines.filter_map(|line| profile.function(line.function)).map(|f| &*f.name).collect()
}

fn cpu_ns<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> u64 {
    samples.into_iter().map(|sample| sample.time_ns).sum()
}

fn of_function<'p>(profile: &'p Profile, function: &str) -> impl Iterator<Item = &'p Sample> {
    profile.samples.iter().filter(move |sample| functions(profile, sample).contains(&function))
}

fn cpu_ns_in(profile: &Profile, function: &str) -> u64 {
    cpu_ns(of_function(profile, function))
}

/// How often the kernel has interrupted threads for these.
fn times<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> u64 {
    samples.into_iter().map(|sample| sample.count).sum()
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// How far chance takes a share of so many samples: six standard deviations, in points.
fn chance(samples: u64, share: f64) -> f64 {
    6.0 * (share * (100.0 - share) / samples as f64).sqrt()
}

/// Asserts that a share of so many samples, which should be nearly all, lacks no more than one in a hundred, and what chance adds.
#[track_caller]
fn check_nearly_all(what: &str, part: u64, whole: u64, samples: u64) {
    let missing = 100.0 - percent(part, whole);
    assert!(missing < 1.0 + chance(samples, 1.0), "{missing} % of {samples} samples: {what}");
}

fn is_named(sample: &Sample, name: &str) -> bool {
    sample.task.as_ref().and_then(|task| task.name.as_deref()) == Some(name)
}

#[test]
fn each_tasks_functions_stand_under_it_with_their_true_shares() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let truth = runtime.block_on(async {
        let work = |milliseconds, function: fn(u64) -> u64, tenant, name| {
            let turns = async move {
                let _request = scope!("request");
                let mut used = 0;
                for _ in 0..50 {
                    used += function(milliseconds);
                    tokio::task::yield_now().await;
                }
                used
            };
            tokio::spawn(turns.task(name).labels([("tenant", tenant)]))
        };
        let tasks = (work(5, small, "acme", "GET /small"), work(15, large, "globex", "GET /large"));
        (tasks.0.await.unwrap(), tasks.1.await.unwrap())
    });
    let profile = sampler.stop().resolve();
    let of_tasks = ["GET /small", "GET /large"]
        .map(|name| cpu_ns(profile.samples.iter().filter(|s| is_named(s, name))));
    let true_share = percent(truth.0, truth.0 + truth.1);
    let share = percent(of_tasks[0], of_tasks[0] + of_tasks[1]);
    println!("the small task has {share:.2} % of both, truly {true_share:.2} %");
    assert!((share - true_share).abs() < 2.0, "{share} is not {true_share}");
    for (name, function, tenant) in
        [("GET /small", "profiler::small", "acme"), ("GET /large", "profiler::large", "globex")]
    {
        let own: Vec<_> = profile.samples.iter().filter(|sample| is_named(sample, name)).collect();
        // They read the clock now and then: a system call.
        let is_inside = |name: &&str| *name == function || *name == IN_KERNEL;
        let inside = own.iter().copied().filter(|s| functions(&profile, s).iter().any(is_inside));
        let (inside, whole) = (cpu_ns(inside), cpu_ns(own.iter().copied()));
        check_nearly_all(name, inside, whole, times(own.iter().copied()));
        for sample in own.into_iter().filter(|sample| sample.count > 0) {
            let stack = functions(&profile, sample);
            // It ends where the task is polled, or switched, and not where its worker began.
            let root = stack.last().expect("a function");
            assert!(
                ["profiler::", "Tracked", "pertask::tasks::"].iter().any(|own| root.contains(own)),
                "{stack:?}"
            );
            assert_eq!(&*sample.labels[0].1, tenant);
            assert!(sample.scopes.is_empty() || &*sample.scopes[0] == "request");
            let site = sample.task.as_ref().and_then(|task| task.site.as_ref()).expect("a site");
            assert!(site.file.ends_with("tests/profiler.rs"), "{site:?}");
        }
    }
    let scoped: Vec<_> = profile.samples.iter().filter(|s| !s.scopes.is_empty()).collect();
    let samples = times(scoped.iter().copied());
    let sampled = profile.samples.iter().filter(|s| s.task.is_some() && s.count > 0);
    check_nearly_all("in scopes", cpu_ns(scoped), cpu_ns(sampled), samples);
}

#[test]
fn a_profile_of_samples_survives_its_file() {
    let _alone = alone();
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    futures::executor::block_on(async { small(100) }.labels([("tenant", "acme")]).task("GET /"));
    let profile = sampler.stop().resolve();
    let program = profile.mappings.first().expect("mappings");
    assert_eq!(std::path::Path::new(&*program.file), std::env::current_exe().unwrap());
    let mut file = Vec::new();
    profile.write_pprof(&mut file).unwrap();
    let read = Profile::from_pprof(&file[..]).unwrap();
    assert_eq!(cpu_ns_in(&read, "profiler::small"), cpu_ns_in(&profile, "profiler::small"));
    assert_eq!(read, profile);
}

/// Work that begins with each timer tick and takes a quarter of the time to the next.
#[inline(never)]
fn with_the_tick(length_ns: u64) -> u64 {
    let start = thread_cpu_ns();
    while thread_cpu_ns() - start < length_ns {
        compute(50_000);
    }
    black_box(thread_cpu_ns() - start)
}

#[inline(never)]
fn until_the_tick() {
    let coarse = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes one timespec, which is ours.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
        (time.tv_sec, time.tv_nsec)
    };
    let before = coarse();
    while coarse() == before {
        compute(50);
    }
}

#[test]
fn work_that_keeps_in_step_with_the_tick_is_seen() {
    let _alone = alone();
    for mechanism in [Mechanism::PerfTrap, Mechanism::PerfSignal] {
        let Some(sampler) = start(mechanism) else { continue };
        let (mut truth, start_ns) = (0, thread_cpu_ns());
        for _ in 0..400 {
            truth += with_the_tick(1_000_000);
            until_the_tick();
        }
        let true_share = percent(truth, thread_cpu_ns() - start_ns);
        let profile = sampler.stop().resolve();
        let [locked, rest] = ["profiler::with_the_tick", "profiler::until_the_tick"]
            .map(|function| cpu_ns_in(&profile, function));
        let share = percent(locked, locked + rest);
        println!("{mechanism}: in step with the tick {share:.2} %, truly {true_share:.2} %");
        let off = (share - true_share).abs();
        assert!(off < chance(times(&profile.samples), true_share), "{share} is not {true_share}");
    }
}

/// In the place of a function.
const IN_KERNEL: &str = "(kernel, not sampled)";

/// Mostly in the kernel.
#[inline(never)]
fn calling(length_ns: u64) -> u64 {
    let start = thread_cpu_ns();
    while thread_cpu_ns() - start < length_ns {
        let mut zeros = [0_u8; 4096];
        for _ in 0..10 {
            // SAFETY: no descriptor, and room for what is not read.
            unsafe { libc::syscall(libc::SYS_getrandom, zeros.as_mut_ptr(), zeros.len(), 0) };
        }
    }
    black_box(thread_cpu_ns() - start)
}

#[test]
fn time_in_the_kernel_is_the_callers_or_said_not_to_be() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let Some(sampler) = start(mechanism) else { continue };
        let (mut truth, start_ns) = (0, thread_cpu_ns());
        for _ in 0..40 {
            // Not in step with the tick.
            truth += calling(7_300_000);
            large(19);
        }
        let true_share = percent(truth, thread_cpu_ns() - start_ns);
        let sampled = sampler.stop();
        let profile = sampled.resolve();
        let [calling, kernel, rest] = ["profiler::calling", IN_KERNEL, "profiler::large"]
            .map(|function| cpu_ns_in(&profile, function));
        let share = percent(calling + kernel, calling + kernel + rest);
        println!("in the kernel {share:.2} %, truly {true_share:.2} %; {}", sampled.mechanism);
        // Where an interruption falls into the kernel, it is missing and counted: as good as a sample.
        let samples = (calling + kernel + rest) / sampled.period_ns;
        let most = chance(samples.min(interruptions(&profile)), true_share);
        assert!(share > true_share - most, "{share} is less than {true_share}");
        if mechanism == Mechanism::Timer {
            assert!(share < true_share + most, "{share} is more than {true_share}");
            assert_eq!(kernel, 0, "a timer sees the call");
        } else {
            // On a busy machine, others are missing, too, and the estimate is too high by any amount. What has samples keeps them.
            assert!(rest > 0, "nothing is left of what computes");
            assert!(percent(calling, calling + kernel) < 20.0, "it is the kernel's time");
            assert!(sampled.mechanism.contains("time in the kernel is estimated"));
        }
    }
}

/// How many interruptions there were or are known to be missing.
fn interruptions(profile: &Profile) -> u64 {
    let kernel = cpu_ns_in(profile, IN_KERNEL) / profile.period_ns;
    times(&profile.samples) + kernel
}

/// Two tasks take turns of a tenth of a millisecond, one in the kernel and one computing. Returns the caller's share, by its own
/// clock readings.
fn turns_of_a_caller_and_a_computer(count: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let turns = |turn: fn() -> u64, name| {
        let turns = async move {
            let mut used = 0;
            for _ in 0..count {
                used += turn();
                tokio::task::yield_now().await;
            }
            used
        };
        turns.task(name)
    };
    let caller = turns(|| calling(100_000), "caller");
    let computer = turns(
        || {
            let start = thread_cpu_ns();
            compute(200_000);
            thread_cpu_ns() - start
        },
        "computer",
    );
    let (caller, computer) = runtime.block_on(async {
        let (caller, computer) = (tokio::spawn(caller), tokio::spawn(computer));
        (caller.await.unwrap(), computer.await.unwrap())
    });
    percent(caller, caller + computer)
}

/// A session of such turns, and the caller's true share. However few they are, samples carry what their tasks had by the clock; but
/// few ticks of a timer's meet a thread that waits for its turn: sessions are longer and longer until some have met both tasks.
fn sampled_turns(mechanism: Mechanism) -> Option<(Profile, f64)> {
    for longer in [1, 2, 4, 8, 16] {
        let sampler = start(mechanism)?;
        let true_share = turns_of_a_caller_and_a_computer(3_000 * longer);
        let profile = sampler.stop().resolve();
        // Equal samples are one, with a count.
        let met = |name| times(profile.samples.iter().filter(|sample| is_named(sample, name)));
        println!("{mechanism}: {} samples, {}", met("caller"), met("computer"));
        if met("caller").min(met("computer")) >= 5 {
            return Some((profile, true_share));
        }
    }
    panic!("{mechanism}: not five samples of each task");
}

#[test]
fn a_task_that_is_mostly_in_the_kernel_has_its_own_time() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let Some((profile, true_share)) = sampled_turns(mechanism) else { continue };
        let of = |name| cpu_ns(profile.samples.iter().filter(move |sample| is_named(sample, name)));
        let share = percent(of("caller"), of("caller") + of("computer"));
        println!("{mechanism}: the caller's share {share:.2} %, truly {true_share:.2} %");
        assert!((share - true_share).abs() < 1.0, "{share} is not {true_share}");
        if mechanism != Mechanism::Timer {
            // The estimate gives it to the task that had it, and not to the one whose samples come next.
            let kernel_of = |name| {
                let own = profile.samples.iter().filter(move |sample| is_named(sample, name));
                cpu_ns(own.filter(|sample| functions(&profile, sample).contains(&IN_KERNEL)))
            };
            let [callers, computers] =
                ["caller", "computer"].map(|name| percent(kernel_of(name), of(name)));
            println!(
                "{mechanism}: {callers:.1} % of the caller and {computers:.1} % of the computer in the kernel"
            );
            // Where the machine takes the CPU away, interruptions of both are missing.
            assert!(callers > 60.0 && callers > computers + 20.0, "{callers} and {computers}");
        }
    }
}

#[test]
fn shares_agree_with_perf_record_beside_it() {
    let _alone = alone();
    let data = std::env::temp_dir().join(format!("pertask-perf-{}.data", std::process::id()));
    let path = data.to_str().unwrap();
    let this = std::process::id().to_string();
    let mut record = Command::new("perf");
    record.args(["record", "-qN", "-e", "cpu-clock:u", "-F", "997", "-o", path, "-p", &this]);
    let record = record.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut record = match record {
        Ok(record) => record,
        Err(why) => return loudly(&format!("SKIPPED: perf record: {why}")),
    };
    // It samples when its file has begun to grow; until then there is nothing to agree with.
    while !std::fs::metadata(&data).is_ok_and(|data| data.len() > 0) {
        if record.try_wait().is_ok_and(|ended| ended.is_some()) {
            return loudly("SKIPPED: perf record ends at once");
        }
        thread::yield_now();
    }
    let sampler = start(Mechanism::PerfTrap);
    for _ in 0..60 {
        small(5);
        large(15);
    }
    let sampled = sampler.map(Sampler::stop);
    // SAFETY: a child of ours that has not been waited for.
    unsafe { libc::kill(record.id().cast_signed(), libc::SIGINT) };
    let _ = record.wait();
    let Some(profile) = sampled.map(|sampled| sampled.resolve()) else { return };
    let report = Command::new("perf")
        .args(["report", "-i", path, "--stdio", "--no-children", "-F", "overhead,symbol"])
        .output();
    let _ = std::fs::remove_file(&data);
    let report = match report {
        Ok(report) if report.status.success() => {
            String::from_utf8_lossy(&report.stdout).into_owned()
        }
        other => return loudly(&format!("SKIPPED: perf report: {other:?}")),
    };
    let share_of = |function: &str| {
        let line = report.lines().find(|line| line.contains(function))?;
        line.trim().split('%').next()?.parse::<f64>().ok()
    };
    let (Some(small), Some(large)) = (share_of("profiler::small"), share_of("profiler::large"))
    else {
        return loudly(&format!("SKIPPED: perf report names neither:\n{report}"));
    };
    let theirs = 100.0 * small / (small + large);
    let [small, large] = ["profiler::small", "profiler::large"].map(|f| cpu_ns_in(&profile, f));
    let ours = percent(small, small + large);
    println!("the small function: {ours:.2} % here, {theirs:.2} % in perf record");
    // Both are of about as many samples, and independent.
    let most = 2_f64.sqrt() * chance(times(&profile.samples), ours);
    assert!((ours - theirs).abs() < most, "{ours} is not {theirs}, give or take {most}\n{report}");
}

/// As docs/USING.md shows it: a session again and again, each written to a file of its own.
fn record_for_ever(folder: &Path) {
    for number in 0.. {
        let sampler = Sampler::start(SamplerOptions::with_frequency(199)).unwrap();
        futures::executor::block_on(async { small(20) }.task("recorded"));
        let part = folder.join("part");
        sampler.stop().write_pprof_unresolved(File::create(&part).unwrap()).unwrap();
        std::fs::rename(part, folder.join(format!("{number}.pb.gz"))).unwrap();
    }
}

#[test]
fn what_was_recorded_before_the_program_is_killed_can_be_read() {
    const FOLDER: &str = "PERTASK_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return record_for_ever(Path::new(&folder));
    }
    let folder = std::env::temp_dir().join(format!("pertask-killed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let name = "what_was_recorded_before_the_program_is_killed_can_be_read";
    let mut recording = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(FOLDER, &folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !folder.join("2.pb.gz").exists() {
        assert!(recording.try_wait().unwrap().is_none(), "it ends by itself");
        thread::sleep(Duration::from_millis(10));
    }
    recording.kill().unwrap();
    recording.wait().unwrap();
    for number in 0..3 {
        let file = File::open(folder.join(format!("{number}.pb.gz"))).unwrap();
        let profile = Profile::from_pprof(file).unwrap();
        let recorded = cpu_ns(profile.samples.iter().filter(|it| is_named(it, "recorded")));
        assert!(recorded >= ms(20), "{recorded} ns");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
