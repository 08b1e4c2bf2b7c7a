//! What accounts have used, by account and by label, within bounds.

use super::label_set::Labels;
use super::used::Used;
use pertask_core::Count;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// What an account is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The number of the tasks' spawn path, or `None` outside tasks.
    pub(crate) path: Option<u32>,
    pub(crate) labels: Labels,
}

/// What accounts used that have ended, as long as a session runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past(Accounted);

/// What accounts have used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounted {
    /// By account. It lacks ended accounts beyond a bound.
    pub(crate) accounts: HashMap<Key, Used>,
    /// By key, and then by value.
    pub(crate) keys: BTreeMap<Box<str>, Values>,
}

/// What the values of one key have used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) used: HashMap<Box<str>, Used>,
    /// What values have used that found no place.
    pub(crate) others: Used,
}

/// How much of ended accounts is kept.
const MAX_ACCOUNTS: usize = 4096;
const MAX_KEYS: usize = 64;
const MAX_VALUES: usize = 4096;
/// The longest text, in bytes.
const MAX_TEXT: usize = 512;

impl Past {
    /// Adds what an account has used that has ended. Returns whether there was a place for each of its keys.
    #[must_use]
    pub(crate) fn add(&mut self, key: Key, used: &Used) -> bool {
        if used.is_nothing() {
            return true;
        }
        let mut all = true;
        for (name, value) in key.labels.iter() {
            all &= self.add_label(name, value, used);
        }
        let Accounted { accounts, .. } = &mut self.0;
        let is_short = key.labels.bytes() <= MAX_TEXT;
        if accounts.contains_key(&key) || (is_short && accounts.len() < MAX_ACCOUNTS) {
            accounts.entry(key).or_default().add(used);
        }
        all
    }

    fn add_label(&mut self, name: &str, value: &str, used: &Used) -> bool {
        let Accounted { keys, .. } = &mut self.0;
        if !keys.contains_key(name) {
            if keys.len() >= MAX_KEYS || name.len() > MAX_TEXT {
                return false;
            }
            keys.insert(name.into(), Values::default());
        }
        let Some(Values { used: values, others }) = keys.get_mut(name) else { return false };
        let has_room = values.len() < MAX_VALUES && value.len() <= MAX_TEXT;
        match values.get_mut(value) {
            Some(so_far) => so_far.add(used),
            None if has_room => {
                values.insert(value.into(), used.clone());
            }
            None => others.add(used),
        }
        true
    }

    /// What all have used, with those accounts that are alive.
    pub(crate) fn with(self, live: Vec<(Key, Used)>) -> Accounted {
        let Self(mut all) = self;
        for (key, used) in live {
            for (name, value) in key.labels.iter() {
                let values = &mut all.keys.entry(name.into()).or_default().used;
                values.entry(value.into()).or_default().add(&used);
            }
            all.accounts.entry(key).or_default().add(&used);
        }
        all
    }
}

impl Accounted {
    /// What was used since `base`.
    pub(crate) fn since(self, base: &Self) -> Self {
        let none = Values::default();
        let keys = self.keys.into_iter().map(|(key, now)| {
            let base = base.keys.get(&key).unwrap_or(&none);
            (key, now.since(base))
        });
        Self {
            accounts: each_since(self.accounts, &base.accounts),
            keys: keys.filter(|(_, values)| *values != none).collect(),
        }
    }
}

impl Values {
    /// What all values have used together. It never falls, even where a value loses its place.
    fn all(&self) -> Used {
        sum(self.used.values().chain([&self.others]))
    }

