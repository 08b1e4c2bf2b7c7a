//! Reading counts while tasks and events come and go: each task is counted once.

use super::{World, check};
use loom::thread;

impl World {
    /// How many tasks with data live, and the sum of all counts.
    fn snapshot(self) -> (u64, u64) {
        let paths = self.pmu.snapshot(|_| {});
        paths.iter().fold((0, 0), |(live, count), path| (live + path.live, count + path.count))
    }
}

/// A task ends during a snapshot. It is counted either as live or as ended, and exactly once.
#[test]
fn snapshot_races_exit() {
    check(|| {
        let world = World::new();
        let event = world.pmu.attach_global().unwrap();
        let task = world.fork();
        world.count(&task, 7);
        let other = thread::spawn(move || drop(task));
        assert_eq!(event.read(), 7, "during");
        other.join().unwrap();
        assert_eq!(event.read(), 7, "after");
        drop(event);
        world.finish();
    });
}

/// A task ends during a snapshot, on a CPU that has its own books.
#[test]
fn snapshot_races_exit_on_a_cpu() {
    check(|| {
        let world = World::new();
        let event = world.pmu.attach_global().unwrap();
        let task = world.fork();
        world.count(&task, 7);
        let other = thread::spawn(move || {
            let cpu = crate::Cpu::new(world.system);
            cpu.exit(task);
        });
        assert_eq!(event.read(), 7, "during");
        other.join().unwrap();
        assert_eq!(event.read(), 7, "after");
        drop(event);
        world.finish();
    });
}

/// An event is read while its task ends. The counts are there, and stay.
#[test]
fn read_of_an_event_races_exit() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        world.count(&task, 3);
        let other = thread::spawn(move || drop(task));
        assert_eq!(event.read(), 3);
        other.join().unwrap();
        assert_eq!(event.read(), 3);
        drop(event);
        world.finish();
    });
}

/// A task is forked during a snapshot. It is in the next snapshot.
#[test]
fn snapshot_races_fork() {
    check(|| {
        let world = World::new();
        let event = world.pmu.attach_global().unwrap();
        let other = thread::spawn(move || {
            let task = world.fork();
            world.count(&task, 7);
            task
        });
        let during = event.read();
        assert!(during == 0 || during == 7, "{during}");
        let task = other.join().unwrap();
        assert_eq!(event.read(), 7, "after");
        drop((event, task));
        world.finish();
    });
}

/// A task gets data from its own event during a snapshot.
#[test]
fn snapshot_races_attach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let other = {
            let task = task.handle();
            thread::spawn(move || {
                let event = world.attach(&task).unwrap();
                world.count(&task, 7);
                event
            })
        };
        let during = world.snapshot();
        assert!(during == (0, 0) || during == (1, 0) || during == (1, 7), "{during:?}");
        let event = other.join().unwrap();
        assert_eq!(world.snapshot(), (1, 7), "after");
        assert_eq!(event.read(), 7);
        drop((event, task));
        world.finish();
    });
}

/// A task's data is freed during a snapshot. The snapshot reads it alive, or not at all.
#[test]
fn snapshot_races_detach_task() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.attach(&task.handle()).unwrap();
        world.count(&task, 7);
        let other = thread::spawn(move || drop(event));
        let during = world.snapshot();
        assert!(during == (0, 0) || during == (1, 7), "{during:?}");
        other.join().unwrap();
        assert_eq!(world.snapshot(), (0, 0), "after");
        drop(task);
        world.finish();
    });
}

/// A walk that installs data meets a walk that reads it.
#[test]
fn snapshot_races_attach_global() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let other = thread::spawn(move || world.pmu.attach_global().unwrap());
        let during = world.snapshot();
        assert!(during == (0, 0) || during == (1, 0), "{during:?}");
        let event = other.join().unwrap();
        assert_eq!(world.snapshot(), (1, 0), "after");
        drop((event, task));
        world.finish();
    });
}

/// A walk that removes data meets a walk that reads it.
#[test]
fn snapshot_races_detach_global() {
    check(|| {
        let world = World::new();
        let task = world.fork();
        let event = world.pmu.attach_global().unwrap();
        world.count(&task, 7);
        let other = thread::spawn(move || drop(event));
        let during = world.snapshot();
        assert!(during == (0, 0) || during == (1, 7), "{during:?}");
        other.join().unwrap();
        assert_eq!(world.snapshot(), (0, 0), "after");
        drop(task);
        world.finish();
    });
}

/// A task ends during two concurrent snapshots. Each counts it once.
#[test]
fn snapshot_races_snapshot_and_exit() {
    check(|| {
        let world = World::new();
        let event = world.pmu.attach_global().unwrap();
        let task = world.fork();
        world.count(&task, 7);
        let exiter = thread::spawn(move || drop(task));
        let reader = thread::spawn(move || {
            let (tasks, count) = world.snapshot();
            assert_eq!((tasks <= 1, count), (true, 7), "theirs");
        });
        assert_eq!(event.read(), 7, "ours");
        exiter.join().unwrap();
        reader.join().unwrap();
        assert_eq!(event.read(), 7, "after");
        drop(event);
        world.finish();
    });
}

/// Two tasks of one path end concurrently. The path's totals have both.
#[test]
fn exit_races_exit() {
    check(|| {
        let world = World::new();
        let event = world.pmu.attach_global().unwrap();
        let [ours, theirs] = [(); 2].map(|()| world.fork());
        world.count(&ours, 7);
        world.count(&theirs, 70);
        let other = thread::spawn(move || drop(theirs));
        drop(ours);
        other.join().unwrap();
        assert_eq!(event.read(), 77);
        drop(event);
        world.finish();
    });
}
