//! Weighing samples by the clock. The clock measures at each switch how much CPU time tasks had; the samples say where in the
//! code.
//!
//! Samples alone are not fair. A thread is not interrupted in the kernel, so that time would count for the code that runs next,
//! which is often another task's. The timer tick misses work that keeps in step with it. A task that runs for some microseconds
//! at a time is hit too seldom. So the samples of all tasks of a spawn path get the CPU time that those tasks had by the clock,
//! in proportion to the times that the samples carried before. Where labels had enough of a path's time to be sampled well, their
//! samples get the time that those labels had, and the path's other samples the rest. The samples of a worker outside tasks get the
//! rest of its thread's time. (Surveys call this post-stratification.) A path or thread that had CPU time and no sample is listed
//! separately: it is known who had the time, but not where.

use super::profile::{RawProfile, RawSample, Unmet};
use crate::os::threads;
use crate::sessions::Clocked;
use crate::tasks::label_set::Labels;
use std::cmp::Reverse;
use std::collections::HashMap;

/// Samples that are weighed together: those of a spawn path with some labels, of the rest of a spawn path, of a worker outside
/// tasks, or of ended threads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stratum {
    Labeled(u32, Labels),
    Path(u32),
    Worker(u32),
    Ended,
}

/// The CPU time that a stratum's samples carry, and the time that they should carry.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    carried_ns: u64,
    clocked_ns: u64,
    /// The part of `clocked_ns` that was in the kernel, without samples.
    kernel_ns: u64,
    /// The time that the samples carried which have been weighed so far.
    done_ns: u64,
}

/// The number of samples that labels should have on average to be a stratum. With fewer, chance would decide which functions have
/// the time.
const ENOUGH: u64 = 20;

impl RawProfile {
    /// Gives the samples the times of the clock. Does nothing if the samples cover only a part of the session, because they
    /// would get the time of the rest, too.
    pub(super) fn weigh(&mut self, clocked: &Clocked) {
        if self.cut_short {
            return;
        }
        let enough_ns = ENOUGH * self.period_ns;
        self.unmet = weigh(&mut self.samples, &self.unmet, clocked, enough_ns);
        for thread in self.unmet.iter().filter_map(|unmet| unmet.thread) {
            self.threads.entry(thread).or_insert_with(|| threads::name(thread));
        }
        self.lost.unsampled_cpu_ns = self.process_cpu_ns.saturating_sub(self.carried_cpu_ns());
        self.mechanism += "; each spawn path's time by the clock";
    }
}

/// Gives the samples of each stratum the CPU time that the stratum had by the clock, less its time in the kernel. Samples of which
/// the clock knows nothing, such as those of threads that run no tasks, keep their own. `kernel` is each thread's time in the
/// kernel without samples. Labels with less than `enough_ns` are not weighed on their own. Returns all time without samples.
fn weigh(
    samples: &mut [RawSample],
    kernel: &[Unmet],
    clocked: &Clocked,
    enough_ns: u64,
) -> Vec<Unmet> {
    let mut shares = clocked.shares(enough_ns);
    for sample in &*samples {
        if let Some(share) = share_of(&mut shares, clocked, sample) {
            share.carried_ns += sample.cpu_ns;
        }
    }
    let (mut unmet, mut kernel_ns, mut ended_ns) = (Vec::new(), 0, 0);
    for time in kernel {
        let stratum = time.thread.and_then(|thread| clocked.stratum(None, thread));
        let Some(stratum) = stratum else {
            unmet.push(time.clone());
            continue;
        };
        // The clock knows the time of a worker that blocks the signal.
        if !time.kernel {
            continue;
        }
        kernel_ns += time.cpu_ns;
        if stratum == Stratum::Ended {
            ended_ns += time.cpu_ns;
        }
    }
    if let Some(ended) = shares.get_mut(&Stratum::Ended) {
        // The time of ended threads that were never sampled does not go to the samples of others.
        ended.clocked_ns = ended.clocked_ns.min(ended.carried_ns + ended_ns);
    }
    share_out_kernel(&mut shares, kernel_ns);
    for sample in &mut *samples {
        if let Some(share) = share_of(&mut shares, clocked, sample) {
            sample.cpu_ns = share.next(sample.cpu_ns);
        }
    }
    unmet.extend(shares.iter().flat_map(|(stratum, share)| share.unmet(stratum)));
    if clocked.unknown_ns > 0 {
        unmet.push(Unmet::of_unknown_task(clocked.unknown_ns));
    }
    unmet.sort_by_key(|it| (Reverse(it.cpu_ns), it.path, it.thread, it.kernel));
    unmet
}

/// The share of a sample's stratum. `None` if the clock does not know it.
fn share_of<'a>(
    shares: &'a mut HashMap<Stratum, Share>,
    clocked: &Clocked,
    sample: &RawSample,
) -> Option<&'a mut Share> {
    if let Some(path) = sample.path.filter(|_| !sample.labels.is_empty()) {
        let labeled = Stratum::Labeled(path, sample.labels.clone());
        if shares.contains_key(&labeled) {
            return shares.get_mut(&labeled);
        }
    }
    shares.get_mut(&clocked.stratum(sample.path, sample.thread)?)
}

