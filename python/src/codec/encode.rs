//! Encodes Python values.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::{MAX_DEPTH, arrays, tag};

/// Appends the encoding of a value to a payload that starts at `out[0]`. Returns whether the value could be encoded; if not, nothing is
/// appended.
pub(crate) fn encode(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let encoded = one(value, out, 0).is_some();
    if !encoded {
        out.truncate(start);
    }
    encoded
}

/// Returns `None` if the value cannot be encoded.
fn one(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: usize) -> Option<()> {
    if let Ok(value) = value.cast_exact::<PyInt>() {
        // Larger ones are pickled.
        int(value.extract().ok()?, out);
        return Some(());
    }
    if let Ok(value) = value.cast_exact::<PyFloat>() {
        out.push(tag::FLOAT);
        out.extend_from_slice(&value.value().to_le_bytes());
        return Some(());
    }
    if let Ok(value) = value.cast_exact::<PyString>() {
        // A string with surrogates has no UTF-8.
        let text = value.to_str().ok()?;
        sized(tag::STR, text.len(), out);
        out.extend_from_slice(text.as_bytes());
        return Some(());
    }
    if value.is_none() {
        out.push(tag::NONE);
        return Some(());
    }
    if let Ok(value) = value.cast_exact::<PyBool>() {
        out.push(if value.is_true() { tag::TRUE } else { tag::FALSE });
        return Some(());
    }
    if depth > MAX_DEPTH {
        return None;
    }
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        sized(tag::TUPLE, tuple.len(), out);
        for index in 0..tuple.len() {
            one(&*tuple.get_borrowed_item(index).ok()?, out, depth + 1)?;
        }
        return Some(());
    }
    if let Ok(value) = value.cast_exact::<PyBytes>() {
        sized(tag::BYTES, value.as_bytes().len(), out);
        out.extend_from_slice(value.as_bytes());
        return Some(());
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        // Encoding runs no code of the user that could shrink the list, but another thread could.
        #[cfg(Py_GIL_DISABLED)]
        let list = &list.get_slice(0, list.len());
        sized(tag::LIST, list.len(), out);
        for index in 0..list.len() {
            one(&list.get_item(index).ok()?, out, depth + 1)?;
        }
        return Some(());
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        // As with lists.
        #[cfg(Py_GIL_DISABLED)]
        let dict = &dict.copy().ok()?;
        sized(tag::DICT, dict.len(), out);
        for (key, value) in dict {
            one(&key, out, depth + 1)?;
            one(&value, out, depth + 1)?;
        }
        return Some(());
    }
    if arrays::is_array(value) {
        return arrays::encode(value, tag::ARRAY, out);
    }
    if arrays::is_scalar(value) {
        return arrays::encode(value, tag::SCALAR, out);
    }
    None
}

/// Appends the encoding of an int.
#[inline]
pub(crate) fn int(value: i64, out: &mut Vec<u8>) {
    match i8::try_from(value) {
        Ok(small) => out.extend_from_slice(&[tag::SMALL_INT, small.cast_unsigned()]),
        Err(_) => {
            let mut bytes = [tag::INT; 9];
            bytes[1..].copy_from_slice(&value.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends a tag and a length.
fn sized(tag: u8, len: usize, out: &mut Vec<u8>) {
    match u8::try_from(len) {
        Ok(len) if len < u8::MAX => out.extend_from_slice(&[tag, len]),
        _ => {
            out.extend_from_slice(&[tag, u8::MAX]);
            out.extend_from_slice(&(len as u64).to_le_bytes());
        }
    }
}
