//! The file without its stacks, as the format's library writes it. What grows with the number of samples is put into it later.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use fxprof_processed_profile as fx;
use fxprof_processed_profile::{
    CategoryColor, CategoryHandle, Frame, FrameFlags, FrameInfo, ReferenceTimestamp,
    SamplingInterval, Timestamp,
};
use serde_json::value::RawValue;

use super::super::{Profile, State};
use super::Track;

/// The parts of a JSON object, by their keys.
pub(super) type Parts<'a> = BTreeMap<&'a str, &'a RawValue>;

/// Writes an object whose parts are those of another one, but as `write` writes them.
pub(super) fn parts<W: Write>(
    to: &mut W,
    object: &Parts<'_>,
    mut write: impl FnMut(&mut W, &str, &RawValue) -> io::Result<()>,
) -> io::Result<()> {
    let mut before = "{";
    for (key, part) in object {
        write!(to, "{before}\"{key}\":")?;
        write(to, key, part)?;
        before = ",";
    }
    to.write_all(if object.is_empty() { b"{}" } else { b"}" })
}

/// Returns the file with empty tracks.
pub(super) fn of(profile: &Profile, product: &str, tracks: &[Track]) -> fx::Profile {
    let (mut out, _) = empty(profile, product);
    let hidden = tracks.iter().filter(|track| !track.is_visible).count();
    let name = process_name(profile, product, hidden);
    let process = out.add_process(&name, 1, Timestamp::from_nanos_since_reference(0));
    for (tid, track) in (1..).zip(tracks) {
        // The Profiler orders tracks by when they began, and only then by name.
        let began = Timestamp::from_nanos_since_reference(u64::from(tid));
        // No track is the main one: the Profiler would show it under the name of the process.
        let thread = out.add_thread(process, tid, began, false);
        out.set_thread_name(thread, &track.name);
        out.set_thread_end_time(thread, Timestamp::from_nanos_since_reference(track.time_ns));
        if tid == 1 {
            out.add_initial_selected_thread(thread);
        }
        if track.is_visible {
            out.add_initial_visible_thread(thread);
        }
    }
    out
}

/// Returns a file with one thread of so many frames in a state. The name of each is its number.
pub(super) fn of_frames(profile: &Profile, state: State, frames: usize) -> fx::Profile {
    let (mut out, category) = empty(profile, "");
    let at = Timestamp::from_nanos_since_reference(0);
    let process = out.add_process("", 1, at);
    let thread = out.add_thread(process, 1, at, false);
    let category_pair = category(state).into();
    for number in 0..frames {
        let frame = Frame::Label(out.intern_string(&number.to_string()));
        let frame = FrameInfo { frame, category_pair, flags: FrameFlags::empty() };
        out.intern_stack_frames(thread, [frame].into_iter());
    }
    out
}

/// Returns a file without tracks, and what colours a state in it. The categories are always the same, in the same order.
fn empty(
    profile: &Profile,
    product: &str,
) -> (fx::Profile, impl Fn(State) -> CategoryHandle + use<>) {
    let start = profile.start.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut out = fx::Profile::new(
        product,
        ReferenceTimestamp::from_duration_since_unix_epoch(start),
        SamplingInterval::from_nanos(profile.period_ns.max(1)),
    );
    let mut add = |state: State, color| out.add_category(state.name(), color);
    let blocked = add(State::Blocked, CategoryColor::Red);
    let ready = add(State::Ready, CategoryColor::Yellow);
    let waiting = add(State::Waiting, CategoryColor::Blue);
    let category = move |state| match state {
        // CPU time keeps the Profiler's own colour.
        State::OnCpu => CategoryHandle::OTHER,
        State::Blocked => blocked,
        State::Ready => ready,
        State::Waiting => waiting,
    };
    (out, category)
}

fn process_name(profile: &Profile, product: &str, hidden: usize) -> String {
    let mut name = format!("{product} ({}", profile.origin());
    match hidden {
        0 => (),
        1 => name += "; 1 more track is hidden",
        hidden => name += &format!("; {hidden} more tracks are hidden"),
    }
    name.push(')');
    name
}
