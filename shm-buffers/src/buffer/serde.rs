//! How a [`Buffer`] is serialized: out of band while a model is shared, otherwise as a sequence of numbers or as bytes, or as a mark
//! and these while [`crate::out_of_band`] collects.

use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::Pod;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeTuple as _, Serializer};

use super::Buffer;
use super::element::Element;
use super::memory::HeapMemory;
use super::out_of_band::{self, Part};
use crate::arena::HeldBlock;
use crate::out_of_band::{Serialized, Shared, forget_received, is_restoring, received, serialized};

/// Calls `$run` with the type of number that `$T` is, or returns `None` if it is another type.
macro_rules! with_number {
    ($T:ty, $run:ident) => {
        with_number!($T, $run, u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64)
    };
    ($T:ty, $run:ident, $($number:ty)*) => {{
        let of = TypeId::of::<$T>();
        $(if of == TypeId::of::<$number>() {
            return Some($run!($number));
        })*
        None
    }};
}

impl<T: Pod + Send + Sync> Serialize for Buffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let part = || Part {
            element: Element::of::<T>(),
            bytes: self.to_bytes(),
        };
        match out_of_band::hand_over(part) {
            None => self.serialize_alone(serializer),
            Some(Ok(index)) => serializer.serialize_newtype_struct(out_of_band::INDEX, &index),
            Some(Err(error)) => Err(S::Error::custom(error)),
        }
    }
}

impl<'de, T: Pod + Send + Sync> Deserialize<'de> for Buffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !out_of_band::is_loading() {
            return match is_restoring() {
                false => alone_again(deserializer).map(Self::from),
                true => deserializer.deserialize_tuple(2, MarkVisitor(PhantomData)),
            };
        }
        let index = u32::deserialize(deserializer)?;
        let wanted = (Element::of::<T>(), std::any::type_name::<T>());
        out_of_band::take_back(index, wanted, Buffer::view).map_err(D::Error::custom)
    }
}

impl<T: Pod + Send + Sync> Buffer<T> {
    /// Serializes this buffer where no model is being shared.
    fn serialize_alone<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let left_out = match serialized(size_of_val(&**self), align_of::<T>(), || self.to_bytes()) {
            Serialized::Alone => return alone(self, serializer),
            Serialized::Again => {
                return Err(S::Error::custom(
                    "a large buffer, which is left out the next time",
                ));
            }
            Serialized::Marked => None,
            Serialized::LeftOut(position) => Some(position),
        };
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&left_out.is_none())?;
        match left_out {
            None => tuple.serialize_element(&Alone(self))?,
            Some(position) => tuple.serialize_element(&position)?,
        }
        tuple.end()
    }

    /// Makes a buffer of the bytes that were left out at this position.
    fn from_received(position: u32) -> Result<Self, String> {
        let received = received(position).ok_or("a buffer that was left out did not arrive")?;
        let (bytes, size) = (received.len(), size_of::<T>());
        if !bytes.is_multiple_of(size) {
            let name = std::any::type_name::<T>();
            return Err(format!(
                "{bytes} bytes are no whole elements of {size} bytes ({name})"
            ));
        }
        let copied = |bytes: &[u8]| {
            forget_received(position);
            elements_of(bytes).unwrap_or_default().into()
        };
        Ok(match received {
            Shared::Block(block) if align_of::<T>() <= HeldBlock::ALIGN => Self::lazy(block),
            Shared::Block(block) => copied(block.bytes()),
            Shared::Bytes(bytes) => {
                let owned = Foreign(bytes);
                match bytemuck::try_cast_slice::<u8, T>(owned.bytes()) {
                    Ok(_) => Self::on_heap(Arc::new(owned)),
                    Err(_) => copied(owned.bytes()),
                }
            }
        })
    }
}

/// The elements of a buffer that is marked as being here, to be serialized.
struct Alone<'a, T>(&'a [T]);

impl<T: Pod> Serialize for Alone<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        alone(self.0, serializer)
    }
}

/// The elements of such a buffer, deserialized.
struct OwnedAlone<T>(Vec<T>);

impl<'de, T: Pod> Deserialize<'de> for OwnedAlone<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        alone_again(deserializer).map(Self)
    }
}

/// Reads a mark, and the buffer that it announces.
struct MarkVisitor<T>(PhantomData<fn() -> T>);

