//! Keeps our signals away from the program's handlers on alternate stacks.
//!
//! A signal that interrupts a handler comes on the handler's own stack. An alternate stack may be too small for a second signal: if
//! there is no room for what the kernel saves, the kernel ends the process, and no handler of ours can prevent that. So while
//! sessions sample, the actions of such handlers block our signals, which then come when the handler has returned.

use super::disposition::{self, is_on_alternate};
use std::mem::MaybeUninit;
use std::ptr;

/// One more than the highest signal number.
const SIGNALS: i32 = 65;

/// The actions whose masks have been changed.
#[derive(Default)]
pub(super) struct Shield(Vec<Changed>);

struct Changed {
    signal: i32,
    before: libc::sigset_t,
    now: libc::sigaction,
}

impl Shield {
    /// Looks at all actions, and blocks our signals in those on alternate stacks. A handler that the program has installed since
    /// the last look is not covered until the next one.
    pub(super) fn cover(&mut self, ours: &[i32]) {
        for signal in (1..SIGNALS).filter(|signal| !ours.contains(signal)) {
            let Ok(current) = disposition::action(signal) else { continue };
            let covered = ours.iter().all(|our| blocks(&current.sa_mask, *our));
            if is_on_alternate(&current) && !covered && returns(&current) {
                self.cover_one(signal, current, ours);
            }
        }
    }

    fn cover_one(&mut self, signal: i32, current: libc::sigaction, ours: &[i32]) {
        let mut now = current;
        for our in ours {
            // SAFETY: the set is one that the kernel has filled in, and belongs to this function.
            unsafe { libc::sigaddset(&raw mut now.sa_mask, *our) };
        }
        if !replace(signal, &current, &now) {
            return;
        }
        let known = |changed: &Changed| changed.signal == signal && same(&changed.now, &current);
        let before = self.0.iter().find(|changed| known(changed)).map(|changed| changed.before);
        self.0.retain(|changed| changed.signal != signal);
        self.0.push(Changed { signal, before: before.unwrap_or(current.sa_mask), now });
    }

    /// Gives the actions their masks back, except those that the program has changed since.
    pub(super) fn lift(&mut self) {
        for Changed { signal, before, now } in std::mem::take(&mut self.0) {
            let earlier = libc::sigaction { sa_mask: before, ..now };
            if disposition::action(signal).is_ok_and(|current| same(&current, &now)) {
                replace(signal, &now, &earlier);
            }
        }
    }
}

/// Replaces an action that was just seen. Returns false if the program has installed another one since, which then stays.
fn replace(signal: i32, seen: &libc::sigaction, new: &libc::sigaction) -> bool {
    let mut replaced = MaybeUninit::uninit();
    // SAFETY: the kernel only reads the new action, whose handler is the program's own, and writes the replaced one into memory of
    // this function's own.
    if unsafe { libc::sigaction(signal, new, replaced.as_mut_ptr()) } < 0 {
        return false;
    }
    // SAFETY: the call has succeeded, so the kernel has written the action.
    let replaced = unsafe { replaced.assume_init() };
    if same(&replaced, seen) {
        return true;
    }
    // SAFETY: the kernel only reads the action, which it has just written.
    unsafe { libc::sigaction(signal, &raw const replaced, ptr::null_mut()) };
    false
}

/// Whether a thread's mask is as before when the handler is over. A program may jump out of a handler that blocks nothing
/// (`SA_NODEFER`), and what that handler's mask blocks would stay blocked.
fn returns(action: &libc::sigaction) -> bool {
    action.sa_flags & libc::SA_NODEFER == 0
}

fn same(one: &libc::sigaction, other: &libc::sigaction) -> bool {
    let masks = |signal| blocks(&one.sa_mask, signal) == blocks(&other.sa_mask, signal);
    (one.sa_sigaction, one.sa_flags) == (other.sa_sigaction, other.sa_flags)
        && (1..SIGNALS).all(masks)
}

fn blocks(set: &libc::sigset_t, signal: i32) -> bool {
    // SAFETY: the set is one that the kernel has filled in.
    unsafe { libc::sigismember(set, signal) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn handler(_: i32) {}

    fn install(signal: i32, flags: i32) {
        // SAFETY: numbers and bits, of which an empty set of signals is one, and a handler that does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = (handler as extern "C" fn(i32) as *const ()).addr();
            action.sa_flags = flags;
            assert_eq!(libc::sigaction(signal, &raw const action, ptr::null_mut()), 0);
        }
    }

    fn mask(signal: i32) -> libc::sigset_t {
        disposition::action(signal).unwrap().sa_mask
    }

    #[test]
    fn only_handlers_on_alternate_stacks_are_covered_and_all_get_their_masks_back() {
        let [on_it, elsewhere, changed, left] = [3, 4, 5, 6].map(|which| libc::SIGRTMIN() + which);
        install(on_it, libc::SA_ONSTACK);
        install(elsewhere, 0);
        install(changed, libc::SA_ONSTACK);
        install(left, libc::SA_ONSTACK | libc::SA_NODEFER);
        let mut shield = Shield::default();
        shield.cover(&[libc::SIGTRAP]);
        shield.cover(&[libc::SIGTRAP, libc::SIGURG]);
        for our in [libc::SIGTRAP, libc::SIGURG] {
            assert!(blocks(&mask(on_it), our) && blocks(&mask(changed), our));
            assert!(!blocks(&mask(elsewhere), our) && !blocks(&mask(left), our));
        }
        // The program installs it again, with a mask of its own.
        install(changed, libc::SA_ONSTACK);
        shield.lift();
        for our in [libc::SIGTRAP, libc::SIGURG] {
            assert!(!blocks(&mask(on_it), our) && !blocks(&mask(changed), our));
        }
    }
}
