//! Whose time it is: each task, thread, label and scope has what it used, and all of it is told of.

use super::support::{alone, loudly, ms, thread_cpu_ns};
use super::{
    cpu_ns, gettid, kernel_ns, kernel_of_ended_ns, of_thread, options, percent, sample_enough,
    spin, start,
};
use futures::executor::block_on;
use pertask::sampler::{Mechanism, RawProfile, RawSample, Sampler, SamplerOptions};
use pertask::{LabelExt, TaskExt, scope};
use std::collections::BTreeSet;
use std::task::Poll;
use std::thread;

/// What two tasks have used by their thread's clock, and the numbers of the tasks of each.
struct LargeAndSmall {
    used: [u64; 2],
    ids: [Vec<u64>; 2],
}

fn large_and_small(times: u64) -> LargeAndSmall {
    let (mut used, mut ids) = ([0; 2], [Vec::new(), Vec::new()]);
    // Not in step with any tick.
    for round in 0..60 * times {
        for (which, milliseconds) in [(0, 9 + round % 7), (1, 3 + round % 3)] {
            let task = async { spin(milliseconds) }.task(["large", "small"][which]);
            ids[which].push(task.handle().unwrap().id().get());
            used[which] += block_on(task);
        }
    }
    LargeAndSmall { used, ids }
}

impl LargeAndSmall {
    fn samples<'p>(
        &self,
        profile: &'p RawProfile,
        which: usize,
    ) -> impl Iterator<Item = &'p RawSample> {
        let of =
            move |sample: &&RawSample| sample.task.is_some_and(|id| self.ids[which].contains(&id));
        profile.samples.iter().filter(of)
    }
}

#[test]
fn tasks_share_the_time_as_they_used_it() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let of_small =
            |profile: &RawProfile, work: &LargeAndSmall| work.samples(profile, 1).count();
        let sampled = sample_enough(mechanism, 10, large_and_small, of_small);
        let Some((profile, work)) = sampled else { continue };
        let mut sites = [0, 1].map(|which| {
            work.samples(&profile, which).map(|s| s.path.unwrap()).collect::<BTreeSet<_>>()
        });
        assert_eq!(sites.each_ref().map(BTreeSet::len), [1, 1], "one site, one path each");
        // Where the machine takes the CPU away, interruptions are missing, and some of the time has no sample.
        let [large, small] = [0, 1].map(|which| {
            let unmet = profile
                .unmet
                .iter()
                .filter(|unmet| unmet.path.is_some_and(|path| sites[which].contains(&path)));
            cpu_ns(work.samples(&profile, which)) + unmet.map(|unmet| unmet.cpu_ns).sum::<u64>()
        });
        let truth = work.used;
        let (sampled, true_share) =
            (percent(small, small + large), percent(truth[1], truth[0] + truth[1]));
        loudly(&format!(
            "{}: small task {sampled:.2} %, truly {true_share:.2} %",
            profile.mechanism
        ));
        // However few the samples are, both together are what the tasks had by the clock.
        assert!((sampled - true_share).abs() < 1.0, "{sampled} is not {true_share}");
        let seen = percent(large + small, truth[0] + truth[1]);
        assert!((98.0..105.0).contains(&seen), "{seen} % of the tasks' time");
        assert_ne!(sites[0].pop_first(), sites[1].pop_first());
    }
}

