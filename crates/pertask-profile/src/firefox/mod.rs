//! The Firefox Profiler's format, with a track for each task name, and one for each state in which its tasks were off the CPU.
//!
//! The format needs the time at which each sample was taken, and a profile does not have it. So the samples of a track follow
//! one another by the time that they stand for. The time axis is CPU time, and a track is as long as its tasks were busy; or it is
//! waiting time, and the track is as long as its tasks waited.

mod outline;
mod track;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter, Write};

use super::stacks::Stacks;
use super::{Profile, Sample, Site, State, TaskRef, ThreadRef, frames};
use outline::{Parts, parts};
use track::Writer;

/// The most tracks of CPU time that are visible when the file is opened, and the most of each other state.
///
/// Left alone, the Profiler shows 15 tracks at most, and none that is below 5 % of the busiest.
const MOST_VISIBLE: usize = 100;
const MOST_VISIBLE_OFF_CPU: usize = 25;

/// The most tracks of a state in a file. Nobody looks through more, and each takes memory here and there.
const MOST_TRACKS: usize = 1_000;

/// The states in the order of their tracks.
const STATES: [State; 4] = [State::OnCpu, State::Waiting, State::Ready, State::Blocked];

impl Profile {
    /// Writes the profile as JSON for <https://profiler.firefox.com>, the busiest track first.
    ///
    /// A track holds the tasks of one name. Where tasks of one name were spawned at several sites, each site has a track, and
    /// tasks without a name are in a track named after their spawn site. Samples outside of tasks are in a track for each
    /// thread. Time off the CPU is in tracks of its own, such as `GET / (waiting)`, behind those of CPU time.
    ///
    /// The Profiler shows the 100 busiest tracks when it opens the file, and 25 of each state off the CPU. If there are more, the name of
    /// the process says how many are hidden, and the Profiler's *tracks* menu shows them.
    ///
    /// If there are more than a thousand tracks of a state, the rarest are together in its last one.
    ///
    /// Stacks grow from the task's name. Weights are time in whole milliseconds, as the format's tools write them: what is
    /// rounded off one sample counts for the next of its track, so sums are right to a millisecond.
    ///
    /// Stacks are written one by one, so memory is for the profile's tables and not for its stacks.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn write_firefox(&self, product: &str, writer: impl Write) -> io::Result<()> {
        let tracks = self.tracks();
        let outline = serde_json::to_vec(&outline::of(self, product, &tracks))?;
        let outline: Parts<'_> = serde_json::from_slice(&outline)?;
        let stacks = Stacks::of_lives(self, task_name, |_| None, |name| name);
        let mut tracks = Writer::new(self, &stacks, tracks.into_iter());
        let mut writer = BufWriter::new(writer);
        parts(&mut writer, &outline, |to, key, part| match key {
            "threads" => tracks.all(to, part),
            _ => to.write_all(part.get().as_bytes()),
        })?;
        writer.flush()
    }

    /// Returns the tracks of all states, those with the most time first in each.
    fn tracks(&self) -> Vec<Track> {
        let subjects: HashSet<_> = self.all_samples().map(Subject::of).collect();
        let ambiguous = ambiguous_names(subjects.into_iter());
        STATES.into_iter().flat_map(|state| self.tracks_of(state, &ambiguous)).collect()
    }

    fn tracks_of(&self, state: State, ambiguous: &HashSet<&str>) -> impl Iterator<Item = Track> {
        let mut tracks: HashMap<Subject<'_>, Track> = HashMap::new();
        let samples = (0..).zip(self.all_samples());
        for (at, sample) in samples.filter(|(_, sample)| sample.state == state) {
            let track = tracks.entry(Subject::of(sample)).or_insert_with(|| Track::of(state));
            track.time_ns = track.time_ns.saturating_add(sample.time_ns);
            track.samples.push(at);
        }
        let mut tracks: Vec<_> = tracks.into_iter().collect();
        tracks.sort_by(|(a, of_a), (b, of_b)| {
            of_b.time_ns.cmp(&of_a.time_ns).then_with(|| a.key().cmp(&b.key()))
        });
        let most = if tracks.len() > MOST_TRACKS { MOST_TRACKS - 1 } else { MOST_TRACKS };
        let others = tracks.split_off(most.min(tracks.len()));
        let named = |(subject, track): (Subject<'_>, _)| {
            let with_site =
                matches!(subject, Subject::Task(Some(name), _) if ambiguous.contains(name));
            let name = subject.track_name(with_site);
            Track { name: of_state(name, state), ..track }
        };
        let mut tracks: Vec<_> = tracks.into_iter().map(named).collect();
        tracks.extend((!others.is_empty()).then(|| rest(state, others)));
        let visible = if state == State::OnCpu { MOST_VISIBLE } else { MOST_VISIBLE_OFF_CPU };
        tracks.iter_mut().take(visible).for_each(|track| track.is_visible = true);
        tracks.into_iter()
    }
}

