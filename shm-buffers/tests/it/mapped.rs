//! Maps files that the tests made. None of them writes to a file, or shortens it, while it is mapped.
#![allow(unsafe_code)]

use std::path::Path;

use shm_buffers::{Image, OpenError, Tensor, Tensors};

pub(crate) fn open(path: impl AsRef<Path>) -> Result<Image, OpenError> {
    // SAFETY: only this process knows the file, and its tests replace it or drop the image first: see above.
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
