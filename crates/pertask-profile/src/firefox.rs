//! The Firefox Profiler's format, with a track for each spawn site.
//!
//! That format wants to know when each sample was taken, which a profile does not: in a track, samples follow one another by
//! the CPU time that they stand for. The time axis is CPU time, and a track is as long as its site was busy.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use fxprof_processed_profile as fx;
use fxprof_processed_profile::{
    CategoryHandle, CpuDelta, Frame, FrameFlags, FrameInfo, ReferenceTimestamp, SamplingInterval,
    Timestamp,
};

use super::{Profile, Sample, TaskRef, frames};

impl Profile {
    /// Writes the profile as JSON for <https://profiler.firefox.com>, the busiest spawn site first.
    ///
    /// Samples outside of tasks are in a track for each thread. The names of tasks are in the stacks, as their roots. Weights are
    /// samples: what has CPU time and no sample has none.
    ///
    /// # Errors
    ///
    /// Those of `writer`.
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
        let name = format!("{product} ({}; {})", self.mechanism, self.lost);
        let process = out.add_process(&name, 1, Timestamp::from_nanos_since_reference(0));
        for (tid, track) in (1..).zip(self.tracks()) {
            // Tracks are put in order by when they began, and only then by name.
            let began = Timestamp::from_nanos_since_reference(u64::from(tid));
            // None is the main one: that would be shown under the name of the process.
            let thread = out.add_thread(process, tid, began, false);
            out.set_thread_name(thread, &track.name);
            out.set_thread_end_time(thread, Timestamp::from_nanos_since_reference(track.cpu_ns));
            self.fill(&mut out, thread, &track.samples);
        }
        out
    }

    /// The tracks, those with the most CPU time first.
    fn tracks(&self) -> Vec<Track<'_>> {
        let mut tracks: HashMap<Cow<'_, str>, Track<'_>> = HashMap::new();
        for sample in &self.samples {
            let name = match &sample.task {
                Some(task) => track_name(task).into(),
                None => {
                    format!("{} {}", frames::thread(sample.thread.as_ref()), frames::OUTSIDE).into()
                }
            };
            let track = tracks.entry(name).or_default();
            track.cpu_ns = track.cpu_ns.saturating_add(sample.cpu_ns);
            track.samples.push(sample);
        }
        let named = |(name, track): (Cow<'_, str>, _)| Track { name: name.into_owned(), ..track };
        let mut tracks: Vec<_> = tracks.into_iter().map(named).collect();
        tracks.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then_with(|| a.name.cmp(&b.name)));
        tracks
    }

    fn fill(&self, out: &mut fx::Profile, thread: fx::ThreadHandle, samples: &[&Sample]) {
        let mut now_ns = 0_u64;
        for sample in samples {
            let name = sample.task.as_ref().and_then(|task| task.name.as_deref());
            let frames = name.map(Cow::from).into_iter().chain(self.frames(sample));
            let frames: Vec<_> = frames.map(|name| label(out, &name)).collect();
            let stack = out.intern_stack_frames(thread, frames.into_iter());
            now_ns = now_ns.saturating_add(sample.cpu_ns);
            // The format's weights are 32 bits wide.
            let weight = i32::try_from(sample.count).unwrap_or(i32::MAX);
            let at = Timestamp::from_nanos_since_reference(now_ns);
            out.add_sample(thread, at, stack, CpuDelta::from_nanos(sample.cpu_ns), weight);
        }
    }
}

/// `service.rs:80 (src/demo)`: of a long name only the beginning is shown.
fn track_name(task: &TaskRef) -> String {
    let place = frames::site(task);
    match place.rsplit_once(['/', '\\']) {
        Some((folder, file)) => format!("{file} ({folder})"),
        None => place.into_owned(),
    }
}

/// The samples of a spawn site, or of a thread outside of tasks.
#[derive(Default)]
struct Track<'a> {
    name: String,
    cpu_ns: u64,
    samples: Vec<&'a Sample>,
}

fn label(out: &mut fx::Profile, name: &str) -> FrameInfo {
    let frame = Frame::Label(out.intern_string(name));
    FrameInfo { frame, category_pair: CategoryHandle::OTHER.into(), flags: FrameFlags::empty() }
}
