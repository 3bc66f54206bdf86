//! [`Native`]: values in the representation of this machine, so that numbers are copied and not converted.
//!
//! | value | encoding |
//! |---|---|
//! | number | its bytes in native order; `usize` and `isize` as 64 bits |
//! | `bool`, option | one byte, 0 or 1, then the option's value |
//! | `char` | its number, 4 bytes |
//! | length, index of a variant | one byte below 255; or 255, then 8 bytes |
//! | string, bytes | length, bytes |
//! | sequence, map | length, elements; zeros, if the elements have fewer bytes than their number, up to that number |
//! | struct, tuple, array | fields, without their number |
//! | variant of an enum | index, value |
//!
//! So a vector of numbers is its length and its memory. The zeros bound the work of decoding: a length is never more than the bytes that
//! follow it, even for elements without bytes.
//!
//! Two types have a shorter form as a whole value: a vector of numbers has no length, and an unsigned integer of 64 bits lacks its most
//! significant zeros, so that a small one fits into one word of a ring.

mod bulk;
mod de;
mod ser;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::bulk::into_owned;

use super::codec::Codec;
use super::owned_bytes::OwnedBytes;
use crate::error::BoxError;
use crate::os::append;

/// The default codec: serde with a format of fixed width, in which numbers have the representation of this machine.
///
/// It encodes everything that implements serde's traits. Vectors and slices of numbers are copied as a whole, at any depth of a value:
/// a `Vec<f32>` in a struct costs no more than its bytes. Other values are encoded field by field, without conversion.
///
/// Encoded values have no names or types: like all such formats, it can't decode what needs `deserialize_any`, such as untagged
/// enums. They are meant for processes of the same machine and program. A value that is nested more than 128 levels deep is an
/// error, because a peer could send one that exceeds the stack; [`Postcard`](crate::Postcard) has no such limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

impl<T: Serialize + DeserializeOwned> Codec<T> for Native {
    #[inline]
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        if let Some(integer) = bulk::integer_of(value) {
            let bytes = integer.to_le_bytes();
            into.extend_from_slice(&bytes);
            into.truncate(into.len() - integer.leading_zeros() as usize / 8);
            return Ok(());
        }
        match Self::as_bytes(value) {
            Some(bytes) => append(into, bytes),
            None => encode(value, into)?,
        }
        Ok(())
    }

    /// Returns the memory of a vector of numbers, if that is the whole value.
    #[inline]
    fn as_bytes(value: &T) -> Option<&[u8]> {
        bulk::bytes_of(value).ok().map(|(_, bytes)| bytes)
    }

    #[inline]
    fn into_owned(value: T) -> Result<OwnedBytes, T> {
        bulk::into_owned(value)
    }

    fn alignment() -> usize {
        bulk::alignment_of::<T>()
    }

    fn decode_owned(bytes: &mut OwnedBytes) -> Result<T, BoxError> {
        match bulk::from_owned(bytes) {
            Some(value) => Ok(value),
            None => Self::decode(bytes),
        }
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<T, BoxError> {
        if let Some(integer) = bulk::integer_from(bytes) {
            return Ok(integer?);
        }
        Ok(match bulk::vec_of(bytes) {
            Some(vec) => vec?,
            None => decode(bytes)?,
        })
    }
}

/// Appends the encoding of `value` to `into`.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), Error> {
    value.serialize(&mut ser::Encoder::new(into))
}

/// Decodes a value from exactly these bytes.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut decoder = de::Decoder::new(bytes);
    let value = T::deserialize(&mut decoder)?;
    match decoder.rest() {
        0 => Ok(value),
        more => Err(Reason::TooLong { more }.into()),
    }
}

/// Maximum depth of nested values. Decoding one level takes a few frames of the stack.
const MAX_DEPTH: u32 = 128;
/// The first byte of a length, or of an index, that has 8 more bytes.
const LONG: u8 = u8::MAX;

/// Why a value can't be encoded or decoded. Boxed, so that the results of the many small steps fit into registers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Error(Box<Reason>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("the encoding ends in the middle of a value")]
    TooShort,
    #[error("{more} bytes follow the value")]
    TooLong { more: usize },
    #[error("the value is nested more than {MAX_DEPTH} levels deep; the codec `Postcard` has no such limit")]
    TooDeep,
    #[error("a {what} can't be {found}")]
    Invalid { what: &'static str, found: u64 },
    #[error("{found} bytes are no whole number of elements of {size} bytes")]
    PartOfElement { found: usize, size: usize },
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error(
        "{0} needs a format that stores the type of each value; use types without `untagged`, `flatten` and the like"
    )]
    NotSelfDescribing(&'static str),
    #[error("{0}")]
    Custom(String),
}

impl From<Reason> for Error {
    #[cold]
    fn from(reason: Reason) -> Self {
        Self(Box::new(reason))
    }
}

impl serde::ser::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Reason::Custom(message.to_string()).into()
    }
}

impl serde::de::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Reason::Custom(message.to_string()).into()
    }
}
