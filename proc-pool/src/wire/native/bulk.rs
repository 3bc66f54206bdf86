//! Vectors and slices of numbers, copied as a whole.
//!
//! serde has no call for "a vector of numbers". But a vector and a slice pass themselves to `collect_seq`, and the vector's visitor is
//! a type of serde's own. Both are recognised by their type, at no cost: the compiler resolves that.
#![allow(unsafe_code, reason = "converts between types that were found to be the same")]

use std::any::TypeId;
use std::mem::{ManuallyDrop, transmute_copy};
use std::sync::OnceLock;

use bytemuck::Pod;
use serde::de::value::Error as AnyError;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::{Error, Reason};
use crate::os::prefer_huge_pages;
use crate::wire::owned_bytes::OwnedBytes;

/// Calls a macro with the types of numbers whose memory is their encoding.
macro_rules! for_each_number {
    ($callback:ident) => {
        $callback! { u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 }
        // They are encoded as 64 bits.
        #[cfg(target_pointer_width = "64")]
        $callback! { usize isize }
    };
}

/// Returns the number of elements and the bytes of a vector or slice of numbers, or `source` if it is something else.
#[inline]
pub(super) fn bytes_of<'a, S>(source: S) -> Result<(usize, &'a [u8]), S>
where
    S: 'a,
{
    let id = typeid::of::<S>();
    macro_rules! check {
        ($($number:ty)*) => {$(
            if id == TypeId::of::<&'static Vec<$number>>() {
                // SAFETY: `S` is `&'s Vec<$number>` for a lifetime `'s`: `typeid::of` identifies types but for their lifetimes,
                // and this type has no other one. `S: 'a` means that `'s` is at least `'a`. A reference is `Copy`.
                let vec = unsafe { transmute_copy::<S, &'a Vec<$number>>(&source) };
                return Ok((vec.len(), bytemuck::cast_slice(vec)));
            }
            if id == TypeId::of::<&'static [$number]>() {
                // SAFETY: as above, for `&'s [$number]`.
                let slice = unsafe { transmute_copy::<S, &'a [$number]>(&source) };
                return Ok((slice.len(), bytemuck::cast_slice(slice)));
            }
        )*};
    }
    for_each_number!(check);
    Err(source)
}

/// Returns an unsigned integer of 64 bits.
#[inline]
pub(super) fn integer_of<T>(value: &T) -> Option<u64> {
    let id = typeid::of::<T>();
    if id == TypeId::of::<u64>() {
        // SAFETY: `T` is `u64`: `typeid::of` identifies types but for their lifetimes, and `u64` has none. It is `Copy`.
        return Some(unsafe { transmute_copy::<T, u64>(value) });
    }
    if id == TypeId::of::<usize>() {
        // SAFETY: as above, for `usize`.
        return Some(unsafe { transmute_copy::<T, usize>(value) } as u64);
    }
    None
}

/// Makes a `T` of its least significant bytes, if `T` is an unsigned integer of 64 bits.
#[inline]
pub(super) fn integer_from<T>(bytes: &[u8]) -> Option<Result<T, Error>> {
    let id = typeid::of::<T>();
    let is_integer = id == TypeId::of::<u64>() || id == TypeId::of::<usize>();
    is_integer.then(|| {
        let more = bytes.len().saturating_sub(size_of::<u64>());
        if more > 0 {
            return Err(Reason::TooLong { more }.into());
        }
        let integer = low_integer(bytes);
        match id == TypeId::of::<u64>() {
            true => Ok(same(integer)),
            false => match usize::try_from(integer) {
                Ok(integer) => Ok(same(integer)),
                Err(_) => Err(Reason::Invalid {
                    what: "usize",
                    found: integer,
                }
                .into()),
            },
        }
    })
}

/// Returns the integer whose least significant bytes, 8 at most, these are. Loads that may overlap cost less than a loop, and than the call
/// that a copy of variable length would be.
#[inline]
fn low_integer(bytes: &[u8]) -> u64 {
    if let Some(all) = bytes.first_chunk() {
        return u64::from_le_bytes(*all);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let shift = (bytes.len() - size_of::<u32>()) as u32 * u8::BITS;
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift;
    }
    let at = |index: usize| u64::from(bytes[index]) << (index as u32 * u8::BITS);
    match bytes.len() {
        0 => 0,
        len => at(0) | at(len / 2) | at(len - 1),
    }
}

/// Makes what the visitor `V` would make, if that is the one with which serde makes a vector of numbers: it takes each element as it is.
/// `take` returns the bytes of all elements, given the size of one. Returns `None` for another visitor, without a call of `take`.
#[inline]
pub(super) fn visited<'de, V: Visitor<'de>>(
    take: impl FnOnce(usize) -> Result<&'de [u8], Error>,
) -> Option<Result<V::Value, Error>> {
    let value = typeid::of::<V::Value>();
    macro_rules! check {
        ($($number:ty)*) => {$(
            if value == TypeId::of::<Vec<$number>>() {
                static VISITOR: OnceLock<Option<TypeId>> = OnceLock::new();
                let visitor = VISITOR.get_or_init(visitor_of::<Vec<$number>>);
                return (*visitor == Some(typeid::of::<V>()))
                    .then(|| copied::<$number>(take(size_of::<$number>())?).map(same));
            }
        )*};
    }
    for_each_number!(check);
    None
}

