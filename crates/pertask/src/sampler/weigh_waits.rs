//! Weighing waits by the clock. The life of tasks says how long those of a spawn path waited and were ready; the waits that were seen
//! say where. So the waits of a spawn path share that time, in proportion to what each of them stood for. Where labels had enough of a
//! path's time for their waits to be seen often, those share the time that the labels had, and the path's other waits the rest. Where
//! no wait was seen, the time is known and the place is not.

use super::division::Division;
use super::profile::RawWait;
use crate::report::LifeReport;
use crate::tasks::label_set::Labels;
use std::cmp::Reverse;
use std::collections::HashMap;

/// Waits that are weighed together: those of a spawn path with some labels, or `None` for the rest of the path.
type Stratum = (u32, Option<Labels>);

/// The waiting time of a stratum, and the time that its tasks were ready.
#[derive(Clone, Copy, Default)]
struct Both {
    waiting: Division,
    ready: Division,
}

/// The number of seen waits that labels should have on average to be a stratum. With fewer, chance would decide which places have the
/// time.
const ENOUGH: u64 = 20;

/// Gives the waits of each spawn path the time that its tasks waited by the clock, and were ready; and within a path, to those with
/// labels that had enough of it, the time of those labels. Adds a wait without a place where there is time and no wait.
pub(super) fn weigh(
    waits: &mut Vec<RawWait>,
    lives: &HashMap<u32, LifeReport>,
    labeled: &HashMap<(u32, Labels), LifeReport>,
) {
    let mut strata = strata(waits, lives, labeled);
    for wait in &*waits {
        if let Some(Both { waiting, ready }) = stratum_of(&mut strata, wait) {
            waiting.all += u128::from(wait.waiting_ns);
            ready.all += u128::from(wait.ready_ns);
        }
    }
    for wait in &mut *waits {
        if let Some(Both { waiting, ready }) = stratum_of(&mut strata, wait) {
            wait.waiting_ns = waiting.next(wait.waiting_ns);
            wait.ready_ns = ready.next(wait.ready_ns);
        }
    }
    let unseen = strata.into_iter().filter_map(|((path, labels), Both { waiting, ready })| {
        let (waiting_ns, ready_ns) = (waiting.rest(), ready.rest());
        let labels = labels.unwrap_or_default();
        (waiting_ns + ready_ns > 0).then(|| unseen(path, labels, waiting_ns, ready_ns))
    });
    waits.extend(unseen);
    waits.sort_by_key(|wait| Reverse(wait.waiting_ns));
}

/// What each stratum had by the clock.
fn strata(
    waits: &[RawWait],
    lives: &HashMap<u32, LifeReport>,
    labeled: &HashMap<(u32, Labels), LifeReport>,
) -> HashMap<Stratum, Both> {
    let both = |life: &LifeReport| Both {
        waiting: Division::of(life.waiting_ns),
        ready: Division::of(life.ready_ns),
    };
    let mut strata: HashMap<Stratum, Both> =
        lives.iter().map(|(path, life)| ((*path, None), both(life))).collect();
    let mut seen: HashMap<u32, u64> = HashMap::new();
    waits.iter().for_each(|wait| *seen.entry(wait.path).or_default() += wait.seen);
    let outside_ns = |life: &LifeReport| u128::from(life.waiting_ns) + u128::from(life.ready_ns);
    for ((path, labels), life) in labeled {
        let (Some(of_path), Some(seen)) = (lives.get(path), seen.get(path)) else { continue };
        // So many of the path's waits that were seen would be theirs, if all were equally long.
        let is_enough =
            outside_ns(life) * u128::from(*seen) >= u128::from(ENOUGH) * outside_ns(of_path);
        let rest = strata.get_mut(&(*path, None)).filter(|_| is_enough && outside_ns(life) > 0);
        if let Some(Both { waiting, ready }) = rest {
            let own = Both {
                waiting: Division::of(waiting.take(life.waiting_ns)),
                ready: Division::of(ready.take(life.ready_ns)),
            };
            strata.insert((*path, Some(labels.clone())), own);
        }
    }
    strata
}

