//! A file of one array as a [`Buffer`]: raw numbers, or NumPy's `.npy`.

use std::path::Path;

use bytemuck::Pod;

use super::{TensorError, npy};
use crate::backing::Backing;
use crate::buffer::Buffer;
use crate::model::error::{LoadSharedError, OpenError};
use crate::model::options::LoadOptions;
use crate::model::plain::{check_size, open_regular};
use crate::model::source::Source;
use crate::segment::{Segment, SegmentMut};

/// Why a file was not loaded or mapped as a buffer.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BufferFileError {
    /// The file can't be read or mapped, is no valid `.npy` file, or does not fit into memory.
    #[error(transparent)]
    Load(#[from] LoadSharedError),
    /// The elements of a `.npy` file have another type, or can't be used in place.
    #[error("cannot use the elements of {what}")]
    Elements {
        /// The file.
        what: String,
        /// The difference.
        source: TensorError,
    },
    /// A raw file has no whole elements.
    #[error("{what} has {bytes} bytes, which are no whole elements {wanted} of {size} bytes")]
    Size {
        /// The file.
        what: String,
        /// Bytes of the file.
        bytes: usize,
        /// The requested type.
        wanted: &'static str,
        /// Bytes of an element.
        size: usize,
    },
    /// The file has several arrays with names.
    #[error(
        "{what} has named arrays; load it with `load_safetensors`, or with `Image::load_shared` if it is a model image"
    )]
    Named {
        /// The file.
        what: String,
    },
}

crate::debug_with_causes!(BufferFileError);

/// The format of a file of one array.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Format {
    Npy,
    Raw,
}

impl Format {
    /// Returns the format of a file with these first bytes: the magic string decides, then the extension.
    pub(crate) fn of(path: &Path, first: &[u8]) -> Result<Self, BufferFileError> {
        let is = |wanted: &str| path.extension().is_some_and(|it| it.eq_ignore_ascii_case(wanted));
        if npy::is_npy(first) || is("npy") {
            return Ok(Self::Npy);
        }
        match is("safetensors") || is("zst") {
            true => Err(BufferFileError::Named {
                what: path.display().to_string(),
            }),
            false => Ok(Self::Raw),
        }
    }
}

impl<T: Pod + Send + Sync> Buffer<T> {
    /// Loads a file of one array into a new segment, so that no process copies it again: a `.npy` file of elements `T`, or a file
    /// of nothing but such elements.
    ///
    /// The format is `.npy` if the file starts with its magic string or has that extension. An array of several dimensions
    /// becomes one sequence, in the order of the file; [`load_npy`](crate::load_npy) returns its shape. A raw file has the bytes
    /// of the elements, little-endian, as `numpy.ndarray.tofile` and [`bytemuck::cast_slice`] write them.
    ///
    /// # Errors
    /// [`BufferFileError::Load`] if the file can't be read or does not fit into memory, [`BufferFileError::Elements`] and
    /// [`BufferFileError::Size`] if its elements are not of type `T`, [`BufferFileError::Named`] for a safetensors file.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Buffer, bytemuck};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("weights.bin");
    /// std::fs::write(&path, bytemuck::cast_slice(&[0.5f32, 1.5]))?;
    /// assert_eq!(Buffer::<f32>::load(&path)?, [0.5, 1.5]);
    /// # Ok(()) }
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Self, BufferFileError> {
        Self::load_with(path, &LoadOptions::new())
    }

    /// Like [`load`](Self::load), with another kind of memory and another limit for the bytes of the file.
    ///
    /// # Errors
    /// As [`load`](Self::load), and if the file exceeds the limit.
    pub fn load_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, BufferFileError> {
        let path = path.as_ref();
        let what = || path.display().to_string();
        let (file, len) = open_regular(path)?;
        let source = Source::File { file: &file, len };
        let read = |source| LoadSharedError::Read { what: what(), source };
        let first = source.first(npy::HEAD).map_err(read)?;
        // Refuses a file of another format before it is loaded.
        match Format::of(path, &first)? {
            Format::Npy => drop(npy::parse(&first, len, &path.display())?),
            Format::Raw => drop(Self::raw_len(path, len)?),
        }
        check_size(len, options.plain_limit(), &what)?;
        let segment = source.load(options.wanted_backing(), &read)?;
        match Self::in_file(&segment, path) {
            Err(BufferFileError::Elements {
                source: TensorError::Misaligned { .. },
                ..
            }) => Self::realigned(&segment, path, options.wanted_backing()),
            buffer => buffer,
        }
    }

    /// Returns the elements of a file whose bytes are in a segment, in place.
    pub(crate) fn in_file(segment: &Segment, path: &Path) -> Result<Self, BufferFileError> {
        match Format::of(path, segment)? {
            Format::Npy => {
                let tensor = super::npy(segment, path)?;
                tensor.buffer().map_err(|source| BufferFileError::Elements {
                    what: path.display().to_string(),
                    source,
                })
            }
            Format::Raw => {
                let len = Self::raw_len(path, segment.len())?;
                // A segment is aligned to pages.
                Self::view(segment, 0, len).ok_or_else(|| size_error::<T>(path, segment.len()))
            }
        }
    }

    /// Copies the elements of a `.npy` file whose header does not align them.
    fn realigned(segment: &Segment, path: &Path, backing: &Backing) -> Result<Self, BufferFileError> {
        let tensor = super::npy(segment, path)?;
        let mut copy = SegmentMut::create(backing, tensor.bytes().len()).map_err(LoadSharedError::from)?;
        copy.copy_at(0, tensor.bytes());
        let copy = copy.freeze().map_err(LoadSharedError::from)?;
        let len = copy.len().checked_div(size_of::<T>()).unwrap_or(0);
        Self::view(&copy, 0, len).ok_or_else(|| size_error::<T>(path, copy.len()))
    }

    /// Returns the number of elements of a raw file.
    fn raw_len(path: &Path, bytes: usize) -> Result<usize, BufferFileError> {
        let len = bytes.checked_div(size_of::<T>());
        let len = len.filter(|len| len * size_of::<T>() == bytes);
        len.ok_or_else(|| size_error::<T>(path, bytes))
    }
}

fn size_error<T>(path: &Path, bytes: usize) -> BufferFileError {
    BufferFileError::Size {
        what: path.display().to_string(),
        bytes,
        wanted: std::any::type_name::<T>(),
        size: size_of::<T>(),
    }
}

impl From<OpenError> for BufferFileError {
    fn from(error: OpenError) -> Self {
        Self::Load(error.into())
    }
}
