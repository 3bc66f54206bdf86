//! [`Codec`]: how tasks and outputs are converted to bytes and back, chosen by type.

use bytemuck::{AnyBitPattern, NoUninit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BoxError;
use crate::os::append;
use crate::wire::encoding;
use crate::wire::owned_bytes::OwnedBytes;

/// Converts values of type `T` to bytes and back. A codec is a type without data: leader and workers select it by its type
/// alone.
///
/// [`Native`](crate::Native), the default, and [`Postcard`] encode everything that implements serde's traits; [`Pod`] and [`PodVec`]
/// copy plain old data as it is. A
/// codec of your own may add types of another library, or another format:
///
/// ```
/// use proc_pool::{BoxError, Codec};
///
/// /// Addresses as text.
/// #[derive(Clone, Copy)]
/// struct Text;
///
/// impl Codec<std::net::IpAddr> for Text {
///     fn encode(value: &std::net::IpAddr, into: &mut Vec<u8>) -> Result<(), BoxError> {
///         into.extend_from_slice(value.to_string().as_bytes());
///         Ok(())
///     }
///
///     fn decode(bytes: &[u8]) -> Result<std::net::IpAddr, BoxError> {
///         Ok(std::str::from_utf8(bytes)?.parse()?)
///     }
/// }
/// ```
pub trait Codec<T>: 'static {
    /// Appends the encoding of `value` to `into`. A value with large [`Buffer`](shm_buffers::Buffer)s may be encoded twice, of which the
    /// second time counts.
    ///
    /// # Errors
    /// Any error becomes the error of the task: [`Fault::Task`](crate::Fault::Task) or
    /// [`Fault::Output`](crate::Fault::Output).
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), BoxError>;

    /// Returns the encoding of `value` if the value's memory already is its encoding. Such a value is not encoded, and a large
    /// one is copied only once.
    fn as_bytes(_value: &T) -> Option<&[u8]> {
        None
    }

    /// Returns the value's memory if that already is its encoding, as for vectors of numbers. A large value then is not copied
    /// before it is sent.
    ///
    /// # Errors
    /// The value, if it must be encoded.
    fn into_owned(value: T) -> Result<OwnedBytes, T> {
        Err(value)
    }

    /// Returns the alignment in bytes, at most 16, of memory that [`decode_owned`](Self::decode_owned) makes a value of without a copy.
    fn alignment() -> usize {
        1
    }

    /// Decodes a large value as [`decode`](Self::decode) does. This may take the memory of `bytes`, and leaves what it does not need.
    ///
    /// # Errors
    /// The same as those of [`decode`](Self::decode).
    fn decode_owned(bytes: &mut OwnedBytes) -> Result<T, BoxError> {
        Self::decode(bytes)
    }

    /// Decodes a value from exactly these bytes. They may have any alignment and any contents: a corrupted worker may have
    /// written them.
    ///
    /// # Errors
    /// The same as those of [`encode`](Self::encode).
    fn decode(bytes: &[u8]) -> Result<T, BoxError>;
}

/// Serde with the postcard format: small numbers take few bytes, and each number is converted. For values that are nested deeper
/// than [`Native`](crate::Native) allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(encoding::encode(value, into)?)
    }

    fn decode(bytes: &[u8]) -> Result<T, BoxError> {
        Ok(encoding::decode(bytes)?)
    }
}

/// Plain old data as it is in memory: numbers, arrays of numbers, structs that derive `bytemuck`'s traits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pod;

impl<T: NoUninit + AnyBitPattern> Codec<T> for Pod {
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(bytemuck::bytes_of(value));
        Ok(())
    }

    fn as_bytes(value: &T) -> Option<&[u8]> {
        Some(bytemuck::bytes_of(value))
    }

    fn decode(bytes: &[u8]) -> Result<T, BoxError> {
        match bytes.len() == size_of::<T>() {
            true => Ok(bytemuck::pod_read_unaligned(bytes)),
            false => Err(LengthError::new::<T>("one", bytes).into()),
        }
    }
}

/// Vectors of plain old data as it is in memory: `Vec<f32>`, or `Vec<u8>` for bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodVec;

