//! [`Set`]: keys that are found by their hash, each at its position.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use super::column::Keys;
use super::error::CollectionError;
use super::iter::Iter;
use super::strings::Strings;
use super::table::Table;
use crate::buffer::Buffer;

/// An immutable set of strings, each with its position.
pub type StringSet = Set<Strings>;

/// An immutable set of [integers](super::IntKey), each with its position.
pub type IntSet<K> = Set<Buffer<K>>;

/// An immutable set in [`Buffer`]s: a [`StringSet`] or an [`IntSet`]. It is read in shared memory without being rebuilt, and
/// is cheap to clone.
///
/// Its keys keep the order in which they were added, and a key has a [position](Self::position). So a set is a vocabulary in
/// both directions, too:
///
/// ```
/// use shm_buffers::StringSet;
///
/// let words: StringSet = ["the", "cat", "sat"].into_iter().collect();
/// assert!(words.contains("cat") && !words.contains("dog"));
/// assert_eq!((words.position("sat"), words.position("dog")), (Some(2), None));
/// assert_eq!(&words.keys()[2], "sat");
/// ```
#[derive(Clone)]
pub struct Set<K> {
    keys: K,
    table: Table,
}

impl<K: Keys> Set<K> {
    /// Creates a set of `keys`, each of which keeps its position.
    ///
    /// # Errors
    /// [`CollectionError::Duplicate`] if a key occurs twice.
    ///
    /// ```
    /// use shm_buffers::{StringSet, Strings, collections::CollectionError};
    ///
    /// let refused = StringSet::from_keys(Strings::from(["a", "b", "a"]));
    /// assert!(matches!(refused, Err(CollectionError::Duplicate { index: 0 })));
    /// ```
    pub fn from_keys(keys: K) -> Result<Self, CollectionError> {
        match Self::build(keys) {
            (set, replaced) if replaced.is_empty() => Ok(set),
            (_, replaced) => Err(CollectionError::Duplicate { index: replaced[0] }),
        }
    }

    /// Returns the set, and the indices of keys that occur again later.
    fn build(keys: K) -> (Self, Vec<usize>) {
        let (hash, same) = (|index| keys.hash_at(index), |a, b| keys.same(a, b));
        let (table, replaced) = Table::build(keys.column_len(), hash, same);
        (Self { keys, table }, replaced)
    }

    /// Returns the set of the last occurrence of each key and, if that is not all of them, their indices.
    pub(super) fn of_last(keys: K) -> (Self, Option<Vec<usize>>) {
        let (set, replaced) = Self::build(keys);
        if replaced.is_empty() {
            return (set, None);
        }
        let mut is_last = vec![true; set.len()];
        for index in replaced {
            is_last[index] = false;
        }
        let last: Vec<usize> = (0..set.len()).filter(|&index| is_last[index]).collect();
        (Self::build(set.keys.select(&last)).0, Some(last))
    }

    /// Creates a set from its keys and the slots of its table. Slots are checked when they are used.
    pub(super) fn from_slots(keys: K, slots: Buffer<u64>) -> Result<Self, CollectionError> {
        let table = Table::from_slots(slots, keys.column_len())?;
        Ok(Self { keys, table })
    }

    pub(super) fn slots(&self) -> &Buffer<u64> {
        self.table.slots()
    }

    /// Returns the number of keys.
    #[inline]
    pub fn len(&self) -> usize {
        self.keys.column_len()
    }

    /// Returns whether there are no keys.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether `key` is in the set.
    #[inline]
    pub fn contains(&self, key: &K::Item) -> bool {
        self.position(key).is_some()
    }

    /// Returns the position of `key` in the [keys](Self::keys), or `None` if it is not in the set.
    #[inline]
    pub fn position(&self, key: &K::Item) -> Option<usize> {
        self.table.find(K::hash(key), |index| self.keys.holds(index, key))
    }

    /// Returns the keys, in the order in which they were added.
    #[inline]
    pub fn keys(&self) -> &K {
        &self.keys
    }

    /// Returns an iterator over the keys, in the order in which they were added.
    pub fn iter(&self) -> Iter<'_, K> {
        Iter::new(&self.keys)
    }

    /// Checks each key, and that a lookup finds it. It reads all of the set.
    ///
    /// # Errors
    /// [`CollectionError::Offsets`] or [`CollectionError::Utf8`] for a damaged key, [`CollectionError::Lost`] for one that a
    /// lookup does not find.
    pub fn validate(&self) -> Result<(), CollectionError> {
        self.keys.column_validate()?;
        let lost = self
            .iter()
            .enumerate()
            .find(|&(index, key)| self.position(key) != Some(index));
        lost.map_or(Ok(()), |(index, _)| Err(CollectionError::Lost { index }))
    }
}

/// If a key occurs several times, the last one counts.
impl<A, K: Keys + FromIterator<A>> FromIterator<A> for Set<K> {
    fn from_iter<I: IntoIterator<Item = A>>(keys: I) -> Self {
        Self::of_last(keys.into_iter().collect()).0
    }
}

impl<A, S, K: Keys + FromIterator<A>> From<HashSet<A, S>> for Set<K> {
    fn from(keys: HashSet<A, S>) -> Self {
        keys.into_iter().collect()
    }
}

impl<A, K: Keys + FromIterator<A>> From<BTreeSet<A>> for Set<K> {
    fn from(keys: BTreeSet<A>) -> Self {
        keys.into_iter().collect()
    }
}

impl<'a, K: Keys> IntoIterator for &'a Set<K> {
    type Item = &'a K::Item;
    type IntoIter = Iter<'a, K>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Keys + FromIterator<K::Owned>> Default for Set<K> {
    fn default() -> Self {
        std::iter::empty::<K::Owned>().collect()
    }
}

/// Sets are equal if they have the same keys, in any order.
impl<K: Keys> PartialEq for Set<K> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|key| other.contains(key))
    }
}

impl<K: Keys> Eq for Set<K> {}

impl<K: Keys<Item: fmt::Debug>> fmt::Debug for Set<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}
