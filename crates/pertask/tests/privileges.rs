//! What the profile of a service says with default options, whatever the kernel allows: as the user who runs the tests, as nobody,
//! and with perf refused by a filter. A function that spends its time in the kernel has that time, and so have the labels of those
//! who call it.

#![cfg(target_os = "linux")]

mod support;

use pertask::profile::{GroupBy, Profile, Subject};
use pertask::sampler::{RawProfile, Sampler, SamplerOptions};
use pertask::{LabelExt, Labels, Report, Session, TaskExt};
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use support::process::{become_nobody, forbid_perf, in_a_process_of_its_own};
use support::{alone, loudly, ms, thread_cpu_ns};

/// A file in memory that can be written to for ever: the write costs CPU time in the kernel, and no time at a disk.
fn file_in_memory() -> File {
    use std::os::fd::FromRawFd;
    // SAFETY: a string that ends in 0, and no memory else.
    let descriptor = unsafe { libc::memfd_create(c"written".as_ptr(), 0) };
    assert!(descriptor >= 0);
    // SAFETY: a new descriptor, which nobody else has.
    unsafe { File::from_raw_fd(descriptor) }
}

/// Nine tenths of it in the kernel, at least.
#[inline(never)]
fn big_write(file: &File, milliseconds: u64) -> u64 {
    let (block, start) = (vec![1; 256 << 10], thread_cpu_ns());
    while thread_cpu_ns() - start < ms(milliseconds) {
        file.write_at(&block, 0).unwrap();
    }
    thread_cpu_ns() - start
}

#[inline(never)]
fn computing(milliseconds: u64) -> u64 {
    let start = thread_cpu_ns();
    while thread_cpu_ns() - start < ms(milliseconds) {
        black_box((0..20_000_u64).fold(0, |sum, n| black_box(sum ^ n)));
    }
    thread_cpu_ns() - start
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// The CPU time of a function and of what it called.
fn below(profile: &Profile, function: &str) -> u64 {
    let row = profile.summary(&GroupBy::Function).rows.into_iter().find(
        |row| matches!(&row.subject, Subject::Function { name, .. } if name.ends_with(function)),
    );
    row.map_or(0, |row| row.total.time_ns)
}

/// A tenant whose requests are in the kernel and one whose requests compute, of one kind of request.
async fn requests(file: &File, rounds: u64) -> [u64; 2] {
    let mut used = [0; 2];
    for _ in 0..rounds {
        // Not in step with the tick.
        let written = async { big_write(file, 7) };
        used[0] += written.labels([("tenant", "writes")]).task("POST /doc").await;
        let computed = async { computing(7) };
        used[1] += computed.labels([("tenant", "computes")]).task("POST /doc").await;
    }
    used
}

/// How often a tenant was interrupted, as far as that is known: where an interruption is missing, it fell into the kernel.
fn interruptions(sampled: &RawProfile, tenant: &str) -> u64 {
    let is_meant = |labels: &Labels| labels.get("tenant") == Some(tenant);
    let met = sampled.samples.iter().filter(|sample| is_meant(&sample.labels)).count();
    let missing = sampled.unmet.iter().filter(|unmet| unmet.kernel && is_meant(&unmet.labels));
    met as u64 + missing.map(|unmet| unmet.cpu_ns).sum::<u64>() / sampled.period_ns
}

/// A session over requests of both, and the tenants' true times. Few ticks of a timer's meet a thread that waits for its turn:
/// sessions are longer and longer until enough have met both.
fn sampled_requests() -> (RawProfile, Report, [u64; 2]) {
    let file = file_in_memory();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for longer in [1, 2, 4, 8, 16] {
        let session = Session::start().unwrap();
        let sampler = Sampler::start(SamplerOptions::default()).unwrap();
        let used = runtime.block_on(requests(&file, 60 * longer));
        let (sampled, report) = (sampler.stop(), session.stop());
        if ["writes", "computes"].iter().all(|tenant| interruptions(&sampled, tenant) >= 20) {
            return (sampled, report, used);
        }
    }
    panic!("not twenty interruptions of each");
}

/// What a profile must say of those two, with default options.
fn check_profile() {
    let _alone = alone();
    let (sampled, report, used) = sampled_requests();
    let profile = sampled.resolve();
    println!("{}", sampled.mechanism);

    // By the clock, without samples: exact but for what lies between the test's readings and pertask's.
    let tenants = &report.labels[0];
    for (tenant, used_ns) in ["writes", "computes"].into_iter().zip(used) {
        let row = tenants.values.iter().find(|value| value.value == tenant).unwrap();
        support::check_ns(tenant, row.cpu_ns, used_ns);
    }
    // The same in the profile, which says it in samples and in time without any.
    let by_tenant = profile.summary(&GroupBy::Label("tenant".into()));
    let of = |tenant: &str| {
        let is_meant = |subject: &Subject| matches!(subject, Subject::Label(it) if &**it == tenant);
        by_tenant.rows.iter().find(|row| is_meant(&row.subject)).unwrap().own.time_ns
    };
    let share = percent(of("writes"), of("writes") + of("computes"));
    let truly = percent(used[0], used[0] + used[1]);
    println!("the tenant in the kernel has {share:.2} %, truly {truly:.2} %");
    assert!((share - truly).abs() < 0.5, "{share} % is not {truly} %");

    // The function that went to the kernel has that time, or it stands apart, below the task.
    let all = used[0] + used[1];
    let (writes, apart) =
        (below(&profile, "::big_write"), below(&profile, "(kernel, not sampled)"));
    let [writes, apart] = [writes, apart].map(|ns| percent(ns, all));
    println!(
        "big_write {writes:.1} %, in the kernel and not sampled {apart:.1} %, truly {truly:.1} %"
    );
    let samples: u64 =
        ["writes", "computes"].iter().map(|tenant| interruptions(&sampled, tenant)).sum();
    let chance = 6.0 * (truly * (100.0 - truly) / samples as f64).sqrt();
    if apart > 0.0 {
        assert!(sampled.mechanism.contains("estimate"), "{}", sampled.mechanism);
        loudly("SKIPPED in part: the kernel's time could not be sampled here, and is an estimate");
    }
    assert!((writes + apart - truly).abs() < chance, "{writes} % and {apart} % are not {truly} %");
}

#[test]
fn as_who_runs_the_tests() {
    check_profile();
}

#[test]
fn as_nobody() {
    if in_a_process_of_its_own("as_nobody", become_nobody) {
        check_profile();
    }
}

#[test]
fn with_perf_refused() {
    if in_a_process_of_its_own("with_perf_refused", forbid_perf) {
        check_profile();
    }
}
