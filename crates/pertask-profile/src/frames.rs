//! A sample as names, for the encoders that show stacks as text.

use std::borrow::Cow;
use std::sync::Arc;

use super::{FunctionId, Line, Location, LocationId, Profile, Sample, Site, TaskRef, ThreadRef};

/// The root of the stacks in a picture: the frame of which all others are descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootBy {
    /// The task's name, or its spawn site if it has no name.
    #[default]
    TaskName,
    /// The task's spawn site.
    Site,
    /// The thread.
    Thread,
}

/// The frame for callers that the unwinder did not reach.
pub(super) const INCOMPLETE: &str = "(incomplete stack)";
pub(super) const OUTSIDE: &str = "(outside tasks)";
pub(super) const UNKNOWN: &str = "(unknown)";

impl RootBy {
    pub(super) fn of(self, sample: &Sample) -> Cow<'_, str> {
        match (self, &sample.task) {
            (Self::Thread, _) => thread(sample.thread.as_ref()),
            (_, None) => outside(sample.runtime.as_deref()),
            (Self::TaskName, Some(TaskRef { name: Some(name), .. })) => (&**name).into(),
            (_, Some(task)) => site(task),
        }
    }
}

impl Profile {
    /// Returns the names of the functions at a location, the innermost first. There is at least one.
    pub(super) fn names(&self, id: LocationId) -> Vec<Cow<'_, str>> {
        self.location(id).map_or_else(|| vec![UNKNOWN.into()], |location| self.names_at(location))
    }

    /// Returns the source file of each of the [`names`](Self::names), or `None` where it is not known.
    pub(super) fn files(&self, id: LocationId) -> impl Iterator<Item = Option<&Arc<str>>> {
        let lines = self.location(id).map_or(&[][..], |location| &location.lines);
        let file = |line: &Line| self.function(line.function).map(|function| &function.file);
        lines.iter().map(move |line| file(line).filter(|file| !file.is_empty()))
    }

    pub(super) fn names_at(&self, location: &Location) -> Vec<Cow<'_, str>> {
        if location.lines.is_empty() {
            return vec![self.without_symbol(location).into()];
        }
        location.lines.iter().map(|line| self.name(line.function)).collect()
    }

    /// Returns the [`names`](Self::names) at a location for rows that keep them. Many functions may have one long name.
    pub(super) fn shared_names(&self, id: LocationId) -> Vec<Arc<str>> {
        match self.location(id) {
            Some(location) if !location.lines.is_empty() => {
                location.lines.iter().map(|line| self.shared_name(line.function)).collect()
            }
            _ => self.names(id).into_iter().map(Arc::from).collect(),
        }
    }

    /// Returns a function's name for a row that keeps it.
    pub(super) fn shared_name(&self, id: FunctionId) -> Arc<str> {
        self.known_name(id).map_or_else(|| UNKNOWN.into(), Arc::clone)
    }

    fn name(&self, id: FunctionId) -> Cow<'_, str> {
        self.known_name(id).map_or(UNKNOWN.into(), |name| (&**name).into())
    }

    fn known_name(&self, id: FunctionId) -> Option<&Arc<str>> {
        let function = self.function(id)?;
        [&function.name, &function.system_name].into_iter().find(|name| !name.is_empty())
    }

    /// Returns a name such as `libc.so.6+0x29d90`, with which the symbol can still be found.
    pub(super) fn without_symbol(&self, location: &Location) -> String {
        let mapping = location.mapping.and_then(|id| self.mapping(id));
        let offset = mapping.and_then(|mapping| location.address.checked_sub(mapping.start));
        match (mapping, offset) {
            (Some(mapping), Some(offset)) => {
                let file = beginning(mapping.file.rsplit('/').next().unwrap_or_default());
                format!("{file}+0x{:x}", offset.wrapping_add(mapping.offset))
            }
            _ => format!("0x{:x}", location.address),
        }
    }
}

/// Returns as much of a name as the kernel has of a file's or a thread's. A profile can repeat one in a million others.
pub(super) fn beginning(name: &str) -> &str {
    let end = (0..=name.len().min(255)).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

/// Returns the end of a path: more of it than any table shows.
#[cfg(feature = "table")]
pub(super) fn end(path: &str) -> &str {
    let from = path.len().saturating_sub(512);
    let from = (from..=path.len()).find(|from| path.is_char_boundary(*from));
    &path[from.unwrap_or(0)..]
}

/// Returns a function's name without what says least: `Mutex<T>::lock` for `<Mutex<T> as Lock>::lock::{{closure}}`, and `Sleep` for
/// `<Sleep as Future>::poll`.
#[cfg(any(feature = "table", feature = "flamegraph"))]
pub(super) fn short(name: &str) -> Cow<'_, str> {
    let name = name.trim_end_matches("::{{closure}}");
    let Some((path, method)) = name.strip_prefix('<').and_then(|rest| rest.rsplit_once(">::"))
    else {
        return name.into();
    };
    match path.rsplit_once(" as ") {
        Some((of, of_trait)) if method == "poll" && of_trait.ends_with("Future") => of.into(),
        Some((of, _)) => format!("{of}::{method}").into(),
        None => name.into(),
    }
}

/// Returns a name for what ran outside tasks: `(tokio scheduler)`, or `(outside tasks)` where that is not known.
pub(super) fn outside(runtime: Option<&str>) -> Cow<'_, str> {
    runtime.map_or(OUTSIDE.into(), |part| format!("({part})").into())
}

/// Returns `src/main.rs:7`.
pub(super) fn place(site: &Site) -> String {
    format!("{}:{}", site.file, site.line)
}

pub(super) fn site(task: &TaskRef) -> Cow<'_, str> {
    task.site.as_ref().map_or(UNKNOWN.into(), |site| place(site).into())
}

/// Returns a name such as `worker [4711]`. The number tells threads of one name apart.
pub(super) fn thread(thread: Option<&ThreadRef>) -> Cow<'_, str> {
    match thread {
        Some(thread) if thread.tid == 0 => beginning(&thread.name).into(),
        Some(thread) if thread.name.is_empty() => format!("[{}]", thread.tid).into(),
        Some(thread) => format!("{} [{}]", beginning(&thread.name), thread.tid).into(),
        None => "(unknown thread)".into(),
    }
}
