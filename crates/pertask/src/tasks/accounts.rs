//! Accounts: the labels that hold in tasks of one spawn path, as a number that the running task carries, its tag.
//!
//! So a switch moves no labels, a signal handler can copy which labels hold, and CPU time is charged to labels by that number.
//!
//! An account lives while a future or a task holds it. When nothing holds it any more it is kept for a while, as one of the last
//! [`KEPT`]: samples with its tag may be under way, and the next request often has the same labels. Then its place in the table is
//! free for others, and what it has used goes to the [`Past`] of the sessions that run.

use super::label_set::Labels;
use super::past::{Key, Past, Times};
use crate::pmus::cpu_time::by_tag::{PLACES, place_of};
use crate::pmus::cpu_time::tag_times;
use pertask_core::{SpawnPath, Task};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

/// The number of sets of labels that can be in use at a time. The same set on two spawn paths counts twice.
///
/// A set is in use while a future has it, or a task that inherited it lives. What comes beyond has the labels
/// `labels="(other)"`, and reports count it.
pub const MAX_LABEL_SETS: usize = (PLACES - FIRST) as usize;

/// An account in use. Its holders share it.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) tag: u32,
    key: Key,
}

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
    by_content: papaya::HashMap<Key, Entry>,
    by_tag: papaya::HashMap<u32, Labels>,
    places: Mutex<Places>,
    without_place: AtomicU64,
}

struct Entry {
    tag: u32,
    account: Weak<Account>,
}

/// The table of places, by a tag's lower bits.
#[derive(Default)]
struct Places {
    all: Vec<Place>,
    free: VecDeque<u32>,
    /// The places whose account nothing held at some time, in that order.
    ended: VecDeque<u32>,
    ended_bytes: usize,
    sessions: usize,
    past: Past,
}

/// A place, and the account that has it.
#[derive(Default)]
struct Place {
    /// The account's tag, or that of the last one.
    tag: u32,
    key: Option<Key>,
    /// What all accounts that had the place before had used, or this one before the first session began.
    base_ns: u64,
    /// Whether the place is in `ended`.
    ended: bool,
}

static ACCOUNTS: LazyLock<Accounts> = LazyLock::new(|| Accounts {
    by_content: papaya::HashMap::new(),
    by_tag: papaya::HashMap::new(),
    places: Mutex::new(Places::new()),
    without_place: AtomicU64::new(0),
});

/// The account of these labels on this path. `None` if there is no place, or no label.
///
/// Takes no lock if something holds the account already.
pub(crate) fn hold(path: Option<&SpawnPath>, labels: Labels) -> Option<Arc<Account>> {
    if labels.is_empty() {
        return None;
    }
    CAN_LOOK_UP.try_with(|_| ()).ok()?;
    let key = Key { path: path.map(SpawnPath::id), labels };
    let held = || ACCOUNTS.by_content.pin().get(&key).and_then(|entry| entry.account.upgrade());
    held().or_else(|| {
        let mut places = ACCOUNTS.lock();
        held().or_else(|| places.open(key.clone()))
    })
}

