//! [`inspect`]: lists the arrays of a file from its header.

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;

use super::{Order, npy};
use crate::model::error::LoadSharedError;
use crate::model::header;
use crate::model::options::LoadOptions;
use crate::model::plain::{PlainReader, open_regular, refuse};
use crate::model::source::Source;

/// The arrays and the metadata of a file: see [`inspect`].
#[derive(Debug, Clone, PartialEq)]
pub struct FileInfo {
    tensors: Vec<TensorInfo>,
    metadata: HashMap<String, String>,
}

/// The header's description of an array in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    order: Order,
    byte_len: usize,
}

impl FileInfo {
    /// Returns the arrays in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Returns the other entries of the header.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }
}

impl TensorInfo {
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

    /// Returns the number of bytes of the elements.
    pub fn byte_len(&self) -> usize {
        self.byte_len
    }
}

/// Returns the arrays and the metadata of a model image (plain or compressed), a safetensors file or a `.npy` file.
///
/// Only the header is read: a compressed image is decoded up to the end of its header. Of the options, only the limit for
/// the header applies.
///
/// # Errors
/// If the file can't be read, has another format, or its header exceeds the limit.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Buffer, LoadOptions, inspect, share};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("model.safetensors");
/// share(&Buffer::from(vec![0.5f32; 4]), &Backing::Auto)?.save(&path)?;
/// let info = inspect(&path, &LoadOptions::new())?;
/// assert_eq!(info.tensors()[0].shape(), [4]);
/// # Ok(()) }
/// ```
pub fn inspect(path: impl AsRef<Path>, options: &LoadOptions) -> Result<FileInfo, LoadSharedError> {
    let path = path.as_ref();
    let what = || path.display().to_string();
    let (file, len) = open_regular(path)?;
    let source = Source::File { file: &file, len };
    let first = source.first(npy::HEAD);
    let first = first.map_err(|source| LoadSharedError::Read { what: what(), source })?;
    if npy::is_npy(&first) {
        let array = npy::parse(&first, len, &path.display())?;
        return Ok(FileInfo {
            tensors: vec![TensorInfo {
                name: super::stem(path),
                dtype: array.dtype,
                shape: array.shape,
                order: array.order,
                byte_len: len - array.start,
            }],
            metadata: HashMap::new(),
        });
    }
    let mut plain = PlainReader::new(source, &what)?;
    let head = plain.read_header(options)?;
    let header = header::parse(&head, plain.len).map_err(|e| refuse(e, what(), "safetensors file"))?;
    drop(head);
    let mut tensors = Vec::new();
    for name in header.metadata.offset_keys() {
        let info = header.metadata.info(&name);
        let Some(info) = info.filter(|_| !header.is_padding(&name)) else {
            continue;
        };
        let (start, end) = info.data_offsets;
        tensors.push(TensorInfo {
            name,
            dtype: info.dtype,
            shape: info.shape.clone(),
            order: Order::C,
            byte_len: end - start,
        });
    }
    Ok(FileInfo {
        tensors,
        metadata: header.metadata.metadata().clone().unwrap_or_default(),
    })
}
