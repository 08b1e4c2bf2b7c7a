//! The call-stack PMU: it saves the registers of the task that is switched out, and loads those of the task that is switched in.

#[cfg(feature = "sampler")]
use super::registers::MAX_SCOPES;
use super::registers::{Deeper, Registers};
use crate::error::Error;
use bytemuck::Zeroable;
use pertask_core::{Cpu, CpuRecord, Event, Inherit, Pmu, PmuHandle, Switch, System, Task};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Keeps for each task the scopes in which it is.
///
/// This PMU counts nothing. Samplers read the CPU's registers.
#[derive(Debug)]
pub struct CallStack {
    deeper: Deeper,
}

/// What the PMU keeps for a task: its scopes while it does not run.
#[derive(Debug)]
#[repr(C)]
pub struct CallStackData(Registers);

// SAFETY: all fields are integers, for which zero is a value.
unsafe impl Zeroable for CallStackData {}

/// What the PMU keeps for a CPU.
///
/// Only the CPU's own thread writes it.
#[derive(Debug, Default)]
pub struct CallStackCpu {
    /// The scopes of the task that runs now, or of the thread if no task does.
    now: Registers,
    /// The scopes of the thread itself, while it runs a task.
    own: Registers,
    /// The [`GENERATION`] of both registers.
    generation: AtomicU32,
}

/// A recording of scopes, of all tasks or of one, which lasts as long as this value lives.
#[derive(Debug)]
pub struct CallStacks {
    // Dropped before the user, so that tasks lose their data before the next user begins.
    _event: Event<CallStack>,
    _user: User,
}

#[derive(Debug)]
struct User;

/// The number of recordings at this moment.
static USERS: AtomicU32 = AtomicU32::new(0);

/// How often recording has begun. Registers of an earlier generation are out of date.
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
            // A task without data gets empty registers, and not those of another task. The kernel resets last-branch records
            // alike.
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
    /// Records the scopes of all tasks, including tasks that are made later, and of threads outside tasks.
    ///
    /// Scopes that were entered before are not known. Stacks begin with the first scope that is entered from now on.
    ///
    /// # Errors
    /// Returns [`Error::Attach`] if the core refuses the attach.
    pub fn record() -> Result<CallStacks, Error> {
        // The user begins before tasks have data, so that each guard of a task with data is recorded.
        let user = User::begin();
        Ok(CallStacks { _event: Self::handle()?.attach_global()?, _user: user })
    }

    /// Records the scopes of one task, and of its descendants if `inherit` says so.
    ///
    /// # Errors
    /// Returns [`Error::Attach`] if the core refuses the attach, for example because the task has ended.
    pub fn record_task(task: &Arc<Task>, inherit: Inherit) -> Result<CallStacks, Error> {
        let user = User::begin();
        Ok(CallStacks { _event: Self::handle()?.attach_task(task, inherit)?, _user: user })
    }

    /// How many scopes were entered beyond the [`MAX_SCOPES`](super::MAX_SCOPES) that a stack keeps, since the program began.
    #[must_use]
    pub fn deeper_scopes() -> u64 {
        Self::handle().map_or(0, |handle| handle.pmu().deeper.get())
    }

    /// Writes the scopes that are open on a CPU into `names`, outermost first. Returns how many it wrote, and how many more are
    /// open.
    ///
    /// This is for a signal handler on the CPU's own thread: it neither allocates nor locks.
    #[cfg(feature = "sampler")]
    pub(crate) fn read_on(cpu: &CpuRecord, names: &mut [u32; MAX_SCOPES]) -> (usize, u32) {
        let handle = HANDLE.get().and_then(|handle| handle.as_ref().ok());
        let data = handle.filter(|_| Self::is_recording()).and_then(|handle| handle.cpu_data(cpu));
        // Registers of an earlier recording are out of date. Relaxed: see `be_up_to_date`.
        let current = data.filter(|data| data.generation() == GENERATION.load(Ordering::Relaxed));
        current.map_or((0, 0), |data| data.now.read(names))
    }

    pub(super) fn handle() -> Result<PmuHandle<Self>, Error> {
        let register = || System::global().register(Self { deeper: Deeper::default() });
        HANDLE.get_or_init(register).map_err(Error::from)
    }

    /// Whether there is a recording of scopes.
    #[inline(always)]
    pub(crate) fn is_recording() -> bool {
        // Relaxed: a scope that is entered while a recording begins or ends may be recorded or not.
        USERS.load(Ordering::Relaxed) != 0
    }

    /// Calls `f` with the registers of the CPU that the calling thread is, up to date.
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
        // Relaxed: only this thread writes it.
        self.generation.load(Ordering::Relaxed)
    }

    fn be_up_to_date(&self) {
        // Relaxed: for this thread, recording begins when it sees the new number.
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
        // Relaxed, here and in `drop`: see `be_up_to_date` and `is_recording`.
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
