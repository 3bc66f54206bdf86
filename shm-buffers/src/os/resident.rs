//! [`releasable`]: counts the memory that a release of pages would free.

/// Returns the bytes of `ranges` that are private pages of this process in memory, so that releasing them frees memory. Not
/// counted are pages that were never written, that are swapped out or locked, or that another process shares. If the system
/// does not report that, all whole pages count.
#[cfg(target_os = "linux")]
pub(crate) fn releasable(ranges: &mut dyn Iterator<Item = &[u8]>) -> u64 {
    use std::fs::File;

    let page = rustix::param::page_size();
    let pages = File::open("/proc/self/pagemap").ok();
    let mut entries = vec![0; 64 << 10];
    let mut found = 0;
    for bytes in ranges {
        let start = bytes.as_ptr().addr().div_ceil(page);
        let end = (bytes.as_ptr().addr() + bytes.len()) / page;
        let mut at = start;
        while at < end {
            let count = (end - at).min(entries.len() / ENTRY);
            let entries = &mut entries[..count * ENTRY];
            let read = pages
                .as_ref()
                .map(|pages| super::read_exact_at(pages, entries, (at * ENTRY) as u64));
            found += match read {
                Some(Ok(())) => entries
                    .chunks_exact(ENTRY)
                    .filter(|entry| is_private(entry))
                    .count(),
                _ => count,
            };
            at += count;
        }
    }
    ((found * page) as u64).saturating_sub(locked())
}

/// Bytes of an entry of proc_pid_pagemap(5).
#[cfg(target_os = "linux")]
const ENTRY: usize = 8;

/// Returns whether an entry is that of a private page in memory that is mapped nowhere else.
#[cfg(target_os = "linux")]
fn is_private(entry: &[u8]) -> bool {
    const PRESENT: u64 = 1 << 63;
    const SHARED: u64 = 1 << 61;
    const EXCLUSIVE: u64 = 1 << 56;
    let entry = entry.try_into().map_or(0, u64::from_ne_bytes);
    entry & (PRESENT | SHARED | EXCLUSIVE) == PRESENT | EXCLUSIVE
}

/// Returns the bytes that are locked in memory (mlock(2)). Releasing them frees no memory.
#[cfg(target_os = "linux")]
fn locked() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    crate::limits::kib_field(&status, "VmLck:").unwrap_or(0)
}

/// Returns the bytes of `ranges`. Other systems don't report which pages are in memory, and don't need the number.
#[cfg(not(target_os = "linux"))]
pub(crate) fn releasable(ranges: &mut dyn Iterator<Item = &[u8]>) -> u64 {
    ranges.map(|bytes| bytes.len() as u64).sum()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_written_pages_are_releasable() {
        const LEN: usize = 8 << 20;
        let page = rustix::param::page_size();
        // New pages: an allocator may return pages that were written before.
        let mut zeros = memmap2::MmapMut::map_anon(LEN).expect("there is memory");
        let of = |bytes: &[u8]| releasable(&mut std::iter::once(bytes)) as usize;
        assert!(of(&zeros) < LEN / 2, "the pages were never written");
        zeros.fill(7);
        let written = of(&zeros);
        assert!((LEN - 2 * page..=LEN).contains(&written), "{written}");
        assert_eq!((of(&zeros[..0]), of(&zeros[1..page / 2])), (0, 0));
        assert!(of(&zeros[page..3 * page]) <= 2 * page);
    }
}
