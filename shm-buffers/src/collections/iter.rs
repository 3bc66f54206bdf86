//! Iterators over columns, and over the entries of a map.

use std::iter::FusedIterator;
use std::ops::Range;

use super::column::Column;

/// An iterator over the values of a [`Column`]: references in the order of their indices.
///
/// ```
/// let names = shm_buffers::Strings::from(["a", "b", "c"]);
/// let mut names = names.iter();
/// assert_eq!((names.len(), names.next_back(), names.next()), (3, Some("c"), Some("a")));
/// ```
#[derive(Debug)]
pub struct Iter<'a, C> {
    column: &'a C,
    rest: Range<usize>,
}

impl<'a, C: Column> Iter<'a, C> {
    pub(super) fn new(column: &'a C) -> Self {
        Self {
            column,
            rest: 0..column.column_len(),
        }
    }
}

impl<C> Clone for Iter<'_, C> {
    fn clone(&self) -> Self {
        Self {
            column: self.column,
            rest: self.rest.clone(),
        }
    }
}

impl<'a, C: Column> Iterator for Iter<'a, C> {
    type Item = &'a C::Item;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.rest.next().map(|index| self.column.column_item(index))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rest.size_hint()
    }

    #[inline]
    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.rest.nth(n).map(|index| self.column.column_item(index))
    }
}

impl<C: Column> DoubleEndedIterator for Iter<'_, C> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.rest.next_back().map(|index| self.column.column_item(index))
    }
}

impl<C: Column> ExactSizeIterator for Iter<'_, C> {}
impl<C: Column> FusedIterator for Iter<'_, C> {}

/// An iterator over the entries of a [`Map`](super::Map): pairs of references to a key and its value, in the order of
/// insertion.
#[derive(Debug)]
pub struct Entries<'a, K, V> {
    keys: &'a K,
    values: &'a V,
    rest: Range<usize>,
}

impl<'a, K: Column, V: Column> Entries<'a, K, V> {
    /// Creates an iterator over two columns of the same length.
    pub(super) fn new(keys: &'a K, values: &'a V) -> Self {
        Self {
            keys,
            values,
            rest: 0..keys.column_len(),
        }
    }

    #[inline]
    fn at(&self, index: usize) -> (&'a K::Item, &'a V::Item) {
        (self.keys.column_item(index), self.values.column_item(index))
    }
}

impl<K, V> Clone for Entries<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            rest: self.rest.clone(),
            ..*self
        }
    }
}

impl<'a, K: Column, V: Column> Iterator for Entries<'a, K, V> {
    type Item = (&'a K::Item, &'a V::Item);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.rest.next().map(|index| self.at(index))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rest.size_hint()
    }

    #[inline]
    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.rest.nth(n).map(|index| self.at(index))
    }
}

impl<K: Column, V: Column> DoubleEndedIterator for Entries<'_, K, V> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.rest.next_back().map(|index| self.at(index))
    }
}

impl<K: Column, V: Column> ExactSizeIterator for Entries<'_, K, V> {}
impl<K: Column, V: Column> FusedIterator for Entries<'_, K, V> {}
