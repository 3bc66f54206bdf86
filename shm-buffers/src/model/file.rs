//! Images on disk are loaded into memory, and verified.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::checksum::{self, BLOCK};
use super::error::{LoadSharedError, OpenError, VerifyError};
use super::header::{self, HeaderError, PREFIX, Stored};
use super::image::Image;
use super::options::LoadOptions;
#[cfg(feature = "zstd")]
use super::seekable;
use super::source::Source;
use super::spread;
use crate::backing::Backing;
use crate::os;
use crate::segment::SegmentMut;

impl Image {
    /// Reads an image, plain or compressed, into a fresh segment, with the default limits: see
    /// [`load_shared_with`](Self::load_shared_with).
    ///
    /// # Errors
    /// As [`load_shared_with`](Self::load_shared_with).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Backing, Buffer, Image, share};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("model.safetensors");
    /// share(&Buffer::from(vec![0.5f32; 1000]), &Backing::Auto)?.save(&path)?;
    /// let weights: Buffer<f32> = Image::load_shared(&path, &Backing::Auto)?.load()?;
    /// assert_eq!(weights[999], 0.5);
    /// # Ok(()) }
    /// ```
    pub fn load_shared(path: impl AsRef<Path>, backing: &Backing) -> Result<Self, LoadSharedError> {
        Self::load_shared_with(path, &backing.into())
    }

    /// Reads an image, plain or compressed, into a fresh segment: in parallel, and compared with its checksums on the
    /// way. Compressed frames are decoded straight to their place. Beside the segment, memory is bounded by the
    /// header's limit, and by two frames for each core if it is compressed.
    ///
    /// # Errors
    /// [`LoadSharedError::TooLarge`] or [`OpenError::HeaderTooLarge`] if it exceeds a limit, and
    /// [`LoadSharedError::Create`] if there is no room for what the file says it has, before any of it is loaded;
    /// [`LoadSharedError::Verify`] or [`LoadSharedError::Frame`] if a byte is not what was saved.
    pub fn load_shared_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, LoadSharedError> {
        let path = path.as_ref();
        let what = || path.display().to_string();
        let (file, len) = open_regular(path)?;
        let source = Source::File { file: &file, len };
        let mut plain = Plain::of(source, &what)?;
        #[cfg(feature = "zstd")]
        if plain.index.is_some() {
            return decode(plain, source, options);
        }
        within(len, options.plain_limit(), &what)?;
        let head = plain.head(options)?;
        let carries = header::stored_checksum(&head);
        let mut segment = SegmentMut::create(options.wanted_backing(), len)?;
        let mut hashes = vec![0; len.div_ceil(BLOCK)];
        let work = segment.chunks_mut(BLOCK).zip(&mut hashes).enumerate();
        spread::try_each(
            work,
            || Ok(()),
            |(), (index, (block, hash))| {
                source.fill(index * BLOCK, block)?;
                if matches!(carries, Stored::Checksum(_)) {
                    *hash = checksum::of_block(index, block);
                }
                Ok(())
            },
        )
        .map_err(|e| plain.failed(e))?;
        match checksum::compare(&segment, || checksum::of_blocks(&hashes)) {
            Ok(()) | Err(VerifyError::NoChecksum) => {}
            Err(source) => return Err(LoadSharedError::Verify { what: what(), source }),
        }
        Ok(Self::from_segment_with(segment.freeze()?, options))
    }

    /// Decodes a compressed image that is in memory already, as [`load_shared`](Self::load_shared) does.
    ///
    /// # Errors
    /// As [`load_shared_with`](Self::load_shared_with).
    #[cfg(feature = "zstd")]
    pub fn decode(bytes: &[u8], backing: &Backing) -> Result<Self, LoadSharedError> {
        Self::decode_with(bytes, &backing.into())
    }

    /// Decodes a compressed image that is in memory already, as [`load_shared_with`](Self::load_shared_with) does.
    ///
    /// # Errors
    /// As [`load_shared_with`](Self::load_shared_with).
    #[cfg(feature = "zstd")]
    pub fn decode_with(bytes: &[u8], options: &LoadOptions) -> Result<Self, LoadSharedError> {
        let source = Source::Memory(bytes);
        let what = || format!("a block of {} bytes", bytes.len());
        decode(Plain::compressed(source, &what)?, source, options)
    }

    /// Compares a file, plain or compressed, with the checksum that [`save`](Self::save) wrote, and returns the bytes of
    /// the image. It reads the file from the beginning to the end and keeps little of it, so that memory does not depend
    /// on the size of the image.
    ///
    /// # Errors
    /// [`LoadSharedError::Verify`] if a byte is not what was saved or the image carries no checksum, otherwise as
    /// [`load_shared_with`](Self::load_shared_with).
    pub fn verify_file(path: impl AsRef<Path>, options: &LoadOptions) -> Result<u64, LoadSharedError> {
        let path = path.as_ref();
        let what = || path.display().to_string();
        let (file, len) = open_regular(path)?;
        let mut plain = Plain::of(Source::File { file: &file, len }, &what)?;
        let head = plain.head(options)?;
        header::parse(&head, plain.len).map_err(|e| refused(e, what(), "model image"))?;
        let (mut hashes, mut block) = (Vec::new(), Vec::with_capacity(BLOCK));
        let mut left = plain.len;
        let mut behind: &[u8] = &head;
        while left > 0 {
            block.clear();
            let taken = (&mut behind)
                .chain(&mut plain)
                .take(BLOCK as u64)
                .read_to_end(&mut block);
            taken.map_err(|e| plain.failed(e))?;
            if block.is_empty() || block.len() > left {
                return Err(plain.failed(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= block.len();
            hashes.push(checksum::of_block(hashes.len(), &block));
        }
        checksum::compare(&head, || checksum::of_blocks(&hashes))
            .map_err(|source| LoadSharedError::Verify { what: what(), source })?;
        Ok(plain.len as u64)
    }
}

/// A file that is loaded, decompressed if it is compressed, from its beginning on.
pub(crate) struct Plain<'a> {
    what: &'a dyn Fn() -> String,
    reader: Box<dyn Read + 'a>,
    /// Bytes of it, decompressed.
    pub(crate) len: usize,
    /// Bytes that were read.
    at: usize,
    #[cfg(feature = "zstd")]
    index: Option<seekable::Index>,
}

impl Read for Plain<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(target)?;
        self.at += count;
        Ok(count)
    }
}

