//! [`Buffer`]: an immutable, cheaply cloned `[T]` of plain old data, on the heap or in a segment.
#![allow(unsafe_code, reason = "views memory that a shared pointer owns as a slice")]

pub(crate) mod element;
mod growing;
pub(crate) mod memory;
pub(crate) mod out_of_band;

pub use growing::BufferMut;

use std::fmt;
use std::ops::{Deref, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};

use self::element::Element;
use self::memory::{BufferMemory, MemoryRange};
use self::out_of_band::Part;
use crate::segment::Segment;

/// The strictest alignment that an element may have, in bytes: a cache line.
pub const MAX_ALIGN: usize = 64;

/// An immutable `[T]`: owned on the heap, or a view that keeps its segment alive. Cloning copies a pointer.
///
/// `T` is plain old data ([`bytemuck::Pod`]) with a size: it has no padding and no pointers, and any bytes are a valid value.
///
/// Serialized on its own, a buffer is a sequence like any `Vec<T>`. While a model is shared, its bytes
/// travel out of band and only an index stays in the model's skeleton; see [`share`](crate::share).
///
/// ```
/// let buffer = shm_buffers::Buffer::from(vec![1.0f64, 2.0]);
/// assert_eq!(buffer[1], 2.0);
/// assert_eq!(buffer.iter().sum::<f64>(), 3.0);
/// ```
///
/// Zero-sized elements, and elements aligned to more than [`MAX_ALIGN`], do not compile:
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
    memory: Arc<dyn BufferMemory>,
}

// SAFETY: a buffer is a shared reference to `[T]` plus an `Arc` of a `Send + Sync` owner (the supertraits of
// `BufferMemory`), so it may go where `&[T]` may.
unsafe impl<T: Sync> Send for Buffer<T> {}
// SAFETY: as above; `&Buffer<T>` gives access to nothing but `&[T]`.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Pod + Send + Sync> Buffer<T> {
    const CHECKED: () = {
        assert!(size_of::<T>() > 0, "a Buffer's elements must have a size");
        assert!(
            align_of::<T>() <= MAX_ALIGN,
            "a Buffer's elements must not be over-aligned"
        );
    };

    /// Returns the `len` elements that start `offset` bytes into `segment`, or `None` if they do not lie in it whole and
    /// aligned. The buffer keeps the segment alive.
    pub fn view(segment: &Segment, offset: usize, len: usize) -> Option<Self> {
        let () = Self::CHECKED;
        let bytes = segment.get(offset..offset.checked_add(len.checked_mul(size_of::<T>())?)?)?;
        let elements: &[T] = bytemuck::try_cast_slice(bytes).ok()?;
        Some(Self {
            start: NonNull::from(elements).cast(),
            len,
            memory: Arc::new(segment.clone()),
        })
    }

    /// Returns the elements in `range`, as a buffer that shares the memory.
    ///
    /// # Panics
    /// If the range is out of bounds.
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
            memory: self.memory.clone(),
        }
    }

    /// Returns the memory of the elements as bytes.
    fn to_bytes(&self) -> MemoryRange {
        MemoryRange::new(self.memory.clone(), bytemuck::cast_slice(self))
    }
}

impl<T> Buffer<T> {
    /// Returns the segment that the elements lie in, or `None` if they are on the heap.
    pub fn segment(&self) -> Option<&Segment> {
        self.memory.segment()
    }
}

impl<T: Pod + Send + Sync> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        let () = Self::CHECKED;
        let heap = Arc::new(Heap(elements));
        // The elements don't move when the `Vec` does, and are not changed: a `Heap` is only mutable through
        // `BufferMemory::exclusive`, which needs the last reference.
        Self {
            start: NonNull::from(heap.0.as_slice()).cast(),
            len: heap.0.len(),
            memory: heap,
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
        // SAFETY: all constructors take `start` and `len` from a `&[T]` owned by `memory`, which lives as long as
        // `self`, does not move its elements, and allows no writes while `self` holds a reference
        // (`Heap`: writes need the last `Arc`; `Segment`: read-only).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self {
            start: self.start,
            len: self.len,
            memory: self.memory.clone(),
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

impl<T: Pod + Send + Sync> BufferMemory for Heap<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    fn segment(&self) -> Option<&Segment> {
        None
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        Some(bytemuck::cast_slice_mut(&mut self.0))
    }
}

impl<T: Pod + Send + Sync + Serialize> Serialize for Buffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let part = || Part {
            element: Element::of::<T>(),
            bytes: self.to_bytes(),
        };
        match out_of_band::hand_over(part) {
            None => serializer.collect_seq(self.iter()),
            Some(Ok(index)) => serializer.serialize_u32(index),
            Some(Err(error)) => Err(S::Error::custom(error)),
        }
    }
}

impl<'de, T: Pod + Send + Sync + Deserialize<'de>> Deserialize<'de> for Buffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !out_of_band::is_loading() {
            return Vec::deserialize(deserializer).map(Self::from);
        }
        let index = u32::deserialize(deserializer)?;
        let wanted = (Element::of::<T>(), std::any::type_name::<T>());
        out_of_band::take_back(index, wanted, Buffer::view).map_err(D::Error::custom)
    }
}
