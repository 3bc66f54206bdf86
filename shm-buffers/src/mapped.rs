//! Files that are mapped instead of loaded: the caller promises that no process changes them.
#![allow(unsafe_code)]

use std::path::Path;

use crate::error::AttachError;
use crate::model::error::OpenError;
use crate::model::file;
use crate::model::image::Image;
use crate::model::options::LoadOptions;
use crate::os::OpenFile;
use crate::segment::Segment;
use crate::tensors::{self, Tensor, Tensors};

impl Image {
    /// Maps a plain image read-only, in time independent of its size: pages are read when they are touched, and all
    /// processes that open the file share them. [`load_shared`](Self::load_shared) is the safe way: it
    /// copies the file, and is right unless the model is larger than memory or only parts of it are read.
    ///
    /// Its bytes are judged when they are used; [`verify`](Self::verify) reads them all. A [handle](Self::handle) leads to
    /// this very file, on Linux also after its name was removed or given to another file; elsewhere attaching then fails.
    ///
    /// # Safety
    /// No process writes to the file or shortens it while it is mapped: until this image, its clones and the models
    /// [loaded](Self::load) from it are gone, here and in each process that attached its [handle](Self::handle). A reader
    /// would see a change through a `&[u8]`: undefined behaviour. A touch of a page beyond the new end of a file ends the
    /// process with SIGBUS. Replacing or removing the file's name is no change of it: [`save`](Self::save) replaces.
    ///
    /// # Errors
    /// When it can't be mapped, or its first bytes are no safetensors file's.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Backing, Buffer, Image, share};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("model.safetensors");
    /// share(&Buffer::from(vec![0.5f32; 1000]), &Backing::Auto)?.save(&path)?;
    /// // SAFETY: models of this program are replaced by `save`, never written in place.
    /// let image = unsafe { Image::open(&path)? };
    /// assert_eq!(image.load::<Buffer<f32>>()?[999], 0.5);
    /// # Ok(()) }
    /// ```
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        // SAFETY: the caller makes the same promise.
        unsafe { Self::open_with(path, &LoadOptions::new()) }
    }

    /// As [`open`](Self::open), with another limit for its header; the other options are for what is loaded.
    ///
    /// # Safety
    /// As [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub unsafe fn open_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        // SAFETY: the caller makes the same promise.
        let segment = unsafe { map(path)? };
        file::judge(&segment, options, || path.display().to_string())?;
        Ok(Self::from_segment_with(segment, options))
    }
}

/// Maps a [safetensors](https://huggingface.co/docs/safetensors) file of any program read-only: its tensors become
/// buffers without being read. [`load_safetensors`](crate::load_safetensors) is the safe way, and copies it.
///
/// # Safety
/// As [`Image::open`]: no process writes to the file or shortens it until the tensors and all buffers of them are gone,
/// here and in each process that they were shared with.
///
/// # Errors
/// When it can't be mapped, or is no such file. What its header says is checked against the file's length.
pub unsafe fn open_safetensors(path: impl AsRef<Path>) -> Result<Tensors, OpenError> {
    // SAFETY: the caller makes the same promise.
    unsafe { open_safetensors_with(path, &LoadOptions::new()) }
}

/// As [`open_safetensors`], with another limit for the header; the other options are for what is loaded.
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
    // SAFETY: the caller makes the same promise.
    let segment = unsafe { map(path)? };
    tensors::from_segment(&segment, options, || path.display().to_string())
}

/// Maps a NumPy array file (`.npy`, versions 1 to 3) read-only: a tensor of little-endian numbers in either
/// [`Order`](crate::Order), named after the file. [`load_npy`](crate::load_npy) is the safe way, and copies it.
///
/// # Safety
/// As [`Image::open`]: no process writes to the file or shortens it until the tensor and all buffers of it are gone, here
/// and in each process that they were shared with.
///
/// # Errors
/// When it can't be mapped, is no such file, or is not exactly as long as its header says;
/// [`OpenError::BigEndian`] and [`OpenError::Unsupported`] for elements that can't be used in place.
pub unsafe fn open_npy(path: impl AsRef<Path>) -> Result<Tensor, OpenError> {
    let path = path.as_ref();
    // SAFETY: the caller makes the same promise.
    let segment = unsafe { map(path)? };
    tensors::npy(&segment, path)
}

/// Maps a file read-only.
///
/// # Safety
/// As [`Image::open`], of the segment and the processes that attach its handle: bytes of a [`Segment`] don't change.
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
