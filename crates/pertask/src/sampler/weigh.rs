//! Samples against the clock: how much CPU time tasks had is measured at each switch; samples say where in them.
//!
//! Threads are not interrupted evenly. A moment in the kernel is not told, so its time would count for where the thread is
//! next, which is seldom the task that made the call; a tick does not see what keeps in step with it; a task that runs for
//! some microseconds at a time is met too seldom. So the samples of all tasks of one spawn path are given the CPU time that
//! those tasks had by the clock, shared out among them as they stand; and the samples of a worker outside of tasks what is
//! left of its thread's time. (Surveys call it post-stratification.) What has had CPU time and no sample is told of by itself:
//! of it one knows who, and not where.

use super::profile::{RawProfile, RawSample, Unmet};
use crate::os::threads;
use crate::sessions::Clocked;
use std::collections::HashMap;

/// Whose samples are weighed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stratum {
    Path(u32),
    Worker(u32),
    Ended,
}

/// What a stratum's samples carry, and what they are to carry.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    carried_ns: u64,
    clocked_ns: u64,
    /// What the samples carried that have been weighed.
    done_ns: u64,
}

impl RawProfile {
    /// Gives the samples the times of the clock. Not if they are of a part of the session only: they would get the time of the
    /// rest, of which they say nothing.
    pub(super) fn weigh(&mut self, clocked: &Clocked) {
        if self.cut_short {
            return;
        }
        self.unmet = weigh(&mut self.samples, clocked);
        for thread in self.unmet.iter().filter_map(|unmet| unmet.thread) {
            self.threads.entry(thread).or_insert_with(|| threads::name(thread));
        }
        self.lost.unsampled_cpu_ns = self.process_cpu_ns.saturating_sub(self.carried_cpu_ns());
        self.mechanism += "; each spawn path's time by the clock";
    }
}

/// Gives the samples of each stratum the CPU time that it had by the clock. Those of which the clock knows nothing, such as
/// threads that run no tasks, keep their own. Returns the strata that had CPU time and no sample to carry it.
fn weigh(samples: &mut [RawSample], clocked: &Clocked) -> Vec<Unmet> {
    let mut shares: HashMap<Stratum, Share> = HashMap::new();
    for sample in &*samples {
        if let Some((stratum, clocked_ns)) = clocked.stratum(sample) {
            let share = shares.entry(stratum).or_insert(Share { clocked_ns, ..Share::default() });
            share.carried_ns += sample.cpu_ns;
        }
    }
    if let Some(ended) = shares.get_mut(&Stratum::Ended) {
        // Those that were never sampled are nobody else's.
        ended.clocked_ns = ended.clocked_ns.min(ended.carried_ns);
    }
    for sample in &mut *samples {
        let stratum = clocked.stratum(sample).map(|(stratum, _)| stratum);
        if let Some(share) = stratum.and_then(|stratum| shares.get_mut(&stratum)) {
            sample.cpu_ns = share.next(sample.cpu_ns);
        }
    }
    let met = |stratum| shares.get(&stratum).is_some_and(|share| share.carried_ns > 0);
    clocked.unmet(met)
}

impl Clocked {
    /// Whose the sample is, and what those had. `None`: the clock does not know.
    fn stratum(&self, sample: &RawSample) -> Option<(Stratum, u64)> {
        if let Some(path) = sample.path {
            return Some((Stratum::Path(path), *self.paths_ns.get(&path)?));
        }
        match self.threads_ns.get(&sample.thread) {
            Some(own_ns) => Some((Stratum::Worker(sample.thread), (*own_ns)?)),
            None => Some((Stratum::Ended, self.ended_ns)),
        }
    }

    /// The paths and the workers that had CPU time and were not met. (Which threads ended, nobody knows.)
    fn unmet(&self, met: impl Fn(Stratum) -> bool) -> Vec<Unmet> {
        let paths = self.paths_ns.iter().map(|(path, cpu_ns)| {
            (Stratum::Path(*path), Unmet { path: Some(*path), thread: None, cpu_ns: *cpu_ns })
        });
        let workers = self.threads_ns.iter().filter_map(|(thread, own_ns)| {
            let unmet = Unmet { path: None, thread: Some(*thread), cpu_ns: (*own_ns)? };
            Some((Stratum::Worker(*thread), unmet))
        });
        let missing = paths.chain(workers).filter(|(at, it)| it.cpu_ns > 0 && !met(*at));
        let mut unmet: Vec<_> = missing.map(|(_, unmet)| unmet).collect();
        unmet.sort_unstable_by_key(|it| (std::cmp::Reverse(it.cpu_ns), it.path, it.thread));
        unmet
    }
}

impl Share {
    /// The next sample's part. The parts of all add up to the whole: what one is rounded down by, another one gets.
    fn next(&mut self, cpu_ns: u64) -> u64 {
        let before = self.up_to(self.done_ns);
        self.done_ns += cpu_ns;
        self.up_to(self.done_ns) - before
    }

    fn up_to(&self, done_ns: u64) -> u64 {
        let part = u128::from(self.clocked_ns) * u128::from(done_ns);
        (part / u128::from(self.carried_ns.max(1))) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::labels::Labels;

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
        }
    }

    fn weighed(mut samples: Vec<RawSample>, clocked: &Clocked) -> Vec<u64> {
        weigh(&mut samples, clocked);
        samples.iter().map(|sample| sample.cpu_ns).collect()
    }

    #[test]
    fn a_paths_samples_share_its_time_as_they_stand_and_lose_none_of_it() {
        let clocked = Clocked { paths_ns: [(7, 100)].into(), ..Clocked::default() };
        let samples = vec![sample(1, Some(7), 3), sample(2, Some(7), 3), sample(1, Some(7), 1)];
        assert_eq!(weighed(samples, &clocked), [42, 43, 15]);
    }

    #[test]
    fn a_worker_outside_of_tasks_has_its_own() {
        let clocked = Clocked {
            paths_ns: [(7, 90)].into(),
            threads_ns: [(1, Some(10)), (2, None)].into(),
            ended_ns: 0,
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
        };
        // One that stands for no time can carry none.
        let mut samples = [sample(1, Some(7), 3), sample(1, None, 4), sample(1, Some(10), 0)];
        let unmet = weigh(&mut samples, &clocked);
        let unmet: Vec<_> = unmet.iter().map(|it| (it.path, it.thread, it.cpu_ns)).collect();
        assert_eq!(unmet, [(None, Some(2), 30), (Some(8), None, 20), (Some(10), None, 5)]);
    }

    #[test]
    fn samples_without_time_get_none_and_large_times_do_not_overflow() {
        let clocked = Clocked { paths_ns: [(7, u64::MAX / 2)].into(), ..Clocked::default() };
        let samples = vec![sample(1, Some(7), 0), sample(1, Some(7), u64::MAX / 4)];
        assert_eq!(weighed(samples, &clocked), [0, u64::MAX / 2]);
    }
}
