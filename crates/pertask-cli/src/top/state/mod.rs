//! What `pertask top` knows, and what of it is on the screen.
//!
//! The state knows no terminal, no colour and no clock. Updates and keys change it ([`State::apply`], [`State::press`]); the view
//! reads it.

mod column;
mod commands;
mod facts;
mod figures;
mod functions;
mod history;
mod key;
mod labels;
mod life;
mod lives;
mod meter;
mod open;
mod page;
mod paths;
mod rows;
#[cfg(test)]
pub mod samples;
mod sites;
mod sort;
mod tasks;
#[cfg(test)]
mod tests;
mod threads;
mod totals;
mod tracks;
mod types;
mod value;

use std::{borrow::Cow, mem};

use pertask::Report;

use self::{
    facts::SeenTask,
    functions::{Answer, Functions},
    lives::Lives,
    open::Open,
    page::KINDS,
    tasks::Tasks,
};

use super::source::{Subject, Update};

pub use self::{
    column::Column,
    commands::Action,
    facts::Fact,
    figures::Figures,
    functions::Answer as FunctionsAnswer,
    history::{History, LENGTH as HISTORY_LENGTH},
    key::Key,
    life::{Lived, Part},
    page::Page,
    rows::Rows,
    sort::Sort,
    threads::Busy,
    value::Value,
};

/// All that is known and shown.
#[derive(Clone, Debug)]
pub struct State {
    figures: Figures,
    /// The figures that stay on the screen while the user pauses.
    frozen: Option<Figures>,
    /// The page at the bottom, and those that were opened from it. There is always one.
    open: Vec<Open>,
    sorts: [Sort; KINDS],
    tasks: Tasks,
    seen_task: Option<SeenTask>,
    functions: Option<Functions>,
    /// The columns of the open page that have anything to show.
    columns: Vec<Column>,
    /// The number of rows that the window has room for.
    height: usize,
    is_typing: bool,
    is_help: bool,
    note: Option<Cow<'static, str>>,
    lives: Lives,
    /// Whether the source's new session, from which no report has come yet, measures lives.
    next_session: Option<bool>,
    ended: Option<String>,
    silent_seconds: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        let mut state = Self {
            figures: Figures::default(),
            frozen: None,
            open: vec![Open::new(Page::Sites)],
            sorts: page::Kind::ALL.map(page::Kind::default_sort),
            tasks: Tasks::default(),
            seen_task: None,
            functions: None,
            columns: Vec::new(),
            height: 1,
            is_typing: false,
            is_help: false,
            note: None,
            lives: Lives::default(),
            next_session: None,
            ended: None,
            silent_seconds: None,
        };
        state.arrange();
        state
    }
}

impl State {
    /// Takes what the source has learnt.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Report(report) => self.advance(*report),
            Update::Session { lives } => self.begin_session(lives),
            Update::LivesRefused(reason) => self.refuse_lives(&reason),
            Update::Sampled(sampled) => {
                self.figures.advance_sampled(sampled);
                self.leave_empty_sites();
            }
            Update::Stacks { of, found } => self.answer(&of, found.into()),
            Update::Ended(reason) => self.end(reason),
        }
        if self.frozen.is_none() {
            self.arrange();
        }
    }

    /// Notes that nothing has come from the source for so long, or that something has. Returns whether that changes anything.
    pub fn note_silence(&mut self, seconds: Option<u64>) -> bool {
        let seconds = seconds.filter(|_| self.ended.is_none());
        mem::replace(&mut self.silent_seconds, seconds) != seconds
    }

    /// Makes the window so many rows high.
    pub fn set_height(&mut self, height: usize) {
        self.height = height;
        self.open_mut().scroll(height);
    }

    /// Shows types in place of sites, because a program without pertask has no sites.
    fn leave_empty_sites(&mut self) {
        if self.figures.report().is_none() && self.open[0].page == Page::Sites {
            self.open = vec![Open::new(Page::Types)];
        }
    }

    fn advance(&mut self, report: Report) {
        if let Some(lives) = self.next_session.take() {
            self.figures.restart(lives);
        }
        self.figures.advance(report);
    }

    fn end(&mut self, reason: String) {
        if let Some(Functions { answer: answer @ Answer::Awaited, .. }) = &mut self.functions {
            *answer = Answer::Refused(reason.clone());
        }
        self.ended.get_or_insert(reason);
    }

    fn answer(&mut self, of: &Subject, answer: Answer) {
        if let Some(functions) = self.functions.as_mut().filter(|asked| asked.of == *of) {
            functions.answer = answer;
        }
    }

    /// Brings the open page up to date with the figures, the filter and the sort column.
    fn arrange(&mut self) {
        self.look_closer();
        self.columns = self.columns_in_use();
        self.leave_column_of_lives();
        let (sort, height) = (self.sort(), self.height);
        let mut open = self.open().clone();
        open.arrange(self.rows(), sort);
        open.scroll(height);
        *self.open_mut() = open;
    }

    /// Measures what is too much to be measured while nobody looks.
    fn look_closer(&mut self) {
        match &self.open().page {
            Page::Tasks(site) => self.tasks = Tasks::of_site(self.shown(), site),
            Page::Subject(Subject::Task(id)) => {
                let id = *id;
                let seen = self.seen_task.take();
                self.seen_task = SeenTask::look(self.shown(), id, seen);
            }
            _ => {}
        }
    }

    /// Returns the columns but for that of waits, where these were not measured.
    fn columns_in_use(&self) -> Vec<Column> {
        let rows = self.rows();
        let is_used = |column: Column| {
            column != Column::WakeP99 || (0..rows.len()).any(|at| rows.value(at, column).is_known())
        };
        let columns = self.page().kind().columns(self.shown().has_lives());
        columns.filter(|column| is_used(*column)).collect()
    }

    /// Sorts as at first where the column to sort by came or went with the lives.
    fn leave_column_of_lives(&mut self) {
        let column = self.sort().column;
        let is_lost = !self.columns.contains(&column);
        if is_lost && (column.is_of_lives() || column == Column::Blocked) {
            let kind = self.page().kind();
            self.sorts[kind as usize] = kind.default_sort();
        }
    }

    fn open(&self) -> &Open {
        self.open.last().expect("a page is always open")
    }

    fn open_mut(&mut self) -> &mut Open {
        self.open.last_mut().expect("a page is always open")
    }
}

