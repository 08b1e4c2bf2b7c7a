//! Places: the innermost function of a stack, and the line of the program's own code from which it was reached.
//!
//! A wait's stack begins at what is awaited, such as a lock of a library. Which of the program's many locks that is, its own line says.

use std::collections::HashMap;
use std::sync::Arc;

use super::called::Called;
use super::whose::is_own;
use super::{Amount, Line, LocationId, Profile, Sample, Site, Subject, SummaryRow};

impl Profile {
    /// Returns a row for each place.
    pub(super) fn by_place(&self) -> Vec<SummaryRow> {
        let own: Vec<_> = self.functions.iter().map(|it| is_own(&it.file)).collect();
        let mut called = Called::default();
        let mut rows: HashMap<Subject, (Amount, Option<Arc<str>>)> = HashMap::new();
        for sample in &self.samples {
            let name = called.of(sample);
            let place = self.place_of(sample, &own);
            let new = || (Amount::default(), Some(Arc::clone(&name)));
            let (amount, tasks) = rows.entry(place).or_insert_with(new);
            *amount = amount.plus(Amount::of(sample));
            if tasks.as_ref().is_some_and(|known| *known != name) {
                *tasks = None;
            }
        }
        let row = |(mut subject, (amount, tasks)): (Subject, (Amount, Option<Arc<str>>))| {
            if let Subject::Place { task, .. } = &mut subject {
                *task = tasks;
            }
            SummaryRow { subject, own: amount, total: amount }
        };
        rows.into_iter().map(row).collect()
    }

    /// Returns the place of a sample, without the tasks there. `own` says which functions are the program's own.
    fn place_of(&self, sample: &Sample, own: &[bool]) -> Subject {
        let Some((innermost, callers)) = sample.stack.split_first() else {
            return Subject::NoStack;
        };
        let (leaf, inlined_into) = match self.lines(*innermost) {
            [leaf, inlined_into @ ..] => (Some(leaf), inlined_into),
            [] => (None, &[][..]),
        };
        let name = match leaf {
            Some(line) => self.shared_name(line.function),
            None => Arc::from(&*self.names(*innermost)[0]),
        };
        let callers = || inlined_into.iter().chain(callers.iter().flat_map(|id| self.lines(*id)));
        let is_own = |line: &&Line| own.get(line.function.0 as usize).is_some_and(|own| *own);
        let at = callers().filter(is_own).find_map(|line| self.site_of(line));
        let at = at.or_else(|| leaf.filter(is_own).and_then(|line| self.site_of(line)));
        let at = at.or_else(|| callers().chain(leaf).find_map(|line| self.site_of(line)));
        Subject::Place { name, at, task: None }
    }

    fn lines(&self, id: LocationId) -> &[Line] {
        self.location(id).map_or(&[], |location| &location.lines)
    }

    fn site_of(&self, line: &Line) -> Option<Site> {
        let file = &self.function(line.function)?.file;
        let is_known = line.line > 0 && !file.is_empty();
        is_known.then(|| Site { file: Arc::clone(file), line: line.line })
    }
}

impl Subject {
    /// Returns the subject, of a place without the tasks that are there, which are no part of what it is.
    pub(super) fn without_tasks(&self) -> Self {
        match self {
            Self::Place { name, at, .. } => {
                Self::Place { name: Arc::clone(name), at: at.clone(), task: None }
            }
            subject => subject.clone(),
        }
    }
}
