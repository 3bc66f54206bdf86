//! [`BufferMut`]: a `[T]` that grows in the segment where it will be shared.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::{fmt, io, iter};

use bytemuck::Pod;

use super::Buffer;
use crate::backing::{Backing, BackingKind, Pages};
use crate::copy;
use crate::error::{CreateError, FreezeError};
use crate::segment::SegmentMut;

/// The least capacity that a growing buffer reserves ahead, in bytes.
const MIN_AHEAD: usize = 64 << 10;

/// A `[T]` under construction, in a segment of its own. [Freezing](Self::freeze) it returns a [`Buffer`] that any process can
/// read, without a copy.
///
/// It grows as a `Vec` does, but its pages are not copied: the memory only moves within the address space. Unused capacity
/// takes no memory (anonymous memory), or is released when the buffer is frozen (other backings). `T` has the same
/// requirements as the elements of a [`Buffer`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Buffer, BufferMut, Segment};
///
/// let mut squares = BufferMut::from_fn(&Backing::Auto, 1000, |i| (i * i) as u64)?; // on all cores
/// squares.push(7)?;
/// squares.extend(10..12)?;
/// squares[0] = 9;
/// let squares: Buffer<u64> = squares.freeze()?;
///
/// let handle = squares.segment().expect("it is in a segment").handle()?; // goes to another process, which does
/// let theirs: Buffer<u64> = Buffer::view(&Segment::attach(&handle)?, 0, squares.len()).expect("it fits");
/// assert_eq!((theirs[0], theirs[999], &theirs[1000..]), (9, 999 * 999, &[7, 10, 11][..]));
/// # Ok(()) }
/// ```
///
/// Zero-sized elements, and elements aligned to more than [`MAX_ALIGN`](crate::MAX_ALIGN), do not compile:
///
/// ```compile_fail,E0080
/// let nothing = shm_buffers::BufferMut::<[u8; 0]>::new(&shm_buffers::Backing::Auto);
/// ```
/// ```compile_fail,E0080
/// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C, align(128))]
/// struct Wide([u8; 128]);
/// let wide = shm_buffers::BufferMut::<Wide>::new(&shm_buffers::Backing::Auto);
/// ```
pub struct BufferMut<T> {
    segment: SegmentMut,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod + Send + Sync> BufferMut<T> {
    /// Creates an empty buffer. Its segment is created immediately, so that an unsuitable backing is an error here.
    ///
    /// # Errors
    /// As [`SegmentMut::create`].
    pub fn new(backing: &Backing) -> Result<Self, CreateError> {
        Self::with_capacity(backing, 0)
    }

    /// Creates an empty buffer with capacity for `capacity` elements.
    ///
    /// # Errors
    /// As [`SegmentMut::create`].
    pub fn with_capacity(backing: &Backing, capacity: usize) -> Result<Self, CreateError> {
        let () = Buffer::<T>::CHECKED;
        Ok(Self {
            segment: SegmentMut::create(backing, bytes::<T>(capacity))?,
            len: 0,
            elements: PhantomData,
        })
    }

    /// Creates a buffer of `len` zeroed elements.
    ///
    /// # Errors
    /// As [`SegmentMut::create`].
    pub fn zeroed(backing: &Backing, len: usize) -> Result<Self, CreateError> {
        let mut zeroed = Self::with_capacity(backing, len)?;
        zeroed.len = len;
        Ok(zeroed)
    }

    /// Creates a buffer of `len` elements, each computed from its index, on all cores.
    ///
    /// # Errors
    /// As [`SegmentMut::create`].
    pub fn from_fn(
        backing: &Backing,
        len: usize,
        element: impl Fn(usize) -> T + Sync,
    ) -> Result<Self, CreateError> {
        let mut filled = Self::zeroed(backing, len)?;
        filled.fill_with(element);
        Ok(filled)
    }

    /// Replaces each element by a value computed from its index, on all cores.
    pub fn fill_with(&mut self, element: impl Fn(usize) -> T + Sync) {
        copy::fill_in_parallel(self.as_mut_slice(), |start, part| {
            for (index, slot) in (start..).zip(part) {
                *slot = element(index);
            }
        });
    }

    /// Appends an element.
    ///
    /// # Errors
    /// [`CreateError::NoSpace`] if the segment can't grow. The elements are unchanged then.
    pub fn push(&mut self, element: T) -> Result<(), CreateError> {
        if self.len == self.capacity() {
            self.reserve(1)?;
        }
        self.len += 1;
        let last = self.len - 1;
        self.as_mut_slice()[last] = element;
        Ok(())
    }

    /// Appends the elements of an iterator.
    ///
    /// # Errors
    /// As [`push`](Self::push). The elements before the one that did not fit are appended.
    pub fn extend(&mut self, elements: impl IntoIterator<Item = T>) -> Result<(), CreateError> {
        let mut elements = elements.into_iter();
        while let Some(first) = elements.next() {
            self.reserve(elements.size_hint().0.saturating_add(1))?;
            let free = self.len * size_of::<T>()..self.capacity() * size_of::<T>();
            let free: &mut [T] = bytemuck::cast_slice_mut(&mut self.segment[free]);
            // The slot is taken first: an element must not be lost when no slot is free.
            for (slot, element) in free.iter_mut().zip(iter::once(first).chain(elements.by_ref())) {
                *slot = element;
                self.len += 1;
            }
        }
        Ok(())
    }

    /// Appends copies of `elements`, on all cores if they have more than a few MiB.
    ///
    /// # Errors
    /// As [`push`](Self::push). No element is appended then.
    pub fn extend_from_slice(&mut self, elements: &[T]) -> Result<(), CreateError> {
        self.reserve(elements.len())?;
        let end = self.len * size_of::<T>();
        self.segment.copy_at(end, bytemuck::cast_slice(elements));
        self.len += elements.len();
        Ok(())
    }

    /// Reserves capacity for at least `additional` more elements.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn reserve(&mut self, additional: usize) -> Result<(), CreateError> {
        let needed = bytes::<T>(self.len.saturating_add(additional));
        let had = self.segment.len();
        if needed <= had {
            return Ok(());
        }
        // Anonymous memory costs nothing until it is touched. Other backings reserve, and so occupy, all of it.
        let ahead = match self.segment.backing() {
            BackingKind::Anonymous => had,
            BackingKind::Named | BackingKind::File => had / 4,
        };
        // If that does not fit, less may fit; but never so little that every push has to grow the segment.
        let mut ahead = ahead.max(MIN_AHEAD);
        while ahead >= MIN_AHEAD {
            let wanted = had.saturating_add(ahead);
            if wanted > needed && self.segment.resize(wanted).is_ok() {
                return Ok(());
            }
            ahead /= 2;
        }
        self.segment.resize(needed)
    }

