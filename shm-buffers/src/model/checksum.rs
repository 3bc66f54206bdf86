//! The checksum of an image: XXH64 (github.com/Cyan4973/xxHash, seed 0) of the little-endian XXH64s of its blocks of
//! 1 MiB, in order, where the sixteen digits of the checksum itself count as `-`.
//!
//! In blocks, so that any number of threads compute it and whoever reads block by block checks on the way.

use std::borrow::Cow;

use super::header::{self, DIGITS, NO_DIGITS, Stored};
use super::spread;
use crate::model::error::VerifyError;

pub(super) const BLOCK: usize = 1 << 20;

fn xxh64(bytes: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, bytes)
}

/// The lower half of the XXH64 of some bytes, as zstd's frames use it.
#[cfg(feature = "zstd")]
pub(super) fn lower_half(bytes: &[u8]) -> u32 {
    xxh64(bytes) as u32
}

/// The beginning of an image, up to `len` bytes, with other digits for its checksum; as it is, if it has no place for
/// them.
pub(super) fn with_digits(bytes: &[u8], len: usize, digits: [u8; 16]) -> Cow<'_, [u8]> {
    let first = &bytes[..len.min(bytes.len())];
    match header::stored_checksum(first) {
        Stored::Foreign => Cow::Borrowed(first),
        _ => {
            let mut first = first.to_vec();
            first[DIGITS].copy_from_slice(&digits);
            Cow::Owned(first)
        }
    }
}

/// The hash of block `index`.
pub(super) fn of_block(index: usize, block: &[u8]) -> u64 {
    match index {
        0 => xxh64(&with_digits(block, block.len(), NO_DIGITS)),
        _ => xxh64(block),
    }
}

/// The checksum of an image with these blocks.
pub(super) fn of_blocks(blocks: &[u64]) -> u64 {
    let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.to_le_bytes()).collect();
    xxh64(&bytes)
}

/// The checksum of an image.
pub(super) fn of(image: &[u8]) -> u64 {
    let mut hashes = vec![0; image.len().div_ceil(BLOCK)];
    let work = image.chunks(BLOCK).zip(&mut hashes).enumerate();
    spread::each(work, |(index, (block, hash))| *hash = of_block(index, block));
    of_blocks(&hashes)
}

pub(super) fn digits(checksum: u64) -> [u8; 16] {
    let text = format!("{checksum:016x}");
    *text.as_bytes().first_chunk().unwrap_or(&NO_DIGITS)
}

/// Compares what an image carries with what was computed.
pub(super) fn compare(image: &[u8], computed: impl FnOnce() -> u64) -> Result<(), VerifyError> {
    match header::stored_checksum(image) {
        Stored::Foreign | Stored::Missing => Err(VerifyError::NoChecksum),
        Stored::Garbled => Err(VerifyError::Format("its checksum is no number".to_owned())),
        Stored::Checksum(stored) => match computed() {
            computed if computed == stored => Ok(()),
            computed => Err(VerifyError::Mismatch { stored, computed }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // From the reference implementation's sanity values.
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn digits_do_not_count_and_all_else_does() {
        let mut image = header::write(&[], None).expect("it is small");
        image.resize(2 * BLOCK + 3, 7);
        let sum = of(&image);
        image[DIGITS].copy_from_slice(&digits(sum));
        assert_eq!(of(&image), sum);
        assert!(compare(&image, || of(&image)).is_ok());
        for at in [PREFIX_END, BLOCK, 2 * BLOCK + 2] {
            image[at] ^= 1;
            assert_ne!(of(&image), sum, "byte {at}");
            image[at] ^= 1;
        }
    }

    const PREFIX_END: usize = DIGITS.end;
}
