//! The pages: which rows each shows, and in which columns.

use pertask::SpawnSite;

use crate::top::source::Subject;

use super::{column::Column, sort::Sort};

/// What the screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// Tasks by spawn site.
    Sites,
    /// Tasks by spawn path.
    Paths,
    /// CPU time by label.
    Labels,
    /// The threads.
    Threads,
    /// Tasks by type, as samples estimate them.
    Types,
    /// The live tasks of one site.
    Tasks(SpawnSite),
    /// One subject, with its hottest functions.
    Subject(Subject),
}

/// A page without what it is about: pages of one kind are sorted by the same column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sites,
    Paths,
    Labels,
    Threads,
    Types,
    Tasks,
    Subject,
}

/// The number of kinds.
pub const KINDS: usize = 7;

impl Page {
    /// Returns the kind of the page.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sites => Kind::Sites,
            Self::Paths => Kind::Paths,
            Self::Labels => Kind::Labels,
            Self::Threads => Kind::Threads,
            Self::Types => Kind::Types,
            Self::Tasks(_) => Kind::Tasks,
            Self::Subject(_) => Kind::Subject,
        }
    }
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; KINDS] = [
        Self::Sites,
        Self::Paths,
        Self::Labels,
        Self::Threads,
        Self::Types,
        Self::Tasks,
        Self::Subject,
    ];

    /// Returns the columns, from left to right. Where lives are measured, their columns are there, and say more than that of blocked polls.
    pub fn columns(self, has_lives: bool) -> impl Iterator<Item = Column> {
        let is_there = move |column: &Column| match column {
            Column::Blocked => !has_lives,
            column => has_lives || !column.is_of_lives(),
        };
        self.all_columns().iter().copied().filter(is_there)
    }

    fn all_columns(self) -> &'static [Column] {
        use Column::*;
        match self {
            Self::Sites => &[
                Cpu,
                Life,
                TasksBlocked,
                TasksReady,
                TasksWaiting,
                History,
                Polls,
                CpuPerPoll,
                MaxPoll,
                Blocked,
                Started,
                Live,
                WakeP99,
                Name,
                Place,
            ],
            Self::Paths => &[
                Inclusive,
                Cpu,
                Life,
                TasksBlocked,
                TasksReady,
                TasksWaiting,
                History,
                Polls,
                CpuPerPoll,
                MaxPoll,
                Blocked,
                Started,
                Live,
                Name,
                Place,
            ],
            Self::Labels => &[Cpu, TotalCpu, Name],
            Self::Threads => &[Cpu, InTasks, TotalCpu, Kind, Tid, Name],
            Self::Types => &[Cpu, History, TotalCpu, Samples, Name],
            Self::Tasks => &[
                Id,
                Parent,
                Cpu,
                Life,
                TasksBlocked,
                TasksReady,
                TasksWaiting,
                TotalCpu,
                Polls,
                MaxPoll,
                WakeP99,
                Name,
            ],
            Self::Subject => &[Share, Name],
        }
    }

    /// Returns by which column the rows are sorted at first.
    pub fn default_sort(self) -> Sort {
        Sort::by(match self {
            Self::Paths => Column::Inclusive,
            Self::Subject => Column::Share,
            _ => Column::Cpu,
        })
    }
}
