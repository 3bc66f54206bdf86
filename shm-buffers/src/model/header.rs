//! The header of a model image, in the safetensors format: the names, types and positions of its tensors.
//!
//! ```text
//! 8 bytes   length of the header, little-endian
//! header    {"__metadata__":{"shm-buffers":"2","xxh64":"0123456789abcdef"},"layers.0.weights":{…},…,"skeleton":{…}}
//!           padded with spaces to a multiple of 64 bytes together with its length
//! tensors   each at a multiple of 64 bytes. The format allows no gaps, so padding is a tensor as well: `__pad__.0`, …
//! packed    all buffers that are not tensors of their own, if the model has more than 10,000 of them
//! skeleton  the last tensor: the table of buffers and the rest of the model: see `table`
//! ```
//!
//! Format 1 has neither padding nor a table of positions: see `version1`.

use safetensors::tensor::{Metadata, TensorInfo};

use super::names::{PADDING, SKELETON};
use crate::buffer::MAX_ALIGN;
use crate::model::error::LoadError;

/// The bytes before the header, which hold its length.
pub(crate) const PREFIX: usize = 8;
/// The format's own limit, in bytes: every reader refuses a longer header.
pub(crate) const MAX_HEADER: usize = 100_000_000;
/// The default limit for the header of a file, in bytes. Parsing takes up to fifteen times as much memory.
pub(crate) const DEFAULT_HEADER: usize = 8 << 20;
/// The key of the metadata's entry with the version of this layout.
const FORMAT: &str = "shm-buffers";
/// The first bytes of each header that is written here, so that the checksum has a fixed place.
const BEGIN: &[u8] = br#"{"__metadata__":{"shm-buffers":"2","xxh64":""#;
/// The first bytes of a header of format 1. They are as many.
const BEGIN_1: &[u8] = br#"{"__metadata__":{"shm-buffers":"1","xxh64":""#;
/// The first bytes of the header of an image that is no model, but only tensors.
const BEGIN_TENSORS: &[u8] = br#"{"__metadata__":{"shm-buffers":"0","xxh64":""#;
const _: () = assert!(BEGIN.len() == BEGIN_1.len() && BEGIN.len() == BEGIN_TENSORS.len());
/// The place of the checksum's hexadecimal digits in an image.
pub(super) const DIGITS: std::ops::Range<usize> = PREFIX + BEGIN.len()..PREFIX + BEGIN.len() + 16;
/// The key of the metadata's entry with the buffers in other segments of format 1.
const EXTERNAL: &str = "external";
/// The digits of a checksum that is not computed. While a checksum is computed, its own digits count as these.
pub(super) const NO_DIGITS: [u8; 16] = [b'-'; 16];

const _: () = assert!(
    cfg!(target_endian = "little"),
    "safetensors files are little-endian, and buffers are mapped as they are"
);

/// Returns the length and the header of an image with these tensors, which follow one another.
pub(super) fn write(tensors: &[(String, TensorInfo)]) -> Result<Vec<u8>, String> {
    write_after(BEGIN, tensors, MAX_ALIGN)
}

/// Like [`write`], for an image without a skeleton. The first tensor is at a multiple of `align`.
pub(super) fn write_tensors(tensors: &[(String, TensorInfo)], align: usize) -> Result<Vec<u8>, String> {
    write_after(BEGIN_TENSORS, tensors, align)
}

fn write_after(begin: &[u8], tensors: &[(String, TensorInfo)], align: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; PREFIX];
    bytes.extend_from_slice(begin);
    bytes.extend_from_slice(&NO_DIGITS);
    bytes.extend_from_slice(b"\"}");
    for (name, info) in tensors {
        bytes.push(b',');
        serde_json::to_writer(&mut bytes, name).map_err(|e| e.to_string())?;
        bytes.push(b':');
        serde_json::to_writer(&mut bytes, info).map_err(|e| e.to_string())?;
    }
    bytes.push(b'}');
    bytes.resize(bytes.len().next_multiple_of(align), b' ');
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

/// The parsed header of a model image, or of any safetensors file.
pub(crate) struct Header {
    pub(crate) metadata: Metadata,
    /// The offset of the first tensor.
    pub(crate) data: usize,
}

/// Why a header was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("{0}")]
    Format(String),
    #[error(
        "its header of {len} bytes exceeds the limit of {limit}; raise `LoadOptions::max_header_bytes` for a source that you trust"
    )]
    TooLong { len: usize, limit: usize },
}

impl From<HeaderError> for LoadError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Format(reason) => Self::Format(reason),
            HeaderError::TooLong { len, limit } => Self::HeaderTooLarge { len, limit },
        }
    }
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

/// Parses and checks the header of any safetensors file, if it has at most `limit` bytes. The tensors of the result follow
/// one another without gaps, and the last one ends with the file.
pub(crate) fn read(bytes: &[u8], limit: usize) -> Result<Header, HeaderError> {
    let end = end(bytes, bytes.len(), limit)?;
    parse(bytes.get(..end).unwrap_or_default(), bytes.len())
}

