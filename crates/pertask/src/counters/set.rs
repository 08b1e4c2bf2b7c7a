//! A set of events: where each can be counted on this machine, found by trying, and how they are grouped.

use super::event::CounterEvent;
use super::usage::Figure;
use super::{MAX_COLUMNS, MAX_GROUPS};
use crate::error::Error;
use crate::perf::{self, Group, Refused, What};
use perf_event_open_sys::bindings as sys;
use std::time::{Duration, Instant};

/// Events that are counted together, and how.
///
/// Counts are kept in *places*: those of the first group, of the second, and so on, then those that come without perf.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) columns: Vec<Column>,
    /// INVARIANT: at most `MAX_GROUPS`; their members are the first places, in order.
    pub(super) groups: Vec<Members>,
    pub(super) figures: Vec<(usize, Figure)>,
    /// The place of changes of the CPU, where they are watched.
    pub(super) migrations: Option<usize>,
    pub(super) places: usize,
}

/// One event.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) event: CounterEvent,
    pub(super) source: Source,
}

#[derive(Debug)]
pub(super) struct Members {
    pub(super) what: Vec<What>,
    pub(super) user_reads: bool,
}

/// Where an event's count comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Perf {
        place: usize,
        group: usize,
        user_reads: bool,
        user_mode_only: Option<Refused>,
    },
    Usage {
        place: usize,
        perf: Option<Refused>,
    },
    /// Changes of the CPU, as far as they are seen at switches of tasks.
    Watched {
        place: usize,
        perf: Refused,
    },
    Nowhere(String),
}

/// How an event will be counted, before it has a place.
enum Way {
    Perf { what: What, user_mode_only: Option<Refused> },
    Usage { figure: Figure, perf: Option<Refused> },
    Watch { perf: Refused },
    Nowhere(String),
}

/// How long a group may wait for its first turn in the counters. The kernel rotates groups at its tick, of 1 to 10 ms.
const PATIENCE: Duration = Duration::from_millis(30);

/// The environment variable that keeps to system calls where counters could be read in user space: `read`.
const VARIABLE: &str = "PERTASK_COUNTERS";

impl Set {
    /// Tries each event on the calling thread.
    pub(super) fn plan(events: &[CounterEvent]) -> Result<Self, Error> {
        let mut distinct: Vec<&CounterEvent> = Vec::new();
        for event in events {
            if !distinct.contains(&event) {
                distinct.push(event);
            }
        }
        if distinct.len() > MAX_COLUMNS {
            return Err(Error::TooManyEvents { wanted: distinct.len(), limit: MAX_COLUMNS });
        }
        let plain = |event: &&&CounterEvent| event.is_software();
        let usage_has_all = distinct.iter().filter(plain).all(|event| figure(event).is_some());
        let ways = distinct.iter().map(|event| Way::find(event, usage_has_all)).collect::<Vec<_>>();
        let events = distinct.into_iter().cloned().zip(ways).collect();
        Ok(Self::arrange(events))
    }

    /// Tries one event alone.
    pub(super) fn plan_one(event: &CounterEvent) -> Column {
        let way = Way::find(event, figure(event).is_some());
        let mut set = Self::arrange(vec![(event.clone(), way)]);
        set.columns.remove(0)
    }

    pub(super) fn is_of(&self, events: &[CounterEvent]) -> bool {
        let has = |event: &CounterEvent| self.columns.iter().any(|column| column.event == *event);
        events.iter().all(has) && self.columns.iter().all(|column| events.contains(&column.event))
    }

    /// Gives each event its place.
    fn arrange(events: Vec<(CounterEvent, Way)>) -> Self {
        let mut hardware = Vec::new();
        let mut software = Vec::new();
        for (event, way) in &events {
            match way {
                Way::Perf { what, .. } if event.is_software() => software.push(*what),
                Way::Perf { what, .. } => hardware.push(*what),
                Way::Usage { .. } | Way::Watch { .. } | Way::Nowhere(_) => {}
            }
        }
        let mut groups = split_to_fit(&hardware);
        if !software.is_empty() {
            // Software events run in no counter: nothing to read in user space.
            groups.push(Members { what: software, user_reads: false });
        }
        let mut set = Self {
            columns: Vec::new(),
            places: groups.iter().map(|group| group.what.len()).sum(),
            groups,
            figures: Vec::new(),
            migrations: None,
        };
        for (event, way) in events {
            let source = set.source(way);
            set.columns.push(Column { event, source });
        }
        set
    }

