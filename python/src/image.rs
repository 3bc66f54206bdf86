//! Models in shared memory: named tensors, of which the last one is the pickle of everything else.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use shm_buffers::{
    Backing, Compression, CopyOnWrite, Dtype, Image, LoadOptions, SaveOptions, SegmentHandle, TensorWriter,
    descriptors,
};

use crate::allocator;
use crate::faults::{memory_error, os_error, value_error};
use crate::memory::{Mapped, SharedBytes, adoptable};
use crate::segment::CoreSegment;

/// A model in shared memory.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct CoreImage {
    pub(crate) image: Image,
    /// Bytes of arrays that have become views of the image.
    adopted: u64,
}

/// A tensor: its name, the name of its type, its shape, and its bytes.
type Part = (String, String, Vec<usize>, Py<SharedBytes>);

#[pymethods]
impl CoreImage {
    /// Attaches the image of another process.
    #[staticmethod]
    fn attach(handle: &str) -> PyResult<Self> {
        let handle: SegmentHandle = handle.parse().map_err(value_error)?;
        let image = Image::attach(&handle).map_err(|e| os_error(&e))?;
        Ok(Self { image, adopted: 0 })
    }

    /// Returns the tensors in place. With `writable`, this process may write them, and no other one sees it.
    fn tensors(&self, py: Python<'_>, writable: bool) -> PyResult<Vec<Part>> {
        let tensors = self.image.tensors().map_err(|e| os_error(&e))?;
        let segment = self.image.segment();
        let start = segment.as_ptr().addr();
        let mapped = match writable {
            false => Mapped::ReadOnly(segment.clone()),
            true => {
                let handle = segment.handle().map_err(|e| os_error(&e))?;
                Mapped::CopyOnWrite(CopyOnWrite::attach(&handle).map_err(|e| os_error(&e))?)
            }
        };
        let mapped = Arc::new(mapped);
        let parts = tensors.iter().map(|tensor| {
            let bytes = tensor.bytes();
            let part = SharedBytes::new(&mapped, bytes.as_ptr().addr() - start, bytes.len());
            let part = part.ok_or_else(|| value_error("a tensor lies outside of its image"))?;
            Ok((
                tensor.name().to_owned(),
                tensor.dtype().to_string(),
                tensor.shape().to_vec(),
                Py::new(py, part)?,
            ))
        });
        parts.collect()
    }

    /// Returns a text by which other processes attach the image while this object lives.
    fn handle(&self) -> PyResult<String> {
        Ok(self.image.handle().map_err(|e| os_error(&e))?.to_string())
    }

    /// Returns the bytes of the image.
    fn byte_len(&self) -> u64 {
        self.image.byte_len()
    }

    /// The bytes of arrays of this process that have become views of the image.
    #[getter]
    fn adopted(&self) -> u64 {
        self.adopted
    }

    /// Returns a hash of the contents.
    fn checksum(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.image.checksum())
    }

    /// Writes the image to a file of safetensors' format, and replaces that.
    #[pyo3(signature = (path, level=None, mode=None))]
    fn save(&self, py: Python<'_>, path: PathBuf, level: Option<i32>, mode: Option<u32>) -> PyResult<()> {
        let mut options = SaveOptions::new();
        if let Some(level) = level {
            options = options.compression(Compression::level(level));
        }
        if let Some(mode) = mode {
            options = options.mode(mode);
        }
        py.detach(|| self.image.save_with(&path, &options))
            .map_err(|e| os_error(&e))
    }
}

impl CoreImage {
    /// Returns the texts of the handles of the image and of the segments beside it, with the descriptors that workers need to attach them.
    pub(crate) fn shared(
        &self,
        segments: &[Bound<'_, CoreSegment>],
    ) -> std::io::Result<(String, Vec<String>, descriptors::Descriptors)> {
        let handle = self.image.handle()?;
        let others = segments.iter().map(|segment| segment.get().segment.handle());
        let others: Vec<_> = others.collect::<Result<_, _>>()?;
        let texts = || {
            let others = others.iter().map(ToString::to_string).collect::<Vec<_>>();
            (handle.to_string(), others)
        };
        let ((image, others), descriptors) = descriptors::collect(texts);
        Ok((image, others, descriptors))
    }
}

/// A tensor to write: its name, the name of its type, its shape, an object with its bytes, and whether these may be adopted.
type NewPart<'py> = (String, String, Vec<usize>, Bound<'py, PyAny>, bool);

/// Writes tensors into shared memory: names, names of types, shapes, objects with their bytes, and whether these are memory of `malloc`
/// that may become a view of the image.
#[pyfunction]
pub(crate) fn write_image(parts: Vec<NewPart<'_>>) -> PyResult<CoreImage> {
    let adopts = parts.iter().any(|part| part.4) && allocator::is_glibc();
    let buffers = parts.iter().map(|part| PyUntypedBuffer::get(&part.3));
    let buffers: Vec<PyUntypedBuffer> = buffers.collect::<PyResult<_>>()?;
    let mut writer = TensorWriter::new();
    for ((name, dtype, shape, _, adopt), buffer) in parts.iter().zip(&buffers) {
        let dtype =
            dtype_of(dtype).ok_or_else(|| value_error(format!("unknown type of elements {dtype}")))?;
        let adopted = match adopts && *adopt {
            true => adoptable(buffer)?,
            false => None,
        };
        match adopted {
            Some(memory) => writer.add_adopted(name, dtype, shape, memory),
            None => writer.add(name, dtype, shape, crate::memory::contiguous(buffer)?),
        }
        .map_err(value_error)?;
    }
    // This thread stays attached, so threads that keep the interpreter's rules change no array during the copy.
    let written = writer.write_adopting(&Backing::Auto);
    let (image, adopted) = written.map_err(|e| memory_error(&e))?;
    Ok(CoreImage { image, adopted })
}

/// Loads an image from a file, plain or compressed, into shared memory.
#[pyfunction]
#[pyo3(signature = (path, max_bytes=None))]
pub(crate) fn load_image(py: Python<'_>, path: PathBuf, max_bytes: Option<u64>) -> PyResult<CoreImage> {
    let mut options = LoadOptions::new();
    if let Some(bytes) = max_bytes {
        options = options.max_bytes(bytes);
    }
    let image = py.detach(|| Image::load_shared_with(&path, &options));
    Ok(CoreImage {
        image: image.map_err(|e| os_error(&e))?,
        adopted: 0,
    })
}

fn dtype_of(name: &str) -> Option<Dtype> {
    Some(match name {
        "BOOL" => Dtype::BOOL,
        "U8" => Dtype::U8,
        "I8" => Dtype::I8,
        "U16" => Dtype::U16,
        "I16" => Dtype::I16,
        "U32" => Dtype::U32,
        "I32" => Dtype::I32,
        "U64" => Dtype::U64,
        "I64" => Dtype::I64,
        "F16" => Dtype::F16,
        "F32" => Dtype::F32,
        "F64" => Dtype::F64,
        _ => return None,
    })
}