/// Says for each stratum how much of its time was in the kernel: what it had beyond its samples, by the clock. The missing
/// interruptions say how much that was in all, but not which tasks had it. Chance makes more of the single differences, so each is
/// taken in proportion.
fn share_out_kernel(shares: &mut HashMap<Stratum, Share>, kernel_ns: u64) {
    let beyond = |share: &Share| share.clocked_ns.saturating_sub(share.carried_ns);
    let all_ns: u128 = shares.values().map(|share| u128::from(beyond(share))).sum();
    for share in shares.values_mut() {
        let beyond_ns = beyond(share);
        let part = u128::from(beyond_ns) * u128::from(kernel_ns) / all_ns.max(1);
        share.kernel_ns = u64::try_from(part).unwrap_or(u64::MAX).min(beyond_ns);
    }
}

impl Clocked {
    /// What each stratum had by the clock.
    fn shares(&self, enough_ns: u64) -> HashMap<Stratum, Share> {
        let share = |clocked_ns| Share { clocked_ns, ..Share::default() };
        let mut rests_ns = self.paths_ns.clone();
        let enough = self.labeled_ns.iter().filter(|(_, ns)| **ns >= enough_ns);
        let labeled: Vec<_> = enough
            .map(|((path, labels), ns)| {
                if let Some(rest_ns) = rests_ns.get_mut(path) {
                    *rest_ns = rest_ns.saturating_sub(*ns);
                }
                (Stratum::Labeled(*path, labels.clone()), share(*ns))
            })
            .collect();
        let paths = rests_ns.into_iter().map(|(path, ns)| (Stratum::Path(path), share(ns)));
        let workers = self
            .threads_ns
            .iter()
            .filter_map(|(thread, own_ns)| Some((Stratum::Worker(*thread), share((*own_ns)?))));
        paths
            .chain(labeled)
            .chain(workers)
            .chain([(Stratum::Ended, share(self.ended_ns))])
            .collect()
    }

    /// The stratum of what a thread did in tasks of a path, or outside tasks. `None` if the clock does not know it.
    fn stratum(&self, path: Option<u32>, thread: u32) -> Option<Stratum> {
        if let Some(path) = path {
            return self.paths_ns.contains_key(&path).then_some(Stratum::Path(path));
        }
        match self.threads_ns.get(&thread) {
            Some(own_ns) => own_ns.map(|_| Stratum::Worker(thread)),
            None => Some(Stratum::Ended),
        }
    }
}

impl Share {
    /// The next sample's part. The parts add up to the whole: what rounding takes from one sample, it gives to another.
    fn next(&mut self, cpu_ns: u64) -> u64 {
        let before = self.up_to(self.done_ns);
        self.done_ns += cpu_ns;
        self.up_to(self.done_ns) - before
    }

    fn up_to(&self, done_ns: u64) -> u64 {
        let part = u128::from(self.clocked_ns - self.kernel_ns) * u128::from(done_ns);
        (part / u128::from(self.carried_ns.max(1))) as u64
    }

