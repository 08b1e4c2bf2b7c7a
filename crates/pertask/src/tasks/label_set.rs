//! A set of labels.

use std::fmt;
use std::sync::Arc;

/// A set of labels: keys with their values, sorted by key, each key once.
///
/// A set is cheap to clone. Two sets with the same content are equal.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Makes a set of these labels.
    ///
    /// For a key that comes twice, the last value holds.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        let none = Self::default();
        none.with(
            labels.into_iter().map(|(key, value)| (key.as_ref().into(), value.as_ref().into())),
        )
    }

    /// The value of a key, or `None` if the set does not have the key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        Some(&self.0[place].1)
    }

    /// The keys and values, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// Both together. For a key in both, the inner value holds.
    pub(crate) fn joined(&self, inner: &Self) -> Self {
        match (self.is_empty(), inner.is_empty()) {
            (true, _) => inner.clone(),
            (_, true) => self.clone(),
            _ => self.with(inner.0.to_vec()),
        }
    }

    fn with(&self, labels: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Self {
        let mut all: Vec<_> = self.0.to_vec();
        for (key, value) in labels {
            match all.binary_search_by(|(other, _)| other.cmp(&key)) {
                Ok(place) => all[place].1 = value,
                Err(place) => all.insert(place, (key, value)),
            }
        }
        Self(all.into())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
