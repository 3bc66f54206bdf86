//! Maps files that the tests created. No test writes to a file, or truncates it, while it is mapped.
#![allow(unsafe_code, reason = "maps a file that the test wrote")]

use std::path::Path;

use shm_buffers::{Buffer, BufferFileError, Image, OpenError, Tensor, Tensors};

pub(crate) fn open(path: impl AsRef<Path>) -> Result<Image, OpenError> {
    // SAFETY: only this process has the path of the file, and its tests drop the image before they change the file, or replace
    // the file: see above.
    unsafe { Image::open(path) }
}

pub(crate) fn open_safetensors(path: impl AsRef<Path>) -> Result<Tensors, OpenError> {
    // SAFETY: as in `open`.
    unsafe { shm_buffers::open_safetensors(path) }
}

pub(crate) fn open_npy(path: impl AsRef<Path>) -> Result<Tensor, OpenError> {
    // SAFETY: as in `open`.
    unsafe { shm_buffers::open_npy(path) }
}

pub(crate) fn map<T>(path: impl AsRef<Path>) -> Result<Buffer<T>, BufferFileError>
where
    T: bytemuck::Pod + Send + Sync,
{
    // SAFETY: as in `open`.
    unsafe { Buffer::map(path) }
}

/// Loads a model of which this process has validated archives.
#[cfg(feature = "rkyv")]
pub(crate) fn load_validated<M: serde::de::DeserializeOwned>(
    image: &Image,
    validated: &shm_buffers::Validated,
) -> Result<M, shm_buffers::LoadError> {
    // SAFETY: the callers have it from `load_validating` of the same image, which is frozen.
    unsafe { image.load_validated(validated) }
}
