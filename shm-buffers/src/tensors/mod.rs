//! Tensors: named arrays in files that other programs made, as [`Buffer`]s.

mod inspect;
mod npy;

pub use inspect::{FileInfo, TensorInfo, inspect};

use std::any::TypeId;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use bytemuck::Pod;
use safetensors::Dtype;

use crate::backing::Backing;
use crate::buffer::Buffer;
use crate::model::error::{LoadSharedError, OpenError};
use crate::model::header::HeaderError;
use crate::model::image::Image;
use crate::model::options::LoadOptions;
use crate::model::scope::Element;
use crate::model::source::Source;
use crate::model::{file, header};
use crate::segment::Segment;

/// Which index of an array runs fastest through memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Order {
    /// The last one: rows lie behind one another.
    C,
    /// The first one: columns lie behind one another.
    Fortran,
}

/// An array in a file: where it is, and what its bytes are.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    order: Order,
    segment: Segment,
    /// Inside of the segment.
    bytes: Range<usize>,
}

/// Why a tensor is no buffer of the wanted type.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// There is none of that name.
    #[error("there is no tensor {name} among the {count}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// Its elements are of another type.
    #[error("tensor {name} has elements {stored} and shape {shape:?}, wanted are {wanted}")]
    Dtype {
        /// The tensor.
        name: String,
        /// The type that it has.
        stored: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// The type that was asked for.
        wanted: &'static str,
    },
    /// It begins where no such element may be, so that it can't be used in place.
    #[error(
        "tensor {name} begins at byte {offset}, which is not a multiple of {align}; copy it with `to_buffer`"
    )]
    Misaligned {
        /// The tensor.
        name: String,
        /// Where it is in its file.
        offset: usize,
        /// What its elements need.
        align: usize,
    },
}

impl Tensor {
    /// Its name: a `.npy` file's is the file's, without the extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its elements are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its length in each dimension; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How its elements lie in memory.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Its bytes as they are in the file.
    pub fn bytes(&self) -> &[u8] {
        // Both readers have checked the range.
        &self.segment[self.bytes.clone()]
    }

    /// Its elements, in place, in the [order](Self::order) they have.
    ///
    /// Types that Rust doesn't have are given as their bits: `F16` and `BF16` as `u16`, `BOOL` and the kinds of `F8`
    /// as `u8`, `C64` as `[f32; 2]`. A struct is a row of `U8`, as images have it.
    ///
    /// # Errors
    /// [`TensorError::Dtype`] if they are no `T`. [`TensorError::Misaligned`] if they can't be used in place: nothing
    /// is copied silently; [`to_buffer`](Self::to_buffer) copies.
    pub fn buffer<T: Pod + Send + Sync>(&self) -> Result<Buffer<T>, TensorError> {
        let count = self.elements::<T>()?;
        Buffer::view(&self.segment, self.bytes.start, count).ok_or_else(|| TensorError::Misaligned {
            name: self.name.clone(),
            offset: self.bytes.start,
            align: align_of::<T>(),
        })
    }

    /// A copy of its elements on the heap, however they are aligned in the file.
    ///
    /// # Errors
    /// [`TensorError::Dtype`] if they are no `T`.
    pub fn to_buffer<T: Pod + Send + Sync>(&self) -> Result<Buffer<T>, TensorError> {
        let count = self.elements::<T>()?;
        let mut copy = vec![T::zeroed(); count];
        bytemuck::cast_slice_mut(&mut copy).copy_from_slice(self.bytes());
        Ok(copy.into())
    }

    /// How many `T` it has.
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
            // `T` has a size, or there would be no `Buffer` of it.
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

/// The tensors of one file, by name and in the order they lie there.
#[derive(Debug, Clone)]
pub struct Tensors {
    list: Vec<Tensor>,
    names: HashMap<String, usize>,
    metadata: HashMap<String, String>,
}

impl Tensors {
    /// The tensors of a safetensors file whose bytes are in a segment.
    ///
    /// # Errors
    /// [`OpenError::Format`] if it has another format, [`OpenError::HeaderTooLarge`] if its header has more than 8 MiB.
    pub fn from_segment(segment: &Segment) -> Result<Self, OpenError> {
        Self::from_segment_with(segment, &LoadOptions::new())
    }

    /// As [`from_segment`](Self::from_segment), with another limit for the header.
    ///
    /// # Errors
    /// As [`from_segment`](Self::from_segment).
    pub fn from_segment_with(segment: &Segment, options: &LoadOptions) -> Result<Self, OpenError> {
        from_segment(segment, options, || {
            format!("a segment of {} bytes", segment.len())
        })
    }

    pub(crate) fn read(segment: &Segment, limit: usize) -> Result<Self, HeaderError> {
        let header = header::read(segment, limit)?;
        let mut list = Vec::new();
        for name in header.metadata.offset_keys() {
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

    /// The tensor `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.names.get(name).and_then(|index| self.list.get(*index))
    }

    /// The elements of the tensor `name`, in place: see [`Tensor::buffer`].
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

    /// All of them, in the order they lie in the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What else the file's header says.
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

/// Loads a [safetensors](https://huggingface.co/docs/safetensors) file of any program into a fresh segment: its tensors
/// become buffers, which other processes can attach. A compressed one is decoded, as [`Image::load_shared`] does.
///
/// # Errors
/// When it can't be read, there is no room, or it is no such file. What its header says is checked against the file's
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

/// As [`load_safetensors`], with other limits.
///
/// # Errors
/// As [`load_safetensors`], and when it exceeds a limit.
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
    if file::is_compressed(segment) {
        return Err(OpenError::Compressed { what: what() });
    }
    Tensors::read(segment, options.header_limit())
        .map_err(|error| file::refused(error, what(), "safetensors file"))
}

/// Loads a NumPy array file (`.npy`, versions 1 to 3) into a fresh segment: a tensor of little-endian numbers in either
/// [`Order`], named after the file, which other processes can attach.
///
/// # Errors
/// When it can't be read, there is no room, it is no such file, or is not exactly as long as its header says;
/// [`OpenError::BigEndian`] and [`OpenError::Unsupported`] for elements that can't be used in place.
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

/// As [`load_npy`], with another limit for its bytes.
///
/// # Errors
/// As [`load_npy`], and when it exceeds the limit.
pub fn load_npy_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Tensor, LoadSharedError> {
    let path = path.as_ref();
    let what = || path.display().to_string();
    let (file, len) = file::open_regular(path)?;
    let source = Source::File { file: &file, len };
    let read = |source| LoadSharedError::Read { what: what(), source };
    // A file of another format is refused before it is loaded.
    npy::parse(&source.first(npy::HEAD).map_err(read)?, len, &path.display())?;
    file::within(len, options.plain_limit(), &what)?;
    let segment = source.load(options.wanted_backing(), &read)?;
    Ok(npy(&segment, path)?)
}

/// The array of a file whose bytes are in a segment.
pub(crate) fn npy(segment: &Segment, path: &Path) -> Result<Tensor, OpenError> {
    npy::read(segment, stem(path), &path.display())
}

/// The name of a file, without its extension.
fn stem(path: &Path) -> String {
    path.file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

impl Tensor {
    /// The array of a `.npy` file whose bytes are in a segment: see [`load_npy`].
    ///
    /// # Errors
    /// As [`load_npy`].
    pub fn from_npy(segment: &Segment, name: impl Into<String>) -> Result<Self, OpenError> {
        let what = format!("a segment of {} bytes", segment.len());
        npy::read(segment, name.into(), &what)
    }
}

crate::debug_with_causes!(TensorError);
