//! Maps files instead of loading them: the caller guarantees that no process changes them.
#![allow(unsafe_code, reason = "maps files that the caller promises not to change")]

use std::path::Path;

use bytemuck::Pod;

use crate::buffer::Buffer;
use crate::error::AttachError;
use crate::model::error::OpenError;
use crate::model::image::Image;
use crate::model::options::LoadOptions;
use crate::model::plain::check_plain;
use crate::os::OpenFile;
use crate::segment::Segment;
use crate::tensors::{self, BufferFileError, Tensor, Tensors};

impl Image {
    /// Maps a plain image read-only, in time independent of its size. Pages are read when they are touched, and all
    /// processes that open the file share them. [`load_shared`](Self::load_shared) is the safe way: it copies the file, and
    /// is the better choice unless the model is larger than memory or only parts of it are read.
    ///
    /// The bytes are checked when they are used; [`verify`](Self::verify) reads all of them. A [handle](Self::handle) always
    /// leads to the same file. On Linux, it is valid even after the name was removed or reused; on other systems, attaching
    /// fails then.
    ///
    /// # Safety
    /// No process writes to the file or truncates it while it is mapped: until this image, its clones and the models
    /// [loaded](Self::load) from it are dropped, here and in each process that attached its [handle](Self::handle). A reader
    /// would see a write through a `&[u8]`: undefined behaviour. Touching a page beyond the new end of a truncated
    /// file ends the process with SIGBUS. Replacing or removing the file's name does not change the file:
    /// [`save`](Self::save) replaces it.
    ///
    /// # Errors
    /// If the file can't be mapped, or its first bytes are not those of a safetensors file.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Backing, Buffer, Image, share};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("model.safetensors");
    /// share(&Buffer::from(vec![0.5f32; 1000]), &Backing::Auto)?.save(&path)?;
    /// // SAFETY: this program never writes its models in place: `save` replaces the file.
    /// let image = unsafe { Image::open(&path)? };
    /// assert_eq!(image.load::<Buffer<f32>>()?[999], 0.5);
    /// # Ok(()) }
    /// ```
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        // SAFETY: the caller gives the same guarantee.
        unsafe { Self::open_with(path, &LoadOptions::new()) }
    }

    /// Like [`open`](Self::open), with another limit for the header. The other options do not apply to mapped files.
    ///
    /// # Safety
    /// As [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub unsafe fn open_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        // SAFETY: the caller gives the same guarantee.
        let segment = unsafe { map(path)? };
        check_plain(&segment, options, || path.display().to_string())?;
        Ok(Self::from_segment_with(segment, options))
    }
}

/// Maps a [safetensors](https://huggingface.co/docs/safetensors) file of any program read-only. Its tensors become buffers
/// without being read. [`load_safetensors`](crate::load_safetensors) is the safe way: it copies the file.
///
/// # Safety
/// As [`Image::open`]: no process writes to the file or truncates it until the tensors and all their buffers are dropped,
/// here and in each process that they were shared with.
///
/// # Errors
/// If the file can't be mapped, or has another format. The header is checked against the file's length.
pub unsafe fn open_safetensors(path: impl AsRef<Path>) -> Result<Tensors, OpenError> {
    // SAFETY: the caller gives the same guarantee.
    unsafe { open_safetensors_with(path, &LoadOptions::new()) }
}

/// Like [`open_safetensors`], with another limit for the header. The other options do not apply to mapped files.
///
/// # Safety
/// As [`open_safetensors`].
///
/// # Errors
/// As [`open_safetensors`].
pub unsafe fn open_safetensors_with(
    path: impl AsRef<Path>,
    options: &LoadOptions,
) -> Result<Tensors, OpenError> {
    let path = path.as_ref();
    // SAFETY: the caller gives the same guarantee.
    let segment = unsafe { map(path)? };
    tensors::from_segment(&segment, options, || path.display().to_string())
}

/// Maps a NumPy array file (`.npy`, versions 1 to 3) read-only: a tensor of little-endian numbers in either
/// [`Order`](crate::Order), named after the file. [`load_npy`](crate::load_npy) is the safe way: it copies the file.
///
/// # Safety
/// As [`Image::open`]: no process writes to the file or truncates it until the tensor and all its buffers are dropped, here
/// and in each process that they were shared with.
///
/// # Errors
/// If the file can't be mapped, has another format, or has not exactly the length that its header declares;
/// [`OpenError::BigEndian`] and [`OpenError::Unsupported`] for elements that can't be used in place.
pub unsafe fn open_npy(path: impl AsRef<Path>) -> Result<Tensor, OpenError> {
    let path = path.as_ref();
    // SAFETY: the caller gives the same guarantee.
    let segment = unsafe { map(path)? };
    tensors::npy(&segment, path)
}

impl<T: Pod + Send + Sync> Buffer<T> {
    /// Maps a file of one array read-only: a `.npy` file of elements `T`, or a file of nothing but such elements. Pages are read
    /// when they are touched. [`load`](Self::load) is the safe way: it copies the file. It also describes the formats.
    ///
    /// # Safety
    /// As [`Image::open`]: no process writes to the file or truncates it until the buffer and all its clones and slices are
    /// dropped, here and in each process that they were shared with.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`BufferFileError::Elements`] if the header of a `.npy` file does not align its elements.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Buffer, bytemuck};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("weights.bin");
    /// std::fs::write(&path, bytemuck::cast_slice(&[0.5f32, 1.5]))?;
    /// // SAFETY: only this program has the path, and it does not write the file again.
    /// let weights = unsafe { Buffer::<f32>::map(&path)? };
    /// assert_eq!(weights, [0.5, 1.5]);
    /// # Ok(()) }
    /// ```
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, BufferFileError> {
        let path = path.as_ref();
        // SAFETY: the caller gives the same guarantee.
        let segment = unsafe { map(path)? };
        Self::in_file(&segment, path)
    }
}

/// Maps a file read-only.
///
/// # Safety
/// As [`Image::open`], for the segment and the processes that attach its handle: the bytes of a [`Segment`] don't change.
unsafe fn map(path: &Path) -> Result<Segment, OpenError> {
    let file = OpenFile::open(path).map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mapping = file.map().map_err(|source| {
        let source = AttachError::Map {
            what: format!("file {}", path.display()),
            len: file.len(),
            source,
        };
        OpenError::Map {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(Segment::of_file(file, mapping))
}
