//! What a table's rows are of: the columns that name it, and their cells.

use super::super::summary::NO_TASK;
use super::super::{GroupBy, Site, Subject, frames};
use pertask_text::grid::{Cell, Column};
use pertask_text::human;
use pertask_text::ink::Tint;
use pertask_text::text::harmless;

/// The most columns of a name, even on a wide terminal: one long name would push the other columns apart.
const MAX_NAME: usize = 40;
const MAX_PATH: usize = 56;
/// The most columns of a function's name, which is the last column.
const MAX_FUNCTION: usize = 240;

/// Returns what the table is of.
pub(super) fn title(by: &GroupBy) -> String {
    match by {
        GroupBy::Site => "Tasks by site".to_owned(),
        GroupBy::Task => "Tasks".to_owned(),
        GroupBy::Function => "Functions".to_owned(),
        GroupBy::Place => "Places".to_owned(),
        GroupBy::Waker => "Who ends waits".to_owned(),
        GroupBy::Thread => "Threads".to_owned(),
        GroupBy::Scope => "Scopes".to_owned(),
        GroupBy::Label(key) => format!("Label {key}"),
    }
}

/// Returns whether a sample can be in several rows, so that own and total amounts differ.
pub(super) fn is_nested(by: &GroupBy) -> bool {
    matches!(by, GroupBy::Function | GroupBy::Scope)
}

/// How a table's rows are named.
pub(super) struct Naming<'a> {
    by: &'a GroupBy,
    /// The title of a label's column: its key.
    label: String,
    with_files: bool,
    with_tasks: bool,
    most_of_name: usize,
    whole_names: bool,
}

impl<'a> Naming<'a> {
    /// Says how these subjects are named.
    pub(super) fn of<'s>(
        by: &'a GroupBy,
        subjects: impl Iterator<Item = &'s Subject> + Clone,
        whole_names: bool,
    ) -> Self {
        let label = match by {
            GroupBy::Label(key) => harmless(key).to_uppercase(),
            _ => String::new(),
        };
        let most_of_name = if whole_names { MAX_FUNCTION } else { MAX_NAME };
        let with_tasks =
            subjects.clone().any(|it| matches!(it, Subject::Place { task: Some(_), .. }));
        Self { by, label, with_files: need_files(subjects), with_tasks, most_of_name, whole_names }
    }

    /// Returns the columns that name a row.
    pub(super) fn columns(&self) -> Vec<Column<'_>> {
        let number = |title| Column::Number { title, rank: None };
        let text = |title, most| Column::Text { title, least: 14, most };
        let path = |title| Column::Text { title, least: 20, most: MAX_PATH };
        match self.by {
            GroupBy::Site => vec![text("TASK", self.most_of_name), path("SITE")],
            GroupBy::Task => vec![
                number("ID"),
                Column::Number { title: "PARENT", rank: Some(0) },
                text("TASK", self.most_of_name),
                path("SITE"),
            ],
            GroupBy::Function if self.with_files => {
                vec![text("FUNCTION", MAX_FUNCTION / 3), path("FILE")]
            }
            GroupBy::Function => vec![text("FUNCTION", MAX_FUNCTION)],
            GroupBy::Place if self.with_tasks => {
                vec![text("TASK", self.most_of_name), text("PLACE", MAX_FUNCTION / 3), path("AT")]
            }
            GroupBy::Place => vec![text("PLACE", MAX_FUNCTION / 3), path("AT")],
            GroupBy::Waker => vec![text("TASK", MAX_NAME), text("WOKEN BY", MAX_NAME)],
            GroupBy::Thread => vec![text("THREAD", MAX_NAME), number("TID")],
            GroupBy::Scope => vec![text("SCOPE", MAX_FUNCTION)],
            GroupBy::Label(_) => vec![text(&self.label, MAX_FUNCTION)],
        }
    }

    /// Returns the cells of these columns for a row.
    pub(super) fn cells(&self, of: &Subject) -> Vec<Cell> {
        match of {
            Subject::Place { name, at, task } => {
                let task = task.as_deref().map_or_else(several, called);
                let name = if self.whole_names { (&**name).into() } else { frames::short(name) };
                let cells = [task, Cell::path(&name), site(at.as_ref())];
                cells.into_iter().skip(usize::from(!self.with_tasks)).collect()
            }
            Subject::Waker { task, by, holds } => {
                // In front, where no narrow column cuts it off.
                let holder = |by| Cell::new(&format!("holds lock: {}", frames::beginning(by)));
                let by = match by.as_deref() {
                    Some(by) if *holds => holder(by),
                    by => by.map_or_else(no_task, called),
                };
                vec![called(task), by]
            }
            Subject::NoStack if *self.by == GroupBy::Place => {
                let words = Cell::new(&of.to_string()).tint(Tint::Secondary);
                let cells = [Cell::new(human::NONE), words, Cell::new(human::NONE)];
                cells.into_iter().skip(usize::from(!self.with_tasks)).collect()
            }
            of => subject(self.by, of, self.with_files),
        }
    }
}

