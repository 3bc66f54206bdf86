//! [`SizeLimited`]: writes a file under the limit on file sizes.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use super::process::max_file_size;

/// A file would exceed the limit on file sizes of this process.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSizeError {
    /// Bytes that the file would have at least.
    pub needed: u64,
    /// The most bytes that a file may have.
    pub limit: u64,
}

impl FileSizeError {
    /// Checks that a file may have `bytes` bytes.
    ///
    /// # Errors
    /// If that exceeds the limit on file sizes.
    pub fn check(bytes: u64) -> Result<(), Self> {
        match max_file_size() {
            Some(limit) if limit < bytes => Err(Self { needed: bytes, limit }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for FileSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, limit } = self;
        write!(
            f,
            "{needed} bytes are needed, a file may have {limit}; raise the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`)"
        )
    }
}

impl Error for FileSizeError {}

impl From<FileSizeError> for io::Error {
    fn from(error: FileSizeError) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, error)
    }
}

/// Writes a new file from its start. Returns an error ([`FileSizeError`] in an [`io::Error`]) where the system would
/// kill the process because it exceeds its limit on file sizes.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io::Write;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("report");
/// let mut file = shm_buffers::limits::SizeLimited::new(std::fs::File::create(path)?);
/// file.write_all(b"some bytes")?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SizeLimited<W> {
    file: W,
    written: u64,
}

impl<W: Write> SizeLimited<W> {
    /// Creates a writer to the empty `file`.
    pub fn new(file: W) -> Self {
        Self { file, written: 0 }
    }
}

impl<W: Write> Write for SizeLimited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        FileSizeError::check(self.written.saturating_add(bytes.len() as u64))?;
        let written = self.file.write(bytes)?;
        self.written = self.written.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

crate::debug_with_causes!(FileSizeError);
