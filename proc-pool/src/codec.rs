//! [`Codec`]: how tasks and outputs become bytes, chosen by type.

use bytemuck::{AnyBitPattern, NoUninit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::service::{self, BoxError};

/// Turns `T`s into bytes and back. A type without data: leader and workers know it by its type alone.
///
/// There are [`Postcard`] for everything that serde knows, and [`Pod`] and [`PodVec`], which copy plain old data as it
/// is. One's own may be for types of another library, or a format:
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
    /// Appends `value` to `into`.
    ///
    /// # Errors
    /// Any error is that of the task: [`Fault::Task`](crate::Fault::Task) or [`Fault::Output`](crate::Fault::Output).
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), BoxError>;

    /// `value`'s encoding, if it lies in memory as it is: then nothing needs to be encoded, and a large one is copied
    /// only once.
    fn as_bytes(_value: &T) -> Option<&[u8]> {
        None
    }

    /// Makes a value from exactly these bytes, which lie at any address and may be anything: a worker that went mad may
    /// have written them.
    ///
    /// # Errors
    /// As [`encode`](Self::encode)'s.
    fn decode(bytes: &[u8]) -> Result<T, BoxError>;
}

/// Serde and the postcard format: the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(service::encode(value, into)?)
    }

    fn decode(bytes: &[u8]) -> Result<T, BoxError> {
        Ok(service::decode(bytes)?)
    }
}

/// Plain old data as it lies in memory: numbers, arrays of them, structs that derive `bytemuck`'s traits.
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

/// `Vec`s of plain old data, as it lies in memory: `Vec<f32>`, or `Vec<u8>` for bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodVec;

impl<T: NoUninit + AnyBitPattern> Codec<Vec<T>> for PodVec {
    fn encode(value: &Vec<T>, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(bytemuck::cast_slice(value));
        Ok(())
    }

    fn as_bytes(value: &Vec<T>) -> Option<&[u8]> {
        Some(bytemuck::cast_slice(value))
    }

    fn decode(bytes: &[u8]) -> Result<Vec<T>, BoxError> {
        const { assert!(size_of::<T>() > 0, "nothing would tell how many there are") };
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(LengthError::new::<T>("any number", bytes).into());
        }
        if let Ok(values) = bytemuck::try_cast_slice(bytes) {
            return Ok(values.to_vec());
        }
        // They lie at an odd address.
        let mut values = bytemuck::zeroed_vec(bytes.len() / size_of::<T>());
        bytemuck::cast_slice_mut::<T, u8>(&mut values).copy_from_slice(bytes);
        Ok(values)
    }
}

/// Bytes are not those of plain old data, by their number.
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

    /// There and back, from an odd address.
    fn check<T: PartialEq + Debug, C: Codec<T>>(_: C, value: T) {
        let mut bytes = vec![7];
        C::encode(&value, &mut bytes).expect("it can be encoded");
        assert_eq!(bytes[0], 7);
        assert_eq!(C::decode(&bytes[1..]).expect("it can be decoded"), value);
        assert!(C::as_bytes(&value).is_none_or(|it| *it == bytes[1..]));
        bytes.remove(0);
        assert_eq!(C::decode(&bytes).expect("it can be decoded"), value);
    }

    #[test]
    fn values_come_back() {
        check(Postcard, ("text".to_owned(), Some(3)));
        check(Pod, u64::MAX - 1);
        check(Pod, [1.5f32, f32::INFINITY]);
        check(Pod, ());
        check(PodVec, vec![1u64, 2, u64::MAX]);
        check(PodVec, vec![[1u8, 2, 3]; 5]);
        check(PodVec, Vec::<f64>::new());
    }

    #[test]
    fn other_lengths_are_refused() {
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
