//! The header of an image: what is where, as the safetensors format has it.
//!
//! ```text
//! 8 bytes   length of the header, little-endian
//! header    {"__metadata__":{"shm-buffers":"1","xxh64":"0123456789abcdef"},"layers.0.weights":{…},…,"skeleton":{…}}
//!           padded with spaces to a multiple of 64 bytes together with its length
//! tensors   without gaps, sorted by falling alignment
//! skeleton  the last tensor: name and bytes per element of each buffer in the order of their indices, then the
//!           model's small rest, both in postcard's encoding
//! ```

use safetensors::tensor::{Metadata, TensorInfo};

use super::names::SKELETON;
use crate::buffer::MAX_ALIGN;

/// What holds the header's length.
pub(crate) const PREFIX: usize = 8;
/// The format's own limit: a longer header is refused by every reader.
pub(crate) const MAX_HEADER: usize = 100_000_000;
/// The limit for a header from outside, unless another is asked for. Parsing takes up to fifteen times a header's length.
pub(crate) const DEFAULT_HEADER: usize = 8 << 20;
/// The layout's version, in the header's metadata.
const FORMAT: (&str, &str) = ("shm-buffers", "1");
/// How each header written here begins, so that its checksum has a fixed place.
const BEGIN: &[u8] = br#"{"__metadata__":{"shm-buffers":"1","xxh64":""#;
/// Where the checksum's hexadecimal digits are in an image.
pub(super) const DIGITS: std::ops::Range<usize> = PREFIX + BEGIN.len()..PREFIX + BEGIN.len() + 16;
/// Where the metadata tells of buffers in other segments: see `outside`.
const OUTSIDE: &str = "outside";
/// In the place of a checksum that was not computed, and of any while it is computed.
pub(super) const NO_DIGITS: [u8; 16] = [b'-'; 16];

const _: () = assert!(
    cfg!(target_endian = "little"),
    "safetensors files are little-endian, and buffers are mapped as they are"
);

/// The length and the header of an image with these tensors, which lie behind one another, and what it says of buffers
/// that lie elsewhere.
pub(super) fn write(tensors: &[(String, TensorInfo)], outside: Option<&str>) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; PREFIX];
    bytes.extend_from_slice(BEGIN);
    bytes.extend_from_slice(&NO_DIGITS);
    bytes.push(b'"');
    if let Some(outside) = outside {
        bytes.extend_from_slice(b",\"");
        bytes.extend_from_slice(OUTSIDE.as_bytes());
        bytes.extend_from_slice(b"\":");
        serde_json::to_writer(&mut bytes, outside).map_err(|e| e.to_string())?;
    }
    bytes.push(b'}');
    for (name, info) in tensors {
        bytes.push(b',');
        serde_json::to_writer(&mut bytes, name).map_err(|e| e.to_string())?;
        bytes.push(b':');
        serde_json::to_writer(&mut bytes, info).map_err(|e| e.to_string())?;
    }
    bytes.push(b'}');
    bytes.resize(bytes.len().next_multiple_of(MAX_ALIGN), b' ');
    let len = bytes.len() - PREFIX;
    if len > MAX_HEADER {
        return Err(format!(
            "a header of {len} bytes for {} buffers exceeds the format's {MAX_HEADER}",
            tensors.len()
        ));
    }
    bytes[..PREFIX].copy_from_slice(&(len as u64).to_le_bytes());
    Ok(bytes)
}

/// What an image (or any safetensors file) has where.
pub(crate) struct Header {
    pub(crate) metadata: Metadata,
    /// Where its tensors begin.
    pub(crate) data: usize,
}

/// Why a header is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("{0}")]
    Format(String),
    #[error(
        "its header of {len} bytes exceeds the limit of {limit}; raise `LoadOptions::max_header_bytes` for a source that you trust"
    )]
    TooLong { len: usize, limit: usize },
}

impl From<String> for HeaderError {
    fn from(reason: String) -> Self {
        Self::Format(reason)
    }
}

impl From<&str> for HeaderError {
    fn from(reason: &str) -> Self {
        Self::Format(reason.to_owned())
    }
}

/// Reads and checks the header of any safetensors file, if it has at most `limit` bytes: afterwards its tensors lie behind
/// one another, without gaps, and end with the file.
pub(crate) fn read(bytes: &[u8], limit: usize) -> Result<Header, HeaderError> {
    let end = end(bytes, bytes.len(), limit)?;
    parse(bytes.get(..end).unwrap_or_default(), bytes.len())
}

