//! What accounts have used, by account and by label, within bounds.

use super::label_set::Labels;
use std::collections::{BTreeMap, HashMap};

/// What an account is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The number of the tasks' spawn path, or `None` outside tasks.
    pub(crate) path: Option<u32>,
    pub(crate) labels: Labels,
}

/// What accounts used that have ended, as long as a session runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past(Times);

/// What accounts have used: CPU time of tasks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// By account. It lacks ended accounts beyond a bound.
    pub(crate) accounts: HashMap<Key, u64>,
    /// By key, and then by value.
    pub(crate) keys: BTreeMap<Box<str>, Values>,
}

/// The CPU time of the values of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) cpu_ns: HashMap<Box<str>, u64>,
    /// The time of values that found no place.
    pub(crate) others_ns: u64,
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
    pub(crate) fn add(&mut self, key: Key, cpu_ns: u64) -> bool {
        if cpu_ns == 0 {
            return true;
        }
        let mut all = true;
        for (name, value) in key.labels.iter() {
            all &= self.add_label(name, value, cpu_ns);
        }
        let Times { accounts, .. } = &mut self.0;
        let is_short = key.labels.bytes() <= MAX_TEXT;
        if accounts.contains_key(&key) || (is_short && accounts.len() < MAX_ACCOUNTS) {
            *accounts.entry(key).or_default() += cpu_ns;
        }
        all
    }

    fn add_label(&mut self, name: &str, value: &str, cpu_ns: u64) -> bool {
        let Times { keys, .. } = &mut self.0;
        if !keys.contains_key(name) {
            if keys.len() >= MAX_KEYS || name.len() > MAX_TEXT {
                return false;
            }
            keys.insert(name.into(), Values::default());
        }
        let Some(Values { cpu_ns: values, others_ns }) = keys.get_mut(name) else { return false };
        let has_room = values.len() < MAX_VALUES && value.len() <= MAX_TEXT;
        match values.get_mut(value) {
            Some(so_far) => *so_far += cpu_ns,
            None if has_room => {
                values.insert(value.into(), cpu_ns);
            }
            None => *others_ns += cpu_ns,
        }
        true
    }

    /// All times, with those of the accounts that are alive.
    pub(crate) fn with(self, live: Vec<(Key, u64)>) -> Times {
        let Self(mut times) = self;
        for (key, cpu_ns) in live {
            for (name, value) in key.labels.iter() {
                let values = &mut times.keys.entry(name.into()).or_default().cpu_ns;
                *values.entry(value.into()).or_default() += cpu_ns;
            }
            *times.accounts.entry(key).or_default() += cpu_ns;
        }
        times
    }
}

impl Times {
    /// What was used since `base`.
    pub(crate) fn since(self, base: &Self) -> Self {
        let accounts = self.accounts.into_iter().map(|(key, now_ns)| {
            let base_ns = base.accounts.get(&key).copied().unwrap_or(0);
            (key, now_ns.saturating_sub(base_ns))
        });
        let none = Values::default();
        let keys = self.keys.into_iter().map(|(key, now)| {
            let base = base.keys.get(&key).unwrap_or(&none);
            (key, now.since(base))
        });
        Self {
            accounts: accounts.filter(|(_, cpu_ns)| *cpu_ns > 0).collect(),
            keys: keys.filter(|(_, values)| *values != none).collect(),
        }
    }
}

impl Values {
    /// What all values have used together. It never falls, even where a value loses its place.
    fn all_ns(&self) -> u64 {
        self.cpu_ns.values().sum::<u64>() + self.others_ns
    }

    fn since(self, base: &Self) -> Self {
        let all_ns = self.all_ns().saturating_sub(base.all_ns());
        let cpu_ns = self.cpu_ns.into_iter().map(|(value, now_ns)| {
            let base_ns = base.cpu_ns.get(&value).copied().unwrap_or(0);
            (value, now_ns.saturating_sub(base_ns))
        });
        let cpu_ns: HashMap<_, _> = cpu_ns.filter(|(_, cpu_ns)| *cpu_ns > 0).collect();
        // The rest, and not the difference of the others: a value that was in `base` may be one of the others now.
        let others_ns = all_ns.saturating_sub(cpu_ns.values().sum());
        Self { cpu_ns, others_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(labels: &[(&str, &str)]) -> Key {
        Key { path: Some(1), labels: Labels::new(labels.iter().copied()) }
    }

    #[test]
    fn what_ended_and_what_lives_add_up_by_value() {
        let mut past = Past::default();
        assert!(past.add(key(&[("tenant", "acme"), ("request", "1")]), 10));
        assert!(past.add(key(&[("tenant", "acme"), ("request", "2")]), 20));
        let base = past.clone().with(Vec::new());
        assert!(past.add(key(&[("tenant", "zeta"), ("request", "3")]), 5));
        let now = past.with(vec![(key(&[("tenant", "acme"), ("request", "2")]), 7)]).since(&base);
        let of = |name: &str| {
            let mut of: Vec<_> = now.keys[name].cpu_ns.iter().map(|(v, ns)| (&**v, *ns)).collect();
            of.sort_unstable();
            of
        };
        assert_eq!(of("tenant"), [("acme", 7), ("zeta", 5)]);
        assert_eq!(of("request"), [("2", 7), ("3", 5)]);
        assert_eq!(now.accounts.values().sum::<u64>(), 12);
    }

    #[test]
    fn too_many_values_of_one_key_leave_the_others_exact() {
        let mut past = Past::default();
        let requests = MAX_VALUES as u64 + 100;
        for request in 0..requests {
            assert!(past.add(key(&[("tenant", "acme"), ("request", &request.to_string())]), 3));
        }
        let times = past.with(Vec::new());
        assert_eq!(times.keys["tenant"].cpu_ns["acme"], 3 * requests);
        assert_eq!(times.keys["request"].cpu_ns.len(), MAX_VALUES);
        assert_eq!(times.keys["request"].others_ns, 300);
    }

    #[test]
    fn a_value_that_loses_its_place_is_not_counted_from_before() {
        let mut past = Past::default();
        for request in 0..MAX_VALUES {
            assert!(past.add(key(&[("request", &request.to_string())]), 1));
        }
        let late = || key(&[("request", "late")]);
        let base = past.clone().with(vec![(late(), 500)]);
        assert!(past.add(late(), 510));
        let since = past.with(vec![]).since(&base);
        assert_eq!(since.keys["request"], Values { cpu_ns: HashMap::new(), others_ns: 10 });
    }

    #[test]
    fn keys_beyond_the_bound_are_told() {
        let mut past = Past::default();
        let adds: Vec<_> =
            (0..MAX_KEYS + 3).map(|n| past.add(key(&[(&n.to_string(), "value")]), 1)).collect();
        assert_eq!(adds.iter().filter(|added| **added).count(), MAX_KEYS);
        assert_eq!(past.with(Vec::new()).keys.len(), MAX_KEYS);
    }

    #[test]
    fn long_texts_are_not_kept() {
        let mut past = Past::default();
        let long = "x".repeat(MAX_TEXT + 1);
        assert!(past.add(key(&[("key", &long)]), 1));
        assert!(!past.add(key(&[(&long, "value")]), 1), "so that it is counted");
        let times = past.with(Vec::new());
        assert_eq!(times.keys.len(), 1);
        assert_eq!(times.keys["key"], Values { cpu_ns: HashMap::new(), others_ns: 1 });
    }
}