    fn source(&mut self, way: Way) -> Source {
        match way {
            Way::Perf { what, user_mode_only } => self.place_of(what).map_or_else(
                || Source::Nowhere("it found no group".to_owned()),
                |(place, group)| Source::Perf {
                    place,
                    group,
                    user_reads: self.groups[group].user_reads,
                    user_mode_only,
                },
            ),
            Way::Usage { figure, perf } => {
                let place = self.take_place();
                self.figures.push((place, figure));
                Source::Usage { place, perf }
            }
            Way::Watch { perf } => {
                let place = self.take_place();
                self.migrations = Some(place);
                Source::Watched { place, perf }
            }
            Way::Nowhere(reason) => Source::Nowhere(reason),
        }
    }

    fn take_place(&mut self) -> usize {
        self.places += 1;
        self.places - 1
    }

    fn place_of(&self, what: What) -> Option<(usize, usize)> {
        let members = self.groups.iter().enumerate();
        let mut members = members
            .flat_map(|(group, members)| members.what.iter().map(move |what| (*what, group)));
        let place = members.clone().position(|(other, _)| other == what)?;
        members.nth(place).map(|(_, group)| (place, group))
    }
}

impl Way {
    fn find(event: &CounterEvent, usage_has_all: bool) -> Self {
        let figure = figure(event);
        if let (Some(figure), true) = (figure, usage_has_all) {
            // One cheap call instead of a group that costs three times as much.
            return Self::Usage { figure, perf: None };
        }
        let happens_in_kernel = event.is(sys::PERF_COUNT_SW_CONTEXT_SWITCHES)
            || event.is(sys::PERF_COUNT_SW_CPU_MIGRATIONS);
        if happens_in_kernel && !event.what.kernel {
            return Self::Nowhere("it happens in the kernel: none is counted in user mode".into());
        }
        let refused = match perf::probe(event.what) {
            Ok(()) => return Self::Perf { what: event.what, user_mode_only: None },
            Err(refused) => refused,
        };
        if let Some(figure) = figure {
            return Self::Usage { figure, perf: Some(refused) };
        }
        if event.is(sys::PERF_COUNT_SW_CPU_MIGRATIONS) && !event.modes_given {
            return Self::Watch { perf: refused };
        }
        if !refused.is_permission() || event.modes_given {
            return Self::Nowhere(refused.to_string());
        }
        let what = event.what.user_only();
        match perf::probe(what) {
            Ok(()) => Self::Perf { what, user_mode_only: Some(refused) },
            // More privilege would not help.
            Err(refused) => Self::Nowhere(refused.to_string()),
        }
    }
}

/// What `getrusage` has of an event, if it is wanted in all modes.
fn figure(event: &CounterEvent) -> Option<Figure> {
    if !event.is_software() || event.modes_given {
        return None;
    }
    Figure::of_software_event(event.what.config)
}

/// As few groups as the processor has counters for, at most `MAX_GROUPS` less one.
fn split_to_fit(what: &[What]) -> Vec<Members> {
    if what.is_empty() {
        return Vec::new();
    }
    let user_reads = std::env::var(VARIABLE).as_deref() != Ok("read");
    let most = what.len().min(MAX_GROUPS - 1);
    let mut groups = Vec::new();
    for number in 1..=most {
        let size = what.len().div_ceil(number);
        let tried: Option<Vec<_>> =
            what.chunks(size).map(|members| try_group(members, user_reads)).collect();
        if let Some(fitting) = tried {
            return fitting;
        }
        // Should none fit, the smallest are opened, and it is seen that they do not run.
        groups = what.chunks(size).map(|what| Members::new(what, false)).collect();
    }
    groups
}

/// Whether a group opens and gets its turn.
fn try_group(what: &[What], user_reads: bool) -> Option<Members> {
    let group = Group::open(what, 0, user_reads).ok()?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let times = group.read_by_system_call(&mut [0; MAX_COLUMNS])?;
        if times.running_ns > 0 {
            return Some(Members::new(what, group.reads_in_user_space()));
        }
    }
    None
}

impl Members {
    fn new(what: &[What], user_reads: bool) -> Self {
        Self { what: what.to_vec(), user_reads }
    }
}
