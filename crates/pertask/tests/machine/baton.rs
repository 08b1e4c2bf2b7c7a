//! The baton: of the driver and the simulated CPUs exactly one runs, and it says who is next.
//!
//! A CPU is given an operation and answers when it is done, or when it has come to a [`Point`] in the operation's middle
//! at which the driver wants it to stop. It stops there, on its own thread, with all that the core holds at that point:
//! a section, a reference, the attach mutex. Others run meanwhile, until it is told to go on.

use crate::pmu::Probe;
use pertask::Event;
use pertask::core::{Edge, Error, OwnedTask, PmuHandle, Site, System, Task, TaskId};
use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A place in the middle of an operation of the core, where a CPU can stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Data is allocated: the slot has been looked at, and nothing is in it yet.
    Allocation,
    /// A walk over all tasks begins that shows them to a closure.
    Walk,
    /// A caller's closure is shown a task.
    Shown,
    /// The PMU of that number reads counts: of data that an attach has taken, that a family has of a task that ends, or that a
    /// snapshot or a family's read has come to.
    Read(usize),
    /// It reads counts of data that no hook has seen yet; where tasks end, and in a snapshot, of sums.
    ReadNew(usize),
    /// After the hook of the PMU of that number, in mid-switch.
    SchedIn(usize),
    SchedOut(usize),
}

/// Where the operation that follows is to stop, and what it is refused.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Which points count.
    pub points: fn(Point) -> bool,
    /// It stops at this one of its points, from 0.
    pub stop_at: Option<u32>,
    /// It is refused this one of its allocations of data, from 0.
    pub refuse_at: Option<u32>,
}

impl Plan {
    /// It goes through.
    pub const NONE: Self = Self { points: |_| false, stop_at: None, refuse_at: None };
}