    fn since(self, base: &Self) -> Self {
        let all = self.all().since(&base.all());
        let used = each_since(self.used, &base.used);
        // The rest, and not the difference of the others: a value that was in `base` may be one of the others now.
        let others = all.since(&sum(used.values()));
        Self { used, others }
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Used>) -> Used {
    let mut sum = Used::default();
    all.for_each(|used| sum.add(used));
    sum
}

/// What each has used since `base`, of those that have used anything.
fn each_since<K: Eq + Hash>(now: HashMap<K, Used>, base: &HashMap<K, Used>) -> HashMap<K, Used> {
    let since = |(key, now): (K, Used)| {
        let since = match base.get(&key) {
            Some(base) => now.since(base),
            None => now,
        };
        (!since.is_nothing()).then_some((key, since))
    };
    now.into_iter().filter_map(since).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(cpu_ns: u64) -> Used {
        Used { cpu_ns, ..Used::default() }
    }

    fn key(labels: &[(&str, &str)]) -> Key {
        Key { path: Some(1), labels: Labels::new(labels.iter().copied()) }
    }

    #[test]
    fn what_ended_and_what_lives_add_up_by_value() {
        let mut past = Past::default();
        assert!(past.add(key(&[("tenant", "acme"), ("request", "1")]), &ns(10)));
        assert!(past.add(key(&[("tenant", "acme"), ("request", "2")]), &ns(20)));
        let base = past.clone().with(Vec::new());
        assert!(past.add(key(&[("tenant", "zeta"), ("request", "3")]), &ns(5)));
        let now =
            past.with(vec![(key(&[("tenant", "acme"), ("request", "2")]), ns(7))]).since(&base);
        let of = |name: &str| {
            let mut of: Vec<_> =
                now.keys[name].used.iter().map(|(v, used)| (&**v, used.cpu_ns)).collect();
            of.sort_unstable();
            of
        };
        assert_eq!(of("tenant"), [("acme", 7), ("zeta", 5)]);
        assert_eq!(of("request"), [("2", 7), ("3", 5)]);
        assert_eq!(sum(now.accounts.values()).cpu_ns, 12);
    }

    #[test]
    fn too_many_values_of_one_key_leave_the_others_exact() {
        let mut past = Past::default();
        let requests = MAX_VALUES as u64 + 100;
        for request in 0..requests {
            assert!(
                past.add(key(&[("tenant", "acme"), ("request", &request.to_string())]), &ns(3))
            );
        }
        let times = past.with(Vec::new());
        assert_eq!(times.keys["tenant"].used["acme"], ns(3 * requests));
        assert_eq!(times.keys["request"].used.len(), MAX_VALUES);
        assert_eq!(times.keys["request"].others, ns(300));
    }

    #[test]
    fn a_value_that_loses_its_place_is_not_counted_from_before() {
        let mut past = Past::default();
        for request in 0..MAX_VALUES {
            assert!(past.add(key(&[("request", &request.to_string())]), &ns(1)));
        }
        let late = || key(&[("request", "late")]);
        let base = past.clone().with(vec![(late(), ns(500))]);
        assert!(past.add(late(), &ns(510)));
        let since = past.with(vec![]).since(&base);
        assert_eq!(since.keys["request"], Values { used: HashMap::new(), others: ns(10) });
    }

    #[test]
    fn keys_beyond_the_bound_are_told() {
        let mut past = Past::default();
        let adds: Vec<_> = (0..MAX_KEYS + 3)
            .map(|n| past.add(key(&[(&n.to_string(), "value")]), &ns(1)))
            .collect();
        assert_eq!(adds.iter().filter(|added| **added).count(), MAX_KEYS);
        assert_eq!(past.with(Vec::new()).keys.len(), MAX_KEYS);
    }

    #[test]
    fn long_texts_are_not_kept() {
        let mut past = Past::default();
        let long = "x".repeat(MAX_TEXT + 1);
        assert!(past.add(key(&[("key", &long)]), &ns(1)));
        assert!(!past.add(key(&[(&long, "value")]), &ns(1)), "so that it is counted");
        let times = past.with(Vec::new());
        assert_eq!(times.keys.len(), 1);
        assert_eq!(times.keys["key"], Values { used: HashMap::new(), others: ns(1) });
    }
}
