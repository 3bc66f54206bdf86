//! NumPy's `.npy` format (numpy.org/doc/stable/reference/generated/numpy.lib.format.html): a magic string, a version,
//! the length of a header, the header as a Python dictionary, and the elements.

use std::fmt::Display;

use safetensors::Dtype;

use super::{Order, Tensor};
use crate::model::error::OpenError;
use crate::segment::Segment;

const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest header that is parsed, in bytes: more than any array of numbers needs. NumPy's own default limit is 10,000.
const MAX_HEADER: usize = 1 << 16;
/// NumPy's own limit of dimensions.
const MAX_DIMENSIONS: usize = 64;

/// Returns the array of a file whose bytes are in a segment.
pub(super) fn read(segment: &Segment, name: String, what: &dyn Display) -> Result<Tensor, OpenError> {
    let array = parse(segment, segment.len(), what)?;
    Ok(Tensor {
        name,
        dtype: array.dtype,
        shape: array.shape,
        order: array.order,
        segment: segment.clone(),
        bytes: array.start..segment.len(),
    })
}

/// The array that a header describes.
pub(super) struct NpyArray {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) order: Order,
    /// The offset of the first element.
    pub(super) start: usize,
}

/// The most bytes of a header and the fields before it.
pub(super) const HEAD: usize = 12 + MAX_HEADER;

/// Returns whether these are the first bytes of a `.npy` file.
pub(super) fn is_npy(first: &[u8]) -> bool {
    first.starts_with(MAGIC)
}

/// Reads the header of a file of `len` bytes from its first [`HEAD`] bytes.
pub(super) fn parse(first: &[u8], len: usize, what: &dyn Display) -> Result<NpyArray, OpenError> {
    let format = |reason: String| OpenError::Format {
        what: what.to_string(),
        wanted: "npy file",
        reason,
    };
    let (header, start) = header(first).map_err(format)?;
    let header = NpyHeader::parse(header).map_err(format)?;
    let dtype = match parse_dtype(&header.descr) {
        ParsedDtype::Known(dtype) => dtype,
        ParsedDtype::BigEndian => {
            return Err(OpenError::BigEndian {
                what: what.to_string(),
                descr: header.descr,
            });
        }
        ParsedDtype::Unknown => {
            return Err(OpenError::Unsupported {
                what: what.to_string(),
                descr: header.descr,
            });
        }
    };
    let size = header
        .shape
        .iter()
        .try_fold(dtype.bitsize() / 8, |size, n| size.checked_mul(*n));
    // `header` has checked that the header lies in the file.
    let left = len.saturating_sub(start);
    if size != Some(left) {
        return Err(format(format!(
            "shape {:?} of {dtype} does not match the {left} bytes after its header",
            header.shape
        )));
    }
    Ok(NpyArray {
        dtype,
        shape: header.shape,
        order: header.order,
        start,
    })
}

/// Returns the header's text and the offset of the first element.
fn header(bytes: &[u8]) -> Result<(&str, usize), String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not start with NumPy's magic string")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or("it is too short")?;
    let (len, start) = match version {
        [1, 0] => {
            let len = rest.first_chunk().ok_or("it is too short")?;
            (u16::from_le_bytes(*len) as usize, 10)
        }
        [2 | 3, 0] => {
            let len = rest.first_chunk().ok_or("it is too short")?;
            (u32::from_le_bytes(*len) as usize, 12)
        }
        [major, minor] => return Err(format!("version {major}.{minor} is unknown")),
    };
    if len > MAX_HEADER {
        return Err(format!("a header of {len} bytes exceeds {MAX_HEADER}"));
    }
    let header = bytes
        .get(start..start + len)
        .ok_or_else(|| format!("its header of {len} bytes is truncated"))?;
    // Version 3 is UTF-8 and the others are Latin-1; everything that is accepted is ASCII.
    let header = std::str::from_utf8(header).map_err(|e| e.to_string())?;
    Ok((header, start + len))
}

enum ParsedDtype {
    Known(Dtype),
    BigEndian,
    Unknown,
}

fn parse_dtype(descr: &str) -> ParsedDtype {
    let (order, name) = match descr.split_at_checked(1) {
        Some((order @ ("<" | "|" | ">" | "="), name)) => (order, name),
        _ => return ParsedDtype::Unknown,
    };
    let dtype = match name {
        "b1" => Dtype::BOOL,
        "u1" => Dtype::U8,
        "i1" => Dtype::I8,
        "u2" => Dtype::U16,
        "i2" => Dtype::I16,
        "f2" => Dtype::F16,
        "u4" => Dtype::U32,
        "i4" => Dtype::I32,
        "f4" => Dtype::F32,
        "u8" => Dtype::U64,
        "i8" => Dtype::I64,
        "f8" => Dtype::F64,
        "c8" => Dtype::C64,
        _ => return ParsedDtype::Unknown,
    };
    match (order, dtype.bitsize()) {
        (_, 8) | ("<", _) => ParsedDtype::Known(dtype),
        (">", _) => ParsedDtype::BigEndian,
        // "=" is the unknown byte order of the writer; "|" means that byte order does not apply.
        _ => ParsedDtype::Unknown,
    }
}

