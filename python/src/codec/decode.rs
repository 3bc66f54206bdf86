//! Decodes Python values.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple};

use super::arrays::{NumPy, item_size};
use super::{ALIGN, MAX_DEPTH, tag};

/// Arrays of more bytes than this are views of the memory that was received, if that is owned.
const MIN_VIEW: usize = 16 << 10;

/// The bytes of a payload.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a, 'py> {
    /// Arrays are copied.
    Borrowed(&'a [u8]),
    /// Large arrays are views of this object, whose memory these bytes are.
    Owned(&'a [u8], &'a Bound<'py, PyAny>),
}

/// Decodes one payload.
pub(crate) struct Decoder<'a, 'py> {
    py: Python<'py>,
    source: Source<'a, 'py>,
    bytes: &'a [u8],
    at: usize,
}

impl<'a, 'py> Decoder<'a, 'py> {
    /// Makes a decoder of the bytes from position `at` of the payload on.
    pub(crate) fn new(py: Python<'py>, source: Source<'a, 'py>, at: usize) -> Self {
        let (Source::Borrowed(bytes) | Source::Owned(bytes, _)) = source;
        Self {
            py,
            source,
            bytes,
            at,
        }
    }

    /// Returns the value, which must be all of the bytes.
    pub(crate) fn value(mut self) -> PyResult<Bound<'py, PyAny>> {
        let value = self.one(0)?;
        match self.at == self.bytes.len() {
            true => Ok(value),
            false => Err(malformed()),
        }
    }

    fn one(&mut self, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        if depth > MAX_DEPTH + 1 {
            return Err(malformed());
        }
        Ok(match self.byte()? {
            tag::NONE => py.None().into_bound(py),
            tag::TRUE => true.into_pyobject(py)?.to_owned().into_any(),
            tag::FALSE => false.into_pyobject(py)?.to_owned().into_any(),
            tag::SMALL_INT => self.byte()?.cast_signed().into_pyobject(py)?.into_any(),
            tag::INT => i64::from_le_bytes(self.array()?).into_pyobject(py)?.into_any(),
            tag::FLOAT => f64::from_le_bytes(self.array()?).into_pyobject(py)?.into_any(),
            tag::STR => {
                let bytes = self.sized()?;
                let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
                PyString::new(py, text).into_any()
            }
            tag::BYTES => PyBytes::new(py, self.sized()?).into_any(),
            tag::TUPLE => {
                let len = self.count()?;
                match len {
                    1 => PyTuple::new(py, [self.one(depth + 1)?])?,
                    2 => PyTuple::new(py, [self.one(depth + 1)?, self.one(depth + 1)?])?,
                    _ => PyTuple::new(py, self.many(len, depth)?)?,
                }
                .into_any()
            }
            tag::LIST => {
                let len = self.count()?;
                PyList::new(py, self.many(len, depth)?)?.into_any()
            }
            tag::DICT => {
                let (dict, len) = (PyDict::new(py), self.count()?);
                for _ in 0..len {
                    dict.set_item(self.one(depth + 1)?, self.one(depth + 1)?)?;
                }
                dict.into_any()
            }
            tag::ARRAY => self.elements()?,
            tag::SCALAR => self.elements()?.get_item(PyTuple::empty(py))?,
            _ => return Err(malformed()),
        })
    }

    fn many(&mut self, len: usize, depth: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        // Each has a byte at least.
        (0..len).map(|_| self.one(depth + 1)).collect()
    }

    /// Returns an array.
    fn elements(&mut self) -> PyResult<Bound<'py, PyAny>> {
        let [code, dimensions] = self.array()?;
        let mut shape = [0; 64];
        let shape = shape.get_mut(..dimensions as usize).ok_or_else(malformed)?;
        for len in &mut *shape {
            *len = usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| malformed())?;
        }
        let size = item_size(code).ok_or_else(malformed)?;
        let bytes = shape.iter().try_fold(size, |all, len| all.checked_mul(*len));
        let bytes = bytes.ok_or_else(malformed)?;
        self.at = self.at.next_multiple_of(ALIGN);
        let start = self.at;
        let elements = self.slice(bytes)?;
        let numpy = NumPy::get(self.py)?;
        let of = (code, &*shape);
        match self.source {
            Source::Owned(_, owner) if bytes >= MIN_VIEW => numpy.array(self.py, of, owner, start),
            _ => numpy.array(self.py, of, PyByteArray::new(self.py, elements).as_any(), 0),
        }
    }

    #[inline]
    fn byte(&mut self) -> PyResult<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn slice(&mut self, len: usize) -> PyResult<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or_else(malformed)?;
        let slice = self.bytes.get(self.at..end).ok_or_else(malformed)?;
        self.at = end;
        Ok(slice)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let rest = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        self.at += N;
        rest.copied().ok_or_else(malformed)
    }

    /// Returns a number of elements, each of which has at least one byte.
    fn count(&mut self) -> PyResult<usize> {
        let len = match self.byte()? {
            u8::MAX => usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| malformed())?,
            len => usize::from(len),
        };
        match len <= self.bytes.len().saturating_sub(self.at) {
            true => Ok(len),
            false => Err(malformed()),
        }
    }

    fn sized(&mut self) -> PyResult<&'a [u8]> {
        let len = self.count()?;
        self.slice(len)
    }
}

#[cold]
fn malformed() -> PyErr {
    PyValueError::new_err("malformed value: the worker wrote other bytes than an encoding")
}