/// What the view reads.
impl State {
    /// Returns the figures to show: while the user pauses, not the newest.
    pub fn shown(&self) -> &Figures {
        self.frozen.as_ref().unwrap_or(&self.figures)
    }

    /// Returns the open page.
    pub fn page(&self) -> &Page {
        &self.open().page
    }

    /// Returns whether the open page was opened from another one.
    pub fn is_opened(&self) -> bool {
        self.open.len() > 1
    }

    /// Returns the rows of the open page.
    pub fn rows(&self) -> &dyn Rows {
        let figures = self.shown();
        match self.page() {
            Page::Sites => &figures.sites,
            Page::Paths => &figures.paths,
            Page::Labels => &figures.labels,
            Page::Threads => &figures.threads,
            Page::Types => &figures.types,
            Page::Tasks(_) => &self.tasks,
            Page::Subject(_) => self.functions.as_ref().map_or(&NO_FUNCTIONS, |it| it),
        }
    }

    /// Returns the numbers of the rows in the window, and which of them is selected.
    pub fn window(&self) -> impl Iterator<Item = (usize, bool)> {
        let open = self.open();
        let selected = open.selected();
        let rows = open.order().iter().skip(open.above()).take(self.height);
        rows.map(move |row| (*row, Some(*row) == selected))
    }

    /// Returns the number of rows above the window, in it or below it.
    pub fn rows_matching(&self) -> usize {
        self.open().order().len()
    }

    /// Returns the columns to show, from left to right.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Returns by which column the rows are sorted.
    pub fn sort(&self) -> Sort {
        self.sorts[self.page().kind() as usize]
    }

    /// Returns what names must contain to be shown. Empty for all.
    pub fn filter(&self) -> &str {
        &self.open().filter
    }

    /// Returns whether the user is typing the filter.
    pub fn is_typing(&self) -> bool {
        self.is_typing
    }

    /// Returns whether the help covers the page.
    pub fn is_help(&self) -> bool {
        self.is_help
    }

    /// Returns whether the figures stay as they are.
    pub fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Returns what the user should know about the last key.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Returns why nothing more will come, if so.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Returns for how long nothing has come, if that is long.
    pub fn silent_seconds(&self) -> Option<u64> {
        self.silent_seconds
    }

    /// Returns what the source has said of the functions of the open page's subject.
    pub fn answer_shown(&self) -> Option<&FunctionsAnswer> {
        self.functions.as_ref().map(|functions| &functions.answer)
    }

    /// Returns the task whose page is open.
    pub fn seen_task(&self) -> Option<&SeenTask> {
        self.seen_task.as_ref()
    }

    /// Returns what is known of the open page's subject.
    pub fn facts(&self) -> Vec<Fact<'_>> {
        match self.page() {
            Page::Subject(subject) => facts::of(subject, self.shown(), self.seen_task()),
            _ => Vec::new(),
        }
    }

    /// Returns how the open page's subject has spent its life since the session began.
    pub fn life_facts(&self) -> Vec<Fact<'static>> {
        match self.page() {
            Page::Subject(subject) => facts::of_life(subject, self.shown(), self.seen_task()),
            _ => Vec::new(),
        }
    }

    /// Returns how the open page's subject has spent the last interval.
    pub fn lived(&self) -> Option<Lived> {
        match self.page() {
            Page::Subject(subject) => facts::lived(subject, self.shown(), self.seen_task()),
            _ => None,
        }
    }
}

/// The functions of nothing.
static NO_FUNCTIONS: Functions = Functions { of: Subject::Task(0), answer: Answer::Awaited };
