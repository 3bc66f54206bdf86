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

use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};

use super::names::SKELETON;
use crate::buffer::MAX_ALIGN;

/// What holds the header's length.
pub(crate) const PREFIX: usize = 8;
/// The format's own limit: a longer header is refused by every reader.
const MAX_HEADER: usize = 100_000_000;
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

/// Reads and checks the header of any safetensors file: afterwards its tensors lie behind one another, without gaps,
/// and end with the file.
pub(crate) fn read(bytes: &[u8]) -> Result<Header, String> {
    let (len, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    Ok(Header {
        metadata,
        data: PREFIX + len,
    })
}

/// Where the header of a safetensors file ends, from its first bytes, if it can be one of `len` bytes at all.
pub(crate) fn end(first: &[u8], len: usize) -> Result<usize, String> {
    let prefix = first.first_chunk::<PREFIX>().ok_or("it is too short")?;
    let header = usize::try_from(u64::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    if header > MAX_HEADER {
        return Err(format!(
            "a header of {header} bytes exceeds the format's {MAX_HEADER}"
        ));
    }
    let end = PREFIX + header;
    if end > len {
        return Err(format!("its header would end at byte {end} of {len}"));
    }
    if first.get(PREFIX).is_some_and(|first| *first != b'{') {
        return Err("its header is no JSON object".to_owned());
    }
    Ok(end)
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
        assert_eq!(end(&bytes, bytes.len()), Ok(bytes.len()));
        assert_eq!(stored_checksum(&bytes), Stored::Missing);
        let header = read(&bytes).expect("it is valid");
        assert_eq!(header.data, bytes.len());
        assert!(header.skeleton().is_err_and(|e| e.contains("skeleton")));
    }

    #[test]
    fn the_length_is_bounded_before_anything_is_read() {
        assert!(end(&[0xff; 8], usize::MAX).is_err_and(|e| e.contains("exceeds")));
        assert!(end(&[9, 0, 0, 0, 0, 0, 0, 0], 16).is_err_and(|e| e.contains("17 of 16")));
        assert!(end(&[0; 7], 7).is_err());
    }
}
