//! [`Buffer`]: an immutable, cheaply cloned `[T]` of plain old data, on the heap or in a segment.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Deref, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};

use crate::model::scope::{self, Block, Element, Part};
use crate::segment::Segment;

/// The strictest alignment of an element, in bytes: a cache line.
pub const MAX_ALIGN: usize = 64;

/// An immutable `[T]`: owned on the heap, or a view that keeps its segment alive. Cloning copies a pointer.
///
/// `T` is plain old data ([`bytemuck::Pod`]): it has a size, no padding, no pointers, and any bytes are a value
/// of it.
///
/// Serialized on its own, a buffer is a sequence like any `Vec<T>`. While a model is shared, its bytes
/// travel out-of-band and only a reference stays in the model's skeleton; see [`share`](crate::share).
///
/// ```
/// let buffer = shm_buffers::Buffer::from(vec![1.0f64, 2.0]);
/// assert_eq!(buffer[1], 2.0);
/// assert_eq!(buffer.iter().sum::<f64>(), 3.0);
/// ```
///
/// Elements without a size, and those aligned to more than [`MAX_ALIGN`], do not compile:
///
/// ```compile_fail,E0080
/// let nothing = shm_buffers::Buffer::from(vec![[0_u8; 0]]);
/// ```
/// ```compile_fail,E0080
/// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C, align(128))]
/// struct Wide([u8; 128]);
/// let wide = shm_buffers::Buffer::from(vec![Wide([0; 128])]);
/// ```
pub struct Buffer<T> {
    start: NonNull<T>,
    len: usize,
    block: Arc<dyn Keeper>,
}

/// A [`Block`] that tells where it is.
trait Keeper: Block {
    /// The segment, unless the memory is of another kind.
    fn segment(&self) -> Option<&Segment>;
}

// SAFETY: a buffer is a shared reference to `[T]` plus an `Arc` of a `Send + Sync` owner (a supertrait of
// `Block`), so it may go where `&[T]` may.
unsafe impl<T: Sync> Send for Buffer<T> {}
// SAFETY: as above; `&Buffer<T>` gives nothing but `&[T]`.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Pod + Send + Sync> Buffer<T> {
    pub(crate) const CHECKED: () = {
        assert!(size_of::<T>() > 0, "a Buffer's elements must have a size");
        assert!(
            align_of::<T>() <= MAX_ALIGN,
            "a Buffer's elements must not be over-aligned"
        );
    };

    /// The `len` elements that start `offset` bytes into `segment`, which is kept alive; `None` if they don't lie in
    /// it whole and aligned.
    pub fn view(segment: &Segment, offset: usize, len: usize) -> Option<Self> {
        let () = Self::CHECKED;
        let bytes = segment.get(offset..offset.checked_add(len.checked_mul(size_of::<T>())?)?)?;
        let elements: &[T] = bytemuck::try_cast_slice(bytes).ok()?;
        Some(Self {
            start: NonNull::from(elements).cast(),
            len,
            block: Arc::new(segment.clone()),
        })
    }

    /// The elements in `range`, sharing the memory.
    ///
    /// # Panics
    /// If the range is not inside the buffer, as indexing does.
    ///
    /// ```
    /// let buffer = shm_buffers::Buffer::from(vec![1, 2, 3, 4]);
    /// let inner = buffer.slice(1..).slice(..2);
    /// assert_eq!(*inner, [2, 3]);
    /// assert!(std::ptr::eq(&*inner, &buffer[1..3]));
    /// ```
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let elements = &self[bounds];
        Self {
            start: NonNull::from(elements).cast(),
            len: elements.len(),
            block: self.block.clone(),
        }
    }

    /// The same memory as bytes.
    fn to_bytes(&self) -> Buffer<u8> {
        let bytes: &[u8] = bytemuck::cast_slice(self);
        Buffer {
            start: NonNull::from(bytes).cast(),
            len: bytes.len(),
            block: self.block.clone(),
        }
    }
}

impl<T> Buffer<T> {
    /// The segment that it lies in; `None` if it is on the heap.
    pub fn segment(&self) -> Option<&Segment> {
        self.block.segment()
    }
}

impl Buffer<u8> {
    /// Gives the memory up for [`Block::exclusive`], if it is this process's heap, whole and nobody else's.
    pub(crate) fn into_exclusive(self) -> Result<Arc<dyn Block>, Self> {
        let Self {
            start,
            len,
            mut block,
        } = self;
        let bytes = Arc::get_mut(&mut block).and_then(|block| block.exclusive());
        match bytes {
            Some(bytes) if bytes.len() == len && bytes.as_ptr() == start.as_ptr() => Ok(block),
            _ => Err(Self { start, len, block }),
        }
    }
}

impl<T: Pod + Send + Sync> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        let () = Self::CHECKED;
        let heap = Arc::new(Heap(elements));
        // A `Vec`'s elements don't move with the `Vec`; nobody changes them: `Heap` is only reached mutably
        // through `Block::exclusive`, which needs the last reference.
        Self {
            start: NonNull::from(heap.0.as_slice()).cast(),
            len: heap.0.len(),
            block: heap,
        }
    }
}

impl<T: Pod + Send + Sync> FromIterator<T> for Buffer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self::from(elements.into_iter().collect::<Vec<_>>())
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: both constructors take `start` and `len` from a `&[T]` owned by `block`, which lives as long as
        // `self`, does not move its elements, and lets nobody write them while `self` holds a reference
        // (`Heap`: needs the last `Arc`; `Segment`: read-only).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self {
            start: self.start,
            len: self.len,
            block: self.block.clone(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Send + Sync> Default for Buffer<T> {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

struct Heap<T>(Vec<T>);

impl<T: Pod + Send + Sync> Keeper for Heap<T> {
    fn segment(&self) -> Option<&Segment> {
        None
    }
}

impl Keeper for Segment {
    fn segment(&self) -> Option<&Segment> {
        Some(self)
    }
}

impl<T: Pod + Send + Sync> Block for Heap<T> {
    fn exclusive(&mut self) -> Option<&mut [u8]> {
        Some(bytemuck::cast_slice_mut(&mut self.0))
    }
}

impl Block for Segment {
    fn exclusive(&mut self) -> Option<&mut [u8]> {
        None
    }
}

impl<T: Pod + Send + Sync + Serialize> Serialize for Buffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let part = || Part {
            element: Element::of::<T>(),
            bytes: self.to_bytes(),
        };
        match scope::hand_out(part) {
            None => serializer.collect_seq(self.iter()),
            Some(Ok(index)) => serializer.serialize_u32(index),
            Some(Err(error)) => Err(S::Error::custom(error)),
        }
    }
}

impl<'de, T: Pod + Send + Sync + Deserialize<'de>> Deserialize<'de> for Buffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !scope::is_loading() {
            return Vec::deserialize(deserializer).map(Self::from);
        }
        let index = u32::deserialize(deserializer)?;
        scope::take_in(index).map_err(D::Error::custom)
    }
}
