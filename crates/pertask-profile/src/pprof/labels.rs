//! The labels of a sample in pprof: its task, its thread, its scopes and the user's own labels.

use std::borrow::Cow;
use std::sync::Arc;

use super::super::{Sample, Site, TaskRef, ThreadRef, frames};

/// A label's value.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Text(Cow<'a, str>),
}

/// The keys of our own labels.
const OURS: [&str; 8] = ["task", "task_name", "site", "parent", "thread", "tid", "scope", "stack"];
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
        labels.push(("task".into(), task.id.map_or(text(SEVERAL), Value::Number)));
        labels.extend(task.name.iter().map(|name| ("task_name".into(), text(name))));
        let site = task.site.as_ref().map(|site| Value::Text(frames::place(site).into()));
        labels.extend(site.map(|site| ("site".into(), site)));
        labels.extend(task.parent.map(|parent| ("parent".into(), Value::Number(parent))));
    }
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

/// Adds a label to the sample. A label with one of our keys but another type of value is the user's.
pub(super) fn take(sample: &mut Sample, key: &Arc<str>, value: Taken) {
    let left = match (&**key, value) {
        ("task", Taken::Number(id)) => return task(sample).id = Some(id),
        ("task", Taken::Text(text)) if &*text == SEVERAL => {
            task(sample);
            return;
        }
        ("task_name", Taken::Text(name)) => return task(sample).name = Some(name),
        ("parent", Taken::Number(parent)) => return task(sample).parent = Some(parent),
        ("thread", Taken::Text(name)) => return thread(sample).name = name,
        ("scope", Taken::Text(scope)) => return sample.scopes.push(scope),
        ("stack", Taken::Text(text)) if &*text == INCOMPLETE => return sample.complete = false,
        ("site", Taken::Text(text)) => match site(&text) {
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

/// A label's value as read from a file.
#[derive(Clone, Debug)]
pub(super) enum Taken {
    Number(u64),
    Text(Arc<str>),
}

impl Taken {
    fn into_text(self) -> Arc<str> {
        match self {
            Self::Number(number) => number.cast_signed().to_string().into(),
            Self::Text(text) => text,
        }
    }
}

fn task(sample: &mut Sample) -> &mut TaskRef {
    sample.task.get_or_insert_default()
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
