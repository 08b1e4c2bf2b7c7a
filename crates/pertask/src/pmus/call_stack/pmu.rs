//! The PMU: saves the register file with the task that leaves, and loads that of the task which comes.

#[cfg(feature = "sampler")]
use super::registers::MAX_SCOPES;
use super::registers::{Deeper, Registers};
use crate::error::Error;
use bytemuck::Zeroable;
use pertask_core::{Cpu, CpuRecord, Event, Inherit, Pmu, PmuHandle, Switch, System, Task};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Keeps, for each task, in which scopes it is. It counts nothing: samplers read the CPU's registers.
#[derive(Debug)]
pub struct CallStack {
    deeper: Deeper,
}

/// What the PMU keeps for a task: its scopes, while it does not run.
#[derive(Debug)]
#[repr(C)]
pub struct CallStackData(Registers);

// SAFETY: all fields are integers, for which zero is a value.
unsafe impl Zeroable for CallStackData {}

/// What the PMU keeps for a CPU. Written by its own thread.
#[derive(Debug, Default)]
pub struct CallStackCpu {
    /// The scopes of whatever runs now.
    now: Registers,
    /// Those of the thread itself, while it runs a task.
    own: Registers,
    /// When they were last written: compared with [`GENERATION`].
    generation: AtomicU32,
}

/// While it lives, scopes are recorded, for all tasks or for one.
#[derive(Debug)]
pub struct CallStacks {
    // Before the user: what scopes were in is forgotten before the next user begins.
    _event: Event<CallStack>,
    _user: User,
}

#[derive(Debug)]
struct User;

/// How many record scopes now.
static USERS: AtomicU32 = AtomicU32::new(0);

/// How often recording has begun: what registers hold from an earlier time is out of date.
static GENERATION: AtomicU32 = AtomicU32::new(0);

static HANDLE: OnceLock<Result<PmuHandle<CallStack>, pertask_core::Error>> = OnceLock::new();

impl Pmu for CallStack {
    const NAME: &'static str = "call-stack";
    type Data = CallStackData;
    type CpuData = CallStackCpu;
    type Count = ();

    fn sched_in(&self, switch: Switch<'_, Self>) {
        let cpu = switch.cpu_data;
        cpu.be_up_to_date();
        cpu.own.load(&cpu.now);
        match switch.data {
            Some(data) => cpu.now.load(&data.0),
            // As last-branch records are reset for a task without data: better none than another task's.
            None => cpu.now.clear(),
        }
    }

    fn sched_out(&self, switch: Switch<'_, Self>) {
        let cpu = switch.cpu_data;
        cpu.be_up_to_date();
        if let Some(data) = switch.data {
            data.0.load(&cpu.now);
        }
        cpu.now.load(&cpu.own);
    }

    fn cpu_online(&self, _: &CpuRecord, data: &CallStackCpu) {
        data.clear();
    }

    fn read(&self, _: &CallStackData) {}

    fn fold(&self, _: &CallStackData, _: &CallStackData) -> bool {
        // It counts nothing.
        true
    }
}

impl CallStack {
    /// Records the scopes of every task, those to come included, and of threads that run none.
    ///
    /// A scope that was entered before is not known: stacks begin with what is entered from now on.
    ///
    /// # Errors
    /// When the attach is refused: see [`Error`].
    pub fn record() -> Result<CallStacks, Error> {
        // Before there is data, so that no guard between the two is left out of a task that has it.
        let user = User::begin();
        Ok(CallStacks { _event: Self::handle()?.attach_global()?, _user: user })
    }

    /// Records the scopes of one task.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn record_task(task: &Arc<Task>, inherit: Inherit) -> Result<CallStacks, Error> {
        let user = User::begin();
        Ok(CallStacks { _event: Self::handle()?.attach_task(task, inherit)?, _user: user })
    }

    /// How many scopes were entered beyond the [`MAX_SCOPES`](super::MAX_SCOPES) that are kept, since the program began.
    #[must_use]
    pub fn deeper_scopes() -> u64 {
        Self::handle().map_or(0, |handle| handle.pmu().deeper.get())
    }

    /// The scopes that hold on a CPU, outermost first, into `names`: how many are kept, and how many are deeper. For a signal
    /// handler on the CPU's own thread: neither allocates nor locks.
    #[cfg(feature = "sampler")]
    pub(crate) fn read_on(cpu: &CpuRecord, names: &mut [u32; MAX_SCOPES]) -> (usize, u32) {
        let handle = HANDLE.get().and_then(|handle| handle.as_ref().ok());
        let data = handle.filter(|_| Self::is_recording()).and_then(|handle| handle.cpu_data(cpu));
        // What an earlier recording left means nothing now. Relaxed: see `be_up_to_date`.
        let current = data.filter(|data| data.generation() == GENERATION.load(Ordering::Relaxed));
        current.map_or((0, 0), |data| data.now.read(names))
    }

    pub(super) fn handle() -> Result<PmuHandle<Self>, Error> {
        let register = || System::global().register(Self { deeper: Deeper::default() });
        HANDLE.get_or_init(register).map_err(Error::from)
    }

    /// Whether anybody records scopes.
    #[inline(always)]
    pub(crate) fn is_recording() -> bool {
        // Relaxed: a scope that is entered at this moment is recorded or is not.
        USERS.load(Ordering::Relaxed) != 0
    }

    /// The registers of the CPU that this thread is, up to date.
    #[inline]
    pub(super) fn here<R>(
        handle: PmuHandle<Self>,
        f: impl FnOnce(&CallStackCpu) -> R,
    ) -> Option<R> {
        Cpu::with(|cpu| {
            let data = handle.cpu_data(cpu.record())?;
            data.be_up_to_date();
            Some(f(data))
        })
    }

    pub(super) fn count_deeper(&self) {
        self.deeper.count();
    }
}

impl CallStackCpu {
    pub(super) fn now(&self) -> &Registers {
        &self.now
    }

    pub(super) fn generation(&self) -> u32 {
        // Relaxed: this thread's own.
        self.generation.load(Ordering::Relaxed)
    }

    fn be_up_to_date(&self) {
        // Relaxed: recording begins for this thread when it sees the new number.
        let generation = GENERATION.load(Ordering::Relaxed);
        if self.generation() != generation {
            self.clear();
            self.generation.store(generation, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        self.now.clear();
        self.own.clear();
    }
}

impl User {
    fn begin() -> Self {
        // Relaxed, here and below: numbers; see `be_up_to_date` and `is_recording`.
        if USERS.fetch_add(1, Ordering::Relaxed) == 0 {
            GENERATION.fetch_add(1, Ordering::Relaxed);
        }
        Self
    }
}

impl Drop for User {
    fn drop(&mut self) {
        USERS.fetch_sub(1, Ordering::Relaxed);
    }
}
