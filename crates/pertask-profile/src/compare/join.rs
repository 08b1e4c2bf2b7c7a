//! Which rows of two profiles are of one subject.
//!
//! Names stay where lines, paths and numbers change from build to build and from run to run. So what the profiles have not in
//! common is looked for again by its name, and is one subject if each profile has one of that name left.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::{Amount, Subject, SummaryRow, ThreadRef};
use super::Part;

/// A subject, with its amounts in both profiles.
pub(super) struct Joined {
    pub(super) subject: Subject,
    pub(super) before: Amount,
    pub(super) after: Amount,
}

/// Joins the rows of two summaries. A subject's file and line are those of the profile after, if that has it.
pub(super) fn joined(before: &[SummaryRow], after: &[SummaryRow], part: Part) -> Vec<Joined> {
    let (mut before, mut after) = (amounts(before, part), amounts(after, part));
    let mut rows = Vec::new();
    for (subject, of_after) in std::mem::take(&mut after) {
        match before.remove(&subject) {
            Some(of_before) => rows.push(Joined { subject, before: of_before, after: of_after }),
            None => _ = after.insert(subject, of_after),
        }
    }
    let (mut left_before, left_after) = (by_name(before), by_name(after));
    for (name, of_after) in left_after {
        let of_before = left_before.get_mut(&name);
        match (of_before.map(std::mem::take).as_deref(), &of_after[..]) {
            (Some([(_, before)]), [(subject, after)]) if name.is_some() => {
                rows.push(Joined { subject: subject.clone(), before: *before, after: *after });
            }
            (of_before, of_after) => rows.extend(apart(of_before.unwrap_or_default(), of_after)),
        }
    }
    rows.extend(left_before.into_values().flat_map(|rest| apart(&rest, &[])));
    rows
}

type Amounts = HashMap<Subject, Amount>;
type Named = HashMap<Option<Name>, Vec<(Subject, Amount)>>;

/// What a subject is still known by if its line, its path or its number has changed.
#[derive(PartialEq, Eq, Hash)]
enum Name {
    /// The name of tasks, and the file of their spawn site.
    Site(Arc<str>, Option<Arc<str>>),
    Function(Arc<str>),
    /// What is called or awaited, and the file of the line that does.
    Place(Arc<str>, Option<Arc<str>>),
}

/// Adds up the rows of each subject that has an amount.
fn amounts(rows: &[SummaryRow], part: Part) -> Amounts {
    let mut sums = Amounts::new();
    for row in rows.iter().filter(|row| part.of(row) != Amount::default()) {
        let sum = sums.entry(comparable(&row.subject)).or_default();
        *sum = sum.plus(part.of(row));
    }
    sums
}

/// Returns the subject without what only its profile knows: a thread's number, if it has a name, and the tasks of a place.
fn comparable(subject: &Subject) -> Subject {
    match subject {
        Subject::Thread(Some(thread)) if !thread.name.is_empty() => {
            Subject::Thread(Some(ThreadRef { tid: 0, name: thread.name.clone() }))
        }
        subject => subject.without_tasks(),
    }
}

fn by_name(rows: Amounts) -> Named {
    let mut named = Named::new();
    for (subject, amount) in rows {
        named.entry(name(&subject)).or_default().push((subject, amount));
    }
    named
}

fn name(subject: &Subject) -> Option<Name> {
    match subject {
        Subject::Site { name: Some(name), site } => {
            Some(Name::Site(name.clone(), site.as_ref().map(|site| site.file.clone())))
        }
        Subject::Function { name, .. } => Some(Name::Function(name.clone())),
        Subject::Place { name, at, .. } => {
            Some(Name::Place(name.clone(), at.as_ref().map(|site| site.file.clone())))
        }
        _ => None,
    }
}

/// Returns rows that only one of the profiles has.
fn apart(before: &[(Subject, Amount)], after: &[(Subject, Amount)]) -> Vec<Joined> {
    let none = Amount::default();
    let before = before.iter().map(|(subject, amount)| (subject, *amount, none));
    let after = after.iter().map(|(subject, amount)| (subject, none, *amount));
    let row = |(subject, before, after): (&Subject, _, _)| Joined {
        subject: subject.clone(),
        before,
        after,
    };
    before.chain(after).map(row).collect()
}
