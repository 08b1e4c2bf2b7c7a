//! A poll that was caught and goes on: its stack is still to come, or only its end.

use super::kernel::{self, Inside};
use super::poll::{Facts, PollTimes};
use crate::os::clock;
use crate::pmus::cpu_time::{CpuTime, CpuTimeCount};
use crate::report::BlockedState;
use crate::sampler::{Asked, Catcher, Stack};
use crate::tasks::accounts;
use pertask_core::{CpuRecord, Event, Inherit, PmuHandle, Task};
use std::sync::Arc;

/// A poll on a CPU: while the CPU has made this many switches, it goes on.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) cpu: &'static CpuRecord,
    pub(super) thread: u32,
    pub(super) switches: u64,
}

/// A poll that has lasted longer than the threshold.
pub(super) struct Caught {
    pub(super) facts: Arc<Facts>,
    pub(super) times: PollTimes,
    /// Whether its stack is wanted and not there yet.
    pub(super) wants_stack: bool,
    /// Whether the program is to be told of it.
    pub(super) is_told: bool,
    pub(super) was_told: bool,
    asked: Option<Asked>,
    /// What the task uses from here on. Of its poll this event sees the end.
    event: Option<Event<CpuTime>>,
    /// The length of the poll before the stint in which it was caught.
    before_ns: u64,
}

impl Place {
    /// Whether the CPU has switched since.
    pub(super) fn is_over(self) -> bool {
        self.cpu.switches() != self.switches
    }
}

impl Caught {
    /// Catches a task's poll, whose stint so far is this.
    pub(super) fn new(
        place: Place,
        task: &Arc<Task>,
        state: BlockedState,
        stint: &CpuTimeCount,
        handle: PmuHandle<CpuTime>,
    ) -> Self {
        let event = handle.attach_task(task, Inherit::No).ok();
        let facts = Facts {
            task: task.id(),
            site: task.site(),
            labels: accounts::labels_of(task.tag()),
            thread: place.thread,
            state,
            call: None,
            stack: Vec::new(),
            stack_complete: false,
            functions: Box::default(),
        };
        let before_ns = event.as_ref().map_or(0, |event| event.read().under_way_ns());
        let mut caught = Self {
            facts: Arc::new(facts),
            times: PollTimes::default(),
            wants_stack: false,
            is_told: false,
            was_told: false,
            asked: None,
            event,
            before_ns,
        };
        caught.note(stint);
        caught
    }

    /// Notes how long the poll has lasted by now.
    pub(super) fn note(&mut self, stint: &CpuTimeCount) {
        self.times.wall_ns = self.before_ns + stint.wall_ns;
        self.times.cpu_ns = stint.cpu_ns;
    }

    /// The call in which the poll's worker is now.
    pub(super) fn note_call(&mut self, inside: Option<Inside>) {
        if self.facts.state == BlockedState::Blocked {
            let call = inside.and_then(|inside| inside.call).map(super::calls::name);
            Arc::make_mut(&mut self.facts).call = call;
        }
    }

    /// Keeps what the thread was asked before. What it answers is of a moment when it ran.
    pub(super) fn keep(&mut self, asked: Option<Asked>) {
        self.asked = asked.filter(|_| self.facts.state != BlockedState::Blocked);
    }