impl<'de, T: Pod + Send + Sync> Visitor<'de> for MarkVisitor<T> {
    type Value = Buffer<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a buffer, or the mark of one that was left out")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Buffer<T>, A::Error> {
        let missing = |at| A::Error::invalid_length(at, &self);
        let is_here: bool = elements.next_element()?.ok_or_else(|| missing(0))?;
        if is_here {
            let OwnedAlone(here) = elements.next_element()?.ok_or_else(|| missing(1))?;
            return Ok(here.into());
        }
        let position = elements.next_element()?.ok_or_else(|| missing(1))?;
        Buffer::from_received(position).map_err(A::Error::custom)
    }
}

/// Memory that another type owns.
struct Foreign(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl HeapMemory for Foreign {
    fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        None
    }
}

/// Elements that are not numbers, on their own.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "Buffer")]
struct Rows<B> {
    element_bytes: u64,
    bytes: B,
}

/// Serializes elements without an image to put them into.
fn alone<T: Pod, S: Serializer>(elements: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    match as_numbers(elements, serializer) {
        Ok(done) => done,
        Err(serializer) => Serialize::serialize(
            &Rows {
                element_bytes: size_of::<T>() as u64,
                bytes: Bytes(bytemuck::cast_slice(elements)),
            },
            serializer,
        ),
    }
}

/// Serializes elements as a sequence, or returns the serializer if they are not numbers.
fn as_numbers<T: Pod, S: Serializer>(elements: &[T], serializer: S) -> Result<Result<S::Ok, S::Error>, S> {
    let mut serializer = Some(serializer);
    let mut serialize = || {
        macro_rules! sequence {
            ($number:ty) => {
                serializer
                    .take()
                    .map(|serializer| serializer.collect_seq(bytemuck::cast_slice::<T, $number>(elements)))
            };
        }
        with_number!(T, sequence)
    };
    match (serialize().flatten(), serializer) {
        (Some(done), _) => Ok(done),
        (None, Some(serializer)) => Err(serializer),
        (None, None) => unreachable!("the serializer is taken only where the result is returned"),
    }
}

/// Deserializes what [`alone`] serializes.
fn alone_again<'de, T: Pod, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let mut deserializer = Some(deserializer);
    let mut numbers = || {
        macro_rules! sequence {
            ($number:ty) => {
                deserializer.take().map(|deserializer| {
                    let numbers = Vec::<$number>::deserialize(deserializer)?;
                    let numbers: Box<dyn Any> = Box::new(numbers);
                    // It succeeds: the types were compared.
                    let numbers = numbers.downcast::<Vec<T>>();
                    numbers
                        .map(|numbers| *numbers)
                        .map_err(|_| D::Error::custom("other numbers"))
                })
            };
        }
        with_number!(T, sequence)
    };
    match (numbers().flatten(), deserializer) {
        (Some(done), _) => done,
        (None, Some(deserializer)) => rows(deserializer),
        (None, None) => unreachable!("the deserializer is taken only where the result is returned"),
    }
}

fn rows<'de, T: Pod, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let Rows { element_bytes, bytes } = Rows::<ByteBuf>::deserialize(deserializer)?;
    let name = std::any::type_name::<T>();
    if element_bytes != size_of::<T>() as u64 {
        return Err(D::Error::custom(format_args!(
            "elements of {element_bytes} bytes, wanted are {name} of {} bytes",
            size_of::<T>()
        )));
    }
    elements_of(&bytes.0).ok_or_else(|| {
        D::Error::custom(format_args!(
            "{} bytes are no whole elements of {element_bytes} bytes ({name})",
            bytes.0.len()
        ))
    })
}

/// Copies elements out of bytes of any alignment. Returns `None` if they are no whole elements.
fn elements_of<T: Pod>(bytes: &[u8]) -> Option<Vec<T>> {
    let len = bytes.len().checked_div(size_of::<T>())?;
    let mut elements = vec![T::zeroed(); len];
    let target: &mut [u8] = bytemuck::cast_slice_mut(&mut elements);
    if target.len() != bytes.len() {
        return None;
    }
    target.copy_from_slice(bytes);
    Some(elements)
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct ByteBuf(Vec<u8>);

impl<'de> Deserialize<'de> for ByteBuf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByteVisitor;

        impl<'de> Visitor<'de> for ByteVisitor {
            type Value = ByteBuf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<ByteBuf, E> {
                Ok(ByteBuf(bytes.to_vec()))
            }

            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<ByteBuf, E> {
                Ok(ByteBuf(bytes))
            }

            /// Formats of text, such as JSON, have no bytes.
            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<ByteBuf, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = elements.next_element()? {
                    bytes.push(byte);
                }
                Ok(ByteBuf(bytes))
            }
        }

        deserializer.deserialize_byte_buf(ByteVisitor)
    }
}
