//! Copies of words with vector instructions, and with `rep movsb`.
//!
//! Compilers don't vectorize atomic accesses, and 8 bytes per instruction leave too few cache lines on their way: copies of large blocks
//! take twice as long. Processors with AVX access 16 aligned bytes at once (Intel's and AMD's manuals, "guaranteed atomic
//! operations"), so one of these accesses has the effect of two relaxed atomic accesses of 8 bytes.
#![allow(
    unsafe_code,
    reason = "atomic accesses that the language has no operation for"
)]

use std::arch::asm;
use std::arch::x86_64::__cpuid;
use std::sync::LazyLock;

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
    is_x86_feature_detected!("avx")
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

/// The least number of words for which [`load_repeated`] and [`store_repeated`] are worth their start.
pub(super) const MIN_REPEATED_WORDS: usize = 256;

/// Returns whether `rep movsb` is the fastest copy. It is on Intel's processors with "enhanced `rep movsb`": 1.3 times the speed of the
/// loops above for blocks that another processor has written or read last, because it takes whole cache lines over without reading
/// them. On AMD's processors it is no faster, and much slower for some alignments.
#[inline]
pub(super) fn is_repeat_fast() -> bool {
    static FAST: LazyLock<bool> = LazyLock::new(|| {
        is_x86_feature_detected!("ermsb") && {
            #[allow(unused_unsafe, reason = "a safe function in newer versions of Rust")]
            // SAFETY: every x86-64 processor has the instruction.
            let vendor = unsafe { __cpuid(0) };
            [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes) == [*b"Genu", *b"ineI", *b"ntel"]
        }
    });
    *FAST
}

/// Loads words, as many as both have.
#[inline]
pub(super) fn load_repeated(words: &[AtomicU64], chunks: &mut [UninitChunk]) {
    let bytes = words.len().min(chunks.len()) * super::WORD;
    // SAFETY: `bytes` bytes lie in `words`, and in `chunks`, which are borrowed exclusively. Others may write the words at the same
    // time: see `repeat`.
    unsafe { repeat(words.as_ptr().cast(), chunks.as_mut_ptr().cast(), bytes) };
}

/// Stores words, as many as both have.
#[inline]
pub(super) fn store_repeated(words: &[AtomicU64], chunks: &[Chunk]) {
    let bytes = words.len().min(chunks.len()) * super::WORD;
    // SAFETY: `bytes` bytes lie in `chunks`, and in `words`, for the change of which a shared reference of atomic words suffices.
    unsafe { repeat(chunks.as_ptr().cast(), words.as_ptr().cast_mut().cast(), bytes) };
}

/// Copies bytes with one instruction that the compiler cannot see through. It has the effect of a relaxed atomic access of each byte, in
/// any order, so others may access shared memory at the same time. The words that arrive then may be a mix of old and new bytes; no
/// correct peer writes a block that is being copied.
///
/// # Safety
/// `from` is valid for reads of `bytes` bytes, and `to` for writes; each either private and borrowed by the caller, or memory of
/// atomic words. They do not overlap.
#[inline]
unsafe fn repeat(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller promises valid memory. The instruction reads and writes nothing else, and changes no other register; the
    // direction flag is clear wherever `asm!` starts, and flags are preserved.
    unsafe {
        asm!(
            "rep movsb",
            inout("rsi") from => _,
            inout("rdi") to => _,
            inout("rcx") bytes => _,
            options(nostack, preserves_flags),
        );
    }
}