/// What a CPU is to do.
pub enum Order {
    SwitchIn(OwnedTask),
    SwitchOut,
    Run(OwnedTask, Edge),
    /// Ends the innermost run.
    End,
    /// Ends it by a panic.
    Panic,
    Fork(&'static Site),
    ForkRoot(&'static System, &'static Site),
    Exit(OwnedTask),
    AttachTask(PmuHandle<Probe>, Arc<Task>, pertask::Inherit),
    AttachGlobal(PmuHandle<Probe>),
    Detach(Event<Probe>),
    Snapshot(PmuHandle<Probe>),
    Walk(&'static System),
    Read(Arc<Event<Probe>>),
    /// The CPU goes, with what runs on it, and comes back.
    Replug,
    /// The CPU goes.
    Leave,
}

/// What came of it.
pub enum Outcome {
    Stopped(Point),
    Nothing,
    /// What `switch_out` returned.
    Switched(Option<OwnedTask>),
    Ended(OwnedTask),
    Forked(OwnedTask),
    Attached(Result<Event<Probe>, Error>),
    /// The sum of all counts, and how many tasks have ended.
    Snapshot(u64, u64),
    Read(u64),
    /// The tasks that were shown.
    Walked(Vec<TaskId>),
    Panicked(String),
}

pub struct Answer {
    pub outcome: Outcome,
    /// How many allocations have been refused since the CPU was given the baton.
    pub refused: u64,
}

enum Baton {
    Nobody,
    Order(Order, Plan),
    GoOn(Plan),
    Answer(Answer),
}

/// Where a CPU sits: the driver puts orders there, and it puts answers.
pub struct Seat {
    baton: Mutex<Baton>,
    passed: Condvar,
}

/// The CPU that this thread is, and its plan.
struct Here {
    seat: Cell<Option<&'static Seat>>,
    plan: Cell<Plan>,
    refused: Cell<u64>,
}

thread_local! {
    static HERE: Here = const {
        Here {
            seat: Cell::new(None),
            plan: Cell::new(Plan::NONE),
            refused: Cell::new(0),
        }
    };
}

/// Long enough to see that somebody does not wait who should. Who does wait is never taken for one who does not.
const A_WHILE: Duration = Duration::from_millis(1);

/// Longer than any operation takes on any machine.
const FOR_EVER: Duration = Duration::from_secs(600);

impl Seat {
    /// Seats are kept: a CPU that has been given up waits on its own for ever.
    pub fn new() -> &'static Self {
        Box::leak(Box::new(Self { baton: Mutex::new(Baton::Nobody), passed: Condvar::new() }))
    }

    /// The driver's: waits until a CPU is there, or has come to its end.
    pub fn answer_of_its_own(&self) -> Option<Answer> {
        self.wait_for_answer()
    }

    /// The driver's: gives an order and the baton, and waits for both. `None`: the CPU waits for somebody else.
    pub fn order(&self, order: Order, plan: Plan) -> Option<Answer> {
        self.pass(Baton::Order(order, plan));
        self.wait_for_answer()
    }

    /// The driver's: gives an order, and sees for a while that it is not carried out. False: it was. The answer is still to
    /// come.
    pub fn order_and_see_it_wait(&self, order: Order, plan: Plan) -> bool {
        self.pass(Baton::Order(order, plan));
        let is_no_answer = |baton: &mut Baton| !matches!(baton, Baton::Answer(_));
        let waited = self.passed.wait_timeout_while(self.lock(), A_WHILE, is_no_answer);
        waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The driver's: has a stopped CPU go on.
    pub fn go_on(&self, plan: Plan) -> Option<Answer> {
        self.pass(Baton::GoOn(plan));
        self.wait_for_answer()
    }

    /// The CPU's: waits for an order, whose plan holds from now on.
    pub fn next_order(&'static self) -> Order {
        match self.wait() {
            Baton::Order(order, plan) => {
                HERE.with(|here| here.begin(self, plan));
                order
            }
            _ => unreachable!("the CPU has not stopped in an operation"),
        }
    }

    /// The CPU's: it is done.
    pub fn answer(&self, outcome: Outcome) {
        let refused = HERE.with(|here| {
            here.plan.set(Plan::NONE);
            here.refused.replace(0)
        });
        self.pass(Baton::Answer(Answer { outcome, refused }));
    }

    fn stop(&'static self, here: &Here, point: Point) {
        here.plan.set(Plan::NONE);
        let answer = Answer { outcome: Outcome::Stopped(point), refused: here.refused.replace(0) };
        self.pass(Baton::Answer(answer));
        match self.wait() {
            Baton::GoOn(plan) => here.begin(self, plan),
            _ => unreachable!("the CPU is in the middle of an operation"),
        }
    }

    fn pass(&self, baton: Baton) {
        *self.lock() = baton;
        self.passed.notify_one();
    }

    /// Waits for the driver.
    fn wait(&self) -> Baton {
        let to_me = |baton: &mut Baton| matches!(baton, Baton::Nobody | Baton::Answer(_));
        let mut baton =
            self.passed.wait_while(self.lock(), to_me).unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut baton, Baton::Nobody)
    }

    fn wait_for_answer(&self) -> Option<Answer> {
        let not_to_me = |baton: &mut Baton| !matches!(baton, Baton::Answer(_));
        let waited = self.passed.wait_timeout_while(self.lock(), FOR_EVER, not_to_me);
        let (mut baton, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *baton, Baton::Nobody) {
            Baton::Answer(answer) => Some(answer),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Baton> {
        self.baton.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Here {
    fn begin(&self, seat: &'static Seat, plan: Plan) {
        self.seat.set(Some(seat));
        self.plan.set(plan);
    }
}

/// Called wherever a CPU could stop: stops it if that is planned. Neither allocates nor panics.
pub fn point(point: Point) {
    // A thread that ends may come here after its storage is gone.
    let _ = HERE.try_with(|here| {
        let mut plan = here.plan.get();
        let (Some(seat), Some(before)) = (here.seat.get(), plan.stop_at) else { return };
        if !(plan.points)(point) {
            return;
        }
        plan.stop_at = before.checked_sub(1);
        here.plan.set(plan);
        if before == 0 {
            seat.stop(here, point);
        }
    });
}

/// Whether data may be allocated, once the CPU has been stopped there if that is planned.
pub fn may_allocate() -> bool {
    point(Point::Allocation);
    let refused = HERE.try_with(|here| {
        let mut plan = here.plan.get();
        let refused = plan.refuse_at == Some(0);
        plan.refuse_at = plan.refuse_at.and_then(|before| before.checked_sub(1));
        here.plan.set(plan);
        here.refused.set(here.refused.get() + u64::from(refused));
        refused
    });
    refused != Ok(true)
}