    /// Takes the stack, if the thread can be asked for it or has answered, or is blocked in the kernel.
    pub(super) fn take_stack(&mut self, place: Place, catcher: &mut Catcher) {
        if self.take_answer(catcher) {
            return;
        }
        match kernel::inside(place.thread) {
            Ok(Some(inside)) => {
                // What the thread does not answer now it would answer when it is elsewhere.
                self.asked = None;
                if let Some(stack) = stack_of_blocked(place, inside, catcher) {
                    self.note_call(Some(inside));
                    self.set_stack(stack, catcher);
                }
            }
            // It runs, or nobody knows.
            Ok(None) | Err(_) if self.asked.is_none() => {
                self.asked = catcher.ask(place.thread, place.cpu, place.switches);
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// Takes the stack that the thread has answered with. Returns whether it has answered.
    fn take_answer(&mut self, catcher: &Catcher) -> bool {
        let Some(Ok(answer)) = self.asked.as_ref().map(Asked::answer) else { return false };
        self.asked = None;
        match answer {
            Some(stack) => self.set_stack(stack, catcher),
            None => self.wants_stack = false,
        }
        true
    }

    fn set_stack(&mut self, stack: Stack, catcher: &Catcher) {
        self.wants_stack = false;
        // A return address may be where another function begins.
        let function = |(depth, address): (usize, &u64)| {
            catcher.function_start(address.saturating_sub((depth > 0).into()))
        };
        let facts = Arc::make_mut(&mut self.facts);
        facts.functions = stack.addresses.iter().enumerate().map(function).collect();
        (facts.stack, facts.stack_complete) = (stack.addresses, stack.complete);
    }

    /// The poll is over: its last times.
    pub(super) fn end(&mut self, catcher: &Catcher) {
        if self.wants_stack {
            self.take_answer(catcher);
        }
        (self.asked, self.wants_stack) = (None, false);
        let used = self.event.take().map(|event| event.read());
        self.times = last_times(self.times, self.before_ns, used.as_ref());
    }

    /// The thread that was asked for its stack and has not answered.
    pub(super) fn owes_answer(&self) -> Option<u32> {
        self.asked.as_ref().map(Asked::thread)
    }
}

/// How long a poll has lasted that was last seen at this length: by what its task has used since it was caught.
fn last_times(seen: PollTimes, before_ns: u64, used: Option<&CpuTimeCount>) -> PollTimes {
    let at_least = PollTimes { at_least: true, ..seen };
    match used {
        // No poll has begun since, so all of it was this poll's.
        Some(used) if used.polls == 0 && used.wall_ns > 0 => PollTimes {
            wall_ns: (before_ns + used.wall_ns).max(seen.wall_ns),
            cpu_ns: used.cpu_ns.max(seen.cpu_ns),
            at_least: false,
        },
        // Its longest poll is longer than any before. Those since were looked at less long ago than this one lasted.
        Some(CpuTimeCount { longest_poll_ns: Some(longest_ns), .. })
            if *longest_ns >= seen.wall_ns =>
        {
            PollTimes { wall_ns: *longest_ns, at_least: false, ..seen }
        }
        _ => at_least,
    }
}

/// The stack of a thread that was blocked there a moment ago. `None` if it has run since.
fn stack_of_blocked(place: Place, inside: Inside, catcher: &mut Catcher) -> Option<Stack> {
    let before_ns = clock::cpu_ns_of_thread(place.thread)?;
    if kernel::inside(place.thread) != Ok(Some(inside)) {
        return None;
    }
    let stack = catcher.of_blocked(inside.instruction, inside.stack);
    // A thread that has run has used CPU time.
    let has_stayed = kernel::inside(place.thread) == Ok(Some(inside))
        && clock::cpu_ns_of_thread(place.thread) == Some(before_ns)
        && !place.is_over();
    stack.filter(|_| has_stayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_poll_is_exact_where_its_end_can_be_told() {
        let seen = PollTimes { wall_ns: 30, cpu_ns: 5, at_least: false };
        let used = |polls, wall_ns, longest_poll_ns| {
            let mut used = CpuTimeCount::default();
            (used.polls, used.wall_ns, used.longest_poll_ns) = (polls, wall_ns, longest_poll_ns);
            used.cpu_ns = 9;
            used
        };
        let last = |used: Option<&CpuTimeCount>| last_times(seen, 4, used);
        let exact = |wall_ns, cpu_ns| PollTimes { wall_ns, cpu_ns, at_least: false };
        assert_eq!(last(Some(&used(0, 28, None))), exact(32, 9));
        assert_eq!(last(Some(&used(3, 90, Some(33)))), exact(33, 5));
        let at_least = PollTimes { at_least: true, ..seen };
        assert_eq!(last(Some(&used(3, 90, None))), at_least, "an earlier poll was longer");
        assert_eq!(last(Some(&used(3, 90, Some(20)))), at_least);
        assert_eq!(last(Some(&used(0, 0, Some(0)))), at_least, "it was not charged");
        assert_eq!(last(None), at_least);
    }
}
