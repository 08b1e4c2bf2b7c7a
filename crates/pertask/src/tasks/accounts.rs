//! Accounts: the labels that hold in tasks of one spawn path, as a number that the running task carries, its tag.
//!
//! So a switch moves no labels, a signal handler can copy which labels hold, and CPU time is charged to labels by that number.
//!
//! An account lives while a future or a task holds it. When nothing holds it any more it is kept for a while, as one of the last
//! [`KEPT`]: samples with its tag may be under way, and the next request often has the same labels. Then its place in the table is
//! free for others, and what it has used goes to the [`Past`] of the sessions that run.

use super::label_set::Labels;
use super::past::{Accounted, Key, Past};
use super::used::{self, ByPlace, Used};
use crate::pmus::by_tag::{PLACES, place_of};
use crate::pmus::life::Life;
use pertask_core::{Count, SpawnPath, Task};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};

/// The number of sets of labels that can be in use at a time. The same set on two spawn paths counts twice.
///
/// A set is in use while a future has it, or a task that inherited it lives. What comes beyond has the labels
/// `labels="(other)"`, and reports count it.
pub const MAX_LABEL_SETS: usize = (PLACES - FIRST) as usize;

/// An account.
#[derive(Debug)]
struct Account {
    tag: u32,
    key: Key,
    /// How many hold it, or [`CLOSED`]. Only under the lock does 0 become `CLOSED`, which is final.
    holders: AtomicU32,
    /// Whether it is in `ended`. An account that nothing holds is, or its last holder is about to put it there.
    ended: AtomicBool,
}

/// The account has lost its place.
const CLOSED: u32 = u32::MAX;

/// An account that is held: it keeps its place.
#[derive(Debug)]
pub(crate) struct Held(Arc<Account>);

/// The tag where no labels hold.
pub(crate) const NONE: u32 = 0;

/// The tag of all accounts that found no place.
pub(crate) const OTHER: u32 = 1;

/// The first place of the table that an account can have.
const FIRST: u32 = 2;

/// How many accounts that nothing holds are kept, and the most bytes of their labels.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 1 << 20;

/// All accounts.
///
/// INVARIANT: `by_content` and `by_tag` have the same accounts: those that are held, and those in `ended`. Both change under the
/// lock only, and are read without it.
struct Accounts {
    by_content: papaya::HashMap<Key, Arc<Account>>,
    by_tag: papaya::HashMap<u32, Labels>,
    places: Mutex<Places>,
    /// The process in which the lock is certain to be given back.
    process: u32,
    without_place: AtomicU64,
}

/// The table of places, by a tag's lower bits.
#[derive(Default)]
struct Places {
    all: Vec<Place>,
    free: VecDeque<u32>,
    /// The accounts that nothing held at some time, in that order.
    ended: VecDeque<Arc<Account>>,
    ended_bytes: usize,
    sessions: usize,
    /// How many readings are under way, and in which process. A child that was forked meanwhile has none.
    readings: (usize, u32),
    past: Arc<Past>,
}

/// A place, and the account that has it.
#[derive(Default)]
struct Place {
    /// The account's tag, or that of the last one.
    tag: u32,
    account: Option<Arc<Account>>,
    /// What all accounts that had the place before had used, or this one before the first session began.
    base: Used,
}

static ACCOUNTS: LazyLock<Accounts> = LazyLock::new(|| Accounts {
    by_content: papaya::HashMap::new(),
    by_tag: papaya::HashMap::new(),
    places: Mutex::new(Places::new()),
    process: std::process::id(),
    without_place: AtomicU64::new(0),
});

/// Holds the account of these labels on this path. `None` if there is no place, or no label.
///
/// Takes no lock if the account exists already.
pub(crate) fn hold(path: Option<&SpawnPath>, labels: Labels) -> Option<Held> {
    if labels.is_empty() {
        return None;
    }
    if CAN_LOOK_UP.try_with(|_| ()).is_err() {
        return count_without_place();
    }
    let key = Key { path: path.map(SpawnPath::id), labels };
    let known = || ACCOUNTS.by_content.pin().get(&key).and_then(Held::of);
    known().or_else(|| {
        let Some(mut places) = ACCOUNTS.lock_unless_lost() else { return count_without_place() };
        let opened = known().or_else(|| places.open(key.clone()));
        drop(places);
        #[cfg(feature = "otel")]
        if let Some(tell) = WATCHER.get() {
            tell(&key.labels);
        }
        opened
    })
}

/// Who is told of new sets of labels.
#[cfg(feature = "otel")]
static WATCHER: std::sync::OnceLock<fn(&Labels)> = std::sync::OnceLock::new();

/// Has `tell` called for each new set of labels from now on, some of which it may have seen. There is one such function.
#[cfg(feature = "otel")]
pub(crate) fn watch_new_labels(tell: fn(&Labels)) {
    WATCHER.get_or_init(|| tell);
}

