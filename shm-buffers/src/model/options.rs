//! [`SaveOptions`] and [`LoadOptions`]: how files are written, and how much memory a loaded file may take.

use super::header::{DEFAULT_HEADER, MAX_HEADER};
#[cfg(feature = "zstd")]
use super::seekable::Compression;
use crate::backing::Backing;

/// How an image is saved. By default it is not compressed, and the process's umask determines who may read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveOptions {
    pub(super) mode: Option<u32>,
    #[cfg(feature = "zstd")]
    pub(super) compression: Option<Compression>,
}

impl SaveOptions {
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the file's permissions, as for `chmod`: `0o600` for an image that only this user may read. No effect on Windows.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Compresses the image.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }
}

/// Where a file is loaded to, and how much memory it may take.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Buffer, Image, LoadOptions, LoadSharedError, share};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("model.safetensors");
/// share(&Buffer::from(vec![0.0f32; 1000]), &Backing::Auto)?.save(&path)?;
/// let limited = LoadOptions::new().max_bytes(1 << 10);
/// let refused = Image::load_shared_with(&path, &limited);
/// assert!(matches!(refused, Err(LoadSharedError::TooLarge { .. })));
/// assert!(Image::load_shared_with(&path, &limited.max_bytes(1 << 20)).is_ok());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    backing: Backing,
    max_bytes: Option<u64>,
    max_header: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            backing: Backing::Auto,
            max_bytes: None,
            max_header: DEFAULT_HEADER,
        }
    }
}

/// The default limit of a compressed file's content, in bytes.
#[cfg(feature = "zstd")]
const MAX_DECOMPRESSED: u64 = 256 << 20;
/// The default limit of a compressed file's content, as a multiple of the file's length. The larger limit applies.
#[cfg(feature = "zstd")]
const MAX_RATIO: u64 = 128;

impl LoadOptions {
    /// Creates the default options: [`Backing::Auto`], headers of up to 8 MiB, plain files of any length that fits into memory,
    /// and compressed files with a content of up to 256 MiB or, if that is more, 128 times their length.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the kind of memory that files are loaded into.
    #[must_use]
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Sets the largest content that is loaded, in bytes after decompression. A compressed file is only loaded by default if
    /// its content has at most 256 MiB or 128 times its length; weights of a network compress by a factor below ten.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Sets the longest header that is parsed, in bytes: about a hundred for each tensor. Parsing takes up to fifteen times as
    /// much memory. The format's own limit, 100,000,000, applies in any case.
    #[must_use]
    pub fn max_header_bytes(mut self, bytes: usize) -> Self {
        self.max_header = bytes.min(MAX_HEADER);
        self
    }

    pub(crate) fn wanted_backing(&self) -> &Backing {
        &self.backing
    }

    pub(crate) fn header_limit(&self) -> usize {
        self.max_header
    }

    /// Returns the limit for the content of a plain file.
    pub(crate) fn plain_limit(&self) -> u64 {
        self.max_bytes.unwrap_or(u64::MAX)
    }

    /// Returns the limit for the content of a compressed file of `len` bytes.
    #[cfg(feature = "zstd")]
    pub(super) fn decompressed_limit(&self, len: usize) -> u64 {
        self.max_bytes
            .unwrap_or_else(|| MAX_DECOMPRESSED.max(MAX_RATIO.saturating_mul(len as u64)))
    }
}

impl From<&Backing> for LoadOptions {
    fn from(backing: &Backing) -> Self {
        Self::new().backing(backing.clone())
    }
}

#[cfg(all(test, feature = "zstd"))]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_as_documented() {
        let options = LoadOptions::new();
        assert_eq!(options.wanted_backing(), &Backing::Auto);
        assert_eq!(options.header_limit(), 8 << 20);
        assert_eq!(options.plain_limit(), u64::MAX);
        assert_eq!(options.decompressed_limit(65_000), 256 << 20);
        assert_eq!(options.decompressed_limit(4 << 20), 512 << 20);
        assert_eq!(options.max_header_bytes(usize::MAX).header_limit(), 100_000_000);
    }
}
