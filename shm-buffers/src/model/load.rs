//! Loads model images from files into memory, and verifies them.

use std::io::{self, Read};
use std::path::Path;

use super::checksum::{self, BLOCK};
use super::error::{LoadSharedError, VerifyError};
use super::header::{self, StoredChecksum};
use super::image::Image;
use super::options::LoadOptions;
use super::plain::{PlainReader, check_size, open_regular, refuse};
use super::source::Source;
use crate::backing::Backing;
use crate::parallel;
use crate::segment::SegmentMut;

impl Image {
    /// Reads an image, plain or compressed, into a new segment, with the default limits: see
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

    /// Reads an image, plain or compressed, into a new segment, in parallel, and compares it with its checksums at the same
    /// time. Compressed frames are decoded directly into the segment. Besides the segment, it takes memory for the header
    /// (up to its limit) and, if the file is compressed, for two frames per core.
    ///
    /// # Errors
    /// [`LoadSharedError::TooLarge`] or [`OpenError::HeaderTooLarge`](crate::OpenError::HeaderTooLarge) if the file exceeds
    /// a limit, and [`LoadSharedError::Create`] if the content that it declares does not fit into memory, all before any of
    /// it is loaded. [`LoadSharedError::Verify`] or [`LoadSharedError::Frame`] if a byte has changed since the image was
    /// saved.
    pub fn load_shared_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, LoadSharedError> {
        let path = path.as_ref();
        let what = || path.display().to_string();
        let (file, len) = open_regular(path)?;
        let source = Source::File { file: &file, len };
        let mut plain = PlainReader::new(source, &what)?;
        #[cfg(feature = "zstd")]
        if plain.index.is_some() {
            return decode(plain, source, options);
        }
        check_size(len, options.plain_limit(), &what)?;
        let head = plain.read_header(options)?;
        let stored = header::stored_checksum(&head);
        let mut segment = SegmentMut::create(options.wanted_backing(), len)?;
        let mut hashes = vec![0; len.div_ceil(BLOCK)];
        let threads = parallel::threads(hashes.len());
        let work = segment.chunks_mut(BLOCK).zip(&mut hashes).enumerate();
        parallel::try_for_each_with(
            threads,
            work,
            |_| Ok(()),
            |(), (index, (block, hash))| {
                source.fill(index * BLOCK, block)?;
                if matches!(stored, StoredChecksum::Present(_)) {
                    *hash = checksum::of_block(index, block);
                }
                Ok(())
            },
        )
        .map_err(|e| plain.error(e))?;
        match checksum::compare(&segment, || checksum::of_blocks(&hashes)) {
            Ok(()) | Err(VerifyError::NoChecksum) => {}
            Err(source) => return Err(LoadSharedError::Verify { what: what(), source }),
        }
        Ok(Self::from_segment_with(segment.freeze()?, options))
    }

    /// Decodes a compressed image from memory, as [`load_shared`](Self::load_shared) does from a file.
    ///
    /// # Errors
    /// As [`load_shared_with`](Self::load_shared_with).
    #[cfg(feature = "zstd")]
    pub fn decode(bytes: &[u8], backing: &Backing) -> Result<Self, LoadSharedError> {
        Self::decode_with(bytes, &backing.into())
    }

    /// Decodes a compressed image from memory, as [`load_shared_with`](Self::load_shared_with) does from a file.
    ///
    /// # Errors
    /// As [`load_shared_with`](Self::load_shared_with).
    #[cfg(feature = "zstd")]
    pub fn decode_with(bytes: &[u8], options: &LoadOptions) -> Result<Self, LoadSharedError> {
        let source = Source::Memory(bytes);
        let what = || format!("a block of {} bytes", bytes.len());
        decode(PlainReader::compressed(source, &what)?, source, options)
    }

    /// Compares a file, plain or compressed, with the checksum that [`save`](Self::save) wrote, and returns the number of
    /// bytes of the image. It reads the file from start to end in small steps, so the memory that it takes does not depend
    /// on the size of the image.
    ///
    /// # Errors
    /// [`LoadSharedError::Verify`] if a byte has changed since the image was saved or the image has no checksum, otherwise as
    /// [`load_shared_with`](Self::load_shared_with).
    pub fn verify_file(path: impl AsRef<Path>, options: &LoadOptions) -> Result<u64, LoadSharedError> {
        let path = path.as_ref();
        let what = || path.display().to_string();
        let (file, len) = open_regular(path)?;
        let mut plain = PlainReader::new(Source::File { file: &file, len }, &what)?;
        let head = plain.read_header(options)?;
        header::parse(&head, plain.len).map_err(|e| refuse(e, what(), "model image"))?;
        let (mut hashes, mut block) = (Vec::new(), Vec::with_capacity(BLOCK));
        let mut left = plain.len;
        let mut unread_head: &[u8] = &head;
        while left > 0 {
            block.clear();
            let taken = (&mut unread_head)
                .chain(&mut plain)
                .take(BLOCK as u64)
                .read_to_end(&mut block);
            taken.map_err(|e| plain.error(e))?;
            if block.is_empty() || block.len() > left {
                return Err(plain.error(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= block.len();
            hashes.push(checksum::of_block(hashes.len(), &block));
        }
        checksum::compare(&head, || checksum::of_blocks(&hashes))
            .map_err(|source| LoadSharedError::Verify { what: what(), source })?;
        Ok(plain.len as u64)
    }
}

#[cfg(feature = "zstd")]
fn decode(
    mut plain: PlainReader<'_>,
    source: Source<'_>,
    options: &LoadOptions,
) -> Result<Image, LoadSharedError> {
    let what = plain.what;
    check_size(plain.len, options.decompressed_limit(source.len()), what)?;
    plain.read_header(options)?;
    let mut segment = SegmentMut::create(options.wanted_backing(), plain.len)?;
    if let Some(index) = &plain.index {
        let (target, write) = segment.target(0, plain.len);
        let decoded = index.decode(source, target, write);
        decoded.map_err(|(frame, source)| LoadSharedError::Frame {
            what: what(),
            frame,
            source,
        })?;
    }
    Ok(Image::from_segment_with(segment.freeze()?, options))
}
