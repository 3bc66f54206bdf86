//! The buffers of an output: [`OutputBuf`] in the worker that writes it, [`Bytes`] in the leader that returns it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use shm_buffers::out_of_band::Sent;

use crate::os::prefer_huge_pages;
use crate::wire::owned_bytes::OwnedBytes;

/// The buffer into which a [`Service`](crate::Service) writes its output: a `Vec<u8>` whose memory is reused for the next
/// task.
#[derive(Debug, Default)]
pub struct OutputBuf {
    bytes: Vec<u8>,
    /// The output instead of `bytes`, if its memory was given away.
    owned: Option<OwnedBytes>,
    /// The buffers that `bytes` leaves out, if it may.
    apart: Option<Vec<Sent>>,
    pub(crate) buffers: BuffersIn,
}

/// Where the buffers of an output may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum BuffersIn {
    /// In its encoding only.
    #[default]
    Output,
    /// Large ones also in blocks of their own, apart from it.
    Blocks,
}

impl OutputBuf {
    /// Replaces the contents with `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.clear();
        if self.bytes.capacity() < bytes.len() {
            self.bytes.reserve_exact(bytes.len());
            prefer_huge_pages(&mut self.bytes);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Removes all bytes.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.owned.is_some() || self.apart.is_some() {
            (self.owned, self.apart) = (None, None);
        }
    }

    /// Leaves out buffers of the encoding that the bytes are.
    pub(crate) fn leave_out(&mut self, buffers: Vec<Sent>) {
        self.apart = Some(buffers);
    }

    /// Takes the buffers that the bytes leave out. `None` if the bytes are the whole output.
    #[inline]
    pub(crate) fn take_apart(&mut self) -> Option<Vec<Sent>> {
        self.apart.take()
    }

    /// Returns the number of bytes of the output and of the buffers that it leaves out.
    #[inline]
    pub(crate) fn total_len(&self) -> usize {
        let apart = self.apart.iter().flatten().map(|buffer| buffer.len());
        self.output().len() + apart.sum::<usize>()
    }

    /// Returns the output if it is all in this buffer and has no more than `max` bytes.
    #[inline]
    pub(crate) fn small(&self, max: usize) -> Option<&[u8]> {
        (self.bytes.len() <= max && self.owned.is_none() && self.apart.is_none()).then_some(&self.bytes)
    }

    /// Returns whether it keeps more than a buffer of `max` bytes.
    #[inline]
    pub(crate) fn keeps_more_than(&self, max: usize) -> bool {
        self.bytes.capacity() > max || self.owned.is_some() || self.apart.is_some()
    }

    /// Takes memory that is the whole output.
    pub(crate) fn give(&mut self, output: OwnedBytes) {
        self.owned = Some(output);
    }

    /// Returns the output: the memory that was given, or the bytes.
    #[inline]
    pub(crate) fn output(&self) -> &[u8] {
        self.owned.as_deref().unwrap_or(&self.bytes)
    }
}

impl Deref for OutputBuf {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for OutputBuf {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// An output of a [`BytePool`](crate::BytePool). The bytes are in private memory of this process: they may outlive the pool,
/// and no worker can change them.
#[derive(Clone)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Copies a slice of a larger buffer.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Takes the whole buffer, without a copy if it was received for this.
    pub(crate) fn kept(bytes: OwnedBytes) -> Self {
        Self(bytes.into_vec().unwrap_or_else(|other| other.to_vec()))
    }

    /// Converts into a `Vec`, without a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Bytes> for Vec<u8> {
    fn from(bytes: Bytes) -> Self {
        bytes.into_vec()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            ..=64 => f.debug_tuple("Bytes").field(&&**self).finish(),
            len => write!(f, "Bytes({len} of them)"),
        }
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Bytes {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_replaces_the_whole_output() {
        let mut output = OutputBuf::default();
        for len in [0, 5, 100_000, 3] {
            output.extend_from_slice(b"before");
            let bytes = vec![7; len];
            output.put(&bytes);
            assert_eq!(*output, bytes);
        }
    }

    #[test]
    fn debug_shows_only_the_length_of_long_outputs() {
        let bytes = Bytes::kept(vec![7; 65].into());
        assert_eq!(format!("{bytes:?}"), "Bytes(65 of them)");
        assert_eq!(
            (bytes.clone(), bytes.into_vec()),
            (Bytes::copied(&[7; 65]), vec![7; 65])
        );
    }
}
