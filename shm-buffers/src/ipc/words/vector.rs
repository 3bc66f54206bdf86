//! Copies of words with vector instructions.
//!
//! Compilers don't vectorize atomic accesses, and 8 bytes per instruction leave too few cache lines on their way: copies of large blocks
//! take twice as long. Processors with AVX access 16 aligned bytes at once (Intel's and AMD's manuals, "guaranteed atomic
//! operations"), so one of these accesses has the effect of two relaxed atomic accesses of 8 bytes.
#![allow(
    unsafe_code,
    reason = "atomic accesses that the language has no operation for"
)]

use std::arch::asm;

use super::{Chunk, UninitChunk};
use crate::sync::AtomicU64;

/// Bytes of one step.
const STEP: usize = 64;
/// Words of one step.
pub(super) const STEP_WORDS: usize = STEP / super::WORD;
/// The least number of words for which this is worth its start.
pub(super) const MIN_WORDS: usize = 4 * STEP_WORDS;

/// Returns whether the processor has the instructions.
#[inline]
pub(super) fn is_available() -> bool {
    std::arch::is_x86_feature_detected!("avx")
}

/// Splits off the first word, if that aligns the others to 16 bytes.
#[inline]
pub(super) fn split_unaligned(words: &[AtomicU64]) -> (&[AtomicU64], &[AtomicU64]) {
    words.split_at(usize::from(!words.as_ptr().addr().is_multiple_of(16)).min(words.len()))
}

/// Loads words in steps, and returns how many.
///
/// # Safety
/// [`is_available`], and `words` starts at a multiple of 16 bytes.
#[inline]
pub(super) unsafe fn load(words: &[AtomicU64], chunks: &mut [UninitChunk]) -> usize {
    let steps = words.len().min(chunks.len()) / STEP_WORDS;
    if steps > 0 {
        // SAFETY: `steps` steps of 64 bytes lie in `words`, which are valid for atomic reads, and in `chunks`, which are borrowed
        // exclusively. The reads of `words` are aligned to 16 bytes, which the caller promises, and so have the effect of a
        // relaxed atomic load for each word; others may write the words at the same time. The caller promises the instructions. The
        // code changes no other memory, no stack and no flags that it does not declare.
        unsafe {
            asm!(
                "2:",
                "vmovdqa xmm0, [{from}]",
                "vmovdqa xmm1, [{from} + 16]",
                "vmovdqa xmm2, [{from} + 32]",
                "vmovdqa xmm3, [{from} + 48]",
                "vmovdqu [{to}], xmm0",
                "vmovdqu [{to} + 16], xmm1",
                "vmovdqu [{to} + 32], xmm2",
                "vmovdqu [{to} + 48], xmm3",
                "add {from}, 64",
                "add {to}, 64",
                "dec {steps}",
                "jnz 2b",
                from = inout(reg) words.as_ptr() => _,
                to = inout(reg) chunks.as_mut_ptr() => _,
                steps = inout(reg) steps => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                options(nostack),
            );
        }
    }
    steps * STEP_WORDS
}

/// Stores words in steps, and returns how many.
///
/// # Safety
/// [`is_available`], and `words` starts at a multiple of 16 bytes.
#[inline]
pub(super) unsafe fn store(words: &[AtomicU64], chunks: &[Chunk]) -> usize {
    let steps = words.len().min(chunks.len()) / STEP_WORDS;
    if steps > 0 {
        // SAFETY: as in `load`, with the directions exchanged: each aligned write has the effect of two relaxed atomic stores, for
        // which a shared reference of an atomic word suffices.
        unsafe {
            asm!(
                "2:",
                "vmovdqu xmm0, [{from}]",
                "vmovdqu xmm1, [{from} + 16]",
                "vmovdqu xmm2, [{from} + 32]",
                "vmovdqu xmm3, [{from} + 48]",
                "vmovdqa [{to}], xmm0",
                "vmovdqa [{to} + 16], xmm1",
                "vmovdqa [{to} + 32], xmm2",
                "vmovdqa [{to} + 48], xmm3",
                "add {from}, 64",
                "add {to}, 64",
                "dec {steps}",
                "jnz 2b",
                from = inout(reg) chunks.as_ptr() => _,
                to = inout(reg) words.as_ptr() => _,
                steps = inout(reg) steps => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                options(nostack),
            );
        }
    }
    steps * STEP_WORDS
}