impl<'a> Plain<'a> {
    pub(crate) fn of(source: Source<'a>, what: &'a dyn Fn() -> String) -> Result<Self, LoadSharedError> {
        let plain = Self {
            what,
            reader: Box::new(source.reader()),
            len: source.len(),
            at: 0,
            #[cfg(feature = "zstd")]
            index: None,
        };
        match is_compressed(&source.first(4).map_err(|e| plain.failed(e))?) {
            true => Self::compressed(source, what),
            false => Ok(plain),
        }
    }

    #[cfg(feature = "zstd")]
    fn compressed(source: Source<'a>, what: &'a dyn Fn() -> String) -> Result<Self, LoadSharedError> {
        let index = seekable::Index::read(source)
            .map_err(|reason| LoadSharedError::Index { what: what(), reason })?;
        let len = index.plain;
        let decoder = zstd::stream::read::Decoder::new(source.reader());
        let decoder = decoder.map_err(|source| LoadSharedError::Read { what: what(), source })?;
        Ok(Self {
            what,
            reader: Box::new(decoder),
            len,
            at: 0,
            index: Some(index),
        })
    }

    #[cfg(not(feature = "zstd"))]
    fn compressed(_: Source<'a>, what: &'a dyn Fn() -> String) -> Result<Self, LoadSharedError> {
        Err(LoadSharedError::NoZstd { what: what() })
    }

    /// Reads up to the end of the header, from the beginning, if that can be a safetensors file's.
    pub(crate) fn head(&mut self, options: &LoadOptions) -> Result<Vec<u8>, LoadSharedError> {
        let refused = |error| refused(error, (self.what)(), "model image");
        let mut head = Vec::new();
        let read = self.by_ref().take(PREFIX as u64 + 1).read_to_end(&mut head);
        read.map_err(|e| self.failed(e))?;
        let end = header::end(&head, self.len, options.header_limit()).map_err(refused)?;
        let more = end.saturating_sub(head.len());
        let read = self.by_ref().take(more as u64).read_to_end(&mut head);
        read.map_err(|e| self.failed(e))?;
        match head.len() == end {
            true => Ok(head),
            false => Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The error of reading the next byte.
    pub(crate) fn failed(&self, source: io::Error) -> LoadSharedError {
        let what = (self.what)();
        #[cfg(feature = "zstd")]
        if let Some(index) = &self.index {
            let frame = index.frame_at(self.at);
            return LoadSharedError::Frame { what, frame, source };
        }
        LoadSharedError::Read { what, source }
    }
}

#[cfg(feature = "zstd")]
fn decode(mut plain: Plain<'_>, source: Source<'_>, options: &LoadOptions) -> Result<Image, LoadSharedError> {
    let what = plain.what;
    within(plain.len, options.decompressed_limit(source.len()), what)?;
    plain.head(options)?;
    let mut segment = SegmentMut::create(options.wanted_backing(), plain.len)?;
    if let Some(index) = &plain.index {
        let (target, write) = segment.target(0, plain.len);
        let done = index.decode(source, target, write);
        done.map_err(|(frame, source)| LoadSharedError::Frame {
            what: what(),
            frame,
            source,
        })?;
    }
    Ok(Image::from_segment_with(segment.freeze()?, options))
}

/// Refuses what has more bytes than it may.
pub(crate) fn within(len: usize, limit: u64, what: &dyn Fn() -> String) -> Result<(), LoadSharedError> {
    match len as u64 {
        needed if needed > limit => Err(LoadSharedError::TooLarge {
            what: what(),
            needed,
            limit,
        }),
        _ => Ok(()),
    }
}

/// Opens a regular file to read it.
pub(crate) fn open_regular(path: &Path) -> Result<(File, usize), OpenError> {
    os::open_regular(path).map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Whether the first bytes can be a plain image's.
pub(crate) fn judge(bytes: &[u8], options: &LoadOptions, what: impl Fn() -> String) -> Result<(), OpenError> {
    if is_compressed(bytes) {
        return Err(OpenError::Compressed { what: what() });
    }
    match header::end(bytes, bytes.len(), options.header_limit()) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(error, what(), "model image")),
    }
}

/// The error of opening `what` as a `wanted`.
pub(crate) fn refused(error: HeaderError, what: String, wanted: &'static str) -> OpenError {
    match error {
        HeaderError::Format(reason) => OpenError::Format { what, wanted, reason },
        HeaderError::TooLong { len, limit } => OpenError::HeaderTooLarge { what, len, limit },
    }
}

/// Whether these are the first bytes of a zstd file (RFC 8878): a frame, or a skippable one. No header is as long as
/// they would say.
pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    let magic = bytes.first_chunk().map(|magic| u32::from_le_bytes(*magic));
    magic.is_some_and(|magic| magic == 0xFD2F_B528 || magic & 0xFFFF_FFF0 == 0x184D_2A50)
}
