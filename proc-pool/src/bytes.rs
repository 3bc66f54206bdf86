//! Bytes on their way from an op to its caller: [`OutputBuf`] in the worker, [`Bytes`] in the leader.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Where a [`Service`](crate::Service) writes its output: a `Vec<u8>` that is used again.
#[derive(Debug, Default)]
pub struct OutputBuf {
    bytes: Vec<u8>,
}

impl OutputBuf {
    /// Makes `bytes` the whole output.
    pub fn put(&mut self, bytes: &[u8]) {
        self.clear();
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
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

/// An output of a [`BytePool`](crate::BytePool), in memory of this process: it may outlive the pool, and no worker can change
/// it.
#[derive(Clone)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Some of many.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// All of them.
    pub(crate) fn kept(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As a `Vec`, without a copy.
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
    fn what_is_put_is_the_whole_output() {
        let mut output = OutputBuf::default();
        for len in [0, 5, 100_000, 3] {
            output.extend_from_slice(b"before");
            let bytes = vec![7; len];
            output.put(&bytes);
            assert_eq!(*output, bytes);
        }
    }

    #[test]
    fn long_outputs_are_told_by_their_length() {
        let bytes = Bytes::kept(vec![7; 65]);
        assert_eq!(format!("{bytes:?}"), "Bytes(65 of them)");
        assert_eq!(
            (bytes.clone(), bytes.into_vec()),
            (Bytes::copied(&[7; 65]), vec![7; 65])
        );
    }
}
