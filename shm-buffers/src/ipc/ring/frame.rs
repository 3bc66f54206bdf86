//! The encoding of a frame as words.

use crate::ipc::words::WORD;

/// The most bytes of a small frame: they share one word with the frame's length.
pub(super) const SMALL: usize = WORD - 1;
/// The most bytes of a frame that is moved word by word, through an array of constant length: for so few, a call to copy them costs more.
pub(super) const MEDIUM: usize = 3 * WORD;
/// A bit in the highest byte of a small frame's word. The word of a small frame has its highest bit clear; the header of
/// any other frame has it set.
pub(super) const SMALL_MARK: u8 = 0x40;
/// The most bytes of any frame. Up to here, the complement of the length in a header has its highest bit set.
pub(super) const MAX_LEN: usize = i32::MAX as usize;

/// Returns the number of words of a frame of `len` bytes.
pub(super) fn frame_words(len: usize) -> usize {
    match len {
        ..=SMALL => 1,
        _ => 1 + len.div_ceil(WORD),
    }
}

/// Returns the header of a frame of more than [`SMALL`] bytes: its length in the low half, the complement in the high half.
#[inline]
pub(super) fn header(len: usize) -> u64 {
    len as u64 | u64::from(!(len as u32)) << 32
}

/// Encodes a frame of up to [`SMALL`] bytes as one word.
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

/// Returns up to [`SMALL`] bytes as the low bytes of a word. Two loads that may overlap cost much less than a call of
/// `memcpy` for a few bytes.
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