#[derive(Debug, PartialEq)]
struct NpyHeader {
    descr: String,
    order: Order,
    shape: Vec<usize>,
}

impl NpyHeader {
    /// Parses the three entries, in any order, and refuses any other.
    fn parse(text: &str) -> Result<Self, String> {
        let mut text = HeaderParser(text);
        let (mut descr, mut order, mut shape) = (None, None, None);
        text.expect("{")?;
        while !text.take("}") {
            let key = text.string()?;
            text.expect(":")?;
            match key {
                "descr" if descr.is_none() => descr = Some(text.descr()?),
                "fortran_order" if order.is_none() => order = Some(text.order()?),
                "shape" if shape.is_none() => shape = Some(text.shape()?),
                key => return Err(format!("its header has an unexpected {key}")),
            }
            if !text.take(",") {
                text.expect("}")?;
                break;
            }
        }
        if !text.0.trim().is_empty() {
            return Err("its header continues after its closing brace".to_owned());
        }
        match (descr, order, shape) {
            (Some(descr), Some(order), Some(shape)) => Ok(Self { descr, order, shape }),
            _ => Err("its header lacks descr, fortran_order or shape".to_owned()),
        }
    }
}

/// The unparsed rest of a header.
struct HeaderParser<'a>(&'a str);

impl<'a> HeaderParser<'a> {
    fn take(&mut self, token: &str) -> bool {
        self.0 = self.0.trim_start();
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        match self.take(token) {
            true => Ok(()),
            false => {
                let found: String = self.0.chars().take(20).collect();
                Err(format!("its header has {found:?} instead of {token}"))
            }
        }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = match self.take("'") {
            true => '\'',
            false => self.expect("\"").map(|()| '"')?,
        };
        let (string, rest) = self.0.split_once(quote).ok_or("its header has an open string")?;
        self.0 = rest;
        Ok(string)
    }

    /// Parses a string. The list of a structured type is returned unparsed, for the error message.
    fn descr(&mut self) -> Result<String, String> {
        self.0 = self.0.trim_start();
        if !self.0.starts_with('[') {
            return self.string().map(str::to_owned);
        }
        let mut depth = 0_usize;
        for (at, c) in self.0.char_indices() {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let (list, rest) = self.0.split_at(at + 1);
                self.0 = rest;
                return Ok(list.to_owned());
            }
        }
        Err("its header has an open list".to_owned())
    }

    fn order(&mut self) -> Result<Order, String> {
        match self.take("True") {
            true => Ok(Order::Fortran),
            false => self.expect("False").map(|()| Order::C),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, String> {
        let mut shape = Vec::new();
        self.expect("(")?;
        while !self.take(")") {
            self.0 = self.0.trim_start();
            let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
            let (digits, rest) = self.0.split_at(end);
            self.0 = rest;
            let n = digits
                .parse()
                .map_err(|e| format!("its shape has {digits:?}: {e}"))?;
            if shape.len() == MAX_DIMENSIONS {
                return Err(format!("it has more than {MAX_DIMENSIONS} dimensions"));
            }
            shape.push(n);
            // Python 2 wrote long integers with an L, without white space before it.
            self.0 = self.0.strip_prefix('L').unwrap_or(self.0);
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_numpy_writes_are_parsed() {
        let header = |descr: &str, order, shape: &[usize]| {
            Ok(NpyHeader {
                descr: descr.to_owned(),
                order,
                shape: shape.to_vec(),
            })
        };
        for (text, expected) in [
            (
                "{'descr': '<f4', 'fortran_order': True, 'shape': (400000, 50), }     \n",
                header("<f4", Order::Fortran, &[400_000, 50]),
            ),
            (
                "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n",
                header("|u1", Order::C, &[3]),
            ),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (3L, 4L), }\n",
                header("<f8", Order::C, &[3, 4]),
            ),
            (
                "{\"shape\":(),\"fortran_order\":False,\"descr\":\">i8\"}",
                header(">i8", Order::C, &[]),
            ),
            (
                "{'descr': [('a', '<f4'), ('b', '<i4', (2,))], 'fortran_order': False, 'shape': (0, 2), }",
                header("[('a', '<f4'), ('b', '<i4', (2,))]", Order::C, &[0, 2]),
            ),
        ] {
            assert_eq!(NpyHeader::parse(text), expected);
        }
    }

    #[test]
    fn other_headers_are_refused() {
        for text in [
            "",
            "{",
            "{}",
            "{'descr': '<f4', 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (99999999999999999999999,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1,), 'more': 1}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1,)} import os",
            "{'descr': '<f4', 'fortran_order': True, 'fortran_order': True, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1LL,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (L,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1 L,)}",
            "{'descr': [[, 'fortran_order': True, 'shape': (1,)}",
        ] {
            assert!(NpyHeader::parse(text).is_err(), "{text}");
        }
    }
}
