//! The labels of a sample in pprof: its task, its thread, its scopes and the user's own labels.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::super::{Sample, Site, TaskRef, ThreadRef, frames};

/// A label's value.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Text(Cow<'a, str>),
}

/// The keys of our own labels.
const OURS: [&str; 14] = [
    "task",
    "task_name",
    "task_type",
    "site",
    "parent",
    "runtime",
    "thread",
    "tid",
    "scope",
    "stack",
    "woken_by",
    "woken_by_site",
    "held_by",
    "held_by_site",
];
/// The prefix of a user's key that would otherwise be one of ours.
const USER: &str = "user.";
/// The value instead of a task's number, where a sample is of several tasks.
const SEVERAL: &str = "(several)";
const INCOMPLETE: &str = "incomplete";

/// Returns the labels of a sample.
pub(super) fn of(sample: &Sample) -> Vec<(Cow<'_, str>, Value<'_>)> {
    let text = |text| Value::Text(Cow::Borrowed(text));
    let mut labels: Vec<(Cow<'_, str>, Value<'_>)> = Vec::new();
    if let Some(task) = &sample.task {
        // A task that is known by its type has no number.
        match &task.future {
            Some(future) if task.id.is_none() => labels.push(("task_type".into(), text(future))),
            future => {
                labels.push(("task".into(), task.id.map_or(text(SEVERAL), Value::Number)));
                labels.extend(future.iter().map(|future| ("task_type".into(), text(future))));
            }
        }
        labels.extend(task.name.iter().map(|name| ("task_name".into(), text(name))));
        let site = task.site.as_ref().map(|site| Value::Text(frames::place(site).into()));
        labels.extend(site.map(|site| ("site".into(), site)));
        labels.extend(task.parent.map(|parent| ("parent".into(), Value::Number(parent))));
    }
    let others = [
        (&sample.woken_by, ("woken_by", "woken_by_site")),
        (&sample.held_by, ("held_by", "held_by_site")),
    ];
    for (other, (name_key, site_key)) in others {
        let Some(other) = other else { continue };
        labels.extend(other.name.iter().map(|name| (name_key.into(), text(name))));
        let site = other.site.as_ref().map(|site| Value::Text(frames::place(site).into()));
        labels.extend(site.map(|site| (site_key.into(), site)));
    }
    labels.extend(sample.runtime.iter().map(|part| ("runtime".into(), text(part))));
    if let Some(thread) = &sample.thread {
        labels.push(("thread".into(), text(&thread.name)));
        labels.push(("tid".into(), Value::Number(thread.tid.into())));
    }
    labels.extend(sample.scopes.iter().map(|scope| ("scope".into(), text(scope))));
    labels.extend((!sample.complete).then(|| ("stack".into(), text(INCOMPLETE))));
    let users = sample.labels.iter().filter(|(key, _)| !key.is_empty());
    labels.extend(users.map(|(key, value)| (escaped(key), text(value))));
    labels
}

/// What labels mean in a file: in our own, some are the task. In those of others, which may use the same words for anything, a
/// label is a label, and only the thread is known by its usual names.
#[derive(Debug, Default)]
pub(super) struct Labels {
    is_our_file: bool,
    /// The sites that were read, by the address of their text, so that each is in memory once. The texts are kept, so that no
    /// other one gets their address.
    sites: HashMap<*const u8, (Arc<str>, Option<Site>)>,
}

/// What another program's labels say of a sample's thread: its name, and its number with the label's key.
#[derive(Debug, Default)]
pub(super) struct Given {
    name: Option<Arc<str>>,
    id: Option<(Arc<str>, Arc<str>)>,
}

/// A label's value as read from a file.
#[derive(Clone, Debug)]
pub(super) enum Taken {
    Number(u64),
    Text(Arc<str>),
}

impl Labels {
    pub(super) fn of_file(is_our_file: bool) -> Self {
        Self { is_our_file, sites: HashMap::new() }
    }

    /// Returns whether the key has a meaning of ours.
    pub(super) fn is_ours(&self, key: &str) -> bool {
        self.is_our_file && OURS.contains(&key)
    }

    /// Returns whether the key's values are numbers.
    pub(super) fn has_numbers(&self, key: &str) -> bool {
        self.is_our_file && matches!(key, "task" | "parent" | "tid")
    }

    /// Adds a label to the sample, or to what is given of its thread.
    pub(super) fn take(
        &mut self,
        sample: &mut Sample,
        given: &mut Given,
        key: &Arc<str>,
        value: Taken,
    ) {
        if self.is_our_file {
            return self.take_ours(sample, key, value);
        }
        let text = value.into_text();
        match thread_part(key) {
            Some(ThreadPart::Name) if given.name.is_none() => given.name = Some(text),
            Some(ThreadPart::Id) if given.id.is_none() => given.id = Some((key.clone(), text)),
            _ => sample.labels.push((key.clone(), text)),
        }
    }

