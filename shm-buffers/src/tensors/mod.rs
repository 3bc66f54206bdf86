//! Tensors: named arrays in files of other programs, as [`Buffer`]s.

mod flat;
mod inspect;
mod npy;

pub use flat::BufferFileError;
pub use inspect::{FileInfo, TensorInfo, inspect};

use std::any::TypeId;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use bytemuck::Pod;
use safetensors::Dtype;

use crate::backing::Backing;
use crate::buffer::Buffer;
use crate::buffer::element::Element;
use crate::model::error::{LoadError, LoadSharedError, OpenError};
use crate::model::header::{self, HeaderError};
use crate::model::image::Image;
use crate::model::options::LoadOptions;
use crate::model::plain::{check_size, is_compressed, open_regular, refuse};
use crate::model::source::Source;
use crate::segment::Segment;

/// The order of an array's elements in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Order {
    /// The last index varies fastest (row-major).
    C,
    /// The first index varies fastest (column-major).
    Fortran,
}

/// An array in a file.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    order: Order,
    segment: Segment,
    /// The range of the elements within the segment.
    bytes: Range<usize>,
}

/// Why a tensor can't be used as a buffer of the requested type.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// No tensor has this name.
    #[error("none of the {count} tensors is named {name}")]
    NotFound {
        /// The requested name.
        name: String,
        /// The number of tensors.
        count: usize,
    },
    /// The elements have another type.
    #[error("tensor {name} has elements {stored} and shape {shape:?}, wanted are {wanted}")]
    Dtype {
        /// The tensor.
        name: String,
        /// The type of the elements.
        stored: Dtype,
        /// The shape of the tensor.
        shape: Vec<usize>,
        /// The requested type.
        wanted: &'static str,
    },
    /// The elements are not aligned for the requested type, so they can't be used in place.
    #[error(
        "tensor {name} starts at byte {offset}, which is not a multiple of {align}; copy it with `to_buffer`"
    )]
    Misaligned {
        /// The tensor.
        name: String,
        /// The offset in the file.
        offset: usize,
        /// The alignment of the requested type in bytes.
        align: usize,
    },
}

impl Tensor {
    /// Returns the name. The name of an array in a `.npy` file is that of the file, without the extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Returns the length in each dimension. It is empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the order of the elements in memory.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Returns the bytes of the elements, as in the file.
    pub fn bytes(&self) -> &[u8] {
        // Both parsers have checked the range.
        &self.segment[self.bytes.clone()]
    }

    /// Returns the elements in place, in their [order](Self::order).
    ///
    /// Elements of types that Rust doesn't have are returned as their bits: `F16` and `BF16` as `u16`, `BOOL` and the kinds of
    /// `F8` as `u8`, `C64` as `[f32; 2]`. A struct is a row of `U8`, as in model images.
    ///
    /// # Errors
    /// [`TensorError::Dtype`] if the elements are not of type `T`. [`TensorError::Misaligned`] if they can't be used in
    /// place: use [`to_buffer`](Self::to_buffer), which copies them.
    pub fn buffer<T: Pod + Send + Sync>(&self) -> Result<Buffer<T>, TensorError> {
        let count = self.elements::<T>()?;
        Buffer::view(&self.segment, self.bytes.start, count).ok_or_else(|| TensorError::Misaligned {
            name: self.name.clone(),
            offset: self.bytes.start,
            align: align_of::<T>(),
        })
    }

    /// Returns a copy of the elements on the heap. Their alignment in the file does not matter.
    ///
    /// # Errors
    /// [`TensorError::Dtype`] if the elements are not of type `T`.
    pub fn to_buffer<T: Pod + Send + Sync>(&self) -> Result<Buffer<T>, TensorError> {
        let count = self.elements::<T>()?;
        let mut copy = vec![T::zeroed(); count];
        bytemuck::cast_slice_mut(&mut copy).copy_from_slice(self.bytes());
        Ok(copy.into())
    }

