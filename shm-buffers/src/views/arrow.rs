//! Arrow over a [`Buffer`]: Arrow buffers without a copy, and [`SharedArrow`], an Arrow array that a model can contain.

use std::fmt;

use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};
use bytemuck::{Pod, Zeroable};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;

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

/// 64 bytes: Arrow's recommended alignment and padding.
#[derive(Clone, Copy, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// Bytes in whole [`Line`]s, so that they are aligned everywhere in an image.
#[derive(Clone, Serialize, Deserialize)]
struct Lines {
    len: usize,
    lines: Buffer<Line>,
}

impl Lines {
    fn copy(bytes: &[u8]) -> Self {
        let mut lines = vec![Line::zeroed(); bytes.len().div_ceil(size_of::<Line>())];
        bytemuck::cast_slice_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
        Self {
            len: bytes.len(),
            lines: lines.into(),
        }
    }

    fn to_arrow(&self) -> Result<arrow_buffer::Buffer, ArrowError> {
        let whole = arrow_buffer::Buffer::from(self.lines.clone());
        match self.len <= whole.len() {
            true => Ok(whole.slice_with_length(0, self.len)),
            false => Err(ArrowError::InvalidArgumentError(format!(
                "{} bytes in a buffer of {}",
                self.len,
                whole.len()
            ))),
        }
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
/// let image = share_move(SharedArrow::copy(&titles), &Backing::Auto)?;
///
/// let theirs: SharedArrow = image.load()?; // in this or another process
/// let array = theirs.to_array()?; // reads the shared memory
/// assert_eq!(array.as_string::<i32>(), &titles);
/// # Ok(()) }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct SharedArrow {
    data_type: DataType,
    len: usize,
    offset: usize,
    nulls: Option<Lines>,
    buffers: Vec<Lines>,
    children: Vec<SharedArrow>,
}

impl SharedArrow {
    /// Copies the buffers of an array. They are then shared or moved with the model.
    pub fn copy(array: &dyn Array) -> Self {
        Self::of(&array.to_data())
    }

    fn of(data: &ArrayData) -> Self {
        Self {
            data_type: data.data_type().clone(),
            len: data.len(),
            offset: data.offset(),
            nulls: data
                .nulls()
                .map(|nulls| Lines::copy(nulls.inner().sliced().as_slice())),
            buffers: data
                .buffers()
                .iter()
                .map(|buffer| Lines::copy(buffer.as_slice()))
                .collect(),
            children: data.child_data().iter().map(Self::of).collect(),
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
            if bits.len < self.len.div_ceil(8) {
                let error = format!("{} bytes of nulls for {} values", bits.len, self.len);
                return Err(ArrowError::InvalidArgumentError(error));
            }
            Ok(NullBuffer::new(BooleanBuffer::new(bits.to_arrow()?, 0, self.len)))
        });
        let buffers = self.buffers.iter().map(Lines::to_arrow);
        let children = self.children.iter().map(Self::to_data);
        ArrayData::builder(self.data_type.clone())
            .len(self.len)
            .offset(self.offset)
            .nulls(nulls.transpose()?)
            .buffers(buffers.collect::<Result<_, _>>()?)
            .child_data(children.collect::<Result<_, _>>()?)
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

impl fmt::Debug for SharedArrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedArrow")
            .field("data_type", &self.data_type)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
