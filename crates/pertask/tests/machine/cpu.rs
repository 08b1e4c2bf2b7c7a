//! A simulated CPU: a thread that does what it is ordered, one thing after the other, in runs within runs.

use crate::baton::{self, Order, Outcome, Point, Seat};
use pertask::core::{Cpu, Edge, OwnedTask, System};
use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::thread::{self, JoinHandle};

/// The order by which a CPU ceased to obey, in a run or at all.
enum Ceased {
    End,
    Panic,
    Replug,
    Leave,
}

/// The panic by which a run ends.
struct OnPurpose;

/// Starts a CPU. It answers when it is there, and when it has gone.
pub fn start(system: &'static System, seat: &'static Seat) -> JoinHandle<()> {
    thread::spawn(move || {
        seat.answer(match panic::catch_unwind(AssertUnwindSafe(|| live(system, seat))) {
            Ok(()) => Outcome::Nothing,
            Err(thrown) => Outcome::Panicked(message(&*thrown)),
        });
    })
}

fn live(system: &'static System, seat: &'static Seat) {
    loop {
        let cpu = Cpu::new(system);
        seat.answer(Outcome::Nothing);
        match obey(&cpu, seat) {
            Ceased::Replug => drop(cpu),
            Ceased::Leave => return,
            Ceased::End | Ceased::Panic => unreachable!("no task runs"),
        }
    }
}

fn obey(cpu: &Cpu, seat: &'static Seat) -> Ceased {
    loop {
        let outcome = match seat.next_order() {
            Order::End => return Ceased::End,
            Order::Panic => return Ceased::Panic,
            Order::Replug => return Ceased::Replug,
            Order::Leave => return Ceased::Leave,
            Order::Run(task, edge) => run(cpu, seat, task, edge),
            order => carry_out(cpu, order),
        };
        seat.answer(outcome);
    }
}

/// Runs a task, and obeys inside of it.
fn run(cpu: &Cpu, seat: &'static Seat, mut task: OwnedTask, edge: Edge) -> Outcome {
    let body = || {
        seat.answer(Outcome::Nothing);
        if let Ceased::Panic = obey(cpu, seat) {
            // Without the message.
            panic::resume_unwind(Box::new(OnPurpose));
        }
    };
    let ran = panic::catch_unwind(AssertUnwindSafe(|| match edge {
        Edge::Aside => cpu.run_aside(&mut task, body),
        Edge::Turn | Edge::Nested | Edge::Disorder => cpu.run(&mut task, body),
    }));
    match ran {
        Err(thrown) if !thrown.is::<OnPurpose>() => panic::resume_unwind(thrown),
        _ => Outcome::Ended(task),
    }
}

fn carry_out(cpu: &Cpu, order: Order) -> Outcome {
    match order {
        Order::SwitchIn(task) => cpu.switch_in(task).expect("a task of this system"),
        Order::SwitchOut => return Outcome::Switched(cpu.switch_out()),
        Order::Fork(site) => return Outcome::Forked(cpu.fork(site)),
        Order::ForkRoot(system, site) => return Outcome::Forked(system.fork(site, None, 0)),
        Order::Exit(task) => drop(task),
        Order::AttachTask(pmu, task, inherit) => {
            return Outcome::Attached(pmu.attach_task(&task, inherit));
        }
        Order::AttachGlobal(pmu) => return Outcome::Attached(pmu.attach_global()),
        Order::Detach(event) => drop(event),
        Order::Read(event) => return Outcome::Read(event.read()),
        Order::Snapshot(pmu) => {
            let rows = pmu.snapshot(|_| baton::point(Point::Shown));
            let sums = rows
                .iter()
                .fold((0, 0), |(count, exited), row| (count + row.count, exited + row.exited));
            return Outcome::Snapshot(sums.0, sums.1);
        }
        Order::Walk(system) => {
            // Grows never, so that it is no walk's own memory.
            let mut shown = Vec::with_capacity(1024);
            system.for_each_task(|task| {
                shown.push(task.id());
                baton::point(Point::Shown);
            });
            return Outcome::Walked(shown);
        }
        Order::Run(..) | Order::End | Order::Panic | Order::Replug | Order::Leave => {
            unreachable!("no order for here")
        }
    }
    Outcome::Nothing
}

fn message(thrown: &(dyn Any + Send)) -> String {
    let text = thrown.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| thrown.downcast_ref().copied()).unwrap_or("no message").to_owned()
}
