//! [`SaveOptions`] and [`LoadOptions`]: how files are written, and how much of a file is believed.

use super::header::{DEFAULT_HEADER, MAX_HEADER};
#[cfg(feature = "zstd")]
use super::seekable::Compression;
use crate::backing::Backing;

/// How an image is saved: plain, readable by whom the process's umask lets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveOptions {
    pub(super) mode: Option<u32>,
    #[cfg(feature = "zstd")]
    pub(super) compression: Option<Compression>,
}

impl SaveOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file's permissions, as of `chmod`: `0o600` for an image that only this user may read. Without effect on
    /// Windows.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Compresses the image.
    #[cfg(feature = "zstd")]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }
}

/// Where a file is loaded to, and how much memory its claims may take.
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

/// The default limit, in bytes, of what a compressed file decompresses to.
#[cfg(feature = "zstd")]
const DECOMPRESSED: u64 = 256 << 20;
/// The same as a multiple of the file's length; the larger limit applies.
#[cfg(feature = "zstd")]
const RATIO: u64 = 128;

impl LoadOptions {
    /// The defaults: [`Backing::Auto`], headers of up to 8 MiB, plain files as long as there is room for them, compressed
    /// ones up to 128 times their length, or 256 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the memory is taken from.
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// The largest content that is loaded, decompressed, in bytes. Weights of a network compress by less than ten;
    /// a compressed file that claims more than 128 times its length and 256 MiB needs this to be loaded.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// The longest header that is parsed, in bytes: about a hundred for each tensor. Parsing takes up to fifteen times as
    /// much memory. The format's own limit, 100,000,000, holds in any case.
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

    /// The limit for what is loaded as it is.
    pub(crate) fn plain_limit(&self) -> u64 {
        self.max_bytes.unwrap_or(u64::MAX)
    }

    /// The limit for what a compressed file of `len` bytes decodes to.
    #[cfg(feature = "zstd")]
    pub(super) fn decompressed_limit(&self, len: usize) -> u64 {
        self.max_bytes
            .unwrap_or_else(|| DECOMPRESSED.max(RATIO.saturating_mul(len as u64)))
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
    fn defaults_are_the_documented_ones() {
        let options = LoadOptions::new();
        assert_eq!(options.wanted_backing(), &Backing::Auto);
        assert_eq!(options.header_limit(), 8 << 20);
        assert_eq!(options.plain_limit(), u64::MAX);
        assert_eq!(options.decompressed_limit(65_000), 256 << 20);
        assert_eq!(options.decompressed_limit(4 << 20), 512 << 20);
        assert_eq!(options.max_header_bytes(usize::MAX).header_limit(), 100_000_000);
    }
}
