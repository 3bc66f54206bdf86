//! Arrow over a [`Buffer`]: Arrow buffers without a copy, and [`SharedArrow`], an Arrow array that a model can contain.

use std::sync::Arc;
use std::{fmt, mem};

use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, MutableBuffer, NullBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};
use bytemuck::Pod;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::buffer::memory::HeapMemory;
use crate::buffer::{AlignedBytes, Buffer};

/// A buffer that Arrow owns.
struct ArrowOwner<T>(Buffer<T>);

impl<T: Pod + Send + Sync> AsRef<[u8]> for ArrowOwner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Shares the memory, which Arrow's buffer keeps alive.
impl<T: Pod + Send + Sync> From<Buffer<T>> for arrow_buffer::Buffer {
    fn from(buffer: Buffer<T>) -> Self {
        Self::from(Bytes::from_owner(ArrowOwner(buffer)))
    }
}

/// Shares the memory, which Arrow's buffer keeps alive: `PrimitiveArray::new(buffer.into(), None)` is an array over it.
impl<T: Pod + Send + Sync + ArrowNativeType> From<Buffer<T>> for ScalarBuffer<T> {
    fn from(buffer: Buffer<T>) -> Self {
        arrow_buffer::Buffer::from(buffer).into()
    }
}

/// Memory of Arrow as that of a buffer.
enum ArrowMemory {
    Shared(arrow_buffer::Buffer),
    /// Arrow has no other reference to it.
    Exclusive(MutableBuffer),
}

impl HeapMemory for ArrowMemory {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(buffer) => buffer,
            Self::Exclusive(buffer) => buffer,
        }
    }

    /// Other Arrow buffers may share the memory, or it is that of a foreign owner.
    fn exclusive(&mut self) -> Option<&mut [u8]> {
        if let Self::Shared(buffer) = self {
            // The same memory, at the same address.
            *self = match mem::take(buffer).into_mutable() {
                Ok(exclusive) => Self::Exclusive(exclusive),
                Err(shared) => Self::Shared(shared),
            };
        }
        match self {
            Self::Shared(_) => None,
            Self::Exclusive(buffer) => Some(buffer),
        }
    }
}

/// Keeps the memory, without a copy.
impl From<arrow_buffer::Buffer> for Buffer<u8> {
    fn from(buffer: arrow_buffer::Buffer) -> Self {
        Self::on_heap(Arc::new(ArrowMemory::Shared(buffer)))
    }
}

/// An immutable Arrow array of any type over [`Buffer`]s, as a part of a model.
///
/// ```
/// use arrow_array::{Array, StringArray, cast::AsArray};
/// use shm_buffers::{Backing, SharedArrow, share_move};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let titles = StringArray::from(vec![Some("Solaris"), None, Some("Stalker")]);
/// let expected = titles.clone();
/// let image = share_move(SharedArrow::from(titles), &Backing::Auto)?;
///
/// let theirs: SharedArrow = image.load()?; // in this or another process
/// let array = theirs.to_array()?; // reads the shared memory
/// assert_eq!(array.as_string::<i32>(), &expected);
/// # Ok(()) }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct SharedArrow {
    data_type: DataType,
    len: usize,
    offset: usize,
    nulls: Option<Buffer<u8>>,
    buffers: Vec<Buffer<u8>>,
    children: Vec<SharedArrow>,
}

impl SharedArrow {
    /// Copies the buffers of an array, which are then shared or moved with the model.
    ///
    /// [`from`](Self::from) keeps them without a copy.
    pub fn copy(array: &dyn Array) -> Self {
        let copy = |buffer: arrow_buffer::Buffer| AlignedBytes::from(&buffer[..]).into();
        Self::of(&array.to_data(), &copy)
    }

    fn of(data: &ArrayData, buffer: &dyn Fn(arrow_buffer::Buffer) -> Buffer<u8>) -> Self {
        Self {
            data_type: data.data_type().clone(),
            len: data.len(),
            offset: data.offset(),
            // A copy, if they start within a byte.
            nulls: data.nulls().map(|nulls| buffer(nulls.inner().sliced())),
            buffers: data.buffers().iter().cloned().map(buffer).collect(),
            children: data
                .child_data()
                .iter()
                .map(|child| Self::of(child, buffer))
                .collect(),
        }
    }

    /// Returns the array, over the shared memory. Each call checks everything that Arrow trusts (offsets, UTF-8), so keep the
    /// result.
    ///
    /// # Errors
    /// If the buffers are not a valid array of the type.
    pub fn to_array(&self) -> Result<ArrayRef, ArrowError> {
        Ok(make_array(self.to_data()?))
    }

    fn to_data(&self) -> Result<ArrayData, ArrowError> {
        let nulls = self.nulls.as_ref().map(|bits| {
            if bits.len() < self.len.div_ceil(8) {
                let error = format!("{} bytes of nulls for {} values", bits.len(), self.len);
                return Err(ArrowError::InvalidArgumentError(error));
            }
            Ok(NullBuffer::new(BooleanBuffer::new(
                bits.clone().into(),
                0,
                self.len,
            )))
        });
        let buffers = self.buffers.iter().cloned().map(arrow_buffer::Buffer::from);
        let children = self.children.iter().map(Self::to_data);
        ArrayData::builder(self.data_type.clone())
            .len(self.len)
            .offset(self.offset)
            .nulls(nulls.transpose()?)
            .buffers(buffers.collect())
            .child_data(children.collect::<Result<_, _>>()?)
            // Buffers of an image are aligned, and so are those of Arrow. This copies others, of a model in a format such as JSON.
            .align_buffers(true)
            .build()
    }

    /// Returns the type of the values.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the array has no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Keeps the buffers of the array, without a copy. They are copied once, when the model is shared. If nothing else refers to them,
/// and Arrow has allocated them, [`share_move`](crate::share_move) releases them while it copies.
impl<A: Array> From<A> for SharedArrow {
    fn from(array: A) -> Self {
        Self::of(&array.into_data(), &Buffer::from)
    }
}

impl fmt::Debug for SharedArrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedArrow")
            .field("data_type", &self.data_type)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether the memory can be released while it is moved. It stays where it is in any case.
    fn is_exclusive(buffer: arrow_buffer::Buffer) -> bool {
        let (address, expected) = (buffer.as_ptr(), buffer.to_vec());
        let mut memory = ArrowMemory::Shared(buffer);
        let mut is_exclusive = || memory.exclusive().map(|bytes| bytes.as_ptr() == address);
        let first = is_exclusive();
        assert_eq!(is_exclusive(), first);
        assert_ne!(first, Some(false), "it was moved");
        assert_eq!(
            (memory.bytes().as_ptr(), memory.bytes()),
            (address, &expected[..])
        );
        first.is_some()
    }

    #[test]
    fn only_memory_without_other_references_is_exclusive() {
        let buffer = || arrow_buffer::Buffer::from_vec(vec![1_u64, 2, 3]);
        assert!(is_exclusive(buffer()));
        let part = |start| {
            let whole = buffer();
            whole.slice_with_length(start, 8)
        };
        assert!(is_exclusive(part(0)));
        assert!(!is_exclusive(part(8)), "it is not the start of the memory");
        let other = buffer();
        assert!(!is_exclusive(other.clone()));
        assert_eq!(other.typed_data::<u64>(), [1, 2, 3]);
        let ours = Buffer::from(vec![1_u64, 2, 3]);
        assert!(!is_exclusive(ours.into()), "Arrow has not allocated it");
    }
}