    /// Returns the number of elements, if they are of type `T`.
    fn elements<T: Pod + Send + Sync>(&self) -> Result<usize, TensorError> {
        let wanted = Element::of::<T>();
        let fits = match self.dtype {
            Dtype::F16 | Dtype::BF16 => wanted.dtype == Dtype::U16,
            Dtype::BOOL
            | Dtype::F8_E5M2
            | Dtype::F8_E4M3
            | Dtype::F8_E8M0
            | Dtype::F8_E4M3FNUZ
            | Dtype::F8_E5M2FNUZ => wanted.dtype == Dtype::U8 && wanted.size == 1,
            Dtype::C64 => TypeId::of::<T>() == TypeId::of::<[f32; 2]>(),
            Dtype::U8 if wanted.is_struct() => self.shape.last() == Some(&wanted.size),
            stored => stored == wanted.dtype && stored.bitsize() == 8 * wanted.size,
        };
        match fits {
            // The callers make a `Buffer<T>`, so `T` is not zero-sized.
            true => Ok(self.bytes.len().checked_div(size_of::<T>()).unwrap_or(0)),
            false => Err(TensorError::Dtype {
                name: self.name.clone(),
                stored: self.dtype,
                shape: self.shape.clone(),
                wanted: std::any::type_name::<T>(),
            }),
        }
    }
}

/// The tensors of one file, by name and in the order of the file.
#[derive(Debug, Clone)]
pub struct Tensors {
    list: Vec<Tensor>,
    names: HashMap<String, usize>,
    metadata: HashMap<String, String>,
}

impl Tensors {
    /// Returns the tensors of a safetensors file whose bytes are in a segment.
    ///
    /// # Errors
    /// [`OpenError::Format`] if the bytes have another format, [`OpenError::HeaderTooLarge`] if the header has more than 8 MiB.
    pub fn from_segment(segment: &Segment) -> Result<Self, OpenError> {
        Self::from_segment_with(segment, &LoadOptions::new())
    }

    /// Like [`from_segment`](Self::from_segment), with another limit for the header.
    ///
    /// # Errors
    /// As [`from_segment`](Self::from_segment).
    pub fn from_segment_with(segment: &Segment, options: &LoadOptions) -> Result<Self, OpenError> {
        from_segment(segment, options, || {
            format!("a segment of {} bytes", segment.len())
        })
    }

    fn read(segment: &Segment, limit: usize) -> Result<Self, HeaderError> {
        let header = header::read(segment, limit)?;
        let mut list = Vec::new();
        for name in header.metadata.offset_keys() {
            if header.is_padding(&name) {
                continue;
            }
            let info = header.metadata.info(&name).ok_or("its header is inconsistent")?;
            let (start, end) = info.data_offsets;
            list.push(Tensor {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
                order: Order::C,
                segment: segment.clone(),
                bytes: header.data + start..header.data + end,
            });
        }
        let names = list.iter().enumerate();
        let names = names.map(|(index, tensor)| (tensor.name.clone(), index));
        Ok(Self {
            names: names.collect(),
            list,
            metadata: header.metadata.metadata().clone().unwrap_or_default(),
        })
    }

    /// Returns the tensor `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.names.get(name).and_then(|index| self.list.get(*index))
    }

    /// Returns the elements of the tensor `name`, in place: see [`Tensor::buffer`].
    ///
    /// # Errors
    /// [`TensorError::NotFound`], or as [`Tensor::buffer`].
    pub fn buffer<T: Pod + Send + Sync>(&self, name: &str) -> Result<Buffer<T>, TensorError> {
        match self.get(name) {
            Some(tensor) => tensor.buffer(),
            None => Err(TensorError::NotFound {
                name: name.to_owned(),
                count: self.len(),
            }),
        }
    }

    /// Returns an iterator over the tensors, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.list.iter()
    }

    /// Returns the number of tensors.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether the file has no tensors.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the other entries of the file's header.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }
}

impl<'a> IntoIterator for &'a Tensors {
    type Item = &'a Tensor;
    type IntoIter = std::slice::Iter<'a, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Image {
    /// Returns the buffers by name, and the skeleton, as any reader of safetensors files sees them. Such a reader also sees
    /// the padding that aligns the buffers: tensors of bytes with the names `__pad__.0`, `__pad__.1`, …
    ///
    /// Of a model with more than 10,000 buffers, small ones have no name: they are in one tensor of bytes, `packed`.
    ///
    /// # Errors
    /// [`LoadError::Format`] if the bytes are not a safetensors file, [`LoadError::HeaderTooLarge`] if the header exceeds the
    /// image's limit.
    pub fn tensors(&self) -> Result<Tensors, LoadError> {
        Ok(Tensors::read(self.segment(), self.max_header())?)
    }
}

