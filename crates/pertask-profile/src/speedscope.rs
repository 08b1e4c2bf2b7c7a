//! speedscope's own file format, which keeps inlined functions.
//!
//! speedscope reads pprof too, but takes only the last line of each location, so that inlined functions are missing there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::iter;

use super::{LocationId, Profile, RootBy, Sample, State, Weight, frames};

/// The most profiles in a file, in addition to the one of all samples.
const MOST_PROFILES: usize = 100;

impl Profile {
    /// Writes the profile as JSON for <https://www.speedscope.app>.
    ///
    /// The file has a profile of all samples, whose stacks grow from what `root` says. It also has a profile for each root,
    /// such as each task name, the busiest first. If there are more than a hundred roots, the others are in the first profile
    /// only, and its name says how many they are. Behind them come the same profiles of each state off the CPU in which there is any
    /// weight, such as `All tasks (waiting)`.
    ///
    /// The line of a function is the one where it begins. If that is not known, it is the first of its lines that has a sample.
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn write_speedscope(
        &self,
        name: &str,
        root: RootBy,
        weight: Weight,
        writer: impl Write,
    ) -> io::Result<()> {
        let mut frames = Frames::default();
        let groups: Vec<_> = self
            .states(weight)
            .map(|it| (it, self.grouped(it, root, weight, &mut frames)))
            .collect();
        let mut writer = BufWriter::new(writer);
        let to = &mut writer;
        to.write_all(br#"{"$schema":"https://www.speedscope.app/file-format-schema.json","#)?;
        write!(to, r#""exporter":"pertask {}","name":"#, env!("CARGO_PKG_VERSION"))?;
        string(to, &format!("{name} ({})", self.origin()))?;
        to.write_all(br#","activeProfileIndex":0,"shared":{"frames":["#)?;
        separated(to, &frames.list, |to, frame| frame.write(to))?;
        to.write_all(br#"]},"profiles":["#)?;
        let file = File { frames: &frames, weight };
        separated(to, &groups, |to, (state, groups)| file.state(to, *state, root, groups))?;
        to.write_all(b"]}\n")?;
        writer.flush()
    }

    /// Returns the state of the profile, and those off the CPU in which there is any weight.
    fn states(&self, weight: Weight) -> impl Iterator<Item = State> {
        let others = State::OFF_CPU.into_iter().rev();
        let has = move |state: &State| {
            self.off_cpu.iter().any(|it| it.state == *state && weight.of(it) > 0)
        };
        iter::once(self.state).chain(others.filter(has))
    }

    /// Returns the stacks of each root in a state, the busiest root first. Their frames are added to the table.
    fn grouped<'a>(
        &'a self,
        state: State,
        root: RootBy,
        weight: Weight,
        frames: &mut Frames<'a>,
    ) -> Vec<Group<'a>> {
        let mut groups: HashMap<Cow<'_, str>, Group<'_>> = HashMap::new();
        let samples = self.all_samples().filter(|sample| sample.state == state);
        for sample in samples.filter(|sample| weight.of(sample) > 0) {
            sample.stack.iter().for_each(|id| frames.add_location(self, *id));
            let name = root.of(sample);
            let group = groups.entry(name.clone()).or_insert_with(|| Group::new(name, frames));
            group.add(sample, weight.of(sample));
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.name.cmp(&b.name)));
        groups
    }
}

/// The samples that grow from one root.
struct Group<'a> {
    name: Cow<'a, str>,
    root: u32,
    weight: u64,
    stacks: Vec<Stack<'a>>,
    index: HashMap<(&'a [LocationId], bool), usize>,
}

/// A stack, from the function that ran to its callers, and its weight.
struct Stack<'a> {
    locations: &'a [LocationId],
    complete: bool,
    weight: u64,
}

impl<'a> Group<'a> {
    fn new(name: Cow<'a, str>, frames: &mut Frames<'a>) -> Self {
        let root = frames.id(Kind::Root, name.clone(), None, 0);
        Self { name, root, weight: 0, stacks: Vec::new(), index: HashMap::new() }
    }

    fn add(&mut self, sample: &'a Sample, weight: u64) {
        let (locations, complete) = (&*sample.stack, sample.complete);
        self.weight = self.weight.saturating_add(weight);
        let at = *self.index.entry((locations, complete)).or_insert(self.stacks.len());
        match self.stacks.get_mut(at) {
            Some(stack) => stack.weight = stack.weight.saturating_add(weight),
            None => self.stacks.push(Stack { locations, complete, weight }),
        }
    }
}

/// The table of frames, one for each function, and the frames of each location.
struct Frames<'a> {
    list: Vec<Frame<'a>>,
    ids: HashMap<(Kind, Cow<'a, str>, Option<&'a str>), u32>,
    /// The frames of a location, the outermost first.
    locations: HashMap<LocationId, Vec<u32>>,
    incomplete: u32,
}

/// The kind of a frame. A task with the name of a function is not that function.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Root,
    Function,
}

struct Frame<'a> {
    name: Cow<'a, str>,
    file: Option<&'a str>,
    /// The line in the file, or 0.
    line: u32,
}

impl Default for Frames<'_> {
    /// Returns a table with the frame for callers that the unwinder did not reach.
    fn default() -> Self {
        let (list, ids, locations) = (Vec::new(), HashMap::new(), HashMap::new());
        let mut frames = Self { list, ids, locations, incomplete: 0 };
        frames.incomplete = frames.id(Kind::Root, frames::INCOMPLETE.into(), None, 0);
        frames
    }
}

