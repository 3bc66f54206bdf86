//! Copies bytes into words of shared memory, and back.
//!
//! Each word is one relaxed atomic access, so that a peer that writes at the same time causes a wrong value and no
//! undefined behaviour. Compilers don't vectorize atomic accesses; unrolled blocks of them come near one word per cycle.

#![allow(
    unsafe_code,
    reason = "reads into memory that is not initialized, with vector instructions"
)]

#[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
mod vector;

use std::mem::MaybeUninit;

use crate::sync::{AtomicU64, Ordering};

/// Bytes of a word.
pub(super) const WORD: usize = size_of::<u64>();
/// Words that one step of an unrolled loop copies.
const BLOCK: usize = 8;

type Chunk = [u8; WORD];
type UninitChunk = [MaybeUninit<u8>; WORD];

/// Words of a ring as two runs, where the second one lies after the wrap.
pub(super) struct Words<'a> {
    pub(super) first: &'a [AtomicU64],
    pub(super) second: &'a [AtomicU64],
}

impl<'a> Words<'a> {
    /// Writes `header`, then the bytes of `parts` one after the other. The last word is padded with arbitrary bytes.
    #[inline]
    pub(super) fn write(mut self, header: u64, parts: &[&[u8]]) {
        self.write_word(header);
        // The bytes of a word that is not full yet, from the lowest on.
        let mut pending = [0; WORD];
        let mut filled = 0;
        for part in parts {
            let mut part = *part;
            if filled > 0 {
                let (head, tail) = part.split_at((WORD - filled).min(part.len()));
                for (to, from) in pending[filled..].iter_mut().zip(head) {
                    *to = *from;
                }
                (filled, part) = (filled + head.len(), tail);
                if filled == WORD {
                    self.write_word(u64::from_ne_bytes(pending));
                    filled = 0;
                }
            }
            let (chunks, rest) = part.as_chunks();
            self.for_each_run(chunks, store);
            if !rest.is_empty() {
                for (to, from) in pending.iter_mut().zip(rest) {
                    *to = *from;
                }
                filled = rest.len();
            }
        }
        if filled > 0 {
            self.write_word(u64::from_ne_bytes(pending));
        }
    }

    /// Fills `out` with bytes from the first word on: as many as there are. Returns how many.
    #[inline]
    pub(super) fn read(mut self, out: &mut [MaybeUninit<u8>]) -> usize {
        let (chunks, rest) = out.as_chunks_mut();
        let (first, second) = chunks.split_at_mut(chunks.len().min(self.first.len()));
        let mut words = load(self.take(first.len()), first);
        words += load(self.take(second.len()), second);
        let mut read = words * WORD;
        if let (false, Some(word)) = (rest.is_empty(), self.take(1).first()) {
            for (to, from) in rest.iter_mut().zip(word.load(Ordering::Relaxed).to_ne_bytes()) {
                to.write(from);
                read += 1;
            }
        }
        read
    }

    /// Appends the first `len` bytes to `out`, or as many as there are.
    #[inline]
    pub(super) fn append(self, len: usize, out: &mut Vec<u8>) {
        out.reserve(len);
        let read = self.read(&mut out.spare_capacity_mut()[..len]);
        // SAFETY: `read` has written this many bytes of the spare capacity.
        unsafe { out.set_len(out.len() + read) };
    }

