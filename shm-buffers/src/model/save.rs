//! Images are saved.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::checksum::{self, BLOCK};
use super::error::SaveError;
use super::header::{self, Stored};
use super::image::Image;
use super::options::SaveOptions;
#[cfg(feature = "zstd")]
use super::seekable::{self, Compression};
use crate::backing::Backing;

impl Image {
    /// Writes the image to a file, with its checksum: see [`save_with`](Self::save_with).
    ///
    /// # Errors
    /// What was at `path` before is still there then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        self.save_with(path, &SaveOptions::new())
    }

    /// Writes the image to a compressed file, with as many threads as there are cores: see
    /// [`save_with`](Self::save_with). It is loaded with [`load_shared`](Self::load_shared), and `zstd -d` makes a
    /// plain image of it.
    ///
    /// # Errors
    /// What was at `path` before is still there then.
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

    /// Writes the image to a file: to one with another name in the same directory first, which takes its place when
    /// all of it is on the disk. So nobody ever sees half an image, and who has mapped an older file keeps it.
    ///
    /// An image that carries a checksum already keeps it, so that saving a damaged one doesn't make it a good one.
    ///
    /// # Errors
    /// What was at `path` before is still there then.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Backing, Buffer, Image, SaveOptions, share};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("zeros.safetensors");
    /// let image = share(&Buffer::from(vec![0.0f32; 1000]), &Backing::Auto)?;
    /// image.save_with(&path, &SaveOptions::new().mode(0o600))?;
    /// Image::open(&path)?.verify()?;
    /// # Ok(()) }
    /// ```
    #[cfg_attr(not(any(unix, feature = "zstd")), expect(unused_variables))]
    pub fn save_with(&self, path: impl AsRef<Path>, options: &SaveOptions) -> Result<(), SaveError> {
        let path = path.as_ref();
        let failed = |step| {
            move |source| SaveError {
                step,
                path: path.to_owned(),
                source,
            }
        };
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        // Memory for a second model may not be there; the disk must have room for it anyway.
        let whole = self
            .gathered(&Backing::File(dir.to_owned()))
            .map_err(|e| failed("gather buffers beside")(io::Error::other(e)))?;
        let bytes: &[u8] = &whole.segment;
        let digits = match header::stored_checksum(bytes) {
            Stored::Missing => Some(checksum::digits(checksum::of(bytes))),
            Stored::Checksum(_) | Stored::Garbled | Stored::Foreign => None,
        };
        let first = |len: usize| match digits {
            Some(digits) => checksum::with_digits(bytes, len, digits),
            None => bytes[..len.min(bytes.len())].into(),
        };

        let mut builder = tempfile::Builder::new();
        builder.prefix(".shm-image-");
        #[cfg(unix)]
        let builder = {
            use std::os::unix::fs::PermissionsExt;
            // The umask applies, as to any new file.
            builder.permissions(std::fs::Permissions::from_mode(options.mode.unwrap_or(0o666)))
        };
        let mut file = builder.tempfile_in(dir).map_err(failed("make a file beside"))?;
        #[cfg(unix)]
        if let Some(mode) = options.mode {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(mode);
            file.as_file()
                .set_permissions(mode)
                .map_err(failed("set the mode of"))?;
        }
        let out = file.as_file_mut();
        #[cfg(feature = "zstd")]
        let written = match options.compression {
            Some(compression) => {
                let first = first(compression.frame());
                let rest = bytes[first.len()..].chunks(compression.frame());
                let frames: Vec<&[u8]> = std::iter::once(&*first).chain(rest).collect();
                seekable::encode(out, &frames, compression)
            }
            None => write_plain(out, &first(BLOCK), bytes),
        };
        #[cfg(not(feature = "zstd"))]
        let written = write_plain(out, &first(BLOCK), bytes);
        written.map_err(failed("write"))?;
        out.sync_all().map_err(failed("write to the disk"))?;
        // Not `NamedTempFile::persist`: on Windows only `rename` replaces a file that somebody has open or mapped.
        let finished = file
            .into_temp_path()
            .keep()
            .map_err(|e| failed("keep a file beside")(e.error))?;
        std::fs::rename(&finished, path)
            .inspect_err(|_| drop(std::fs::remove_file(&finished)))
            .map_err(failed("replace"))?;
        // The new name is on the disk when its directory is.
        #[cfg(unix)]
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("write to the disk the name of"))?;
        Ok(())
    }
}

fn write_plain(out: &mut File, first: &[u8], bytes: &[u8]) -> io::Result<()> {
    out.write_all(first)?;
    out.write_all(&bytes[first.len()..])
}
