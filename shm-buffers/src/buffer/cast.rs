//! [`Buffer::cast`]: the same memory as elements of another type.

use bytemuck::{Pod, PodCastError};

use super::Buffer;

/// Why the memory of a buffer can't be used as elements of another type.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CastError {
    /// The bytes are no whole elements.
    #[error(
        "cannot cast a buffer of {from} to {to}: {bytes} bytes are no whole elements of {size}; slice it to a multiple"
    )]
    Size {
        /// The type of the elements.
        from: &'static str,
        /// The requested type.
        to: &'static str,
        /// Bytes of the buffer.
        bytes: usize,
        /// Bytes of an element of the requested type.
        size: usize,
    },
    /// The memory is not aligned for the requested type.
    #[error(
        "cannot cast a buffer of {from} to {to}: its memory is not aligned to {align} bytes; copy it into an `AlignedBytes`"
    )]
    Misaligned {
        /// The type of the elements.
        from: &'static str,
        /// The requested type.
        to: &'static str,
        /// The alignment of the requested type in bytes.
        align: usize,
    },
}

crate::debug_with_causes!(CastError);

impl<T: Pod + Send + Sync> Buffer<T> {
    /// Returns the same memory as elements of another plain type, without a copy.
    ///
    /// # Errors
    /// [`CastError::Size`] if the bytes are no whole elements of `U`. [`CastError::Misaligned`] if the memory is not aligned for
    /// `U`. Buffers of an [`Image`](crate::Image) and [`AlignedBytes`](crate::AlignedBytes) are aligned for every type; other
    /// buffers on the heap only for their own.
    ///
    /// ```
    /// use shm_buffers::{AlignedBytes, Buffer, CastError};
    ///
    /// # fn main() -> Result<(), CastError> {
    /// let bytes: Buffer<u8> = AlignedBytes::from(&[1, 0, 0, 0, 2, 0, 0, 0][..]).into();
    /// let numbers: Buffer<u32> = bytes.cast()?;
    /// assert_eq!(numbers, [1, 2]);
    /// assert!(matches!(bytes.slice(..7).cast::<u32>(), Err(CastError::Size { bytes: 7, .. })));
    /// # Ok(()) }
    /// ```
    pub fn cast<U: Pod + Send + Sync>(&self) -> Result<Buffer<U>, CastError> {
        let () = Buffer::<U>::CHECKED;
        let (from, to) = (std::any::type_name::<T>(), std::any::type_name::<U>());
        let elements: Result<&[U], PodCastError> = bytemuck::try_cast_slice(self);
        match elements {
            Ok(elements) => Ok(Buffer::within(self.memory.clone(), elements)),
            Err(PodCastError::TargetAlignmentGreaterAndInputNotAligned) => Err(CastError::Misaligned {
                from,
                to,
                align: align_of::<U>(),
            }),
            Err(_) => Err(CastError::Size {
                from,
                to,
                bytes: size_of_val(&**self),
                size: size_of::<U>(),
            }),
        }
    }
}
