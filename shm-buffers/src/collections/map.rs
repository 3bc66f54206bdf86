//! [`Map`]: a set of keys, and a column with a value for each of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Index;

use super::column::{Column, Keys};
use super::error::CollectionError;
use super::iter::{Entries, Iter};
use super::set::Set;
use super::strings::Strings;
use crate::buffer::Buffer;

/// An immutable map from strings to the values in a column: a `HashMap<String, f32>` becomes a `StringMap<Buffer<f32>>`, a
/// `HashMap<String, Vec<u32>>` a `StringMap<Lists<u32>>`.
pub type StringMap<V> = Map<Strings, V>;

/// An immutable map from [integers](super::IntKey) to the values in a column: a `HashMap<u64, f32>` becomes an
/// `IntMap<u64, Buffer<f32>>`.
pub type IntMap<K, V> = Map<Buffer<K>, V>;

/// An immutable map in [`Buffer`]s: a [`StringMap`] or an [`IntMap`]. It is read in shared memory without being rebuilt, and
/// is cheap to clone.
///
/// `V` is the [column](Column) of the values: [`Buffer<T>`](Buffer), [`Lists<T>`](super::Lists) or [`Strings`]. Entries keep the
/// order in which they were added. If a key is added several times, the last one counts.
///
/// ```
/// use std::collections::HashMap;
/// use shm_buffers::{Buffer, IntMap, Strings, StringMap};
///
/// let prices = HashMap::from([("tea".to_owned(), 2.5_f32), ("coffee".to_owned(), 3.0)]);
/// let prices: StringMap<Buffer<f32>> = prices.into();
/// assert_eq!((prices.get("tea"), prices.get("milk")), (Some(&2.5), None));
///
/// let names: IntMap<u64, Strings> = [(7, "seven"), (1 << 40, "many")].into_iter().collect();
/// assert_eq!(&names[&7], "seven");
/// assert_eq!(names.iter().collect::<Vec<_>>(), [(&7, "seven"), (&(1 << 40), "many")]);
/// ```
#[derive(Clone)]
pub struct Map<K, V> {
    keys: Set<K>,
    values: V,
}

impl<K: Keys, V: Column> Map<K, V> {
    /// Creates a map from a set of keys and the values at their positions.
    ///
    /// # Errors
    /// [`CollectionError::Lengths`] if there is not one value for each key.
    ///
    /// ```
    /// use shm_buffers::{Buffer, StringMap, StringSet, Strings};
    ///
    /// # fn main() -> Result<(), shm_buffers::collections::CollectionError> {
    /// let keys = StringSet::from_keys(Strings::from(["a", "b"]))?;
    /// let map = StringMap::from_columns(keys, Buffer::from(vec![1_u32, 2]))?;
    /// assert_eq!(map["b"], 2);
    /// # Ok(()) }
    /// ```
    pub fn from_columns(keys: Set<K>, values: V) -> Result<Self, CollectionError> {
        if keys.len() != values.column_len() {
            return Err(CollectionError::Lengths {
                keys: keys.len(),
                values: values.column_len(),
            });
        }
        Ok(Self { keys, values })
    }

    /// Returns the number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether there are no entries.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the value of `key`, or `None` if it is not in the map.
    #[inline]
    pub fn get(&self, key: &K::Item) -> Option<&V::Item> {
        self.values.column_get(self.keys.position(key)?)
    }

    /// Returns whether `key` is in the map.
    #[inline]
    pub fn contains_key(&self, key: &K::Item) -> bool {
        self.keys.contains(key)
    }

    /// Returns an iterator over the entries, in the order in which they were added.
    pub fn iter(&self) -> Entries<'_, K, V> {
        Entries::new(self.keys.keys(), &self.values)
    }

    /// Returns an iterator over the keys, in the order in which they were added.
    pub fn keys(&self) -> Iter<'_, K> {
        self.keys.iter()
    }

    /// Returns an iterator over the values, in the order in which they were added.
    pub fn values(&self) -> Iter<'_, V> {
        Iter::new(&self.values)
    }

    /// Returns the set of the keys, whose positions are those of the values.
    pub fn key_set(&self) -> &Set<K> {
        &self.keys
    }

    /// Returns the column of the values.
    pub fn value_column(&self) -> &V {
        &self.values
    }

    /// Checks each entry, and that a lookup finds it. It reads all of the map.
    ///
    /// # Errors
    /// [`CollectionError::Offsets`] or [`CollectionError::Utf8`] for a damaged key or value, [`CollectionError::Lost`] for a key
    /// that a lookup does not find.
    pub fn validate(&self) -> Result<(), CollectionError> {
        self.keys.validate()?;
        self.values.column_validate()
    }
}

impl<A, B, K: Keys + FromIterator<A>, V: Column + FromIterator<B>> FromIterator<(A, B)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (A, B)>>(entries: I) -> Self {
        let entries = entries.into_iter();
        let mut values: Vec<B> = Vec::with_capacity(entries.size_hint().0);
        let keys = entries.map(|(key, value)| {
            values.push(value);
            key
        });
        let (keys, last) = Set::of_last(keys.collect());
        let values = match last {
            None => values.into_iter().collect(),
            Some(last) => {
                let mut last = last.into_iter().peekable();
                let values = values.into_iter().enumerate();
                let values = values.filter(|(index, _)| last.next_if_eq(index).is_some());
                values.map(|(_, value)| value).collect()
            }
        };
        Self { keys, values }
    }
}

impl<A, B, S, K: Keys + FromIterator<A>, V: Column + FromIterator<B>> From<HashMap<A, B, S>> for Map<K, V> {
    fn from(entries: HashMap<A, B, S>) -> Self {
        entries.into_iter().collect()
    }
}

impl<A, B, K: Keys + FromIterator<A>, V: Column + FromIterator<B>> From<BTreeMap<A, B>> for Map<K, V> {
    fn from(entries: BTreeMap<A, B>) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Keys, V: Column> Index<&K::Item> for Map<K, V> {
    type Output = V::Item;

    /// # Panics
    /// If the key is not in the map.
    #[inline]
    fn index(&self, key: &K::Item) -> &V::Item {
        let position = self
            .keys
            .position(key)
            .expect("a key of the map: use `get` for one that may be absent");
        self.values.column_item(position)
    }
}

impl<'a, K: Keys, V: Column> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K::Item, &'a V::Item);
    type IntoIter = Entries<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Keys + FromIterator<K::Owned>, V: Column + FromIterator<V::Owned>> Default for Map<K, V> {
    fn default() -> Self {
        std::iter::empty::<(K::Owned, V::Owned)>().collect()
    }
}

/// Maps are equal if they have the same entries, in any order.
impl<K: Keys, V: Column<Item: PartialEq>> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Keys, V: Column<Item: Eq>> Eq for Map<K, V> {}

impl<K: Keys<Item: fmt::Debug>, V: Column<Item: fmt::Debug>> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}
