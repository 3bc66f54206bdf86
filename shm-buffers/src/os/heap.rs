//! The pages of this process's own memory: when freed ones go back to the system, and how large new ones are.
#![allow(
    unsafe_code,
    reason = "calls malloc_trim, and advises the system on the pages of an allocation"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

/// Returns the pages of freed allocations to the system, if the C library can do that and is this program's allocator. Returns
/// whether any were returned.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn return_freed_memory() -> bool {
    return_end_of_arena();
    // SAFETY: `malloc_trim` takes the allocator's own locks, and changes no memory that is in use.
    unsafe { libc::malloc_trim(0) == 1 }
}

/// Returns `false`: only glibc has such a call.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_freed_memory() -> bool {
    false
}

/// The smallest block that glibc gets from the system, and returns to it, one by one, before its thresholds grow.
const FIRST_THRESHOLD: usize = 128 << 10;
/// About the largest block whose freeing raises glibc's thresholds: 32 MiB with what the allocator adds.
const LAST_THRESHOLD: usize = (32 << 20) - (128 << 10);
/// The threshold for blocks of some size, in such blocks. glibc keeps twice as much free memory.
const BLOCKS: usize = 2;

/// The largest block that [`expect_blocks`] has allocated.
static EXPECTED: AtomicUsize = AtomicUsize::new(0);

/// Returns the pages of the free memory at the end of this thread's arena. `malloc_trim` does that for the arena of the main thread only,
/// and otherwise glibc keeps up to 64 MiB there, once its thresholds have grown.
///
/// Blocks below the threshold are allocated from there, so these get that memory, and return its pages before they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn return_end_of_arena() {
    const MARGIN: usize = 64 << 10;

    let bytes = EXPECTED.load(Ordering::Relaxed).saturating_sub(MARGIN);
    if bytes < FIRST_THRESHOLD {
        return;
    }
    // Up to twice the threshold is kept, and a part of a block may be elsewhere.
    let blocks: [Vec<u8>; 3] = std::array::from_fn(|_| {
        let mut block = Vec::new();
        // Without address space for it, the memory is kept.
        let _ = block.try_reserve_exact(bytes);
        advise_spare(&mut block, FIRST_THRESHOLD, libc::MADV_DONTNEED);
        block
    });
    drop(std::hint::black_box(blocks));
}

/// Prepares the allocator for blocks of `bytes` bytes that are allocated and freed one after the other, so that the next one gets
/// the pages of the last ones. The first touch of a new page takes longer than copying it several times. Does nothing for small
/// blocks, and costs next to nothing when it is repeated.
///
/// glibc takes a large block from the system and returns it, until a program has freed such a block: then it keeps blocks of up to
/// that size, in free memory of up to twice that size (`M_MMAP_THRESHOLD` in `mallopt(3)`). A program that holds two blocks or
/// three, as one does that receives the next while it uses the last, is just above that, and gets new pages all the time. So this
/// allocates a larger block once, and frees it; its pages are never touched. A program that has set the thresholds itself is not
/// affected, and [`return_freed_memory`] returns what is kept. Other allocators keep freed pages for a while by themselves.
pub fn expect_blocks(bytes: usize) {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) || bytes < FIRST_THRESHOLD {
        return;
    }
    let wanted = bytes.saturating_mul(BLOCKS).min(LAST_THRESHOLD);
    if EXPECTED.load(Ordering::Relaxed) >= wanted || EXPECTED.fetch_max(wanted, Ordering::Relaxed) >= wanted {
        return;
    }
    let mut block = Vec::<u8>::new();
    // Without address space for it, the thresholds stay as they are.
    let _ = block.try_reserve_exact(wanted);
    drop(std::hint::black_box(block));
}

/// Least number of bytes for which huge pages are requested.
#[cfg(target_os = "linux")]
const HUGE: usize = 4 << 20;

/// Requests huge pages for the unused capacity of `bytes`, if that is large. With ordinary pages, the page faults of the first
/// touch take longer than copying.
#[cfg(target_os = "linux")]
pub fn prefer_huge_pages<T>(vec: &mut Vec<T>) {
    advise_spare(vec, HUGE, libc::MADV_HUGEPAGE);
}

/// Advises the system on the pages of the unused capacity of `vec`, if that has at least `min` bytes. The contents of these pages are lost.
#[cfg(target_os = "linux")]
fn advise_spare<T>(vec: &mut Vec<T>, min: usize, advice: std::ffi::c_int) {
    // At least the page size: `madvise` requires an aligned start.
    const ALIGN: usize = 64 << 10;
    let spare = vec.spare_capacity_mut();
    let Some(len) = size_of_val(spare).checked_sub(ALIGN).filter(|len| *len >= min) else {
        return;
    };
    let spare = spare.as_mut_ptr().cast::<u8>();
    let start = spare.wrapping_add(spare.align_offset(ALIGN).min(ALIGN));
    // SAFETY: `start` and the `len` bytes behind it lie in the spare capacity, which is borrowed exclusively, since `start` is at
    // most `ALIGN` bytes after its beginning. Both ends are multiples of the page size, so no other page is affected. `MADV_HUGEPAGE` changes
    // the size of the pages that the system uses there; `MADV_DONTNEED` replaces them by zeroed ones, and nothing relies on the contents of
    // spare capacity.
    let _ = unsafe { libc::madvise(start.cast(), len & !(ALIGN - 1), advice) };
}

/// Does nothing: the system chooses the page size.
#[cfg(not(target_os = "linux"))]
pub fn prefer_huge_pages<T>(_: &mut Vec<T>) {}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Returns the number of pages that this thread has touched first.
    fn faults() -> usize {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("it is readable");
        // The name of the thread may have spaces; the 10th field is the 8th after it.
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        let field = fields.split_whitespace().nth(7).expect("there are 52");
        field.parse().expect("it is a number")
    }

    #[test]
    fn memory_at_the_end_of_a_threads_arena_is_returned() {
        const BLOCK: usize = 4 << 20;
        // The system may use pages of 2 MiB.
        const LEAST_FAULTS: usize = 3 * BLOCK / (2 << 20);

        expect_blocks(BLOCK);
        let use_three = || drop([1_u8, 2, 3].map(|byte| std::hint::black_box(vec![byte; BLOCK])));
        let touch = move || {
            let before = faults();
            use_three();
            faults() - before
        };
        let thread = std::thread::spawn(move || {
            touch();
            let warm = touch();
            return_freed_memory();
            (warm, touch())
        });
        let (warm, returned) = thread.join().expect("it ends");
        assert!(
            returned >= LEAST_FAULTS && returned > warm,
            "{returned} after {warm}"
        );
    }

    #[test]
    fn expected_blocks_get_pages_that_were_used_before() {
        const BLOCK: usize = 4 << 20;
        const PAGES: usize = BLOCK / 4096;

        expect_blocks(BLOCK);
        let use_three = || drop([1_u8, 2, 3].map(|byte| std::hint::black_box(vec![byte; BLOCK])));
        use_three();
        let before = faults();
        for _ in 0..10 {
            use_three();
        }
        let faults = faults() - before;
        assert!(faults < 10 * PAGES, "{faults} of {} pages", 30 * PAGES);
    }
}