impl<'a> Frames<'a> {
    fn add_location(&mut self, profile: &'a Profile, id: LocationId) {
        if self.locations.contains_key(&id) {
            return;
        }
        let lines = profile.location(id).map_or(&[][..], |location| &location.lines);
        let lines = lines.iter().map(|line| {
            let function = profile.function(line.function);
            let begin = function.map_or(0, |function| function.start_line);
            if begin > 0 { begin } else { line.line }
        });
        let files = profile.files(id).chain(std::iter::repeat(None));
        let names = profile.names(id).into_iter().zip(files).zip(lines.chain(std::iter::repeat(0)));
        let innermost_first = names.map(|((name, file), line)| {
            self.id(Kind::Function, name, file.map(|file| &**file), line)
        });
        let mut ids: Vec<_> = innermost_first.collect();
        ids.reverse();
        self.locations.insert(id, ids);
    }

    /// Returns the index of a frame in the table.
    fn id(&mut self, kind: Kind, name: Cow<'a, str>, file: Option<&'a str>, line: u32) -> u32 {
        let next = self.list.len() as u32;
        let id = *self.ids.entry((kind, name.clone(), file)).or_insert(next);
        match self.list.get_mut(id as usize) {
            Some(frame) if line > 0 && (frame.line == 0 || line < frame.line) => frame.line = line,
            Some(_) => (),
            None => self.list.push(Frame { name, file, line }),
        }
        id
    }

    /// Returns the frames of a stack, root first.
    fn of(&self, root: Option<u32>, stack: &Stack<'_>) -> impl Iterator<Item = u32> {
        let incomplete = (!stack.complete).then_some(self.incomplete);
        let locations = stack.locations.iter().rev();
        let functions = locations.filter_map(|id| self.locations.get(id)).flatten().copied();
        root.into_iter().chain(incomplete).chain(functions)
    }
}

impl Frame<'_> {
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(br#"{"name":"#)?;
        string(to, &self.name)?;
        if let Some(file) = self.file {
            to.write_all(br#","file":"#)?;
            string(to, file)?;
        }
        if self.line > 0 {
            write!(to, r#","line":{}"#, self.line)?;
        }
        to.write_all(b"}")
    }
}

/// The parts that all profiles of a file share.
struct File<'a> {
    frames: &'a Frames<'a>,
    weight: Weight,
}

impl File<'_> {
    /// Writes the profiles of a state: that of all roots, and those of the busiest.
    fn state(
        &self,
        to: &mut impl Write,
        state: State,
        root: RootBy,
        groups: &[Group<'_>],
    ) -> io::Result<()> {
        let all =
            || groups.iter().flat_map(|it| it.stacks.iter().map(|stack| (Some(it.root), stack)));
        self.profile(to, &of_state(&name_of_all(root, groups.len()), state), all)?;
        for group in groups.iter().take(MOST_PROFILES) {
            to.write_all(b",")?;
            let stacks = || group.stacks.iter().map(|stack| (None, stack));
            self.profile(to, &of_state(&group.name, state), stacks)?;
        }
        Ok(())
    }

    /// Writes a profile of these stacks. Each stack may have a root to put before it.
    fn profile<'s, S>(
        &self,
        to: &mut impl Write,
        name: &str,
        stacks: impl Fn() -> S,
    ) -> io::Result<()>
    where
        S: Iterator<Item = (Option<u32>, &'s Stack<'s>)>,
    {
        let unit = match self.weight {
            Weight::Time => "nanoseconds",
            Weight::Samples => "none",
        };
        let end = stacks().fold(0, |sum: u64, (_, stack)| sum.saturating_add(stack.weight));
        to.write_all(br#"{"type":"sampled","name":"#)?;
        string(to, name)?;
        write!(to, r#","unit":"{unit}","startValue":0,"endValue":{end},"samples":["#)?;
        separated(to, stacks(), |to, (root, stack)| {
            to.write_all(b"[")?;
            separated(to, self.frames.of(root, stack), |to, frame| write!(to, "{frame}"))?;
            to.write_all(b"]")
        })?;
        to.write_all(br#"],"weights":["#)?;
        separated(to, stacks(), |to, (_, stack)| write!(to, "{}", stack.weight))?;
        to.write_all(b"]}")
    }
}

/// Returns the name of a profile, with the state unless that is CPU time.
fn of_state(name: &str, state: State) -> Cow<'_, str> {
    match state {
        State::OnCpu => name.into(),
        state => format!("{name} ({})", state.name()).into(),
    }
}

/// Returns the name of the profile of all samples.
fn name_of_all(root: RootBy, roots: usize) -> String {
    let all = match root {
        RootBy::TaskName => "All tasks",
        RootBy::Site => "All spawn sites",
        RootBy::Thread => "All threads",
    };
    match roots.saturating_sub(MOST_PROFILES) {
        0 => all.to_owned(),
        1 => format!("{all} (1 of them is only here)"),
        only_here => format!("{all} ({only_here} of them are only here)"),
    }
}

/// Writes a text as a JSON string.
fn string(to: &mut impl Write, text: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(to, text)?)
}

/// Writes items with commas between them.
fn separated<W: Write, T>(
    to: &mut W,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut W, T) -> io::Result<()>,
) -> io::Result<()> {
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            to.write_all(b",")?;
        }
        write(to, item)?;
    }
    Ok(())
}