/// Returns whether some functions have names without a path, which do not say enough alone.
fn need_files<'s>(mut subjects: impl Iterator<Item = &'s Subject>) -> bool {
    subjects.any(|subject| match subject {
        Subject::Function { name, file: Some(_) } => !name.contains(['.', ':', '/']),
        _ => false,
    })
}

/// Returns the cell of what tasks are called: their name, or the place that made them, of which the end says most.
fn called(text: &str) -> Cell {
    match human::is_place(text) {
        true => Cell::path(frames::end(text)),
        false => Cell::new(frames::beginning(text)),
    }
}

/// Returns a cell for tasks of several names.
fn several() -> Cell {
    Cell::new("(several)").tint(Tint::Secondary)
}

fn no_task() -> Cell {
    Cell::new(NO_TASK).tint(Tint::Secondary)
}

/// Returns the cell of a place in the source.
fn site(site: Option<&Site>) -> Cell {
    let none = || Cell::new(human::NONE);
    let place = |site| Cell::path(frames::end(&frames::place(site)));
    site.map_or_else(none, place).tint(Tint::Secondary)
}

/// Returns the cells that name the subject of a row.
fn subject(by: &GroupBy, subject: &Subject, with_files: bool) -> Vec<Cell> {
    let none = || Cell::new(human::NONE);
    // Many rows may have one long name.
    let name =
        |name: Option<&str>| name.map_or_else(none, |name| Cell::new(frames::beginning(name)));
    let number = |id: Option<u64>| id.map_or_else(none, |id| Cell::new(&id.to_string()));
    match subject {
        Subject::Site { name: of, site: at } => vec![name(of.as_deref()), site(at.as_ref())],
        Subject::Task(task) => vec![
            number(task.id),
            number(task.parent),
            name(task.name.as_deref()),
            site(task.site.as_ref()),
        ],
        Subject::Function { name, file } if with_files => {
            let file = file.as_deref().map_or_else(none, Cell::path);
            vec![Cell::path(name), file.tint(Tint::Secondary)]
        }
        Subject::Function { name, .. } => vec![Cell::path(name)],
        Subject::Thread(Some(thread)) => {
            let tid = (thread.tid != 0).then_some(thread.tid.into());
            let known = (!thread.name.is_empty()).then_some(&*thread.name);
            vec![name(known), number(tid)]
        }
        Subject::Scope(text) | Subject::Label(text) => vec![Cell::new(text)],
        // The rows of samples without a task, a stack and so on.
        rest => {
            let words = Cell::new(&rest.to_string()).tint(Tint::Secondary);
            match by {
                GroupBy::Site => vec![words, none()],
                GroupBy::Task => vec![none(), none(), words, none()],
                GroupBy::Thread => vec![words, none()],
                GroupBy::Function if with_files => vec![words, none()],
                _ => vec![words],
            }
        }
    }
}
