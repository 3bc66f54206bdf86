//! [`OwnedBytes`]: memory that is a vector of numbers and its encoding.
#![allow(unsafe_code, reason = "receives into memory that is not initialized")]

use std::collections::TryReserveError;
use std::fmt;
use std::ops::Deref;
use std::slice;

use bytemuck::{AnyBitPattern, NoUninit, Pod};
use shm_buffers::arena::{Block, BlockError, BlockReader};

use crate::os::prefer_huge_pages;

/// Bytes in memory that has the alignment of a type of numbers, so that a vector of them is converted into bytes and back without a
/// copy. With it, a [`Codec`](crate::Codec) avoids copies of large values.
pub struct OwnedBytes(Memory);

/// A vector for each alignment.
enum Memory {
    One(Vec<u8>),
    Two(Vec<u16>),
    Four(Vec<u32>),
    Eight(Vec<u64>),
    Sixteen(Vec<u128>),
}

/// Evaluates an expression with the vector.
macro_rules! with_vec {
    ($memory:expr, $vec:ident => $value:expr) => {
        match $memory {
            Memory::One($vec) => $value,
            Memory::Two($vec) => $value,
            Memory::Four($vec) => $value,
            Memory::Eight($vec) => $value,
            Memory::Sixteen($vec) => $value,
        }
    };
}

impl OwnedBytes {
    /// Takes a vector of plain old data.
    ///
    /// # Errors
    /// The vector, if its elements have no size, or an alignment of more than 16 bytes.
    pub fn from_vec<T: NoUninit>(vec: Vec<T>) -> Result<Self, Vec<T>> {
        fn cast<T: NoUninit, N: Pod>(
            vec: Vec<T>,
            memory: fn(Vec<N>) -> Memory,
        ) -> Result<OwnedBytes, Vec<T>> {
            let vec = bytemuck::try_cast_vec(vec).map_err(|(_, vec)| vec)?;
            Ok(OwnedBytes(memory(vec)))
        }

        match align_of::<T>() {
            _ if size_of::<T>() == 0 => Err(vec),
            1 => cast(vec, Memory::One),
            2 => cast(vec, Memory::Two),
            4 => cast(vec, Memory::Four),
            8 => cast(vec, Memory::Eight),
            16 => cast(vec, Memory::Sixteen),
            _ => Err(vec),
        }
    }

    /// Converts into a vector of plain old data.
    ///
    /// # Errors
    /// Itself, if the memory has another alignment than `T`, or does not consist of whole elements.
    pub fn into_vec<T: AnyBitPattern>(self) -> Result<Vec<T>, Self> {
        fn cast<T: AnyBitPattern, N: Pod>(
            vec: Vec<N>,
            memory: fn(Vec<N>) -> Memory,
        ) -> Result<Vec<T>, OwnedBytes> {
            bytemuck::try_cast_vec(vec).map_err(|(_, vec)| OwnedBytes(memory(vec)))
        }

        if size_of::<T>() == 0 {
            return Err(self);
        }
        match self.0 {
            Memory::One(vec) => cast(vec, Memory::One),
            Memory::Two(vec) => cast(vec, Memory::Two),
            Memory::Four(vec) => cast(vec, Memory::Four),
            Memory::Eight(vec) => cast(vec, Memory::Eight),
            Memory::Sixteen(vec) => cast(vec, Memory::Sixteen),
        }
    }

    /// Makes empty bytes for a payload of `len` bytes: of the wanted alignment, or of that of bytes if the payload does not consist of
    /// whole elements.
    pub(crate) fn with_align(align: usize, len: u64) -> Self {
        Self(match align {
            2 if len.is_multiple_of(2) => Memory::Two(Vec::new()),
            4 if len.is_multiple_of(4) => Memory::Four(Vec::new()),
            8 if len.is_multiple_of(8) => Memory::Eight(Vec::new()),
            16 if len.is_multiple_of(16) => Memory::Sixteen(Vec::new()),
            _ => Memory::One(Vec::new()),
        })
    }

    /// Returns the size of an element in bytes.
    pub(crate) fn align(&self) -> usize {
        fn of<T>(_: &Vec<T>) -> usize {
            size_of::<T>()
        }
        with_vec!(&self.0, vec => of(vec))
    }

    pub(crate) fn capacity(&self) -> usize {
        with_vec!(&self.0, vec => vec.capacity()) * self.align()
    }

    pub(crate) fn clear(&mut self) {
        with_vec!(&mut self.0, vec => vec.clear());
    }