/// The tag of an account, or of the lack of one.
pub(crate) fn tag_of(labels: &Labels, account: Option<&Arc<Account>>) -> u32 {
    match account {
        Some(account) => account.tag,
        None if labels.is_empty() => NONE,
        None => OTHER,
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
pub(crate) fn inherit(task: &Task) -> Option<Arc<Account>> {
    match task.tag() {
        NONE => None,
        tag => label(task, labels_of(tag)),
    }
}

/// Gives a task labels in addition to those that it has.
pub(crate) fn add(task: &Task, labels: &Labels) -> Option<Arc<Account>> {
    label(task, labels_of(task.tag()).joined(labels))
}

/// Gives a task these labels.
fn label(task: &Task, labels: Labels) -> Option<Arc<Account>> {
    let account = hold(Some(task.path()), labels.clone());
    task.set_tag(tag_of(&labels, account.as_ref()));
    account
}

/// How often a set of labels was beyond [`MAX_LABEL_SETS`].
#[must_use]
pub fn label_sets_without_place() -> u64 {
    // Relaxed: a figure.
    ACCOUNTS.without_place.load(Ordering::Relaxed)
}

/// A session that asks what accounts use. While there is one, the past is kept.
#[derive(Debug)]
pub(crate) struct Watch(());

impl Watch {
    pub(crate) fn begin() -> Self {
        let mut places = ACCOUNTS.lock();
        places.sessions += 1;
        if places.sessions == 1 {
            places.rebase();
        }
        Self(())
    }

    /// What all accounts have used since the first of the running sessions began.
    pub(crate) fn read(&self) -> Times {
        let (live, past) = ACCOUNTS.lock().read();
        past.with(live)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut places = ACCOUNTS.lock();
        places.sessions -= 1;
        if places.sessions == 0 {
            places.past = Past::default();
        }
    }
}

impl Accounts {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut places = ACCOUNTS.lock();
        places.end(self);
        if CAN_LOOK_UP.try_with(|_| ()).is_ok() {
            places.close_some();
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

    /// Opens an account that nothing holds.
    fn open(&mut self, key: Key) -> Option<Arc<Account>> {
        let (by_content, by_tag) = (ACCOUNTS.by_content.pin(), ACCOUNTS.by_tag.pin());
        // One that was kept goes on.
        let kept = by_content.get(&key).map(|entry| entry.tag);
        let Some(tag) = kept.or_else(|| self.take_place(&key)) else {
            // Relaxed: a figure.
            ACCOUNTS.without_place.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let account = Arc::new(Account { tag, key: key.clone() });
        by_tag.insert(tag, key.labels.clone());
        by_content.insert(key, Entry { tag, account: Arc::downgrade(&account) });
        Some(account)
    }

    /// Gives a place to an account. Returns the account's tag, which differs from the tags that the place had lately.
    fn take_place(&mut self, key: &Key) -> Option<u32> {
        let place = self.free.pop_front().or_else(|| self.new_place())?;
        tag_times::make_room(place as usize);
        let used_ns = tag_times::of_place(place as usize);
        let at = &mut self.all[place as usize];
        let tag = place | (at.tag & !(PLACES - 1)).wrapping_add(PLACES);
        *at = Place { tag, key: Some(key.clone()), base_ns: used_ns, ended: false };
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
    fn end(&mut self, account: &Account) {
        let place = place_of(account.tag);
        let at = &mut self.all[place];
        // Another account may go on in its place.
        if at.tag != account.tag || at.ended {
            return;
        }
        at.ended = true;
        self.ended.push_back(place as u32);
        self.ended_bytes += account.key.labels.bytes();
    }

    /// Closes accounts beyond those that are kept: more than end at a time, but not many, because others wait for the lock.
    fn close_some(&mut self) {
        for _ in 0..4 {
            if self.ended.len() > KEPT || self.ended_bytes > KEPT_BYTES {
                self.close_oldest();
            }
        }
    }

    fn close_oldest(&mut self) {
        let Some(place) = self.ended.pop_front() else { return };
        let at = &mut self.all[place as usize];
        at.ended = false;
        let Some(key) = at.key.take() else { return };
        self.ended_bytes -= key.labels.bytes();
        let by_content = ACCOUNTS.by_content.pin();
        if by_content.get(&key).is_some_and(|entry| entry.account.strong_count() > 0) {
            at.key = Some(key);
            return;
        }
        by_content.remove(&key);
        ACCOUNTS.by_tag.pin().remove(&at.tag);
        if self.sessions > 0 {
            let used_ns = tag_times::of_place(place as usize);
            self.past.add(key, used_ns.saturating_sub(at.base_ns));
        }
        self.free.push_back(place);
    }

    /// Lets all accounts begin at zero.
    fn rebase(&mut self) {
        let used_ns = tag_times::read();
        for (at, used_ns) in self.all.iter_mut().zip(used_ns) {
            at.base_ns = used_ns;
        }
    }

    fn read(&self) -> (Vec<(Key, u64)>, Past) {
        let used_ns = tag_times::read();
        let live = self.all.iter().zip(used_ns).filter_map(|(at, used_ns)| {
            let since_ns = used_ns.saturating_sub(at.base_ns);
            Some((at.key.clone().filter(|_| since_ns > 0)?, since_ns))
        });
        (live.collect(), self.past.clone())
    }
}