/// As [`read`], for a file of `len` bytes of which `head` is the beginning up to the end of its header.
pub(crate) fn parse(head: &[u8], len: usize) -> Result<Header, HeaderError> {
    let text = head.get(PREFIX..).ok_or("it is too short")?;
    // Its conversion from JSON checks that each tensor begins where the one before it ends, and has its shape's bytes.
    let metadata: Metadata =
        serde_json::from_slice(text).map_err(|e| format!("its header is invalid: {e}"))?;
    match head.len().checked_add(metadata.data_len()) {
        Some(end) if end == len => Ok(Header {
            metadata,
            data: head.len(),
        }),
        _ => Err(HeaderError::Format(format!(
            "its header describes tensors of {} bytes, and {} bytes are behind it",
            metadata.data_len(),
            len.saturating_sub(head.len())
        ))),
    }
}

/// Where the header of a safetensors file ends, from its first bytes, if it can be one of `len` bytes at all.
pub(crate) fn end(first: &[u8], len: usize, limit: usize) -> Result<usize, HeaderError> {
    let prefix = first.first_chunk::<PREFIX>().ok_or("it is too short")?;
    let header = usize::try_from(u64::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    if header > MAX_HEADER {
        return Err(format!("a header of {header} bytes exceeds the format's {MAX_HEADER}").into());
    }
    let end = PREFIX + header;
    if end > len {
        return Err(format!("its header would end at byte {end} of {len}").into());
    }
    if first.get(PREFIX).is_some_and(|first| *first != b'{') {
        return Err("its header is no JSON object".into());
    }
    match header > limit {
        true => Err(HeaderError::TooLong { len: header, limit }),
        false => Ok(end),
    }
}

impl Header {
    /// What is said of buffers that lie elsewhere.
    pub(super) fn outside(&self) -> Option<&str> {
        let metadata = self.metadata.metadata().as_ref()?;
        metadata.get(OUTSIDE).map(String::as_str)
    }

    /// Where the skeleton is.
    pub(super) fn skeleton(&self) -> Result<std::ops::Range<usize>, String> {
        let version = self.metadata.metadata().as_ref().and_then(|m| m.get(FORMAT.0));
        if version.map(String::as_str) != Some(FORMAT.1) {
            return Err(format!("its header names no {} format {}", FORMAT.0, FORMAT.1));
        }
        let skeleton = self.metadata.info(SKELETON).ok_or("it has no skeleton")?;
        let (start, end) = skeleton.data_offsets;
        Ok(self.data + start..self.data + end)
    }
}

/// What a header says of the image's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// It has no place for one: it was not written here.
    Foreign,
    /// It was not computed.
    Missing,
    /// It is this.
    Checksum(u64),
    /// It is no number.
    Garbled,
}

/// The checksum that the image carries.
pub(super) fn stored_checksum(bytes: &[u8]) -> Stored {
    let begins = bytes
        .get(PREFIX..)
        .is_some_and(|header| header.starts_with(BEGIN));
    let Some(digits) = bytes.get(DIGITS).filter(|_| begins) else {
        return Stored::Foreign;
    };
    if digits == NO_DIGITS {
        return Stored::Missing;
    }
    let lower_hex = digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'));
    let digits = std::str::from_utf8(digits).ok().filter(|_| lower_hex);
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .map_or(Stored::Garbled, Stored::Checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_again() {
        let bytes = write(&[], None).expect("it is small");
        assert_eq!(bytes.len() % MAX_ALIGN, 0);
        assert_eq!(end(&bytes, bytes.len(), MAX_HEADER), Ok(bytes.len()));
        assert_eq!(stored_checksum(&bytes), Stored::Missing);
        let header = read(&bytes, MAX_HEADER).expect("it is valid");
        assert_eq!(header.data, bytes.len());
        assert!(header.skeleton().is_err_and(|e| e.contains("skeleton")));
    }

    #[test]
    fn the_length_is_bounded_before_anything_is_read() {
        let reason = |first: &[u8], len, limit| end(first, len, limit).map_err(|e| e.to_string());
        assert!(reason(&[0xff; 8], usize::MAX, MAX_HEADER).is_err_and(|e| e.contains("exceeds")));
        assert!(reason(&[9, 0, 0, 0, 0, 0, 0, 0], 16, MAX_HEADER).is_err_and(|e| e.contains("17 of 16")));
        assert!(reason(&[0; 7], 7, MAX_HEADER).is_err());
        let long = end(&[9, 0, 0, 0, 0, 0, 0, 0], 100, 8);
        assert_eq!(long, Err(HeaderError::TooLong { len: 9, limit: 8 }));
    }
}
