//! [`Strings`]: an immutable `[String]` in two buffers.
#![allow(
    unsafe_code,
    reason = "the standard library checks short ASCII text in a fraction of the time of UTF-8"
)]

use std::fmt;
use std::ops::Index;

use super::column::{Column, Keys, sealed};
use super::error::CollectionError;
use super::hash;
use super::iter::Iter;
use super::lists::{Lists, ListsMut};
use crate::buffer::Buffer;

/// An immutable `[String]` in two [`Buffer`]s: the bytes of all strings, and the offset of each string. It is read in shared
/// memory without being rebuilt, and cloning copies two pointers.
///
/// Each access checks that the string is UTF-8, in about ten nanoseconds for a short one in ASCII, so that loading need not read
/// all of them. Entries of a damaged image are empty: see [the module](super#damaged-images).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Strings, share};
///
/// let names = Strings::from(vec!["Zoë".to_owned(), String::new(), "Max".to_owned()]); // a Vec<String>
/// let image = share(&names, &Backing::Auto)?;
///
/// let theirs: Strings = image.load()?; // in this or another process
/// assert_eq!(&theirs[0], "Zoë");
/// assert_eq!((theirs.get(1), theirs.get(3)), (Some(""), None));
/// assert_eq!(theirs.iter().rev().collect::<Vec<_>>(), ["Max", "", "Zoë"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Strings {
    utf8: Lists<u8>,
}

impl Strings {
    /// Creates strings from their buffers: `offsets` has the start of each string in bytes, and the end of the last one, as
    /// Arrow's `LargeUtf8` has. No string at all is also an empty buffer.
    ///
    /// The time does not depend on the number of strings: see [`validate`](Self::validate).
    ///
    /// # Errors
    /// [`CollectionError::Cover`] if the first offset is not 0 or the last one is not the number of bytes.
    ///
    /// ```
    /// let strings = shm_buffers::Strings::from_buffers(vec![0, 2, 3].into(), b"abc".to_vec().into());
    /// assert_eq!(strings.map_err(|e| e.to_string()), Ok(["ab", "c"].into()));
    /// ```
    pub fn from_buffers(offsets: Buffer<u64>, bytes: Buffer<u8>) -> Result<Self, CollectionError> {
        Lists::from_buffers(offsets, bytes).map(|utf8| Self { utf8 })
    }

    /// Returns the number of strings.
    #[inline]
    pub fn len(&self) -> usize {
        self.utf8.len()
    }

    /// Returns whether there are no strings.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.utf8.is_empty()
    }

    /// Returns the string at `index`, or `None` if the index is out of bounds.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&str> {
        checked(self.utf8.get(index)?)
    }

    /// Returns an iterator over the strings.
    pub fn iter(&self) -> Iter<'_, Self> {
        Iter::new(self)
    }

    /// Returns the start of each string in bytes, and the end of the last one.
    pub fn offsets(&self) -> &Buffer<u64> {
        self.utf8.offsets()
    }

    /// Returns the bytes of all strings.
    pub fn bytes(&self) -> &Buffer<u8> {
        self.utf8.elements()
    }

    /// Returns the bytes of each string.
    #[inline]
    pub(super) fn utf8(&self) -> &Lists<u8> {
        &self.utf8
    }

    /// Checks each string. It reads all of them.
    ///
    /// # Errors
    /// [`CollectionError::Offsets`] if the offsets of a string decrease or point outside, [`CollectionError::Utf8`] if it is not
    /// UTF-8.
    pub fn validate(&self) -> Result<(), CollectionError> {
        self.utf8.validate()?;
        for (index, bytes) in self.utf8.iter().enumerate() {
            std::str::from_utf8(bytes).map_err(|source| CollectionError::Utf8 { index, source })?;
        }
        Ok(())
    }
}

/// Returns the bytes as text if they are UTF-8.
#[inline]
fn checked(bytes: &[u8]) -> Option<&str> {
    match bytes.is_ascii() {
        // SAFETY: the bytes must be UTF-8. `is_ascii` has found each of them below 128, and such a byte is a character in
        // UTF-8. They can't change after the check: `bytes` is a shared reference, and a `Buffer` is only made of
        // memory that no process writes.
        true => Some(unsafe { std::str::from_utf8_unchecked(bytes) }),
        false => std::str::from_utf8(bytes).ok(),
    }
}

impl sealed::Sealed for Strings {}

impl Column for Strings {
    type Item = str;
    type Owned = String;

    #[inline]
    fn column_len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn column_get(&self, index: usize) -> Option<&str> {
        self.get(index)
    }

    #[inline]
    fn column_item(&self, index: usize) -> &str {
        &self[index]
    }

    fn column_validate(&self) -> Result<(), CollectionError> {
        self.validate()
    }
}

// Keys are compared as bytes: bytes that are equal to those of a `str` are UTF-8.
impl Keys for Strings {
    #[inline]
    fn hash(key: &str) -> u64 {
        hash::of_bytes(key.as_bytes())
    }

    #[inline]
    fn hash_at(&self, index: usize) -> u64 {
        hash::of_bytes(&self.utf8()[index])
    }

    #[inline]
    fn holds(&self, index: usize, key: &str) -> bool {
        self.utf8().get(index) == Some(key.as_bytes())
    }

    #[inline]
    fn same(&self, a: usize, b: usize) -> bool {
        self.utf8()[a] == self.utf8()[b]
    }

    fn select(&self, indices: &[usize]) -> Self {
        indices.iter().map(|&index| &self[index]).collect()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let strings = strings.into_iter();
        let mut utf8 = ListsMut::with_capacity(strings.size_hint().0);
        for string in strings {
            utf8.push(string.as_ref().as_bytes());
        }
        Self { utf8: utf8.finish() }
    }
}

impl<S: AsRef<str>> From<Vec<S>> for Strings {
    fn from(strings: Vec<S>) -> Self {
        strings.into_iter().collect()
    }
}

impl<S: AsRef<str>> From<&[S]> for Strings {
    fn from(strings: &[S]) -> Self {
        strings.iter().collect()
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for Strings {
    fn from(strings: [S; N]) -> Self {
        strings.into_iter().collect()
    }
}

impl Index<usize> for Strings {
    type Output = str;

    /// # Panics
    /// If the index is out of bounds.
    #[inline]
    fn index(&self, index: usize) -> &str {
        let len = self.len();
        assert!(index < len, "index {index} of {len} strings");
        self.get(index).unwrap_or_default()
    }
}

impl<'a> IntoIterator for &'a Strings {
    type Item = &'a str;
    type IntoIter = Iter<'a, Strings>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Strings {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other)
    }
}

impl Eq for Strings {}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}