    /// Reserves memory for `bytes` more bytes, and prefers large pages for it.
    pub(crate) fn try_reserve(&mut self, bytes: usize) -> Result<(), TryReserveError> {
        let size = self.align();
        shm_buffers::expect_blocks(bytes);
        with_vec!(&mut self.0, vec => {
            vec.try_reserve_exact(bytes.div_ceil(size))?;
            prefer_huge_pages(vec);
        });
        Ok(())
    }

    /// Appends a copy of a block, each byte of which is read once.
    pub(crate) fn append(&mut self, reader: &mut BlockReader, block: Block) -> Result<(), BlockError> {
        with_vec!(&mut self.0, vec => append(vec, reader, block))
    }
}

fn append<N: Pod>(vec: &mut Vec<N>, reader: &mut BlockReader, block: Block) -> Result<(), BlockError> {
    let len = reader.check(block)?;
    let size = size_of::<N>();
    if !len.is_multiple_of(size) {
        return Err(BlockError::Impossible {
            offset: block.offset,
            len: block.len,
            capacity: block.len - block.len % size as u64,
        });
    }
    vec.try_reserve(len / size)
        .map_err(|_| BlockError::Memory { len })?;
    let spare = vec.spare_capacity_mut();
    // SAFETY: this is the memory of the spare capacity, borrowed as before. Bytes have no alignment, and may be uninitialized.
    let bytes = unsafe { slice::from_raw_parts_mut(spare.as_mut_ptr().cast(), size_of_val(spare)) };
    let read = reader.read_into(block, bytes)?;
    // SAFETY: `read` bytes of the spare capacity were initialized, and any bytes are a valid `N`, because it is `Pod`.
    unsafe { vec.set_len(vec.len() + read / size) };
    Ok(())
}

impl Default for OwnedBytes {
    fn default() -> Self {
        Self(Memory::One(Vec::new()))
    }
}

impl From<Vec<u8>> for OwnedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Memory::One(bytes))
    }
}

impl Deref for OwnedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        with_vec!(&self.0, vec => bytemuck::cast_slice(vec))
    }
}

impl AsRef<[u8]> for OwnedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for OwnedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedBytes({}, aligned to {})", self.len(), self.align())
    }
}

impl PartialEq for OwnedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for OwnedBytes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, bytemuck::Zeroable, bytemuck::Pod)]
    #[repr(C)]
    struct Point {
        x: f32,
        y: f32,
        z: f32,
    }

    fn check_back<T: Pod + PartialEq + fmt::Debug>(vec: Vec<T>) {
        let address = vec.as_ptr().addr();
        let owned = OwnedBytes::from_vec(vec.clone()).expect("it is plain old data");
        assert_eq!(*owned, *bytemuck::cast_slice::<T, u8>(&vec));
        assert_eq!(owned.align(), align_of::<T>());
        assert_eq!(owned.into_vec::<T>().expect("the same type"), vec);
        let owned = OwnedBytes::from_vec(vec).expect("it is plain old data");
        assert_eq!(owned.as_ptr().addr(), address, "nothing is copied");
    }

    #[test]
    fn vectors_become_bytes_and_vectors_again_without_a_copy() {
        check_back(vec![1_u8; 1000]);
        check_back(vec![1_i16; 1000]);
        check_back(vec![1.5_f32; 1000]);
        check_back(vec![1.5_f64; 1000]);
        check_back(vec![1_u128; 10]);
        check_back(vec![[1_u16; 3]; 7]);
        let mut points = Vec::with_capacity(10);
        points.push(Point {
            x: 1.0,
            y: 2.0,
            z: 3.0,
        });
        check_back(points);
    }

    #[test]
    fn other_types_are_refused_and_returned() {
        assert_eq!(OwnedBytes::from_vec(vec![(); 3]).expect_err("no size"), [(); 3]);
        let owned = OwnedBytes::from_vec(vec![1_u32; 4]).expect("it is plain old data");
        let owned = owned.into_vec::<u64>().expect_err("another alignment");
        let owned = owned.into_vec::<Point>().expect_err("no whole number of points");
        assert_eq!(owned.into_vec::<f32>().expect("as before").len(), 4);
    }

    #[test]
    fn memory_is_made_for_whole_elements_only() {
        for (align, len, found) in [
            (4, 8, 4),
            (4, 9, 1),
            (16, 24, 1),
            (16, 32, 16),
            (3, 9, 1),
            (1, 5, 1),
        ] {
            assert_eq!(OwnedBytes::with_align(align, len).align(), found);
        }
    }
}