/// Returns a track's name with the state in which its tasks were, unless they were on the CPU.
fn of_state(name: String, state: State) -> String {
    match state {
        State::OnCpu => name,
        state => format!("{name} ({})", state.name()),
    }
}

fn task_name(sample: &Sample) -> Option<Cow<'_, str>> {
    let name = sample.task.as_ref()?.name.as_ref()?;
    Some((&**name).into())
}

/// Returns one track for several.
fn rest(state: State, tracks: Vec<(Subject<'_>, Track)>) -> Track {
    let name = format!("({} more, with little {})", tracks.len(), state.time());
    let time_ns = tracks.iter().map(|(_, track)| track.time_ns).fold(0, u64::saturating_add);
    let mut samples: Vec<_> = tracks.into_iter().flat_map(|(_, track)| track.samples).collect();
    samples.sort_unstable();
    Track { name, time_ns, samples, ..Track::of(state) }
}

/// Whose samples a track holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Subject<'a> {
    /// The tasks of this name and spawn site.
    Task(Option<&'a str>, Option<&'a Site>),
    /// A thread while it runs no task.
    Thread(Option<&'a ThreadRef>),
}

impl<'a> Subject<'a> {
    fn of(sample: &'a Sample) -> Self {
        match &sample.task {
            Some(TaskRef { name, site, .. }) => Self::Task(name.as_deref(), site.as_ref()),
            None => Self::Thread(sample.thread.as_ref()),
        }
    }

    /// Returns what orders tracks by their names, without the names, of which there may be many that are long.
    fn key(self) -> (&'a str, &'a str, u32) {
        let place = |site: Option<&'a Site>| site.map_or(("", 0), |site| (&*site.file, site.line));
        match self {
            Self::Task(Some(name), site) => (name, place(site).0, place(site).1),
            Self::Task(None, site) => (place(site).0, "", place(site).1),
            Self::Thread(thread) => thread.map_or(("", "", 0), |it| (&it.name, "", it.tid)),
        }
    }

    /// Returns the name of the track. If `with_site` is true, the spawn site follows the task's name.
    fn track_name(self, with_site: bool) -> String {
        match self {
            Self::Task(Some(name), site) if with_site => format!("{name}, {}", site_name(site)),
            Self::Task(Some(name), _) => name.to_owned(),
            Self::Task(None, site) => site_name(site),
            Self::Thread(thread) => format!("{} {}", frames::thread(thread), frames::OUTSIDE),
        }
    }
}

/// Returns the names that tasks of several spawn sites share.
fn ambiguous_names<'a>(subjects: impl Iterator<Item = Subject<'a>>) -> HashSet<&'a str> {
    let (mut seen, mut ambiguous) = (HashSet::new(), HashSet::new());
    for subject in subjects {
        if let Subject::Task(Some(name), _) = subject
            && !seen.insert(name)
        {
            ambiguous.insert(name);
        }
    }
    ambiguous
}

/// Returns `service.rs:80 (src/demo)`, because the Profiler shows only the beginning of a long name.
fn site_name(site: Option<&Site>) -> String {
    let place = site.map_or(frames::UNKNOWN.into(), frames::place);
    match place.rsplit_once(['/', '\\']) {
        Some((folder, file)) => format!("{file} ({folder})"),
        None => place,
    }
}

/// The samples of a task name, or of a thread outside of tasks, by their places in the profile: those off the CPU come behind the others.
struct Track {
    name: String,
    state: State,
    is_visible: bool,
    time_ns: u64,
    samples: Vec<u32>,
}

impl Track {
    fn of(state: State) -> Self {
        Self { name: String::new(), state, is_visible: false, time_ns: 0, samples: Vec::new() }
    }
}
