//! Compressed model images: many zstd frames, and an index of them in a skippable frame at the end.
//!
//! This is zstd's public seekable format (facebook/zstd, `contrib/seekable_format`). Frames are compressed and decoded in
//! parallel, and `zstd -d` decompresses the file to a plain image:
//!
//! ```text
//! frames           each with its content's size and checksum
//! 0x184D2A5E       the index: a skippable frame
//! u32              its length, from here on
//! (u32, u32) each  compressed and decompressed length of each frame, and a checksum (u32) if the descriptor has bit 7
//! u32              number of frames
//! u8               descriptor: bit 7 for checksums; bits 2 to 6 are reserved
//! 0x8F92EAB1
//! ```
//!
//! It is written by hand because streaming decoders can't decode frames in parallel, directly into their place in a segment.

use std::io::{self, Write};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter};

use super::checksum;
use super::source::Source;
use crate::{os, parallel};

const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
const SKIPPABLE_HEADER: usize = 8;
const FOOTER: usize = 9;
const WITH_CHECKSUMS: u8 = 1 << 7;
const RESERVED: u8 = 0b0111_1100;
/// The fewest bytes of a frame (RFC 8878: magic number, header, one block's header). An index of shorter ones is false.
const MIN_FRAME: u32 = 9;
/// The format's own limit for the content of a frame, in bytes.
const MAX_FRAME: usize = 1 << 30;
/// The number of frames that each thread compresses before they are written.
const AHEAD: usize = 4;

/// The compression of an image: the level, and the size of the frames.
///
/// ```
/// let small = shm_buffers::Compression::level(19).frame_bytes(16 << 20);
/// # let _ = small;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    level: i32,
    frame: usize,
}

impl Default for Compression {
    /// Level 3, frames of 4 MiB.
    fn default() -> Self {
        Self::level(3)
    }
}

impl Compression {
    /// Creates a compression of a zstd level: 1 is fast, 3 is zstd's default, 19 is small and slow; negative levels are faster
    /// still. A level outside of zstd's range is clamped.
    pub fn level(level: i32) -> Self {
        let range = zstd::compression_level_range();
        Self {
            level: level.clamp(*range.start(), *range.end()),
            frame: 4 << 20,
        }
    }

    /// Sets the bytes of the image in each frame, clamped to 64 KiB to 1 GiB. Larger frames compress better; smaller frames
    /// keep more threads busy.
    #[must_use]
    pub fn frame_bytes(mut self, bytes: usize) -> Self {
        self.frame = bytes.clamp(64 << 10, MAX_FRAME);
        self
    }

    pub(super) fn frame(&self) -> usize {
        self.frame
    }
}

/// Writes `frames`, compressed one by one, and their index.
pub(super) fn encode(out: &mut impl Write, frames: &[&[u8]], compression: Compression) -> io::Result<()> {
    let compressor = |_| -> io::Result<_> {
        let mut compressor = Compressor::new(compression.level)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
        Ok(compressor)
    };
    let mut entries = Vec::with_capacity(frames.len() * 8);
    // In rounds, so that little compressed data waits in memory to be written.
    for round in frames.chunks(AHEAD * parallel::threads(frames.len())) {
        let mut compressed = vec![Vec::new(); round.len()];
        let work = round.iter().zip(&mut compressed);
        let threads = parallel::threads(round.len());
        parallel::try_for_each_with(threads, work, compressor, |compressor, (frame, compressed)| {
            *compressed = compressor.compress(frame)?;
            io::Result::Ok(())
        })?;
        for (frame, compressed) in round.iter().zip(&compressed) {
            out.write_all(compressed)?;
            entries.extend_from_slice(&to_u32(compressed.len())?.to_le_bytes());
            entries.extend_from_slice(&to_u32(frame.len())?.to_le_bytes());
        }
    }
    out.write_all(&SKIPPABLE.to_le_bytes())?;
    out.write_all(&to_u32(entries.len() + FOOTER)?.to_le_bytes())?;
    out.write_all(&entries)?;
    out.write_all(&to_u32(frames.len())?.to_le_bytes())?;
    out.write_all(&[0])?;
    out.write_all(&SEEKABLE.to_le_bytes())
}

