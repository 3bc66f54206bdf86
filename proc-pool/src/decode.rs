//! [`Decode`]: how what a worker answered becomes an output.

use crate::bytes::Bytes;
use crate::codec::Codec;
use crate::error::Fault;
use crate::jobs::Outcome;
use crate::panics::guarded;

/// The two ways to an output: small ones lie among others, a large one has memory of its own. Two functions rather than one
/// of either: what is small is passed in registers then.
pub(crate) struct Decode<R> {
    slice: fn(&[u8]) -> Result<R, String>,
    large: fn(Vec<u8>) -> Result<R, String>,
}

impl<R> Clone for Decode<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Decode<R> {}

impl Decode<Bytes> {
    /// Bytes as they are.
    pub(crate) const BYTES: Self = Self {
        slice: |bytes| Ok(Bytes::copied(bytes)),
        large: |bytes| Ok(Bytes::kept(bytes)),
    };
}

impl<R> Decode<R> {
    /// What `C` makes of them.
    pub(crate) fn by<C: Codec<R>>() -> Self {
        Self {
            slice: |bytes| C::decode(bytes).map_err(|e| e.to_string()),
            large: |bytes| C::decode(&bytes).map_err(|e| e.to_string()),
        }
    }

    /// The output, and the number of bytes that it came from; a small one is somewhere in `bytes`.
    #[inline]
    pub(crate) fn outcome(self, outcome: Outcome, bytes: &[u8]) -> (Result<R, Box<Fault>>, usize) {
        match outcome {
            Outcome::Bytes { start, end } => (caught(|| (self.slice)(&bytes[start..end])), end - start),
            Outcome::Large(bytes) => {
                let len = bytes.len();
                (caught(|| (self.large)(bytes)), len)
            }
            Outcome::Fault(fault) => (Err(fault), 0),
        }
    }
}

/// An output that makes its type's decoder panic is that task's error, and no reason to lose the others.
#[inline]
fn caught<R>(decode: impl FnOnce() -> Result<R, String>) -> Result<R, Box<Fault>> {
    guarded(decode)
        .unwrap_or_else(|message| Err(format!("decoding panicked: {message}")))
        .map_err(|reason| Box::new(Fault::Output(reason)))
}
