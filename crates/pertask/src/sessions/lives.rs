//! The lives of all tasks at one moment: by spawn path and task, and by label.

use super::rows::{LiveTask, Rows};
use crate::pmus::life::cut::Cut;
use crate::pmus::life::{Life, LifeCount};
use pertask_core::PmuHandle;
use std::collections::HashMap;

/// The lives at one moment.
#[derive(Default)]
pub(crate) struct Lives {
    pub(crate) rows: Rows<LifeCount>,
    /// Those of all tasks together, by the place of the tag that they had. Empty where labels are not measured.
    pub(crate) by_place: Vec<LifeCount>,
}

/// Reads the lives of all tasks. Each task is read once, for its row and for its labels: so the two differ in nothing.
pub(super) fn read_all(handle: PmuHandle<Life>) -> Lives {
    let mut cut = Cut::begin(handle);
    let (mut tasks, mut seen) = (HashMap::new(), Vec::new());
    let paths = handle.snapshot(|live| {
        live.count = cut.see(live, handle.pmu().now());
        seen.push(live.task.id());
        if live.count.life_ns() > 0 {
            tasks.insert(live.task.id(), LiveTask::new(live.task, &live.count));
        }
    });
    let paths = paths.into_iter().map(|row| (row.path.id(), row)).collect();
    let by_place = cut.finish(seen.into_iter());
    Lives { rows: Rows { paths, tasks }, by_place }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::SessionOptions;
    use crate::{Job, LabelExt};
    use pertask_core::Count;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    /// Set in the process that has no other tests.
    const ALONE: &str = "PERTASK_ALONE";

    /// Tasks change their states and labels, and end on other threads, while they are read again and again. What the labels have
    /// is what the tasks have, to the nanosecond, though states of milliseconds end all the time.
    #[test]
    fn labels_and_tasks_have_equal_lives() {
        if std::env::var_os(ALONE).is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "sessions::lives::tests::labels_and_tasks_have_equal_lives"]);
            let output = alone.env(ALONE, "1").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
            return;
        }
        let session = SessionOptions { life: true, ..SessionOptions::default() }.start().unwrap();
        let handle = Life::handle().unwrap();
        let (ends, jobs) = (AtomicBool::new(false), Mutex::new(Jobs::default()));
        thread::scope(|scope| {
            // Also if an assertion fails.
            let _at_the_end = AtTheEnd(&ends);
            for number in 0..3_u64 {
                let (ends, jobs) = (&ends, &jobs);
                scope.spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        work(number, jobs);
                    }
                });
            }
            while jobs.lock().unwrap().ended < 10 {
                thread::yield_now();
            }
            for read in 0..300 {
                // So that they do not all come before the others run again.
                thread::sleep(Duration::from_micros(read * 7 % 1_000));
                jobs.lock().unwrap().forget();
                let Lives { rows, by_place } = read_all(handle);
                // A task that was made during the reading, and has ended, may be in one of the two.
                let new = jobs.lock().unwrap().short.iter().map(Instant::elapsed).sum::<Duration>();
                let (mut tasks, mut labels) = (LifeCount::default(), LifeCount::default());
                rows.paths.values().for_each(|row| tasks.add(&row.count));
                by_place.iter().for_each(|life| labels.add(life));
                let differ = |part: usize| labels.parts_ns()[part].abs_diff(tasks.parts_ns()[part]);
                let differ_ns: u64 = (0..labels.parts_ns().len()).map(differ).sum();
                assert!(
                    u128::from(differ_ns) <= new.as_nanos(),
                    "in reading {read}, with new ones of {new:?}: {labels:?}, {tasks:?}"
                );
            }
        });
        drop(session);
    }

    /// The jobs of all threads, each of which has one at a time.
    #[derive(Default)]
    struct Jobs {
        /// The jobs that may have been made since the last `forget`, by thread, with a moment before that; and whether they are made.
        new: HashMap<u64, (Instant, bool)>,
        /// Those of them that have ended, or are about to.
        short: Vec<Instant>,
        /// How many have ended, ever.
        ended: u64,
    }

    impl Jobs {
        /// Called before a job is made.
        fn begins(&mut self, thread: u64) {
            self.new.insert(thread, (Instant::now(), false));
        }

        /// Called when it is made.
        fn is_made(&mut self, thread: u64) {
            self.new.entry(thread).and_modify(|(_, is_made)| *is_made = true);
        }

        /// Called before it ends.
        fn ends(&mut self, thread: u64) {
            self.short.extend(self.new.remove(&thread).map(|(before, _)| before));
            self.ended += 1;
        }

        /// Forgets all jobs that are made.
        fn forget(&mut self) {
            self.new.retain(|_, (_, is_made)| !*is_made);
            self.short.clear();
        }
    }

    struct AtTheEnd<'a>(&'a AtomicBool);

    impl Drop for AtTheEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn work(number: u64, jobs: &Mutex<Jobs>) {
        let pause = |part: u64| thread::sleep(Duration::from_micros(700 * ((number + part) % 5)));
        jobs.lock().unwrap().begins(number);
        let job = async { Job::new("labelled") }.labels([("number", number.to_string())]);
        let mut job = futures::executor::block_on(job);
        jobs.lock().unwrap().is_made(number);
        pause(1);
        job.run(|| {
            let inner = async { pause(2) }.labels([("inner", "yes")]);
            futures::executor::block_on(inner);
        });
        pause(3);
        let mut job = job.labels([("step", "2")]);
        job.run(|| pause(4));
        jobs.lock().unwrap().ends(number);
        if number == 1 {
            // A thread that is no CPU, for a part of the tasks.
            thread::spawn(move || drop(job));
        }
    }
}
