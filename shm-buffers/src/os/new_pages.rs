//! [`copy_into_new`]: huge pages for vectors that are too small for huge pages of their own.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::heap::{expect_blocks, prefer_huge_pages};

/// One copy in this many bytes is timed: a reading of the clock takes as long as copying some hundred bytes.
const TIMED_BYTES: usize = 64 << 10;
/// A copy of a KiB that takes longer than this probably went to new pages: the system zeroes each at its first touch. One to pages in
/// use takes half of it; where it takes longer, huge pages are requested in vain once for many copies.
const SLOW_KIB: Duration = Duration::from_nanos(150);
/// Bytes of memory that huge pages are requested for at a time, ahead of their use.
const AHEAD: usize = 8 << 20;

/// Runs `copy`, which copies `bytes` bytes into a vector that was allocated for them by this thread.
///
/// While such copies go to new pages, because the vectors are kept, this requests huge pages for the memory that the allocator uses next.
/// The first touch of ordinary pages takes several times longer than the copy; that of huge pages takes less.
#[inline]
pub fn copy_into_new<R>(bytes: usize, copy: impl FnOnce() -> R) -> R {
    thread_local! {
        /// Allocators such as glibc's have memory of their own for each thread.
        static PAGES: RefCell<NewPages> = const { RefCell::new(NewPages::NEW) };
    }

    PAGES.with(|pages| match pages.try_borrow_mut() {
        Ok(mut pages) => pages.observe(bytes, copy),
        // A copy within another one.
        Err(_) => copy(),
    })
}

/// The copies of a thread.
#[derive(Debug)]
struct NewPages {
    /// Bytes that were copied since one copy was timed.
    untimed: usize,
    /// Bytes that were copied since huge pages were requested.
    since_request: Option<usize>,
}

impl NewPages {
    const NEW: Self = Self {
        untimed: 0,
        since_request: None,
    };

    #[inline]
    fn observe<R>(&mut self, bytes: usize, copy: impl FnOnce() -> R) -> R {
        self.untimed = self.untimed.saturating_add(bytes);
        if let Some(since) = &mut self.since_request {
            *since = since.saturating_add(bytes);
        }
        if self.untimed < TIMED_BYTES || !cfg!(target_os = "linux") {
            return copy();
        }
        self.untimed = 0;
        let started = Instant::now();
        let result = copy();
        if self.is_due(bytes, started.elapsed()) {
            self.since_request = Some(0);
            request_huge_pages();
        }
        result
    }

    /// Returns whether to request huge pages after a copy that took this time.
    fn is_due(&self, bytes: usize, time: Duration) -> bool {
        // One slow copy may have been an interrupted one. Then the request costs a little, but not for each copy. And the system uses few huge
        // pages in small parts.
        let used = self.since_request.is_none_or(|since| since >= AHEAD / 2);
        used && time.as_nanos() * 1024 > SLOW_KIB.as_nanos() * bytes as u128
    }
}

/// Requests huge pages for the memory that the allocator uses next.
fn request_huge_pages() {
    // The allocator must take the block from the memory that it grows, and keep it.
    expect_blocks(AHEAD);
    let mut block = Vec::<u8>::new();
    if block.try_reserve_exact(AHEAD).is_ok() {
        prefer_huge_pages(&mut block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_requested_after_slow_copies_only_and_not_for_each() {
        let slow = |bytes: usize| SLOW_KIB * (bytes as u32 / 1024) + Duration::from_nanos(1);
        let mut pages = NewPages::NEW;
        assert!(!pages.is_due(1 << 20, slow(1 << 20) - Duration::from_nanos(1)));
        assert!(pages.is_due(1 << 20, slow(1 << 20)));
        assert!(pages.is_due(64 << 10, slow(64 << 10)));
        pages.since_request = Some(AHEAD / 2 - 1);
        assert!(!pages.is_due(1 << 20, slow(1 << 20)));
        pages.since_request = Some(AHEAD / 2);
        assert!(pages.is_due(1 << 20, slow(1 << 20)));
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn kept_vectors_get_huge_pages() {
        const VECTOR: usize = 64 << 10;

        let faults = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("it is readable");
            let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
            let faults = fields.split_whitespace().nth(7).expect("there are 52 fields");
            faults.parse::<usize>().expect("it is a number")
        };
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        if !setting.is_ok_and(|text| !text.contains("[never]")) {
            return;
        }
        let source = vec![7; VECTOR];
        let mut pages = NewPages::NEW;
        let before = faults();
        let kept: Vec<Vec<u8>> = (0..512)
            .map(|_| {
                let mut vec = Vec::with_capacity(VECTOR);
                pages.observe(VECTOR, || {
                    vec.extend_from_slice(&source);
                    // Slow also where the first touch of a page is fast.
                    std::thread::sleep(SLOW_KIB * (VECTOR / 1024) as u32);
                });
                vec
            })
            .collect();
        let faults = faults() - before;
        let ordinary = kept.len() * VECTOR / 4096;
        // The parts for which they are requested one after the other are mapped apart, and at the ends of each some pages are ordinary.
        assert!(faults < ordinary * 3 / 4, "{faults} faults, {ordinary} pages");
    }
}
