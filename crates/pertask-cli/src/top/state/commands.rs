//! What the keys do.

use crate::top::source::{Request, Subject};

use super::{
    State,
    functions::{Answer, Functions},
    key::Key,
    open::Open,
    page::Page,
};

/// What a key asks of others than the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The command shall end.
    Quit,
    /// The shell shall have the terminal for a while.
    Suspend,
    /// Everything shall be drawn anew.
    Redraw,
    /// The source shall find something out.
    Ask(Request),
}

/// The longest filter. No terminal shows a longer one.
const MOST_FILTER: usize = 100;

/// What is said of a key that needs pertask inside the program.
pub(super) const NEEDS_AGENT: &str =
    "samples from outside do not tell: the program must call pertask::init()";

impl State {
    /// Does what a key says.
    pub fn press(&mut self, key: Key) -> Option<Action> {
        self.note = None;
        match key {
            Key::Interrupt => return Some(Action::Quit),
            Key::Suspend => return Some(Action::Suspend),
            Key::Redraw => return Some(Action::Redraw),
            _ if self.is_help => self.is_help = false,
            _ if self.is_typing => self.type_filter(key),
            _ => return self.command(key),
        }
        None
    }

    fn command(&mut self, key: Key) -> Option<Action> {
        match key {
            Key::Char('q') | Key::Function(10) => return Some(Action::Quit),
            Key::Enter | Key::Right => return self.enter(),
            Key::Char('s') => return self.ask_functions(),
            Key::Char('i') => return self.toggle_lives(),
            Key::Escape | Key::Backspace | Key::Left => self.back(),
            Key::Char('h' | '?') | Key::Function(1) => self.is_help = true,
            Key::Char('p' | ' ') => self.pause(),
            Key::Char('/') | Key::Function(3 | 4) => self.is_typing = true,
            Key::Char('t') | Key::Function(5) => self.toggle(Page::Paths),
            Key::Char('l') => self.toggle(Page::Labels),
            Key::Char('w') => self.toggle(Page::Threads),
            _ => self.sort_or_move(key),
        }
        None
    }

    fn sort_or_move(&mut self, key: Key) {
        match key {
            Key::Char('<' | ',') => self.step_sort(false),
            Key::Char('>' | '.') | Key::Function(6) => self.step_sort(true),
            Key::Char('r') => {
                let sort = self.sort_mut();
                sort.reversed = !sort.reversed;
            }
            Key::Char(letter) if letter.is_ascii_uppercase() => self.sort_by_letter(letter),
            _ => return self.travel(key),
        }
        self.arrange();
    }

    fn travel(&mut self, key: Key) {
        let page = isize::try_from(self.height.saturating_sub(1).max(1)).unwrap_or(isize::MAX);
        let mut open = self.open().clone();
        match key {
            Key::Up => open.step(-1, self.rows()),
            Key::Down => open.step(1, self.rows()),
            Key::PageUp => open.step(-page, self.rows()),
            Key::PageDown => open.step(page, self.rows()),
            Key::End => open.select_last(self.rows()),
            Key::Home => open.select_top(),
            _ => return,
        }
        open.scroll(self.height);
        *self.open_mut() = open;
    }

    /// Takes a key while the filter is typed. Those that move through the rows still do.
    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Char(c) if self.filter().chars().count() < MOST_FILTER => {
                self.open_mut().filter.push(c);
            }
            Key::Backspace => {
                self.open_mut().filter.pop();
            }
            Key::Enter => self.is_typing = false,
            Key::Escape => self.clear_filter(),
            _ => return self.travel(key),
        }
        self.arrange();
    }

    fn clear_filter(&mut self) {
        self.is_typing = false;
        self.open_mut().filter.clear();
    }

    /// Clears the filter, or else goes back to the page from which this one was opened.
    fn back(&mut self) {
        if !self.filter().is_empty() {
            self.clear_filter();
        } else if self.is_opened() {
            self.open.pop();
        } else if self.open[0].page != self.home() {
            self.open = vec![Open::new(self.home())];
        }
        self.arrange();
    }

    fn pause(&mut self) {
        self.frozen = match self.frozen {
            Some(_) => None,
            None => Some(self.figures.clone()),
        };
        self.arrange();
    }

    /// Opens a page that is opened from no other, or goes home from it. The filter comes along.
    fn toggle(&mut self, page: Page) {
        if self.home() == Page::Types {
            self.note = Some(NEEDS_AGENT.into());
            return;
        }
        let is_open = *self.page() == page;
        let filter = std::mem::take(&mut self.open[0].filter);
        let page = if is_open { self.home() } else { page };
        let mut open = Open::new(page);
        open.filter = filter;
        self.open = vec![open];
        self.arrange();
    }

    /// Returns the page with which everything begins.
    pub(super) fn home(&self) -> Page {
        let only_sampled = self.figures.report().is_none() && self.figures.sampled().is_some();
        if only_sampled { Page::Types } else { Page::Sites }
    }

    /// Opens what is below the selected row: a site's tasks, or a task's functions.
    fn enter(&mut self) -> Option<Action> {
        let row = self.open().selected()?;
        let figures = self.shown();
        let page = match self.page() {
            Page::Sites => Page::Tasks(figures.sites.site(row)?.clone()),
            Page::Paths => Page::Tasks(figures.paths.site(row)?.clone()),
            Page::Types | Page::Tasks(_) => return self.ask_functions(),
            Page::Labels | Page::Threads | Page::Subject(_) => return None,
        };
        self.open.push(Open::new(page));
        self.arrange();
        None
    }

    /// Asks for the functions of the selected row, and opens their page.
    fn ask_functions(&mut self) -> Option<Action> {
        let subject = self.subject()?;
        let page = Page::Subject(subject.clone());
        if *self.page() != page {
            self.open.push(Open::new(page));
        }
        let action = self.ask(subject);
        self.arrange();
        action
    }

    /// Returns what the user means when they ask for functions.
    fn subject(&self) -> Option<Subject> {
        let row = self.open().selected();
        let figures = self.shown();
        Some(match self.page() {
            Page::Sites => Subject::Site(figures.sites.site(row?)?.clone()),
            Page::Paths => Subject::Site(figures.paths.site(row?)?.clone()),
            Page::Types => Subject::Type(figures.types.name(row?)?.to_owned()),
            Page::Tasks(_) => Subject::Task(self.tasks.id(row?)?),
            Page::Subject(subject) => subject.clone(),
            Page::Labels | Page::Threads => return None,
        })
    }

    fn ask(&mut self, of: Subject) -> Option<Action> {
        let asked = self.functions.as_ref().filter(|asked| asked.of == of);
        if asked.is_some_and(|asked| matches!(asked.answer, Answer::Awaited)) {
            return None;
        }
        let answer = self.ended.clone().map_or(Answer::Awaited, Answer::Refused);
        let action = matches!(answer, Answer::Awaited)
            .then(|| Action::Ask(Request::Stacks { of: of.clone() }));
        self.functions = Some(Functions { of, answer });
        action
    }

    fn sort_mut(&mut self) -> &mut super::Sort {
        let kind = self.page().kind();
        &mut self.sorts[kind as usize]
    }

    fn step_sort(&mut self, forward: bool) {
        let columns = self.columns.clone();
        self.sort_mut().step(&columns, forward);
    }

    fn sort_by_letter(&mut self, letter: char) {
        let of_letter = |column: &&super::Column| column.letter() == Some(letter);
        match self.columns.iter().find(of_letter).copied() {
            Some(column) => self.sort_mut().choose(column),
            None => self.note = Some("no column here has that letter: press h for help".into()),
        }
    }
}
