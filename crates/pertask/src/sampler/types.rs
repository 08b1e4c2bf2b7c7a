//! Tasks that nobody named, by the types of their futures, as their stacks show them.
//!
//! An executor's function that polls a task has the type of the task's future in its name, or in the debug information. The functions
//! that it calls are the task's. Where the type says nothing, as `dyn Future` does, the first of them tells what ran.

use pertask_executors::{Concrete, Role, future_type};
use pertask_symbols::{Declaration, Frame};
use std::collections::HashMap;
use std::sync::Arc;

/// What a frame is to the task of its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It polls a task that this crate tracks.
    Tracked,
    /// It polls a task of this type for the executor of that name, or drops such a task, and then there is no name.
    Polls(Type, Option<&'static str>),
    /// It runs a future of this type to its end, and perhaps a scheduler.
    BlocksOn(Type),
    /// It says nothing, between an executor and a future.
    Between,
    /// It is a part of a runtime.
    Runtime(&'static str),
    /// It has nothing to do with executors. If the executor calls it first, it is the task's own.
    Other(Body),
    /// It has no name.
    Unnamed,
}

/// The number of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Body(u32);

/// The number of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Type(u32);

/// The types that a profile's stacks have shown so far.
#[derive(Default)]
pub(super) struct Types {
    all: Vec<Known>,
    numbers: HashMap<Future, Type>,
    /// The marks of functions that poll nothing, by their names and their declarations.
    marks: HashMap<(Arc<str>, Option<Declaration>), Mark>,
    functions: Vec<Function>,
    /// What functions have told of the types whose tasks call them first.
    learned: HashMap<(Type, Body), Type>,
}

/// What the function that polls tasks says of their future.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Future {
    /// Its whole type.
    Of(String),
    /// Nothing, but the executor's name.
    Hidden(&'static str),
    /// It is a function, which the type does not name.
    Function(&'static str),
    /// The function's code is that of several types: the compiler or the linker has kept one copy.
    Shared(&'static str),
    /// The task is a part of a runtime.
    Runtime(&'static str),
}

struct Known {
    future: Future,
    /// The type in words, from a name that has them.
    words: Option<String>,
    /// The function that runs the future, once a stack has shown it.
    place: Option<(Arc<str>, u32)>,
}

/// A function that may be a task's own.
#[derive(Clone, Debug)]
struct Function {
    path: Arc<str>,
    declared: Option<Declaration>,
}

/// What a stack says of who ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A task of this type.
    Task {
        of: Type,
        /// The frame with which its own stack ends, counted from the innermost.
        last: usize,
        /// What was polling it. `None` if it was being dropped, or is no task of its own but what a thread waits for.
        executor: Option<&'static str>,
    },
    /// A part of a runtime.
    Runtime(&'static str),
    Nobody,
}

impl Types {
    /// Returns the mark of a frame. `is_shared` says whether other functions have the same code.
    pub(super) fn mark(
        &mut self,
        frame: &Frame,
        declared: Option<&Declaration>,
        is_shared: impl FnOnce() -> bool,
    ) -> Mark {
        let key = (Arc::clone(&frame.function), declared.cloned());
        if let Some(mark) = self.marks.get(&key) {
            return *mark;
        }
        let typed = declared.map(|declared| &*declared.name);
        match Role::of(&frame.function, typed) {
            Role::PollsTask { executor, future, drops } => {
                let polls = (!drops).then_some(executor);
                Mark::Polls(self.polled(frame, executor, future, is_shared()), polls)
            }
            Role::BlocksOn { executor, future } => {
                Mark::BlocksOn(self.polled(frame, executor, future, is_shared()))
            }
            role => {
                let mark = match role {
                    Role::Between => Mark::Between,
                    Role::Runtime(part) => Mark::Runtime(part),
                    _ => {
                        let (path, declared) = key.clone();
                        self.functions.push(Function { path, declared });
                        Mark::Other(Body(self.functions.len() as u32 - 1))
                    }
                };
                self.marks.insert(key, mark);
                mark
            }
        }
    }

    /// Returns the number of the type that a function polls.
    fn polled(
        &mut self,
        frame: &Frame,
        executor: &'static str,
        future: Option<&str>,
        is_shared: bool,
    ) -> Type {
        let future = match future.map(Concrete::of) {
            _ if is_shared => Future::Shared(executor),
            Some(Concrete::Future(of)) => Future::Of(future_type::canonical(of)),
            Some(Concrete::Runtime(part)) => Future::Runtime(part),
            Some(Concrete::Function) => Future::Function(executor),
            _ => Future::Hidden(executor),
        };
        let number = self.number(future);
        let known = &mut self.all[number.0 as usize];
        if known.words.is_none() && known.lacks_words() {
            // In the v0 mangling, the symbol has the words.
            let by_symbol = match Role::of(&frame.function, None) {
                Role::PollsTask { future: Some(of), .. } => Some(Concrete::of(of)),
                _ => None,
            };
            if let Some(Concrete::Future(of)) = by_symbol {
                known.words = Some(future_type::words(of));
            }
        }
        number
    }

    fn number(&mut self, future: Future) -> Type {
        if let Some(number) = self.numbers.get(&future) {
            return *number;
        }
        let number = Type(self.all.len() as u32);
        self.numbers.insert(future.clone(), number);
        self.all.push(Known { future, words: None, place: None });
        number
    }

    /// Says who ran in a stack, whose frames come from the innermost to the outermost.
    pub(super) fn owner(&mut self, frames: impl Iterator<Item = Mark>) -> Owner {
        // The part of a runtime that ran, and the outermost frame so far that says anything.
        let (mut part, mut last) = (None, None);
        for (at, mark) in frames.enumerate() {
            match mark {
                Mark::Between => (),
                Mark::Tracked => return Owner::Nobody,
                Mark::Runtime(of) => {
                    part = part.or(Some(of));
                    last = Some((at, mark));
                }
                Mark::Other(_) | Mark::Unnamed => last = Some((at, mark)),
                Mark::Polls(of, executor) => return self.of_task(of, executor, part, last, at),
                // Only what the future itself has called is the future's. The rest is a scheduler that runs beside it.
                Mark::BlocksOn(of) => match last {
                    Some((_, Mark::Other(_) | Mark::Unnamed)) => {
                        return self.of_task(of, None, part, last, at);
                    }
                    _ => last = Some((at, mark)),
                },
            }
        }
        part.map_or(Owner::Nobody, Owner::Runtime)
    }

    /// Says who ran below a function that polls a task, which is the frame `root`. `last` is the first frame that the task has called.
    fn of_task(
        &mut self,
        of: Type,
        executor: Option<&'static str>,
        part: Option<&'static str>,
        last: Option<(usize, Mark)>,
        root: usize,
    ) -> Owner {
        if let Future::Runtime(whole) = self.all[of.0 as usize].future {
            return Owner::Runtime(part.unwrap_or(whole));
        }
        let of = match last {
            Some((_, Mark::Other(body))) => match self.learned.get(&(of, body)) {
                Some(known) => *known,
                None => {
                    let known = self.learn(of, body);
                    self.learned.insert((of, body), known);
                    known
                }
            },
            _ => of,
        };
        Owner::Task { of, last: last.map_or(root, |(at, _)| at), executor }
    }

    /// Learns from the first function that a task has called. Returns the task's type, which that function may tell alone.
    fn learn(&mut self, of: Type, body: Body) -> Type {
        let Function { path, declared } = self.functions[body.0 as usize].clone();
        let typed = declared.as_ref().map(|declared| &*declared.name);
        let by_body = future_type::of_body(&path, typed);
        let of = match &self.all[of.0 as usize].future {
            Future::Of(future) => {
                let is_its = typed.is_some_and(|typed| future_type::is_body_of(typed, future))
                    || future_type::words(future) == future_type::words(&by_body);
                if !is_its {
                    return of;
                }
                of
            }
            // An executor calls a boxed future through its table of functions, so its function has a frame of its own.
            Future::Hidden(_) | Future::Shared(_) if future_type::may_be_body(&path) => {
                self.number(Future::Of(by_body))
            }
            // Without debug information, the function may be one that the task has called.
            Future::Function(_) if declared.is_some() => self.number(Future::Of(by_body)),
            _ => return of,
        };
        let known = &mut self.all[of.0 as usize];
        if known.words.is_none() && known.lacks_words() {
            known.words = Some(future_type::words(&path));
        }
        if known.place.is_none()
            && let Some(Declaration { file: Some(file), line: Some(line), .. }) = declared
        {
            known.place = Some((file, line));
        }
        of
    }

    /// Returns the whole type, as far as it is known.
    pub(super) fn whole(&self, of: Type) -> &str {
        match &self.all[of.0 as usize].future {
            Future::Of(future) => future,
            Future::Hidden(_) => "dyn Future",
            Future::Function(_) => "fn()",
            Future::Shared(_) => "one of several types that share their code",
            Future::Runtime(part) => part,
        }
    }

    /// Whether the whole type is known.
    pub(super) fn is_known(&self, of: Type) -> bool {
        matches!(self.all[of.0 as usize].future, Future::Of(_))
    }

    /// Returns what people call a task of this type.
    pub(super) fn words(&self, of: Type) -> String {
        let known = &self.all[of.0 as usize];
        match &known.future {
            Future::Of(_) if known.words.is_some() => known.words.clone().unwrap_or_default(),
            Future::Of(future) if known.place.is_none() => future_type::distinct_words(future),
            Future::Of(future) => future_type::words(future),
            Future::Hidden(executor) | Future::Function(executor) => {
                format!("({executor} task, type not known)")
            }
            Future::Shared(executor) => format!("({executor} task, one of several types)"),
            Future::Runtime(part) => (*part).to_owned(),
        }
    }

    /// Returns where the code of tasks of this type begins.
    pub(super) fn place(&self, of: Type) -> Option<(&str, u32)> {
        self.all[of.0 as usize].place.as_ref().map(|(file, line)| (&**file, *line))
    }
}

impl Known {
    /// Whether the type's own text lacks a name: debug information does not say whose `{impl#0}` it is.
    fn lacks_words(&self) -> bool {
        matches!(&self.future, Future::Of(future) if future.contains("{impl#"))
    }
}
