//! What a poll's worker did for most of the time: it computed, was blocked, or had no CPU.

use crate::report::BlockedState;

/// The times of a poll, or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) wall_ns: u64,
    pub(super) cpu_ns: u64,
    /// The time for which the thread waited for a CPU, as far as the kernel counts it.
    pub(super) waited_ns: u64,
}

impl Times {
    pub(super) fn since(self, start: Self) -> Self {
        Self {
            wall_ns: self.wall_ns.saturating_sub(start.wall_ns),
            cpu_ns: self.cpu_ns.saturating_sub(start.cpu_ns),
            waited_ns: self.waited_ns.saturating_sub(start.waited_ns),
        }
    }
}

/// What took most of these times. `may_run`: whether the thread runs, or could run, at their end.
///
/// The kernel counts a wait for a CPU when it is over. So of a thread that could run, what it neither ran nor had waited before is a
/// wait that goes on; of one that could not, it was blocked for that time.
pub(super) fn state(times: Times, may_run: bool) -> BlockedState {
    let Times { wall_ns, cpu_ns, waited_ns } = times;
    let rest_ns = wall_ns.saturating_sub(cpu_ns).saturating_sub(waited_ns);
    let (blocked_ns, waiting_ns) = match may_run {
        true => (0, waited_ns + rest_ns),
        false => (rest_ns, waited_ns),
    };
    if cpu_ns >= blocked_ns && cpu_ns >= waiting_ns {
        BlockedState::Computing
    } else if blocked_ns >= waiting_ns {
        BlockedState::Blocked
    } else {
        BlockedState::NotScheduled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_the_most_time_is_what_is_told() {
        let of =
            |cpu_ns, waited_ns, may_run| state(Times { wall_ns: 10, cpu_ns, waited_ns }, may_run);
        assert_eq!(of(10, 0, true), BlockedState::Computing);
        assert_eq!(of(6, 1, true), BlockedState::Computing);
        assert_eq!(of(6, 0, false), BlockedState::Computing, "it has just gone to sleep");
        assert_eq!(of(0, 0, false), BlockedState::Blocked);
        assert_eq!(of(1, 0, true), BlockedState::NotScheduled, "its wait goes on");
        assert_eq!(of(1, 8, true), BlockedState::NotScheduled);
        assert_eq!(of(1, 8, false), BlockedState::NotScheduled, "it has just had its turn");
        assert_eq!(of(12, 0, true), BlockedState::Computing, "clocks differ");
    }
}
