//! The tree of spawns: which path a task has, that it is one node whoever interns it, and that the tree stays bounded.

#![cfg(not(any(pertask_loom, pertask_shuttle)))]

mod common;

use common::{Turns, assert_nothing_left, site, system_with};
use pertask_core::{Cpu, MAX_DEPTH, MAX_PATHS, OwnedTask, Site, SpawnPath, System, Task};
use std::collections::BTreeSet;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

/// A task of that name, made by `parent`.
fn fork(system: &'static System, parent: Option<&Task>, name: &str) -> OwnedTask {
    system.fork(site(system, name), parent, 0)
}

/// The tasks that make each other, first to last.
fn chain(system: &'static System, names: &[&str]) -> Vec<OwnedTask> {
    let mut tasks: Vec<OwnedTask> = Vec::new();
    for name in names {
        let task = fork(system, tasks.last().map(|task| &**task), name);
        tasks.push(task);
    }
    tasks
}

/// The path's names, the root's first.
fn names(path: &'static SpawnPath) -> Vec<&'static str> {
    let upwards = std::iter::successors(Some(path), |path| path.parent());
    let mut names: Vec<_> = upwards.map(|path| path.site().name().unwrap()).collect();
    names.reverse();
    names
}

/// What a tick of the kernel's timer has last set.
#[cfg(all(target_os = "linux", not(miri)))]
fn coarse_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `now` alone.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) }, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn a_task_knows_when_it_was_made() {
    let (system, _) = system_with(Turns);
    let before = coarse_ns();
    let task = fork(system, None, "timed");
    assert!((before..=coarse_ns()).contains(&task.handle_ref().start_time_ns()));
}

#[test]
fn nested_spawns_make_a_path() {
    let (system, _) = system_with(Turns);
    let cpu = Cpu::new(system);
    let mut route = cpu.fork(site(system, "route"));
    let mut fanout = cpu.run(&mut route, || cpu.fork(site(system, "fanout")));
    let leaf = cpu.run(&mut fanout, || cpu.fork(site(system, "leaf")));
    let alone = cpu.fork(site(system, "leaf"));
    assert_eq!(names(leaf.path()), ["route", "fanout", "leaf"]);
    assert_eq!((route.path().depth(), leaf.path().depth()), (0, 2));
    assert_eq!(leaf.path().site().id(), leaf.site().id());
    // The same site, spawned by no task, is another path.
    assert_eq!(names(alone.path()), ["leaf"]);
    assert_eq!(alone.site().id(), leaf.site().id());
    let ids = [&route, &fanout, &leaf, &alone].map(|task| task.path().id());
    assert_eq!(ids, [0, 1, 2, 3]);
    // Another like it has the same path, also from a parent that has ended.
    drop(cpu);
    let handle = fanout.handle();
    drop(fanout);
    assert!(ptr::eq(fork_like(&leaf, &handle).path(), leaf.path()));
}

fn fork_like(like: &Task, parent: &Task) -> OwnedTask {
    like.system().fork(like.site(), Some(parent), 0)
}

#[test]
fn parent_of_another_system_is_no_parent() {
    let (here, _) = system_with(Turns);
    let (there, _) = system_with(Turns);
    let stranger = fork(there, None, "stranger");
    let task = fork(here, Some(&stranger), "task");
    assert_eq!(names(task.path()), ["task"]);
}

#[test]
fn direct_recursion_stays_where_it_is() {
    let (system, _) = system_with(Turns);
    let tasks = chain(system, &["root", "walk", "walk", "walk"]);
    assert!(tasks[2..].iter().all(|task| ptr::eq(task.path(), tasks[1].path())));
    let leaf = fork(system, Some(&tasks[3]), "leaf");
    assert_eq!(names(leaf.path()), ["root", "walk", "leaf"]);
}

#[test]
fn mutual_recursion_goes_back_to_where_it_began() {
    let (system, _) = system_with(Turns);
    let tasks = chain(system, &["even", "odd", "even", "odd", "even", "leaf"]);
    let paths: Vec<_> = tasks.iter().map(|task| names(task.path())).collect();
    let (even, odd) = (vec!["even"], vec!["even", "odd"]);
    assert_eq!(paths, [&even, &odd, &even, &odd, &even, &vec!["even", "leaf"]].map(Clone::clone));
    assert_eq!(system.tasks_without_path(), 0);
}