    /// Removes the elements from index `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Returns the number of elements that fit before the segment has to grow.
    pub fn capacity(&self) -> usize {
        self.segment.len() / size_of::<T>()
    }

    /// Returns the kind of memory that the segment is in.
    pub fn backing(&self) -> BackingKind {
        self.segment.backing()
    }

    /// Returns the kind of pages that the system granted.
    pub fn pages(&self) -> Pages {
        self.segment.pages()
    }

    /// Returns the elements.
    pub fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(&self.segment[..self.len * size_of::<T>()])
    }

    /// Returns the elements for writing.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.segment[..self.len * size_of::<T>()])
    }

    /// Makes the memory read-only permanently, releases unused capacity, and returns the elements as a buffer, without a copy.
    ///
    /// # Errors
    /// If the system refuses to trim, seal or map the memory.
    pub fn freeze(self) -> Result<Buffer<T>, FreezeError> {
        let Self { mut segment, len, .. } = self;
        let size = len * size_of::<T>();
        let failed = |step, source| FreezeError {
            step,
            len: size,
            source,
        };
        segment
            .resize(size)
            .map_err(|e| failed("trim", io::Error::other(e)))?;
        Buffer::view(&segment.freeze()?, 0, len)
            .ok_or_else(|| failed("view", io::ErrorKind::InvalidData.into()))
    }
}

/// Returns the bytes of `len` elements, saturating.
fn bytes<T>(len: usize) -> usize {
    len.saturating_mul(size_of::<T>())
}

impl<T: Pod + Send + Sync> Deref for BufferMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Pod + Send + Sync> DerefMut for BufferMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.as_mut_slice()
    }
}

impl<T: Pod + Send + Sync + fmt::Debug> fmt::Debug for BufferMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}