    #[inline]
    fn write_word(&mut self, value: u64) {
        if let Some(word) = self.take(1).first() {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Calls `copy` with the words for these chunks, once for each run.
    #[inline]
    fn for_each_run(&mut self, chunks: &[Chunk], copy: impl Fn(&[AtomicU64], &[Chunk])) {
        let (first, second) = chunks.split_at(chunks.len().min(self.first.len()));
        copy(self.take(first.len()), first);
        copy(self.take(second.len()), second);
    }

    /// Removes and returns the next `words` words, or as many as the current run has left.
    #[inline]
    fn take(&mut self, words: usize) -> &'a [AtomicU64] {
        let run = match self.first {
            [] => &mut self.second,
            _ => &mut self.first,
        };
        let (taken, left) = run.split_at(words.min(run.len()));
        *run = left;
        taken
    }
}

#[inline]
pub(super) fn store(words: &[AtomicU64], chunks: &[Chunk]) {
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    if words.len().min(chunks.len()) >= vector::MIN_REPEATED_WORDS && vector::is_repeat_fast() {
        return vector::store_repeated(words, chunks);
    }
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    if words.len().min(chunks.len()) >= vector::MIN_WORDS && vector::is_available() {
        let (first, words) = vector::split_unaligned(words);
        let (before, chunks) = chunks.split_at(first.len());
        store_words(first, before);
        // SAFETY: the instructions are available, and `words` was aligned.
        let stored = unsafe { vector::store(words, chunks) };
        return store_words(&words[stored..], &chunks[stored..]);
    }
    store_words(words, chunks);
}

#[inline]
fn store_words(words: &[AtomicU64], chunks: &[Chunk]) {
    let one = |(word, chunk): (&AtomicU64, &Chunk)| word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
    let (blocks, words) = words.as_chunks::<BLOCK>();
    let (from, chunks) = chunks.as_chunks::<BLOCK>();
    for (words, chunks) in blocks.iter().zip(from) {
        words.iter().zip(chunks).for_each(one);
    }
    words.iter().zip(chunks).for_each(one);
}

/// Copies words, as many as both have, and returns how many.
#[inline]
fn load(words: &[AtomicU64], chunks: &mut [UninitChunk]) -> usize {
    let count = words.len().min(chunks.len());
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    if count >= vector::MIN_REPEATED_WORDS && vector::is_repeat_fast() {
        vector::load_repeated(words, chunks);
        return count;
    }
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    if words.len().min(chunks.len()) >= vector::MIN_WORDS && vector::is_available() {
        let (first, words) = vector::split_unaligned(words);
        let (before, chunks) = chunks.split_at_mut(first.len());
        load_words(first, before);
        // SAFETY: the instructions are available, and `words` was aligned.
        let loaded = unsafe { vector::load(words, chunks) };
        load_words(&words[loaded..], &mut chunks[loaded..]);
        return count;
    }
    load_words(words, chunks);
    count
}

#[inline]
fn load_words(words: &[AtomicU64], chunks: &mut [UninitChunk]) {
    let one = |(word, chunk): (&AtomicU64, &mut UninitChunk)| {
        *chunk = word.load(Ordering::Relaxed).to_ne_bytes().map(MaybeUninit::new);
    };
    let (blocks, words) = words.as_chunks::<BLOCK>();
    let (to, chunks) = chunks.as_chunks_mut::<BLOCK>();
    for (words, chunks) in blocks.iter().zip(to) {
        words.iter().zip(chunks).for_each(one);
    }
    words.iter().zip(chunks).for_each(one);
}

impl<'a> From<&'a [AtomicU64]> for Words<'a> {
    fn from(first: &'a [AtomicU64]) -> Self {
        Self { first, second: &[] }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_in_parts_around_the_wrap_are_read_back() {
        let bytes: Vec<u8> = (0..5000).map(|at| (at % 251) as u8).collect();
        for len in [1, 7, 8, 9, 63, 64, 65, 200, 5000] {
            let words = 1 + usize::div_ceil(len, WORD);
            let memory: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(u64::MAX)).collect();
            for wrap in (0..=words).step_by(1 + words / 40) {
                for cut in 0..=len.min(20) {
                    let (second, first) = memory.split_at(wrap);
                    let whole = || Words { first, second };
                    let end = (cut + 3).min(len);
                    whole().write(77, &[&bytes[..cut], &[], &bytes[cut..end], &bytes[end..len]]);
                    let mut read = Vec::new();
                    whole().append(WORD + len, &mut read);
                    assert_eq!(read[..WORD], 77_u64.to_ne_bytes());
                    assert_eq!(read[WORD..], bytes[..len], "{len} {wrap} {cut}");
                }
            }
        }
    }
}
