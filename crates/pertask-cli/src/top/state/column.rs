//! The columns of all pages.

/// A column, which a page may have or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// CPU time over the last interval, in percent of one CPU.
    Cpu,
    /// CPU time with that of all descendants, in percent of one CPU.
    Inclusive,
    /// CPU time over the last updates, as a picture.
    History,
    /// Polls a second.
    Polls,
    /// CPU time of an average poll of the last interval.
    CpuPerPoll,
    /// The longest poll since the session began.
    MaxPoll,
    /// How much of a worker is held by polls that use no CPU, where that is much.
    Blocked,
    /// How these tasks spent the last interval, as a picture.
    Life,
    /// How many tasks were in a poll and off the CPU at a time, on average. In place of [`Blocked`](Self::Blocked), where lives are measured.
    TasksBlocked,
    /// How many were woken and not yet polled.
    TasksReady,
    /// How many waited for a wake.
    TasksWaiting,
    /// Tasks started a second.
    Started,
    /// Tasks that are alive.
    Live,
    /// The 99th percentile of the waits between wake and poll, since the session began.
    WakeP99,
    /// A task's number.
    Id,
    /// The number of the task that spawned it.
    Parent,
    /// CPU time since the session began.
    TotalCpu,
    /// The share of a thread's CPU time that was inside tasks.
    InTasks,
    /// Whether a thread runs tasks.
    Kind,
    /// A thread's kernel id.
    Tid,
    /// Samples since sampling began.
    Samples,
    /// A function's share.
    Share,
    /// The name, which every page has.
    Name,
    /// The spawn site's place.
    Place,
}

impl Column {
    /// Returns the key that sorts by this column, if there is one.
    pub fn letter(self) -> Option<char> {
        Some(match self {
            Self::Cpu => 'C',
            Self::Inclusive => 'I',
            Self::History => 'H',
            Self::Polls => 'P',
            Self::CpuPerPoll => 'U',
            Self::MaxPoll => 'M',
            Self::Blocked | Self::TasksBlocked => 'B',
            Self::Life => 'E',
            Self::TasksReady => 'R',
            Self::TasksWaiting => 'A',
            Self::Started => 'S',
            Self::Live => 'L',
            Self::WakeP99 => 'W',
            Self::Id | Self::Tid => 'D',
            Self::TotalCpu => 'T',
            Self::Samples => 'A',
            Self::Name => 'N',
            Self::Place => 'F',
            Self::Parent | Self::InTasks | Self::Kind | Self::Share => return None,
        })
    }

    /// Returns whether it is there only where lives are measured.
    pub fn is_of_lives(self) -> bool {
        matches!(self, Self::Life | Self::TasksBlocked | Self::TasksReady | Self::TasksWaiting)
    }

    /// Returns whether people want the greatest values first.
    pub fn is_descending(self) -> bool {
        !matches!(self, Self::Id | Self::Parent | Self::Tid | Self::Kind | Self::Name | Self::Place)
    }
}
