//! Arrays and scalars of NumPy.

use std::ffi::CStr;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use super::{ALIGN, tag};
use crate::memory::contiguous;

/// The types of elements, by their number in the encoding.
const DTYPES: [&str; 14] = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
];

/// Most dimensions that NumPy has.
const MAX_DIMENSIONS: usize = 64;

/// The objects of NumPy that the encoding uses.
pub(super) struct NumPy {
    array: Py<PyType>,
    scalar: Py<PyType>,
    dtypes: Vec<Py<PyAny>>,
}

static NUMPY: PyOnceLock<NumPy> = PyOnceLock::new();

impl NumPy {
    fn import(py: Python<'_>) -> PyResult<Self> {
        let numpy = py.import("numpy")?;
        let dtype = numpy.getattr("dtype")?;
        let dtypes = DTYPES.iter().map(|name| Ok(dtype.call1((*name,))?.unbind()));
        Ok(Self {
            array: numpy.getattr("ndarray")?.cast_into::<PyType>()?.unbind(),
            scalar: numpy.getattr("generic")?.cast_into::<PyType>()?.unbind(),
            dtypes: dtypes.collect::<PyResult<_>>()?,
        })
    }

    /// Returns NumPy, imported if it was not.
    pub(super) fn get(py: Python<'_>) -> PyResult<&Self> {
        NUMPY.get_or_try_init(py, || Self::import(py))
    }

    /// Returns NumPy if the program has imported it.
    fn imported(py: Python<'_>) -> Option<&Self> {
        if let Some(numpy) = NUMPY.get(py) {
            return Some(numpy);
        }
        let modules = py.import("sys").and_then(|sys| sys.getattr("modules")).ok()?;
        match modules.contains("numpy").ok()? {
            // An import that is in progress, or has failed, is no reason to fail here.
            true => Self::get(py).ok(),
            false => None,
        }
    }

    /// Returns an array over the bytes of `memory` from `offset` on.
    pub(super) fn array<'py>(
        &self,
        py: Python<'py>,
        (code, shape): (u8, &[usize]),
        memory: &Bound<'py, PyAny>,
        offset: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let dtype = self.dtypes.get(code as usize);
        let dtype =
            dtype.ok_or_else(|| pyo3::exceptions::PyValueError::new_err("unknown type of elements"))?;
        let array = self.array.bind(py);
        match shape {
            [] => array.call1((PyTuple::empty(py), dtype.bind(py), memory, offset)),
            [one] => array.call1(((*one,), dtype.bind(py), memory, offset)),
            [one, two] => array.call1(((*one, *two), dtype.bind(py), memory, offset)),
            _ => {
                let shape = PyTuple::new(py, shape)?;
                array.call1((shape, dtype.bind(py), memory, offset))
            }
        }
    }
}

/// Returns the bytes of an element of this type.
pub(super) fn item_size(code: u8) -> Option<usize> {
    const SIZES: [usize; 14] = [1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 8, 16];
    SIZES.get(code as usize).copied()
}

/// Returns whether a value is exactly an array, not one of a subclass.
pub(super) fn is_array(value: &Bound<'_, PyAny>) -> bool {
    let numpy = NumPy::imported(value.py());
    numpy.is_some_and(|numpy| value.get_type().is(&numpy.array))
}

/// Returns whether a value is a number of NumPy.
pub(super) fn is_scalar(value: &Bound<'_, PyAny>) -> bool {
    let numpy = NumPy::imported(value.py());
    numpy.is_some_and(|numpy| value.is_instance(numpy.scalar.bind(value.py())).unwrap_or(false))
}

/// Returns the number of the type with this format of the `struct` module and this size, for native byte order.
fn code(format: &CStr, size: usize) -> Option<u8> {
    let log = size.checked_ilog2()? as u8;
    let code = match format.to_bytes() {
        b"?" => 0,
        [b'b' | b'h' | b'i' | b'l' | b'q'] => 1 + log,
        [b'B' | b'H' | b'I' | b'L' | b'Q'] => 5 + log,
        [b'e' | b'f' | b'd'] => 8 + log,
        b"Zf" | b"Zd" => 9 + log,
        _ => return None,
    };
    (item_size(code) == Some(size)).then_some(code)
}

/// Appends an array or scalar. Returns `None` if it is not of a known type, or not contiguous in C order.
pub(super) fn encode(value: &Bound<'_, PyAny>, tag: u8, out: &mut Vec<u8>) -> Option<()> {
    // Arrays of dates and of objects have no buffer, and arrays without dimensions and scalars none that has a shape.
    let (buffer, shapeless) = match PyUntypedBuffer::get(value) {
        Ok(buffer) if tag == tag::ARRAY => (buffer, false),
        _ => {
            let no_dimensions = value.getattr("ndim").ok()?.extract::<usize>().ok()? == 0;
            let flat = no_dimensions.then(|| value.call_method0("ravel").ok());
            (PyUntypedBuffer::get(&flat.flatten()?).ok()?, true)
        }
    };
    let code = code(buffer.format(), buffer.item_size())?;
    let shape = if shapeless { &[] } else { buffer.shape() };
    if !buffer.is_c_contiguous() || shape.len() > MAX_DIMENSIONS {
        return None;
    }
    let bytes = contiguous(&buffer).ok()?;
    out.reserve(3 + 8 * shape.len() + ALIGN + bytes.len());
    out.extend_from_slice(&[tag, code, shape.len() as u8]);
    for len in shape {
        out.extend_from_slice(&(*len as u64).to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    out.extend_from_slice(bytes);
    Some(())
}
