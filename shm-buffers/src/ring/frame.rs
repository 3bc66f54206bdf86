//! How a frame is put into words.

use super::WORD;

/// Bytes of a frame that fit beside its length.
pub(super) const SMALL: usize = WORD - 1;
/// In the highest byte of a small frame's word, where the header of another one has a set highest bit.
pub(super) const SMALL_MARK: u8 = 0x40;
/// So that it has.
pub(super) const MAX_LEN: usize = i32::MAX as usize;

pub(super) fn frame_words(len: usize) -> usize {
    match len {
        ..=SMALL => 1,
        _ => 1 + len.div_ceil(WORD),
    }
}

/// The word that a frame of up to [`SMALL`] bytes is.
#[inline]
pub(super) fn small_frame(parts: &[&[u8]], len: usize) -> u64 {
    let mut word = u64::from(SMALL_MARK | len as u8) << (SMALL as u32 * u8::BITS);
    let mut bits = 0;
    for part in parts {
        word |= low_bytes(part) << bits;
        bits += part.len() as u32 * u8::BITS;
    }
    word
}

/// Up to [`SMALL`] bytes as the lowest of a word: two loads that may overlap, which is much less than calling the
/// system's copy for a few bytes.
#[inline]
fn low_bytes(bytes: &[u8]) -> u64 {
    const HALF: usize = WORD / 2;
    let len = bytes.len();
    let at = |index: usize| u64::from(bytes[index]) << (index as u32 * u8::BITS);
    if let (Some(first), Some(last)) = (bytes.first_chunk::<HALF>(), bytes.last_chunk::<HALF>()) {
        let shift = (len - HALF) as u32 * u8::BITS;
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift;
    }
    match len {
        0 => 0,
        _ => at(0) | at(len / 2) | at(len - 1),
    }
}
