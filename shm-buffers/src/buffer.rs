//! [`Buffer`]: an immutable, cheaply cloned `[T]` of plain old data, on the heap or in a segment.
#![allow(unsafe_code, reason = "views memory that a shared pointer owns as a slice")]

mod aligned;
#[cfg(feature = "bytes")]
mod bytes;
mod cast;
pub(crate) mod element;
mod growing;
pub(crate) mod memory;
pub(crate) mod out_of_band;
mod serde;
mod traits;
mod validated;

pub use aligned::AlignedBytes;
pub use cast::CastError;
pub use growing::BufferMut;
pub use validated::Validated;
#[cfg(feature = "rkyv")]
pub(crate) use validated::kind_of;

use std::fmt;
use std::ops::{Deref, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;

use self::memory::{HeapMemory, Memory, MemoryRange};
use crate::arena::HeldBlock;
use crate::segment::Segment;

/// The strictest alignment that an element may have, in bytes: a cache line.
pub const MAX_ALIGN: usize = 64;

/// An immutable `[T]`: owned on the heap, or a view that keeps its segment alive. Cloning copies a pointer.
///
/// `T` is plain old data ([`bytemuck::Pod`]) with a size: it has no padding and no pointers, and any bytes are a valid value.
/// Numbers, arrays of them of any length and structs that derive [`Pod`](crate::bytemuck::Pod) are. They need no serde.
///
/// While a model is shared, the bytes of a buffer travel out of band and only an index stays in the model's skeleton; see
/// [`share`](crate::share). Serialized on its own, a buffer of numbers is a sequence like any `Vec<T>`; one of other
/// elements is a struct of their size and their bytes (`{"element_bytes":8,"bytes":[…]}` in JSON).
///
/// In an [`Image`](crate::Image), in memory or in a file, each buffer starts at a multiple of [`MAX_ALIGN`] bytes, whatever its
/// type. On the heap it is aligned for its type: use [`AlignedBytes`] for a `Buffer<u8>` with a format that is read in place.
///
/// A buffer takes four words, and one in a segment allocates nothing.
///
/// A buffer that another process has sent, in a task or an output, may be a view of a block that both processes share: see
/// [`crate::out_of_band`]. Its elements are copied into private memory when they are looked at for the first time, and never if they are not.
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
    /// The first element. `None` if the elements are all of `memory`, which makes them when they are looked at.
    start: Option<NonNull<T>>,
    len: usize,
    memory: Memory,
}

// SAFETY: a buffer is a shared reference to `[T]` plus an owner that is `Send + Sync` (a `Segment`, or an `Arc` of a
// `HeapMemory`, whose supertraits they are), so it may go where `&[T]` may.
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
        Some(Self::within(Memory::Segment(segment.clone()), elements))
    }

    /// Returns a buffer of all bytes of `heap`, which is aligned for the elements.
    pub(crate) fn on_heap(heap: Arc<impl HeapMemory + 'static>) -> Self {
        let elements: NonNull<[T]> = NonNull::from(bytemuck::cast_slice(heap.bytes()));
        // The elements don't move when `heap` does, and are not changed: they are only mutable through
        // `HeapMemory::exclusive`, which needs the last reference.
        Self {
            start: Some(elements.cast()),
            len: elements.len(),
            memory: Memory::Heap(heap),
        }
    }

    /// Returns a buffer of a block whose bytes are whole elements. The block is copied when they are looked at.
    ///
    /// # Panics
    /// If the elements are aligned to more than [`HeldBlock::ALIGN`].
    fn lazy(block: HeldBlock) -> Self {
        let () = Self::CHECKED;
        assert!(
            align_of::<T>() <= HeldBlock::ALIGN,
            "the copy of a block is not aligned for this type"
        );
        Self {
            start: None,
            len: block.len() / size_of::<T>(),
            memory: Memory::Heap(Arc::new(block)),
        }
    }

    /// Returns a buffer of elements that lie in `memory`.
    fn within(memory: Memory, elements: &[T]) -> Self {
        Self {
            start: Some(NonNull::from(elements).cast()),
            len: elements.len(),
            memory,
        }
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
        Self::within(self.memory.clone(), &self[bounds])
    }

    /// Returns the memory of the elements as bytes.
    fn to_bytes(&self) -> MemoryRange {
        MemoryRange::new(self.memory.clone(), bytemuck::cast_slice(self))
    }
}

impl<T> Buffer<T> {
    /// Returns the number of elements. This does not look at them.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no elements. This does not look at them.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the segment that the elements lie in, or `None` if they are on the heap.
    pub fn segment(&self) -> Option<&Segment> {
        self.memory.segment()
    }
}

impl<T: Pod + Send + Sync> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        let () = Self::CHECKED;
        Self::on_heap(Arc::new(Heap(elements)))
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        let Some(start) = self.start else {
            return self.look();
        };
        // SAFETY: all constructors but `lazy` take `start` and `len` from a `&[T]` owned by `memory`, which lives as long as
        // `self`, does not move its elements, and allows no writes while `self` holds a reference
        // (`Heap`: writes need the last `Arc`; `Segment`: read-only).
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len) }
    }
}

impl<T> Buffer<T> {
    /// Returns the elements of a [`lazy`](Self::lazy) buffer.
    #[cold]
    fn look(&self) -> &[T] {
        let bytes = self.memory.bytes();
        let len = self.len.min(bytes.len() / size_of::<T>());
        // SAFETY: only `lazy` makes buffers without a start, for a `T: Pod`, any bytes of which are valid elements. `bytes` has
        // `len` whole elements, and is aligned for them: it is a private copy of a `HeldBlock`, aligned to `HeldBlock::ALIGN`,
        // to which `lazy` compares the alignment of `T`. The copy does not move and is never written while `memory`, and so
        // `self`, exists.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), len) }
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

// A view is as small as a reference and its owner can be: a model may have millions.
const _: () = assert!(size_of::<Buffer<u8>>() == 4 * size_of::<usize>());

impl<T: fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl HeapMemory for HeldBlock {
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        None
    }
}

struct Heap<T>(Vec<T>);

impl<T: Pod + Send + Sync> HeapMemory for Heap<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        Some(bytemuck::cast_slice_mut(&mut self.0))
    }
}