/// Like [`read`], for a file of `len` bytes of which `head` has everything up to the end of the header.
pub(crate) fn parse(head: &[u8], len: usize) -> Result<Header, HeaderError> {
    let text = head.get(PREFIX..).ok_or("it is too short")?;
    // Deserializing it checks that each tensor starts where the one before it ends, and that its bytes match its shape.
    let metadata: Metadata =
        serde_json::from_slice(text).map_err(|e| format!("its header is invalid: {e}"))?;
    match head.len().checked_add(metadata.data_len()) {
        Some(end) if end == len => Ok(Header {
            metadata,
            data: head.len(),
        }),
        _ => Err(HeaderError::Format(format!(
            "its header describes tensors of {} bytes, and {} bytes follow it",
            metadata.data_len(),
            len.saturating_sub(head.len())
        ))),
    }
}

/// Returns the offset of the end of a safetensors file's header, from the first bytes of the file. Refuses bytes that can't
/// belong to a file of `len` bytes.
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
        return Err("its header is not a JSON object".into());
    }
    match header > limit {
        true => Err(HeaderError::TooLong { len: header, limit }),
        false => Ok(end),
    }
}

/// Returns whether these are the first bytes of an image with a table of its buffers: of format 2, unless another program has
/// written it again.
pub(super) fn has_table(bytes: &[u8]) -> bool {
    bytes
        .get(PREFIX..)
        .is_some_and(|header| header.starts_with(BEGIN))
}

impl Header {
    fn entry(&self, key: &str) -> Option<&str> {
        let metadata = self.metadata.metadata().as_ref()?;
        metadata.get(key).map(String::as_str)
    }

    /// Returns whether a tensor is only padding of an image.
    pub(crate) fn is_padding(&self, name: &str) -> bool {
        name.starts_with(PADDING) && self.entry(FORMAT).is_some()
    }

    /// Returns the range of the skeleton of an image of format 1.
    pub(super) fn skeleton(&self) -> Result<std::ops::Range<usize>, String> {
        match (self.entry(FORMAT), self.entry(EXTERNAL)) {
            (Some("1"), None) => {}
            (Some("1"), Some(_)) => {
                return Err("it has buffers in the memory of the process that made it".to_owned());
            }
            (Some("2"), _) => {
                return Err(
                    "another program has written it again, so the positions of its buffers are unknown; \
                     load its tensors with `load_safetensors`"
                        .to_owned(),
                );
            }
            _ => return Err(format!("its header does not name the {FORMAT} format 1 or 2")),
        }
        let skeleton = self.metadata.info(SKELETON).ok_or("it has no skeleton")?;
        let (start, end) = skeleton.data_offsets;
        Ok(self.data + start..self.data + end)
    }
}

/// The checksum in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredChecksum {
    /// The header has no place for a checksum: another program wrote it.
    NoPlace,
    /// The checksum was not computed.
    NotComputed,
    /// The checksum.
    Present(u64),
    /// The digits are not a number.
    Invalid,
}

/// Returns the checksum in an image.
pub(super) fn stored_checksum(bytes: &[u8]) -> StoredChecksum {
    let begins = [BEGIN, BEGIN_1, BEGIN_TENSORS];
    let written_here = bytes
        .get(PREFIX..)
        .is_some_and(|header| begins.iter().any(|begin| header.starts_with(begin)));
    let Some(digits) = bytes.get(DIGITS).filter(|_| written_here) else {
        return StoredChecksum::NoPlace;
    };
    if digits == NO_DIGITS {
        return StoredChecksum::NotComputed;
    }
    let lower_hex = digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'));
    let digits = std::str::from_utf8(digits).ok().filter(|_| lower_hex);
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .map_or(StoredChecksum::Invalid, StoredChecksum::Present)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_is_parsed() {
        let bytes = write(&[]).expect("it is small");
        assert_eq!(bytes.len() % MAX_ALIGN, 0);
        assert_eq!(end(&bytes, bytes.len(), MAX_HEADER), Ok(bytes.len()));
        assert_eq!(stored_checksum(&bytes), StoredChecksum::NotComputed);
        let header = read(&bytes, MAX_HEADER).expect("it is valid");
        assert_eq!(header.data, bytes.len());
        assert!(has_table(&bytes) && header.skeleton().is_err());
    }

    #[test]
    fn an_impossible_or_too_long_header_is_refused_from_its_length() {
        let reason = |first: &[u8], len, limit| end(first, len, limit).map_err(|e| e.to_string());
        assert!(reason(&[0xff; 8], usize::MAX, MAX_HEADER).is_err_and(|e| e.contains("exceeds")));
        assert!(reason(&[9, 0, 0, 0, 0, 0, 0, 0], 16, MAX_HEADER).is_err_and(|e| e.contains("17 of 16")));
        assert!(reason(&[0; 7], 7, MAX_HEADER).is_err());
        let long = end(&[9, 0, 0, 0, 0, 0, 0, 0], 100, 8);
        assert_eq!(long, Err(HeaderError::TooLong { len: 9, limit: 8 }));
    }
}
