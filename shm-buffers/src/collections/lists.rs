//! [`Lists`]: an immutable `[Vec<T>]` in two buffers.

use std::fmt;
use std::ops::{Index, Range};

use bytemuck::Pod;

use super::column::{Column, sealed};
use super::error::CollectionError;
use super::iter::Iter;
use crate::buffer::Buffer;

/// An immutable `[Vec<T>]` in two [`Buffer`]s: the elements of all lists, and the offset of each list. It is read in shared
/// memory without being rebuilt, and cloning copies two pointers.
///
/// Entries of a damaged image are empty: see [the module](super#damaged-images).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Lists, share};
///
/// let neighbors = Lists::from(vec![vec![1_u32, 2], vec![], vec![0]]); // a Vec<Vec<u32>>
/// let image = share(&neighbors, &Backing::Auto)?;
///
/// let theirs: Lists<u32> = image.load()?; // in this or another process
/// assert_eq!(theirs[0], [1, 2]);
/// assert_eq!((theirs.get(1), theirs.get(3)), (Some(&[][..]), None));
/// assert_eq!(theirs.iter().map(<[u32]>::len).sum::<usize>(), 3);
/// # Ok(()) }
/// ```
pub struct Lists<T> {
    /// Where each list starts, in elements, and where the last one ends. Empty if there are no lists.
    offsets: Buffer<u64>,
    elements: Buffer<T>,
}

impl<T: Pod + Send + Sync> Lists<T> {
    /// Creates lists from their buffers: `offsets` has the start of each list, counted in elements, and the end of the last
    /// one, as Arrow's `LargeList` has. No list at all is also an empty buffer.
    ///
    /// The time does not depend on the number of lists: see [`validate`](Self::validate).
    ///
    /// # Errors
    /// [`CollectionError::Cover`] if the first offset is not 0 or the last one is not the number of elements.
    ///
    /// ```
    /// let lists = shm_buffers::Lists::from_buffers(vec![0, 2, 2, 3].into(), b"abc".to_vec().into());
    /// assert_eq!(lists.map_err(|e| e.to_string()), Ok([&b"ab"[..], b"", b"c"].into_iter().collect()));
    /// ```
    pub fn from_buffers(offsets: Buffer<u64>, elements: Buffer<T>) -> Result<Self, CollectionError> {
        let start = offsets.first().copied().unwrap_or(0);
        let end = offsets.last().copied().unwrap_or(0);
        let len = elements.len();
        if start != 0 || end != len as u64 {
            return Err(CollectionError::Cover { start, end, len });
        }
        Ok(Self { offsets, elements })
    }

    /// Returns the number of lists.
    #[inline]
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Returns whether there are no lists.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the list at `index`, or `None` if the index is out of bounds.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[T]> {
        let &[start, end] = self.offsets.get(index..)?.first_chunk()?;
        self.elements.get(range(start, end)?)
    }

    /// Returns an iterator over the lists.
    pub fn iter(&self) -> Iter<'_, Self> {
        Iter::new(self)
    }

    /// Returns the start of each list, counted in elements, and the end of the last one.
    pub fn offsets(&self) -> &Buffer<u64> {
        &self.offsets
    }

    /// Returns the elements of all lists.
    pub fn elements(&self) -> &Buffer<T> {
        &self.elements
    }

    /// Checks each list. It reads all offsets, but no elements.
    ///
    /// # Errors
    /// [`CollectionError::Offsets`] if the offsets of a list decrease or point outside.
    pub fn validate(&self) -> Result<(), CollectionError> {
        let damaged = (0..self.len()).find(|&index| self.get(index).is_none());
        damaged.map_or(Ok(()), |index| {
            Err(CollectionError::Offsets {
                index,
                start: self.offsets[index],
                end: self.offsets[index + 1],
                len: self.elements.len(),
            })
        })
    }
}

#[inline]
fn range(start: u64, end: u64) -> Option<Range<usize>> {
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

impl<T> sealed::Sealed for Lists<T> {}

impl<T: Pod + Send + Sync> Column for Lists<T> {
    type Item = [T];
    type Owned = Vec<T>;

    #[inline]
    fn column_len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn column_get(&self, index: usize) -> Option<&[T]> {
        self.get(index)
    }

    #[inline]
    fn column_item(&self, index: usize) -> &[T] {
        &self[index]
    }

    fn column_validate(&self) -> Result<(), CollectionError> {
        self.validate()
    }
}

/// Lists under construction.
pub(super) struct ListsMut<T> {
    offsets: Vec<u64>,
    elements: Vec<T>,
}

impl<T: Pod + Send + Sync> ListsMut<T> {
    /// Creates no lists, with capacity for `lists` of them.
    pub(super) fn with_capacity(lists: usize) -> Self {
        let mut offsets = Vec::with_capacity(lists + 1);
        offsets.push(0);
        Self {
            offsets,
            elements: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, list: &[T]) {
        self.elements.extend_from_slice(list);
        self.offsets.push(self.elements.len() as u64);
    }

    pub(super) fn finish(self) -> Lists<T> {
        Lists {
            offsets: self.offsets.into(),
            elements: self.elements.into(),
        }
    }
}

impl<T: Pod + Send + Sync, L: AsRef<[T]>> FromIterator<L> for Lists<T> {
    fn from_iter<I: IntoIterator<Item = L>>(lists: I) -> Self {
        let lists = lists.into_iter();
        let mut built = ListsMut::with_capacity(lists.size_hint().0);
        for list in lists {
            built.push(list.as_ref());
        }
        built.finish()
    }
}

impl<T: Pod + Send + Sync, L: AsRef<[T]>> From<Vec<L>> for Lists<T> {
    fn from(lists: Vec<L>) -> Self {
        lists.into_iter().collect()
    }
}

impl<T: Pod + Send + Sync, L: AsRef<[T]>> From<&[L]> for Lists<T> {
    fn from(lists: &[L]) -> Self {
        lists.iter().map(AsRef::as_ref).collect()
    }
}

impl<T: Pod + Send + Sync, L: AsRef<[T]>, const N: usize> From<[L; N]> for Lists<T> {
    fn from(lists: [L; N]) -> Self {
        lists.into_iter().collect()
    }
}

impl<T: Pod + Send + Sync> Index<usize> for Lists<T> {
    type Output = [T];

    /// # Panics
    /// If the index is out of bounds.
    #[inline]
    fn index(&self, index: usize) -> &[T] {
        let len = self.len();
        assert!(index < len, "index {index} of {len} lists");
        self.get(index).unwrap_or_default()
    }
}

impl<'a, T: Pod + Send + Sync> IntoIterator for &'a Lists<T> {
    type Item = &'a [T];
    type IntoIter = Iter<'a, Lists<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> Clone for Lists<T> {
    fn clone(&self) -> Self {
        Self {
            offsets: self.offsets.clone(),
            elements: self.elements.clone(),
        }
    }
}

impl<T: Pod + Send + Sync> Default for Lists<T> {
    fn default() -> Self {
        ListsMut::with_capacity(0).finish()
    }
}

impl<T: Pod + Send + Sync + PartialEq> PartialEq for Lists<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other)
    }
}

impl<T: Pod + Send + Sync + Eq> Eq for Lists<T> {}

impl<T: Pod + Send + Sync + fmt::Debug> fmt::Debug for Lists<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}
