//! Images on disk: saved, opened, and loaded into memory.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::checksum::{self, BLOCK};
use super::error::{LoadSharedError, OpenError, SaveError, VerifyError};
use super::header::{self, Stored};
use super::image::Image;
use super::outside::Outside;
#[cfg(feature = "zstd")]
use super::seekable::{self, Compression};
use super::spread;
use crate::backing::Backing;
use crate::error::AttachError;
use crate::limits::SizeLimited;
use crate::os;
use crate::segment::{Segment, SegmentHandle, SegmentMut};

/// How an image is saved: plain, readable by whom the process's umask lets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveOptions {
    mode: Option<u32>,
    #[cfg(feature = "zstd")]
    compression: Option<Compression>,
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
        #[cfg(feature = "zstd")]
        let plain = options.compression.is_none();
        #[cfg(not(feature = "zstd"))]
        let plain = true;
        if plain {
            os::admit_write(file.as_file(), bytes.len()).map_err(failed("write"))?;
        }
        let out = &mut SizeLimited::new(file.as_file_mut());
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
        file.as_file().sync_all().map_err(failed("write to the disk"))?;
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

    /// Maps a plain image read-only, in time independent of its size: pages are read when they are touched, and all
    /// processes that open the file share them.
    ///
    /// Its bytes are judged when they are used; [`verify`](Self::verify) reads them all. A handle leads to this very
    /// file: after it was replaced, attaching says so. As any mapped file, it must not be shortened or written in
    /// place meanwhile; [`save`](Self::save) never does that.
    ///
    /// # Errors
    /// When it can't be mapped, or its first bytes are no safetensors file's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let (segment, handle) = map(path.as_ref())?;
        judge(&segment, || path.as_ref().display().to_string())?;
        Ok(Self {
            segment,
            file: Some(handle),
            outside: Outside::Refused,
        })
    }

    /// Reads an image, plain or compressed, into a fresh segment: in parallel, and compared with its checksums on the
    /// way. Compressed frames are decoded straight to their place.
    ///
    /// # Errors
    /// [`LoadSharedError::Create`] before anything is decoded if there is no room for what the file says it has;
    /// [`LoadSharedError::Verify`] or [`LoadSharedError::Frame`] if a byte is not what was saved.
    pub fn load_shared(path: impl AsRef<Path>, backing: &Backing) -> Result<Self, LoadSharedError> {
        let path = path.as_ref();
        let what = || path.display().to_string();
        let (mapped, _) = map(path)?;
        if is_compressed(&mapped) {
            return decode(&mapped, backing, &what);
        }
        judge(&mapped, what)?;
        let verify = |source| LoadSharedError::Verify { what: what(), source };
        let read = |source| LoadSharedError::Read {
            path: path.to_owned(),
            source,
        };
        // Read, not copied from the mapping: if somebody shortens the file meanwhile, that is an error, not a signal.
        let file = File::open(path).map_err(read)?;
        let mut segment = SegmentMut::create(backing, mapped.len())?;
        let carries = header::stored_checksum(&mapped);
        let mut hashes = vec![0; mapped.len().div_ceil(BLOCK)];
        let work = segment.chunks_mut(BLOCK).zip(&mut hashes).enumerate();
        spread::try_each(
            work,
            || Ok(()),
            |(), (index, (block, hash))| {
                os::read_exact_at(&file, block, (index * BLOCK) as u64)?;
                if matches!(carries, Stored::Checksum(_)) {
                    *hash = checksum::of_block(index, block);
                }
                Ok(())
            },
        )
        .map_err(read)?;
        match checksum::compare(&segment, || checksum::of_blocks(&hashes)) {
            Ok(()) | Err(VerifyError::NoChecksum) => {}
            Err(source) => return Err(verify(source)),
        }
        Ok(Self::from_segment(segment.freeze()?))
    }

    /// Decodes a compressed image that is in memory already, as [`load_shared`](Self::load_shared) does.
    ///
    /// # Errors
    /// As [`load_shared`](Self::load_shared).
    #[cfg(feature = "zstd")]
    pub fn decode(bytes: &[u8], backing: &Backing) -> Result<Self, LoadSharedError> {
        decode(bytes, backing, &|| format!("a block of {} bytes", bytes.len()))
    }
}

fn write_plain(out: &mut impl Write, first: &[u8], bytes: &[u8]) -> io::Result<()> {
    out.write_all(first)?;
    out.write_all(&bytes[first.len()..])
}

#[cfg(feature = "zstd")]
fn decode(bytes: &[u8], backing: &Backing, what: &dyn Fn() -> String) -> Result<Image, LoadSharedError> {
    let index =
        seekable::Index::read(bytes).map_err(|reason| LoadSharedError::Index { what: what(), reason })?;
    let mut segment = SegmentMut::create(backing, index.plain)?;
    let (target, write) = segment.target(0, index.plain);
    index
        .decode(bytes, target, write)
        .map_err(|(frame, source)| LoadSharedError::Frame {
            what: what(),
            frame,
            source,
        })?;
    judge(&segment, what)?;
    Ok(Image::from_segment(segment.freeze()?))
}

#[cfg(not(feature = "zstd"))]
fn decode(_: &[u8], _: &Backing, what: &dyn Fn() -> String) -> Result<Image, LoadSharedError> {
    Err(LoadSharedError::NoZstd { what: what() })
}

/// Maps a file read-only.
pub(crate) fn map(path: &Path) -> Result<(Segment, SegmentHandle), OpenError> {
    let (locator, len) = os::locate(path).map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    let handle = SegmentHandle { locator, len };
    let segment = Segment::attach(&handle).map_err(|source: AttachError| OpenError::Map {
        path: path.to_owned(),
        source,
    })?;
    Ok((segment, handle))
}

/// Whether the first bytes can be a plain image's.
fn judge(bytes: &[u8], what: impl Fn() -> String) -> Result<(), OpenError> {
    if is_compressed(bytes) {
        return Err(OpenError::Compressed { what: what() });
    }
    match header::end(bytes, bytes.len()) {
        Ok(_) => Ok(()),
        Err(reason) => Err(OpenError::Format {
            what: what(),
            wanted: "model image",
            reason,
        }),
    }
}

/// Whether these are the first bytes of a zstd file (RFC 8878): a frame, or a skippable one. No header is as long as
/// they would say.
pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    let magic = bytes.first_chunk().map(|magic| u32::from_le_bytes(*magic));
    magic.is_some_and(|magic| magic == 0xFD2F_B528 || magic & 0xFFFF_FFF0 == 0x184D_2A50)
}