impl<T: NoUninit + AnyBitPattern> Codec<Vec<T>> for PodVec {
    fn encode(value: &Vec<T>, into: &mut Vec<u8>) -> Result<(), BoxError> {
        append(into, bytemuck::cast_slice(value));
        Ok(())
    }

    fn as_bytes(value: &Vec<T>) -> Option<&[u8]> {
        Some(bytemuck::cast_slice(value))
    }

    fn into_owned(value: Vec<T>) -> Result<OwnedBytes, Vec<T>> {
        OwnedBytes::from_vec(value)
    }

    fn alignment() -> usize {
        align_of::<T>()
    }

    fn decode_owned(bytes: &mut OwnedBytes) -> Result<Vec<T>, BoxError> {
        match std::mem::take(bytes).into_vec() {
            Ok(vec) => Ok(vec),
            Err(other) => <Self as Codec<Vec<T>>>::decode(&other),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Vec<T>, BoxError> {
        const {
            assert!(
                size_of::<T>() > 0,
                "the number of elements of size 0 can't be decoded"
            )
        };
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(LengthError::new::<T>("any number", bytes).into());
        }
        if let Ok(values) = bytemuck::try_cast_slice(bytes) {
            return Ok(values.to_vec());
        }
        // The bytes are not aligned for `T`.
        let mut values = bytemuck::zeroed_vec(bytes.len() / size_of::<T>());
        bytemuck::cast_slice_mut::<T, u8>(&mut values).copy_from_slice(bytes);
        Ok(values)
    }
}

/// The number of bytes does not fit the type of plain old data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes are not {count} of {type_name}, which has {size}")]
struct LengthError {
    found: usize,
    count: &'static str,
    size: usize,
    type_name: &'static str,
}

impl LengthError {
    fn new<T>(count: &'static str, bytes: &[u8]) -> Self {
        Self {
            found: bytes.len(),
            count,
            size: size_of::<T>(),
            type_name: std::any::type_name::<T>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Encodes and decodes `value`, also from an unaligned address.
    fn check_roundtrip<T: PartialEq + Debug, C: Codec<T>>(_: C, value: T) {
        let mut bytes = vec![7];
        C::encode(&value, &mut bytes).expect("it can be encoded");
        assert_eq!(bytes[0], 7);
        assert_eq!(C::decode(&bytes[1..]).expect("it can be decoded"), value);
        assert!(C::as_bytes(&value).is_none_or(|it| *it == bytes[1..]));
        bytes.remove(0);
        assert_eq!(C::decode(&bytes).expect("it can be decoded"), value);
        let decoded = C::decode_owned(&mut bytes.clone().into());
        assert_eq!(decoded.expect("it can be decoded"), value);
        if let Ok(mut owned) = C::into_owned(value) {
            assert_eq!((&*owned, owned.align()), (&*bytes, C::alignment()));
            let value = C::decode_owned(&mut owned).expect("it can be decoded");
            assert_eq!(C::as_bytes(&value), Some(&*bytes));
        }
    }

    #[test]
    fn decode_reverses_encode() {
        check_roundtrip(Postcard, ("text".to_owned(), Some(3)));
        check_roundtrip(Pod, u64::MAX - 1);
        check_roundtrip(Pod, [1.5f32, f32::INFINITY]);
        check_roundtrip(Pod, ());
        check_roundtrip(PodVec, vec![1u64, 2, u64::MAX]);
        check_roundtrip(PodVec, vec![[1u8, 2, 3]; 5]);
        check_roundtrip(PodVec, Vec::<f64>::new());
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let reason = |error: Result<(), BoxError>| error.expect_err("too many or too few").to_string();
        for bytes in [&[0; 7][..], &[0; 9], &[]] {
            let found = reason(<Pod as Codec<u64>>::decode(bytes).map(drop));
            assert_eq!(
                found,
                format!("{} bytes are not one of u64, which has 8", bytes.len())
            );
        }
        let found = reason(<PodVec as Codec<Vec<u32>>>::decode(&[0; 6]).map(drop));
        assert_eq!(found, "6 bytes are not any number of u32, which has 4");
    }
}
