//! [`Source`]: the bytes of an image that is being loaded, in memory or in a file. A file is read, never mapped: if it is
//! truncated while it is loaded, that is an error and not a signal.

use std::fs::File;
use std::io::{self, Read};

use super::checksum::BLOCK;
use super::error::LoadSharedError;
use crate::backing::Backing;
use crate::segment::{Segment, SegmentMut};
use crate::{os, parallel};

/// The bytes of an image that is being loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    #[cfg_attr(
        not(feature = "zstd"),
        expect(dead_code, reason = "only `decode` reads memory")
    )]
    Memory(&'a [u8]),
    /// The first `len` bytes of a file.
    File { file: &'a File, len: usize },
}

impl<'a> Source<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File { len, .. } => *len,
        }
    }

    /// Fills `target` with the bytes from `offset` on.
    pub(crate) fn fill(&self, offset: usize, target: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                let source = bytes.get(offset..).and_then(|rest| rest.get(..target.len()));
                target.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::File { file, .. } => os::read_exact_at(file, target, offset as u64),
        }
    }

    /// Returns the `len` bytes at `offset`: in place, or read into `scratch`.
    #[cfg(feature = "zstd")]
    pub(crate) fn bytes<'b>(
        &self,
        offset: usize,
        len: usize,
        scratch: &'b mut Vec<u8>,
    ) -> io::Result<&'b [u8]>
    where
        'a: 'b,
    {
        match self {
            Self::Memory(bytes) => {
                let bytes = bytes.get(offset..).and_then(|rest| rest.get(..len));
                bytes.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Self::File { .. } => {
                scratch.resize(len, 0);
                self.fill(offset, scratch)?;
                Ok(scratch)
            }
        }
    }

    /// Reads all bytes into a new segment, in parallel.
    pub(crate) fn load(
        &self,
        backing: &Backing,
        read_error: &dyn Fn(io::Error) -> LoadSharedError,
    ) -> Result<Segment, LoadSharedError> {
        let mut segment = SegmentMut::create(backing, self.len())?;
        let threads = parallel::threads(self.len().div_ceil(BLOCK));
        let work = segment.chunks_mut(BLOCK).enumerate();
        let read = |_: &mut (), (index, block): (usize, &mut [u8])| self.fill(index * BLOCK, block);
        parallel::try_for_each_with(threads, work, |_| Ok(()), read).map_err(read_error)?;
        Ok(segment.freeze()?)
    }

    /// Returns the first bytes, `count` of them at most.
    pub(crate) fn first(&self, count: usize) -> io::Result<Vec<u8>> {
        let mut first = vec![0; count.min(self.len())];
        self.fill(0, &mut first)?;
        Ok(first)
    }

    /// Returns a reader from the first byte on.
    pub(crate) fn reader(self) -> Reader<'a> {
        Reader { source: self, at: 0 }
    }
}

/// Reads a [`Source`] from the first byte on.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    source: Source<'a>,
    at: usize,
}

impl Read for Reader<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = target.len().min(self.source.len() - self.at);
        self.source.fill(self.at, &mut target[..count])?;
        self.at += count;
        Ok(count)
    }
}
