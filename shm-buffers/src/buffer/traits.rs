//! A [`Buffer`] where a slice or a `Vec` is expected: conversions and comparisons.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use bytemuck::Pod;

use super::Buffer;

impl<T: Pod + Send + Sync> From<&[T]> for Buffer<T> {
    /// Copies the elements.
    fn from(elements: &[T]) -> Self {
        Self::from(elements.to_vec())
    }
}

impl<T: Pod + Send + Sync, const N: usize> From<[T; N]> for Buffer<T> {
    fn from(elements: [T; N]) -> Self {
        Self::from(Vec::from(elements))
    }
}

impl<T: Pod + Send + Sync> From<Box<[T]>> for Buffer<T> {
    /// Takes the memory over, without a copy.
    fn from(elements: Box<[T]>) -> Self {
        Self::from(elements.into_vec())
    }
}

impl<T: Pod + Send + Sync> FromIterator<T> for Buffer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self::from(elements.into_iter().collect::<Vec<_>>())
    }
}

impl<T: Pod + Send + Sync> Default for Buffer<T> {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl<T> AsRef<[T]> for Buffer<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

/// A buffer is hashed and compared as its elements are, so a set of buffers can be searched for a slice.
impl<T> Borrow<[T]> for Buffer<T> {
    fn borrow(&self) -> &[T] {
        self
    }
}

impl<'a, T> IntoIterator for &'a Buffer<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Buffer<T> {}

impl<T: Hash> Hash for Buffer<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: PartialOrd> PartialOrd for Buffer<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (**self).partial_cmp(&**other)
    }
}

impl<T: Ord> Ord for Buffer<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// Compares buffers with another type of array, on both sides.
macro_rules! compare {
    ($([$($generics:tt)*] $other:ty),* $(,)?) => {$(
        impl<T: PartialEq, $($generics)*> PartialEq<$other> for Buffer<T> {
            fn eq(&self, other: &$other) -> bool {
                **self == other[..]
            }
        }

        impl<T: PartialEq, $($generics)*> PartialEq<Buffer<T>> for $other {
            fn eq(&self, other: &Buffer<T>) -> bool {
                self[..] == **other
            }
        }
    )*};
}

compare!([] [T], [] &[T], [] Vec<T>, [const N: usize] [T; N]);