/// Calls `tell` for each set of labels that is known now.
#[cfg(feature = "otel")]
pub(crate) fn for_each_labels(tell: fn(&Labels)) {
    if CAN_LOOK_UP.try_with(|_| ()).is_ok() {
        ACCOUNTS.by_tag.pin().values().for_each(tell);
    }
}

impl Held {
    /// Holds an account that has its place.
    fn of(account: &Arc<Account>) -> Option<Self> {
        let one_more = |holders: u32| holders.checked_add(1).filter(|more| *more < CLOSED);
        // Relaxed: the number alone decides, in one order for all threads. What the account is never changes.
        account
            .holders
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
            .then(|| Self(Arc::clone(account)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Self(account) = self;
        // Release: pairs with the Acquire in `close_oldest`, so that all that was charged to the account is charged before it is closed.
        // SeqCst, here and below, for the order with `ended`: see `close_oldest`.
        let was_last = account.holders.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last
            && !account.ended.swap(true, Ordering::SeqCst)
            && let Some(mut places) = ACCOUNTS.lock_unless_lost()
        {
            places.end(account);
            if CAN_LOOK_UP.try_with(|_| ()).is_ok() {
                places.close_some();
            }
        }
    }
}

/// The tag of an account, or of the lack of one.
pub(crate) fn tag_of(labels: &Labels, account: Option<&Held>) -> u32 {
    match account {
        Some(Held(account)) => account.tag,
        None if labels.is_empty() => NONE,
        None => OTHER,
    }
}

fn count_without_place() -> Option<Held> {
    // Relaxed: a figure.
    ACCOUNTS.without_place.fetch_add(1, Ordering::Relaxed);
    None
}

/// The labels to which others are added: none where those of the tag found no place.
pub(crate) fn labels_to_join(tag: u32) -> Labels {
    match tag {
        NONE | OTHER => Labels::default(),
        tag => labels_of(tag),
    }
}

/// The labels of a tag. They are `labels="(other)"` where its account found no place, or ended long ago.
pub(crate) fn labels_of(tag: u32) -> Labels {
    if tag == NONE {
        return Labels::default();
    }
    let can_look_up = CAN_LOOK_UP.try_with(|_| ()).is_ok();
    let known = can_look_up.then(|| ACCOUNTS.by_tag.pin().get(&tag).cloned()).flatten();
    known.unwrap_or_else(|| Labels::new([("labels", "(other)")]))
}

/// Gives a new task the account of the labels that it has inherited, on its own spawn path. The account lives as long as the
/// result.
pub(crate) fn inherit(task: &Task) -> Option<Held> {
    match task.tag() {
        // Those that found no place were counted then.
        NONE | OTHER => None,
        tag => label(task, labels_of(tag)),
    }
}

/// Gives a task labels in addition to those that it has.
pub(crate) fn add(task: &Task, labels: &Labels) -> Option<Held> {
    label(task, labels_to_join(task.tag()).joined(labels))
}

/// Gives a task these labels.
fn label(task: &Task, labels: Labels) -> Option<Held> {
    let account = hold(Some(task.path()), labels.clone());
    Life::set_tag(task, tag_of(&labels, account.as_ref()));
    account
}

/// How often a set of labels was beyond [`MAX_LABEL_SETS`], or had, when its tasks had ended, a key for which a session has no place.
#[must_use]
pub fn label_sets_without_place() -> u64 {
    // Relaxed: a figure.
    ACCOUNTS.without_place.load(Ordering::Relaxed)
}

/// A session that asks what accounts use. While there is one, the past is kept.
#[derive(Debug)]
pub(crate) struct Watch(());

/// A reading of what accounts have used, which takes a while. As long as it lives, no account loses its place.
#[derive(Debug)]
pub(crate) struct Reading<'a>(PhantomData<&'a Watch>);

impl Watch {
    pub(crate) fn begin() -> Self {
        let mut places = ACCOUNTS.lock();
        // For accounts that came before the PMUs were registered.
        used::make_all_room();
        places.sessions += 1;
        if places.sessions == 1 {
            places.rebase();
        }
        Self(())
    }

    pub(crate) fn begin_reading(&self) -> Reading<'_> {
        let mut places = ACCOUNTS.lock();
        places.readings = (places.readings() + 1, std::process::id());
        Reading(PhantomData)
    }
}

impl Reading<'_> {
    /// What all accounts have used since the first of the running sessions began. `by_place` has been read during this reading.
    pub(crate) fn finish(self, by_place: &ByPlace) -> Accounted {
        let (live, past) = ACCOUNTS.lock().read(by_place);
        // Copied without the lock, for which polls may wait.
        Past::clone(&past).with(live)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut places = ACCOUNTS.lock();
        places.readings.0 = places.readings().saturating_sub(1);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut places = ACCOUNTS.lock();
        places.sessions -= 1;
        if places.sessions == 0 {
            places.past = Arc::default();
        }
    }
}