    /// Makes a thread of what is given of it.
    pub(super) fn finish(&self, sample: &mut Sample, given: Given) {
        let Given { name, id } = given;
        let tid = id.as_ref().and_then(|(_, id)| id.parse().ok());
        let (name, left) = match (name, id, tid) {
            (None, Some((_, id)), None) => (Some(id), None),
            (name, Some(id), None) => (name, Some(id)),
            (name, _, _) => (name, None),
        };
        // A number that no thread of Linux can have stays a label, or is the only name.
        sample.labels.extend(left);
        if name.is_some() || tid.is_some() {
            let name = name.unwrap_or_default();
            sample.thread = Some(ThreadRef { tid: tid.unwrap_or(0), name });
        }
    }

    /// Adds a label of our own file. One with a key of ours but another type of value is the user's.
    fn take_ours(&mut self, sample: &mut Sample, key: &Arc<str>, value: Taken) {
        let left = match (&**key, value) {
            ("task", Taken::Number(id)) => return task(sample).id = Some(id),
            ("task", Taken::Text(text)) if &*text == SEVERAL => {
                task(sample);
                return;
            }
            ("task_type", Taken::Text(future)) => return task(sample).future = Some(future),
            ("runtime", Taken::Text(part)) => return sample.runtime = Some(part),
            ("task_name", Taken::Text(name)) => return task(sample).name = Some(name),
            ("woken_by", Taken::Text(name)) => return waker(sample).name = Some(name),
            ("woken_by_site", Taken::Text(text)) => match self.site(&text) {
                Some(site) => return waker(sample).site = Some(site),
                None => Taken::Text(text),
            },
            ("held_by", Taken::Text(name)) => return holder(sample).name = Some(name),
            ("held_by_site", Taken::Text(text)) => match self.site(&text) {
                Some(site) => return holder(sample).site = Some(site),
                None => Taken::Text(text),
            },
            ("parent", Taken::Number(parent)) => return task(sample).parent = Some(parent),
            ("thread", Taken::Text(name)) => return thread(sample).name = name,
            ("scope", Taken::Text(scope)) => return sample.scopes.push(scope),
            ("stack", Taken::Text(text)) if &*text == INCOMPLETE => {
                return sample.complete = false;
            }
            ("site", Taken::Text(text)) => match self.site(&text) {
                Some(site) => return task(sample).site = Some(site),
                None => Taken::Text(text),
            },
            ("tid", Taken::Number(tid)) => match u32::try_from(tid) {
                Ok(tid) => return thread(sample).tid = tid,
                Err(_) => Taken::Number(tid),
            },
            (_, value) => value,
        };
        sample.labels.push((unescaped(key), left.into_text()));
    }

    fn site(&mut self, text: &Arc<str>) -> Option<Site> {
        if text.is_empty() {
            return None;
        }
        let read = || (text.clone(), site(text));
        self.sites.entry(text.as_ptr()).or_insert_with(read).1.clone()
    }
}

impl Taken {
    fn into_text(self) -> Arc<str> {
        match self {
            Self::Number(number) => number.cast_signed().to_string().into(),
            Self::Text(text) => text,
        }
    }
}

#[derive(Clone, Copy)]
enum ThreadPart {
    Name,
    Id,
}

/// Recognizes the usual names of a thread's labels.
fn thread_part(key: &str) -> Option<ThreadPart> {
    let part = |key: &str| match key {
        "thread" | "thread_name" | "threadname" => Some(ThreadPart::Name),
        "tid" | "thread_id" | "threadid" => Some(ThreadPart::Id),
        _ => None,
    };
    if key.len() > "thread_name".len() {
        return None;
    }
    part(&key.to_ascii_lowercase().replace([' ', '-', '.'], "_"))
}

fn task(sample: &mut Sample) -> &mut TaskRef {
    sample.task.get_or_insert_default()
}

fn waker(sample: &mut Sample) -> &mut TaskRef {
    sample.woken_by.get_or_insert_default()
}

fn holder(sample: &mut Sample) -> &mut TaskRef {
    sample.held_by.get_or_insert_default()
}

fn thread(sample: &mut Sample) -> &mut ThreadRef {
    sample.thread.get_or_insert_with(|| ThreadRef { tid: 0, name: "".into() })
}

fn site(text: &str) -> Option<Site> {
    let (file, line) = text.rsplit_once(':')?;
    Some(Site { file: file.into(), line: line.parse().ok()? })
}

/// Returns whether the key is one of ours, with any number of `user.` before it.
fn is_ours(key: &str) -> bool {
    let mut key = key;
    while let Some(rest) = key.strip_prefix(USER) {
        key = rest;
    }
    OURS.contains(&key)
}

fn escaped(key: &str) -> Cow<'_, str> {
    if is_ours(key) { format!("{USER}{key}").into() } else { key.into() }
}

fn unescaped(key: &Arc<str>) -> Arc<str> {
    match key.strip_prefix(USER) {
        Some(rest) if is_ours(rest) => rest.into(),
        _ => Arc::clone(key),
    }
}
