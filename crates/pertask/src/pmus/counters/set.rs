//! A set of events: how each can be counted on this machine, found by trying, and how they are grouped.

use super::counts::{MAX_COLUMNS, MAX_GROUPS};
use super::event::CounterEvent;
use super::usage::Figure;
use crate::error::Error;
use crate::os::clock;
use crate::os::perf::{self, Group, Refused, What};
use perf_event_open_sys::bindings as sys;

/// Events that are counted together, and how each is counted.
///
/// Counts have *places*: first those of the first group, then of the second, and so on, and last those that come without perf.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) columns: Vec<Column>,
    /// INVARIANT: at most `MAX_GROUPS`. Their members have the first places, in order.
    pub(super) groups: Vec<Members>,
    pub(super) figures: Vec<(usize, Figure)>,
    /// The place of CPU migrations, where they are watched at switches.
    pub(super) migrations: Option<usize>,
    pub(super) places: usize,
}

/// One event of a set.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) event: CounterEvent,
    pub(super) source: Source,
}

/// The members of one perf group.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) what: Vec<What>,
    pub(super) user_reads: bool,
}

/// The source of an event's count.
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
    /// CPU migrations, as far as they are seen at switches of tasks.
    Watched {
        place: usize,
        perf: Refused,
    },
    Nowhere(String),
}

/// How an event will be counted. It has no place yet.
enum Way {
    Perf { what: What, user_mode_only: Option<Refused> },
    Usage { figure: Figure, perf: Option<Refused> },
    Watch { perf: Refused },
    Nowhere(String),
}

/// The CPU time for which a group may wait for its first turn in the counters. The kernel rotates groups at its timer tick, each 1
/// to 10 ms, while their thread has a CPU.
const PATIENCE_NS: u64 = 30_000_000;

/// The environment variable that forbids reads in user space, if its value is `read`.
const VARIABLE: &str = "PERTASK_COUNTERS";

impl Set {
    /// Plans how to count these events. Tries each on the calling thread.
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

    /// Plans how to count one event alone.
    pub(super) fn plan_one(event: &CounterEvent) -> Column {
        let way = Way::find(event, figure(event).is_some());
        let mut set = Self::arrange(vec![(event.clone(), way)]);
        set.columns.remove(0)
    }

    /// The columns of these events, in the order of the events, each once.
    pub(super) fn order_of(&self, events: &[CounterEvent]) -> Vec<usize> {
        let mut order = Vec::new();
        for event in events {
            let place = self.columns.iter().position(|column| column.event == *event);
            order.extend(place.filter(|place| !order.contains(place)));
        }
        order
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
        let (mut groups, unfit) = split_to_fit(&hardware);
        if !software.is_empty() {
            // Software events run in no counter, so user space has nothing to read.
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
            let source = set.source(way, &unfit);
            set.columns.push(Column { event, source });
        }
        set
    }

    fn source(&mut self, way: Way, unfit: &[(What, String)]) -> Source {
        match way {
            Way::Perf { what, user_mode_only } => self.place_of(what).map_or_else(
                || Source::Nowhere(why_unfit(unfit, what)),
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
            // One cheap call, in place of a group that costs three times as much.
            return Self::Usage { figure, perf: None };
        }
        let happens_in_kernel = event.is(sys::PERF_COUNT_SW_CONTEXT_SWITCHES)
            || event.is(sys::PERF_COUNT_SW_CPU_MIGRATIONS);
        if happens_in_kernel && !event.what.kernel {
            return Self::Nowhere(
                "it happens in the kernel, so user mode has none to count".into(),
            );
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
            // The first refusal was for lack of privilege. More of it would not help.
            Err(refused) => Self::Nowhere(refused.to_string()),
        }
    }
}

fn why_unfit(unfit: &[(What, String)], what: What) -> String {
    let why = unfit.iter().find(|(other, _)| *other == what).map(|(_, why)| why.as_str());
    why.unwrap_or("no group had room for it").to_owned()
}

/// The figure of `getrusage` that counts an event, if the event is wanted in all modes.
fn figure(event: &CounterEvent) -> Option<Figure> {
    if !event.is_software() || event.modes_given {
        return None;
    }
    Figure::of_software_event(event.what.config)
}

/// Splits hardware events into as few groups as fit the processor's counters, at most `MAX_GROUPS - 1`. Returns the groups, and
/// the events that fit in none, each with the reason.
fn split_to_fit(what: &[What]) -> (Vec<Members>, Vec<(What, String)>) {
    if what.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let forced = std::env::var(VARIABLE).as_deref() == Ok("read");
    let user_reads = !forced && Group::may_read_in_user_space();
    let most = what.len().min(MAX_GROUPS - 1);
    for number in 1..=most {
        let size = what.len().div_ceil(number);
        // Groups that take turns need a system call to be read, because the times in a page are too old.
        let try_one =
            |members| try_group(members, user_reads && number == 1).map_err(|why| (members, why));
        let (fit, unfit): (Vec<_>, Vec<_>) =
            what.chunks(size).map(try_one).partition(Result::is_ok);
        if unfit.is_empty() || number == most {
            let unfit = unfit.into_iter().filter_map(Result::err);
            let each =
                unfit.flat_map(|(members, why)| members.iter().map(move |it| (*it, why.clone())));
            return (fit.into_iter().flatten().collect(), each.collect());
        }
    }
    (Vec::new(), Vec::new())
}

/// Opens a group and waits for its turn in the counters. Returns an error with the reason if either fails.
fn try_group(what: &[What], user_reads: bool) -> Result<Members, String> {
    let group = Group::open(what, 0, user_reads).map_err(|refused| refused.to_string())?;
    let start_ns = clock::thread_cpu_ns();
    while clock::thread_cpu_ns() - start_ns < PATIENCE_NS {
        let times = group.read_by_system_call(&mut [0; MAX_COLUMNS]);
        if times.is_some_and(|times| times.running_ns > 0) {
            let user_reads = user_reads && group.reads_in_user_space();
            return Ok(Members { what: what.to_vec(), user_reads });
        }
    }
    Err("the processor has too few counters, or other programs hold them".to_owned())
}