/// The time of tasks that is in no sample. Where the machine takes the CPU away, interruptions are missing.
fn unmet_in_tasks(profile: &RawProfile) -> u64 {
    profile.unmet.iter().filter(|unmet| unmet.path.is_some()).map(|unmet| unmet.cpu_ns).sum()
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
    /// Returns what each half has used.
    async fn handle() -> [u64; 2] {
        let _request = scope!("request");
        // Between the two halves another task runs here.
        let first = spin(100);
        yield_now().await;
        let _parse = scope!("parse");
        [first, spin(100)]
    }
    let Some(sampler) = start(Mechanism::PerfTrap) else { return };
    let (ids, halves, parent) = block_on(
        async {
            let parent = pertask::core::Cpu::with(|cpu| cpu.current()).unwrap().id().get();
            let first = handle().task("first").labels([("tenant", "acme")]);
            let second = handle().task("second").labels([("tenant", "globex")]);
            let ids = [&first, &second].map(|task| task.handle().unwrap().id().get());
            (ids, <[_; 2]>::from(futures::join!(first, second)), parent)
        }
        .task("parent"),
    );
    block_on(async { spin(100) }.labels([("tenant", "nobody's")]));
    let profile = sampler.stop();
    for ((tenant, id), [first, second]) in ["acme", "globex"].into_iter().zip(ids).zip(halves) {
        let whole = cpu_ns(profile.samples.iter().filter(|sample| sample.task == Some(id)));
        let parts = cpu_ns_in(&profile, Some(tenant), &["request"])
            + cpu_ns_in(&profile, Some(tenant), &["request", "parse"]);
        assert!(percent(parts, whole) > 98.0, "{parts} of {whole} ns of {tenant}");
        let share = percent(cpu_ns_in(&profile, Some(tenant), &["request", "parse"]), whole);
        assert!((share - percent(second, first + second)).abs() < 10.0, "{share} % of {tenant}");
        let is_child =
            |sample: &RawSample| sample.task != Some(id) || sample.parent == Some(parent);
        assert!(profile.samples.iter().all(is_child));
    }
    let path = profile.samples.iter().find(|sample| sample.task == Some(ids[0])).unwrap().path;
    let path = pertask::core::System::global().path(path.unwrap()).unwrap();
    assert_eq!(path.site().name(), Some("first"));
    assert_eq!(path.parent().unwrap().site().name(), Some("parent"));
    let outside = profile
        .samples
        .iter()
        .filter(|sample| sample.task.is_none() && sample.labels.get("tenant") == Some("nobody's"));
    let outside = cpu_ns(outside) + kernel_ns(&profile, gettid());
    assert!(outside > ms(90), "labels hold outside of tasks, too");
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
    let in_task = block_on(async { spin(50) }.task("work"));
    let thread = thread::spawn(|| {
        spin(200);
        (gettid(), thread_cpu_ns())
    });
    let (thread, used) = thread.join().unwrap();
    let profile = sampler.stop();
    assert!(
        of_thread(&profile, thread).all(|sample| sample.task.is_none() && sample.path.is_none())
    );
    let told = cpu_ns(of_thread(&profile, thread)) + kernel_of_ended_ns(&profile);
    check_sampled("a thread", told, used, unsampled(&profile));
    let tasks = cpu_ns(of_thread(&profile, gettid()).filter(|sample| sample.task.is_some()));
    // That is told by the clock.
    check_sampled("tasks", tasks + unmet_in_tasks(&profile), in_task, 0);
}

/// What one thread may have used since its last sample: some periods.
fn unsampled(profile: &RawProfile) -> u64 {
    10 * profile.period_ns
}

/// Asserts that `sampled` is what was used, but for what was used after the last sample, and before the first reading of the
/// test's own clock and after the last.
#[track_caller]
fn check_sampled(what: &str, sampled: u64, used: u64, unsampled: u64) {
    let least = used.saturating_sub(unsampled + used / 50);
    let most = used + used / 20 + ms(5);
    assert!((least..most).contains(&sampled), "{what}: {sampled} ns of {used}");
}

#[test]
fn carried_time_adds_up_to_the_process_and_threads_born_meanwhile_are_seen() {
    let _alone = alone();
    /// Samples of each thread.
    const ENOUGH: usize = 50;
    for mechanism in Mechanism::ALL {
        // So that there is something to be left out.
        spin(50);
        let work = |times| {
            let busy = move || {
                spin(250 * times);
                (gettid(), thread_cpu_ns())
            };
            let born: Vec<_> = (0..3).map(|_| thread::spawn(busy)).collect();
            spin(250 * times);
            born.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        };
        let fewest = |profile: &RawProfile, born: &Vec<(u32, u64)>| {
            let samples = born.iter().map(|(thread, _)| of_thread(profile, *thread).count());
            samples.min().unwrap()
        };
        let Some((profile, born)) = sample_enough(mechanism, ENOUGH, work, fewest) else {
            continue;
        };
        let carried = profile.carried_cpu_ns();
        let seen = percent(carried, profile.process_cpu_ns);
        let (lost, count) = (profile.lost, profile.samples.len());
        loudly(&format!("{mechanism}: {count} samples carry {seen:.2} %; {lost:?}"));
        // What each thread has used since its last sample is in none. A timer's tick comes by chance, and beside other programs a
        // thread may keep in step with it: there it is a stretch of any length, of which it is only certain that it is told.
        let by_chance = mechanism == Mechanism::Timer;
        let least = if by_chance { 0.0 } else { 98.0 };
        assert!((least..=100.5).contains(&seen), "{seen} %");
        let rest = profile.process_cpu_ns - carried;
        assert_eq!(lost.unsampled_cpu_ns, rest, "what is in no sample is told of");
        // Some of it may be missing interruptions, of which it is not known which of the threads had them.
        let shared = kernel_of_ended_ns(&profile);
        for (thread, used) in born {
            let after = if by_chance { used } else { unsampled(&profile) };
            let told = cpu_ns(of_thread(&profile, thread));
            check_sampled("a thread", told, used, after + shared);
        }
    }
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
        let seen_ns: u64 = profile.samples.iter().filter(named).map(|sample| sample.time_ns).sum();
        // More where the machine was stopped meanwhile.
        assert!(seen_ns >= ms(2) * 19 / 20, "{wanted} has {seen_ns} ns");
    }
    let unsampled_ns = profile.lost.unsampled_cpu_ns;
    let overview = profile.overview(Default::default()).to_string();
    assert_eq!(overview.contains("not in the profile)"), unsampled_ns > 0, "{overview}");
}