    /// The stratum's time without samples: in the kernel, and all the rest if it has no sample. Ended threads without samples are
    /// left out, because nobody knows which they were.
    fn unmet(&self, stratum: &Stratum) -> impl Iterator<Item = Unmet> + use<> {
        let (path, thread, labels) = match stratum {
            Stratum::Labeled(path, labels) => (Some(*path), None, labels.clone()),
            Stratum::Path(path) => (Some(*path), None, Labels::default()),
            Stratum::Worker(thread) => (None, Some(*thread), Labels::default()),
            Stratum::Ended => (None, None, Labels::default()),
        };
        let has_samples = self.carried_ns > 0 || *stratum == Stratum::Ended;
        let rest_ns = if has_samples { 0 } else { self.clocked_ns - self.kernel_ns };
        let both = [(true, self.kernel_ns), (false, rest_ns)];
        let both = both.map(|(kernel, cpu_ns)| Unmet {
            path,
            thread,
            labels: labels.clone(),
            kernel,
            cpu_ns,
        });
        both.into_iter().filter(|unmet| unmet.cpu_ns > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(thread: u32, path: Option<u32>, cpu_ns: u64) -> RawSample {
        RawSample {
            time_ns: 0,
            cpu_ns,
            thread,
            task: path.map(|_| 1),
            parent: None,
            path,
            labels: Labels::default(),
            scopes: [].into(),
            deeper_scopes: 0,
            overrun: 0,
            handler_ns: 0,
            stack: [].into(),
            complete: true,
            truncated: false,
            fiber: false,
        }
    }

    fn weighed(mut samples: Vec<RawSample>, clocked: &Clocked) -> Vec<u64> {
        weigh(&mut samples, &[], clocked, 0);
        samples.iter().map(|sample| sample.cpu_ns).collect()
    }

    #[test]
    fn a_paths_samples_share_its_time_as_they_stand_and_lose_none_of_it() {
        let clocked = Clocked { paths_ns: [(7, 100)].into(), ..Clocked::default() };
        let samples = vec![sample(1, Some(7), 3), sample(2, Some(7), 3), sample(1, Some(7), 1)];
        assert_eq!(weighed(samples, &clocked), [42, 43, 15]);
    }

    #[test]
    fn labels_with_enough_time_have_it_and_the_rest_of_the_path_shares_the_rest() {
        let labels = |tenant: &str| Labels::new([("tenant", tenant)]);
        let clocked = Clocked {
            paths_ns: [(7, 100)].into(),
            labeled_ns: [((7, labels("a")), 50), ((7, labels("b")), 40), ((7, labels("c")), 6)]
                .into(),
            ..Clocked::default()
        };
        let of = |tenant: &str, cpu_ns| RawSample {
            labels: labels(tenant),
            ..sample(1, Some(7), cpu_ns)
        };
        let mut samples = vec![of("a", 1), of("c", 1), of("a", 1), sample(1, Some(7), 4)];
        let unmet = weigh(&mut samples, &[], &clocked, 20);
        let weights: Vec<_> = samples.iter().map(|sample| sample.cpu_ns).collect();
        assert_eq!(weights, [25, 2, 25, 8]);
        let unmet: Vec<_> =
            unmet.iter().map(|it| (it.path, it.labels.clone(), it.cpu_ns)).collect();
        assert_eq!(unmet, [(Some(7), labels("b"), 40)], "it had no sample");
    }

    #[test]
    fn a_worker_outside_of_tasks_has_its_own() {
        let clocked = Clocked {
            paths_ns: [(7, 90)].into(),
            threads_ns: [(1, Some(10)), (2, None)].into(),
            ..Clocked::default()
        };
        let samples = vec![sample(1, Some(7), 60), sample(1, None, 40), sample(2, None, 5)];
        assert_eq!(weighed(samples, &clocked), [90, 10, 5]);
    }

    #[test]
    fn threads_that_have_ended_have_what_their_tasks_had_not_and_no_more_than_was_seen() {
        let clocked = |ended_ns| Clocked { ended_ns, ..Clocked::default() };
        let samples = || vec![sample(1, None, 10), sample(2, None, 30)];
        assert_eq!(weighed(samples(), &clocked(20)), [5, 15]);
        assert_eq!(weighed(samples(), &clocked(80)), [10, 30]);
    }

    #[test]
    fn what_the_clock_does_not_know_is_left_alone() {
        let clocked = Clocked { threads_ns: [(1, None)].into(), ..Clocked::default() };
        assert_eq!(weighed(vec![sample(1, Some(8), 5), sample(1, None, 6)], &clocked), [5, 6]);
    }

    #[test]
    fn who_had_time_and_no_sample_is_told_of_the_largest_first() {
        let clocked = Clocked {
            paths_ns: [(7, 100), (8, 20), (9, 0), (10, 5)].into(),
            threads_ns: [(1, Some(10)), (2, Some(30)), (3, None)].into(),
            ended_ns: 50,
            ..Clocked::default()
        };
        // A sample that stands for no time can carry none.
        let mut samples = [sample(1, Some(7), 3), sample(1, None, 4), sample(1, Some(10), 0)];
        let unmet = weigh(&mut samples, &[], &clocked, 0);
        let unmet: Vec<_> = unmet.iter().map(|it| (it.path, it.thread, it.cpu_ns)).collect();
        assert_eq!(unmet, [(None, Some(2), 30), (Some(8), None, 20), (Some(10), None, 5)]);
    }

    #[test]
    fn samples_without_time_get_none_and_large_times_do_not_overflow() {
        let clocked = Clocked { paths_ns: [(7, u64::MAX / 2)].into(), ..Clocked::default() };
        let samples = vec![sample(1, Some(7), 0), sample(1, Some(7), u64::MAX / 4)];
        assert_eq!(weighed(samples, &clocked), [0, u64::MAX / 2]);
    }

    #[test]
    fn time_in_the_kernel_is_of_those_who_had_more_than_their_samples() {
        let clocked = Clocked {
            paths_ns: [(7, 100), (8, 50), (9, 20)].into(),
            threads_ns: [(1, Some(10)), (2, None)].into(),
            ..Clocked::default()
        };
        // By the clock path 7 had 90 beyond its sample, path 9 all of its 20, and path 8 less than its samples say.
        let mut samples = [
            sample(1, Some(7), 10),
            sample(1, Some(8), 60),
            sample(1, None, 10),
            sample(2, None, 5),
        ];
        let kernel = [Unmet::kernel_of(1, 88), Unmet::kernel_of(2, 3)];
        let unmet = weigh(&mut samples, &kernel, &clocked, 0);
        let carried: Vec<_> = samples.iter().map(|sample| sample.cpu_ns).collect();
        assert_eq!(carried, [28, 50, 10, 5]);
        let unmet: Vec<_> =
            unmet.iter().map(|it| (it.path, it.thread, it.kernel, it.cpu_ns)).collect();
        assert_eq!(
            unmet,
            [
                (Some(7), None, true, 72),
                (Some(9), None, true, 16),
                (Some(9), None, false, 4),
                (None, Some(2), true, 3)
            ]
        );
    }
}
