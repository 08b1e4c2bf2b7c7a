//! What has happened and was not yet dealt with: keys, updates, signals.
//!
//! The threads that hear of something put it here, and the event loop takes it out. The inbox never holds much, however slow the
//! terminal is. What happens replaces what has happened of the same kind, with two exceptions: there are up to [`MOST_KEYS`] keys, and
//! the first reason for the end stays.

use std::{
    mem,
    ops::ControlFlow,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{source::Update, state::Key};

/// The most keys to remember. Who types more on a terminal that does not keep up would not know what they do.
const MOST_KEYS: usize = 64;

/// Something that the event loop must deal with.
#[derive(Debug)]
pub enum Happening {
    /// The user has pressed a key.
    Key(Key),
    /// The terminal has another size.
    Resized,
    /// The source has learnt something.
    Update(Update),
    /// The user wants the shell back for a while.
    Suspend,
    /// The process goes on after it was stopped.
    Resumed,
    /// A signal, by its number, asks the process to end.
    Stop(i32),
    /// Nothing more can be read from the terminal.
    InputEnded,
}

/// What happened, in order.
#[derive(Default)]
pub struct Inbox {
    contents: Mutex<Contents>,
    filled: Condvar,
}

#[derive(Default)]
struct Contents {
    happenings: Vec<Happening>,
    closed: bool,
}

impl Inbox {
    /// Adds what has happened, without waiting. Returns `Break` if nobody will take it out.
    pub fn push(&self, happening: Happening) -> ControlFlow<()> {
        let mut contents = self.lock();
        if contents.closed {
            return ControlFlow::Break(());
        }
        contents.add(happening);
        self.filled.notify_one();
        ControlFlow::Continue(())
    }

    /// Takes out what has happened. Waits until something has, or until the deadline.
    pub fn wait(&self, deadline: Option<Instant>) -> Vec<Happening> {
        let mut contents = self.lock();
        while contents.happenings.is_empty() {
            let Some(deadline) = deadline else {
                contents = self.filled.wait(contents).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.filled.wait_timeout(contents, left);
            contents = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        mem::take(&mut contents.happenings)
    }

    /// Tells all who push that nobody takes anything out any more.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Nothing can panic while the lock is held, so what a poisoned lock guards is whole.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn add(&mut self, happening: Happening) {
        let of_its_kind = self.happenings.iter().filter(|unread| is_of_kind(unread, &happening));
        let most = match happening {
            Happening::Key(_) => MOST_KEYS,
            Happening::Update(Update::Ended(_)) => 1,
            _ => {
                self.happenings.retain(|unread| !is_of_kind(unread, &happening));
                return self.happenings.push(happening);
            }
        };
        if of_its_kind.count() < most {
            self.happenings.push(happening);
        }
    }
}

fn is_of_kind(one: &Happening, other: &Happening) -> bool {
    match (one, other) {
        (Happening::Update(one), Happening::Update(other)) => {
            mem::discriminant(one) == mem::discriminant(other)
        }
        _ => mem::discriminant(one) == mem::discriminant(other),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pertask::Report;

    use super::*;

    fn report(duration_ns: u64) -> Happening {
        let report = Report { duration_ns, ..crate::top::state::samples::report() };
        Happening::Update(Update::Report(Box::new(report)))
    }

    #[test]
    fn only_the_newest_report_waits_for_a_slow_terminal() {
        let inbox = Inbox::default();
        for duration_ns in 1..=1_000 {
            assert!(inbox.push(report(duration_ns)).is_continue());
        }
        let happenings = inbox.wait(None);
        let [Happening::Update(Update::Report(newest))] = &happenings[..] else {
            panic!("{} happenings", happenings.len())
        };
        assert_eq!(newest.duration_ns, 1_000);
    }

    #[test]
    fn keys_are_kept_in_order_up_to_a_limit() {
        let inbox = Inbox::default();
        for n in 0..1_000 {
            let _ = inbox.push(Happening::Key(Key::Function(u8::try_from(n % 200).unwrap())));
            let _ = inbox.push(Happening::Resized);
        }
        let happenings = inbox.wait(None);
        let keys = happenings.iter().filter(|it| matches!(it, Happening::Key(_))).count();
        assert_eq!((keys, happenings.len()), (MOST_KEYS, MOST_KEYS + 1));
        assert!(matches!(happenings[0], Happening::Key(Key::Function(0))));
    }

    #[test]
    fn the_first_reason_for_the_end_is_kept() {
        let inbox = Inbox::default();
        for reason in ["it has ended", "no more figures come"] {
            let _ = inbox.push(Happening::Update(Update::Ended(reason.to_owned())));
            let _ = inbox.push(report(1));
        }
        let [Happening::Update(Update::Ended(reason)), _] = &inbox.wait(None)[..] else {
            panic!("the end and a report")
        };
        assert_eq!(reason, "it has ended");
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let inbox = Inbox::default();
        let deadline = Instant::now() + Duration::from_millis(5);
        assert!(inbox.wait(Some(deadline)).is_empty());
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn who_pushes_hears_that_nobody_looks() {
        let inbox = Inbox::default();
        inbox.close();
        assert!(inbox.push(Happening::Resized).is_break());
    }
}
