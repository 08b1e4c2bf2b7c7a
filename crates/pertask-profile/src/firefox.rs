//! The Firefox Profiler's format, with a track for each task name.
//!
//! The format needs the time at which each sample was taken, and a profile does not have it. So the samples of a track follow
//! one another by the CPU time that they stand for. The time axis is CPU time, and a track is as long as its tasks were busy.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use fxprof_processed_profile as fx;
use fxprof_processed_profile::{
    CategoryHandle, CpuDelta, Frame, FrameFlags, FrameInfo, ReferenceTimestamp, SamplingInterval,
    Timestamp, WeightType,
};

use super::{Profile, Sample, Site, TaskRef, ThreadRef, frames};

/// The most tracks that are visible when the file is opened.
///
/// Left alone, the Profiler shows 15 tracks at most, and none that is below 5 % of the busiest.
const MOST_VISIBLE: usize = 100;

impl Profile {
    /// Writes the profile as JSON for <https://profiler.firefox.com>, the busiest track first.
    ///
    /// A track holds the tasks of one name. Where tasks of one name were spawned at several sites, each site has a track, and
    /// tasks without a name are in a track named after their spawn site. Samples outside of tasks are in a track for each
    /// thread.
    ///
    /// The Profiler shows the 100 busiest tracks when it opens the file. If there are more, the name of the process says how
    /// many are hidden, and the Profiler's *tracks* menu shows them.
    ///
    /// Stacks grow from the task's name. Weights are CPU time in whole milliseconds, because the format's writer takes no
    /// fractions: what is rounded off one sample counts for the next of its track, so sums are right to a millisecond.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn write_firefox(&self, product: &str, mut writer: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut writer, &self.to_firefox(product))?;
        writer.flush()
    }

    fn to_firefox(&self, product: &str) -> fx::Profile {
        let start = self.start.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let mut out = fx::Profile::new(
            product,
            ReferenceTimestamp::from_duration_since_unix_epoch(start),
            SamplingInterval::from_nanos(self.period_ns.max(1)),
        );
        let tracks = self.tracks();
        let mut name = format!("{product} ({}; {}", self.mechanism, self.lost);
        match tracks.len().saturating_sub(MOST_VISIBLE) {
            0 => (),
            1 => name += "; 1 more track is hidden",
            hidden => name += &format!("; {hidden} more tracks are hidden"),
        }
        name.push(')');
        let process = out.add_process(&name, 1, Timestamp::from_nanos_since_reference(0));
        for (tid, track) in (1..).zip(tracks) {
            // The Profiler orders tracks by when they began, and only then by name.
            let began = Timestamp::from_nanos_since_reference(u64::from(tid));
            // No track is the main one: the Profiler would show it under the name of the process.
            let thread = out.add_thread(process, tid, began, false);
            out.set_thread_name(thread, &track.name);
            out.set_thread_end_time(thread, Timestamp::from_nanos_since_reference(track.cpu_ns));
            if tid == 1 {
                out.add_initial_selected_thread(thread);
            }
            if tid as usize <= MOST_VISIBLE {
                out.add_initial_visible_thread(thread);
            }
            self.fill(&mut out, thread, &track.samples);
        }
        out
    }

    /// Returns the tracks, those with the most CPU time first.
    fn tracks(&self) -> Vec<Track<'_>> {
        let mut tracks: HashMap<Subject<'_>, Track<'_>> = HashMap::new();
        for sample in &self.samples {
            let track = tracks.entry(Subject::of(sample)).or_default();
            track.cpu_ns = track.cpu_ns.saturating_add(sample.cpu_ns);
            track.samples.push(sample);
        }
        let ambiguous = ambiguous_names(tracks.keys().copied());
        let named = |(subject, track): (Subject<'_>, _)| {
            let with_site =
                matches!(subject, Subject::Task(Some(name), _) if ambiguous.contains(name));
            Track { name: subject.track_name(with_site), ..track }
        };
        let mut tracks: Vec<_> = tracks.into_iter().map(named).collect();
        tracks.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then_with(|| a.name.cmp(&b.name)));
        tracks
    }

    fn fill(&self, out: &mut fx::Profile, thread: fx::ThreadHandle, samples: &[&Sample]) {
        out.set_thread_samples_weight_type(thread, WeightType::TracingMs);
        let mut now_ns = 0_u64;
        for sample in samples {
            let name = sample.task.as_ref().and_then(|task| task.name.as_deref());
            let frames = name.map(Cow::from).into_iter().chain(self.frames(sample));
            let frames: Vec<_> = frames.map(|name| label(out, &name)).collect();
            let stack = out.intern_stack_frames(thread, frames.into_iter());
            let before_ms = milliseconds(now_ns);
            now_ns = now_ns.saturating_add(sample.cpu_ns);
            let weight = i32::try_from(milliseconds(now_ns) - before_ms).unwrap_or(i32::MAX);
            let at = Timestamp::from_nanos_since_reference(now_ns);
            out.add_sample(thread, at, stack, CpuDelta::from_nanos(sample.cpu_ns), weight);
        }
    }
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

/// The samples of a task name, or of a thread outside of tasks.
#[derive(Default)]
struct Track<'a> {
    name: String,
    cpu_ns: u64,
    samples: Vec<&'a Sample>,
}

/// Rounded to the nearest.
fn milliseconds(ns: u64) -> u64 {
    ns.saturating_add(500_000) / 1_000_000
}

fn label(out: &mut fx::Profile, name: &str) -> FrameInfo {
    let frame = Frame::Label(out.intern_string(name));
    FrameInfo { frame, category_pair: CategoryHandle::OTHER.into(), flags: FrameFlags::empty() }
}
