//! The workers' ledger: what threads that ran tasks had used when they ended, for each session that saw it.
//!
//! A thread that ends takes its clock with it, so it enters its last figures here, in its last moments; the kernel may go
//! on listing it for a while. Sessions take their readings of threads under the same lock: each thread is found once, among
//! the living or in the ledger.

use crate::os::clock;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All sessions' accounts of ended workers.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

/// The ledger, locked.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Workers that have entered their last figures and may still be threads: their CPU time at that moment.
    lingering: HashMap<u32, u64>,
    accounts: HashMap<u64, Account>,
    last_account: u64,
}

/// CPU time of a worker, and the part of it in tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) cpu_ns: u64,
    pub(crate) tasks_ns: u64,
}

/// One session's.
#[derive(Debug)]
struct Account {
    /// What each thread had used when the session began.
    base: HashMap<u32, Used>,
    ended: Used,
}

/// The right to an account; dropping it closes the account.
#[derive(Debug)]
pub(crate) struct AccountId {
    ledger: &'static Ledger,
    id: u64,
}

/// How far a thread's own reading of its clock may be ahead.
const AHEAD_NS: u64 = 1_000_000;

/// Lingering threads looked for in the kernel's list when there are more of them.
const PRUNE: usize = 256;

impl Ledger {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an account for a session whose first reading is `base`, taken under the same lock.
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
    /// What the workers have used that ended since the account was opened.
    pub(crate) fn ended(&self, account: &AccountId) -> Used {
        self.accounts.get(&account.id).map(|account| account.ended).unwrap_or_default()
    }

    /// By a worker that ends. `before`: what this thread had used when it ended as a worker before.
    pub(crate) fn enter(&mut self, thread: u32, last: Used, before: Option<Used>) {
        for account in self.accounts.values_mut() {
            let base = before.or_else(|| account.base.get(&thread).copied());
            let used = last.since(base.unwrap_or_default());
            account.ended.cpu_ns += used.cpu_ns;
            account.ended.tasks_ns += used.tasks_ns;
        }
        self.linger(thread, last.cpu_ns);
    }

    /// What of a listed thread's time is in the ledger already.
    pub(crate) fn entered_ns(&self, thread: u32, cpu_ns: u64) -> Option<u64> {
        // A much greater one is that of an earlier thread of the same number. A little greater it may be: what a thread reads
        // of its own clock can be ahead of what others read.
        let of_this_thread = |entered_ns: &u64| *entered_ns <= cpu_ns + AHEAD_NS;
        self.lingering.get(&thread).copied().filter(of_this_thread)
    }

    /// A worker has begun: what lingers under its number is an earlier thread's.
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
