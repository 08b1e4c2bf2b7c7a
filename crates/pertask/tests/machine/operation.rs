//! What the scheduler can have done in one step.

use crate::baton::Point;
use pertask::Inherit;
use std::fmt;

/// One operation. Tasks and events are named by their numbers in the ledger and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    SwitchIn {
        cpu: usize,
        task: usize,
    },
    /// Switches out what was switched in: preempted, or blocked until it is woken.
    SwitchOut {
        cpu: usize,
        then: Then,
    },
    Run {
        cpu: usize,
        task: usize,
    },
    /// Runs what is no turn of the task's.
    RunAside {
        cpu: usize,
        task: usize,
    },
    /// Ends the innermost run; what was switched in over it and left there ends with it.
    End {
        cpu: usize,
    },
    /// The same, by a panic.
    Panic {
        cpu: usize,
    },
    /// A child of what runs on the CPU.
    Fork {
        cpu: usize,
    },
    ForkRoot {
        cpu: usize,
    },
    Exit {
        cpu: usize,
        task: usize,
    },
    AttachTask {
        cpu: usize,
        pmu: usize,
        task: usize,
        inherit: Inherit,
    },
    AttachGlobal {
        cpu: usize,
        pmu: usize,
    },
    Detach {
        cpu: usize,
        event: usize,
    },
    Snapshot {
        cpu: usize,
        pmu: usize,
    },
    Walk {
        cpu: usize,
    },
    /// Reads an inherited event.
    Read {
        cpu: usize,
        event: usize,
    },
    /// The CPU goes, with what runs on it, and comes back.
    Replug {
        cpu: usize,
    },
    /// What a stopped CPU was doing goes on.
    GoOn {
        cpu: usize,
    },
    /// A blocked task is ready.
    Wake {
        task: usize,
    },
    /// An event counts from zero.
    Reset {
        event: usize,
    },
    /// From here on the PMU gets no more data, or as much as it wants.
    Limit {
        pmu: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Ready,
    Blocked,
}

impl Operation {
    /// The CPU that does it; `None`: the driver.
    pub fn cpu(&self) -> Option<usize> {
        match *self {
            Self::SwitchIn { cpu, .. }
            | Self::SwitchOut { cpu, .. }
            | Self::Run { cpu, .. }
            | Self::RunAside { cpu, .. }
            | Self::End { cpu }
            | Self::Panic { cpu }
            | Self::Fork { cpu }
            | Self::ForkRoot { cpu }
            | Self::Exit { cpu, .. }
            | Self::AttachTask { cpu, .. }
            | Self::AttachGlobal { cpu, .. }
            | Self::Detach { cpu, .. }
            | Self::Snapshot { cpu, .. }
            | Self::Walk { cpu }
            | Self::Read { cpu, .. }
            | Self::Replug { cpu }
            | Self::GoOn { cpu } => Some(cpu),
            Self::Wake { .. } | Self::Reset { .. } | Self::Limit { .. } => None,
        }
    }

    /// Where it can stop: where it holds no lock that others wait for, but for those that [`Machine::waits`] knows.
    ///
    /// [`Machine::waits`]: crate::machine::Machine::waits
    pub fn points(&self) -> fn(Point) -> bool {
        match self {
            Self::SwitchIn { .. }
            | Self::SwitchOut { .. }
            | Self::Run { .. }
            | Self::RunAside { .. }
            | Self::End { .. }
            | Self::Panic { .. } => |point| matches!(point, Point::SchedIn(_) | Point::SchedOut(_)),
            Self::Fork { .. } | Self::ForkRoot { .. } | Self::AttachTask { .. } => {
                |point| matches!(point, Point::Allocation | Point::Read(_) | Point::ReadNew(_))
            }
            // As it leaves its families, which is when it has left the table and been folded.
            Self::Exit { .. } => |point| matches!(point, Point::Read(_)),
            Self::AttachGlobal { .. } => |point| matches!(point, Point::Allocation),
            Self::Snapshot { .. } => {
                |point| matches!(point, Point::Shown | Point::Read(_) | Point::ReadNew(_))
            }
            Self::Read { .. } => |point| matches!(point, Point::Read(_) | Point::ReadNew(_)),
            Self::Walk { .. } => |point| matches!(point, Point::Walk | Point::Shown),
            _ => |_| false,
        }
    }

    /// Whether it holds a section while it has stopped, for whose end others might wait. (A fork also stops outside of its
    /// section; that is not told apart.)
    pub fn stops_in_section(&self) -> bool {
        !matches!(
            self,
            Self::AttachTask { .. }
                | Self::AttachGlobal { .. }
                | Self::Detach { .. }
                | Self::Walk { .. }
        )
    }

    pub fn is_switch(&self) -> bool {
        matches!(
            self,
            Self::SwitchIn { .. }
                | Self::SwitchOut { .. }
                | Self::Run { .. }
                | Self::RunAside { .. }
                | Self::End { .. }
                | Self::Panic { .. }
        )
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::SwitchIn { .. } => "switch in",
            Self::SwitchOut { then: Then::Ready, .. } => "preempt",
            Self::SwitchOut { then: Then::Blocked, .. } => "block",
            Self::Run { .. } => "run",
            Self::RunAside { .. } => "run aside",
            Self::End { .. } => "end of run",
            Self::Panic { .. } => "panic",
            Self::Fork { .. } => "fork",
            Self::ForkRoot { .. } => "fork a root",
            Self::Exit { .. } => "exit",
            Self::AttachTask { inherit: Inherit::No, .. } => "attach to task",
            Self::AttachTask { inherit: Inherit::Children, .. } => "attach to task and children",
            Self::AttachGlobal { .. } => "attach globally",
            Self::Detach { .. } => "detach",
            Self::Snapshot { .. } => "snapshot",
            Self::Walk { .. } => "walk",
            Self::Read { .. } => "read",
            Self::Replug { .. } => "replug",
            Self::GoOn { .. } => "go on",
            Self::Wake { .. } => "wake",
            Self::Reset { .. } => "reset",
            Self::Limit { .. } => "limit",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cpu() {
            Some(cpu) => write!(f, "cpu {cpu}: {}", self.name())?,
            None => f.write_str(self.name())?,
        }
        match *self {
            Self::SwitchIn { task, .. }
            | Self::Run { task, .. }
            | Self::RunAside { task, .. }
            | Self::Exit { task, .. }
            | Self::Wake { task } => write!(f, " task {task}"),
            Self::AttachTask { pmu, task, .. } => write!(f, ", task {task}, pmu {pmu}"),
            Self::AttachGlobal { pmu, .. } | Self::Snapshot { pmu, .. } | Self::Limit { pmu } => {
                write!(f, ", pmu {pmu}")
            }
            Self::Detach { event, .. } | Self::Read { event, .. } | Self::Reset { event } => {
                write!(f, " event {event}")
            }
            _ => Ok(()),
        }
    }
}