fn to_u32(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// The frames of a compressed image, in order.
#[derive(Debug)]
pub(super) struct FrameIndex {
    frames: Vec<FrameEntry>,
    /// Bytes of the plain image.
    pub(super) plain: usize,
}

/// An entry of the index: small, because a hostile file may have a great number of entries.
#[derive(Debug, Clone, Copy)]
struct FrameEntry {
    compressed: u32,
    plain: u32,
    checksum: Option<u32>,
}

impl FrameIndex {
    /// Reads the index, and checks that its frames fill the file and declare the same sizes as the index.
    pub(super) fn read(source: Source<'_>) -> Result<Self, String> {
        let unreadable = |e: io::Error| format!("it cannot be read: {e}");
        let footer_at = source.len().checked_sub(FOOTER).ok_or("it is too short")?;
        let mut footer = [0; FOOTER];
        source.fill(footer_at, &mut footer).map_err(unreadable)?;
        if u32_at(&footer, 5) != Some(SEEKABLE) {
            return Err("it does not end with an index of its frames".to_owned());
        }
        let descriptor = footer[4];
        if descriptor & RESERVED != 0 {
            return Err(format!("its index has the unknown descriptor {descriptor:#x}"));
        }
        let entry = match descriptor & WITH_CHECKSUMS {
            0 => 8,
            _ => 12,
        };
        let count = u32_at(&footer, 0).map_or(0, |count| count as usize);
        let table = count.checked_mul(entry);
        let table_at = table.and_then(|table| footer_at.checked_sub(table));
        let start = table_at.and_then(|at| at.checked_sub(SKIPPABLE_HEADER));
        let (Some(table_at), Some(start)) = (table_at, start) else {
            return Err(format!("its index of {count} frames is longer than the file"));
        };
        let len = (source.len() - table_at) as u64;
        let mut head = [0; SKIPPABLE_HEADER];
        source.fill(start, &mut head).map_err(unreadable)?;
        if u32_at(&head, 0) != Some(SKIPPABLE) || u32_at(&head, 4).map(u64::from) != Some(len) {
            return Err(format!(
                "its index of {count} frames does not start where it should"
            ));
        }

        let mut index = Self {
            frames: Vec::new(),
            plain: 0,
        };
        let (mut at, mut entries, mut first) = (0, Vec::new(), Vec::new());
        // In batches, so that a false index takes memory only for frames that the file has.
        for batch in (table_at..footer_at).step_by(entry * BATCH) {
            let len = (entry * BATCH).min(footer_at - batch);
            let entries = source.bytes(batch, len, &mut entries).map_err(unreadable)?;
            for entry in entries.chunks_exact(entry) {
                let frame = FrameEntry::read(entry, index.frames.len(), start - at)?;
                let header = FRAME_HEADER.min(frame.compressed as usize);
                let first = source.bytes(at, header, &mut first).map_err(unreadable)?;
                let declared = zstd_safe::get_frame_content_size(first).ok().flatten();
                if declared.is_some_and(|declared| declared != u64::from(frame.plain)) {
                    return Err(format!(
                        "frame {} and the index have different sizes",
                        index.frames.len()
                    ));
                }
                at += frame.compressed as usize;
                index.plain = index
                    .plain
                    .checked_add(frame.plain as usize)
                    .ok_or("the size in its index exceeds the address space")?;
                index.frames.push(frame);
            }
        }
        match at == start {
            true => Ok(index),
            false => Err(format!("its index omits bytes {at} to {start}")),
        }
    }

    /// Returns the number of the frame with byte `at` of the plain image.
    pub(super) fn frame_at(&self, at: usize) -> usize {
        let ends = self.frames.iter().scan(0, |end, frame| {
            *end += frame.plain as usize;
            Some(*end)
        });
        ends.take_while(|end| *end <= at).count()
    }

    /// Decodes each frame of `source` into its place in `target`, in parallel, and checks it. `write` writes bytes at
    /// an offset of `target` by other means than touching it, and returns whether it could.
    ///
    /// # Errors
    /// The number of the frame, and the decoder's error.
    ///
    /// # Panics
    /// If the length of `target` is not that of the plain image.
    pub(super) fn decode(
        &self,
        source: Source<'_>,
        target: &mut [u8],
        write: impl Fn(usize, &[u8]) -> bool + Sync,
    ) -> Result<(), (usize, io::Error)> {
        assert_eq!(target.len(), self.plain);
        let mut targets = target;
        let (mut read, mut written) = (0, 0);
        let work = self.frames.iter().enumerate().map(|(index, frame)| {
            let from = read;
            read += frame.compressed as usize;
            let (target, rest) = std::mem::take(&mut targets).split_at_mut(frame.plain as usize);
            targets = rest;
            let start = written;
            written += target.len();
            (index, frame, from, start, target)
        });
        let decoder = |thread| {
            let decoder = Decompressor::new().map_err(|source| (0, source))?;
            Ok((decoder, Vec::new(), (thread < WRITERS).then(Vec::new)))
        };
        parallel::try_for_each_with(
            parallel::threads(self.frames.len()),
            work,
            decoder,
            |(decoder, compressed, scratch), (index, frame, from, start, target)| {
                let mut decode = || {
                    let bytes = source.bytes(from, frame.compressed as usize, compressed)?;
                    match scratch {
                        Some(scratch) if target.len() <= SCRATCH => {
                            scratch.resize(target.len(), 0);
                            frame.decode(decoder, bytes, scratch)?;
                            if !write(start, scratch) {
                                target.copy_from_slice(scratch);
                            }
                            Ok(())
                        }
                        _ => {
                            // A page fault costs about as much as decoding a page.
                            os::populate(target);
                            frame.decode(decoder, bytes, target)
                        }
                    }
                };
                decode().map_err(|source| (index, source))
            },
        )
    }
}

/// The number of an index's entries that are read together.
const BATCH: usize = 4096;
/// The most bytes of a frame's header (RFC 8878, 3.1.1.1).
const FRAME_HEADER: usize = 18;

/// The number of threads that decode into a scratch buffer and write it through the target's file, so that no fresh page is
/// touched or zeroed. Each write locks the file, so more threads would wait for each other.
const WRITERS: usize = 4;
/// The most bytes of a scratch buffer. Larger frames are decoded into the target.
const SCRATCH: usize = 8 << 20;

impl FrameEntry {
    /// Decodes entry `index`, of a frame that can have at most `left` compressed bytes.
    fn read(entry: &[u8], index: usize, left: usize) -> Result<Self, String> {
        let (Some(compressed), Some(plain)) = (u32_at(entry, 0), u32_at(entry, 4)) else {
            return Err("its index is truncated".to_owned());
        };
        if compressed < MIN_FRAME || compressed as usize > left {
            return Err(format!("frame {index} of its index does not lie in the file"));
        }
        if plain as usize > MAX_FRAME {
            return Err(format!(
                "frame {index} of its index exceeds the format's {MAX_FRAME} bytes"
            ));
        }
        // An encoder adds a few bytes to incompressible content. Memory for longer frames would be at the author's discretion.
        if u64::from(compressed) > 2 * u64::from(plain) + (64 << 10) {
            return Err(format!(
                "frame {index} of its index has {compressed} bytes for {plain}"
            ));
        }
        Ok(Self {
            compressed,
            plain,
            checksum: u32_at(entry, 8),
        })
    }

    fn decode(&self, decoder: &mut Decompressor<'_>, source: &[u8], target: &mut [u8]) -> io::Result<()> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let len = decoder.decompress_to_buffer(source, target)?;
        if len != target.len() {
            return Err(invalid(format!(
                "it decodes to {len} bytes, but the index has {}",
                target.len()
            )));
        }
        match self.checksum {
            // The frame's own checksum is the same, and the decoder has compared the content with it.
            Some(stored) if own_checksum(source) == Some(stored) => Ok(()),
            Some(stored) if stored != checksum::lower_half(target) => Err(invalid(
                "its content does not match the index's checksum".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// Returns the checksum at the end of a frame, if its header has the `Content_Checksum_flag` (RFC 8878, 3.1.1.1.1.5).
fn own_checksum(frame: &[u8]) -> Option<u32> {
    let flags = *frame.get(4)?;
    (flags & 4 != 0).then(|| u32_at(frame, frame.len().checked_sub(4)?))?
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let frames: Vec<&[u8]> = plain.chunks(1000).collect();
        encode(&mut out, &frames, Compression::level(1)).expect("writes to a vector succeed");
        out
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let index = FrameIndex::read(Source::Memory(bytes))?;
        let mut plain = vec![0; index.plain];
        let result = index.decode(Source::Memory(bytes), &mut plain, |_, _| false);
        result.map_err(|(frame, e)| format!("{frame}: {e}"))?;
        Ok(plain)
    }

    #[test]
    fn frames_decode_in_order_and_with_any_zstd_decoder() {
        let plain: Vec<u8> = (0..100_500_u32).map(|i| (i / 300) as u8).collect();
        let bytes = encoded(&plain);
        assert!(bytes.len() < plain.len() / 4);
        assert!(decoded(&bytes).as_ref() == Ok(&plain));
        let streamed = zstd::stream::decode_all(&*bytes).expect("it is a zstd file");
        assert!(streamed == plain);
        assert_eq!(decoded(&encoded(&[])), Ok(Vec::new()));
    }

    #[test]
    fn checksums_in_the_index_are_checked() {
        let plain = [7; 500];
        let frame = zstd::bulk::compress(&plain, 1).expect("it fits");
        let with = |sum: u32| {
            let mut bytes = frame.clone();
            let numbers = [
                SKIPPABLE,
                12 + FOOTER as u32,
                frame.len() as u32,
                plain.len() as u32,
                sum,
                1,
            ];
            bytes.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
            bytes.push(WITH_CHECKSUMS);
            bytes.extend(SEEKABLE.to_le_bytes());
            bytes
        };
        let sum = checksum::lower_half(&plain);
        assert!(decoded(&with(sum)).is_ok_and(|decoded| decoded == plain));
        assert!(decoded(&with(sum ^ 1)).is_err_and(|e| e.contains("checksum")));
    }

    #[test]
    fn a_false_index_is_refused() {
        let bytes = encoded(&[5; 2500]);
        let table = bytes.len() - FOOTER - 3 * 8;
        let patched = |at: usize, value: u32| {
            let mut bytes = bytes.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            decoded(&bytes)
        };
        assert!(patched(table + 4, 999).is_err_and(|e| e.contains("different sizes")));
        assert!(patched(table + 4, u32::MAX).is_err_and(|e| e.contains("exceeds")));
        assert!(patched(table, u32::MAX).is_err_and(|e| e.contains("does not lie")));
        assert!(patched(bytes.len() - FOOTER, u32::MAX).is_err_and(|e| e.contains("longer")));
        assert!(patched(bytes.len() - FOOTER, 2).is_err_and(|e| e.contains("start")));
        assert!(
            decoded(&zstd::bulk::compress(&[5; 99], 1).expect("it fits")).is_err_and(|e| e.contains("index"))
        );
    }
}
