//! Bytes on their way from an op to who asked for it: [`OutputBuf`] in the worker, [`Bytes`] in the leader.

use std::fmt;
use std::ops::{Deref, DerefMut};

use shm_buffers::{Segment, SegmentHandle};

use crate::payload::{MAX_INLINE, to_segment};

/// Where a [`Service`](crate::Service) writes its output: a `Vec<u8>` that is used again. What lies in memory already is
/// better [put](Self::put).
#[derive(Debug, Default)]
pub struct OutputBuf {
    bytes: Vec<u8>,
    large: Option<Result<(Segment, SegmentHandle), String>>,
}

impl OutputBuf {
    /// Makes `bytes` the whole output. Large ones are copied once, to where the leader reads them, instead of twice.
    pub fn put(&mut self, bytes: &[u8]) {
        self.clear();
        match bytes.len() {
            ..=MAX_INLINE => self.bytes.extend_from_slice(bytes),
            _ => self.large = Some(to_segment(bytes)),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.large = None;
    }

    /// An output that is not to go through the ring, in a segment of its own.
    pub(crate) fn take_large(&mut self) -> Option<Result<(Segment, SegmentHandle), String>> {
        match self.large.take() {
            None if self.bytes.len() > MAX_INLINE => Some(to_segment(&self.bytes)),
            large => large,
        }
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

/// An output of a [`BytePool`](crate::BytePool). A large one stays in the shared memory that its worker wrote it to; it is
/// freed with this value, and may outlive the pool.
#[derive(Clone)]
pub struct Bytes(Place);

#[derive(Clone)]
enum Place {
    Heap(Vec<u8>),
    Segment(Segment),
}

impl Bytes {
    /// Some of many.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self(Place::Heap(bytes.to_vec()))
    }

    /// That stay where they are.
    pub(crate) fn kept(segment: Segment) -> Self {
        Self(Place::Segment(segment))
    }

    /// As a `Vec`; copies a large output.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Place::Heap(bytes) => bytes,
            Place::Segment(segment) => segment.to_vec(),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Heap(bytes) => bytes,
            Place::Segment(segment) => segment,
        }
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
    fn what_is_put_is_the_whole_output() {
        let mut output = OutputBuf::default();
        for len in [0, 5, MAX_INLINE, MAX_INLINE + 1, 3] {
            output.clear();
            output.extend_from_slice(b"before");
            let bytes = vec![7; len];
            output.put(&bytes);
            match output.take_large() {
                None => assert_eq!(*output, bytes),
                Some(large) => {
                    let (segment, _) = large.expect("there is room");
                    assert!(len > MAX_INLINE && segment[..] == bytes[..] && output.is_empty());
                    let read = Bytes::kept(segment);
                    assert_eq!(read, bytes);
                    assert_eq!(format!("{read:?}"), format!("Bytes({len} of them)"));
                    assert_eq!(read.into_vec(), bytes);
                }
            }
        }
        // What was appended is as good.
        output.extend_from_slice(&[1; MAX_INLINE]);
        assert!(output.take_large().is_some_and(|large| large.is_ok()));
    }
}