/// Loads a [safetensors](https://huggingface.co/docs/safetensors) file of any program into a new segment. Its tensors
/// become buffers, which other processes can attach. A compressed file is decoded, as by [`Image::load_shared`].
///
/// # Errors
/// If the file can't be read, does not fit into memory, or has another format. The header is checked against the file's
/// length.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Buffer, load_safetensors, share};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("model.safetensors");
/// # share(&std::collections::BTreeMap::from([("bias", Buffer::from(vec![0.5f32; 4]))]), &Backing::Auto)?.save(&path)?;
/// let tensors = load_safetensors(&path, &Backing::Auto)?;
/// let bias = tensors.buffer::<f32>("bias")?;
/// assert_eq!(bias[..], [0.5; 4]);
/// assert_eq!(tensors.get("bias").unwrap().shape(), [4]);
/// # Ok(()) }
/// ```
pub fn load_safetensors(path: impl AsRef<Path>, backing: &Backing) -> Result<Tensors, LoadSharedError> {
    load_safetensors_with(path, &backing.into())
}

/// Like [`load_safetensors`], with other limits.
///
/// # Errors
/// As [`load_safetensors`], and if the file exceeds a limit.
pub fn load_safetensors_with(
    path: impl AsRef<Path>,
    options: &LoadOptions,
) -> Result<Tensors, LoadSharedError> {
    let path = path.as_ref();
    let image = Image::load_shared_with(path, options)?;
    Ok(from_segment(image.segment(), options, || {
        path.display().to_string()
    })?)
}

pub(crate) fn from_segment(
    segment: &Segment,
    options: &LoadOptions,
    what: impl Fn() -> String,
) -> Result<Tensors, OpenError> {
    if is_compressed(segment) {
        return Err(OpenError::Compressed { what: what() });
    }
    Tensors::read(segment, options.header_limit()).map_err(|error| refuse(error, what(), "safetensors file"))
}

/// Loads a NumPy array file (`.npy`, versions 1 to 3) into a new segment, which other processes can attach. The result is a
/// tensor of little-endian numbers in either [`Order`], named after the file.
///
/// # Errors
/// If the file can't be read, does not fit into memory, has another format, or has not exactly the length that its header
/// declares; [`OpenError::BigEndian`] and [`OpenError::Unsupported`] for elements that can't be used in place.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Order, load_npy};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("embedding.npy");
/// # let head = b"\x93NUMPY\x01\x00\x46\0{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }           \n";
/// # assert_eq!(head.len(), 80);
/// # std::fs::write(&path, [&head[..], bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])].concat())?;
/// let embedding = load_npy(&path, &Backing::Auto)?;
/// assert_eq!((embedding.shape(), embedding.order()), (&[2, 3][..], Order::Fortran));
/// let columns = embedding.buffer::<f32>()?;
/// let (row, column) = (1, 2);
/// assert_eq!(columns[row + 2 * column], 6.0);
/// # Ok(()) }
/// ```
pub fn load_npy(path: impl AsRef<Path>, backing: &Backing) -> Result<Tensor, LoadSharedError> {
    load_npy_with(path, &backing.into())
}

/// Like [`load_npy`], with another limit for the bytes of the file.
///
/// # Errors
/// As [`load_npy`], and if the file exceeds the limit.
pub fn load_npy_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Tensor, LoadSharedError> {
    let path = path.as_ref();
    let what = || path.display().to_string();
    let (file, len) = open_regular(path)?;
    let source = Source::File { file: &file, len };
    let read = |source| LoadSharedError::Read { what: what(), source };
    // Refuses a file of another format before it is loaded.
    npy::parse(&source.first(npy::HEAD).map_err(read)?, len, &path.display())?;
    check_size(len, options.plain_limit(), &what)?;
    let segment = source.load(options.wanted_backing(), &read)?;
    Ok(npy(&segment, path)?)
}

/// Returns the array of a `.npy` file whose bytes are in a segment.
pub(crate) fn npy(segment: &Segment, path: &Path) -> Result<Tensor, OpenError> {
    npy::read(segment, stem(path), &path.display())
}

/// Returns the name of a file, without its extension.
fn stem(path: &Path) -> String {
    path.file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

impl Tensor {
    /// Returns the array of a `.npy` file whose bytes are in a segment: see [`load_npy`].
    ///
    /// # Errors
    /// As [`load_npy`].
    pub fn from_npy(segment: &Segment, name: impl Into<String>) -> Result<Self, OpenError> {
        let what = format!("a segment of {} bytes", segment.len());
        npy::read(segment, name.into(), &what)
    }
}

crate::debug_with_causes!(TensorError);
