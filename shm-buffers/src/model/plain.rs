//! [`PlainReader`]: the decompressed bytes of a file that is loaded, and the checks before it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{LoadSharedError, OpenError};
use super::header::{self, HeaderError, PREFIX};
use super::options::LoadOptions;
#[cfg(feature = "zstd")]
use super::seekable::FrameIndex;
use super::source::Source;
use crate::os;

/// Reads the content of a file that is loaded, decompressed if the file is compressed.
pub(crate) struct PlainReader<'a> {
    /// Returns the name of the file, for errors.
    pub(super) what: &'a dyn Fn() -> String,
    reader: Box<dyn Read + 'a>,
    /// Bytes of the content.
    pub(crate) len: usize,
    /// Bytes of the content that were read.
    at: usize,
    #[cfg(feature = "zstd")]
    pub(super) index: Option<FrameIndex>,
}

impl Read for PlainReader<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(target)?;
        self.at += count;
        Ok(count)
    }
}

impl<'a> PlainReader<'a> {
    pub(crate) fn new(source: Source<'a>, what: &'a dyn Fn() -> String) -> Result<Self, LoadSharedError> {
        let plain = Self {
            what,
            reader: Box::new(source.reader()),
            len: source.len(),
            at: 0,
            #[cfg(feature = "zstd")]
            index: None,
        };
        match is_compressed(&source.first(4).map_err(|e| plain.error(e))?) {
            true => Self::compressed(source, what),
            false => Ok(plain),
        }
    }

    #[cfg(feature = "zstd")]
    pub(super) fn compressed(
        source: Source<'a>,
        what: &'a dyn Fn() -> String,
    ) -> Result<Self, LoadSharedError> {
        let index =
            FrameIndex::read(source).map_err(|reason| LoadSharedError::Index { what: what(), reason })?;
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

    /// Reads from the start to the end of the header, if the content can be a safetensors file.
    pub(crate) fn read_header(&mut self, options: &LoadOptions) -> Result<Vec<u8>, LoadSharedError> {
        let refuse = |error| refuse(error, (self.what)(), "model image");
        let mut head = Vec::new();
        let read = self.by_ref().take(PREFIX as u64 + 1).read_to_end(&mut head);
        read.map_err(|e| self.error(e))?;
        let end = header::end(&head, self.len, options.header_limit()).map_err(refuse)?;
        let more = end.saturating_sub(head.len());
        let read = self.by_ref().take(more as u64).read_to_end(&mut head);
        read.map_err(|e| self.error(e))?;
        match head.len() == end {
            true => Ok(head),
            false => Err(self.error(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Returns the error for a failed read of the next byte.
    pub(crate) fn error(&self, source: io::Error) -> LoadSharedError {
        let what = (self.what)();
        #[cfg(feature = "zstd")]
        if let Some(index) = &self.index {
            let frame = index.frame_at(self.at);
            return LoadSharedError::Frame { what, frame, source };
        }
        LoadSharedError::Read { what, source }
    }
}

/// Refuses content of `len` bytes if it exceeds the limit.
pub(crate) fn check_size(len: usize, limit: u64, what: &dyn Fn() -> String) -> Result<(), LoadSharedError> {
    match len as u64 {
        needed if needed > limit => Err(LoadSharedError::TooLarge {
            what: what(),
            needed,
            limit,
        }),
        _ => Ok(()),
    }
}

/// Opens a regular file for reading, and returns its length.
pub(crate) fn open_regular(path: &Path) -> Result<(File, usize), OpenError> {
    os::open_regular(path).map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Refuses bytes that can't be a plain image, from the first of them.
pub(crate) fn check_plain(
    bytes: &[u8],
    options: &LoadOptions,
    what: impl Fn() -> String,
) -> Result<(), OpenError> {
    if is_compressed(bytes) {
        return Err(OpenError::Compressed { what: what() });
    }
    match header::end(bytes, bytes.len(), options.header_limit()) {
        Ok(_) => Ok(()),
        Err(error) => Err(refuse(error, what(), "model image")),
    }
}

/// Returns the error for opening `what` as a `wanted`.
pub(crate) fn refuse(error: HeaderError, what: String, wanted: &'static str) -> OpenError {
    match error {
        HeaderError::Format(reason) => OpenError::Format { what, wanted, reason },
        HeaderError::TooLong { len, limit } => OpenError::HeaderTooLarge { what, len, limit },
    }
}

/// Returns whether these are the first bytes of a zstd file (RFC 8878): of a frame or a skippable frame. As the length of a
/// safetensors header, they would exceed that format's limit.
pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    let magic = bytes.first_chunk().map(|magic| u32::from_le_bytes(*magic));
    magic.is_some_and(|magic| magic == 0xFD2F_B528 || magic & 0xFFFF_FFF0 == 0x184D_2A50)
}
