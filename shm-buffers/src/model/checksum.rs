//! The checksum of a model image: XXH64 (github.com/Cyan4973/xxHash, seed 0) of the little-endian XXH64s of its blocks of
//! 1 MiB, in order, where the sixteen digits of the checksum itself count as `-`.
//!
//! Blocks allow several threads to compute it, and a reader to check it while it reads block by block.

use std::borrow::Cow;

use super::error::VerifyError;
use super::header::{self, DIGITS, NO_DIGITS, StoredChecksum};
use crate::parallel;

pub(super) const BLOCK: usize = 1 << 20;

fn xxh64(bytes: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, bytes)
}

/// Returns the lower half of the XXH64 of some bytes: the checksum in zstd's frames.
#[cfg(feature = "zstd")]
pub(super) fn lower_half(bytes: &[u8]) -> u32 {
    xxh64(bytes) as u32
}

/// Returns the first `len` bytes of an image with other digits for its checksum, or unchanged if it has no place for
/// digits.
pub(super) fn with_digits(bytes: &[u8], len: usize, digits: [u8; 16]) -> Cow<'_, [u8]> {
    let first = &bytes[..len.min(bytes.len())];
    match header::stored_checksum(first) {
        StoredChecksum::NoPlace => Cow::Borrowed(first),
        _ => {
            let mut first = first.to_vec();
            first[DIGITS].copy_from_slice(&digits);
            Cow::Owned(first)
        }
    }
}

/// Returns the hash of a header that was written here, without the digits of the image's checksum.
pub(super) fn of_header(header: &[u8]) -> u64 {
    use std::hash::Hasher as _;

    let mut hash = twox_hash::XxHash64::with_seed(0);
    hash.write(header.get(..DIGITS.start).unwrap_or(header));
    hash.write(header.get(DIGITS.end..).unwrap_or_default());
    hash.finish()
}

/// Returns the hash of block `index`.
pub(super) fn of_block(index: usize, block: &[u8]) -> u64 {
    match index {
        0 => xxh64(&with_digits(block, block.len(), NO_DIGITS)),
        _ => xxh64(block),
    }
}

/// Returns the checksum of an image whose blocks have these hashes.
pub(super) fn of_blocks(blocks: &[u64]) -> u64 {
    let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.to_le_bytes()).collect();
    xxh64(&bytes)
}

/// Returns the checksum of an image.
pub(super) fn of(image: &[u8]) -> u64 {
    let mut hashes = vec![0; image.len().div_ceil(BLOCK)];
    let threads = parallel::threads(hashes.len());
    let work = image.chunks(BLOCK).zip(&mut hashes).enumerate();
    parallel::for_each(threads, work, |(index, (block, hash))| {
        *hash = of_block(index, block);
    });
    of_blocks(&hashes)
}

/// Returns the digits of a checksum in an image.
pub(super) fn digits(checksum: u64) -> [u8; 16] {
    let text = format!("{checksum:016x}");
    *text.as_bytes().first_chunk().unwrap_or(&NO_DIGITS)
}

/// Compares the checksum in an image with a computed one.
pub(super) fn compare(image: &[u8], computed: impl FnOnce() -> u64) -> Result<(), VerifyError> {
    match header::stored_checksum(image) {
        StoredChecksum::NoPlace | StoredChecksum::NotComputed => Err(VerifyError::NoChecksum),
        StoredChecksum::Invalid => Err(VerifyError::Format("its checksum is not a number".to_owned())),
        StoredChecksum::Present(stored) => match computed() {
            computed if computed == stored => Ok(()),
            computed => Err(VerifyError::Mismatch { stored, computed }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_have_the_published_values() {
        // From the sanity tests of the reference implementation.
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn every_byte_but_the_digits_changes_the_checksum() {
        let mut image = header::write(&[]).expect("it is small");
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
