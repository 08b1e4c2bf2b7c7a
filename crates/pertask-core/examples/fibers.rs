//! A scheduler of fibers that switch without a function call: it uses `switch_in` and `switch_out` instead of `run`.
//!
//! `cargo run -p pertask-core --example fibers` prints how many turns each fiber had.
//!
//! Each fiber switches itself: out before it suspends, and in again after it is resumed. The right to run the task
//! ([`OwnedTask`]) travels with the switch, so nobody can resume a fiber without its task.

#![forbid(unsafe_code)]

use corosensei::{Coroutine, CoroutineResult, Yielder};
use pertask_core::{Cpu, Edge, Inherit, OwnedTask, Pmu, Switch, System};
use std::collections::VecDeque;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

// The fibers.

/// A suspended fiber, and its task.
struct Fiber {
    coroutine: Coroutine<OwnedTask, OwnedTask, OwnedTask>,
    task: OwnedTask,
}

/// The code of a fiber uses this to pause.
struct Here<'a>(&'a Yielder<OwnedTask, OwnedTask>);

impl Fiber {
    /// A fiber that will run `code`. Its task is a child of the fiber that makes it.
    #[track_caller]
    fn new(name: &str, code: impl FnOnce(&Here<'_>) + 'static) -> Self {
        let location = Location::caller();
        let task = Cpu::with(|cpu| cpu.fork(cpu.site(Some(name), location)));
        let coroutine = Coroutine::new(move |yielder, task| {
            switch_in(task);
            code(&Here(yielder));
            switch_out()
        });
        Self { coroutine, task }
    }

    /// Lets the fiber run until it pauses. Returns `None` if it has returned, and its task has ended.
    fn resume(mut self) -> Option<Self> {
        match self.coroutine.resume(self.task) {
            CoroutineResult::Yield(task) => Some(Self { task, ..self }),
            CoroutineResult::Return(task) => {
                Cpu::with(|cpu| cpu.exit(task));
                None
            }
        }
    }
}

impl Here<'_> {
    /// Gives the CPU back to the code that resumed this fiber.
    fn pause(&self) {
        let task = self.0.suspend(switch_out());
        switch_in(task);
    }
}

// Neither keeps the `Cpu`, which belongs to the thread: a fiber that has moved finds its new thread's.

fn switch_in(task: OwnedTask) {
    Cpu::with(|cpu| cpu.switch_in(task)).expect("not in a hook, and of this system");
}

fn switch_out() -> OwnedTask {
    Cpu::with(Cpu::switch_out).expect("a fiber is current")
}

/// Runs fibers in turn until all have returned.
fn run_all(mut ready: VecDeque<Fiber>) {
    while let Some(fiber) = ready.pop_front() {
        ready.extend(fiber.resume());
    }
}

// A PMU, so that there is something to show.

/// Counts turns. When a fiber leaves its CPU to a fiber that it resumes, and comes back, the [`Edge`] is another.
struct Turns;

impl Pmu for Turns {
    const NAME: &'static str = "turns";
    type Data = AtomicU64;
    type CpuData = ();
    type Count = u64;

    fn sched_in(&self, switch: Switch<'_, Self>) {
        if let (Some(turns), Edge::Turn) = (switch.data, switch.edge) {
            turns.fetch_add(1, Relaxed);
        }
    }
    fn sched_out(&self, _: Switch<'_, Self>) {}
    fn read(&self, turns: &AtomicU64) -> u64 {
        turns.load(Relaxed)
    }
}

// The program: parsers take turns. Each resumes a lexer of its own, which is switched in over it.

fn parser(statements: usize) -> Fiber {
    Fiber::new("parser", move |here| {
        let mut lexer = Some(Fiber::new("lexer", move |here| {
            // A pause between two tokens.
            (1..3 * statements).for_each(|_| here.pause());
        }));
        for _ in 0..statements {
            (0..3).for_each(|_| lexer = lexer.take().and_then(Fiber::resume));
            here.pause();
        }
    })
}

fn main() -> Result<(), pertask_core::Error> {
    let turns = System::global().register(Turns)?;
    let parsers: VecDeque<_> = [1, 2, 5].into_iter().map(parser).collect();
    let events = parsers
        .iter()
        .map(|fiber| {
            // An event on the parser, and on the fiber that it will make: its lexer.
            let event = turns.attach_task(fiber.task.handle_ref(), Inherit::Children)?;
            Ok((fiber.task.id(), event))
        })
        .collect::<Result<Vec<_>, pertask_core::Error>>()?;

    run_all(parsers);

    // The fibers are gone, but their events can still be read.
    for (id, event) in events {
        println!("parser {id} and its lexer: {} turns", event.read());
    }
    for row in turns.snapshot(|_| {}) {
        let parent = row.path.parent().and_then(|parent| parent.site().name());
        let name = row.path.site().name().unwrap_or("-");
        let below = parent.map(|parent| format!(" below {parent}")).unwrap_or_default();
        println!("{name}{below}: {} turns of {} fibers", row.count, row.exited);
    }
    Ok(())
}
