//! The encoding of a frame as words.

use crate::ipc::words::WORD;

/// The most bytes of a small frame: they share one word with the frame's length.
pub(super) const SMALL: usize = WORD - 1;
/// The most bytes of a frame that may share one word with its length: those from the eighth on are zero, as are the high bytes of most
/// numbers.
pub(super) const SHORT: usize = 2 * WORD;
/// The bits of a word beside the length.
const LOW_BITS: u32 = SMALL as u32 * u8::BITS;
/// Those bits.
const LOW_MASK: u64 = (1 << LOW_BITS) - 1;
/// The most bytes of a frame that is moved word by word, through an array of constant length: for so few, a call to copy them costs more.
pub(super) const MEDIUM: usize = 3 * WORD;
/// A bit in the highest byte of a small frame's word. The word of a small frame has its highest bit clear; the header of
/// any other frame has it set.
pub(super) const SMALL_MARK: u8 = 0x40;
/// The most bytes of any frame. Up to here, the complement of the length in a header has its highest bit set.
pub(super) const MAX_LEN: usize = i32::MAX as usize;

/// Returns the most words of a frame of `len` bytes.
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

/// Returns the bytes of a frame of up to [`SHORT`] bytes, the first one lowest.
#[inline]
pub(super) fn join(parts: &[&[u8]]) -> u128 {
    let mut bytes = 0;
    let mut bits = 0;
    for part in parts {
        bytes |= low_bytes(part).unbounded_shl(bits);
        bits += part.len() as u32 * u8::BITS;
    }
    bytes
}

/// Returns the bytes of a frame of up to [`SHORT`] bytes that is `first` and `rest`.
#[inline]
pub(super) fn tagged(first: u8, rest: &[u8]) -> u128 {
    low_bytes(rest) << u8::BITS | u128::from(first)
}

/// Returns the words of these bytes.
#[inline]
pub(super) fn split(bytes: u128) -> [u64; SHORT / WORD] {
    [(bytes as u64).to_le(), ((bytes >> u64::BITS) as u64).to_le()]
}

/// Encodes a frame of `len` bytes, up to [`SHORT`], as one word, if those from the eighth on are zero.
#[inline]
pub(super) fn short_frame(bytes: u128, len: usize) -> Option<u64> {
    let mark = u64::from(SMALL_MARK | len as u8) << LOW_BITS;
    (bytes >> LOW_BITS == 0).then_some(mark | bytes as u64)
}

/// Returns the bytes of a frame of more than [`SMALL`] and up to [`MEDIUM`] bytes as words, followed by zeros. Loads that may overlap cost
/// less than copying into an array.
#[inline]
pub(super) fn medium_words(frame: &[u8]) -> Option<[u64; MEDIUM / WORD]> {
    let chunks = frame.as_chunks::<WORD>().0;
    let rest = frame.len() % WORD;
    let last = u64::from_le_bytes(*frame.last_chunk()?);
    // The last bytes, without those of the whole word before.
    let last = last.unbounded_shr((WORD - rest) as u32 * u8::BITS).to_le();
    let word = |chunk: &[u8; WORD]| u64::from_ne_bytes(*chunk);
    match chunks {
        [first] => Some([word(first), last, 0]),
        [first, second] => Some([word(first), word(second), last]),
        [first, second, third] if rest == 0 => Some([word(first), word(second), word(third)]),
        _ => None,
    }
}

/// Decodes the word of a frame: its length, and its bytes followed by zeros. `None` if it is the word of no such frame.
#[inline]
pub(super) fn short_bytes(word: u64) -> Option<(usize, [u8; SHORT])> {
    let bytes = u128::from(word & LOW_MASK).to_le_bytes();
    Some((short_len(word)?, bytes))
}

/// Returns the length of the frame that this word is. `None` if it is the word of no such frame.
#[inline]
pub(super) fn short_len(word: u64) -> Option<usize> {
    let len = ((word >> LOW_BITS) as u8 ^ SMALL_MARK) as usize;
    (len <= SHORT).then_some(len)
}

/// Returns the first bytes of the frame that this word is. The others are zero.
#[inline]
pub(super) fn short_word_bytes(word: u64) -> [u8; WORD] {
    (word & LOW_MASK).to_le_bytes()
}

/// Returns up to [`SHORT`] bytes as the low bytes of a number. Two loads that may overlap cost much less than a call of
/// `memcpy` for a few bytes.
#[inline]
fn low_bytes(bytes: &[u8]) -> u128 {
    const HALF: usize = WORD / 2;
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk::<WORD>(), bytes.last_chunk::<WORD>()) {
        let shift = (len - WORD) as u32 * u8::BITS;
        return u128::from(u64::from_le_bytes(*first)) | u128::from(u64::from_le_bytes(*last)) << shift;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<HALF>(), bytes.last_chunk::<HALF>()) {
        let shift = (len - HALF) as u32 * u8::BITS;
        let low = u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift;
        return low.into();
    }
    let at = |index: usize| u128::from(bytes[index]) << (index as u32 * u8::BITS);
    match len {
        0 => 0,
        _ => at(0) | at(len / 2) | at(len - 1),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_of_medium_frames_have_their_bytes_in_order() {
        for len in 0..=MEDIUM + 1 {
            let bytes: Vec<u8> = (1..=len as u8).collect();
            let words = medium_words(&bytes);
            assert_eq!(words.is_some(), (WORD..=MEDIUM).contains(&len), "{len}");
            if let Some(words) = words {
                let mut padded = bytes.clone();
                padded.resize(MEDIUM, 0);
                assert_eq!(words.map(u64::to_ne_bytes).concat(), padded, "{len}");
            }
        }
    }

    #[test]
    fn short_frames_are_one_word_if_their_bytes_fit() {
        for len in 0..=SHORT {
            for used in 0..=len {
                let mut bytes: Vec<u8> = (1..=used as u8).collect();
                bytes.resize(len, 0);
                for cut in 0..=len {
                    let (first, second) = bytes.split_at(cut);
                    let joined = join(&[first, second]);
                    let words = split(joined).map(u64::to_ne_bytes).concat();
                    assert!(words.starts_with(&bytes) && words[len..].iter().all(|byte| *byte == 0));
                    let word = short_frame(joined, len);
                    assert_eq!(word.is_some(), used <= SMALL, "{used} of {len}");
                    if let ([first], rest) = (first, second) {
                        assert_eq!(tagged(*first, rest), joined);
                    }
                    if let Some(word) = word {
                        assert_eq!(word >> 63, 0);
                        let (decoded, padded) = short_bytes(word).expect("it is a frame");
                        assert_eq!((decoded, &padded[..len]), (len, &bytes[..]));
                        assert!(padded[len..].iter().all(|byte| *byte == 0));
                    }
                }
            }
        }
        assert!(short_bytes(u64::from(SMALL_MARK | 17) << LOW_BITS).is_none());
        assert!(short_bytes(0).is_none());
    }
}