/// Copies the bytes of its elements into a `T`, if that is a vector of numbers; `None` if it is something else.
#[inline]
pub(super) fn vec_of<T>(bytes: &[u8]) -> Option<Result<T, Error>> {
    let id = typeid::of::<T>();
    macro_rules! check {
        ($($number:ty)*) => {$(
            if id == TypeId::of::<Vec<$number>>() {
                return Some(copied::<$number>(bytes).map(same));
            }
        )*};
    }
    for_each_number!(check);
    None
}

/// Returns the memory of a vector of numbers, or `value` if it is something else.
#[inline]
pub(crate) fn into_owned<T>(value: T) -> Result<OwnedBytes, T> {
    let id = typeid::of::<T>();
    macro_rules! check {
        ($($number:ty)*) => {$(
            if id == TypeId::of::<Vec<$number>>() {
                let value = ManuallyDrop::new(value);
                // SAFETY: `T` is `Vec<$number>`: `typeid::of` identifies types but for their lifetimes, and this type has none.
                // The value is not used or dropped afterwards.
                let vec = unsafe { transmute_copy::<ManuallyDrop<T>, Vec<$number>>(&value) };
                return OwnedBytes::from_vec(vec).map_err(same);
            }
        )*};
    }
    for_each_number!(check);
    Err(value)
}

/// Returns the alignment of the numbers if `T` is a vector of numbers, or 1.
pub(super) fn alignment_of<T>() -> usize {
    let id = typeid::of::<T>();
    macro_rules! check {
        ($($number:ty)*) => {$(
            if id == TypeId::of::<Vec<$number>>() {
                return align_of::<$number>();
            }
        )*};
    }
    for_each_number!(check);
    1
}

/// Makes a `T` of memory that is a vector of numbers; `None` if `T` is something else, or if the memory does not fit.
pub(super) fn from_owned<T>(bytes: &mut OwnedBytes) -> Option<T> {
    let id = typeid::of::<T>();
    macro_rules! check {
        ($($number:ty)*) => {$(
            if id == TypeId::of::<Vec<$number>>() {
                return match std::mem::take(bytes).into_vec::<$number>() {
                    Ok(vec) => Some(same(vec)),
                    Err(other) => {
                        *bytes = other;
                        None
                    }
                };
            }
        )*};
    }
    for_each_number!(check);
    None
}

/// Converts a value into its own type under another name.
///
/// # Panics
/// If the types differ.
fn same<A: 'static, B>(value: A) -> B {
    assert_eq!(TypeId::of::<A>(), typeid::of::<B>());
    let value = ManuallyDrop::new(value);
    // SAFETY: `A` and `B` are the same type: `typeid::of` identifies types but for their lifetimes, and `A` has none. The value is
    // not used or dropped afterwards.
    unsafe { transmute_copy::<ManuallyDrop<A>, B>(&value) }
}

/// Copies bytes of any alignment into a vector of numbers.
#[inline]
fn copied<T: Pod>(bytes: &[u8]) -> Result<Vec<T>, Error> {
    let (found, size) = (bytes.len(), size_of::<T>());
    let len = found / size;
    if len * size != found {
        return Err(Reason::PartOfElement { found, size }.into());
    }
    let mut vec = Vec::<T>::with_capacity(len);
    prefer_huge_pages(&mut vec);
    // SAFETY: both are valid for `bytes.len()` bytes: that is the size of `len` elements, and `vec` has capacity for them. New
    // memory does not overlap `bytes`. Bytes have no alignment.
    unsafe {
        vec.as_mut_ptr()
            .cast::<u8>()
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
    };
    // SAFETY: the first `len` elements were written above, and any bytes are a valid `T`, because it is `Pod`.
    unsafe { vec.set_len(len) };
    Ok(vec)
}

/// Returns the type of the visitor with which `T` is deserialized, if it calls `deserialize_seq`.
fn visitor_of<T: Deserialize<'static>>() -> Option<TypeId> {
    struct Probe<'a>(&'a mut Option<TypeId>);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = AnyError;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, AnyError> {
            Err(AnyError::custom("not a sequence"))
        }

        fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, AnyError> {
            *self.0 = Some(typeid::of::<V>());
            Err(AnyError::custom("only the type of the visitor is of interest"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct tuple tuple_struct map struct enum identifier ignored_any
        }
    }

    let mut visitor = None;
    // An error in any case.
    let _ = T::deserialize(Probe(&mut visitor));
    visitor
}
