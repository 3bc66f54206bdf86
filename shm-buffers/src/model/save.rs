//! Saves model images to files.

use std::io::{self, Write};
use std::path::Path;

use super::checksum::{self, BLOCK};
use super::header::{self, StoredChecksum};
use super::image::Image;
use super::options::SaveOptions;
#[cfg(feature = "zstd")]
use super::seekable::{self, Compression};
use crate::backing::Backing;
use crate::limits::SizeLimited;
use crate::os;
use crate::replace::{self, SaveError};

impl Image {
    /// Writes the image to a file, with its checksum: see [`save_with`](Self::save_with).
    ///
    /// # Errors
    /// As [`save_with`](Self::save_with).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        self.save_with(path, &SaveOptions::new())
    }

    /// Writes the image to a compressed file, on all cores: see [`save_with`](Self::save_with).
    /// [`load_shared`](Self::load_shared) loads it, and `zstd -d` converts it to a plain image.
    ///
    /// # Errors
    /// As [`save_with`](Self::save_with).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Backing, Buffer, Compression, Image, share};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("zeros.safetensors.zst");
    /// let image = share(&Buffer::from(vec![0.0f32; 1000]), &Backing::Auto)?;
    /// image.save_compressed(&path, Compression::default())?;
    /// let zeros: Buffer<f32> = Image::load_shared(&path, &Backing::Auto)?.load()?;
    /// assert_eq!(zeros.len(), 1000);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "zstd")]
    pub fn save_compressed(&self, path: impl AsRef<Path>, compression: Compression) -> Result<(), SaveError> {
        self.save_with(path, &SaveOptions::new().compression(compression))
    }

    /// Writes the image to a file as [`replace_file`](crate::replace_file) does: readers see the old file or all of the new
    /// one, a process that has mapped the old file keeps it, and only a regular file is replaced (no device, pipe or symbolic
    /// link).
    ///
    /// An image that has a checksum keeps it, so that a damaged image stays recognizable after it is saved again.
    ///
    /// # Errors
    /// If the file can't be written or replaced. The old file at `path` is unchanged then.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Backing, Buffer, Image, SaveOptions, share};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("zeros.safetensors");
    /// let image = share(&Buffer::from(vec![0.0f32; 1000]), &Backing::Auto)?;
    /// image.save_with(&path, &SaveOptions::new().mode(0o600))?;
    /// Image::load_shared(&path, &Backing::Auto)?.verify()?;
    /// # Ok(()) }
    /// ```
    pub fn save_with(&self, path: impl AsRef<Path>, options: &SaveOptions) -> Result<(), SaveError> {
        let path = path.as_ref();
        // Checked before the buffers are gathered.
        replace::check(path)?;
        // Memory may not suffice for a second model. The disk must have space for it anyway.
        let whole = self
            .gathered(&Backing::File(replace::directory(path).to_owned()))
            .map_err(|e| SaveError {
                step: "gather buffers beside",
                path: path.to_owned(),
                source: io::Error::other(e),
            })?;
        let bytes: &[u8] = &whole.segment;
        let digits = match header::stored_checksum(bytes) {
            StoredChecksum::NotComputed => Some(checksum::digits(checksum::of(bytes))),
            StoredChecksum::Present(_) | StoredChecksum::Invalid | StoredChecksum::NoPlace => None,
        };
        let first = |len: usize| match digits {
            Some(digits) => checksum::with_digits(bytes, len, digits),
            None => bytes[..len.min(bytes.len())].into(),
        };

        replace::replace(path, options.mode, |file| {
            #[cfg(feature = "zstd")]
            if let Some(compression) = options.compression {
                let first = first(compression.frame());
                let rest = bytes[first.len()..].chunks(compression.frame());
                let frames: Vec<&[u8]> = std::iter::once(&*first).chain(rest).collect();
                return seekable::encode(&mut SizeLimited::new(file), &frames, compression);
            }
            os::admit_write(file, bytes.len())?;
            write_plain(&mut SizeLimited::new(file), &first(BLOCK), bytes)
        })
    }
}

/// Writes `first`, then the bytes of `bytes` from that length on.
fn write_plain(out: &mut impl Write, first: &[u8], bytes: &[u8]) -> io::Result<()> {
    out.write_all(first)?;
    out.write_all(&bytes[first.len()..])
}
