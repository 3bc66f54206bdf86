//! [`Column`] and [`Keys`]: the types that hold the values and keys of a map.

use bytemuck::Pod;

use super::error::CollectionError;
use super::hash::{self, IntKey};
use crate::buffer::Buffer;

/// A sequence of values in buffers: [`Buffer<T>`](Buffer), [`Lists<T>`](super::Lists) or [`Strings`](super::Strings). It can't
/// be implemented by other crates.
pub trait Column: sealed::Sealed {
    /// The type of a value behind a reference: `T`, `[T]` or `str`.
    type Item: ?Sized;
    /// The type of an owned value: `T`, `Vec<T>` or `String`.
    type Owned;

    /// Returns the number of values.
    #[doc(hidden)]
    fn column_len(&self) -> usize;

    /// Returns a value, or `None` if the index is out of bounds or the value damaged.
    #[doc(hidden)]
    fn column_get(&self, index: usize) -> Option<&Self::Item>;

    /// Returns a value. A damaged one is empty.
    ///
    /// # Panics
    /// If the index is out of bounds.
    #[doc(hidden)]
    fn column_item(&self, index: usize) -> &Self::Item;

    /// Checks each value.
    #[doc(hidden)]
    fn column_validate(&self) -> Result<(), CollectionError>;
}

/// The keys of a set or map: [`Strings`](super::Strings), or a [`Buffer`] of [integers](IntKey). It can't be implemented by
/// other crates.
pub trait Keys: Column {
    /// Returns the hash of a key.
    #[doc(hidden)]
    fn hash(key: &Self::Item) -> u64;

    /// Returns the hash of the key at `index`.
    ///
    /// # Panics
    /// If the index is out of bounds.
    #[doc(hidden)]
    fn hash_at(&self, index: usize) -> u64;

    /// Returns whether `key` is the one at `index`; `false` if the index is out of bounds.
    #[doc(hidden)]
    fn holds(&self, index: usize, key: &Self::Item) -> bool;

    /// Returns whether the keys at two indices are equal.
    ///
    /// # Panics
    /// If an index is out of bounds.
    #[doc(hidden)]
    fn same(&self, a: usize, b: usize) -> bool;

    /// Returns the keys at these indices.
    ///
    /// # Panics
    /// If an index is out of bounds.
    #[doc(hidden)]
    fn select(&self, indices: &[usize]) -> Self;
}

pub(super) mod sealed {
    pub trait Sealed {}
}

impl<T> sealed::Sealed for Buffer<T> {}

impl<T: Pod + Send + Sync> Column for Buffer<T> {
    type Item = T;
    type Owned = T;

    #[inline]
    fn column_len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn column_get(&self, index: usize) -> Option<&T> {
        self.get(index)
    }

    #[inline]
    fn column_item(&self, index: usize) -> &T {
        &self[index]
    }

    fn column_validate(&self) -> Result<(), CollectionError> {
        Ok(())
    }
}

impl<K: IntKey> Keys for Buffer<K> {
    #[inline]
    fn hash(key: &K) -> u64 {
        hash::of_int(key)
    }

    #[inline]
    fn hash_at(&self, index: usize) -> u64 {
        hash::of_int(&self[index])
    }

    #[inline]
    fn holds(&self, index: usize, key: &K) -> bool {
        self.get(index) == Some(key)
    }

    #[inline]
    fn same(&self, a: usize, b: usize) -> bool {
        self[a] == self[b]
    }

    fn select(&self, indices: &[usize]) -> Self {
        indices.iter().map(|&index| self[index]).collect()
    }
}