#[test]
fn sessions_side_by_side_each_get_their_own_time() {
    let _alone = alone();
    // So seldom that the second begins in the middle of a period.
    let mut seldom = options(Mechanism::PerfTrap);
    seldom.frequency_hz = 4;
    let start_ns = thread_cpu_ns();
    let Ok(first) = Sampler::start(seldom) else { return loudly("NOT TESTED: no perf") };
    let of_first = [start_ns, thread_cpu_ns()];
    spin(100);
    let start_ns = thread_cpu_ns();
    let second = Sampler::start(SamplerOptions::with_frequency(4_999)).unwrap();
    let of_second = [start_ns, thread_cpu_ns()];
    spin(200);
    let end_ns = thread_cpu_ns();
    let second = second.stop();
    let used = [end_ns - of_second[1], thread_cpu_ns() - of_second[0]];
    spin(100);
    let first = first.stop();
    let most = thread_cpu_ns() - of_first[0];
    let whole = |profile| cpu_ns(of_thread(profile, gettid())) + kernel_ns(profile, gettid());
    let (long, short) = (whole(&first), whole(&second));
    // What comes after the second session may be in no sample.
    let least = end_ns - of_first[1] - ms(5);
    assert!((least..=most).contains(&long), "{long}: not {least} to {most}");
    assert!((used[0] - ms(5)..=used[1]).contains(&short), "{short}: not {used:?}");
    let signals: u64 = second.samples.iter().map(|sample| 1 + u64::from(sample.overrun)).sum();
    assert!(signals > 700, "the higher rate: {signals}");
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
        block_on(async { spin(4) }.task("first of its thread"))
    };
    let used: u64 = (0..12).map(|_| thread::spawn(work).join().unwrap()).sum();
    let profile = sampler.stop();
    let in_tasks: Vec<_> = profile.samples.iter().filter(|sample| sample.task.is_some()).collect();
    // By their number: the times of one spawn path's samples are the clock's, however few they are.
    let signals: u64 = in_tasks.iter().map(|sample| 1 + u64::from(sample.overrun)).sum();
    let due = used / profile.period_ns;
    loudly(&format!("{signals} of {due} signals came in tasks"));
    assert!(signals >= due * 3 / 4, "{signals} of {due}");
    check_sampled("tasks", cpu_ns(in_tasks) + unmet_in_tasks(&profile), used, 0);
}

/// Where polls end in another order than they began, the samples' tasks are not the clock's. The time is in the profile all the same.
#[test]
fn time_in_an_unknown_task_is_told_of() {
    use corosensei::{Coroutine, CoroutineResult, Yielder};
    let _alone = alone();
    let polls_and_stops = |name: &'static str| {
        Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
            let work = async {
                for _ in 0..10 {
                    spin(10);
                    yielder.suspend(());
                }
            };
            super::support::run(work.task(name));
        })
    };
    let Some(sampler) = start(Mechanism::Timer) else { return };
    let (mut first, mut second) = (polls_and_stops("first"), polls_and_stops("second"));
    // The first ends while the second is in the middle of its poll.
    while !matches!(first.resume(()), CoroutineResult::Return(())) {
        second.resume(());
    }
    while !matches!(second.resume(()), CoroutineResult::Return(())) {}
    let profile = sampler.stop();
    let unknown = |unmet: &&pertask::sampler::Unmet| {
        unmet.path.is_none() && unmet.thread.is_none() && !unmet.kernel
    };
    let unknown_ns: u64 = profile.unmet.iter().filter(unknown).map(|unmet| unmet.cpu_ns).sum();
    assert!(unknown_ns > ms(100), "{:?}", profile.unmet);
    let seen = percent(profile.carried_cpu_ns(), profile.process_cpu_ns);
    assert!((80.0..100.5).contains(&seen), "{seen} %");
}