impl Accounts {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for polls. In a forked child, a thread that the child does not have may hold the lock for ever.
    fn lock_unless_lost(&self) -> Option<MutexGuard<'_, Places>> {
        if std::process::id() == self.process {
            return Some(self.lock());
        }
        match self.places.try_lock() {
            Ok(places) => Some(places),
            Err(TryLockError::Poisoned(places)) => Some(places.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

thread_local! {
    /// Whether this thread can still use papaya's maps, which panic at the end of a thread. (papaya 0.2.5 with seize 0.5.1. The
    /// thread-local values of a thread are dropped in the reverse order of their first use, so this is dropped before seize's.)
    static CAN_LOOK_UP: Droppable = {
        drop(ACCOUNTS.by_tag.pin());
        Droppable
    };
}

/// Whether this thread can still use papaya's maps.
#[cfg(feature = "sampler")]
pub(crate) fn can_look_up() -> bool {
    CAN_LOOK_UP.try_with(|_| ()).is_ok()
}

/// A value that a thread drops, so that `try_with` notices.
struct Droppable;

impl Drop for Droppable {
    fn drop(&mut self) {}
}

impl Places {
    fn new() -> Self {
        let all = (0..FIRST).map(|_| Place::default()).collect();
        Self { all, ..Self::default() }
    }

    /// Opens an account.
    fn open(&mut self, key: Key) -> Option<Held> {
        let Some(tag) = self.take_place() else {
            return count_without_place();
        };
        let (holders, ended) = (AtomicU32::new(1), AtomicBool::new(false));
        let account = Arc::new(Account { tag, key: key.clone(), holders, ended });
        self.all[place_of(tag)].account = Some(Arc::clone(&account));
        ACCOUNTS.by_tag.pin().insert(tag, key.labels.clone());
        ACCOUNTS.by_content.pin().insert(key, Arc::clone(&account));
        Some(Held(account))
    }

    /// Takes a place for an account. Returns the account's tag, which differs from the tags that the place had lately.
    fn take_place(&mut self) -> Option<u32> {
        let place = self.free.pop_front().or_else(|| self.new_place())?;
        used::make_room(place);
        let base = used::at(place as usize);
        let at = &mut self.all[place as usize];
        let tag = place | (at.tag & !(PLACES - 1)).wrapping_add(PLACES);
        *at = Place { tag, account: None, base };
        Some(tag)
    }

    fn new_place(&mut self) -> Option<u32> {
        let place = self.all.len() as u32;
        (place < PLACES).then(|| {
            self.all.push(Place::default());
            place
        })
    }

    /// Notes that nothing holds an account any more.
    fn end(&mut self, account: &Arc<Account>) {
        self.ended_bytes += account.key.labels.bytes();
        self.ended.push_back(Arc::clone(account));
    }

    /// Closes accounts beyond those that are kept: more than end at a time, but not many, because others wait for the lock.
    fn close_some(&mut self) {
        if self.readings() > 0 {
            return;
        }
        for _ in 0..4 {
            if self.ended.len() > KEPT || self.ended_bytes > KEPT_BYTES {
                self.close_oldest();
            }
        }
    }

    fn close_oldest(&mut self) {
        let Some(account) = self.ended.pop_front() else { return };
        self.ended_bytes -= account.key.labels.bytes();
        // SeqCst, both: if a holder's drop finds `ended` still set, its number is 0 below; if not, it puts the account back, even
        // one that is closed meanwhile. (Acquire: pairs with the Release of that drop.)
        account.ended.store(false, Ordering::SeqCst);
        let closes = (Ordering::SeqCst, Ordering::SeqCst);
        if account.holders.compare_exchange(0, CLOSED, closes.0, closes.1).is_ok() {
            self.close(&account);
        }
    }

    /// Frees the place of an account that nothing holds, or can hold any more.
    fn close(&mut self, account: &Account) {
        let Account { tag, key, .. } = account;
        ACCOUNTS.by_content.pin().remove(key);
        ACCOUNTS.by_tag.pin().remove(tag);
        let place = place_of(*tag);
        let at = &mut self.all[place];
        at.account = None;
        if self.sessions > 0 {
            let used = used::at(place).since(&at.base);
            if !Arc::make_mut(&mut self.past).add(key.clone(), &used) {
                count_without_place();
            }
        }
        self.free.push_back(place as u32);
    }

    /// How many readings are under way.
    fn readings(&self) -> usize {
        match self.readings {
            (0, _) => 0,
            (readings, process) if process == std::process::id() => readings,
            _ => 0,
        }
    }

    /// Lets all accounts begin at zero.
    fn rebase(&mut self) {
        let cpu_time = ByPlace::read_cpu_time();
        for (place, at) in self.all.iter_mut().enumerate() {
            at.base = Used { cpu_ns: cpu_time.of(place).cpu_ns, ..used::at(place) };
        }
    }

    fn read(&self, by_place: &ByPlace) -> (Vec<(Key, Used)>, Arc<Past>) {
        let live = self.all.iter().enumerate().filter_map(|(place, at)| {
            let account = at.account.as_ref()?;
            let since = by_place.of(place).since(&at.base);
            (!since.is_nothing()).then(|| (account.key.clone(), since))
        });
        (live.collect(), Arc::clone(&self.past))
    }
}

#[cfg(test)]
mod tests;
