//! Fills memory on all cores, and copies memory while the source is released.
//!
//! Filling fresh memory is slow because of the first touch of each page, not because of the copy: each page faults, and
//! the system zeroes it although it is overwritten immediately. Touching scales with threads that touch different parts.
//! Writing through the memory's file avoids both costs and is about twice as fast, but the file's lock lets only one
//! thread write at a time. So one thread writes through the file while the others touch pages.

use crate::{os, parallel};

/// Below this many bytes, a thread costs more than it saves.
const PER_THREAD: usize = 1 << 20;
/// Bytes that a thread takes at a time, and that stay in a source until they are released: enough to make the cost of taking
/// and releasing negligible.
const WINDOW: usize = 1 << 20;
/// The most threads of one move, so that the windows stay small on machines with many cores.
const MAX_MOVERS: usize = 16;
/// Below this many bytes, a system call costs more than it saves.
const MIN_WRITE: usize = 64 << 10;

/// Calls `work` with disjoint parts of `target`, each with the index of its first element, on several threads if that pays
/// off.
pub(crate) fn fill_in_parallel<T: Send>(target: &mut [T], work: impl Fn(usize, &mut [T]) + Sync) {
    let threads = threads_for(size_of_val(target));
    let chunk = chunk_for(target.len(), threads, size_of::<T>());
    let parts = target.chunks_mut(chunk).enumerate();
    parallel::for_each(threads, parts, |(index, part)| work(index * chunk, part));
}

/// Copies `source` to `target`, on several threads if that pays off.
///
/// `write` copies a part, at a given offset, by other means than touching `target`, and returns whether it could.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn copy(target: &mut [u8], source: &[u8], write: impl Fn(usize, &[u8]) -> bool + Sync) {
    assert_eq!(target.len(), source.len());
    let threads = threads_for(target.len());
    let windows = target.chunks_mut(WINDOW).zip(source.chunks(WINDOW));
    for_each_window(threads, windows, |mode, offset, (target, source)| {
        fill(mode, offset, target, source, &write);
    });
}

/// Like [`copy`], but releases the source's pages window by window. The contents of the source are unspecified afterwards.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn copy_and_release(
    target: &mut [u8],
    source: &mut [u8],
    write: impl Fn(usize, &[u8]) -> bool + Sync,
) {
    assert_eq!(target.len(), source.len());
    let threads = threads_for(target.len()).min(MAX_MOVERS);
    let windows = target.chunks_mut(WINDOW).zip(source.chunks_mut(WINDOW));
    for_each_window(threads, windows, |mode, offset, (target, source)| {
        fill(mode, offset, target, source, &write);
        os::release_pages(source);
    });
}

/// Returns the most bytes that a move of `len` bytes has in both places at the same time: for each thread a window, and its
/// neighbour on the same huge page, because the system releases both together.
pub(crate) fn move_window(len: usize) -> u64 {
    (2 * threads_for(len).min(MAX_MOVERS) * WINDOW) as u64
}

/// How a thread fills memory.
#[derive(Clone, Copy, PartialEq)]
enum FillMode {
    /// Through the file.
    Write,
    /// Through the mapping.
    Touch,
}

fn fill(
    mode: FillMode,
    offset: usize,
    target: &mut [u8],
    source: &[u8],
    write: impl Fn(usize, &[u8]) -> bool,
) {
    let written = mode == FillMode::Write && source.len() >= MIN_WRITE && write(offset, source);
    if !written {
        target.copy_from_slice(source);
    }
}

/// Calls `work` with each window and its offset. The caller's thread writes, the others touch.
fn for_each_window<W: Send>(
    threads: usize,
    windows: impl Iterator<Item = W> + Send,
    work: impl Fn(FillMode, usize, W) + Sync,
) {
    let mode = |thread| match thread {
        0 => FillMode::Write,
        _ => FillMode::Touch,
    };
    let done: Result<(), std::convert::Infallible> = parallel::try_for_each_with(
        threads,
        windows.enumerate(),
        |thread| Ok(mode(thread)),
        |mode, (index, window)| {
            work(*mode, index * WINDOW, window);
            Ok(())
        },
    );
    let Ok(()) = done;
}

/// Returns the number of threads that pay off for this many bytes.
fn threads_for(bytes: usize) -> usize {
    parallel::threads(bytes / PER_THREAD)
}

/// Returns the number of elements for each of `threads`, so that no two threads write to one page (except for elements that
/// are larger than a page).
fn chunk_for(len: usize, threads: usize, size: usize) -> usize {
    let per_page = (4096 / size.max(1)).max(1);
    len.div_ceil(threads).next_multiple_of(per_page).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn copies_of_any_length_are_complete() {
        for len in [0, 1, 4095, 3 * PER_THREAD + 7] {
            let mut source: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let mut target = vec![0; len];
            copy(&mut target, &source, |_, _| false);
            assert!(target == source);
            let expected = target.clone();
            target.fill(0);
            copy_and_release(&mut target, &mut source, |_, _| false);
            assert!(target == expected);
        }
    }

    #[test]
    fn each_window_is_written_or_touched_but_not_both() {
        let source: Vec<u8> = (0..3 * WINDOW + 70_000).map(|i| (i % 251) as u8).collect();
        let written = Mutex::new(vec![0; source.len()]);
        let mut touched = vec![0; source.len()];
        copy(&mut touched, &source, |start, part| {
            let mut written = written.lock().expect("not poisoned");
            written[start..start + part.len()].copy_from_slice(part);
            true
        });
        let written = written.into_inner().expect("not poisoned");
        let whole = written.iter().zip(&touched).map(|(a, b)| a | b);
        assert!(whole.eq(source.iter().copied()));
        let pairs = written.chunks(WINDOW).zip(touched.chunks(WINDOW));
        let twice = pairs.filter(|(a, b)| a.iter().any(|x| *x != 0) && b.iter().any(|x| *x != 0));
        assert_eq!(twice.count(), 0, "windows were written and touched");
    }

    #[test]
    fn fill_in_parallel_visits_each_index_once() {
        for len in [0, 1, 511, 512, 513, (3 << 20) / 8 + 5] {
            let mut target = vec![0_u64; len];
            fill_in_parallel(&mut target, |start, part| {
                for (index, slot) in (start..).zip(part) {
                    *slot += index as u64 + 1;
                }
            });
            assert!(target.iter().enumerate().all(|(index, n)| *n == index as u64 + 1));
        }
    }
}
