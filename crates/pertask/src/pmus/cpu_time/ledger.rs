//! The ledger of workers that have ended: what each had used by its end, for each session that ran then.
//!
//! A thread that ends takes its clock with it, so it makes an entry here in its last moments. The kernel may list the thread
//! for a while after that. Sessions read the threads under the ledger's lock, so a session finds each thread once: among the
//! living, or in the ledger.

use crate::os::clock;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The accounts of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

/// What the ledger's lock protects.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Workers that have made their entry and that the kernel may still list: the CPU time of each at its entry.
    lingering: HashMap<u32, u64>,
    accounts: HashMap<u64, Account>,
    last_account: u64,
}

/// The CPU time of a worker, and the part of it in tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) cpu_ns: u64,
    pub(crate) tasks_ns: u64,
}

/// The account of one session.
#[derive(Debug)]
struct Account {
    /// What each thread had used when the session began.
    base: HashMap<u32, Used>,
    /// What workers used during the session, of those that have ended.
    ended: Used,
}

/// The right to an account. Its drop closes the account.
#[derive(Debug)]
pub(crate) struct AccountId {
    ledger: &'static Ledger,
    id: u64,
}

/// How far a thread's own reading of its CPU clock may be ahead of another thread's reading of the same clock.
const AHEAD_NS: u64 = 1_000_000;

/// The number of lingering threads from which on the ledger checks which of them the kernel still lists.
const PRUNE: usize = 256;

impl Ledger {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an account for a session. Its first reading, `base`, was taken under this same lock.
    pub(crate) fn open(
        &'static self,
        entries: &mut Entries,
        base: HashMap<u32, Used>,
    ) -> AccountId {
        entries.last_account += 1;
        let id = entries.last_account;
        entries.accounts.insert(id, Account { base, ended: Used::default() });
        AccountId { ledger: self, id }
    }
}

impl Entries {
    /// What workers have used since the account was opened, of those that have ended.
    pub(crate) fn ended(&self, account: &AccountId) -> Used {
        self.accounts.get(&account.id).map(|account| account.ended).unwrap_or_default()
    }

    /// Makes the entry of a worker that ends. `before` is what the thread had used when it last ended as a worker, if it did.
    pub(crate) fn enter(&mut self, thread: u32, last: Used, before: Option<Used>) {
        for account in self.accounts.values_mut() {
            let base = before.or_else(|| account.base.get(&thread).copied());
            let used = last.since(base.unwrap_or_default());
            account.ended.cpu_ns += used.cpu_ns;
            account.ended.tasks_ns += used.tasks_ns;
        }
        self.linger(thread, last.cpu_ns);
    }

    /// The part of a listed thread's CPU time that is in the ledger, or `None` if the thread has no entry.
    pub(crate) fn entered_ns(&self, thread: u32, cpu_ns: u64) -> Option<u64> {
        // A much greater entry is of an earlier thread with the same number. A slightly greater one may be of this thread,
        // because a thread's own reading of its clock can be ahead of what others read.
        let of_this_thread = |entered_ns: &u64| *entered_ns <= cpu_ns + AHEAD_NS;
        self.lingering.get(&thread).copied().filter(of_this_thread)
    }

    /// Notes that a worker has begun. An entry under its number is of an earlier thread.
    pub(crate) fn begin(&mut self, thread: u32) {
        self.lingering.remove(&thread);
    }

    fn linger(&mut self, thread: u32, cpu_ns: u64) {
        if self.lingering.len() >= PRUNE {
            self.lingering.retain(|thread, entered_ns| {
                clock::cpu_ns_of_thread(*thread).is_some_and(|cpu_ns| cpu_ns >= *entered_ns)
            });
        }
        self.lingering.insert(thread, cpu_ns);
    }
}

impl Used {
    fn since(self, base: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(base.cpu_ns),
            tasks_ns: self.tasks_ns.saturating_sub(base.tasks_ns),
        }
    }
}

impl Drop for AccountId {
    fn drop(&mut self) {
        self.ledger.lock().accounts.remove(&self.id);
    }
}