#[test]
fn counts_are_kept_by_path() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let event = turns.attach_global().unwrap();
    let mut roots = ["one", "two"].map(|name| cpu.fork(site(system, name)));
    for (root, runs) in roots.iter_mut().zip(1..) {
        let mut child = cpu.run(root, || cpu.fork(site(system, "shared")));
        (0..runs * 10).for_each(|_| cpu.run(&mut child, || {}));
    }
    let rows = turns.snapshot(|_| {});
    let rows: Vec<_> =
        rows.iter().map(|row| (names(row.path), row.exited, row.live, row.count)).collect();
    let expected = [
        (vec!["one"], 0, 1, 1),
        (vec!["two"], 0, 1, 1),
        (vec!["one", "shared"], 1, 0, 10),
        (vec!["two", "shared"], 1, 0, 20),
    ];
    assert_eq!(rows, expected);
    assert_eq!(event.read(), 32);
    drop((event, roots, cpu));
    assert_nothing_left(turns);
}

/// Makes every path that there is room for: each of some roots has some children.
fn fill(system: &'static System) -> Vec<OwnedTask> {
    const CHILDREN: usize = 128;
    let name = |kind: &str, number: usize| format!("{kind} {number}");
    let roots: Vec<_> =
        (0..MAX_PATHS / CHILDREN).map(|number| fork(system, None, &name("root", number))).collect();
    for root in &roots {
        (0..CHILDREN).for_each(|number| drop(fork(system, Some(root), &name("child", number))));
    }
    roots
}

#[test]
fn paths_beyond_the_limit_fall_back_to_their_sites_roots_and_are_counted() {
    let (system, turns) = system_with(Turns);
    let cpu = Cpu::new(system);
    let event = turns.attach_global().unwrap();
    let roots = fill(system);
    assert_eq!(system.tasks_without_path(), 0);
    let mut late = fork(system, Some(&roots[0]), "late");
    assert_eq!((names(late.path()), system.tasks_without_path()), (vec!["late"], 1));
    assert_eq!(late.parent(), Some(roots[0].id()));
    cpu.run(&mut late, || {});
    // Again, and below it.
    let again = fork(system, Some(&roots[0]), "late");
    assert!(ptr::eq(again.path(), late.path()));
    let below = fork(system, Some(&again), "root 3");
    assert_eq!((names(below.path()), system.tasks_without_path()), (vec!["root 3"], 3));
    // Roots have places of their own; what there was is still found; recursion needs no place.
    assert_eq!(names(fork(system, None, "later").path()), ["later"]);
    assert_eq!(names(fork(system, Some(&roots[1]), "child 7").path()), ["root 1", "child 7"]);
    assert_eq!(names(fork(system, Some(&roots[1]), "root 1").path()), ["root 1"]);
    assert_eq!(system.tasks_without_path(), 3);
    drop(late);
    let rows = turns.snapshot(|_| {});
    let late = rows.iter().find(|row| names(row.path) == ["late"]).unwrap();
    assert_eq!((late.exited, late.live, late.count), (1, 1, 1));
    drop((event, roots, again, below, cpu));
    assert_nothing_left(turns);
}

#[test]
fn path_too_long_falls_back_to_its_sites_root_and_is_counted() {
    let (system, _) = system_with(Turns);
    let numbers: Vec<_> = (0..=MAX_DEPTH).map(|number| number.to_string()).collect();
    let tasks = chain(system, &numbers.iter().map(|number| &**number).collect::<Vec<_>>());
    let [.., deepest, beyond] = &tasks[..] else { unreachable!() };
    assert_eq!((deepest.path().depth(), names(deepest.path()).len()), (MAX_DEPTH - 1, 64));
    assert_eq!((names(beyond.path()), system.tasks_without_path()), (vec!["64"], 1));
}

/// Threads that make the same path at the same moment, again and again.
#[test]
fn threads_that_meet_at_a_new_path_share_it() {
    const THREADS: usize = 3;
    const SITES: usize = 1500;
    let (system, _) = system_with(Turns);
    let sites: Vec<_> = (0..SITES).map(|number| site(system, &number.to_string())).collect();
    let root = fork(system, None, "root");
    let arrived = AtomicUsize::new(0);
    // Leaves them all at once, which a lock would not.
    let meet = |round: usize| {
        arrived.fetch_add(1, SeqCst);
        while arrived.load(SeqCst) < (round + 1) * THREADS {
            thread::yield_now();
        }
    };
    let path = |(round, site): (usize, &&'static Site)| {
        meet(round);
        ptr::from_ref(system.fork(site, Some(&root), round).path()).addr()
    };
    let all: Vec<Vec<usize>> = thread::scope(|scope| {
        let paths = || sites.iter().enumerate().map(path).collect();
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(paths)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|paths| *paths == all[0]), "two nodes of one path");
    assert_eq!(all[0].iter().collect::<BTreeSet<_>>().len(), SITES);
}