/// The stratum of a wait. `None` if the clock does not know its path.
fn stratum_of<'a>(strata: &'a mut HashMap<Stratum, Both>, wait: &RawWait) -> Option<&'a mut Both> {
    if !wait.labels.is_empty() {
        let labeled = (wait.path, Some(wait.labels.clone()));
        if strata.contains_key(&labeled) {
            return strata.get_mut(&labeled);
        }
    }
    strata.get_mut(&(wait.path, None))
}

/// Waits of which nobody knows where they were.
fn unseen(path: u32, labels: Labels, waiting_ns: u64, ready_ns: u64) -> RawWait {
    RawWait {
        path,
        labels,
        woken_by: None,
        held_by: None,
        count: 0,
        seen: 0,
        waiting_ns,
        ready_ns,
        stack: [].into(),
        complete: true,
        truncated: false,
        fiber: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(path: u32, waiting_ns: u64, ready_ns: u64) -> RawWait {
        let unseen = unseen(path, Labels::default(), waiting_ns, ready_ns);
        RawWait { count: 1, seen: 1, stack: [1].into(), ..unseen }
    }

    fn life(waiting_ns: u64, ready_ns: u64) -> LifeReport {
        LifeReport { waiting_ns, ready_ns, ..LifeReport::default() }
    }

    #[test]
    fn a_paths_waits_share_what_its_tasks_waited_and_lose_none_of_it() {
        let mut waits = vec![wait(7, 30, 0), wait(7, 60, 5), wait(7, 10, 0), wait(8, 1, 0)];
        let lives = [(7, life(1_001, 50)), (8, life(2, 9)), (9, life(40, 0)), (10, life(0, 0))];
        weigh(&mut waits, &lives.into(), &HashMap::new());
        let of = |path: u32| {
            let of = waits.iter().filter(|wait| wait.path == path);
            of.map(|it| (it.waiting_ns, it.ready_ns, it.stack.len())).collect::<Vec<_>>()
        };
        assert_eq!(of(7), [(600, 50, 1), (300, 0, 1), (101, 0, 1)]);
        assert_eq!(of(8), [(2, 0, 1), (0, 9, 0)], "nobody saw where it was ready");
        assert_eq!(of(9), [(40, 0, 0)], "nobody saw where it waited");
        assert_eq!(of(10), []);
    }
    #[test]
    fn labels_with_enough_time_have_it_and_the_rest_of_the_path_shares_the_rest() {
        let labels = |tenant: &str| Labels::new([("tenant", tenant)]);
        let of = |tenant, waiting_ns, seen| RawWait {
            labels: labels(tenant),
            seen,
            ..wait(7, waiting_ns, 0)
        };
        let mut waits = vec![
            of("a", 10, 60),
            of("b", 5, 1),
            of("a", 30, 40),
            RawWait { seen: 0, ..wait(7, 15, 0) },
        ];
        let lives = [(7, life(1_000, 0))];
        let labeled = [("a", 600), ("b", 150), ("c", 210), ("d", 40)];
        let labeled = labeled.map(|(tenant, ns)| ((7, labels(tenant)), life(ns, 0)));
        weigh(&mut waits, &lives.into(), &labeled.into());
        let shown: Vec<_> = waits
            .iter()
            .map(|it| (it.labels.get("tenant"), it.waiting_ns, it.stack.len()))
            .collect();
        // 101 waits were seen, so 20 of them stand for 199 ns.
        assert_eq!(
            shown,
            [
                (Some("a"), 450, 1),
                (Some("c"), 210, 0),
                (Some("a"), 150, 1),
                (None, 143, 1),
                (Some("b"), 47, 1),
            ],
            "of c no wait was seen, and b and d had too little for a place of their own"
        );
    }
}
